/**
 * Makes changes of the writes of a commit: copies the writes, compares versions, and numbers the changes. A commit with
 * many writes is divided into slices of the event loop.
 * @module
 */
import type { Slices } from '../base/slices.ts';
import { ApiMisuseError, StoreConflictError } from '../errors.ts';
import { frozenJson } from './json.ts';
import { KeyMap } from './key-map.ts';
import type { Change, Guard, LeaseReference, Write } from './store.ts';

/** Whether there are so many that they are copied, checked and applied in slices. */
export function areMany(list: readonly unknown[]): boolean {
  return list.length > MAX_AT_ONCE;
}

/** The writes and guards of one commit. If the writes are not many, they are copied at once. */
export class CommitWrites {
  readonly #writes: readonly Write[];
  readonly #guards: readonly Guard[];
  readonly #isFrozen: boolean;
  readonly #leases = new Map<string, LeaseReference>();

  /** @throws {ApiMisuseError} if a key is empty or written twice, or a value is not JSON. */
  constructor(writes: readonly Write[], guards: readonly Guard[] = []) {
    this.#isFrozen = !areMany(writes);
    this.#writes = this.#isFrozen ? this.#frozen(writes, new KeyMap()) : [...writes];
    this.#guards = guards.map((guard) => ({ ...guard }));
    for (const { key } of this.#guards) checkKey(key, 'guard');
  }

  get areMany(): boolean {
    return !this.#isFrozen;
  }

  /** The writes, copied and frozen. Not for many writes, whose copies nobody keeps. */
  get frozen(): readonly Write[] {
    return this.#writes;
  }

  /** The guards, copied. */
  get guards(): readonly Guard[] {
    return this.#guards;
  }

  /** The leases of the writes by key; those of many writes only after `changes` has resolved. */
  get leases(): ReadonlyMap<string, LeaseReference> {
    return this.#leases;
  }

  /**
   * Returns the changes that commit number `version` makes, see `changesOf`. If the writes are many, it copies them in
   * slices, and then they must not change before it resolves.
   *
   * @param versionOf returns the present version of an entry, 0 if there is none
   * @throws {StoreConflictError} if an entry does not have the version in `expect` or in a guard.
   * @throws {ApiMisuseError} if a key is empty or written twice, or a value is not JSON.
   */
  async changes(
    version: number,
    versionOf: (key: string) => number,
    slices: Slices
  ): Promise<readonly Change[]> {
    if (this.#isFrozen) return this.changesAtOnce(version, versionOf);
    this.#checkGuards(versionOf);
    const keys = new KeyMap<true>();
    const changes: Change[] = [];
    for (const write of this.#writes) {
      if (slices.isOver) await slices.next();
      changes.push(...changesOf(this.#frozen([write], keys), version, versionOf));
    }
    return changes;
  }

  /** The same for writes that are not many, without waiting. */
  changesAtOnce(version: number, versionOf: (key: string) => number): readonly Change[] {
    this.#checkGuards(versionOf);
    return changesOf(this.#writes, version, versionOf);
  }

  #checkGuards(versionOf: (key: string) => number): void {
    for (const { key, version } of this.#guards) checkVersion(key, versionOf(key), version);
  }

  /**
   * Copies writes, so that later changes by the caller have no effect.
   *
   * @param keys those of the writes before; the new ones are added
   */
  #frozen(writes: readonly Write[], keys: KeyMap<true>): readonly Write[] {
    return writes.map((write) => {
      const { key, value, lease } = write;
      checkKey(key, 'write');
      if (keys.has(key)) throw new ApiMisuseError(`a commit writes "${key}" twice`);
      keys.set(key, true);
      if (lease !== undefined) this.#leases.set(key, lease);
      return value === undefined ? { ...write } : { ...write, value: frozenJson(value) };
    });
  }
}

/** @throws {ApiMisuseError} if it is not a text of one character or more. */
function checkKey(key: string, of: 'write' | 'guard'): void {
  if (typeof key !== 'string' || key === '')
    throw new ApiMisuseError(`the key of a ${of} is empty`);
}

/** @throws {StoreConflictError} if the entry does not have the expected version. */
function checkVersion(key: string, current: number, expected: number): void {
  if (expected === current) return;
  throw new StoreConflictError(
    `"${key}" is at version ${current}, not at the expected ${expected}`
  );
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
    if (expect !== undefined) checkVersion(key, current, expect);
    if (value !== undefined || current !== 0) changes.push(Object.freeze({ key, value, version }));
  }
  return changes;
}

/** Takes about 2 ms. The largest commits that are made while packets flow have about 500 writes. */
const MAX_AT_ONCE = 1000;
