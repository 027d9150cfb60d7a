/**
 * Leases the addresses of a realm's pools. A key gets the address that it had before, unless another key has needed
 * it, and a released address stays in quarantine before another key may get it.
 *
 * The quarantine makes DNS safe: if it is no shorter than the TTL of the answers that name an address, no cached
 * answer leads to another host.
 *
 * Keys may belong to groups. The allocator then keeps the addresses of a group together: it takes each from a block
 * that the group has for itself, or from a block that no group has, as long as there is one. A few prefixes then say
 * which addresses belong to which group. This is a preference: the allocator keeps no address back for a group, and
 * the leases alone say which block belongs to which group.
 * @module
 */
import { type AddressInput, type Family, IpAddress } from '../base/address.ts';
import type { PrefixInput } from '../base/prefix.ts';
import { AddressUnavailableError, PoolExhaustedError } from '../errors.ts';
import {
  ADDRESS_ALLOCATOR_DEFAULTS,
  type AddressAllocatorOptions,
  disjointPools,
  parseLeases,
  reservedParts,
  resolveOptions,
} from './allocator-options.ts';
import type { Lease, LeaseInput } from './lease.ts';
import { InUse, Rested, Resting } from './lease-records.ts';
import { Pool } from './pool.ts';
import { PoolLeases } from './pool-leases.ts';

export interface AllocatorStats {
  /** How many addresses the pools have for leases. */
  readonly capacity: number;
  readonly leased: number;
  /** Released addresses that are still in quarantine. */
  readonly quarantined: number;
}

/**
 * Keeps leases in memory only. The caller stores what `allocate` and `release` return before it acts on it, and gives
 * it back to `restore` after a restart.
 *
 * Everything that names one key or one address takes constant time. A lease costs about 100 bytes, with the text of its
 * key if that has no more than 32 characters.
 */
export class AddressAllocator {
  readonly #leases: PoolLeases;

  /**
   * @throws {ApiMisuseError} naming the option that is wrong: a pool or a reservation is not a prefix, two pools
   *   overlap, a number is out of range.
   */
  constructor(options: AddressAllocatorOptions) {
    const { pools, reserved, ...settings } = resolveOptions(options);
    this.#leases = new PoolLeases(settings);
    this.setPools(pools, reserved);
  }

  /** The sum of both IP versions. */
  get stats(): AllocatorStats {
    const [v4, v6] = [this.statsOf(4), this.statsOf(6)];
    return {
      capacity: v4.capacity + v6.capacity,
      leased: v4.leased + v6.leased,
      quarantined: v4.quarantined + v6.quarantined,
    };
  }

  statsOf(family: Family): AllocatorStats {
    this.endRests();
    return {
      capacity: this.#leases.poolsOf(family).reduce((sum, pool) => sum + pool.capacity, 0),
      leased: this.#leases.countOf(family, InUse),
      quarantined: this.#leases.countOf(family, Resting),
    };
  }

  /** Returns how many addresses of the pools are never leased: reserved ones, network and broadcast addresses. */
  reservedOf(family: Family): number {
    return this.#leases.poolsOf(family).reduce((sum, pool) => sum + pool.reserved, 0);
  }

  /** Notes which addresses have left the quarantine by now. */
  endRests(): void {
    this.#leases.endAllRests();
  }

  /**
   * Returns whether an address was released and has not been noticed to leave the quarantine.
   *
   * @throws {ApiMisuseError} if it is not an address.
   */
  isResting(input: AddressInput): boolean {
    const record = this.#leases.recordOf(IpAddress.from(input));
    return record !== 0 && this.#leases.records.state(record) === Resting;
  }

  /**
   * Returns whether the pools have an address that can be leased.
   *
   * @throws {ApiMisuseError} if it is not an address.
   */
  has(input: AddressInput): boolean {
    return this.#leases.poolOf(IpAddress.from(input)) !== undefined;
  }

