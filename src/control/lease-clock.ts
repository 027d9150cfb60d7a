/**
 * The clock of leases: it counts the time that the controller runs, and continues after a restart where it was.
 *
 * It does not follow the wall clock when that is set, so no lease and no quarantine ends early. It stands still while
 * no controller runs, because leases cannot be used then. Its time is stored now and then. After a crash it continues
 * from there, or from the newest time of a lease if that is newer, so it is never ahead of the time that has passed.
 *
 * It begins at the wall clock of its first start, so that it fits the times in stores of before it existed.
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
   * @param newestMs the newest time of this clock in any lease
   * @throws {StoreError} if the store cannot be read, or its entry is not a clock.
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

  /** Returns the time in whole ms. */
  readonly now = (): number => this.#baseMs + Math.floor(this.#clock.monotonicMs() - this.#startMs);

  /** Returns the time as an entry for the store; undefined if the store has it. */
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
