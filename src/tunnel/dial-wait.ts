/**
 * How long the dialling side waits before it dials again.
 *
 * 1. After the loss of a tunnel, and after a failed attempt, it waits a random time below a bound that doubles. So the
 *    first attempt after a loss comes at once, and an edge that alone has lost its tunnel has it back. When the tunnel is
 *    up, the attempts that failed before are forgotten. The losses are forgotten only when it was up for long, so that an
 *    edge whose tunnel comes and goes dials seldom.
 * 2. If a gateway does not take the first attempt after a loss, it waits a random time below the spread that the
 *    listening side gave in WELCOME. A listening side that has lost many tunnels resets those that are too many before
 *    their TLS, which costs it little, and then gets as many handshakes a second as it can do. An attempt that does not
 *    reach any gateway says nothing about that, so it is not spread.
 * 3. If the listening side says how long to wait (`retryAfterMs`), it waits that long, and the bound does not double.
 * 4. After a refusal that will not pass soon, it waits for the longest time.
 * @module
 */
import { type BackoffOptions, backoffDelayMs } from '../base/backoff.ts';
import type { CloseCause } from './tunnel.ts';

export class DialWait {
  readonly #backoff: Required<BackoffOptions>;
  readonly #random: () => number;
  #spreadMs = 0;
  /** Whether a tunnel was lost, and no gateway has been reached since. */
  #isFirst = false;
  /** Failed attempts since the tunnel was last up. */
  #failures = 0;
  /** Losses of the tunnel since it was last up for long. */
  #losses = 0;

  constructor(options: {
    readonly backoff: Required<BackoffOptions>;
    readonly random: () => number;
  }) {
    this.#backoff = options.backoff;
    this.#random = options.random;
  }

  /** The tunnel is up, and the listening side has given this spread, in ms. */
  onUp(spreadMs: number): void {
    this.#spreadMs = spreadMs;
    this.#isFirst = false;
    this.#failures = 0;
  }

  /** The tunnel was up for long, so that the next wait is the shortest one again. */
  onStable(): void {
    this.#losses = 0;
  }

  /**
   * Returns the wait in ms.
   *
   * @param wasUp whether a tunnel was lost; otherwise an attempt has failed
   */
  nextMs(cause: CloseCause, wasUp: boolean, isRefused: boolean): number {
    if (isRefused) {
      this.#failures++;
      return this.#backoff.maxMs;
    }
    const retryAfterMs = retryDelayMs(cause, this.#backoff, this.#random);
    if (retryAfterMs !== undefined) return retryAfterMs;
    const delayMs = backoffDelayMs(this.#losses + this.#failures, this.#backoff, this.#random);
    if (wasUp) {
      this.#losses++;
      this.#isFirst = true;
      return delayMs;
    }
    this.#failures++;
    if (!this.#isFirst || UNREACHED.has(cause.errorCode ?? '')) return delayMs;
    this.#isFirst = false;
    return Math.max(delayMs, this.#random() * this.#spreadMs);
  }
}

/** Returns how long to wait if the peer has said so: from `minMs`, up to half as long again, at most `maxMs`. */
export function retryDelayMs(
  { by, retryAfterMs }: CloseCause,
  { minMs, maxMs }: Required<BackoffOptions>,
  random: () => number
): number | undefined {
  if (by !== 'peer' || retryAfterMs === undefined) return undefined;
  return Math.min(maxMs, Math.max(minMs, retryAfterMs) * (1 + random() / 2));
}

/** Codes of attempts that have not reached a gateway. */
const UNREACHED: ReadonlySet<string> = new Set(
  'ETIMEDOUT EHOSTUNREACH EHOSTDOWN ENETUNREACH ENETDOWN ENOTFOUND EAI_AGAIN'.split(' ')
);
