/**
 * Hands out the addresses of a realm's pools: the same key gets the same address again as long as
 * nobody else needed it, and a released address rests before it is anybody else's.
 *
 * The quarantine is what makes DNS safe: chosen no shorter than the TTL of the answers that name an
 * address, it guarantees that no cached answer leads to another host.
 * @module
 */
import { type Family, IpAddress, IpPrefix } from '../address.ts';
import { AddressUnavailableError, ApiMisuseError, PoolExhaustedError } from '../errors.ts';

export interface AddressAllocatorOptions {
  /** Prefixes to hand out from, in order of preference within each IP version; they are disjoint. */
  readonly pools: readonly string[];
  /** Addresses and prefixes within the pools that are never handed out. */
  readonly reserved?: readonly string[];
  /** How long a released address rests, in ms. */
  readonly quarantineMs: number;
  /** Wall clock in ms, since leases outlive the process. */
  readonly now?: () => number;
}

/** An address and the key it belongs to. */
export interface Lease {
  readonly key: string;
  readonly address: string;
  /** When it was released, in ms of the wall clock; absent while it is in use. */
  readonly releasedAt?: number;
}

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
  readonly #now: () => number;
  readonly #byKey = new Map<string, Lease>();
  readonly #byAddress = new Map<string, Lease>();
  #leased = 0;

  /** @throws {ApiMisuseError} if a pool or a reservation is not a prefix, or two pools overlap. */
  constructor(options: AddressAllocatorOptions) {
    const { pools, reserved = [], quarantineMs, now = Date.now } = options;
    if (!(quarantineMs >= 0)) {
      throw new ApiMisuseError(`quarantineMs must not be negative: ${quarantineMs}`);
    }
    this.#pools = pools.map((text) => new Pool(IpPrefix.parse(text)));
    for (const [i, { prefix }] of this.#pools.entries()) {
      const other = this.#pools.slice(0, i).find((pool) => pool.prefix.overlaps(prefix));
      if (other) throw new ApiMisuseError(`pools ${other.prefix} and ${prefix} overlap`);
    }
    this.#reserved = reserved.map((text) => IpPrefix.parse(text));
    this.#quarantineMs = quarantineMs;
    this.#now = now;
  }

  get stats(): AllocatorStats {
    const rested = this.#now() - this.#quarantineMs;
    let quarantined = 0;
    for (const { releasedAt = 0 } of this.#byAddress.values()) {
      if (releasedAt > rested) quarantined++;
    }
    return {
      capacity: this.#pools.reduce((sum, pool) => sum + pool.capacity, 0),
      leased: this.#leased,
      quarantined,
    };
  }

  /** All leases, released ones that nobody else took over included. */
  leases(): Lease[] {
    return [...this.#byAddress.values()];
  }

  /** Returns the lease of a key that is in use. */
  lookup(key: string): Lease | undefined {
    return inUse(this.#byKey.get(key));
  }

  /** Returns the lease that an address is in use under. */
  holder(address: string): Lease | undefined {
    return inUse(this.#byAddress.get(address));
  }

  /**
   * Leases an address to `key`: the one it has or had last, else one never used, else the one that
   * has been free the longest.
   *
   * @throws {PoolExhaustedError} if none is free.
   */
  allocate(key: string, family: Family = 4): Lease {
    const known = this.#byKey.get(key);
    if (known !== undefined && IpAddress.parse(known.address).family === family) {
      return this.#put({ key, address: known.address });
    }
    const rested = this.#now() - this.#quarantineMs;
    for (const pool of this.#pools) {
      if (pool.prefix.family !== family) continue;
      const address = this.#fresh(pool) ?? this.#rested(pool, rested);
      if (address !== undefined) return this.#put({ key, address });
    }
    throw new PoolExhaustedError(this.#exhausted(family));
  }

  /**
   * Leases a certain address to `key`, at once: an operator's reservation.
   *
   * @throws {AddressUnavailableError} if it is not in the pools, is reserved, or belongs or belonged
   *   to another key until so recently that it is still at rest, or the key has another address.
   */
  assign(key: string, address: string): Lease {
    const wanted = IpAddress.parse(address).toString();
    if (!this.#isUsable(IpAddress.parse(wanted))) {
      throw new AddressUnavailableError(`${wanted} is not an address that the pools hand out`);
    }
    const holder = this.#byAddress.get(wanted);
    if (holder !== undefined && holder.key !== key) {
      const isFree =
        holder.releasedAt !== undefined && holder.releasedAt <= this.#now() - this.#quarantineMs;
      if (!isFree) throw new AddressUnavailableError(`${wanted} belongs to ${holder.key}`);
    }
    const present = this.lookup(key);
    if (present !== undefined && present.address !== wanted) {
      throw new AddressUnavailableError(`${key} has ${present.address} already`);
    }
    return this.#put({ key, address: wanted });
  }

  /** Ends the lease of a key; its address rests from now on. Returns undefined if it has none. */
  release(key: string): Lease | undefined {
    const lease = this.lookup(key);
    return lease && this.#put({ ...lease, releasedAt: this.#now() });
  }

  /**
   * Takes back leases kept from before; those whose address the pools no longer hand out are left
   * away and returned.
   */
  restore(leases: readonly Lease[]): Lease[] {
    const ordered = [...leases].sort((a, b) => (a.releasedAt ?? 0) - (b.releasedAt ?? 0));
    return ordered.filter((lease) => {
      const address = IpAddress.parse(lease.address);
      if (!this.#isUsable(address)) return true;
      this.#put({ ...lease, address: address.toString() });
      return false;
    });
  }

  #put(lease: Lease): Lease {
    const before = this.#byAddress.get(lease.address);
    const other = this.#byKey.get(lease.key);
    if (before !== undefined && before.key !== lease.key) this.#byKey.delete(before.key);
    if (other !== undefined && other.address !== lease.address) {
      // The key moves: what it had stays at rest under a name that no key can have.
      this.#byAddress.set(other.address, { ...other, key: `\0${other.address}` });
    }
    if (inUse(before) !== undefined) this.#leased--;
    if (inUse(lease) !== undefined) this.#leased++;
    this.#byKey.set(lease.key, lease);
    this.#byAddress.set(lease.address, lease);
    if (lease.releasedAt !== undefined) this.#poolOf(lease.address)!.rest(lease);
    return lease;
  }

  #fresh(pool: Pool): string | undefined {
    while (pool.cursor <= pool.last) {
      const address = pool.prefix.at(pool.cursor++);
      const text = address.toString();
      if (!this.#byAddress.has(text) && !this.#isReserved(address)) return text;
    }
    return undefined;
  }

  /** The address released first, if that was not later than `before`. */
  #rested(pool: Pool, before: number): string | undefined {
    for (let lease = pool.oldest(before); lease !== undefined; lease = pool.oldest(before)) {
      // Taken again by its own key, or released once more, since it was put there: not this one.
      if (this.#byAddress.get(lease.address)?.releasedAt === lease.releasedAt) return lease.address;
    }
    return undefined;
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

  #poolOf(address: string): Pool | undefined {
    const parsed = IpAddress.parse(address);
    return this.#pools.find(({ prefix }) => prefix.contains(parsed));
  }

  #exhausted(family: Family): string {
    const pools = this.#pools.filter(({ prefix }) => prefix.family === family);
    if (pools.length === 0) return `there is no IPv${family} pool`;
    // Not `stats`: a client that is refused again and again must not cost a walk over all leases.
    const capacity = this.#pools.reduce((sum, pool) => sum + pool.capacity, 0);
    const names = pools.map(({ prefix }) => prefix).join(', ');
    const others = capacity - this.#leased;
    return `pool ${names} exhausted: ${this.#leased} of ${capacity} addresses leased, ${others} at rest or reserved`;
  }
}

/** One prefix: which of its addresses were never used, and which were released, oldest first. */
class Pool {
  readonly prefix: IpPrefix;
  /** First and last index that may be handed out. */
  readonly first: number;
  readonly last: number;
  /** Indexes from here on were never handed out. */
  cursor: number;
  readonly #released: Lease[] = [];
  #head = 0;

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

  rest(lease: Lease): void {
    this.#released.push(lease);
  }

  /** Removes and returns the lease released first, if that was not later than `before`. */
  oldest(before: number): Lease | undefined {
    const lease = this.#released[this.#head];
    if (lease === undefined || lease.releasedAt! > before) return undefined;
    this.#head++;
    if (this.#head > 1024 && this.#head * 2 > this.#released.length) {
      this.#released.splice(0, this.#head);
      this.#head = 0;
    }
    return lease;
  }
}

function inUse(lease: Lease | undefined): Lease | undefined {
  return lease?.releasedAt === undefined ? lease : undefined;
}

/** Of a huge IPv6 prefix only so many addresses are handed out: an index stays exact. */
const MAX_POOL_SIZE = 2 ** 32;
