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

export interface Write {
  readonly key: string;
  /** `undefined` deletes the entry. */
  readonly value: Json | undefined;
  /** The version that the entry must have; 0 if it must not exist; absent: any. */
  readonly expect?: number;
}

/** A change of an entry by a commit; `value` is `undefined` if the entry was deleted. */
export interface Change {
  readonly key: string;
  readonly value: Json | undefined;
  readonly version: number;
}

export interface Store {
  get(key: string): Promise<Entry | undefined>;

  /** Returns all entries whose key starts with `prefix`, sorted by key. */
  list(prefix: string): Promise<Entry[]>;

  /**
   * Applies all writes or none. When it resolves, they are durable and survive a crash. The writes and their values must
   * not be changed before it settles.
   *
   * @throws {StoreConflictError} if an entry does not have the version in `expect`; then nothing was written.
   * @throws {StoreError} if the medium fails; then nothing was written.
   */
  commit(writes: readonly Write[]): Promise<void>;

  /**
   * Calls `listener` after every commit, by any writer, that changed a key under `prefix`. Each call has the changes of
   * one commit, in the order of the commits. Returns a function that ends the watch.
   */
  watch(prefix: string, listener: (changes: readonly Change[]) => void): () => void;

  /** Waits for commits in progress, then frees files and connections. */
  close(): Promise<void>;
}
