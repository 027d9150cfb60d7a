/**
 * The clock that leases are judged by: it counts the time that the controller runs, and goes on after a
 * restart where it was.
 *
 * A wall clock that is set, forward or back, changes nothing of it: neither ends a lease early that is in use
 * nor a quarantine. While no controller runs it stands still, for nobody can use a lease then. What it said
 * last is stored now and then; after a crash it goes on from there, or from the newest stamp of a lease if
 * that is newer. So it is never ahead of the time that has really passed.
 *
 * It begins with the wall clock of its first start, so that the stamps of stores without it still fit.
 * @module
 */
import * as v from 'valibot';
import type { Clock } from '../base/clock.ts';
import { parseSchema, type Schema } from '../base/schema.ts';
import { StoreError } from '../errors.ts';
import type { Store, Write } from '../store/index.ts';

export class LeaseClock {
  readonly #clock: Clock;
  readonly #startMs: number;
  readonly #baseMs: number;
  #storedMs: number | undefined;

  private constructor(clock: Clock, baseMs: number, storedMs: number | undefined) {
    this.#clock = clock;
    this.#startMs = clock.monotonicMs();
    this.#baseMs = baseMs;
    this.#storedMs = storedMs;
  }

  /**
   * @param newestMs the newest stamp of this clock that there is
   * @throws {StoreError} if the store cannot be read, or has something else in its place.
   */
  static async open(store: Store, clock: Clock, newestMs: number): Promise<LeaseClock> {
    const entry = await store.get(KEY);
    let storedMs: number | undefined;
    if (entry !== undefined) {
      try {
        storedMs = parseSchema(StoredClockSchema, entry.value).runMs;
      } catch (error) {
        throw new StoreError(`${KEY} in the store is not a clock: ${(error as Error).message}`);
      }
    }
    const baseMs = Math.max(storedMs ?? Math.floor(clock.wallMs()), newestMs);
    return new LeaseClock(clock, baseMs, storedMs);
  }

  /** In ms, whole. */
  readonly now = (): number => this.#baseMs + Math.floor(this.#clock.monotonicMs() - this.#startMs);

  /** What it says, as an entry for the store; undefined if the store has that. */
  write(): Write | undefined {
    const runMs = this.now();
    if (runMs === this.#storedMs) return undefined;
    this.#storedMs = runMs;
    return { key: KEY, value: { runMs } };
  }
}

interface StoredClock {
  readonly runMs: number;
}

const KEY = 'lease-clock';

const StoredClockSchema: Schema<StoredClock> = v.strictObject({
  runMs: v.pipe(v.number(), v.safeInteger()),
}) as Schema<StoredClock>;
