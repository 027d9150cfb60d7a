/**
 * The leases of all realms in memory with their indexes, and the steps that change them. Each step keeps all indexes in
 * agreement, adds what the store has to learn to the journal, and notes which presences and pools it has touched.
 * @module
 */
import type { Family, IpAddress } from '../base/address.ts';
import type { Endpoint } from '../base/endpoint.ts';
import { ClientRealms } from './client-realms.ts';
import type { DesiredIndex } from './desired-index.ts';
import type { HeldLease } from './held-lease.ts';
import type { LeaseClock } from './lease-clock.ts';
import type { LeaseJournal } from './lease-journal.ts';
import { presenceKey } from './presence-key.ts';
import type { RealmLeases } from './realm-leases.ts';
import type { ReleaseVersions } from './release-versions.ts';
import { RetiredLeases } from './retired-leases.ts';

/** An address of a realm. */
export interface Place {
  readonly realm: string;
  readonly address: IpAddress;
}

/** What has changed since somebody looked. */
export interface TouchedLeases {
  /** Keyed by realm and address: where a presence may have come or gone. */
  readonly places: ReadonlyMap<string, Place>;
  /** Keyed by realm: the sites whose part of its pools may have changed. Each realm's pools themselves may have, too. */
  readonly pools: ReadonlyMap<string, ReadonlySet<string>>;
  /** The realms of whose presences the prefixes may have changed, without a change of their sites. */
  readonly realms: ReadonlySet<string>;
}

export class LeaseState {
  readonly realms: Map<string, RealmLeases> = new Map();
  readonly clientRealms: ClientRealms = new ClientRealms();
  readonly retired: RetiredLeases;
  readonly journal: LeaseJournal;
  readonly clock: LeaseClock;
  readonly desired: DesiredIndex;
  /** Says which released addresses other machines do not use any more; undefined if there are none. */
  readonly releases: ReleaseVersions | undefined;
  readonly #storeUseMs: number;
  #places = new Map<string, Place>();
  #pools = new Map<string, Set<string>>();
  #changedRealms = new Set<string>();

  /** @param storeUseMs how old the stored use of a lease may get while it is in use */
  constructor(
    desired: DesiredIndex,
    journal: LeaseJournal,
    clock: LeaseClock,
    { storeUseMs, quarantineMs }: { readonly storeUseMs: number; readonly quarantineMs: number },
    releases: ReleaseVersions | undefined
  ) {
    this.desired = desired;
    this.journal = journal;
    this.clock = clock;
    this.#storeUseMs = storeUseMs;
    this.releases = releases;
    this.retired = new RetiredLeases(quarantineMs, releases);
  }

  /** Whether another process allocates: the leases are those that the store shows. */
  get isFollowing(): boolean {
    return !this.journal.isOpen;
  }

  /**
   * Drops what is not stored, because another process allocates now. Leases that the store does not have end. Returns the
   * keys in the store of what was dropped.
   */
  follow(): string[] {
    const dropped = this.journal.close();
    for (const { held } of dropped) {
      const realm = held && this.realms.get(held.realm);
      if (realm === undefined || held!.isStored) continue;
      if (realm.allOf(held!.key).includes(held!)) this.endOne(realm, held!);
    }
    return dropped.map(({ key }) => key);
  }

  /**
   * Leases an address to a service.
   *
   * @throws {AllocatorError} if there is none.
   */
  leaseService(realm: RealmLeases, of: Endpoint, family: Family): void {
    const held = realm.allocate(of, family, true);
    this.journal.hold(held);
    this.touchPool(held.realm);
  }

  /**
   * Gives a service the address that is kept for it, and ends the lease of the one that it has.
   *
   * @throws {AllocatorError} if another host has it, or had it until a short time ago.
   */
  moveService(realm: RealmLeases, former: HeldLease): void {
    const { held, released } = realm.move(former);
    this.journal.hold(held);
    this.journal.release(held.realm, released);
    this.touchPlace(former);
    this.touchPool(held.realm);
  }

  /**
   * Leases an address to a client that may have one.
   *
   * @throws {PoolExhaustedError} if no address is free.
   */
  leaseClient(realm: RealmLeases, of: Endpoint, family: Family): void {
    this.noteUse(realm, realm.allocate(of, family, false));
  }

  /** Ends a lease, and the former ones of its presence. Their addresses go into quarantine. */
  release(realm: RealmLeases, held: HeldLease): void {
    this.endClient(realm, held);
    for (const each of realm.allOf(held.key)) this.#end(realm, each);
  }

