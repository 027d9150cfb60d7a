/**
 * `SnapshotContact`: when an edge last had contact with its cloud, and for how long it has had none. Both clocks measure
 * that time, and the longer one counts:
 *
 * - The monotonic clock goes on whatever is done to the wall clock, so that a wall clock that is set back does not make a
 *   snapshot hold longer. It stands still while the machine sleeps.
 * - The wall clock also counts the time in which the machine slept or the gateway did not run.
 *
 * A wall clock that shows a time before the contact says nothing. What it showed at the start of a process is kept, also
 * if it is set afterwards, until the next contact.
 * @module
 */
import * as v from 'valibot';
import type { Clock } from '../base/clock.ts';
import { parseSchema, type Schema, wholeNumber } from '../base/schema.ts';

/** A contact as an entry of the store. */
export interface StoredContact {
  /** The revision of the snapshot that was in force. */
  readonly revision: number;
  /** The time of day of the last contact, in ms since 1970. */
  readonly lastContactMs: number;
  /** For how long there had been no contact when this was stored, in ms. */
  readonly awayMs: number;
}

export class SnapshotContact {
  readonly #clock: Clock;
  #isUp = false;
  #lastContactMs: number;
  /** For how long there had been no contact at `#measuredAtMs` of the monotonic clock. */
  #awayMs: number;
  #measuredAtMs: number;

  /** @param stored by an earlier process; by default the contact is now */
  constructor(clock: Clock, stored?: StoredContact) {
    this.#clock = clock;
    const wallMs = clock.wallMs();
    this.#lastContactMs = stored?.lastContactMs ?? wallMs;
    // Only the wall clock knows for how long no process ran, so that what it shows now is kept.
    this.#awayMs = Math.max(stored?.awayMs ?? 0, wallMs - this.#lastContactMs);
    this.#measuredAtMs = clock.monotonicMs();
  }

  /** The cloud was heard now. */
  renew(): void {
    this.#lastContactMs = this.#clock.wallMs();
    this.#awayMs = 0;
    this.#measuredAtMs = this.#clock.monotonicMs();
  }

  /** The tunnel is up, so that there is contact until the next call, or it has gone down. */
  linkChanged(isUp: boolean): void {
    if (isUp || this.#isUp) this.renew();
    this.#isUp = isUp;
  }

  /** The time of day of the last contact, in ms since 1970. */
  get lastContactMs(): number {
    return this.#isUp ? this.#clock.wallMs() : this.#lastContactMs;
  }

  /** For how long there has been no contact, in ms. */
  get awayMs(): number {
    if (this.#isUp) return 0;
    return Math.max(this.#measuredMs, this.#clock.wallMs() - this.#lastContactMs);
  }

  /** Returns the entry for the next process. */
  toStored(revision: number): StoredContact {
    return {
      revision,
      lastContactMs: Math.floor(this.lastContactMs),
      awayMs: this.#isUp ? 0 : Math.floor(this.#measuredMs),
    };
  }

  get #measuredMs(): number {
    return this.#awayMs + this.#clock.monotonicMs() - this.#measuredAtMs;
  }
}

/** Returns the stored contact of the snapshot with this revision; undefined if the value is another's, or none. */
export function storedContactOf(value: unknown, revision: number): StoredContact | undefined {
  try {
    const contact = parseSchema(StoredContactSchema, value);
    return contact.revision === revision ? contact : undefined;
  } catch {
    return undefined;
  }
}

/** Below the greatest time of a `Date`, with room for any `snapshotValidMs`. */
const MAX_TIME_MS = 8e15;

const StoredContactSchema: Schema<StoredContact> = /* @__PURE__ */ v.object({
  revision: wholeNumber(1, Number.MAX_SAFE_INTEGER),
  lastContactMs: wholeNumber(0, MAX_TIME_MS),
  awayMs: wholeNumber(0, MAX_TIME_MS),
});
