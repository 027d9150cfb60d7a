/**
 * The difference between the entries that a process has and those of the store, after it has missed changes.
 * @module
 */
import { KeyMap } from './key-map.ts';
import type { Change, Entry } from './store.ts';
import type { EntryTable } from './table.ts';

/**
 * Yields the changes that make a table have exactly these entries, each after what is `undefined`, which is yielded for
 * an entry that has not changed. A reader can so divide the work into slices.
 *
 * @param version that of deletions, because nobody knows when they were
 */
export function* differenceOf(
  table: EntryTable,
  entries: readonly Entry[],
  version: number
): Generator<Change | undefined> {
  const keys = new KeyMap<true>();
  for (const entry of entries) {
    keys.set(entry.key, true);
    yield table.versionOf(entry.key) === entry.version ? undefined : entry;
  }
  for (const { key } of table.entries()) {
    yield keys.has(key) ? undefined : Object.freeze({ key, value: undefined, version });
  }
}
