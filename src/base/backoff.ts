/**
 * How long to wait before the next attempt to connect: exponential back-off with full jitter, so that the sites do not
 * all connect at once when a cloud comes back.
 * @module
 */

export interface BackoffOptions {
  /** Longest wait before the first new attempt, in ms; default 200. */
  readonly minMs?: number;
  /** Longest wait at all, in ms; default 30,000. */
  readonly maxMs?: number;
}

export const DEFAULT_BACKOFF: Readonly<Required<BackoffOptions>> = Object.freeze({
  minMs: 200,
  maxMs: 30_000,
});

/**
 * Returns a random wait of up to `minMs` doubled `attempt` times, at most `maxMs`.
 *
 * @param attempt 0 for the first one after a success.
 * @param random Gives numbers from 0 to below 1.
 */
export function backoffDelayMs(
  attempt: number,
  options: BackoffOptions = {},
  random: () => number = Math.random
): number {
  const { minMs, maxMs } = { ...DEFAULT_BACKOFF, ...options };
  return random() * Math.min(maxMs, minMs * 2 ** attempt);
}
