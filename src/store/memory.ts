/**
 * A store in memory, for tests and for programs that derive all state again at each start. Several handles on it stand
 * for several processes on one store.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { checkClock, checkDuration, checkObject } from '../base/option-check.ts';
import { StoreError, StoreUnavailableError } from '../errors.ts';
import { CommitWrites } from './changes.ts';
import { differenceOf } from './difference.ts';
import { MemoryData } from './memory-data.ts';
import { MemoryLease } from './memory-lease.ts';
import type { Change, Entry, Guard, LeasingStore, StoreLease, Write } from './store.ts';
import { EntryTable } from './table.ts';

export interface MemoryStoreOptions {
  /** Measures for how long leases are not renewed; default: the system's. */
  readonly clock?: Clock;
}

interface Watcher {
  readonly prefix: string;
  readonly listener: (changes: readonly Change[]) => void;
}

/**
 * A store that is lost when the process ends. When `commit` resolves, watchers have been called. Values are frozen. The
 * leases of a handle are renewed while it is connected.
 */
export class MemoryStore implements LeasingStore {
  readonly #clock: Clock;
  #data = new MemoryData();
  /** What ends each watch. */
  readonly #watchers = new Map<Watcher, () => void>();
  readonly #leases = new Set<MemoryLease>();
  /** The entries that this handle had when it was disconnected; undefined while it is connected. */
  #before: EntryTable | undefined;
  /** The version when it was last connected, up to which its watchers have seen all changes. */
  #seen = 0;
  #closing: Promise<void> | undefined;

  /** @throws {ApiMisuseError} if an option is invalid. */
  constructor(options: MemoryStoreOptions = {}) {
    this.#clock = checkClock(checkObject('the options of MemoryStore', options).clock);
  }

  /**
   * Returns another handle on the same entries, as another process has one. Its watches and leases are its own, and so
   * is whether it is connected and closed.
   */
  handle(): MemoryStore {
    const handle = new MemoryStore({ clock: this.#clock });
    handle.#data = this.#data;
    return handle;
  }

  get clusterId(): string {
    return this.#data.clusterId;
  }

  get version(): number {
    return this.#table.version;
  }

  async get(key: string): Promise<Entry | undefined> {
    this.#assertOpen();
    return this.#table.get(key);
  }

  async list(prefix: string): Promise<Entry[]> {
    this.#assertOpen();
    return this.#table.list(prefix);
  }

  async commit(writes: readonly Write[], guards: readonly Guard[] = []): Promise<void> {
    this.#assertOpen();
    const given = new CommitWrites(writes, guards);
    this.#assertConnected();
    await this.#data.commit(given);
  }

  watch(prefix: string, listener: (changes: readonly Change[]) => void): () => void {
    this.#assertOpen();
    const watcher = { prefix, listener };
    const unwatch = this.#data.table.watch(prefix, (changes) => {
      const isNew = this.isConnected && changes[0]!.version > this.#seen;
      if (isNew && this.#watchers.has(watcher)) listener(changes);
    });
    this.#watchers.set(watcher, unwatch);
    return () => {
      this.#watchers.delete(watcher);
      unwatch();
    };
  }

  async grant(ttlMs: number): Promise<StoreLease> {
    this.#assertOpen();
    checkDuration('ttlMs', ttlMs);
    this.#assertConnected();
    const lease = new MemoryLease(this.#data, this.#clock, ttlMs);
    this.#leases.add(lease);
    lease.ended.addEventListener('abort', () => this.#leases.delete(lease));
    return lease;
  }

  /** Whether this handle reaches the entries. */
  get isConnected(): boolean {
    return this.#before === undefined;
  }

  /**
   * Cuts this handle off from the entries, as a network does: it shows what it has, its commits fail with
   * `StoreUnavailableError`, and its leases are not renewed.
   */
  disconnect(): void {
    if (!this.isConnected) return;
    const before = new EntryTable();
    before.load(this.#data.table.entries());
    before.version = this.#data.table.version;
    this.#before = before;
    for (const lease of this.#leases) lease.isRenewed = false;
  }

  /** Connects this handle again. Its watchers are called with the difference before this returns. */
  reconnect(): void {
    const before = this.#before;
    if (before === undefined) return;
    const { table } = this.#data;
    for (const lease of this.#leases) lease.isRenewed = true;
    for (const watcher of this.#watchers.keys()) {
      before.watch(watcher.prefix, (changes) => {
        if (this.#watchers.has(watcher)) watcher.listener(changes);
      });
    }
    const changes = [...differenceOf(before, table.list(''), table.version)];
    this.#before = undefined;
    this.#seen = table.version;
    before.applyAtOnce(changes.filter((change) => change !== undefined));
  }

  /** Waits for commits in progress, then ends all watches. Its leases are not renewed any more. Safe to call twice. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** The same as `close`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    await this.#data.settled();
    for (const unwatch of this.#watchers.values()) unwatch();
    this.#watchers.clear();
    for (const lease of this.#leases) lease.abandon();
  }

  get #table(): EntryTable {
    return this.#before ?? this.#data.table;
  }

  #assertOpen(): void {
    if (this.#closing !== undefined) throw new StoreError('the store is closed');
  }

  #assertConnected(): void {
    if (this.isConnected) return;
    throw new StoreUnavailableError('this handle of the store in memory is disconnected');
  }
}
