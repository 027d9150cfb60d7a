/**
 * The leases of all realms, and which of them are stored. Only stored leases may be used.
 *
 * An entry of the store, `lease/<realm>/<address>`, says which endpoint the address belongs to, or when it was
 * released. In memory, the key of a lease is that of the presence, because an endpoint may have one of each IP version.
 * `fit`, `admit`, `endIdle` and `releaseClients` change leases in memory, and `commit` stores the changes. What a failed
 * commit has not stored goes with the next one. The caller runs these one after the other. The other methods return only
 * leases that are in use *and* stored, at any time.
 *
 * The entry of a client's lease also has the time of its last use, `usedAt`. It is stored again only when it is old: a
 * lease in use costs one write in `storeUseMs`. All times are those of the lease clock.
 *
 * A released lease stays in the store, so that its host gets the address again, until another host has the address. If
 * its pool or its site is gone, it is deleted after its quarantine. A lease in use whose pool is gone is in use until the
 * overlap of its realm ends (`Overlaps`); so the store may have two leases of one presence.
 * @module
 */
import type { Family, IpAddress } from '../base/address.ts';
import type { Clock } from '../base/clock.ts';
import type { Endpoint } from '../base/endpoint.ts';
import type { IpPrefix } from '../base/prefix.ts';
import { type AllocatorError, QuotaExceededError, StoreError } from '../errors.ts';
import type { Site } from '../registry/index.ts';
import type { Change, Guard, Store } from '../store/index.ts';
import type { Presence } from '../translator/index.ts';
import type { Allocation } from './allocation.ts';
import type { ClientUse } from './client-uses.ts';
import type { DesiredIndex } from './desired-index.ts';
import { type HeldLease, presenceOf } from './held-lease.ts';
import type { IndexChanges } from './index-changes.ts';
import { LeaseClock } from './lease-clock.ts';
import { LeaseFit } from './lease-fit.ts';
import type { FoundLeases } from './lease-follow.ts';
import { LeaseJournal } from './lease-journal.ts';
import { LeaseState, type TouchedLeases } from './lease-state.ts';
import { OVERLAP_PREFIX, Overlaps } from './overlaps.ts';
import { familyOfKey, presenceKey } from './presence-key.ts';
import type { PresenceUse } from './presence-uses.ts';
import type { RealmLeases } from './realm-leases.ts';
import { ReleaseVersions } from './release-versions.ts';
import { type FoundLease, LEASE_PREFIX, LeaseReader } from './stored-lease.ts';

export interface LeaseTableOptions {
  readonly store: Store;
  readonly quarantineMs: number;
  /** How long leases are in use after the pools have lost their addresses, in ms. */
  readonly overlapMs: number;
  /** How old the stored use of a lease may get while it is in use, in ms. */
  readonly storeUseMs: number;
  readonly clock: Clock;
  /** Says whether this process allocates; undefined: always. */
  readonly allocation?: Allocation | undefined;
}

export interface IdleRules {
  /** The time without use after which a client's lease ends, in ms. */
  readonly idleMs: number;
  /** The same for a site that holds nearly all that it can have, until it is well below that. */
  readonly pressedIdleMs: number;
}

export class LeaseTable {
  readonly #state: LeaseState;
  readonly #fit: LeaseFit;
  readonly #storeUseMs: number;
  /** The version of the newest lease or overlap that was read. */
  readonly openedVersion: number;

