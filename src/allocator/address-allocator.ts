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
import { type Clock, systemClock } from '../base/clock.ts';
import {
  checkFunction,
  checkMethods,
  checkObject,
  checkText,
  checkThat,
} from '../base/option-check.ts';
import { IpPrefix, type PrefixInput } from '../base/prefix.ts';
import { AddressUnavailableError, ApiMisuseError, PoolExhaustedError } from '../errors.ts';
import { BlockMap } from './block-map.ts';
import type { Lease, LeaseInput } from './lease.ts';
import { Pool } from './pool.ts';

export interface AddressAllocatorOptions {
  /** Prefixes of the addresses to lease, in order of preference within each IP version; they are disjoint. */
  readonly pools: readonly PrefixInput[];
  /** Addresses and prefixes within the pools that are never leased; default none. */
  readonly reserved?: readonly PrefixInput[];
  /** How long a released address stays in quarantine, in ms. */
  readonly quarantineMs: number;
  /**
   * The clock of `releasedAt`. Its wall clock must never go back, and must continue from one process to the next.
   * Default: the system's clock, which does so as long as nobody sets it.
   */
  readonly clock?: Pick<Clock, 'wallMs'>;
  /** Returns the group of a key, always the same one. Default: there are no groups. */
  readonly groupOf?: ((key: string) => string) | undefined;
  /** Addresses in a block of a group, a power of two; default 16, an IPv4 /28 or an IPv6 /124. */
  readonly blockSize?: number;
  /**
   * Is called when the quarantine of an address has ended and its key has not taken it back: within `allocate` or
   * `endRests`, whichever notices it first. Default: nothing is called.
   */
  readonly onRested?: ((lease: Lease) => void) | undefined;
}

/** What is used where an option is absent. */
export const ADDRESS_ALLOCATOR_DEFAULTS: Readonly<{
  reserved: readonly PrefixInput[];
  blockSize: number;
}> = Object.freeze({ reserved: Object.freeze([]), blockSize: 16 });

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
 */
export class AddressAllocator {
  readonly #pools: readonly Pool[];
  readonly #reserved: readonly IpPrefix[];
  readonly #quarantineMs: number;
  readonly #clock: Pick<Clock, 'wallMs'>;
  readonly #groupOf: ((key: string) => string) | undefined;
  readonly #onRested: ((lease: Lease) => void) | undefined;
  readonly #byKey = new Map<string, Lease>();
  /** Keyed by the text of the address. */
  readonly #byAddress = new Map<string, Lease>();
  /** The texts of the addresses whose quarantine has not been noticed to end, by IP version. */
  readonly #resting: Readonly<Record<Family, Set<string>>> = { 4: new Set(), 6: new Set() };
  readonly #leased: Record<Family, number> = { 4: 0, 6: 0 };
  readonly #capacity: Readonly<Record<Family, number>>;

  /**
   * @throws {ApiMisuseError} naming the option that is wrong: a pool or a reservation is not a prefix, two pools
   *   overlap, a number is out of range.
   */
  constructor(options: AddressAllocatorOptions) {
    const { pools, reserved, quarantineMs, clock, groupOf, onRested, blockSize } =
      resolveOptions(options);
    this.#pools = pools.map((prefix) => new Pool(prefix));
    for (const [i, { prefix }] of this.#pools.entries()) {
      const other = this.#pools.slice(0, i).find((pool) => pool.prefix.overlaps(prefix));
      if (other) throw new ApiMisuseError(`pools ${other.prefix} and ${prefix} overlap`);
    }
    this.#reserved = reserved;
    this.#quarantineMs = quarantineMs;
    this.#clock = clock;
    this.#groupOf = groupOf;
    this.#onRested = onRested;
    this.#capacity = { 4: this.#count(4), 6: this.#count(6) };
    if (groupOf === undefined) return;
    for (const pool of this.#pools) pool.blocks = new BlockMap(blockSize, pool.last);
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
      capacity: this.#capacity[family],
      leased: this.#leased[family],
      quarantined: this.#resting[family].size,
    };
  }

