/**
 * A store in memory, for tests and for programs that derive all state again at each start.
 * @module
 */
import { slicesOf } from '../base/slices.ts';
import { StoreError } from '../errors.ts';
import { CommitWrites } from './changes.ts';
import type { Change, Entry, Store, Write } from './store.ts';
import { EntryTable } from './table.ts';

/** A store that is lost when the process ends. When `commit` resolves, watchers have been called. Values are frozen. */
export class MemoryStore implements Store {
  readonly #table = new EntryTable();
  readonly #versionOf = (key: string): number => this.#table.versionOf(key);
  /** Resolves when the commits so far have settled; undefined if they have. */
  #committing: Promise<void> | undefined;
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
    const given = new CommitWrites(writes);
    const table = this.#table;
    if (this.#committing === undefined && !given.areMany) {
      table.applyAtOnce(given.changesAtOnce(table.version + 1, this.#versionOf));
      return;
    }
    const commit = this.#commitAfter(this.#committing, given);
    const settled = commit
      .catch(() => {})
      .then(() => {
        if (this.#committing === settled) this.#committing = undefined;
      });
    this.#committing = settled;
    await commit;
  }

  watch(prefix: string, listener: (changes: readonly Change[]) => void): () => void {
    this.#assertOpen();
    return this.#table.watch(prefix, listener);
  }

  /** Waits for commits in progress, then ends all watches. Safe to call twice. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** The same as `close`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    if (this.#committing !== undefined) await this.#committing;
    this.#table.unwatchAll();
  }

  async #commitAfter(earlier: Promise<void> | undefined, given: CommitWrites): Promise<void> {
    await earlier;
    const slices = slicesOf();
    const table = this.#table;
    await table.apply(await given.changes(table.version + 1, this.#versionOf, slices), slices);
  }

  #assertOpen(): void {
    if (this.#closing !== undefined) throw new StoreError('the store is closed');
  }
}
