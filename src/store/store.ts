/**
 * What a store of desired state, leases, tokens and revocations promises: entries with versions,
 * changed by all-or-nothing commits that are durable before they resolve, and watched. The shape is
 * that of etcd's transactions, so that one store fits a single machine and a cluster.
 *
 * Keys are slash-separated paths (`site/site-a`, `lease/cloud/100.64.0.2`).
 * @module
 */

/** Anything `JSON.stringify` keeps without loss. */
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
  /** Number of the commit that last wrote the entry; grows, never 0. */
  readonly version: number;
}

export interface Write {
  readonly key: string;
  /** `undefined` deletes the entry. */
  readonly value: Json | undefined;
  /** The version the entry must still have, 0 for an entry that must not exist; absent: any. */
  readonly expect?: number;
}

/** An entry after a commit; `value` is `undefined` when it was deleted. */
export interface Change {
  readonly key: string;
  readonly value: Json | undefined;
  readonly version: number;
}

export interface Store {
  get(key: string): Promise<Entry | undefined>;

  /** All entries whose key starts with `prefix`, sorted by key. */
  list(prefix: string): Promise<Entry[]>;

  /**
   * Applies all writes or none. When it resolves they are durable: a crash right after loses none.
   *
   * @throws {StoreConflictError} if an `expect` does not hold; nothing was written then.
   * @throws {StoreError} if the medium fails; nothing was written then.
   */
  commit(writes: readonly Write[]): Promise<void>;

  /**
   * Calls `listener` after every commit, of any writer, that changed a key under `prefix`; each call
   * brings the changes of one commit, in commit order. Returns the function that ends the watch.
   */
  watch(prefix: string, listener: (changes: readonly Change[]) => void): () => void;

  /** Waits for commits under way, then frees files and connections. */
  close(): Promise<void>;
}
