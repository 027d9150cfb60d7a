/**
 * The leases of one realm: which endpoint each address belongs to, which leases are stored, and how many addresses
 * each site holds.
 * @module
 */

import { AddressAllocator, FairShare, type Lease } from '../allocator/index.ts';
import type { Family, IpAddress } from '../base/address.ts';
import type { Endpoint } from '../base/endpoint.ts';
import type { Site } from '../registry/index.ts';
import type { Presence } from '../translator/index.ts';
import { ClientUses } from './client-uses.ts';
import type { DesiredIndex } from './desired-index.ts';
import { presenceKey, siteOfKey } from './presence-key.ts';

export class RealmLeases {
  readonly allocator: AddressAllocator;
  /** The pools and reservations of the site, as text. */
  readonly definition: string;
  /** The presences in use that are stored, by their keys. */
  readonly presences: Map<string, Presence> = new Map();
  /** The keys of the same presences, by the texts of their addresses. */
  readonly holders: Map<string, string> = new Map();
  /** The keys of the presences of exposed services. */
  services: ReadonlySet<string> = new Set();
  /** The last uses of client leases. */
  readonly uses: ClientUses = new ClientUses();
  /** How many addresses the sites hold for their clients. */
  readonly shares: Readonly<Record<Family, FairShare>> = { 4: new FairShare(), 6: new FairShare() };
  readonly #name: string;
  /** Keyed by the presence's key: the endpoint of each lease in use that is not stored yet. */
  readonly #unstored = new Map<string, Endpoint>();
  /** Keyed by the text of an address in use or in quarantine: the site it counts for, undefined for a service's. */
  readonly #counted = new Map<string, string | undefined>();

  /** @param now the lease clock */
  constructor(
    { name, pools, reserved }: Site,
    definition: string,
    quarantineMs: number,
    now: () => number
  ) {
    this.#name = name;
    this.definition = definition;
    this.allocator = new AddressAllocator({
      pools,
      reserved,
      quarantineMs,
      clock: { wallMs: now },
      groupOf: siteOfKey,
      onRested: ({ address }) => this.#uncount(address),
    });
  }

  /** Returns the endpoint of the lease that has this key; undefined if there is no lease, or it was released. */
  endpoint(key: string): Endpoint | undefined {
    return this.presences.get(key)?.of ?? this.#unstored.get(key);
  }

  /** Takes leases of before, and returns those whose addresses the pools do not have any more. */
  restore(leases: readonly Lease[], endpointOf: (lease: Lease) => Endpoint | undefined): Lease[] {
    const lost = this.allocator.restore(leases);
    for (const lease of leases) {
      const of = endpointOf(lease);
      if (of === undefined || this.allocator.lookup(lease.key) === undefined) continue;
      this.#unstored.set(lease.key, of);
    }
    return lost;
  }

  /** Notes that a lease is stored, so that it may be used. */
  use({ key, address }: Lease): void {
    const of = this.endpoint(key);
    // The lease was released while it was being stored.
    if (of === undefined) return;
    this.#unstored.delete(key);
    this.presences.set(key, { realm: this.#name, address, of });
    this.holders.set(address.toString(), key);
  }

  #disuse(key: string): void {
    const presence = this.presences.get(key);
    if (presence === undefined) return;
    this.presences.delete(key);
    this.holders.delete(presence.address.toString());
  }

  /** Leases an address in memory, to a service or to a client that may have one. */
  allocate(of: Endpoint, family: Family): Lease {
    const key = presenceKey(of.key, family);
    const lease = this.allocator.allocate(key, family);
    this.#unstored.set(key, of);
    this.#count(lease);
    return lease;
  }

  /** Ends a lease in use, in memory. Its address counts for the site until its quarantine has ended. */
  release(key: string): Lease | undefined {
    this.#disuse(key);
    this.uses.delete(key);
    this.#unstored.delete(key);
    return this.allocator.release(key);
  }

  /** Returns whether a presence's last address is in quarantine and counts for a site, so that it can have it again. */
  isKept(key: string, site: string): boolean {
    const lease = this.allocator.resting(key);
    return lease !== undefined && this.#counted.get(lease.address.toString()) === site;
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

  /** Adapts shares and counts to a changed desired state; the leases stay. */
  fit(name: string, desired: DesiredIndex): void {
    this.allocator.endRests();
    const site = desired.sites.get(name)!;
    for (const family of FAMILIES) {
      const { capacity } = this.allocator.statsOf(family);
      this.shares[family].define({
        capacity,
        reserve: site.serviceReserve ?? Math.floor(capacity / DEFAULT_RESERVE_PART),
        parties: desired.clientSitesOf(name, family),
        share: site.clientShare,
      });
    }
    for (const lease of this.allocator.leases()) {
      const isHeld = lease.releasedAt === undefined || this.allocator.isResting(lease.address);
      if (isHeld) this.#count(lease);
      else this.#uncount(lease.address);
    }
  }

  #count({ key, address }: Lease): void {
    const site = this.services.has(key) ? undefined : siteOfKey(key);
    const text = address.toString();
    if (this.#counted.has(text)) {
      if (this.#counted.get(text) === site) return;
      this.#uncount(address);
    }
    this.#counted.set(text, site);
    this.shares[address.family].add(site);
  }

  #uncount(address: IpAddress): void {
    const text = address.toString();
    if (!this.#counted.has(text)) return;
    const site = this.#counted.get(text);
    this.#counted.delete(text);
    this.shares[address.family].remove(site);
  }
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
