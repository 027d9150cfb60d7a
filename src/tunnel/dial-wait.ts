/**
 * How long the dialling side waits before it dials again.
 *
 * 1. After the loss of a tunnel, and after a failed attempt, it waits a random time below a bound that doubles. So the
 *    first attempt after a loss comes at once, and an edge that alone has lost its tunnel has it back. When the tunnel is
 *    up, the attempts that failed before are forgotten. The losses are forgotten only when it was up for long, so that an
 *    edge whose tunnel comes and goes dials seldom.
 * 2. An attempt that does not reach any gateway costs little, so another one follows within `UNREACHED_MS`, or a 128th of the
 *    time that the outage has lasted if that is longer; where nobody listens, within four times that. `againMs` is likewise
 *    the time after which an attempt sends TCP's first packet again: the system would double that time, and be late when the
 *    network is back.
 * 3. If a gateway does not take the first attempt after a loss, it waits a random time below the spread that the
 *    listening side gave in WELCOME. A listening side that has lost many tunnels resets those that are too many before
 *    their TLS, which costs it little, and then gets as many handshakes a second as it can do. An attempt that gets
 *    no answer of a gateway says nothing about that, so it is not spread.
 * 4. If the listening side says how long to wait (`retryAfterMs`), it waits that long, and the bound does not double.
 * 5. After a refusal that will not pass soon, it waits for the longest time.
 * @module
 */
import { type BackoffOptions, backoffDelayMs } from '../base/backoff.ts';
import type { Clock } from '../base/clock.ts';
import type { CloseCause } from './tunnel.ts';

export class DialWait {
  readonly #backoff: Required<BackoffOptions>;
  readonly #random: () => number;
  readonly #clock: Clock;
  #spreadMs = 0;
  /** Whether a tunnel was lost, and no gateway has been reached since. */
  #isFirst = false;
  /** When the tunnel was lost, or the first attempt failed; undefined while it is up. */
  #sinceMs: number | undefined;
  /** Failed attempts that have reached a gateway since the tunnel was last up. */
  #failures = 0;
  /** Losses of the tunnel since it was last up for long. */
  #losses = 0;

  constructor(options: {
    readonly backoff: Required<BackoffOptions>;
    readonly random: () => number;
    readonly clock: Clock;
  }) {
    this.#backoff = options.backoff;
    this.#random = options.random;
    this.#clock = options.clock;
  }

  /** The tunnel is up, and the listening side has given this spread, in ms. */
  onUp(spreadMs: number): void {
    this.#spreadMs = spreadMs;
    this.#isFirst = false;
    this.#failures = 0;
    this.#sinceMs = undefined;
  }

  /** After how many ms an attempt dials an endpoint anew that does not answer. */
  get againMs(): number {
    const boundMs = Math.min(Math.max(MIN_AGAIN_MS, this.#outageMs * OUTAGE_SHARE), MAX_AGAIN_MS);
    return boundMs * (1 + this.#random() / 2);
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
    this.#sinceMs ??= this.#clock.monotonicMs();
    if (isRefused) {
      this.#failures++;
      return this.#backoff.maxMs;
    }
    const retryAfterMs = retryDelayMs(cause, this.#backoff, this.#random);
    if (retryAfterMs !== undefined) return retryAfterMs;
    if (wasUp) {
      this.#isFirst = true;
      return backoffDelayMs(this.#losses++, this.#backoff, this.#random);
    }
    const code = cause.errorCode ?? '';
    if (UNREACHED.has(code)) return this.#unreachedMs(UNREACHED_MS);
    if (code === NOBODY_LISTENS) return this.#unreachedMs(NOBODY_LISTENS_MS);
    const delayMs = backoffDelayMs(this.#losses + this.#failures++, this.#backoff, this.#random);
    if (!this.#isFirst) return delayMs;
    this.#isFirst = false;
    return Math.max(delayMs, this.#random() * this.#spreadMs);
  }

  #unreachedMs(leastMs: number): number {
    const share = (leastMs / UNREACHED_MS) * OUTAGE_SHARE;
    const boundMs = Math.max(leastMs, this.#outageMs * share);
    return this.#random() * Math.min(boundMs, this.#backoff.maxMs);
  }

  get #outageMs(): number {
    const nowMs = this.#clock.monotonicMs();
    return nowMs - (this.#sinceMs ?? nowMs);
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
/** The code of an attempt to which the system of the gateway has answered, and no gateway. */
const NOBODY_LISTENS = 'ECONNREFUSED';
/** Below which an attempt follows one that has reached no gateway, in ms, in a short outage. */
const UNREACHED_MS = 250;
/** The same where the system of the gateway has answered: each of many edges costs it something. */
const NOBODY_LISTENS_MS = 1_000;
const MIN_AGAIN_MS = 200;
const MAX_AGAIN_MS = 1_000;
/** What a wait may add to an outage, as a share of it. */
const OUTAGE_SHARE = 1 / 128;
