/**
 * The one timer of a stack. It is set while something has a deadline, and only then.
 *
 * After the event loop was blocked, Node calls the timers that are due before it reads what has arrived meanwhile. A
 * retransmission timer would then expire although its acknowledgement waits to be read. So a timer that is due acts by
 * `setImmediate`, behind the next poll for packets. The loop may be blocked in that very poll too: so only what was due
 * before it may expire.
 *
 * Packets of the stack may have been in a queue of this process all the time that the loop was blocked, and no
 * acknowledgement can have come. So a timer that is late is put off once, by as long as it was late.
 * @module
 */
import type { Clock } from '../base/clock.ts';

export class DeadlineTimer {
  readonly #clock: Clock;
  readonly #expire: (dueMs: number) => void;
  /** When the clock will call; Infinity if no timer is set. */
  #setForMs: number = Number.POSITIVE_INFINITY;
  #cancel: (() => void) | undefined;
  /** When the clock has called. */
  #calledMs = 0;
  /** The timer was late, and calls once more. */
  #isPostponed = false;
  #isClosed = false;

  /**
   * @param expire called, at the deadline or before it, when all packets are read that had arrived at the time `dueMs`
   *   of the monotonic clock. A deadline behind `dueMs` must wait for another call, even if it has passed meanwhile. It
   *   must call `set` again
   */
  constructor(clock: Clock, expire: (dueMs: number) => void) {
    this.#clock = clock;
    this.#expire = expire;
  }

  /**
   * Sets the timer for a time of the monotonic clock, instead of an earlier call; Infinity turns it off. A timer that
   * is set for less is left as it is and calls too early, because deadlines move with every packet.
   */
  set(deadlineMs: number): void {
    if (this.#isClosed) return;
    if (deadlineMs === Number.POSITIVE_INFINITY) {
      this.#stop();
      return;
    }
    if (this.#setForMs <= deadlineMs) return;
    this.#stop();
    const nowMs = this.#clock.monotonicMs();
    // A timer that is rounded down would call before the deadline, over and over.
    const delayMs = Math.min(Math.max(Math.ceil(deadlineMs - nowMs), 1), MAX_TIMER_MS);
    this.#setForMs = nowMs + delayMs;
    // The tunnel, or whatever else carries the packets, keeps the process alive.
    this.#cancel = this.#clock.after(delayMs, this.#onTimer, true);
  }

  close(): void {
    this.#isClosed = true;
    this.#stop();
  }

  #stop(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    this.#setForMs = Number.POSITIVE_INFINITY;
    this.#isPostponed = false;
  }

  readonly #onTimer = (): void => {
    this.#calledMs = this.#clock.monotonicMs();
    const lateMs = this.#calledMs - this.#setForMs;
    if (lateMs > STALL_MS && !this.#isPostponed) {
      this.#isPostponed = true;
      this.#cancel = this.#clock.after(Math.min(lateMs, MAX_POSTPONED_MS), this.#onTimer, true);
      return;
    }
    this.#isPostponed = false;
    // `#setForMs` stays, so that no second timer is set until the immediate has run.
    let isCancelled = false;
    setImmediate(() => {
      if (!isCancelled) this.#onImmediate();
    });
    // Not `clearImmediate`: Node (20 at least) calls for ever if an immediate that is next is cleared in a tick, and
    // that tick ends with an exception which the process survives. A listener that throws makes such a tick.
    this.#cancel = () => {
      isCancelled = true;
    };
  };

  readonly #onImmediate = (): void => {
    this.#stop();
    this.#expire(this.#calledMs);
  };
}

/** A timer that is as late as that shows that the event loop was blocked. */
const STALL_MS = 10;
/** The longest time by which a deadline is put off then: longer than a round trip to most sites. */
const MAX_POSTPONED_MS = 50;
/** The longest time that a timer of Node can count; a later deadline is set again when it calls. */
const MAX_TIMER_MS: number = 2 ** 31 - 1;
