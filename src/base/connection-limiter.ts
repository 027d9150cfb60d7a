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
 * A listener may say which connections are late (`enter`). Then a connection of an address that has pending ones already
 * ends only one that is late, or one of an address with at least two more; `hasRoom` says whether there is one. Many
 * peers behind one address thus do not end each other's work.
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
    const key = addressKey(address);
    return this.allows(key, nowMs) ? this.enter(key, nowMs, terminate) : undefined;
  }

  /**
   * Returns whether an address may open one more connection now, and counts it. This is the first half of `admit`, for
   * a listener that lets connections wait before it works on them; such connections are not pending.
   *
   * @param key what `addressKey` returns
   */
  allows(key: string, nowMs: number): boolean {
    const isAllowed = this.#rates.take(key, nowMs);
    if (!isAllowed) this.counters.rateLimited++;
    return isAllowed;
  }

  /** Whether a connection of an address may enter now: there is room, or one that may be ended for it. */
  hasRoom(key: string, nowMs: number): boolean {
    return this.#count < this.#maxPending || this.#findVictim(key, nowMs) !== undefined;
  }

  /**
   * Admits a connection that `allows` has allowed and that has room. This is the second half of `admit`.
   *
   * @param isLate whether the connection has had its time, so that it may be ended for any other one; default always
   */
  enter(
    key: string,
    nowMs: number,
    terminate: () => void,
    isLate: (nowMs: number) => boolean = () => true
  ): Admission {
    if (this.#count >= this.#maxPending) this.#evict(key, nowMs);
    this.counters.admitted++;
    const pending: Pending = { sinceMs: nowMs, terminate, isLate };
    const same = this.#pending.get(key);
    if (same === undefined) this.#pending.set(key, new Set([pending]));
    else same.add(pending);
    this.#count++;
    return { leave: () => this.#leave(key, pending) };
  }

  #evict(key: string, nowMs: number): void {
    const victim = this.#findVictim(key, nowMs);
    if (victim === undefined) return;
    this.counters.evicted++;
    this.#leave(victim.key, victim.pending);
    victim.pending.terminate();
  }

  /** Looks at each address with a pending connection, of which there are at most `maxPending`. */
  #findVictim(key: string, nowMs: number): Victim | undefined {
    const own = this.#pending.get(key)?.size ?? 0;
    let found: Victim | undefined;
    for (const [other, same] of this.#pending) {
      if (found !== undefined && same.size < found.size) continue;
      const mayTakeAny = own === 0 || same.size > own + 1;
      const pending = firstLate(same, nowMs) ?? (mayTakeAny ? firstOf(same) : undefined);
      if (pending === undefined) continue;
      const isWorse =
        found === undefined || same.size > found.size || pending.sinceMs < found.pending.sinceMs;
      if (isWorse) found = { key: other, pending, size: same.size };
    }
    return found;
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
  readonly isLate: (nowMs: number) => boolean;
}

/** A pending connection that may be ended. */
interface Victim {
  readonly key: string;
  readonly pending: Pending;
  /** How many its address has. */
  readonly size: number;
}

function firstOf(same: ReadonlySet<Pending>): Pending | undefined {
  const [first] = same;
  return first;
}

function firstLate(same: ReadonlySet<Pending>, nowMs: number): Pending | undefined {
  for (const pending of same) if (pending.isLate(nowMs)) return pending;
  return undefined;
}

/** Returns the key of an address: an IPv4 address or an IPv6 /64. */
export function addressKey(address: string): string {
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
