/**
 * The entries of a store in memory, and their watchers. Each store checks a commit against the table, makes it durable
 * in its own way, and then applies it to the table.
 * @module
 */
import { type Slices, slicesOf } from '../base/slices.ts';
import { areMany } from './changes.ts';
import { textLengthOf } from './json.ts';
import { KeyMap } from './key-map.ts';
import type { Change, Entry } from './store.ts';

export type WatchListener = (changes: readonly Change[]) => void;

interface Watcher {
  readonly prefix: string;
  readonly listener: WatchListener;
}

/** The changes of one commit, and those that watchers of a prefix see, where that was determined before. */
interface Announcement {
  readonly changes: readonly Change[];
  readonly byPrefix: ReadonlyMap<string, readonly Change[]>;
}

/** Entries by key, with watchers. */
export class EntryTable {
  readonly #entries = new KeyMap<Entry>();
  /** The changes of a large commit that readers see, and that are not yet in `#entries`. */
  #newer: KeyMap<Change> | undefined;
  readonly #watchers = new Set<Watcher>();
  readonly #unnotified: { announcement: Announcement; watchers: readonly Watcher[] }[] = [];
  #isNotifying = false;
  #textLength = 0;

  /** The number of the last applied commit. */
  version = 0;

  /** About how many characters all entries have as JSON. */
  get textLength(): number {
    return this.#textLength;
  }

  get(key: string): Entry | undefined {
    const change = this.#newer?.get(key);
    return change === undefined ? this.#entries.get(key) : entryOf(change);
  }

  /** Returns the version of the entry; 0 if there is none. */
  versionOf(key: string): number {
    return this.get(key)?.version ?? 0;
  }

  /** Returns all entries, in no particular order. */
  entries(): Generator<Entry> {
    return this.#near('');
  }

  list(prefix: string): Entry[] {
    const found: Entry[] = [];
    for (const entry of this.#near(prefix)) {
      if (entry.key.startsWith(prefix)) found.push(entry);
    }
    return found.sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  /** Applies changes without calling watchers. */
  load(changes: Iterable<Change>): void {
    for (const change of changes) this.#load(change);
  }

  /**
   * Applies the changes of one commit, or a difference, and calls the watchers, once each. If the changes are many, readers see all of
   * them from one moment on, and the work before and after it is done in slices of the event loop. The table must not
   * be changed by others until this resolves.
   */
  async apply(changes: readonly Change[], slices: Slices = slicesOf()): Promise<void> {
    if (!areMany(changes)) {
      this.applyAtOnce(changes);
      return;
    }
    const newer = new KeyMap<Change>();
    let version = this.version;
    const byPrefix = new Map([...this.#watchers].map(({ prefix }) => [prefix, [] as Change[]]));
    for (const change of changes) {
      if (slices.isOver) await slices.next();
      newer.set(change.key, change);
      version = Math.max(version, change.version);
      for (const [prefix, seen] of byPrefix) if (change.key.startsWith(prefix)) seen.push(change);
    }
    this.#newer = newer;
    this.version = version;
    this.#announce({ changes, byPrefix });
    for (const change of changes) {
      if (slices.isOver) await slices.next();
      this.#load(change);
    }
    this.#newer = undefined;
  }

  /** The same for changes that are not many, without waiting. */
  applyAtOnce(changes: readonly Change[]): void {
    if (changes.length === 0) return;
    this.load(changes);
    this.#announce({ changes, byPrefix: new Map() });
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

  #load(change: Change): void {
    const entry = entryOf(change);
    const before =
      entry === undefined ? this.#entries.delete(change.key) : this.#entries.set(entry.key, entry);
    this.#textLength += lengthOf(entry) - lengthOf(before);
    this.version = Math.max(this.version, change.version);
  }

  *#near(prefix: string): Generator<Entry> {
    const newer = this.#newer;
    for (const entry of this.#entries.near(prefix)) {
      if (newer?.has(entry.key) !== true) yield entry;
    }
    for (const change of newer?.near(prefix) ?? []) {
      const entry = entryOf(change);
      if (entry !== undefined) yield entry;
    }
  }

  /**
   * Calls the watchers before it returns. If a watcher makes the next commit, the watchers are called for it only after
   * all of them have been called for the commit before.
   */
  #announce(announcement: Announcement): void {
    const queue = this.#unnotified;
    queue.push({ announcement, watchers: [...this.#watchers] });
    if (this.#isNotifying) return;
    this.#isNotifying = true;
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      for (const watcher of next.watchers) this.#notify(watcher, next.announcement);
    }
    this.#isNotifying = false;
  }

  #notify(watcher: Watcher, { changes, byPrefix }: Announcement): void {
    if (!this.#watchers.has(watcher)) return;
    const { prefix } = watcher;
    const seen = byPrefix.get(prefix) ?? changes.filter(({ key }) => key.startsWith(prefix));
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

/** Returns about how many characters an entry has as JSON. */
function lengthOf(entry: Entry | undefined): number {
  return entry === undefined ? 0 : entry.key.length + textLengthOf(entry.value) + AROUND_LENGTH;
}

/** Returns the entry that a change leaves. */
function entryOf(change: Change): Entry | undefined {
  return change.value === undefined ? undefined : (change as Entry);
}

/** The quotes of a key, its version of some digits, and what separates them. */
const AROUND_LENGTH = 12;
