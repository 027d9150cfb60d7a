/**
 * The leases of one realm: which endpoint each address belongs to, which leases are stored, and how many addresses
 * each site holds.
 *
 * An address counts for the site of its client as long as the lease is in use or the address in quarantine. The address
 * of a service counts for no site while it is in use.
 * @module
 */

import { AddressAllocator, FairShare, type Lease } from '../allocator/index.ts';
import type { AddressInput, Family, IpAddress } from '../base/address.ts';
import type { Endpoint } from '../base/endpoint.ts';
import type { Site } from '../registry/index.ts';
import type { ClientSites } from './client-sites.ts';
import { ClientUses } from './client-uses.ts';
import type { HeldLease } from './held-lease.ts';
import { presenceKey, siteOfKey } from './presence-key.ts';

export interface RealmLeasesOptions {
  readonly quarantineMs: number;
  /** The lease clock. */
  readonly now: () => number;
  /** The last uses of the client leases that the realm takes over. */
  readonly uses?: ClientUses | undefined;
}

export class RealmLeases {
  readonly allocator: AddressAllocator;
  /** The pools and reservations of the site, as text. */
  readonly definition: string;
  /** The last uses of client leases. */
  readonly uses: ClientUses;
  /** How many addresses the sites hold for their clients. */
  readonly shares: Readonly<Record<Family, FairShare>> = { 4: new FairShare(), 6: new FairShare() };
  readonly #name: string;
  /** The leases in use, by the keys of their presences. */
  readonly #held = new Map<string, HeldLease>();
  /** Keyed by the key of a presence: the address that is kept for it. */
  readonly #kept = new Map<string, IpAddress>();
  /** Keyed by the text of an address in quarantine: the site it counts for. */
  readonly #resting = new Map<string, string>();

  constructor(site: Site, { quarantineMs, now, uses = new ClientUses() }: RealmLeasesOptions) {
    this.#name = site.name;
    this.uses = uses;
    this.definition = definitionOf(site);
    this.allocator = new AddressAllocator({
      pools: site.pools,
      reserved: site.reserved,
      quarantineMs,
      clock: { wallMs: now },
      groupOf: siteOfKey,
      onRested: ({ address }) => this.#endRest(address),
    });
  }

  /** How many leases are in use. */
  get size(): number {
    return this.#held.size;
  }

  /** Returns the lease in use that has this key. */
  get(key: string): HeldLease | undefined {
    return this.#held.get(key);
  }

  /** Returns the leases in use. */
  held(): Iterable<HeldLease> {
    return this.#held.values();
  }

  /** Returns the presences in use that are stored. */
  *presences(): Iterable<HeldLease> {
    for (const held of this.#held.values()) {
      if (held.isStored) yield held;
    }
  }

  /** Returns the presence at an address, if it is in use and stored. */
  holder(address: AddressInput): HeldLease | undefined {
    const lease = this.allocator.holder(address);
    const held = lease && this.#held.get(lease.key);
    return held?.isStored ? held : undefined;
  }

  /** Takes leases of before, and returns those whose addresses the pools do not have any more. */
  restore(
    held: readonly HeldLease[],
    released: readonly Lease[]
  ): { readonly held: readonly HeldLease[]; readonly released: readonly Lease[] } {
    const inUse = held.map(({ key, address }): Lease => ({ key, address }));
    const lost = new Set(
      this.allocator.restore([...inUse, ...released]).map(({ address }) => address.toString())
    );
    this.allocator.endRests();
    const isLost = ({ address }: Pick<Lease, 'address'>) => lost.has(address.toString());
    for (const each of held) if (!isLost(each)) this.#take(each);
    for (const { key, address } of released) {
      if (this.allocator.isResting(address)) this.#rest(key, address);
    }
    return { held: held.filter(isLost), released: released.filter(isLost) };
  }

  /** Returns the released leases of which the addresses are known. */
  released(): Lease[] {
    return this.allocator.leases().filter(({ releasedAt }) => releasedAt !== undefined);
  }

  /**
   * Keeps an address for a presence, so that no other one gets it.
   *
   * @param address undefined: none is kept for it
   * @throws {AddressUnavailableError} if the pools do not have the address, or it is kept for another presence.
   */
  keep(key: string, address: IpAddress | undefined): void {
    const before = this.#kept.get(key);
    if (before === undefined ? address === undefined : address?.equals(before)) return;
    if (before !== undefined) this.allocator.unkeep(key);
    this.#kept.delete(key);
    if (address === undefined) return;
    this.allocator.keep(address, key);
    this.#kept.set(key, address);
  }

