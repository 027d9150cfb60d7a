/**
 * `RunningTime` measures how long the gateways of a store have been running, independently of their wall clocks. A
 * record is not removed on the word of a fast clock alone.
 *
 * A monotonic clock measures each process, and the store carries the sum from one process to the next. The sum omits
 * time in which no gateway ran, and what a process did not save before it ended. So it never exceeds the time that has
 * really passed. Processes that run at the same time may differ by what one of them has not saved yet.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { StoreConflictError } from '../errors.ts';
import type { Entry, Store } from '../store/store.ts';

export class RunningTime {
  readonly #store: Store;
  readonly #clock: Clock;
  /** The stored running time when this process read it, and its monotonic clock at that moment. */
  #readMs: number;
  #startMs: number;

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
   * Stores the running time for later processes, or takes that of another process that has measured more.
   *
   * @throws {StoreError} if it cannot be stored.
   */
  async save(): Promise<void> {
    const stored = await this.#store.get(RUNNING);
    const runMs = Math.floor(this.ms);
    if (runMs < runMsOf(stored)) {
      // Another process has measured more, for example because the machine of this one was suspended.
      this.#readMs = runMsOf(stored);
      this.#startMs = this.#clock.monotonicMs();
      return;
    }
    try {
      await this.#store.commit([{ key: RUNNING, value: { runMs }, expect: stored?.version ?? 0 }]);
    } catch (error) {
      // Another process has just stored its own value.
      if (!(error instanceof StoreConflictError)) throw error;
    }
  }
}

function runMsOf(entry: Entry | undefined): number {
  return (entry?.value as { readonly runMs: number } | undefined)?.runMs ?? 0;
}

const RUNNING = 'clock/running';
