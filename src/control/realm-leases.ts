/**
 * The leases of one realm: which endpoint each address belongs to, which leases are stored, and how many addresses
 * each site holds.
 *
 * An address counts for the site of its client as long as the lease is in use or the address in quarantine. The address
 * of a service counts for no site while it is in use. An address that the pools do not have any more counts for nobody.
 *
 * A lease stays in use after the pools have lost its address, until the overlap ends. A service gets another one at
 * once, so that names answer with that, and the one before is its *former* lease. A client gets another one when it ends:
 * its packets leave under the first one as long as there is one, and nobody has to know the next one before.
 * @module
 */

import { AddressAllocator, FairShare, type Lease } from '../allocator/index.ts';
import type { AddressInput, Family, IpAddress } from '../base/address.ts';
import type { Endpoint } from '../base/endpoint.ts';
import type { IpPrefix } from '../base/prefix.ts';
import type { Site } from '../registry/index.ts';
import type { ClientSites } from './client-sites.ts';
import { ClientUses } from './client-uses.ts';
import type { HeldLease } from './held-lease.ts';
import { Overlaps } from './overlaps.ts';
import { coverOf, without } from './prefixes.ts';
import { presenceKey, siteOfKey } from './presence-key.ts';
import type { ReleaseVersions } from './release-versions.ts';

export interface RealmLeasesOptions {
  readonly quarantineMs: number;
  /** The lease clock. */
  readonly now: () => number;
  /** The last uses of the client leases that the realm takes over. */
  readonly uses?: ClientUses | undefined;
  /** The overlaps that the realm takes over. */
  readonly overlaps?: Overlaps | undefined;
  /** Says which released addresses other machines do not use any more; undefined if there are none. */
  readonly releases?: ReleaseVersions | undefined;
}

export class RealmLeases {
  readonly allocator: AddressAllocator;
  /** The pools and reservations of the site, as text. */
  readonly definition: string;
  /** The last uses of client leases. */
  readonly uses: ClientUses;
  /** How many addresses the sites hold for their clients. */
  readonly shares: Readonly<Record<Family, FairShare>> = { 4: new FairShare(), 6: new FairShare() };
  /** What the shares were last divided by. */
  readonly #rules: Record<Family, readonly unknown[]> = { 4: [], 6: [] };
  readonly overlaps: Overlaps;
  readonly #name: string;
  /** Prefixes of the addresses that the pools lease. */
  readonly #leasable: readonly IpPrefix[];
  /** The leases in use, by the keys of their presences. */
  readonly #held = new Map<string, HeldLease>();
  /** The leases in use that the holders of these keys had before, by the keys of their presences. */
  readonly #former = new Map<string, HeldLease[]>();
  /** The texts of the addresses in use that the pools do not have any more. */
  readonly #outside = new Set<string>();
  /** Keyed by the key of a presence: the address that is kept for it. */
  readonly #kept = new Map<string, IpAddress>();
  /** Keyed by the text of an address in quarantine: the site it counts for. */
  readonly #resting = new Map<string, string>();

  constructor(site: Site, options: RealmLeasesOptions) {
    const { quarantineMs, now, releases } = options;
    const { uses = new ClientUses(), overlaps = new Overlaps() } = options;
    const { name } = site;
    this.#name = name;
    this.#leasable = without(site.pools, site.reserved ?? []);
    this.uses = uses;
    this.overlaps = overlaps;
    this.definition = definitionOf(site);
    this.allocator = new AddressAllocator({
      pools: site.pools,
      reserved: site.reserved,
      quarantineMs,
      clock: { wallMs: now },
      groupOf: siteOfKey,
      onRested: ({ address }) => this.#endRest(address),
      mayRest: releases && (({ address }) => releases.isApplied(name, address)),
    });
  }

  /** How many leases are in use. Several former ones of one holder count once. */
  get size(): number {
    return this.#held.size + this.#former.size;
  }

  /** Returns the lease in use that has this key, the newest one if there are several. */
  get(key: string): HeldLease | undefined {
    return this.#held.get(key);
  }

  /** Returns the leases in use without the former ones. */
  held(): Iterable<HeldLease> {
    return this.#held.values();
  }

