/**
 * `EntryIndex`: the entries of one area of the store in memory, found by what they belong to, for example a site. So a
 * revocation costs what its site has, however many certificates and tokens there are. It also lists the entries in pages.
 *
 * The index follows the store by a watch, which may be late. A commit that must not miss an entry therefore also
 * writes the *mark* of the area. When the watch has delivered the mark, it has delivered everything before it;
 * otherwise `find` reads the area from the store.
 * @module
 */
import { SortedMap } from '../base/sorted-map.ts';
import type { Change, Entry, Json, Store, Write } from '../store/store.ts';

export class EntryIndex {
  readonly #store: Store;
  readonly #area: string;
  readonly #namesOf: (value: Json) => readonly string[];
  readonly #entries = new SortedMap<Entry>();
  readonly #byName = new Map<string, readonly Entry[]>();
  /** The index has every entry up to this commit. */
  #version = 0;
  #unwatch: () => void = () => {};

  private constructor(store: Store, area: string, namesOf: (value: Json) => readonly string[]) {
    this.#store = store;
    this.#area = area;
    this.#namesOf = namesOf;
  }

  /**
   * Opens an index of the entries `<area>/...`; the mark is the entry `<area>-mark`.
   *
   * @param namesOf returns the names by which an entry is found; it must not throw
   * @throws {StoreError} if the store cannot be read.
   */
  static async open(
    store: Store,
    area: string,
    namesOf: (value: Json) => readonly string[]
  ): Promise<EntryIndex> {
    const index = new EntryIndex(store, area, namesOf);
    let early: Change[] | undefined = [];
    index.#unwatch = store.watch(area, (changes) => {
      if (early === undefined) index.#apply(changes);
      else early.push(...changes);
    });
    try {
      // The list is at least as new as a mark that was read before it.
      const mark = await store.get(index.#markKey);
      const entries = await store.list(`${area}/`);
      index.#apply(mark === undefined ? entries : [mark, ...entries]);
    } catch (error) {
      index.close();
      throw error;
    }
    index.#apply(early);
    early = undefined;
    return index;
  }

  /** Returns the write that marks a commit, so that `find` can tell whether the index has all entries before it. */
  get mark(): Write {
    return { key: this.#markKey, value: null };
  }

  /**
   * Returns the entries with a name, in no particular order.
   *
   * @param version the version of a commit with the mark: no entry before it is missing
   * @throws {StoreError} if the watch has not delivered that commit yet, and the store cannot be read.
   */
  async find(name: string, version: number): Promise<readonly Entry[]> {
    if (this.#version >= version) return this.#byName.get(name) ?? [];
    const entries = await this.#store.list(`${this.#area}/`);
    return entries.filter(({ value }) => this.#namesOf(value).includes(name));
  }

  /**
   * Returns entries in the order of their keys: those behind `after`, which need not exist. A commit of another process
   * may be missing for as long as the watch is late. A page costs what it has, or what its name has.
   *
   * @param after the last part of a key; '' for the first page
   * @param name a name by which the entries are found; undefined: all
   */
  page(after: string, limit: number, name?: string): Entry[] {
    const key = `${this.#area}/${after}`;
    const page: Entry[] = [];
    if (name === undefined) {
      for (const each of this.#entries.keysAfter(key)) {
        page.push(this.#entries.get(each)!);
        if (page.length >= limit) break;
      }
      return page;
    }
    const named = (this.#byName.get(name) ?? []).filter((entry) => entry.key > key);
    return named.sort((a, b) => (a.key < b.key ? -1 : 1)).slice(0, limit);
  }

  /** The names, each with its entries in no particular order. */
  named(): Iterable<[string, readonly Entry[]]> {
    return this.#byName;
  }

  /**
   * Reads an entry from the store, so that the index has what this process has just written before the watch delivers
   * it.
   *
   * @throws {StoreError} if the store cannot be read.
   */
  async refresh(key: string): Promise<void> {
    const entry = await this.#store.get(key);
    // The watch delivers the deletion with its version; until then a late change may bring the entry back.
    if (entry === undefined) this.#forget(key);
    else this.#take(entry);
  }

  /** Stops following the store. Safe to call twice. */
  close(): void {
    this.#unwatch();
  }

  get #markKey(): string {
    return `${this.#area}-mark`;
  }

  #apply(changes: readonly Change[]): void {
    for (const change of changes) {
      this.#version = Math.max(this.#version, change.version);
      if (change.key.startsWith(`${this.#area}/`)) this.#take(change);
    }
  }

  /** Changes may arrive more than once; the newest version of an entry counts. */
  #take({ key, value, version }: Change): void {
    const before = this.#entries.get(key);
    if (before !== undefined && before.version >= version) return;
    this.#forget(key);
    if (value !== undefined) this.#add({ key, value, version });
  }

  #add(entry: Entry): void {
    this.#entries.set(entry.key, entry);
    for (const name of this.#namesOf(entry.value)) {
      this.#byName.set(name, [...(this.#byName.get(name) ?? []), entry]);
    }
  }

  #forget(key: string): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    this.#entries.delete(key);
    for (const name of this.#namesOf(entry.value)) {
      const others = this.#byName.get(name)!.filter((it) => it !== entry);
      if (others.length > 0) this.#byName.set(name, others);
      else this.#byName.delete(name);
    }
  }
}
