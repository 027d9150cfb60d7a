/**
 * The entries of a store in memory, and their watchers. Each store checks a commit against the table, makes it durable
 * in its own way, and then applies it to the table.
 * @module
 */
import { ApiMisuseError, StoreConflictError } from '../errors.ts';
import { frozenJson } from './json.ts';
import type { Change, Entry, Write } from './store.ts';

export type WatchListener = (changes: readonly Change[]) => void;

interface Watcher {
  readonly prefix: string;
  readonly listener: WatchListener;
}

/** Entries by key, with watchers. */
export class EntryTable {
  readonly #entries = new Map<string, Entry>();
  readonly #watchers = new Set<Watcher>();
  readonly #unnotified: { changes: readonly Change[]; watchers: readonly Watcher[] }[] = [];
  #isNotifying = false;

  /** The number of the last applied commit. */
  version = 0;

  get(key: string): Entry | undefined {
    return this.#entries.get(key);
  }

  /** Returns all entries, in no particular order. */
  entries(): IterableIterator<Entry> {
    return this.#entries.values();
  }

  list(prefix: string): Entry[] {
    const found: Entry[] = [];
    for (const entry of this.#entries.values()) {
      if (entry.key.startsWith(prefix)) found.push(entry);
    }
    return found.sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  /** Applies changes without calling watchers. */
  load(changes: readonly Change[]): void {
    for (const { key, value, version } of changes) {
      if (value === undefined) this.#entries.delete(key);
      else this.#entries.set(key, Object.freeze({ key, value, version }));
      this.version = Math.max(this.version, version);
    }
  }

  /**
   * Applies the changes of one commit and calls the watchers before it returns. If a watcher makes the commit, the
   * watchers are called for it only after all of them have been called for the commit before.
   */
  apply(changes: readonly Change[]): void {
    if (changes.length === 0) return;
    this.load(changes);
    const queue = this.#unnotified;
    queue.push({ changes, watchers: [...this.#watchers] });
    if (this.#isNotifying) return;
    this.#isNotifying = true;
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      for (const watcher of next.watchers) this.#notify(watcher, next.changes);
    }
    this.#isNotifying = false;
  }

  watch(prefix: string, listener: WatchListener): () => void {
    const watcher = { prefix, listener };
    this.#watchers.add(watcher);
    return () => {
      this.#watchers.delete(watcher);
    };
  }

  unwatchAll(): void {
    this.#watchers.clear();
  }

  #notify(watcher: Watcher, changes: readonly Change[]): void {
    if (!this.#watchers.has(watcher)) return;
    const seen = changes.filter((change) => change.key.startsWith(watcher.prefix));
    if (seen.length === 0) return;
    try {
      watcher.listener(seen);
    } catch (error) {
      // The commit has happened and the other watchers must be called, so the error goes to the process.
      queueMicrotask(() => {
        throw error;
      });
    }
  }
}

/**
 * Copies the writes of a commit, so that later changes by the caller have no effect.
 *
 * @throws {ApiMisuseError} if a key is empty or written twice, or a value is not JSON.
 */
export function frozenWrites(writes: readonly Write[]): readonly Write[] {
  const keys = new Set<string>();
  return writes.map((write) => {
    if (typeof write.key !== 'string' || write.key === '') {
      throw new ApiMisuseError('the key of a write is empty');
    }
    if (keys.has(write.key)) throw new ApiMisuseError(`a commit writes "${write.key}" twice`);
    keys.add(write.key);
    return write.value === undefined ? { ...write } : { ...write, value: frozenJson(write.value) };
  });
}

/**
 * Returns the changes that commit number `version` makes. The deletion of an entry that does not exist is no change.
 *
 * @param versionOf returns the present version of an entry, 0 if there is none
 * @throws {StoreConflictError} if an entry does not have the version in `expect`.
 */
export function changesOf(
  writes: readonly Write[],
  version: number,
  versionOf: (key: string) => number
): readonly Change[] {
  const changes: Change[] = [];
  for (const { key, value, expect } of writes) {
    const current = versionOf(key);
    if (expect !== undefined && expect !== current) {
      throw new StoreConflictError(
        `"${key}" is at version ${current}, not at the expected ${expect}`
      );
    }
    if (value !== undefined || current !== 0) changes.push(Object.freeze({ key, value, version }));
  }
  return changes;
}
