/**
 * Time as the tunnel sees it, so that tests can pass their own.
 * @module
 */

export interface Timers {
  /** Milliseconds from any fixed point; never goes back. */
  now(): number;
  /** Calls once after `delayMs`, unless the function it returns is called before. */
  after(delayMs: number, callback: () => void): () => void;
}

export const systemTimers: Timers = {
  now: () => performance.now(),
  after: (delayMs, callback) => {
    const timer = setTimeout(callback, delayMs);
    return () => clearTimeout(timer);
  },
};
