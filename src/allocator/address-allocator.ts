/**
 * Hands out the addresses of a realm's pools: the same key gets the same address again as long as
 * nobody else needed it, and a released address rests before it is anybody else's.
 *
 * The quarantine is what makes DNS safe: chosen no shorter than the TTL of the answers that name an
 * address, it guarantees that no cached answer leads to another host.
 *
 * Keys may belong to groups. Then the addresses of a group are kept together: each is taken out of a
 * block of the group's own, or a block that is nobody's, as long as there is one. So few prefixes are
 * needed to say which addresses are whose. Only a preference: no address is kept back for a group, and
 * which block is whose follows from the leases alone.
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
  /** Prefixes to hand out from, in order of preference within each IP version; they are disjoint. */
  readonly pools: readonly PrefixInput[];
  /** Addresses and prefixes within the pools that are never handed out; default none. */
  readonly reserved?: readonly PrefixInput[];
  /** How long a released address rests, in ms. */
  readonly quarantineMs: number;
  /**
   * Its wall clock is what `releasedAt` is by: any that never goes back and goes on from one process to the
   * next; default that of the system, which is one only while nobody sets it.
   */
  readonly clock?: Pick<Clock, 'wallMs'>;
  /** The group a key belongs to, always the same one; without it there are no groups. */
  readonly groupOf?: ((key: string) => string) | undefined;
  /** Addresses in a block of a group, a power of two; default 16, an IPv4 /28 or an IPv6 /124. */
  readonly blockSize?: number;
  /**
   * Called when the rest of a released address has ended, unless its key has taken it back meanwhile: within
   * `allocate` or `endRests`, whichever sees it first. Default: nobody is told.
   */
  readonly onRested?: ((lease: Lease) => void) | undefined;
}

/** What is used where an option is absent. */
export const ADDRESS_ALLOCATOR_DEFAULTS: Readonly<{
  reserved: readonly PrefixInput[];
  blockSize: number;
}> = Object.freeze({ reserved: Object.freeze([]), blockSize: 16 });

export interface AllocatorStats {
  /** Addresses the pools hand out in all. */
  readonly capacity: number;
  readonly leased: number;
  /** Released, and still at rest. */
  readonly quarantined: number;
}

/**
 * Pure bookkeeping: it neither stores nor announces a lease. A host stores what `allocate` and
 * `release` return before it acts on it, and gives it back to `restore` after a restart.
 */
export class AddressAllocator {
  readonly #pools: readonly Pool[];
  readonly #reserved: readonly IpPrefix[];
  readonly #quarantineMs: number;
  readonly #clock: Pick<Clock, 'wallMs'>;
  readonly #groupOf: ((key: string) => string) | undefined;
  readonly #onRested: ((lease: Lease) => void) | undefined;
  readonly #byKey = new Map<string, Lease>();
  /** By the text of the address. */
  readonly #byAddress = new Map<string, Lease>();
  /** The texts of the addresses whose rest nobody has seen end, by IP version. */
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

  /** Over both IP versions. */
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

  /** Takes note of the addresses that have rested long enough by now. */
  endRests(): void {
    for (const pool of this.#pools) this.#endRests(pool);
  }

  /** Whether an address was released and is still at rest, as far as was seen. */
  isResting(address: IpAddress): boolean {
    return this.#resting[address.family].has(address.toString());
  }

  /** All leases, released ones that nobody else took over included. */
  leases(): Lease[] {
    return [...this.#byAddress.values()];
  }

  /** Returns the lease of a key that is in use. */
  lookup(key: string): Lease | undefined {
    return inUse(this.#byKey.get(key));
  }

  /** Returns the lease that a key had last, while its address is at rest, as far as was seen. */
  resting(key: string): Lease | undefined {
    const lease = this.#byKey.get(key);
    return lease !== undefined && this.isResting(lease.address) ? lease : undefined;
  }

  /** Returns the lease that an address is in use under. */
  holder(address: AddressInput): Lease | undefined {
    return inUse(this.#byAddress.get(address.toString()));
  }

  /**
   * Leases an address to `key`: the one it has or had last, else one never used, else the one that
   * has been free the longest. If it belongs to a group, first of all one in a block of that group, then
   * one in a block that is nobody's.
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
   * Leases a certain address to `key`, at once: an operator's reservation.
   *
   * @throws {AddressUnavailableError} if it is not in the pools, is reserved, or belongs or belonged
   *   to another key until so recently that it is still at rest, or the key has another address.
   */
  assign(key: string, address: AddressInput): Lease {
    const wanted = IpAddress.from(address).canonical();
    if (!this.#isUsable(wanted)) {
      throw new AddressUnavailableError(`${wanted} is not an address that the pools hand out`);
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

  /** Ends the lease of a key; its address rests from now on. Returns undefined if it has none. */
  release(key: string): Lease | undefined {
    const lease = this.lookup(key);
    return lease && this.#put({ ...lease, releasedAt: this.#clock.wallMs() });
  }

  /**
   * Takes back leases kept from before; those whose address the pools no longer hand out are left
   * away and returned.
   *
   * @throws {ApiMisuseError} if an address is a text that is not one; then nothing is taken back.
   */
  restore(leases: readonly LeaseInput[]): Lease[] {
    const parsed = leases.map((lease) => {
      const address = IpAddress.from(lease.address).canonical();
      return { ...lease, address };
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
      // The key moves: what it had stays at rest under a name that no key can have.
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
      const isNews = this.#resting[pool.prefix.family].delete(lease.address.toString());
      if (isNews) this.#onRested?.(lease);
    }
  }

  /** A free address in a block that the key's group has, or can have, for itself. */
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

  /** The address that has been free the longest. */
  #rested(pool: Pool): IpAddress | undefined {
    for (let lease = pool.takeRested(); lease !== undefined; lease = pool.takeRested()) {
      if (this.#isStill(lease)) return lease.address;
    }
    return undefined;
  }

  /** Whether its address was neither taken again by its own key nor released once more since. */
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

  /** How many addresses of an IP version the pools hand out. */
  #count(family: Family): number {
    const all = this.#reserved.filter((prefix) => prefix.family === family);
    // Where two prefixes overlap, one of them contains the other.
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
    return `pool ${names} exhausted: ${leased} of ${capacity} addresses leased, ${capacity - leased} at rest`;
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
    if (!(input instanceof IpPrefix)) checkText(`${name}[${i}]`, input);
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