  /** Notes which addresses have left the quarantine by now. */
  endRests(): void {
    for (const pool of this.#pools) this.#endRests(pool);
  }

  /**
   * Returns whether an address was released and has not been noticed to leave the quarantine.
   *
   * @throws {ApiMisuseError} if it is not an address.
   */
  isResting(input: AddressInput): boolean {
    const address = IpAddress.from(input);
    return this.#resting[address.family].has(address.toString());
  }

  /** Returns all leases, including released ones whose address no other key has taken. */
  leases(): Lease[] {
    return [...this.#byAddress.values()];
  }

  /** Returns the lease of a key, if it is in use. */
  lookup(key: string): Lease | undefined {
    return inUse(this.#byKey.get(key));
  }

  /** Returns the last lease of a key, if its address has not been noticed to leave the quarantine. */
  resting(key: string): Lease | undefined {
    const lease = this.#byKey.get(key);
    return lease !== undefined && this.isResting(lease.address) ? lease : undefined;
  }

  /**
   * Returns the lease of an address, if it is in use.
   *
   * @throws {ApiMisuseError} if it is not an address.
   */
  holder(address: AddressInput): Lease | undefined {
    return inUse(this.#byAddress.get(IpAddress.from(address).toString()));
  }

  /**
   * Leases an address to `key`: the one that it has or had last, else one that was never used, else the one that has
   * been free the longest. A key of a group gets an address of a block of that group first, then one of a block that
   * no group has.
   *
   * @throws {PoolExhaustedError} if none is free.
   */
  allocate(key: string, family: Family = 4): Lease {
    const known = this.#byKey.get(key);
    if (known?.address.family === family) {
      return this.#put({ key, address: known.address });
    }
    const pools = this.#pools.filter(({ prefix }) => prefix.family === family);
    for (const pool of pools) this.#endRests(pool);
    const address =
      firstOf(pools, (pool) => this.#grouped(pool, key)) ??
      firstOf(pools, (pool) => this.#fresh(pool) ?? this.#rested(pool));
    if (address === undefined) throw new PoolExhaustedError(this.#exhausted(family));
    return this.#put({ key, address });
  }

  /**
   * Leases this address to `key` at once, for a reservation by an operator.
   *
   * @throws {AddressUnavailableError} if the address is not in the pools, is reserved, belongs to another key or is in
   *   quarantine after one, or if the key has another address.
   */
  assign(key: string, address: AddressInput): Lease {
    const wanted = IpAddress.from(address).canonical();
    if (!this.#isUsable(wanted)) {
      throw new AddressUnavailableError(
        `${wanted} is not an address of the pools that can be leased`
      );
    }
    const holder = this.#byAddress.get(wanted.toString());
    if (holder !== undefined && holder.key !== key) {
      const isFree =
        holder.releasedAt !== undefined &&
        holder.releasedAt <= this.#clock.wallMs() - this.#quarantineMs;
      if (!isFree) throw new AddressUnavailableError(`${wanted} belongs to ${holder.key}`);
    }
    const present = this.lookup(key);
    if (present !== undefined && !present.address.equals(wanted)) {
      throw new AddressUnavailableError(`${key} has ${present.address} already`);
    }
    return this.#put({ key, address: wanted });
  }

  /** Ends the lease of a key and puts its address into quarantine. Returns undefined if the key has no lease. */
  release(key: string): Lease | undefined {
    const lease = this.lookup(key);
    return lease && this.#put({ ...lease, releasedAt: this.#clock.wallMs() });
  }

  /**
   * Takes leases of an earlier process, and returns those that it cannot take because the pools do not have their
   * addresses any more.
   *
   * @throws {ApiMisuseError} if an address is a text that is not one; then no lease is taken.
   */
  restore(leases: readonly LeaseInput[]): Lease[] {
    const parsed = leases.map(({ key, address: input, releasedAt }): Lease => {
      const address = IpAddress.from(input).canonical();
      return releasedAt === undefined ? { key, address } : { key, address, releasedAt };
    });
    const ordered = parsed.sort((a, b) => (a.releasedAt ?? 0) - (b.releasedAt ?? 0));
    return ordered.filter((lease) => {
      if (!this.#isUsable(lease.address)) return true;
      this.#put(lease);
      return false;
    });
  }

  #put(lease: Lease): Lease {
    const text = lease.address.toString();
    const before = this.#byAddress.get(text);
    const other = this.#byKey.get(lease.key);
    if (before !== undefined && before.key !== lease.key) this.#byKey.delete(before.key);
    if (other !== undefined && !other.address.equals(lease.address)) {
      // The key gets another address: the former one stays in quarantine under a name that no key can have.
      this.#byAddress.set(other.address.toString(), { ...other, key: `\0${other.address}` });
    }
    const { family } = lease.address;
    if (inUse(before) !== undefined) this.#leased[family]--;
    if (inUse(lease) !== undefined) this.#leased[family]++;
    if (lease.releasedAt === undefined) this.#resting[family].delete(text);
    else this.#resting[family].add(text);
    this.#byKey.set(lease.key, lease);
    this.#byAddress.set(text, lease);
    if (lease.releasedAt !== undefined || this.#groupOf !== undefined) this.#note(lease);
    return lease;
  }

  #note(lease: Lease): void {
    const { address } = lease;
    const pool = this.#pools.find(({ prefix }) => prefix.contains(address))!;
    pool.blocks?.hold(pool.prefix.indexOf(address), this.#groupOf!(lease.key));
    if (lease.releasedAt !== undefined) pool.rest(lease);
  }

  #endRests(pool: Pool): void {
    const before = this.#clock.wallMs() - this.#quarantineMs;
    for (let lease = pool.endRest(before); lease !== undefined; lease = pool.endRest(before)) {
      if (!this.#isStill(lease)) continue;
      pool.blocks?.free(pool.prefix.indexOf(lease.address));
      const wasResting = this.#resting[pool.prefix.family].delete(lease.address.toString());
      if (wasResting) this.#onRested?.(lease);
    }
  }

  /** Returns a free address of a block that the key's group has, or can have, for itself. */
  #grouped(pool: Pool, key: string): IpAddress | undefined {
    return pool.blocks?.search(this.#groupOf!(key), (first, last) => {
      const end = Math.min(last, pool.last);
      const before = this.#clock.wallMs() - this.#quarantineMs;
      let oldest: Lease | undefined;
      for (let index = Math.max(first, pool.first); index <= end; index++) {
        const address = pool.prefix.at(index);
        const lease = this.#byAddress.get(address.toString());
        if (lease === undefined && !this.#isReserved(address)) return address;
        const releasedAt = lease?.releasedAt ?? Number.POSITIVE_INFINITY;
        if (releasedAt <= before && releasedAt < (oldest?.releasedAt ?? Number.POSITIVE_INFINITY)) {
          oldest = lease;
        }
      }
      return oldest?.address;
    });
  }

  #fresh(pool: Pool): IpAddress | undefined {
    while (pool.cursor <= pool.last) {
      const address = pool.prefix.at(pool.cursor++);
      const isKnown = this.#byAddress.has(address.toString());
      if (!isKnown && !this.#isReserved(address)) return address;
    }
    return undefined;
  }

  /** Returns the address that has been free the longest. */
  #rested(pool: Pool): IpAddress | undefined {
    for (let lease = pool.takeRested(); lease !== undefined; lease = pool.takeRested()) {
      if (this.#isStill(lease)) return lease.address;
    }
    return undefined;
  }

  /** Returns whether its key has neither taken the address back nor released it again since. */
  #isStill({ address, releasedAt }: Lease): boolean {
    return this.#byAddress.get(address.toString())?.releasedAt === releasedAt;
  }

  #isUsable(address: IpAddress): boolean {
    const pool = this.#pools.find(({ prefix }) => prefix.contains(address));
    if (pool === undefined || this.#isReserved(address)) return false;
    const index = pool.prefix.indexOf(address);
    return index >= pool.first && index <= pool.last;
  }

  #isReserved(address: IpAddress): boolean {
    return this.#reserved.some((prefix) => prefix.contains(address));
  }

  /** Counts the addresses of an IP version that the pools have for leases. */
  #count(family: Family): number {
    const all = this.#reserved.filter((prefix) => prefix.family === family);
    // If two prefixes overlap, one contains the other.
    const reserved = all.filter(
      (prefix, i) =>
        !all.some(
          (other, j) =>
            other.contains(prefix.base) &&
            (other.length < prefix.length || (other.length === prefix.length && j < i))
        )
    );
    return this.#pools
      .filter(({ prefix }) => prefix.family === family)
      .reduce((sum, pool) => sum + pool.capacity - pool.countIn(reserved), 0);
  }

  #exhausted(family: Family): string {
    const pools = this.#pools.filter(({ prefix }) => prefix.family === family);
    if (pools.length === 0) return `there is no IPv${family} pool`;
    const capacity = this.#capacity[family];
    const leased = this.#leased[family];
    const names = pools.map(({ prefix }) => prefix).join(', ');
    return `pool ${names} exhausted: ${leased} of ${capacity} addresses leased, ${capacity - leased} in quarantine`;
  }
}

type ResolvedOptions = Required<
  Omit<AddressAllocatorOptions, 'groupOf' | 'onRested' | 'pools' | 'reserved'>
> &
  Pick<AddressAllocatorOptions, 'groupOf' | 'onRested'> & {
    readonly pools: readonly IpPrefix[];
    readonly reserved: readonly IpPrefix[];
  };

/** Checks what a caller gives, and fills in the defaults. */
function resolveOptions(options: AddressAllocatorOptions): ResolvedOptions {
  const {
    pools,
    quarantineMs,
    groupOf,
    onRested,
    reserved = ADDRESS_ALLOCATOR_DEFAULTS.reserved,
    blockSize = ADDRESS_ALLOCATOR_DEFAULTS.blockSize,
    clock = systemClock,
  } = checkObject('options', options);
  if (!(typeof quarantineMs === 'number' && quarantineMs >= 0)) {
    throw new ApiMisuseError(`quarantineMs must not be negative: ${quarantineMs}`);
  }
  if (!(Number.isSafeInteger(blockSize) && Number.isInteger(Math.log2(blockSize)))) {
    throw new ApiMisuseError(`blockSize must be a power of two: ${blockSize}`);
  }
  checkMethods('clock', clock, ['wallMs']);
  if (groupOf !== undefined) checkFunction('groupOf', groupOf);
  if (onRested !== undefined) checkFunction('onRested', onRested);
  return {
    pools: prefixesOf('pools', pools),
    reserved: prefixesOf('reserved', reserved),
    quarantineMs,
    clock,
    groupOf,
    onRested,
    blockSize,
  };
}

function prefixesOf(name: string, inputs: readonly PrefixInput[]): IpPrefix[] {
  checkThat(name, inputs, Array.isArray(inputs), 'a list of IP prefixes');
  return inputs.map((input, i) => {
    if (!IpPrefix.isPrefix(input)) checkText(`${name}[${i}]`, input);
    try {
      return IpPrefix.from(input);
    } catch (error) {
      throw new ApiMisuseError(`${name}[${i}]: ${(error as Error).message}`, { cause: error });
    }
  });
}

function firstOf<T, R>(items: readonly T[], find: (item: T) => R | undefined): R | undefined {
  for (const item of items) {
    const found = find(item);
    if (found !== undefined) return found;
  }
  return undefined;
}

function inUse(lease: Lease | undefined): Lease | undefined {
  return lease?.releasedAt === undefined ? lease : undefined;
}
