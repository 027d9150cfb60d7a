/**
 * `EtcdStore`: a store of several machines on [etcd](https://etcd.io) 3.4 or later. All entries under a prefix are in
 * memory, as one watch shows them.
 * @module
 */
import { Emitter } from '../base/emitter.ts';
import { checkDuration } from '../base/option-check.ts';
import { ApiMisuseError, StoreDoubtError, StoreError, StoreUnavailableError } from '../errors.ts';
import { CommitWrites } from '../store/changes.ts';
import type { Change, Entry, Guard, RestorableStore, StoreLease, Write } from '../store/store.ts';
import { CallError } from './call-error.ts';
import { CommitOrder } from './commit-order.ts';
import { EtcdConnection } from './connection.ts';
import { EtcdLease } from './etcd-lease.ts';
import type { Keyspace } from './keyspace.ts';
import { type EtcdStoreEvents, type EtcdStoreState, Mirror } from './mirror.ts';
import { type EtcdSettings, type EtcdStoreOptions, resolveEtcdStore } from './options.ts';
import { type Outcome, Transaction } from './transaction.ts';

/**
 * A store on etcd. `get` and `list` return what its watch has shown. When `commit` resolves, the watch has shown it and
 * the watchers of this process have been called. While etcd cannot be reached, reading goes on.
 */
export class EtcdStore extends Emitter<EtcdStoreEvents> implements RestorableStore {
  /** 120: etcd takes at most 128 operations. */
  readonly maxWrites: number = MAX_WRITES;
  readonly #options: EtcdStoreOptions;
  readonly #settings: EtcdSettings;
  readonly #connection: EtcdConnection;
  readonly #mirror: Mirror;
  readonly #order = new CommitOrder(MAX_UNDER_WAY);
  readonly #commits = new Set<Promise<void>>();
  readonly #leases = new Set<EtcdLease>();
  #closing: Promise<void> | undefined;

