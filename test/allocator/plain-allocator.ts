/**
 * The allocator as one would write it first: it looks at every lease and every address. Tests compare the real one with
 * it, and the benchmark measures it.
 * @module
 */
import type { IpPrefix } from '../../src/base/prefix.ts';

export interface PlainLease {
  readonly key: string;
  readonly address: string;
  releasedAt?: number;
}

export class PlainAllocator {
  leases: PlainLease[] = [];
  /** The address that is kept for a key. */
  readonly kept: Map<string, string> = new Map();
  readonly #quarantineMs: number;
  readonly #now: () => number;
  /** The addresses of each pool that may be leased. */
  #pools: readonly ReadonlySet<string>[] = [];
  readonly #present = new Map<string, PlainLease>();

  constructor(quarantineMs: number, now: () => number) {
    this.#quarantineMs = quarantineMs;
    this.#now = now;
  }

  setPools(pools: readonly IpPrefix[], reserved: readonly IpPrefix[]): void {
    this.#forget();
    this.#pools = pools.map((pool) => {
      const addresses = Array.from({ length: pool.size - 2 }, (_, i) => pool.at(i + 1));
      const free = addresses.filter((each) => !reserved.some((prefix) => prefix.contains(each)));
      return new Set(free.map(String));
    });
    this.#forget();
    for (const lease of this.leases) {
      const present = this.#present.get(lease.key);
      if (present !== undefined && this.#isBetter(lease, present))
        this.#present.set(lease.key, lease);
    }
  }

  /** Returns the addresses that a key may get now. */
  choices(key: string): string[] {
    this.#forget();
    const kept = this.kept.get(key);
    if (kept !== undefined) {
      const lease = this.leases.find(({ address }) => address === kept);
      const isFree = lease === undefined || lease.key === key || this.#hasRested(lease);
      return this.isUsable(kept) && isFree ? [kept] : [];
    }
    const present = this.#present.get(key);
    if (present !== undefined && this.isUsable(present.address)) {
      if (present.releasedAt === undefined) return [present.address];
      if (!this.#isKept(present.address)) return [present.address];
    }
    for (const pool of this.#pools) {
      const free = [...pool].filter((address) => {
        const lease = this.leases.find((each) => each.address === address);
        return (lease === undefined || this.#hasRested(lease)) && !this.#isKept(address);
      });
      if (free.length > 0) return free;
    }
    return [];
  }

  /** Leases one of its choices to a key. */
  take(key: string, address: string): void {
    const before = this.leases.find((each) => each.address === address);
    if (before !== undefined) this.#remove(before);
    const lease: PlainLease = { key, address };
    this.leases.push(lease);
    this.#present.set(key, lease);
  }

  /** Leases the first address that a key may get. */
  allocate(key: string): string {
    const address = this.choices(key)[0]!;
    this.take(key, address);
    return address;
  }

  release(lease: PlainLease | undefined): void {
    if (lease?.releasedAt === undefined && lease !== undefined) lease.releasedAt = this.#now();
  }

  keep(address: string, key: string): boolean {
    this.#forget();
    const keeper = [...this.kept].find(([, kept]) => kept === address)?.[0] ?? key;
    const other = this.kept.get(key) ?? address;
    if (!this.isUsable(address) || keeper !== key || other !== address) return false;
    this.kept.set(key, address);
    this.#forget();
    return true;
  }

  /** Returns the lease in use of a key that is its present one. */
  lookup(key: string): PlainLease | undefined {
    const lease = this.#present.get(key);
    return lease?.releasedAt === undefined ? lease : undefined;
  }

  isUsable(address: string): boolean {
    return this.#pools.some((pool) => pool.has(address));
  }

  isInQuarantine(lease: PlainLease): boolean {
    return lease.releasedAt !== undefined && !this.#hasRested(lease);
  }

  get capacity(): number {
    return this.#pools.reduce((sum, { size }) => sum + size, 0);
  }

  #hasRested({ releasedAt }: PlainLease): boolean {
    return releasedAt !== undefined && releasedAt <= this.#now() - this.#quarantineMs;
  }

  #isKept(address: string): boolean {
    return this.kept.size > 0 && [...this.kept.values()].includes(address);
  }

  /** Forgets former leases of addresses that their keys cannot get again. */
  #forget(): void {
    for (const lease of this.leases.filter((each) => this.#hasRested(each))) {
      const isOthers = this.#isKept(lease.address) && this.kept.get(lease.key) !== lease.address;
      if (isOthers || !this.isUsable(lease.address)) this.#remove(lease);
    }
  }

  #remove(lease: PlainLease): void {
    this.leases.splice(this.leases.indexOf(lease), 1);
    if (this.#present.get(lease.key) === lease) this.#present.delete(lease.key);
  }

  #isBetter(lease: PlainLease, present: PlainLease): boolean {
    const isInUse = lease.releasedAt === undefined;
    if (isInUse !== (present.releasedAt === undefined)) return isInUse;
    const isInPool = this.isUsable(lease.address);
    if (isInPool !== this.isUsable(present.address)) return isInPool;
    return !isInUse && lease.releasedAt! > present.releasedAt!;
  }
}
