/**
 * Makes changes of the writes of a commit: copies the writes, compares versions, and numbers the changes. A commit with
 * many writes is divided into slices of the event loop.
 * @module
 */
import type { Slices } from '../base/slices.ts';
import { ApiMisuseError, StoreConflictError } from '../errors.ts';
import { frozenJson } from './json.ts';
import { KeyMap } from './key-map.ts';
import type { Change, Write } from './store.ts';

/** Whether there are so many that they are copied, checked and applied in slices. */
export function areMany(list: readonly unknown[]): boolean {
  return list.length > MAX_AT_ONCE;
}

/** The writes of one commit. If there are not many, they are copied at once. */
export class CommitWrites {
  readonly #writes: readonly Write[];
  readonly #isFrozen: boolean;

  /** @throws {ApiMisuseError} if a key is empty or written twice, or a value is not JSON. */
  constructor(writes: readonly Write[]) {
    this.#isFrozen = !areMany(writes);
    this.#writes = this.#isFrozen ? frozenWrites(writes, new KeyMap()) : [...writes];
  }

  get areMany(): boolean {
    return !this.#isFrozen;
  }

  /**
   * Returns the changes that commit number `version` makes, see `changesOf`. If the writes are many, it copies them in
   * slices, and then they must not change before it resolves.
   *
   * @param versionOf returns the present version of an entry, 0 if there is none
   * @throws {StoreConflictError} if an entry does not have the version in `expect`.
   * @throws {ApiMisuseError} if a key is empty or written twice, or a value is not JSON.
   */
  async changes(
    version: number,
    versionOf: (key: string) => number,
    slices: Slices
  ): Promise<readonly Change[]> {
    if (this.#isFrozen) return this.changesAtOnce(version, versionOf);
    const keys = new KeyMap<true>();
    const changes: Change[] = [];
    for (const write of this.#writes) {
      if (slices.isOver) await slices.next();
      changes.push(...changesOf(frozenWrites([write], keys), version, versionOf));
    }
    return changes;
  }

  /** The same for writes that are not many, without waiting. */
  changesAtOnce(version: number, versionOf: (key: string) => number): readonly Change[] {
    return changesOf(this.#writes, version, versionOf);
  }
}

/**
 * Copies writes, so that later changes by the caller have no effect.
 *
 * @param keys those of the writes before; the new ones are added
 */
function frozenWrites(writes: readonly Write[], keys: KeyMap<true>): readonly Write[] {
  return writes.map((write) => {
    if (typeof write.key !== 'string' || write.key === '') {
      throw new ApiMisuseError('the key of a write is empty');
    }
    if (keys.has(write.key)) throw new ApiMisuseError(`a commit writes "${write.key}" twice`);
    keys.set(write.key, true);
    return write.value === undefined ? { ...write } : { ...write, value: frozenJson(write.value) };
  });
}

/** Returns the changes of a commit. The deletion of an entry that does not exist is no change. */
function changesOf(
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

/** Takes about 2 ms. The largest commits that are made while packets flow have about 500 writes. */
const MAX_AT_ONCE = 1000;
