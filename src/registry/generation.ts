/**
 * The generation of the desired state: an entry of the store beside the records, which every commit of records expects
 * unchanged and counts up. A write is checked against the tables of this process alone, so without it two processes
 * could each store what does not fit to what the other one stores at the same time.
 *
 * It is written on every store, also on one that no other process uses: it costs one more small entry in the same commit,
 * and whether a store is shared is then not to be guessed.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import type { Change, Write } from '../store/index.ts';

export class Generation {
  readonly #clock: Clock;
  /** The version of the newest change of the entry that is in the tables. */
  #seen = 0;
  /** The version of the entry; 0 if there is none. */
  #version = 0;
  #count = 0;
  #waiting: (() => void)[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The version up to which the tables have all commits of records. */
  get version(): number {
    return this.#seen;
  }

  /** How many commits of records there were. */
  get count(): number {
    return this.#count;
  }

  /** The write that makes a commit fail if there was another one meanwhile. */
  get write(): Write {
    return { key: GENERATION, value: this.#count + 1, expect: this.#version };
  }

  /** Takes the entry from changes, when the tables have all of these. */
  take(changes: readonly Change[]): void {
    for (const { key, value, version } of changes) {
      if (key !== GENERATION || version <= this.#seen) continue;
      this.#seen = version;
      this.#version = value === undefined ? 0 : version;
      this.#count = Number.isSafeInteger(value) ? (value as number) : 0;
      for (const resolve of this.#waiting.splice(0)) resolve();
    }
  }

  /** Resolves when the tables have a later commit than that of `version`; false if none comes within 5 s. */
  after(version: number): Promise<boolean> {
    if (this.#seen !== version) return Promise.resolve(true);
    return new Promise((resolve) => {
      const cancel = this.#clock.after(MAX_DELAY_MS, () => resolve(false));
      this.#waiting.push(() => {
        cancel();
        resolve(true);
      });
    });
  }
}

/** The beginning of the keys of records and of the generation. */
export const WATCHED = 'desired';
/** It is not below the prefix of the records, where earlier versions expect records only. */
export const GENERATION = 'desired-generation';
const MAX_DELAY_MS = 5000;
