/**
 * Time as this library sees it, so that a host, or a test, can pass its own.
 * @module
 */

export interface Clock {
  /** The time of day in ms since 1970, by which certificates hold. It jumps when somebody sets it. */
  wallMs(): number;
  /** Milliseconds from any fixed point; it never goes back. */
  monotonicMs(): number;
  /**
   * Calls once after `delayMs`, unless the function that it returns is called before.
   *
   * @param background whether the process may end while this is still to come; default false
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