  /** Returns the leases in use that have this key, the newest one last. */
  allOf(key: string): HeldLease[] {
    const held = this.#held.get(key);
    return [...(this.#former.get(key) ?? []), ...(held === undefined ? [] : [held])];
  }

  /** Returns all leases in use. */
  *all(): Iterable<HeldLease> {
    yield* this.#held.values();
    for (const former of this.#former.values()) yield* former;
  }

  /** Returns the presences in use that are stored. */
  *presences(): Iterable<HeldLease> {
    for (const held of this.all()) if (held.isStored) yield held;
  }

  /** Returns the stored lease that names answer with: the newest one of this key. */
  named(key: string): HeldLease | undefined {
    const held = this.#held.get(key);
    return held?.isStored ? held : this.#former.get(key)?.findLast(({ isStored }) => isStored);
  }

  /** Returns the presence at an address, if it is in use and stored. */
  holder(address: AddressInput): HeldLease | undefined {
    const held = this.heldAt(address);
    return held?.isStored ? held : undefined;
  }

  /** Returns the lease of an address that is in use. */
  heldAt(address: AddressInput): HeldLease | undefined {
    const lease = this.allocator.holder(address);
    return lease && this.#leaseAt(lease);
  }

  /** Whether leases are in use whose addresses the pools do not have any more. */
  get hasOutside(): boolean {
    return this.#outside.size > 0;
  }

  /** Returns until when a lease is a former one of a presence with a newer address; undefined if it is none. */
  formerUntil(held: HeldLease): number | undefined {
    if (!this.#former.has(held.key) || this.named(held.key) === held) return undefined;
    return this.overlaps.untilOf(held.address) ?? 0;
  }

  /** Returns whether the pools do not have the address of a lease in use any more. */
  isOutside({ address }: Pick<Lease, 'address'>): boolean {
    return this.#outside.has(address.toString());
  }

  /** The prefixes of presences: the pools, and what they have lost while an overlap lasts. */
  poolsOf({ pools }: Site): readonly IpPrefix[] {
    if (this.overlaps.isEmpty) return pools;
    return [...pools, ...without(this.overlaps.prefixes, pools)];
  }

  /** Takes leases of before, and returns those of the released ones whose addresses the pools do not have any more. */
  restore(held: readonly HeldLease[], released: readonly Lease[]): readonly Lease[] {
    const endOf = ({ address }: HeldLease): number =>
      this.overlaps.placeOf(address) ?? Number.POSITIVE_INFINITY;
    // If a key has several leases, the allocator prefers one in the pools, and else the first one.
    const newestFirst = this.overlaps.isEmpty ? held : held.toSorted((a, b) => endOf(b) - endOf(a));
    this.allocator.retain(newestFirst.map(({ key, address }): Lease => ({ key, address })));
    const lost = this.allocator.restore(released);
    this.allocator.endRests();
    for (const { address } of this.allocator.outside()) this.#outside.add(address.toString());
    for (const each of newestFirst) this.#take(each);
    for (const { key, address } of released) {
      if (this.allocator.isResting(address)) this.#rest(key, address);
    }
    return lost;
  }

  /**
   * Begins the overlap of the leases in use that the pools do not have any more, and of which it has not begun.
   *
   * @param before the leases of the realm with its pools of before, if they are known
   * @param untilMs when it ends
   * @returns whether it has begun
   */
  beginOverlap(before: RealmLeases | undefined, untilMs: number): boolean {
    const lost = [...this.all()].filter((held) => {
      if (!this.isOutside(held)) return false;
      if (before !== undefined) return !before.isOutside(held);
      return this.overlaps.untilOf(held.address) === undefined;
    });
    const isAmong = (prefix: IpPrefix) => lost.some(({ address }) => prefix.contains(address));
    const gone =
      before === undefined ? [] : without(before.#leasable, this.#leasable).filter(isAmong);
    const others = lost.filter(({ address }) => !gone.some((prefix) => prefix.contains(address)));
    this.overlaps.begin([...gone, ...coverOf(others.map(({ address }) => address))], untilMs);
    return lost.length > 0;
  }

  /** Ends the overlaps whose time has come. Returns the leases that end with them; undefined if none has ended. */
  endOverlaps(nowMs: number): HeldLease[] | undefined {
    if (!this.overlaps.end(nowMs)) return undefined;
    const outside = this.allocator.outside().map((lease) => this.#leaseAt(lease)!);
    const left = new Set([...outside, ...[...this.#former.values()].flat()]);
    return [...left].filter(({ address }) => this.overlaps.untilOf(address) === undefined);
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
    return { held, released: this.release(former) };
  }

  /**
   * Leases an address in memory, to a service or to a client that may have one. If it has one that the pools do not have
   * any more, that one is a former lease from now on.
   */
  allocate(of: Endpoint, family: Family, isService: boolean): HeldLease {
    const key = presenceKey(of.key, family);
    const { address } = this.allocator.allocate(key, family);
    const held = { realm: this.#name, key, of, address, isStored: false, isService };
    this.#endRest(address);
    this.#take(held);
    return held;
  }

  /** Takes a lease that another process has stored. Its address is not in use. */
  adopt(held: HeldLease): void {
    const { key, address } = held;
    this.#endRest(address);
    this.allocator.retain([{ key, address }]);
    if (!this.allocator.has(address)) this.#outside.add(address.toString());
    this.#take(held);
  }

  /**
   * Takes a lease that another process has released, of an address that is not in use. Its quarantine begins now. Returns
   * it if the pools do not have the address.
   */
  adoptReleased(key: string, address: IpAddress, nowMs: number): Lease | undefined {
    if (
      this.allocator.isResting(address) &&
      this.#resting.get(address.toString()) === siteOfKey(key)
    ) {
      return undefined;
    }
    this.#endRest(address);
    const [lost] = this.allocator.restore([{ key, address, releasedAt: nowMs }]);
    if (lost === undefined) this.#rest(key, address);
    return lost;
  }

  /** Notes whether a lease, with the former ones of its presence, is of a service or of a client. */
  setService({ key, isService: wasService }: HeldLease, isService: boolean): void {
    if (wasService === isService) return;
    for (const held of this.allOf(key)) {
      const shares = this.shares[held.address.family];
      const isCounted = !this.isOutside(held);
      if (isCounted) shares.remove(partyOf(held));
      held.isService = isService;
      if (isCounted) shares.add(partyOf(held));
    }
  }

  /**
   * Ends a lease in use, in memory. Its address counts for the site until its quarantine has ended, unless the pools do
   * not have it any more.
   */
  release(held: HeldLease): Lease {
    const { key, address } = held;
    const former = this.#former.get(key)?.filter((each) => each !== held) ?? [];
    if (former.length === 0) this.#former.delete(key);
    else this.#former.set(key, former);
    if (this.#held.get(key) === held) {
      this.#held.delete(key);
      this.uses.delete(key);
    }
    const lease = this.allocator.releaseAddress(address)!;
    if (this.#outside.delete(address.toString())) return lease;
    this.shares[address.family].remove(partyOf(held));
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
      const reserve = reserveOf(site, capacity);
      const { quotas: parties, revision } = clientSitesOf(family);
      const share = site.clientShare;
      // The shares take time for each party.
      const rules = [capacity, reserve, parties, share, revision];
      if (rules.every((each, i) => each === this.#rules[family][i])) continue;
      this.#rules[family] = rules;
      this.shares[family].define({ capacity, reserve, parties, share });
    }
  }

  #leaseAt({ key, address }: Lease): HeldLease | undefined {
    const newest = this.#held.get(key);
    if (newest?.address.equals(address)) return newest;
    return this.#former.get(key)?.find((each) => each.address.equals(address));
  }

  #take(held: HeldLease): void {
    const { key, address } = held;
    if (!this.isOutside(held)) this.shares[address.family].add(partyOf(held));
    const before = this.#held.get(key);
    const isNewest = this.allocator.lookup(key)!.address.equals(address);
    if (isNewest) this.#held.set(key, held);
    if (isNewest && before === undefined) return;
    const former = [...(this.#former.get(key) ?? []), isNewest ? before! : held];
    if (former.length > 1) {
      const endOf = (each: HeldLease): number => this.overlaps.placeOf(each.address) ?? -1;
      former.sort((a, b) => endOf(a) - endOf(b));
    }
    this.#former.set(key, former);
  }

  #rest(key: string, address: IpAddress): void {
    const text = address.toString();
    // A lease that ended when the pools had lost its address is known to them and kept apart: it counts once.
    if (this.#resting.has(text)) return;
    const site = siteOfKey(key);
    this.#resting.set(text, site);
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
