/**
 * A store in memory, for tests and for programs that derive all state again at each start.
 * @module
 */
import { StoreError } from '../errors.ts';
import type { Change, Entry, Store, Write } from './store.ts';
import { changesOf, EntryTable, frozenWrites } from './table.ts';

/** A store that is lost when the process ends. When `commit` resolves, watchers have been called. Values are frozen. */
export class MemoryStore implements Store {
  readonly #table = new EntryTable();
  #closing: Promise<void> | undefined;

  async get(key: string): Promise<Entry | undefined> {
    this.#assertOpen();
    return this.#table.get(key);
  }

  async list(prefix: string): Promise<Entry[]> {
    this.#assertOpen();
    return this.#table.list(prefix);
  }

  async commit(writes: readonly Write[]): Promise<void> {
    this.#assertOpen();
    const table = this.#table;
    const versionOf = (key: string): number => table.get(key)?.version ?? 0;
    table.apply(changesOf(frozenWrites(writes), table.version + 1, versionOf));
  }

  watch(prefix: string, listener: (changes: readonly Change[]) => void): () => void {
    this.#assertOpen();
    return this.#table.watch(prefix, listener);
  }

  /** Ends all watches. Safe to call twice. */
  close(): Promise<void> {
    this.#table.unwatchAll();
    this.#closing ??= Promise.resolve();
    return this.#closing;
  }

  /** The same as `close`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #assertOpen(): void {
    if (this.#closing !== undefined) throw new StoreError('the store is closed');
  }
}
