/**
 * `RunningTime`: for how long the gateways of a store have been running, whatever their wall clocks have
 * said. It tells what must not be forgotten yet because a clock is fast.
 *
 * A monotonic clock measures a process, and the store carries the sum from one process to the next. Time in
 * which no gateway ran is missing, and so is what a process did not save before it ended. The time is
 * therefore never more than what has truly passed, and two times are never further apart than they truly
 * are; only between processes that run at once may they be, by what one of them has not saved yet.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { StoreConflictError } from '../errors.ts';
import type { Entry, Store } from '../store/store.ts';

export class RunningTime {
  readonly #store: Store;
  readonly #clock: Clock;
  /** The running time when this process read it, and the monotonic clock then. */
  readonly #readMs: number;
  readonly #startMs: number;

  private constructor(store: Store, clock: Clock, readMs: number) {
    this.#store = store;
    this.#clock = clock;
    this.#readMs = readMs;
    this.#startMs = clock.monotonicMs();
  }

  /** @throws {StoreError} if the store cannot be read. */
  static async open(store: Store, clock: Clock): Promise<RunningTime> {
    return new RunningTime(store, clock, runMsOf(await store.get(RUNNING)));
  }

  /** In ms. */
  get ms(): number {
    return this.#readMs + this.#clock.monotonicMs() - this.#startMs;
  }

  /**
   * Stores it for the processes that come after this one.
   *
   * @throws {StoreError} if it cannot be stored.
   */
  async save(): Promise<void> {
    const there = await this.#store.get(RUNNING);
    const runMs = Math.floor(this.ms);
    // Another process on the store may know of more.
    if (runMs <= runMsOf(there)) return;
    try {
      await this.#store.commit([{ key: RUNNING, value: { runMs }, expect: there?.version ?? 0 }]);
    } catch (error) {
      // Another process has just stored what it knows.
      if (!(error instanceof StoreConflictError)) throw error;
    }
  }
}

function runMsOf(entry: Entry | undefined): number {
  return (entry?.value as { readonly runMs: number } | undefined)?.runMs ?? 0;
}

const RUNNING = 'clock/running';
