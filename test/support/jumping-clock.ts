/**
 * The clock of the system, which can jump over days: timers of a minute or more are then called at once.
 * @module
 */
import { type Clock, systemClock } from '../../src/base/clock.ts';

export class JumpingClock implements Clock {
  #jumpedMs = 0;
  #wallMs = 0;
  readonly #long = new Set<() => void>();

  wallMs(): number {
    return systemClock.wallMs() + this.#jumpedMs + this.#wallMs;
  }

  monotonicMs(): number {
    return systemClock.monotonicMs() + this.#jumpedMs;
  }

  after(delayMs: number, callback: () => void, background?: boolean): () => void {
    if (delayMs < 60_000) return systemClock.after(delayMs, callback, background);
    this.#long.add(callback);
    return () => this.#long.delete(callback);
  }

  jump(ms: number): void {
    this.#jumpedMs += ms;
    this.#callTimers();
  }

  /** Somebody sets the wall clock. */
  jumpWall(ms: number): void {
    this.#wallMs += ms;
    this.#callTimers();
  }

  #callTimers(): void {
    const due = [...this.#long];
    this.#long.clear();
    for (const callback of due) callback();
  }
}
