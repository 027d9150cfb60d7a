/**
 * The records under one prefix of a store, as the watch of this process shows them.
 * @module
 */
import * as v from 'valibot';
import type { Schema } from '../base/schema.ts';
import type { Change, LeasingStore } from '../store/index.ts';

/** A record with the version of its entry. */
export interface Followed<T> {
  readonly value: T;
  readonly version: number;
}

/**
 * Keeps the records under a prefix, by the rest of their keys. A value that does not match the schema counts as absent.
 * When a commit of this process resolves, its records are here.
 */
export class FollowedRecords<T> {
  readonly #prefix: string;
  readonly #schema: Schema<T>;
  readonly #onChange: (names: readonly string[]) => void;
  readonly #records = new Map<string, Followed<T>>();
  readonly #unwatch: () => void;
  /** Changes that came before the store was read. */
  #early: Change[] | undefined = [];

  private constructor(
    store: LeasingStore,
    prefix: string,
    schema: Schema<T>,
    onChange: (names: readonly string[]) => void
  ) {
    this.#prefix = prefix;
    this.#schema = schema;
    this.#onChange = onChange;
    this.#unwatch = store.watch(prefix, (changes) => {
      if (this.#early === undefined) this.#onChange(this.#take(changes));
      else this.#early.push(...changes);
    });
  }

  /**
   * Reads the records, and follows them from then on.
   *
   * @param onChange called after each later commit with the names whose records it may have changed
   * @throws {StoreError} if the store cannot be read.
   */
  static async open<T>(
    store: LeasingStore,
    prefix: string,
    schema: Schema<T>,
    onChange: (names: readonly string[]) => void
  ): Promise<FollowedRecords<T>> {
    const records = new FollowedRecords(store, prefix, schema, onChange);
    try {
      records.#take(await store.list(prefix));
    } catch (error) {
      records.close();
      throw error;
    }
    const early = records.#early!;
    records.#early = undefined;
    records.#take(early);
    return records;
  }

  get size(): number {
    return this.#records.size;
  }

  get(name: string): Followed<T> | undefined {
    return this.#records.get(name);
  }

  [Symbol.iterator](): IterableIterator<[string, Followed<T>]> {
    return this.#records.entries();
  }

  close(): void {
    this.#unwatch();
  }

  #take(changes: readonly Change[]): readonly string[] {
    const names: string[] = [];
    for (const { key, value, version } of changes) {
      const name = key.slice(this.#prefix.length);
      const known = this.#records.get(name);
      // A list may be newer than what the watch has shown so far.
      if (known !== undefined && version <= known.version) continue;
      const read = value === undefined ? undefined : v.safeParse(this.#schema, value);
      if (read?.success === true) this.#records.set(name, { value: read.output, version });
      else this.#records.delete(name);
      names.push(name);
    }
    return names;
  }
}
