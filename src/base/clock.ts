/**
 * The clock of this library. A host program or a test can pass its own.
 * @module
 */

export interface Clock {
  /** Returns the time of day in ms since 1970, which certificates are checked against. It jumps when it is set. */
  wallMs(): number;
  /** Returns the ms since any fixed point; it never goes back. */
  monotonicMs(): number;
  /**
   * Calls `callback` once after `delayMs`, unless the returned function is called before.
   *
   * @param background whether the process may end before the call; default false
   */
  after(delayMs: number, callback: () => void, background?: boolean): () => void;
}

/** The clocks and timers of the system. */
export const systemClock: Clock = Object.freeze({
  wallMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after: (delayMs: number, callback: () => void, background = false) => {
    const timer = setTimeout(callback, delayMs);
    if (background) timer.unref();
    return () => clearTimeout(timer);
  },
});