  /** Returns all leases, including released ones whose address no other key has taken. */
  leases(): Lease[] {
    return Array.from(this.#leases.records.all(), (record) => this.#leases.lease(record));
  }

  /** Returns the lease of a key, if it is in use. */
  lookup(key: string): Lease | undefined {
    return this.#leases.inUse(this.#leases.records.find(key), key);
  }

  /** Returns the last lease of a key, if its address has not been noticed to leave the quarantine. */
  resting(key: string): Lease | undefined {
    const record = this.#leases.records.find(key);
    const isResting = record !== 0 && this.#leases.records.state(record) === Resting;
    return isResting ? this.#leases.lease(record, key) : undefined;
  }

  /**
   * Returns the lease of an address, if it is in use.
   *
   * @throws {ApiMisuseError} if it is not an address.
   */
  holder(address: AddressInput): Lease | undefined {
    return this.#leases.inUse(this.#leases.recordOf(IpAddress.from(address)));
  }

  /**
   * Returns the leases of a key that are in use beside the one that `lookup` returns: `allocate` has moved the key to
   * another address since. Each stays in use until `releaseAddress` ends it.
   */
  former(key: string): Lease[] {
    return this.#leases.former(key);
  }

  /** Returns the leases in use whose addresses cannot be leased any more: the pools have changed since. */
  outside(): Lease[] {
    const { records, outside } = this.#leases;
    const inUse = outside.records().filter((record) => records.state(record) === InUse);
    return inUse.map((record) => this.#leases.lease(record));
  }

  /**
   * Leases an address to `key`: the one that is kept for it, else the one that it has or had last, else one that was
   * never used, else the one that has been free the longest. A key of a group gets an address of a block of that group
   * first, then one of a block that no group has.
   *
   * If the address that the key has is outside of the pools now, or another one is kept for the key, the key gets a
   * second lease, and the first one is one of its `former` leases. With 262,144 leases and more, released ones
   * included, free addresses are used again before new ones, so that the former leases of a huge pool take no more
   * memory.
   *
   * @throws {PoolExhaustedError} if none is free.
   * @throws {AddressUnavailableError} if the address that is kept for the key is outside of the pools, or if another
   *   key has it or had it within the quarantine; or if the key has an address of the other IP version.
   */
  allocate(key: string, family: Family = 4): Lease {
    const records = this.#leases.records;
    const kept = this.#leases.keptFor(key);
    if (kept?.family === family) return this.#claim(key, kept);
    const known = records.find(key);
    if (known !== 0) {
      const { family: version } = this.#leases.addressOf(known);
      const isInUse = records.state(known) === InUse;
      if (isInUse && version !== family) {
        throw new AddressUnavailableError(`${key} has an IPv${version} address already`);
      }
      const place = records.place(known);
      if (place instanceof Pool && version === family) {
        if (isInUse) return this.#leases.lease(known, key);
        if (!place.kept.has(records.index(known))) return this.#leases.reuse(key, known);
      }
    }
    const pools = this.#leases.poolsOf(family);
    for (const pool of pools) this.#leases.endRests(pool);
    for (const pool of pools) {
      const index = this.#grouped(pool, key);
      if (index !== undefined) return this.#leases.use(key, pool, index);
    }
    const isFull = records.size >= MAX_KNOWN;
    for (const pool of pools) {
      const rested = records.first(pool.rested);
      const fresh = rested !== 0 && isFull ? -1 : pool.fresh();
      if (fresh >= 0) return this.#leases.use(key, pool, fresh);
      if (rested !== 0) return this.#leases.reuse(key, rested);
    }
    throw new PoolExhaustedError(this.#exhausted(family));
  }

  /**
   * Leases this address to `key` at once.
   *
   * @throws {ApiMisuseError} if it is not an address.
   * @throws {AddressUnavailableError} if the address is not in the pools, is reserved, is kept for another key, belongs
   *   to one or is in quarantine after one, or if the key has another address.
   */
  assign(key: string, address: AddressInput): Lease {
    const wanted = IpAddress.from(address);
    const present = this.lookup(key);
    if (present !== undefined && !present.address.equals(wanted)) {
      throw new AddressUnavailableError(`${key} has ${present.address} already`);
    }
    return this.#claim(key, wanted);
  }

  /**
   * Keeps an address for a key, until `unkeep`: no other key gets it, and `allocate` gives it to the key. A lease that
   * another key has stays in use until it is released.
   *
   * @throws {ApiMisuseError} if it is not an address.
   * @throws {AddressUnavailableError} if the address is not in the pools, is reserved or kept for another key, or if
   *   another one is kept for this key.
   */
  keep(address: AddressInput, key: string): void {
    const wanted = IpAddress.from(address);
    const { pool, index } = this.#locate(wanted);
    const keeper = pool.kept.get(index) ?? key;
    if (keeper !== key) throw new AddressUnavailableError(`${wanted} is kept for ${keeper}`);
    const other = this.#leases.kept.get(key) ?? wanted;
    if (!other.equals(wanted)) {
      throw new AddressUnavailableError(`${other} is kept for ${key} already`);
    }
    this.#leases.kept.set(key, wanted);
    pool.kept.set(index, key);
    const record = pool.recordAt(index);
    if (record !== 0 && this.#leases.records.state(record) === Rested)
      this.#leases.rest(pool, record);
  }

  /** Ends `keep` for a key; nothing is kept for other keys. A lease of the address stays as it is. */
  unkeep(key: string): void {
    const address = this.#leases.kept.get(key);
    if (address === undefined) return;
    this.#leases.kept.delete(key);
    const pool = this.#leases.poolOf(address);
    if (pool === undefined) return;
    const index = pool.indexOf(address);
    pool.kept.delete(index);
    const record = pool.recordAt(index);
    if (record === 0) pool.giveBack(index);
    else if (this.#leases.records.state(record) === Rested) this.#leases.rest(pool, record);
  }

  /** Ends the lease of a key and puts its address into quarantine. Returns undefined if the key has no lease. */
  release(key: string): Lease | undefined {
    return this.#leases.release(this.#leases.records.find(key), key);
  }

  /**
   * Ends the lease of an address, as `release` does.
   *
   * @throws {ApiMisuseError} if it is not an address.
   */
  releaseAddress(address: AddressInput): Lease | undefined {
    return this.#leases.release(this.#leases.recordOf(IpAddress.from(address)));
  }

  /**
   * Replaces the pools and the reservations. Leases stay: one whose address the pools do not have any more is in use
   * until it is released, and then in quarantine; `allocate` gives its key a second one. Addresses that are kept stay
   * so. This takes time for the leases in the pools that change, and for those outside; a pool that stays as it is
   * costs nothing.
   *
   * @returns the leases in use outside of the pools, as `outside` does
   * @throws {ApiMisuseError} if a pool or a reservation is not a prefix, or two pools overlap; nothing changes then.
   */
  setPools(
    pools: readonly PrefixInput[],
    reserved: readonly PrefixInput[] = ADDRESS_ALLOCATOR_DEFAULTS.reserved
  ): Lease[] {
    this.#leases.setPools(disjointPools(pools), reservedParts(reserved));
    return this.outside();
  }

  /**
   * Takes leases of an earlier process, and returns those that it cannot take because the pools do not have their
   * addresses any more.
   *
   * @throws {ApiMisuseError} if an address is a text that is not one; then no lease is taken.
   */
  restore(leases: readonly LeaseInput[]): Lease[] {
    return parseLeases(leases).filter((lease) => {
      if (this.#leases.poolOf(lease.address) === undefined) return true;
      this.#leases.restore(lease);
      return false;
    });
  }

  /**
   * Takes leases as `restore` does, also those whose addresses the pools do not have any more: they are as after
   * `setPools`.
   *
   * @throws {ApiMisuseError} if an address is a text that is not one; then no lease is taken.
   */
  retain(leases: readonly LeaseInput[]): void {
    for (const lease of parseLeases(leases)) this.#leases.restore(lease);
  }

  /** Leases a certain address to a key that may have it. */
  #claim(key: string, wanted: IpAddress): Lease {
    const { pool, index } = this.#locate(wanted);
    const keeper = pool.kept.get(index) ?? key;
    if (keeper !== key) throw new AddressUnavailableError(`${wanted} is kept for ${keeper}`);
    this.#leases.endRests(pool);
    const record = pool.recordAt(index);
    const state = record === 0 ? Rested : this.#leases.records.state(record);
    if (state !== Rested && this.#leases.records.key(record) !== key) {
      const why = state === InUse ? 'belongs to' : 'is in quarantine after';
      throw new AddressUnavailableError(`${wanted} ${why} ${this.#leases.records.key(record)}`);
    }
    return this.#leases.use(key, pool, index);
  }

  /** Returns the index of a free address of a block that the key's group has, or can have, for itself. */
  #grouped(pool: Pool, key: string): number | undefined {
    const records = this.#leases.records;
    return pool.blocks?.search(this.#leases.groupOf(key), (first, last) => {
      const end = Math.min(last, pool.last);
      let oldest: number | undefined;
      let oldestMs = Number.POSITIVE_INFINITY;
      for (let index = Math.max(first, pool.first); index <= end; index++) {
        if (pool.kept.has(index) || !pool.mayLease(index)) continue;
        const record = pool.recordAt(index);
        if (record === 0) return index;
        if (records.state(record) !== Rested || records.releasedAt(record) >= oldestMs) continue;
        oldest = index;
        oldestMs = records.releasedAt(record);
      }
      return oldest;
    });
  }

  /** @throws {AddressUnavailableError} if the pools cannot lease the address. */
  #locate(address: IpAddress): { readonly pool: Pool; readonly index: number } {
    const pool = this.#leases.poolOf(address);
    if (pool !== undefined) return { pool, index: pool.indexOf(address) };
    throw new AddressUnavailableError(
      `${address} is not an address of the pools that can be leased`
    );
  }

  #exhausted(family: Family): string {
    const pools = this.#leases.poolsOf(family);
    if (pools.length === 0) return `there is no IPv${family} pool`;
    const { capacity, leased, quarantined } = this.statsOf(family);
    const names = pools.map(({ prefix }) => prefix).join(', ');
    const kept = capacity - leased - quarantined;
    const more = kept === 0 ? '' : `, ${kept} kept for other keys`;
    return `pool ${names} exhausted: ${leased} of ${capacity} addresses leased, ${quarantined} in quarantine${more}`;
  }
}

/** With so many records, released addresses are used again before new ones. */
const MAX_KNOWN = 2 ** 18;