  /**
   * Gives a service the address that is kept for it in place of the one that it has. Returns both leases.
   *
   * @throws {AddressUnavailableError} if another host has the address, or had it until a short time ago.
   */
  move(former: HeldLease): { readonly held: HeldLease; readonly released: Lease } {
    const held = this.allocate(former.of, former.address.family, former.isService);
    this.shares[former.address.family].remove(partyOf(former));
    this.#rest(former.key, former.address);
    return { held, released: this.allocator.releaseAddress(former.address)! };
  }

  /** Leases an address in memory, to a service or to a client that may have one. */
  allocate(of: Endpoint, family: Family, isService: boolean): HeldLease {
    const key = presenceKey(of.key, family);
    const { address } = this.allocator.allocate(key, family);
    const held = { realm: this.#name, key, of, address, isStored: false, isService };
    this.#endRest(address);
    this.#take(held);
    return held;
  }

  /** Notes whether a lease is of a service or of a client. */
  setService(held: HeldLease, isService: boolean): void {
    if (held.isService === isService) return;
    const shares = this.shares[held.address.family];
    shares.remove(partyOf(held));
    held.isService = isService;
    shares.add(partyOf(held));
  }

  /** Ends a lease in use, in memory. Its address counts for the site until its quarantine has ended. */
  release(held: HeldLease): Lease {
    const { key, address } = held;
    this.#held.delete(key);
    this.uses.delete(key);
    this.shares[address.family].remove(partyOf(held));
    const lease = this.allocator.release(key)!;
    this.#rest(key, address);
    return lease;
  }

  /** Returns whether a client's last address is in quarantine and counts for its site, so that it can have it again. */
  isKept(key: string): boolean {
    return this.allocator.resting(key) !== undefined;
  }

  /** Returns how many leases of a site are too many, when it holds nearly all that it can have. */
  excessOf(site: string, maxClients: number): Excess {
    const beyond = (held: number, limit: number): number =>
      isNearly(held, limit) ? held - Math.floor(RELIEVED * limit) : 0;
    return new Excess(
      beyond(this.uses.count(site, 4), this.shares[4].limitOf(site)),
      beyond(this.uses.count(site, 6), this.shares[6].limitOf(site)),
      beyond(this.uses.hostCount(site), maxClients)
    );
  }

  /** Adapts the shares to a changed desired state; the leases stay. */
  divide(site: Site, clientSitesOf: (family: Family) => ClientSites): void {
    for (const family of FAMILIES) {
      const { capacity } = this.allocator.statsOf(family);
      this.shares[family].define({
        capacity,
        reserve: reserveOf(site, capacity),
        parties: clientSitesOf(family).quotas,
        share: site.clientShare,
      });
    }
  }

  #take(held: HeldLease): void {
    this.#held.set(held.key, held);
    this.shares[held.address.family].add(partyOf(held));
  }

  #rest(key: string, address: IpAddress): void {
    const site = siteOfKey(key);
    this.#resting.set(address.toString(), site);
    this.shares[address.family].add(site);
  }

  #endRest(address: IpAddress): void {
    const text = address.toString();
    const site = this.#resting.get(text);
    if (site === undefined) return;
    this.#resting.delete(text);
    this.shares[address.family].remove(site);
  }
}

/** Returns what of a site says which leases it can have: a site with another text needs its leases anew. */
export function definitionOf({ pools, reserved }: Site): string {
  return JSON.stringify([pools, reserved]);
}

/** Returns how many addresses of a pool are kept for services. */
export function reserveOf({ serviceReserve }: Site, capacity: number): number {
  return serviceReserve ?? Math.floor(capacity / DEFAULT_RESERVE_PART);
}

function partyOf({ isService, of }: HeldLease): string | undefined {
  return isService ? undefined : of.realm;
}

/** How many leases may end earlier than others. */
class Excess {
  readonly #counts: Record<Family, number>;
  #hosts: number;

  constructor(v4: number, v6: number, hosts: number) {
    this.#counts = { 4: v4, 6: v6 };
    this.#hosts = hosts;
  }

  has(family: Family): boolean {
    return this.#hosts > 0 || this.#counts[family] > 0;
  }

  /** Notes that one of them has ended. */
  take(family: Family): void {
    this.#hosts--;
    this.#counts[family]--;
  }
}

/** Returns whether so much is held that a warning is due, and unused leases have to end. */
export function isNearly(held: number, limit: number): boolean {
  return held > 0 && held >= NEARLY * limit;
}

const NEARLY = 0.8;
/** Unused leases end until no more than this part is held; then the warning ends too. */
export const RELIEVED = 0.7;

export const FAMILIES: readonly Family[] = [4, 6];

/** An eighth of a pool is for services, unless a site says otherwise. */
const DEFAULT_RESERVE_PART = 8;
