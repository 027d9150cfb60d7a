/**
 * How many handshakes a second a listener can do. It is measured while many peers come: the event loop is busy with
 * their handshakes then, and the time for which it is busy gives the cost of one, whether or not it has idle time left.
 * What else the loop does at that time is counted in, because it will have to do it in a storm too.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { MAX_WAIT_MS } from './messages.ts';

export class HandshakeRate {
  readonly #clock: Clock;
  readonly #busyMs: () => number;
  #perSecond = DEFAULT_RATE;
  /** Handshakes since `#fromMs`, at which the loop had been busy for `#fromBusyMs`. */
  #count = 0;
  #fromMs: number;
  #fromBusyMs: number;

  /** @param busyMs returns for how long the event loop has been busy so far, in ms */
  constructor(clock: Clock, busyMs: () => number = loopBusyMs) {
    this.#clock = clock;
    this.#busyMs = busyMs;
    this.#fromMs = clock.monotonicMs();
    this.#fromBusyMs = busyMs();
  }

  /** From 100 to 3,000; 300 until it is measured. */
  get perSecond(): number {
    return this.#perSecond;
  }

  /** A handshake is done. */
  onDone(): void {
    if (++this.#count < WINDOW) return;
    const [nowMs, busyMs] = [this.#clock.monotonicMs(), this.#busyMs()];
    // Otherwise the loop was busy with other things for the most part.
    if (nowMs - this.#fromMs <= MAX_WINDOW_MS) {
      const rate = (1_000 * WINDOW) / Math.max(1, busyMs - this.#fromBusyMs);
      const mean = (this.#perSecond + rate) / 2;
      this.#perSecond = Math.min(MAX_RATE, Math.max(MIN_RATE, mean));
    }
    this.#count = 0;
    this.#fromMs = nowMs;
    this.#fromBusyMs = busyMs;
  }

  /**
   * Returns over which time so many peers should spread their coming back, in whole ms: as long as their handshakes take;
   * 0 for as many as may all come at once, and wait here for their turn.
   */
  spreadMs(tunnels: number): number {
    const spreadMs = Math.ceil((1_000 * tunnels) / this.#perSecond);
    // A host without types may have returned what is not a number.
    return spreadMs > AT_ONCE_MS ? Math.min(MAX_WAIT_MS, spreadMs) : 0;
  }
}

function loopBusyMs(): number {
  return performance.eventLoopUtilization().active;
}

/** Handshakes a second, about those of one core. */
const DEFAULT_RATE = 300;
const MIN_RATE = 100;
const MAX_RATE = 3_000;
/** Handshakes from one measurement to the next. */
const WINDOW = 64;
/** The longest time of them for which the loop counts as busy with them: 50 a second. */
const MAX_WINDOW_MS = 1_280;
/** So many handshakes as take this long, in ms, may all be due at once. */
const AT_ONCE_MS = 2_000;
