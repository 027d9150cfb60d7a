/**
 * A clock whose time passes only when a test says so.
 * @module
 */
import type { Clock } from '../../src/base/clock.ts';

interface Timer {
  /** The time on the monotonic clock. */
  readonly atMs: number;
  readonly delayMs: number;
  readonly callback: () => void;
}

export class FakeClock implements Clock {
  #wallMs: number;
  #monotonicMs: number;
  readonly #timers = new Set<Timer>();

  constructor(start: { readonly wallMs?: number; readonly monotonicMs?: number } = {}) {
    const { wallMs = 1_700_000_000_000, monotonicMs = 1_000_000 } = start;
    this.#wallMs = wallMs;
    this.#monotonicMs = monotonicMs;
  }

  wallMs(): number {
    return this.#wallMs;
  }

  monotonicMs(): number {
    return this.#monotonicMs;
  }

  after(delayMs: number, callback: () => void): () => void {
    const timer = { atMs: this.#monotonicMs + delayMs, delayMs, callback };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  /** The delays of the timers that are set, in the order in which they were set. */
  get delays(): number[] {
    return [...this.#timers].map(({ delayMs }) => delayMs);
  }

  /** Lets both clocks pass on, and calls the timers that are due, each at its own time. */
  advance(ms: number): void {
    const endMs = this.#monotonicMs + ms;
    for (;;) {
      const due = [...this.#timers].filter(({ atMs }) => atMs <= endMs);
      const [next] = due.sort((a, b) => a.atMs - b.atMs);
      if (next === undefined) break;
      this.#timers.delete(next);
      // A timer that a callback has set with a negative delay is due at once: time never goes back.
      this.#passTo(Math.max(next.atMs, this.#monotonicMs));
      next.callback();
    }
    this.#passTo(endMs);
  }

  /** Both clocks pass on while the event loop is blocked: the timers that are due are called late, at the end. */
  stall(ms: number): void {
    this.#passTo(this.#monotonicMs + ms);
    const due = [...this.#timers].filter(({ atMs }) => atMs <= this.#monotonicMs);
    for (const timer of due.sort((a, b) => a.atMs - b.atMs)) {
      if (this.#timers.delete(timer)) timer.callback();
    }
  }

  /** Somebody sets the wall clock. Timers go on. */
  setWall(ms: number): void {
    this.#wallMs = ms;
  }

  #passTo(monotonicMs: number): void {
    this.#wallMs += monotonicMs - this.#monotonicMs;
    this.#monotonicMs = monotonicMs;
  }
}
