/**
 * Which prefixes the pools of a realm have lost a short time ago, and until when the presences there are still valid.
 *
 * The entry `overlap/<realm>` of the store has them, so that a restart ends nothing early. Times are those of the lease
 * clock.
 * @module
 */
import * as v from 'valibot';
import type { IpAddress } from '../base/address.ts';
import type { IpPrefix } from '../base/prefix.ts';
import { PrefixText, parseSchema, type Schema, wholeNumber } from '../base/schema.ts';
import { StoreError } from '../errors.ts';
import type { Entry, Json, Write } from '../store/index.ts';

/** The beginning of all keys. */
export const OVERLAP_PREFIX = 'overlap/';

export class Overlaps {
  /** Keyed by the text of the prefix, in the order in which they end. */
  readonly #former = new Map<string, FormerPrefix>();

  /** Reads an entry of the store. @throws {StoreError} if it is not one. */
  static read({ key, value }: Entry): { readonly realm: string; readonly overlaps: Overlaps } {
    const overlaps = new Overlaps();
    try {
      for (const { prefix, until } of parseSchema(StoredOverlapsSchema, value)) {
        overlaps.begin([prefix], until);
      }
    } catch (error) {
      throw new StoreError(`${key} in the store is not an overlap: ${(error as Error).message}`);
    }
    return { realm: key.slice(OVERLAP_PREFIX.length), overlaps };
  }

  get isEmpty(): boolean {
    return this.#former.size === 0;
  }

  get prefixes(): IpPrefix[] {
    return [...this.#former.values()].map(({ prefix }) => prefix);
  }

  /** Returns until when an address is valid, in ms; undefined if no prefix here has it. */
  untilOf(address: IpAddress): number | undefined {
    let latest: number | undefined;
    for (const { prefix, until } of this.#former.values()) {
      if (prefix.contains(address) && until >= (latest ?? until)) latest = until;
    }
    return latest;
  }

  /**
   * Returns the place of an address in the order in which they end; undefined if no prefix here has it. Of those that end
   * at the same time, the one that has begun last is the last one.
   */
  placeOf(address: IpAddress): number | undefined {
    let latest: number | undefined;
    let place = 0;
    for (const { prefix } of this.#former.values()) {
      if (prefix.contains(address)) latest = place;
      place++;
    }
    return latest;
  }

  /** When the first of them ends, in ms; infinite if there is none. */
  get nextEndMs(): number {
    return Math.min(...[...this.#former.values()].map(({ until }) => until));
  }

  /** Ends none of them later than this. Returns whether that changes something. */
  limit(untilMs: number): boolean {
    const late = [...this.#former].filter(([, { until }]) => until > untilMs);
    for (const [text, { prefix }] of late) this.#former.set(text, { prefix, until: untilMs });
    return late.length > 0;
  }

  /** @param until not before the end of any other one */
  begin(prefixes: readonly IpPrefix[], until: number): void {
    for (const prefix of prefixes) {
      const text = prefix.toString();
      this.#former.delete(text);
      this.#former.set(text, { prefix, until });
    }
  }

  /** Removes the prefixes whose time has come. Returns whether there were any. */
  end(nowMs: number): boolean {
    const ended = [...this.#former].filter(([, { until }]) => until <= nowMs);
    for (const [text] of ended) this.#former.delete(text);
    return ended.length > 0;
  }

  /** Returns what the store has to have. */
  write(realm: string): Write {
    const former = [...this.#former.values()].map(
      ({ prefix, until }): Json => ({ prefix: prefix.toString(), until })
    );
    return { key: `${OVERLAP_PREFIX}${realm}`, value: former.length === 0 ? undefined : former };
  }
}

interface FormerPrefix {
  readonly prefix: IpPrefix;
  readonly until: number;
}

const StoredOverlapsSchema: Schema<readonly FormerPrefix[]> = v.array(
  v.strictObject({ prefix: PrefixText, until: wholeNumber(0, Number.MAX_SAFE_INTEGER) })
) as Schema<readonly FormerPrefix[]>;
