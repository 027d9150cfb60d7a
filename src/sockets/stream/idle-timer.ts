/**
 * The time that a socket may be idle. It makes one timer for many packets: activity only notes the time, and the
 * timer, when it fires too early, is set again for the rest.
 * @module
 */
import type { Clock } from '../../base/clock.ts';

export class IdleTimer {
  readonly #clock: Clock;
  readonly #limitMs: number;
  readonly #onIdle: () => void;
  #lastMs: number;
  #cancel: (() => void) | undefined;

  /** Calls `onIdle` each time that `limitMs` have passed without activity. */
  constructor(clock: Clock, limitMs: number, onIdle: () => void) {
    this.#clock = clock;
    this.#limitMs = limitMs;
    this.#onIdle = onIdle;
    this.#lastMs = clock.monotonicMs();
    this.#arm(limitMs);
  }

  /** Notes activity. After `onIdle` was called, the time runs only from the next activity on. */
  touch(): void {
    this.#lastMs = this.#clock.monotonicMs();
    if (this.#cancel === undefined) this.#arm(this.#limitMs);
  }

  stop(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  #arm(delayMs: number): void {
    this.#cancel = this.#clock.after(delayMs, () => this.#expire(), true);
  }

  #expire(): void {
    this.#cancel = undefined;
    const restMs = this.#lastMs + this.#limitMs - this.#clock.monotonicMs();
    // A timer of Node may fire up to 1 ms early on this clock.
    if (restMs > 1) this.#arm(restMs);
    else this.#onIdle();
  }
}
