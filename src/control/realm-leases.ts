/**
 * The leases of one realm: whose the addresses are, what is stored of that, and how many each site holds.
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
  /** The pools they are of, as text. */
  readonly definition: string;
  /** The presences that are in use and stored, by their keys. */
  readonly presences: Map<string, Presence> = new Map();
  /** The keys of the same presences, by the texts of their addresses. */
  readonly holders: Map<string, string> = new Map();
  /** Keys of the presences that are there because a service is exposed. */
  services: ReadonlySet<string> = new Set();
  /** Of the leases of clients only. */
  readonly uses: ClientUses = new ClientUses();
  /** What the sites hold for their clients. */
  readonly shares: Readonly<Record<Family, FairShare>> = { 4: new FairShare(), 6: new FairShare() };
  readonly #name: string;
  /** By presence's key: whom each lease is for that nobody has released, stored or not. */
  readonly #endpoints = new Map<string, Endpoint>();
  /** By text of an address in use or at rest: the site that it counts for, undefined for a service's. */
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

  /** Returns whom the lease of this key is for; undefined if there is none, or it was released. */
  endpoint(key: string): Endpoint | undefined {
    return this.#endpoints.get(key);
  }

  /** Takes back leases from before; returns those whose addresses the pools do not have any more. */
  restore(leases: readonly Lease[], endpointOf: (lease: Lease) => Endpoint | undefined): Lease[] {
    const lost = this.allocator.restore(leases);
    for (const lease of leases) {
      const of = endpointOf(lease);
      if (of === undefined || this.allocator.lookup(lease.key) === undefined) continue;
      this.#endpoints.set(lease.key, of);
    }
    return lost;
  }

  /** Puts a lease to use, which is stored. */
  use({ key, address }: Lease): void {
    const of = this.#endpoints.get(key);
    // It was released while it was being stored.
    if (of === undefined) return;
    this.presences.set(key, { realm: this.#name, address, of });
    this.holders.set(address.toString(), key);
  }

  #disuse(key: string): void {
    const presence = this.presences.get(key);
    if (presence === undefined) return;
    this.presences.delete(key);
    this.holders.delete(presence.address.toString());
  }

  /** Leases an address to a service, or to a client that may have one; in memory only. */
  allocate(of: Endpoint, family: Family): Lease {
    const key = presenceKey(of.key, family);
    const lease = this.allocator.allocate(key, family);
    this.#endpoints.set(key, of);
    this.#count(lease);
    return lease;
  }

  /** Ends a lease in use, in memory only. Its address goes on to count until it has rested. */
  release(key: string): Lease | undefined {
    this.#disuse(key);
    this.uses.delete(key);
    this.#endpoints.delete(key);
    return this.allocator.release(key);
  }

  /** Whether a presence's last address is at rest, and counts for a site: to have it again costs that nothing. */
  isKept(key: string, site: string): boolean {
    const lease = this.allocator.resting(key);
    return lease !== undefined && this.#counted.get(lease.address.toString()) === site;
  }

  /** How many leases of a site are too many, when it holds nearly all that it can have. */
  excessOf(site: string, maxClients: number): Excess {
    const beyond = (held: number, limit: number): number =>
      isNearly(held, limit) ? held - Math.floor(RELIEVED * limit) : 0;
    return new Excess(
      beyond(this.uses.count(site, 4), this.shares[4].limitOf(site)),
      beyond(this.uses.count(site, 6), this.shares[6].limitOf(site)),
      beyond(this.uses.hostCount(site), maxClients)
    );
  }

  /** The same leases after the desired state has changed: who counts for whom, and what each may have. */
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

/** Leases that may end earlier than others. */
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

  /** One of them has ended. */
  take(family: Family): void {
    this.#hosts--;
    this.#counts[family]--;
  }
}

/** Whether so much is held that it is time to say so, and to make room. */
export function isNearly(held: number, limit: number): boolean {
  return held > 0 && held >= NEARLY * limit;
}

const NEARLY = 0.8;
/** Room is made until no more than this is held, and then there is nothing to say any more. */
export const RELIEVED = 0.7;

export const FAMILIES: readonly Family[] = [4, 6];

/** An eighth of a pool is for services, unless a site says otherwise. */
const DEFAULT_RESERVE_PART = 8;
