/**
 * The entries of a store that lives in this process, and who watches them. Every store here checks a
 * commit against the table first, makes it durable in its own way, and then applies it.
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

export class EntryTable {
  readonly #entries = new Map<string, Entry>();
  readonly #watchers = new Set<Watcher>();
  readonly #untold: { changes: readonly Change[]; watchers: readonly Watcher[] }[] = [];
  #telling = false;

  /** Number of the last commit applied. */
  version = 0;

  get(key: string): Entry | undefined {
    return this.#entries.get(key);
  }

  /** All entries, in no particular order. */
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

  /** Puts changes in place without telling anyone: for loading. */
  load(changes: readonly Change[]): void {
    for (const { key, value, version } of changes) {
      if (value === undefined) this.#entries.delete(key);
      else this.#entries.set(key, Object.freeze({ key, value, version }));
      this.version = Math.max(this.version, version);
    }
  }

  /**
   * Puts the changes of one commit in place and tells the watchers, before it returns unless a
   * watcher made this commit: then after that watcher's own commit has been told to all.
   */
  apply(changes: readonly Change[]): void {
    if (changes.length === 0) return;
    this.load(changes);
    this.#untold.push({ changes, watchers: [...this.#watchers] });
    if (this.#telling) return;
    this.#telling = true;
    for (let next = this.#untold.shift(); next !== undefined; next = this.#untold.shift()) {
      for (const watcher of next.watchers) this.#tell(watcher, next.changes);
    }
    this.#telling = false;
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

  #tell(watcher: Watcher, changes: readonly Change[]): void {
    if (!this.#watchers.has(watcher)) return;
    const seen = changes.filter((change) => change.key.startsWith(watcher.prefix));
    if (seen.length === 0) return;
    try {
      watcher.listener(seen);
    } catch (error) {
      // The commit stands and the others are to hear of it: the fault goes to the process instead.
      queueMicrotask(() => {
        throw error;
      });
    }
  }
}

/**
 * Copies the writes of a commit, so that the caller may change its objects at once.
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
 * The changes that commit number `version` would make, given what `versionOf` says of an entry now
 * (0: there is none). To delete what is not there changes nothing.
 *
 * @throws {StoreConflictError} if an `expect` does not hold.
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
