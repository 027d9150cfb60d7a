/**
 * A store in memory that can be replaced by a backup, as etcd can: what has seen it before shows that until it goes over.
 * @module
 */
import { StoreReplacedError } from '../../src/errors.ts';
import { differenceOf } from '../../src/store/difference.ts';
import {
  type Change,
  type Entry,
  type Guard,
  type LeasingStore,
  MemoryStore,
  type RestorableStore,
  type StoreLease,
  type Write,
} from '../../src/store/index.ts';
import { META_KEY, versionBaseOf } from '../../src/store/meta.ts';
import { EntryTable } from '../../src/store/table.ts';
import type { FakeClock } from '../support/fake-clock.ts';

/** The data that all handles share. */
export class Backups {
  readonly #clock: FakeClock;
  data: MemoryStore;
  readonly handles: Set<RestorableHandle> = new Set();

  constructor(clock: FakeClock) {
    this.#clock = clock;
    this.data = new MemoryStore({ clock });
  }

  async save(): Promise<readonly Entry[]> {
    return this.data.list('');
  }

  /** Replaces the data. Its versions are those of the backup, as far as that is possible. */
  async restore(backup: readonly Entry[]): Promise<void> {
    const base = versionBaseOf(backup.find(({ key }) => key === META_KEY)?.value);
    const data = new MemoryStore({ clock: this.#clock });
    for (const { key, value, version } of [...backup].sort((a, b) => a.version - b.version)) {
      while (data.version < version - base - 1) {
        await data.commit([{ key: 'other', value: data.version }]);
      }
      await data.commit([{ key, value }]);
    }
    this.data = data;
    for (const handle of this.handles) handle.notice();
  }
}

/** One process's way to the data. */
export class RestorableHandle implements RestorableStore {
  readonly #backups: Backups;
  readonly #watched = new EntryTable();
  readonly #leases = new Set<StoreLease>();
  #data: MemoryStore;
  #handle: MemoryStore;
  #base = 0;
  /** What the store had when it was replaced. */
  #before: readonly Entry[] = [];
  #beforeVersion = 0;
  #isCut = false;

  private constructor(backups: Backups) {
    this.#backups = backups;
    this.#data = backups.data;
    this.#handle = backups.data.handle();
    backups.handles.add(this);
  }

  static async open(backups: Backups): Promise<RestorableHandle> {
    const handle = new RestorableHandle(backups);
    await handle.#take();
    return handle;
  }

  /** Whether this process does not reach the store. */
  set isCut(isCut: boolean) {
    this.#isCut = isCut;
    if (isCut) this.#handle.disconnect();
    else this.#handle.reconnect();
  }

  /** Notices that the data was replaced. */
  notice(): void {
    for (const lease of this.#leases) void lease.revoke();
  }

  get isReplaced(): boolean {
    return !this.#isCut && this.#data !== this.#backups.data;
  }

  get clusterId(): string {
    return this.#handle.clusterId;
  }

  get version(): number {
    return this.#handle.version + this.#base;
  }

  async openRestored(): Promise<LeasingStore> {
    return RestorableHandle.open(this.#backups);
  }

  async goOver(): Promise<void> {
    this.#before = await this.list('');
    this.#beforeVersion = this.version;
    const old = this.#handle;
    this.#data = this.#backups.data;
    this.#handle = this.#data.handle();
    await this.#take();
    if (old.clusterId !== this.clusterId) await old.close();
    if (this.#base < this.#beforeVersion) throw new StoreReplacedError('start this process again');
    const table = new EntryTable();
    table.load(this.#before);
    const changes = [...differenceOf(table, await this.list(''), this.version)];
    this.#watched.applyAtOnce(changes.filter((change) => change !== undefined));
  }

  async get(key: string): Promise<Entry | undefined> {
    const entry = await this.#handle.get(key);
    return entry && { ...entry, version: entry.version + this.#base };
  }

  async list(prefix: string): Promise<Entry[]> {
    const entries = await this.#handle.list(prefix);
    return entries.map((entry) => ({ ...entry, version: entry.version + this.#base }));
  }

  async commit(writes: readonly Write[], guards: readonly Guard[] = []): Promise<void> {
    if (this.isReplaced) throw new StoreReplacedError('the store has other data');
    const of = (version: number): number => (version === 0 ? 0 : version - this.#base);
    await this.#handle.commit(
      writes.map(({ expect, ...write }) =>
        expect === undefined ? write : { ...write, expect: of(expect) }
      ),
      guards.map(({ key, version }) => ({ key, version: of(version) }))
    );
  }

  watch(prefix: string, listener: (changes: readonly Change[]) => void): () => void {
    return this.#watched.watch(prefix, listener);
  }

  async grant(ttlMs: number): Promise<StoreLease> {
    if (this.isReplaced) throw new StoreReplacedError('the store has other data');
    const lease = await this.#handle.grant(ttlMs);
    this.#leases.add(lease);
    return lease;
  }

  close(): Promise<void> {
    this.#backups.handles.delete(this);
    this.#watched.unwatchAll();
    return this.#handle.close();
  }

  async #take(): Promise<void> {
    this.#base = versionBaseOf((await this.#handle.get(META_KEY))?.value);
    const base = this.#base;
    this.#handle.watch('', (changes) => {
      if (base !== this.#base) return;
      this.#watched.applyAtOnce(
        changes.map((change) => ({ ...change, version: change.version + base }))
      );
    });
  }
}
