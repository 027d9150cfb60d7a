/**
 * Calls `onReadable` for devices that keep their packets in a queue: once in each turn of the event loop
 * while packets wait (level-triggered).
 * @module
 */
import { ApiMisuseError } from '../errors.ts';

/** Calls `callback` in the next turn of the event loop, as `setImmediate` does. */
export type Schedule = (callback: () => void) => unknown;

/** Calls one reader from `start` to `close`, except while it is paused. */
export class Delivery {
  readonly #name: string;
  readonly #isWaiting: () => boolean;
  readonly #schedule: Schedule;
  #onReadable: (() => void) | undefined;
  #isScheduled = false;
  #isPaused = false;
  #isClosed = false;

  /** @param isWaiting returns whether packets wait. */
  constructor(name: string, isWaiting: () => boolean, schedule: Schedule) {
    this.#name = name;
    this.#isWaiting = isWaiting;
    this.#schedule = schedule;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** @throws {ApiMisuseError} on a second call, and after `close`. */
  start(onReadable: () => void): void {
    if (this.#isClosed) throw new ApiMisuseError(`device ${this.#name} is closed`);
    if (this.#onReadable) throw new ApiMisuseError(`device ${this.#name} was started before`);
    this.#onReadable = onReadable;
    this.wake();
  }

  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    this.#isPaused = false;
    this.wake();
  }

  close(): void {
    this.#isClosed = true;
  }

  /** Must be called after a packet was queued. */
  wake(): void {
    if (this.#isScheduled || !this.#isDue()) return;
    this.#isScheduled = true;
    this.#schedule(this.#turn);
  }

  readonly #turn = (): void => {
    this.#isScheduled = false;
    if (!this.#isDue()) return;
    try {
      this.#onReadable!();
    } finally {
      this.wake();
    }
  };

  #isDue(): boolean {
    return (
      this.#onReadable !== undefined && !this.#isPaused && !this.#isClosed && this.#isWaiting()
    );
  }
}
