/**
 * Who may knock: bounds what unauthenticated peers can take of a listener before they are known. It opens nothing
 * and reads no clock; whoever accepts connections asks it about each, and says when one is known or gone.
 *
 * 1. an address may bring so many new connections a second, and a burst of them; others are refused
 * 2. so many may be under way at once. The newcomer is not refused then: the oldest connection of the
 *    address that has most of them makes way. So one address never keeps others out, and of many
 *    addresses the slowest go first, while an honest handshake takes milliseconds; that holds also for who
 *    has more addresses than the rates remember (`rate-limit.ts`)
 *
 * An address is an IPv4 address or an IPv6 /64, which is what one host or one home has
 * ([RFC 6177](https://www.rfc-editor.org/rfc/rfc6177)). IPv4-mapped IPv6 counts as IPv4.
 * @module
 */

import { ApiMisuseError } from '../errors.ts';
import { IpAddress } from './address.ts';
import { checkRate, RateLimit } from './rate-limit.ts';

/** How many connections may come before it is known whose they are. */
export interface GateLimits {
  /** Connections that are not known yet, at once; default 64. */
  readonly maxPending?: number;
  /** New connections a second of one address, averaged; default 50. */
  readonly maxRate?: number;
  /** New connections of one address that may come at once; default four times `maxRate`. */
  readonly burst?: number;
}

/** Cumulative. */
export interface GateCounters {
  admitted: number;
  /** Not admitted, because their address had brought more than `maxRate`. */
  rateLimited: number;
  /** Admitted, and cut because `maxPending` were under way. */
  evicted: number;
}

/** A connection that is under way. */
export interface Admission {
  /** It is known, or gone: it does not count any more. May be called twice. */
  leave(): void;
}

/**
 * Fills in the defaults.
 *
 * @throws {ApiMisuseError} if a limit is not a positive number, or `maxPending` not a whole one.
 */
export function resolveGateLimits(
  limits: GateLimits,
  defaultMaxPending: number
): Required<GateLimits> {
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
  readonly counters: GateCounters = { admitted: 0, rateLimited: 0, evicted: 0 };
  readonly #maxPending: number;
  readonly #rates: RateLimit;
  /** By address; in each, the oldest first. */
  readonly #pending = new Map<string, Set<Pending>>();
  #count = 0;

  constructor({ maxPending, maxRate, burst }: Required<GateLimits>) {
    this.#maxPending = maxPending;
    this.#rates = new RateLimit(maxRate, burst);
  }

  /** Connections that are under way. */
  get pending(): number {
    return this.#count;
  }

  /**
   * Returns undefined if the connection is not admitted, which is counted. `cut` is called, once at
   * most, when it has to make way for another; it has left then.
   *
   * @param address the remote address as `node:net` gives it; text that is none counts as one address
   * @param nowMs from any fixed point, and never going back
   */
  admit(address: string, nowMs: number, cut: () => void): Admission | undefined {
    const key = keyOf(address);
    if (!this.#rates.take(key, nowMs)) {
      this.counters.rateLimited++;
      return undefined;
    }
    if (this.#count >= this.#maxPending) this.#evict();
    this.counters.admitted++;
    const pending: Pending = { sinceMs: nowMs, cut };
    const same = this.#pending.get(key);
    if (same === undefined) this.#pending.set(key, new Set([pending]));
    else same.add(pending);
    this.#count++;
    return { leave: () => this.#leave(key, pending) };
  }

  /** Looks at every address that has a connection under way: no more than `maxPending`. */
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
    found.oldest.cut();
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
  readonly cut: () => void;
}

function keyOf(address: string): string {
  // A link-local address comes with the name of the interface behind it.
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
