/**
 * The interface of a store for desired state, leases, tokens and revocations. Entries have versions, commits are atomic
 * and durable before they resolve, and changes can be watched. It is modelled on etcd's transactions, so that it fits
 * both a single machine and a cluster.
 *
 * Keys are slash-separated paths (`site/site-a`, `lease/cloud/100.64.0.2`).
 * @module
 */

/** A value that `JSON.stringify` preserves. */
export type Json =
  | null
  | boolean
  | number
  | string
  | readonly Json[]
  | { readonly [key: string]: Json };

export interface Entry {
  readonly key: string;
  readonly value: Json;
  /** The number of the commit that last wrote the entry. It only increases and is never 0. */
  readonly version: number;
}

/** Names a lease, also that of another process. */
export interface LeaseReference {
  readonly id: string;
}

export interface Write {
  readonly key: string;
  /** `undefined` deletes the entry. */
  readonly value: Json | undefined;
  /** The version that the entry must have; 0 if it must not exist; absent: any. */
  readonly expect?: number;
  /** The lease with which the entry ends; absent: none, also if the entry had one before. Only a `LeasingStore` has it. */
  readonly lease?: LeaseReference;
}

/** A condition of a commit on an entry that it does not write. */
export interface Guard {
  readonly key: string;
  /** The version that the entry must have; 0 if it must not exist. */
  readonly version: number;
}

/** A change of an entry by a commit; `value` is `undefined` if the entry was deleted. */
export interface Change {
  readonly key: string;
  readonly value: Json | undefined;
  readonly version: number;
}

export interface Store {
  /** How many writes and guards one commit may have; absent: any number. */
  readonly maxWrites?: number;

  get(key: string): Promise<Entry | undefined>;

  /** Returns all entries whose key starts with `prefix`, sorted by key. */
  list(prefix: string): Promise<Entry[]>;

  /**
   * Applies all writes or none. When it resolves, they are durable and survive a crash, and the watchers of this process
   * have been called. The writes and their values must not be changed before it settles.
   *
   * @param guards conditions on other entries
   * @throws {StoreConflictError} if an entry does not have the version in `expect` or in a guard; then nothing was written.
   * @throws {StoreDoubtError} if a server has not answered: the writes may be applied, also after this.
   * @throws {StoreUnavailableError} if the store cannot be reached; then nothing was written.
   * @throws {StoreError} if the medium fails, or a lease of the writes has ended; then nothing was written.
   * @throws {ApiMisuseError} if there are more than `maxWrites`, a key is empty or written twice, or a value is not JSON.
   */
  commit(writes: readonly Write[], guards?: readonly Guard[]): Promise<void>;

  /**
   * Calls `listener` after every commit, by any writer, that changed a key under `prefix`. Each call has the changes of
   * one commit, in the order of the commits. After a store of several machines could not be reached, one call has the
   * difference: each entry that is not as it was, and a deletion has the version at which it was noticed. Returns a
   * function that ends the watch.
   */
  watch(prefix: string, listener: (changes: readonly Change[]) => void): () => void;

  /** Waits for commits in progress, then frees files and connections. */
  close(): Promise<void>;
}

/**
 * A lease: entries that are written with it are deleted together when it ends. The store renews it, until `revoke` is
 * called or no renewal has succeeded for `ttlMs`.
 */
export interface StoreLease extends LeaseReference {
  /** Names the lease at the store. */
  readonly id: string;
  readonly ttlMs: number;
  /**
   * Aborted when the lease has ended, or when it may have ended because no renewal has succeeded for `ttlMs`. What was
   * done under the lease must then stop.
   */
  readonly ended: AbortSignal;
  /** Ends the lease, and deletes its entries. It does not throw: a lease that cannot be ended now expires. */
  revoke(): Promise<void>;
}

/** A store whose entries may end with a lease, so that they say who is alive. */
export interface LeasingStore extends Store {
  /**
   * Names the store's data: it differs for two stores, and for a store that was restored from a backup.
   */
  readonly clusterId: string;

  /** The version that all watchers have seen: no later commit has reached this process. */
  readonly version: number;

  /**
   * Begins a lease and renews it from then on.
   *
   * @param ttlMs for how long it lasts without a renewal; the store may lengthen it, see `StoreLease.ttlMs`
   * @throws {StoreUnavailableError} if the store does not answer.
   */
  grant(ttlMs: number): Promise<StoreLease>;
}

/**
 * A store whose data may be replaced by that of a backup while processes use it. Such a process shows what it has seen
 * before, and its commits fail with `StoreReplacedError`, until it goes over.
 */
export interface RestorableStore extends LeasingStore {
  /** Whether the store has other data than this process shows. */
  readonly isReplaced: boolean;

  /**
   * Opens the data that the store has now, as a store of its own. The caller closes it.
   *
   * @throws {StoreError} if it cannot be read.
   */
  openRestored(): Promise<LeasingStore>;

  /**
   * Shows the data that the store has now. Watchers are called once with the difference. Its versions are later than all
   * before, by `StoreMeta.versionBase`; so each entry that stays has another version, and is told too.
   *
   * @throws {StoreReplacedError} if its versions are not later than those that this process has seen: start it again.
   * @throws {StoreError} if it cannot be read; then it can be tried again.
   */
  goOver(): Promise<void>;
}