  private constructor(
    options: EtcdStoreOptions,
    settings: EtcdSettings,
    connection: EtcdConnection
  ) {
    super();
    this.#options = options;
    this.#settings = settings;
    this.#connection = connection;
    this.#mirror = new Mirror(connection, settings);
    this.#mirror.on('problem', (problem) => this.emit('problem', problem));
    this.#mirror.on('state', (change) => {
      if (change.state === 'replaced') this.#abandonLeases('is given up: etcd has other data');
      this.emit('state', change);
    });
  }

  /**
   * Connects, reads all entries and begins to watch.
   *
   * @throws {ApiMisuseError} if an option is invalid.
   * @throws {EnvironmentError} if the packages of gRPC are not installed.
   * @throws {StoreUnavailableError} if etcd does not answer within `requestTimeoutMs`.
   * @throws {StoreError} if etcd refuses, or a key or a value under the prefix is not one of a store.
   */
  static async open(options: EtcdStoreOptions): Promise<EtcdStore> {
    const settings = resolveEtcdStore(options);
    const store = new EtcdStore(options, settings, await EtcdConnection.open(settings));
    try {
      await store.#mirror.open();
      return store;
    } catch (error) {
      await store.close();
      throw storeErrorOf(error);
    }
  }

  /** Whether this process shows what etcd has. */
  get state(): EtcdStoreState {
    return this.#mirror.state;
  }

  /** The id of etcd's cluster. A restored one has another only with another `--initial-cluster-token`. */
  get clusterId(): string {
    return this.#mirror.clusterId;
  }

  /** Whether etcd has other data than this process shows. */
  get isReplaced(): boolean {
    return this.#mirror.state === 'replaced';
  }

  get version(): number {
    return this.#mirror.table.version;
  }

  async get(key: string): Promise<Entry | undefined> {
    this.#assertOpen();
    return this.#mirror.table.get(key);
  }

  async list(prefix: string): Promise<Entry[]> {
    this.#assertOpen();
    return this.#mirror.table.list(prefix);
  }

  /**
   * See `Store`. Commits of this process that have a key in common are applied in the order of the calls.
   *
   * @throws {StoreReplacedError} if etcd has other data than when the store was opened; then nothing was written.
   */
  async commit(writes: readonly Write[], guards: readonly Guard[] = []): Promise<void> {
    this.#assertOpen();
    const count = writes.length + guards.length;
    if (count > MAX_WRITES) {
      throw new ApiMisuseError(
        `a commit has ${count} writes and guards, and etcd takes ${MAX_WRITES}: divide it`
      );
    }
    const given = new CommitWrites(writes, guards);
    const written = new Set(given.frozen.map(({ key }) => key));
    const read = given.guards.map(({ key }) => key).filter((key) => !written.has(key));
    const deadlineMs = this.#nowMs() + this.#settings.requestTimeoutMs;
    const commit = this.#order.run([...written], read, () => this.#commit(given, deadlineMs));
    this.#commits.add(commit);
    try {
      await commit;
    } finally {
      this.#commits.delete(commit);
    }
  }

  watch(prefix: string, listener: (changes: readonly Change[]) => void): () => void {
    this.#assertOpen();
    return this.#mirror.table.watch(prefix, listener);
  }

  /** See `LeasingStore`. etcd counts seconds, and lengthens what is shorter than its own limit: 2 s by default. */
  async grant(ttlMs: number): Promise<StoreLease> {
    this.#assertOpen();
    checkDuration('ttlMs', ttlMs);
    await this.#mirror.connected();
    const askedAtMs = this.#nowMs();
    try {
      const answer = await this.#connection.call(
        '/etcdserverpb.Lease/LeaseGrant',
        { TTL: Math.ceil(ttlMs / 1000) },
        { timeoutMs: this.#settings.requestTimeoutMs, isRepeatable: true }
      );
      this.#mirror.check(answer.header);
      const freshAtMs = (): number => this.#mirror.freshAtMs;
      const lease = new EtcdLease(answer, askedAtMs, freshAtMs, this.#connection, this.#settings);
      this.#leases.add(lease);
      lease.ended.addEventListener('abort', () => this.#leases.delete(lease));
      return lease;
    } catch (error) {
      throw storeErrorOf(error);
    }
  }

  /**
   * Opens the data that etcd has now, over a connection of its own; see `RestorableStore`.
   *
   * @throws what `EtcdStore.open` throws.
   */
  openRestored(): Promise<EtcdStore> {
    return EtcdStore.open(this.#options);
  }

  /** See `RestorableStore`. The leases of this store end. */
  async goOver(): Promise<void> {
    this.#assertOpen();
    try {
      await this.#mirror.goOver();
    } catch (error) {
      throw storeErrorOf(error);
    }
  }

  /** Waits for commits in progress, then ends watches and connections. Its leases are not renewed any more. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** The same as `close`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    await Promise.allSettled(this.#commits);
    this.#abandonLeases('is not renewed any more');
    const closed = this.#mirror.close();
    this.#connection.close();
    await closed;
    this.#mirror.table.unwatchAll();
  }

  /** @param deadlineMs until when it may wait for a lost connection, on the monotonic clock */
  async #commit(given: CommitWrites, deadlineMs: number): Promise<void> {
    await this.#mirror.connected(deadlineMs - this.#nowMs());
    for (const [key, lease] of given.leases) {
      // Another process has the lease if there is no signal.
      if ((lease as Partial<StoreLease>).ended?.aborted !== true) continue;
      throw new StoreError(`"${key}" is not written: its lease ${lease.id} has ended`);
    }
    const { table, keyspace } = this.#mirror;
    const outcome = await this.#transact(given, keyspace);
    if (!outcome.isApplied) {
      const { present, at, error } = outcome;
      // A caller who looks again must find what is in the way.
      const isSeen = ([key, version]: [string, number]): boolean =>
        version === 0 ? table.versionOf(key) === 0 : table.version >= version;
      await this.#seen(() => table.version >= at || [...present].every(isSeen));
      throw error;
    }
    const { version } = outcome;
    // After `goOver`, a later version proves nothing.
    const isSame = (): boolean => this.#mirror.keyspace === keyspace;
    if (version === undefined) return;
    if ((await this.#seen(() => table.version >= version)) && isSame()) return;
    throw new StoreDoubtError(
      `etcd has applied the commit as revision ${version}, and its watch has not shown it for ${this.#settings.requestTimeoutMs} ms: look whether it is there`
    );
  }

  async #transact(given: CommitWrites, keyspace: Keyspace): Promise<Outcome> {
    const transaction = new Transaction(given, keyspace);
    try {
      const answer = await this.#connection.call('/etcdserverpb.KV/Txn', transaction.request, {
        timeoutMs: this.#settings.requestTimeoutMs,
        isRepeatable: false,
      });
      this.#mirror.check(answer.header, true);
      return transaction.outcomeOf(answer);
    } catch (error) {
      if (error instanceof CallError && error.isDoubtful) {
        throw new StoreDoubtError(
          `etcd has not answered a commit, which may be applied, also later: ${error.message}`,
          { cause: error }
        );
      }
      throw storeErrorOf(error);
    }
  }

  /** Waits until the watch has shown something, and begins a new watch if it does not. */
  async #seen(isOver: () => boolean): Promise<boolean> {
    const isSeen = await this.#mirror.until(isOver);
    if (!isSeen) this.#mirror.restart('it has not shown a change that etcd has');
    return isSeen;
  }

  #nowMs(): number {
    return this.#settings.clock.monotonicMs();
  }

  #abandonLeases(how: string): void {
    for (const lease of this.#leases) lease.abandon(how);
  }

  #assertOpen(): void {
    if (this.#closing !== undefined) throw new StoreError('the store is closed');
  }
}

/** Returns what a failed call means to the user of a store. */
function storeErrorOf(cause: unknown): unknown {
  if (!(cause instanceof CallError)) return cause;
  if (cause.isUnavailable) {
    return new StoreUnavailableError(`${cause.message}: check etcd and the network`, { cause });
  }
  const advice = ADVICE.find(([pattern]) => pattern.test(cause.details))?.[1] ?? 'see its log';
  return new StoreError(`etcd refuses, ${cause.details}: ${advice}`, { cause });
}

/** What to do about refusals of etcd, by its words. */
const ADVICE: readonly (readonly [RegExp, string])[] = [
  [/database space exceeded/, 'compact and defragment it, then run `etcdctl alarm disarm`'],
  [/lease not found/, 'the lease has ended'],
  [/permission denied/, 'give the user a role that may read and write the prefix'],
  [/user name is empty|invalid user ID or password/, 'check the user and the password'],
  [/request is too large/, 'a value is too long for it'],
];
/** etcd takes 128 operations by default (`--max-txn-ops`). */
const MAX_WRITES = 120;
const MAX_UNDER_WAY = 64;
