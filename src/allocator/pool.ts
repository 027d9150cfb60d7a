/**
 * One prefix of an allocator. It knows which of its addresses were never used, and in which order addresses were
 * released.
 * @module
 */
import type { IpPrefix } from '../base/prefix.ts';
import type { BlockMap } from './block-map.ts';
import type { Lease } from './lease.ts';

export class Pool {
  readonly prefix: IpPrefix;
  /** The first and the last index that may be leased. */
  readonly first: number;
  readonly last: number;
  /** No index from here on was ever leased, except by blocks. */
  cursor: number;
  /** Absent if keys have no groups. */
  blocks: BlockMap | undefined;
  /** Leases whose addresses are in quarantine. */
  readonly #resting = new Queue();
  /** Leases whose addresses have left the quarantine and may be leased again. */
  readonly #rested = new Queue();

  constructor(prefix: IpPrefix) {
    this.prefix = prefix;
    const size = Math.min(prefix.size, MAX_POOL_SIZE);
    // On an IPv4 link, the hosts of all zeros and all ones mean network and broadcast (RFC 1122 section 3.2.1.3). On
    // an IPv6 link, all zeros is the anycast address of the routers (RFC 4291 section 2.6.1).
    this.first = size > 2 ? 1 : 0;
    this.last = prefix.family === 4 && size > 2 ? size - 2 : size - 1;
    this.cursor = this.first;
  }

  get capacity(): number {
    return this.last - this.first + 1;
  }

  /** Counts its addresses that are in these prefixes, which do not overlap. */
  countIn(prefixes: readonly IpPrefix[]): number {
    let count = 0;
    for (const prefix of prefixes) {
      const isWithin = this.prefix.contains(prefix.base);
      if (!isWithin && !prefix.contains(this.prefix.base)) continue;
      const first = isWithin ? this.prefix.indexOf(prefix.base) : 0;
      const last = isWithin ? first + prefix.size - 1 : this.last;
      count += Math.max(0, Math.min(last, this.last) - Math.max(first, this.first) + 1);
    }
    return count;
  }

  rest(lease: Lease): void {
    this.#resting.push(lease);
  }

  /** Removes and returns the oldest lease in quarantine, if its quarantine has ended. */
  endRest(releasedBefore: number): Lease | undefined {
    const lease = this.#resting.first;
    if (lease === undefined || lease.releasedAt! > releasedBefore) return undefined;
    this.#resting.shift();
    this.#rested.push(lease);
    return lease;
  }

  /** Removes and returns the lease whose quarantine ended first. */
  takeRested(): Lease | undefined {
    return this.#rested.shift();
  }
}

/** A queue, first in, first out, in constant time. */
class Queue {
  readonly #leases: Lease[] = [];
  #head = 0;

  get first(): Lease | undefined {
    return this.#leases[this.#head];
  }

  push(lease: Lease): void {
    this.#leases.push(lease);
  }

  shift(): Lease | undefined {
    const lease = this.#leases[this.#head];
    if (lease === undefined) return undefined;
    this.#head++;
    if (this.#head > 1024 && this.#head * 2 > this.#leases.length) {
      this.#leases.splice(0, this.#head);
      this.#head = 0;
    }
    return lease;
  }
}

/** How many addresses of a huge IPv6 prefix are used: an index beyond 2^53 would not be exact. */
const MAX_POOL_SIZE = 2 ** 32;
