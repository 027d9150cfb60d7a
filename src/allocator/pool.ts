/**
 * One prefix of an allocator. It knows which of its addresses have a record, which are kept or reserved, and which were
 * never used. An address is an index in the prefix here.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import type { IpPrefix } from '../base/prefix.ts';
import type { BlockMap } from './block-map.ts';
import type { LeaseRecords, Place } from './lease-records.ts';

export class Pool implements Place {
  readonly prefix: IpPrefix;
  /** The first and the last index that may be leased. */
  readonly first: number;
  readonly last: number;
  /** How many addresses it has for leases. */
  readonly capacity: number;
  /** How many of its addresses are never leased. */
  readonly reserved: number;
  readonly number: number;
  readonly resting: number;
  /** The list of addresses that have left the quarantine and that any key may have, the longest free first. */
  readonly rested: number;
  /** Absent if keys have no groups. */
  readonly blocks: BlockMap | undefined;
  /** The keys for which addresses are kept. */
  readonly kept: Map<number, string> = new Map();
  /** The first and the last index of each part that is not leased. */
  readonly #reserved: readonly (readonly [first: number, last: number])[];
  /** Keyed by the index divided by the size of a page. A page without records is absent. */
  readonly #pages = new Map<number, Page>();
  /** No index from here on was looked at by `fresh`. */
  #cursor: number;
  /** Indices before the cursor that have no record any more, or perhaps have one again. */
  readonly #returned = new Set<number>();

  /**
   * @param reserved prefixes with addresses that are not leased, which do not overlap
   * @param blocksTo makes the blocks of a pool with this last index
   */
  constructor(
    prefix: IpPrefix,
    reserved: readonly IpPrefix[],
    records: LeaseRecords,
    blocksTo: (last: number) => BlockMap | undefined
  ) {
    this.prefix = prefix;
    const size = Math.min(prefix.size, MAX_POOL_SIZE);
    // On an IPv4 link, the hosts of all zeros and all ones mean network and broadcast (RFC 1122 section 3.2.1.3). On
    // an IPv6 link, all zeros is the anycast address of the routers (RFC 4291 section 2.6.1).
    this.first = size > 2 ? 1 : 0;
    this.last = prefix.family === 4 && size > 2 ? size - 2 : size - 1;
    this.#cursor = this.first;
    this.#reserved = reserved
      .filter((other) => other.overlaps(prefix))
      .map((other) => this.#range(other));
    this.capacity = this.#reserved.reduce(
      (sum, [first, last]) =>
        sum - Math.max(0, Math.min(last, this.last) - Math.max(first, this.first) + 1),
      this.last - this.first + 1
    );
    this.reserved = size - this.capacity;
    this.number = records.addPlace(this);
    this.resting = records.addList();
    this.rested = records.addList();
    this.blocks = blocksTo(this.last);
  }

  /** Returns whether it would be the same with other reservations. */
  isSame(prefix: IpPrefix, reserved: readonly IpPrefix[]): boolean {
    if (!(prefix.length === this.prefix.length && prefix.base.equals(this.prefix.base)))
      return false;
    const own = reserved
      .filter((other) => other.overlaps(prefix))
      .map((other) => this.#range(other));
    return JSON.stringify(own) === JSON.stringify(this.#reserved);
  }

  /** Returns the index of an address that may be leased, kept or not; -1 for any other address. */
  indexOf(address: IpAddress): number {
    if (!this.prefix.contains(address)) return -1;
    const index = this.prefix.indexOf(address);
    return this.mayLease(index) ? index : -1;
  }

  mayLease(index: number): boolean {
    if (index < this.first || index > this.last) return false;
    for (const [first, last] of this.#reserved) if (index >= first && index <= last) return false;
    return true;
  }

  at(index: number): IpAddress {
    return this.prefix.at(index);
  }

  /** Returns the record of an index; 0: none. */
  recordAt(index: number): number {
    return this.#pages.get(Math.floor(index / PAGE_SIZE))?.records[index % PAGE_SIZE] ?? 0;
  }

  set(index: number, record: number): void {
    const number = Math.floor(index / PAGE_SIZE);
    let page = this.#pages.get(number);
    if (page === undefined) {
      page = { records: new Array<number>(PAGE_SIZE).fill(0), count: 0 };
      this.#pages.set(number, page);
    }
    const at = index % PAGE_SIZE;
    if (page.records[at] === 0) page.count++;
    if (record === 0) page.count--;
    page.records[at] = record;
    if (page.count === 0) this.#pages.delete(number);
  }

  *records(): Generator<number> {
    for (const { records } of this.#pages.values()) {
      for (const record of records) if (record !== 0) yield record;
    }
  }

  /** Returns an index that has no record and is not kept; -1: there is none. */
  fresh(): number {
    for (const index of this.#returned) {
      this.#returned.delete(index);
      if (this.#isFree(index)) return index;
    }
    while (this.#cursor <= this.last) {
      const index = this.#cursor++;
      if (this.#isFree(index)) return index;
    }
    return -1;
  }

  /** Notes that an index has no record any more and is not kept. */
  giveBack(index: number): void {
    if (index < this.#cursor) this.#returned.add(index);
  }

  #isFree(index: number): boolean {
    return this.recordAt(index) === 0 && !this.kept.has(index) && this.mayLease(index);
  }

  #range(prefix: IpPrefix): readonly [first: number, last: number] {
    if (!this.prefix.contains(prefix.base)) return [0, this.last];
    const first = this.prefix.indexOf(prefix.base);
    return [first, first + prefix.size - 1];
  }
}

interface Page {
  /** 0: none. */
  readonly records: number[];
  /** How many there are. */
  count: number;
}

/** How many addresses of a huge IPv6 prefix are used: an index beyond 2^53 would not be exact. */
const MAX_POOL_SIZE = 2 ** 32;
const PAGE_SIZE = 64;