  /**
   * Ends one lease: its address was in the pools until the end of an overlap, or another process has ended it. The others
   * of its presence stay.
   */
  endOne(realm: RealmLeases, held: HeldLease): void {
    if (realm.get(held.key) === held) this.endClient(realm, held);
    this.#end(realm, held);
    for (const each of realm.allOf(held.key)) this.touchPlace(each);
  }

  #end(realm: RealmLeases, held: HeldLease): void {
    const isOutside = realm.isOutside(held);
    const lease = realm.release(held);
    this.journal.release(held.realm, lease);
    if (isOutside) this.retired.add(held.realm, lease);
    this.touchPlace(held);
    this.touchPool(held.realm, held.of.realm);
  }

  /** Notes a use of a client's lease, and stores it with the next commit. */
  noteUse(realm: RealmLeases, held: HeldLease): void {
    const nowMs = this.clock.now();
    this.setUse(realm, held, nowMs, nowMs);
    this.journal.hold(held, nowMs);
  }

  /** Notes a use of a client's lease. It is stored if the stored one is old. A lease of a service needs none. */
  touch(realm: RealmLeases, held: HeldLease): void {
    const use = realm.uses.get(held.key);
    if (use === undefined) return;
    const nowMs = this.clock.now();
    if (nowMs - use.storedAtMs >= this.#storeUseMs) this.noteUse(realm, held);
    else realm.uses.set(held.key, { usedAtMs: nowMs, storedAtMs: use.storedAtMs });
  }

  /** Counts a lease as a client's, with its last use. */
  setUse(realm: RealmLeases, held: HeldLease, usedAtMs: number, storedAtMs: number): void {
    const isNew = realm.uses.get(held.key) === undefined;
    realm.uses.set(held.key, { usedAtMs, storedAtMs });
    if (!isNew) return;
    const site = held.of.realm;
    this.clientRealms.add(site, held.realm);
    const transitKey = this.transitKeyOf(held);
    if (transitKey !== undefined) this.clientRealms.need(transitKey);
    this.touchPool(held.realm, site);
  }

  /** Does not count a lease as a client's any more. */
  endClient(realm: RealmLeases, held: HeldLease): void {
    if (realm.uses.get(held.key) === undefined) return;
    realm.uses.delete(held.key);
    const site = held.of.realm;
    const transitKey = this.transitKeyOf(held);
    if (transitKey !== undefined) this.clientRealms.unneed(transitKey);
    if (realm.uses.count(site, 4) + realm.uses.count(site, 6) === 0) {
      this.clientRealms.remove(site, held.realm);
    }
    this.touchPool(held.realm, site);
  }

  /** Returns the key of the presence in the transit realm that a client's lease needs there; undefined if none. */
  transitKeyOf({ realm, of, address }: HeldLease): string | undefined {
    const own = of.address.family;
    const family = this.desired.transitFamily(realm, of.realm, address.family, own);
    return family === undefined ? undefined : presenceKey(of.key, family);
  }

  /**
   * Stores all changes. Returns false if there were none.
   *
   * @throws {StoreConflictError} if another process allocates now.
   * @throws {StoreError} if that fails; the changes then go with the next commit.
   */
  async commit(): Promise<boolean> {
    if (this.journal.isEmpty) return false;
    await this.journal.commit((stored) => {
      for (const held of stored) if (!held.isStored) this.setStored(held, true);
    });
    return true;
  }

  /** Notes whether a lease may be used, if it has not ended meanwhile. */
  setStored(held: HeldLease, isStored: boolean): void {
    const leases = this.realms.get(held.realm)?.allOf(held.key) ?? [];
    if (!leases.includes(held)) return;
    held.isStored = isStored;
    for (const each of leases) this.touchPlace(each);
  }

  touchPlace({ realm, address }: Place): void {
    this.#places.set(`${realm} ${address}`, { realm, address });
  }

  /** @param site the clients' site whose part of the pools has changed */
  touchPool(realm: string, site?: string): void {
    let sites = this.#pools.get(realm);
    if (sites === undefined) {
      sites = new Set();
      this.#pools.set(realm, sites);
    }
    if (site !== undefined) sites.add(site);
  }

  /** Notes that the prefixes of a realm's presences may have changed. */
  touchRealm(realm: string): void {
    this.#changedRealms.add(realm);
  }

  /** Returns what has changed since the last call. */
  takeTouched(): TouchedLeases {
    const touched = { places: this.#places, pools: this.#pools, realms: this.#changedRealms };
    this.#places = new Map();
    this.#pools = new Map();
    this.#changedRealms = new Set();
    return touched;
  }
}
