/**
 * One prefix of an allocator: which of its addresses were never used, and which were released, oldest
 * first.
 * @module
 */
import type { IpPrefix } from '../base/prefix.ts';
import type { BlockMap } from './block-map.ts';
import type { Lease } from './lease.ts';

export class Pool {
  readonly prefix: IpPrefix;
  /** First and last index that may be handed out. */
  readonly first: number;
  readonly last: number;
  /** Indexes from here on were never handed out, unless by blocks. */
  cursor: number;
  /** Absent: no key has a group. */
  blocks: BlockMap | undefined;
  /** At rest. */
  readonly #resting = new Queue();
  /** Have rested, and may be handed out. */
  readonly #rested = new Queue();

  constructor(prefix: IpPrefix) {
    this.prefix = prefix;
    const size = Math.min(prefix.size, MAX_POOL_SIZE);
    // The all-zeros and all-ones hosts mean network and broadcast on an IPv4 link (RFC 1122 section
    // 3.2.1.3); all zeros is the routers' anycast address on an IPv6 one (RFC 4291 section 2.6.1).
    this.first = size > 2 ? 1 : 0;
    this.last = prefix.family === 4 && size > 2 ? size - 2 : size - 1;
    this.cursor = this.first;
  }

  get capacity(): number {
    return this.last - this.first + 1;
  }

  /** How many of its addresses are in the prefixes, which do not overlap. */
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

  /** Removes and returns the lease released first, if its rest has ended and nobody else saw that. */
  endRest(releasedBefore: number): Lease | undefined {
    const lease = this.#resting.first;
    if (lease === undefined || lease.releasedAt! > releasedBefore) return undefined;
    this.#resting.shift();
    this.#rested.push(lease);
    return lease;
  }

  /** Removes and returns the lease whose rest has ended first. */
  takeRested(): Lease | undefined {
    return this.#rested.shift();
  }
}

/** First in, first out, in constant time. */
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

/** Of a huge IPv6 prefix only so many addresses are handed out: an index stays exact. */
const MAX_POOL_SIZE = 2 ** 32;