  private constructor(
    desired: DesiredIndex,
    { found, clock, releases, version }: OpenedLeases,
    options: LeaseTableOptions
  ) {
    this.openedVersion = version;
    const journal = new LeaseJournal(options.store, releases);
    this.#state = new LeaseState(desired, journal, clock, options, releases);
    this.#storeUseMs = options.storeUseMs;
    this.#fit = new LeaseFit(this.#state, found, {
      ...options,
      check: (...client) => this.check(...client),
    });
  }

  /**
   * Reads the leases. The first `fit` must then be with everything that is desired.
   *
   * @throws {StoreError} if the store cannot be read, or an entry is not a lease.
   */
  static async open(desired: DesiredIndex, options: LeaseTableOptions): Promise<LeaseTable> {
    const entries = await options.store.list(LEASE_PREFIX);
    const reader = new LeaseReader();
    const overlaps = new Map<string, Overlaps>();
    let version = 0;
    for (const entry of await options.store.list(OVERLAP_PREFIX)) {
      const found = Overlaps.read(entry);
      overlaps.set(found.realm, found.overlaps);
      version = Math.max(version, entry.version);
    }
    const { allocation } = options;
    const releases = allocation && new ReleaseVersions(() => allocation.horizon);
    /** The keys in the store of released leases that other machines may still use. */
    const unapplied = new Set<FoundLease>();
    const all = new Map<string, FoundLease[]>();
    /** The keys in the store by holder, of the realm of the entry before: they are in the order of their realms. */
    const holders = new Map<string, string>();
    let newestMs = 0;
    for (const entry of entries) {
      const { realm, lease } = reader.read(entry);
      if (!all.has(realm)) holders.clear();
      newestMs = Math.max(newestMs, lease.releasedAt ?? 0, lease.usedAtMs ?? 0);
      version = Math.max(version, entry.version);
      const isReleased = lease.releasedAt !== undefined;
      if (isReleased && releases?.note(entry.key, entry.version)) unapplied.add(lease);
      const isFormer = overlaps.get(realm)?.untilOf(lease.address) !== undefined;
      if (lease.releasedAt === undefined && !isFormer) {
        const other = holders.get(lease.key);
        if (other !== undefined) {
          throw new StoreError(`${other} and ${entry.key} in the store are both of ${lease.of}`);
        }
        holders.set(lease.key, entry.key);
      }
      const found = all.get(realm);
      if (found === undefined) all.set(realm, [lease]);
      else found.push(lease);
    }
    const clock = await LeaseClock.open(options.store, options.clock, newestMs);
    if (unapplied.size > 0) beginQuarantines(all, unapplied, clock.now());
    const found = { leases: all, overlaps };
    return new LeaseTable(desired, { found, clock, releases, version }, options);
  }

  /** Whether another process allocates, or none: then the leases are those that the store shows, and nothing is written. */
  get isFollowing(): boolean {
    return this.#state.isFollowing;
  }

  /** Takes what the store shows of leases and overlaps while it is following. Returns what was no lease. */
  show(changes: Iterable<Change>): StoreError[] {
    return this.#fit.show(changes);
  }

  /** Returns whether the store shows what this process has written while it allocates. */
  isOwn(change: Change): boolean {
    return this.#state.journal.isOwn(change);
  }

  /** Begins to allocate. Everything is then to be fitted. @param guards the conditions of each commit */
  allocate(guards: readonly Guard[]): void {
    this.#state.journal.open(guards);
    this.#fit.takeOver();
  }

  /** Ends that. Returns the keys in the store of what was not stored, which have to be shown again. */
  follow(): string[] {
    return this.#state.follow();
  }

  /** Adds the deletion of an entry that asked for something to the next commit. */
  answer(key: string): void {
    this.#state.journal.write({ key, value: undefined });
  }

  /**
   * Leases the addresses that a changed desired state needs, and releases those that it does not need, in memory and in
   * steps.
   *
   * @param isRetry whether what has failed before is tried again in all realms
   * @param problems gets the reasons why addresses could not be leased, unless these were so before
   */
  fit(changes: IndexChanges, isRetry: boolean, problems: AllocatorError[]): Iterator<void> {
    return this.#fit.fit(changes, isRetry, problems);
  }

  /** Whether something is to be done later although nothing changes. */
  get isWaiting(): boolean {
    return this.#fit.isWaiting;
  }

  /** Returns whether a service of a realm has no address, or not the one that it asks for, which is tried again. */
  hasFailed(realm: string, key: string): boolean {
    return this.#fit.hasFailed(realm, key);
  }

  /** Returns whether any service of a realm has no address, or not the one that it asks for. */
  hasFailures(realm: string): boolean {
    return this.#fit.hasFailures(realm);
  }

  /** In how many ms the next overlap of replaced pools ends; infinite if none lasts. */
  get overlapEndsInMs(): number {
    return this.#fit.overlapEndsInMs;
  }

  /**
   * Checks that a client may have a presence of this IP version in `realm`. A client that has one may. The shares do
   * not bind a client whose last address is in quarantine for its site, because that address counts already.
   *
   * @throws {QuotaExceededError} if the client's site has `maxClients` clients there, or as many addresses as the
   *   shares of other sites leave to it.
   */
  check(realm: string, client: Endpoint, family: Family, maxClients: number): void {
    const leases = this.#state.realms.get(realm)!;
    const { allocator, uses, shares } = leases;
    const key = presenceKey(client.key, family);
    if (leases.get(key) !== undefined) return;
    const site = client.realm;
    const hosts = uses.hostCount(site);
    if (!uses.hasHost(client) && hosts >= maxClients) {
      throw new QuotaExceededError(
        `"${site}" has ${hosts} clients in "${realm}", as many as it may`
      );
    }
    const { capacity, leased, quarantined } = allocator.statsOf(family);
    // The allocator reports a pool without a free address.
    if (shares[family].mayTake(site) || leased + quarantined >= capacity) return;
    if (leases.isKept(key)) return;
    throw new QuotaExceededError(
      `"${site}" has ${shares[family].heldBy(site)} IPv${family} addresses in "${realm}", all that the shares of other sites and the reserve for services leave to it`
    );
  }

  /**
   * Leases an address of `realm` to a client in memory, unless it has one of this IP version. This counts as a use of
   * the address.
   *
   * @throws {QuotaExceededError} as `check` does.
   * @throws {PoolExhaustedError} if no address is free.
   */
  admit(realm: string, client: Endpoint, family: Family, maxClients: number): void {
    this.check(realm, client, family, maxClients);
    const leases = this.#state.realms.get(realm)!;
    const held = leases.get(presenceKey(client.key, family));
    if (held === undefined) this.#state.leaseClient(leases, client, family);
    else this.#state.touch(leases, held);
  }

  /** Returns those of these uses that the process which allocates has to know, because the stored ones get old. */
  usesToTell(uses: Iterable<PresenceUse>): PresenceUse[] {
    const { realms, clock } = this.#state;
    const beforeMs = clock.now() - this.#storeUseMs / 2;
    return [...uses].filter(({ realm, address }) => {
      const held = realms.get(realm)?.holder(address);
      const use = held && realms.get(realm)!.uses.get(held.key);
      return use !== undefined && use.storedAtMs <= beforeMs;
    });
  }

  /** Notes that presences were used since the last call, and ignores those that are no clients'. */
  touch(uses: Iterable<PresenceUse>): void {
    for (const { realm, address } of uses) {
      const leases = this.#state.realms.get(realm);
      const held = leases?.holder(address);
      if (held !== undefined) this.#state.touch(leases!, held);
    }
    this.noteClock();
  }

  /**
   * Ends client leases that were not used for long, in memory, in steps, the longest unused of each site first. Leases of
   * services stay, and those in the transit realm that another one needs. Other leases may change between two steps.
   */
  *endIdle(rules: IdleRules): Generator<void> {
    for (const name of this.#state.realms.keys()) {
      for (const site of this.#state.realms.get(name)?.uses.sites ?? []) {
        if (this.isFollowing) return;
        yield* this.#endIdleOf(name, site, rules);
        yield;
      }
    }
  }

  *#endIdleOf(name: string, site: string, { idleMs, pressedIdleMs }: IdleRules): Generator<void> {
    const { realms, desired, clientRealms, clock } = this.#state;
    const realm = realms.get(name);
    // Most sites have no lease that is unused for long.
    const nowMs = clock.now();
    const isIdle = ({ usedAtMs }: ClientUse): boolean => nowMs - usedAtMs >= pressedIdleMs;
    const [longest] = realm?.uses.of(site).values() ?? [];
    if (realm === undefined || longest === undefined || !isIdle(longest)) return;
    const excess = realm.excessOf(site, desired.sites.get(site)?.maxClients ?? 0);
    for (const [key, use] of realm.uses.of(site)) {
      if (!isIdle(use) || realms.get(name) !== realm || this.isFollowing) return;
      if (nowMs - use.usedAtMs < idleMs && !excess.has(familyOfKey(key))) continue;
      if (name === desired.transit && clientRealms.isNeeded(key)) continue;
      excess.take(familyOfKey(key));
      this.#state.release(realm, realm.get(key)!);
      yield;
    }
  }

  /** Returns how many leases a site's clients have in all realms. */
  countClients(site: string): number {
    const { clientRealms, realms } = this.#state;
    let count = 0;
    for (const name of clientRealms.of(site)) count += realms.get(name)!.uses.of(site).size;
    return count;
  }

  /** Ends all leases of a site's clients in all realms, in memory. Returns how many. */
  releaseClients(site: string): number {
    let released = 0;
    for (const name of [...this.#state.clientRealms.of(site)]) {
      const realm = this.#state.realms.get(name)!;
      for (const key of [...realm.uses.of(site).keys()]) {
        this.#state.release(realm, realm.get(key)!);
        released++;
      }
    }
    return released;
  }

  /** Adds the time of the lease clock to the next commit. */
  noteClock(): void {
    const write = this.#state.clock.write();
    if (write !== undefined) this.#state.journal.write(write);
  }

  /**
   * Stores all changes. Returns false if there were none.
   *
   * @throws {StoreConflictError} if another process allocates now.
   * @throws {StoreError} if that fails; the changes then go with the next commit.
   */
  commit(): Promise<boolean> {
    return this.#state.commit();
  }

  /** Returns what has changed since the last call. */
  takeTouched(): TouchedLeases {
    return this.#state.takeTouched();
  }

  /** Returns the address of the presence in a realm that has this key, the newest one if it has several. */
  address(realm: string, key: string): IpAddress | undefined {
    return this.#state.realms.get(realm)?.named(key)?.address;
  }

  /** Returns the former addresses of the presence in a realm that has this key: they lead to it too. */
  formerAddresses(realm: string, key: string): IpAddress[] {
    const leases = this.#state.realms.get(realm);
    const stored = leases?.allOf(key).filter((held) => held.isStored) ?? [];
    return stored.slice(0, -1).map(({ address }) => address);
  }

  /** Returns the prefixes of a site's presences: its pools, and what they have lost while an overlap lasts. */
  poolsOf(site: Site): readonly IpPrefix[] {
    return this.#state.realms.get(site.name)?.poolsOf(site) ?? site.pools;
  }

  /** Returns the presence at an address of a realm. */
  presenceAt(realm: string, address: IpAddress): Presence | undefined {
    const leases = this.#state.realms.get(realm);
    const held = leases?.holder(address);
    return held && presenceOf(held, leases!.formerUntil(held));
  }

  /** Returns the endpoint that an address stands for in a realm. */
  holder(realm: string, address: IpAddress): Endpoint | undefined {
    return this.#state.realms.get(realm)?.holder(address)?.of;
  }

  /** Returns the presences in a realm. */
  presencesIn(realm: string): Iterable<HeldLease> {
    return this.#state.realms.get(realm)?.presences() ?? [];
  }

  /** Returns the presences of a site's hosts in other realms. */
  *presencesOf(site: string): Iterable<Presence> {
    const { realms, clientRealms, desired } = this.#state;
    const keys = new Map<string, Set<string>>();
    const add = (realm: string, key: string): void => {
      const known = keys.get(realm);
      if (known === undefined) keys.set(realm, new Set([key]));
      else known.add(key);
    };
    for (const name of clientRealms.of(site)) {
      for (const key of realms.get(name)!.uses.of(site).keys()) add(name, key);
    }
    for (const other of desired.clientsOf(site)) {
      for (const { presenceKey: key, home, transit } of desired.exposedFrom(site, other)) {
        add(other, key);
        if (transit !== undefined) add(desired.transit!, presenceKey(home.key, transit));
      }
    }
    for (const [name, ofRealm] of keys) {
      const realm = realms.get(name);
      for (const key of ofRealm) {
        for (const held of realm?.allOf(key) ?? []) if (held.isStored) yield held;
      }
    }
  }

  /** Returns the presences in a realm, or all of them. */
  presences(name?: string): Presence[] {
    const { realms } = this.#state;
    const one = name === undefined ? undefined : realms.get(name);
    return (name === undefined ? [...realms.values()] : one === undefined ? [] : [one]).flatMap(
      (realm) => Array.from(realm.presences(), (held) => presenceOf(held, realm.formerUntil(held)))
    );
  }

  /** Returns whether a site is known to have clients in a realm. */
  hasClients(site: string, realm: string): boolean {
    return this.#state.clientRealms.has(site, realm);
  }

  /** Whether the store has all changes. */
  get isStored(): boolean {
    return this.#state.journal.isEmpty;
  }

  /** Returns the leases of a realm, for reading. */
  realm(name: string): RealmLeases | undefined {
    return this.#state.realms.get(name);
  }
}

/** What was read of the store. */
interface OpenedLeases {
  readonly found: FoundLeases;
  readonly clock: LeaseClock;
  readonly releases: ReleaseVersions | undefined;
  readonly version: number;
}

/** Makes the quarantines of released leases begin now, because the times of other machines need not be those here. */
function beginQuarantines(
  all: Map<string, FoundLease[]>,
  released: ReadonlySet<FoundLease>,
  nowMs: number
): void {
  for (const [realm, leases] of all) {
    const found = leases.map((lease) =>
      released.has(lease) ? { ...lease, releasedAt: nowMs } : lease
    );
    all.set(realm, found);
  }
}
