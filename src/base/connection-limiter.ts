/**
 * Limits what unauthenticated peers can take of a listener. It opens nothing and reads no clock; a listener asks it
 * about each connection, and reports when a connection is authenticated or gone.
 *
 * 1. Each address may open a number of new connections a second, and a burst of them. More are refused.
 * 2. A number of connections may be pending at once. When there are more, the oldest connection of the address with
 *    the most pending ones is ended, and the new one is admitted. One address can then never keep others out. Of many
 *    addresses, the slowest connections end first; a regular handshake takes milliseconds. This holds also for a peer
 *    with more addresses than the rates remember (`rate-limit.ts`).
 *
 * An address is an IPv4 address or an IPv6 /64, which one host or one home has
 * ([RFC 6177](https://www.rfc-editor.org/rfc/rfc6177)). IPv4-mapped IPv6 counts as IPv4.
 * @module
 */

import { ApiMisuseError } from '../errors.ts';
import { IpAddress } from './address.ts';
import { checkRate, RateLimit } from './rate-limit.ts';

/** The limits of unauthenticated connections. */
export interface ConnectionLimiterOptions {
  /** How many connections may be pending at once; default 64. */
  readonly maxPending?: number;
  /** How many new connections a second one address may open, averaged; default 50. */
  readonly maxRate?: number;
  /** How many new connections one address may open at once; default four times `maxRate`. */
  readonly burst?: number;
}

/** Cumulative counters. */
export interface ConnectionLimiterCounters {
  admitted: number;
  /** Connections that were refused because their address had opened more than `maxRate`. */
  rateLimited: number;
  /** Connections that were admitted, and ended because `maxPending` were pending. */
  evicted: number;
}

/** A pending connection. */
export interface Admission {
  /** Says that the connection is authenticated or gone, so that it does not count any more. May be called twice. */
  leave(): void;
}

/**
 * Fills in the defaults.
 *
 * @throws {ApiMisuseError} if a limit is not a positive number, or `maxPending` not a whole one.
 */
export function resolveLimiterOptions(
  limits: ConnectionLimiterOptions,
  defaultMaxPending: number
): Required<ConnectionLimiterOptions> {
  const { maxPending = defaultMaxPending, maxRate = 50 } = limits;
  const { burst = Math.max(1, 4 * maxRate) } = limits;
  if (!Number.isInteger(maxPending) || maxPending < 1) {
    throw new ApiMisuseError(`maxPending must be a positive integer, not ${maxPending}`);
  }
  checkRate('maxRate', maxRate);
  if (checkRate('burst', burst) < 1)
    throw new ApiMisuseError(`burst must be at least 1, not ${burst}`);
  return { maxPending, maxRate, burst };
}

export class ConnectionLimiter {
  readonly counters: ConnectionLimiterCounters = { admitted: 0, rateLimited: 0, evicted: 0 };
  readonly #maxPending: number;
  readonly #rates: RateLimit;
  /** Keyed by address: its pending connections, the oldest first. */
  readonly #pending = new Map<string, Set<Pending>>();
  #count = 0;

  constructor({ maxPending, maxRate, burst }: Required<ConnectionLimiterOptions>) {
    this.#maxPending = maxPending;
    this.#rates = new RateLimit(maxRate, burst);
  }

  /** How many connections are pending. */
  get pending(): number {
    return this.#count;
  }

  /**
   * Admits a connection or returns undefined, and counts it. `terminate` is called at most once, when the
   * connection has to end for a newer one; it does not count any more then.
   *
   * @param address the remote address as `node:net` gives it; all texts that are not addresses count as one address
   * @param nowMs the ms since any fixed point; it must not go back
   */
  admit(address: string, nowMs: number, terminate: () => void): Admission | undefined {
    return this.allows(address, nowMs) ? this.enter(address, nowMs, terminate) : undefined;
  }

  /**
   * Returns whether the address may open one more connection now, and counts it. This is the first half of `admit`,
   * for a listener that lets connections wait before it works on them; such connections are not pending.
   */
  allows(address: string, nowMs: number): boolean {
    const isAllowed = this.#rates.take(keyOf(address), nowMs);
    if (!isAllowed) this.counters.rateLimited++;
    return isAllowed;
  }

  /** Admits a connection that `allows` has allowed. This is the second half of `admit`. */
  enter(address: string, nowMs: number, terminate: () => void): Admission {
    const key = keyOf(address);
    if (this.#count >= this.#maxPending) this.#evict();
    this.counters.admitted++;
    const pending: Pending = { sinceMs: nowMs, terminate };
    const same = this.#pending.get(key);
    if (same === undefined) this.#pending.set(key, new Set([pending]));
    else same.add(pending);
    this.#count++;
    return { leave: () => this.#leave(key, pending) };
  }

  /** Looks at each address with a pending connection, of which there are at most `maxPending`. */
  #evict(): void {
    let found: { key: string; oldest: Pending; size: number } | undefined;
    for (const [key, same] of this.#pending) {
      if (found !== undefined && same.size < found.size) continue;
      const [oldest] = same;
      if (oldest === undefined) continue;
      const isWorse =
        found === undefined || same.size > found.size || oldest.sinceMs < found.oldest.sinceMs;
      if (isWorse) found = { key, oldest, size: same.size };
    }
    if (found === undefined) return;
    this.counters.evicted++;
    this.#leave(found.key, found.oldest);
    found.oldest.terminate();
  }

  #leave(key: string, pending: Pending): void {
    const same = this.#pending.get(key);
    if (same === undefined || !same.delete(pending)) return;
    this.#count--;
    if (same.size === 0) this.#pending.delete(key);
  }
}

interface Pending {
  readonly sinceMs: number;
  readonly terminate: () => void;
}

function keyOf(address: string): string {
  // A link-local address ends with the name of its interface.
  const [text = ''] = address.split('%');
  let words: readonly number[];
  try {
    ({ words } = IpAddress.parse(text));
  } catch {
    return '';
  }
  const [a, b, c, d] = words;
  if (b === undefined) return `4 ${a}`;
  if (a === 0 && b === 0 && c === 0xffff) return `4 ${d}`;
  return `6 ${a} ${b}`;
}
