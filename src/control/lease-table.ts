/**
 * The leases of all realms, and which of them are stored. Only stored leases may be used.
 *
 * An entry of the store, `lease/<realm>/<address>`, says which endpoint the address belongs to, or when it was
 * released. In memory, the key of a lease is that of the presence, because an endpoint may have one of each IP version.
 * `fit` and `admit` change leases in memory, and `commit` stores the changes. What a failed commit has not stored goes
 * with the next one. The caller runs these three one after the other. The other methods return only leases that are in
 * use *and* stored, at any time.
 *
 * The entry of a client's lease also has the time of its last use, `usedAt`. It is stored again only when it is old: a
 * lease in use costs one write in `storeUseMs`. All times are those of the lease clock.
 * @module
 */

import type { Lease } from '../allocator/index.ts';
import type { Family, IpAddress } from '../base/address.ts';
import type { Clock } from '../base/clock.ts';
import type { Endpoint } from '../base/endpoint.ts';
import { AllocatorError, PoolExhaustedError, QuotaExceededError, StoreError } from '../errors.ts';
import type { Site } from '../registry/index.ts';
import type { Json, Store } from '../store/index.ts';
import type { Presence } from '../translator/index.ts';
import type { DesiredIndex, PresentService } from './desired-index.ts';
import { LeaseClock } from './lease-clock.ts';
import { familyOfKey, presenceKey } from './presence-key.ts';
import type { PresenceUse } from './presence-uses.ts';
import { RealmLeases } from './realm-leases.ts';
import { type FoundLease, LEASE_PREFIX, leaseKey, leaseValue, readLease } from './stored-lease.ts';

export interface LeaseTableOptions {
  readonly store: Store;
  readonly quarantineMs: number;
  /** How old the stored use of a lease may get while it is in use, in ms. */
  readonly storeUseMs: number;
  readonly clock: Clock;
}

export interface IdleRules {
  /** The time without use after which a client's lease ends, in ms. */
  readonly idleMs: number;
  /** The same for a site that holds nearly all that it can have, until it is well below that. */
  readonly pressedIdleMs: number;
  /** The most leases to end in one call. */
  readonly atMost: number;
}

export class LeaseTable {
  readonly #options: LeaseTableOptions;
  readonly #realms = new Map<string, RealmLeases>();
  /** Keyed by realm: the leases that the store had, until the pools are known. */
  readonly #found = new Map<string, FoundLease[]>();
  /** Keyed by the key in the store: the writes of the next commit. */
  readonly #pending = new Map<string, PendingWrite>();
  /** Is opened with the table. */
  #clock!: LeaseClock;
  #desired: DesiredIndex | undefined;

  private constructor(options: LeaseTableOptions) {
    this.#options = options;
  }

  /** @throws {StoreError} if the store cannot be read, or an entry is not a lease. */
  static async open(options: LeaseTableOptions): Promise<LeaseTable> {
    const table = new LeaseTable(options);
    const entries = await options.store.list(LEASE_PREFIX);
    const holders = new Map<string, string>();
    let newestMs = 0;
    for (const entry of entries) {
      const { realm, lease } = readLease(entry);
      newestMs = Math.max(newestMs, lease.releasedAt ?? 0, lease.usedAtMs ?? 0);
      if (lease.releasedAt === undefined) {
        const holder = `${realm} ${lease.key}`;
        const other = holders.get(holder);
        if (other !== undefined) {
          throw new StoreError(`${other} and ${entry.key} in the store are both of ${lease.of}`);
        }
        holders.set(holder, entry.key);
      }
      const found = table.#found.get(realm);
      if (found === undefined) table.#found.set(realm, [lease]);
      else found.push(lease);
    }
    table.#clock = await LeaseClock.open(options.store, options.clock, newestMs);
    return table;
  }

  /**
   * Leases the addresses that the desired state needs, and releases those that it does not need, in memory.
   *
   * @returns by realm and IP version: why an address could not be leased
   */
  fit(desired: DesiredIndex): ReadonlyMap<string, AllocatorError> {
    this.#desired = desired;
    const problems = new Map<string, AllocatorError>();
    for (const name of [...this.#realms.keys(), ...this.#found.keys()]) {
      if (!desired.sites.has(name)) this.#drop(name);
    }
    for (const [name, site] of desired.sites) {
      const realm = this.#realmOf(site);
      const present = desired.presentIn(name);
      realm.services = new Set(present.map((each) => each.presenceKey));
      this.#release(name, realm, desired);
      this.#fitUses(name, realm);
      realm.fit(name, desired);
      this.#lease(name, realm, present, problems);
    }
    this.#found.clear();
    if (desired.transit !== undefined) this.#leaseTransit(desired.transit, desired, problems);
    return problems;
  }

  /**
   * Checks that a client may have a presence of this IP version in `realm`. A client that has one may. The shares do
   * not bind a client whose last address is in quarantine for its site, because that address counts already.
   *
   * @throws {QuotaExceededError} if the client's site has `maxClients` clients there, or as many addresses as the
   *   shares of other sites leave to it.
   */
  check(realm: string, client: Endpoint, family: Family, maxClients: number): void {
    const leases = this.#realms.get(realm)!;
    const { allocator, uses, shares } = leases;
    const key = presenceKey(client.key, family);
    if (allocator.lookup(key) !== undefined) return;
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
    if (leases.isKept(key, site)) return;
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
    const leases = this.#realms.get(realm)!;
    const key = presenceKey(client.key, family);
    if (leases.allocator.lookup(key) === undefined)
      this.#leaseClient(realm, leases, client, family);
    else this.#touch(realm, leases, key);
  }

  /** Notes that presences were used since the last call, and ignores those that are no clients'. */
  touch(uses: Iterable<PresenceUse>): void {
    for (const { realm, address } of uses) {
      const leases = this.#realms.get(realm);
      const key = leases?.holders.get(address);
      if (key !== undefined) this.#touch(realm, leases!, key);
    }
    this.noteClock();
  }

  /**
   * Ends client leases that were not used for long, in memory, the longest unused of each site first. Leases of services
   * stay.
   *
   * @returns how many were ended; if that is `atMost`, there may be more
   */
  endIdle({ idleMs, pressedIdleMs, atMost }: IdleRules): number {
    const nowMs = this.#clock.now();
    let ended = 0;
    for (const [name, realm] of this.#realms) {
      for (const site of realm.uses.sites) {
        const excess = realm.excessOf(site, this.#desired?.sites.get(site)?.maxClients ?? 0);
        for (const [key, { usedAtMs }] of realm.uses.of(site)) {
          if (ended === atMost) return ended;
          const forMs = nowMs - usedAtMs;
          if (forMs < pressedIdleMs) break;
          if (forMs < idleMs && !excess.has(familyOfKey(key))) continue;
          excess.take(familyOfKey(key));
          this.#write(name, realm.release(key)!);
          ended++;
        }
      }
    }
    return ended;
  }

  /** Ends all leases of a site's clients in all realms, in memory. Returns how many. */
  releaseClients(site: string): number {
    let released = 0;
    for (const [name, realm] of this.#realms) {
      for (const key of realm.uses.of(site).keys()) {
        this.#write(name, realm.release(key)!);
        released++;
      }
    }
    return released;
  }

  /** Adds the time of the lease clock to the next commit. */
  noteClock(): void {
    const write = this.#clock.write();
    if (write === undefined) return;
    this.#pending.set(write.key, { realm: '', lease: undefined, value: write.value });
  }

  /**
   * Stores all changes in one commit. Returns false if there were none.
   *
   * @throws {StoreError} if that fails; the changes then go with the next commit.
   */
  async commit(): Promise<boolean> {
    const batch = [...this.#pending];
    if (batch.length === 0) return false;
    await this.#options.store.commit(batch.map(([key, { value }]) => ({ key, value })));
    for (const [key, { realm, lease }] of batch) {
      this.#pending.delete(key);
      if (lease !== undefined && lease.releasedAt === undefined)
        this.#realms.get(realm)?.use(lease);
    }
    return true;
  }

  /** Whether there are changes that are not stored yet. */
  get hasPending(): boolean {
    return this.#pending.size > 0;
  }

  /** Returns the address of the presence in a realm that has this key. */
  address(realm: string, key: string): IpAddress | undefined {
    return this.#realms.get(realm)?.presences.get(key)?.address;
  }

  /** Returns the endpoint that an address stands for in a realm. */
  holder(realm: string, address: IpAddress): Endpoint | undefined {
    const leases = this.#realms.get(realm);
    const key = leases?.holders.get(address.toString());
    return key === undefined ? undefined : leases!.presences.get(key)!.of;
  }

  /** Returns the presences in a realm, by their keys. */
  presencesIn(realm: string): ReadonlyMap<string, Presence> {
    return this.#realms.get(realm)?.presences ?? NONE;
  }

  presences(): Presence[] {
    return [...this.#realms.values()].flatMap(({ presences }) => [...presences.values()]);
  }

  /** Returns the leases of a realm, for reading. */
  realm(name: string): RealmLeases | undefined {
    return this.#realms.get(name);
  }

  /** Returns the leases of a site, in the pools that it has now. */
  #realmOf(site: Site): RealmLeases {
    const definition = JSON.stringify([site.pools, site.reserved]);
    const before = this.#realms.get(site.name);
    if (before?.definition === definition) return before;
    const { quarantineMs } = this.#options;
    const realm = new RealmLeases(site, definition, quarantineMs, this.#clock.now);
    const { allocator } = realm;
    const found = this.#found.get(site.name) ?? [];
    const leases = before?.allocator.leases() ?? found;
    const endpoints = new Map(found.map(({ key, of }) => [key, of]));
    const lost = realm.restore(leases, ({ key }) =>
      before === undefined ? endpoints.get(key) : before.endpoint(key)
    );
    for (const { address } of lost) this.#erase(site.name, address);
    for (const lease of before === undefined ? allocator.leases() : []) {
      if (lease.releasedAt === undefined) realm.use(lease);
    }
    for (const [key, { address }] of before?.presences ?? []) {
      if (allocator.lookup(key) !== undefined) realm.use({ key, address });
    }
    this.#restoreUses(realm, before, found);
    this.#realms.set(site.name, realm);
    return realm;
  }

  #restoreUses(
    realm: RealmLeases,
    before: RealmLeases | undefined,
    found: readonly FoundLease[]
  ): void {
    for (const site of before?.uses.sites ?? []) {
      for (const [key, use] of before!.uses.of(site)) {
        if (realm.allocator.lookup(key) !== undefined) realm.uses.set(key, use);
      }
    }
    if (before !== undefined) return;
    const known = found.filter(({ releasedAt }) => releasedAt === undefined);
    known.sort((a, b) => (a.usedAtMs ?? 0) - (b.usedAtMs ?? 0));
    const nowMs = this.#clock.now();
    for (const { key, usedAtMs } of known) {
      if (usedAtMs === undefined || realm.allocator.lookup(key) === undefined) continue;
      // The lease may have been in use after this, up to the time at which its use would have been stored again.
      const atMs = Math.min(nowMs, usedAtMs + this.#options.storeUseMs);
      realm.uses.set(key, { usedAtMs: atMs, storedAtMs: usedAtMs });
    }
  }

  /** Notes a use for client leases that have none; leases of services need none. */
  #fitUses(name: string, realm: RealmLeases): void {
    for (const lease of realm.allocator.leases()) {
      const { key, releasedAt } = lease;
      if (releasedAt !== undefined) continue;
      if (realm.services.has(key)) realm.uses.delete(key);
      else if (realm.uses.get(key) === undefined) this.#use(name, realm, lease);
    }
  }

  #drop(name: string): void {
    const leases = this.#realms.get(name)?.allocator.leases() ?? this.#found.get(name) ?? [];
    for (const { address } of leases) this.#erase(name, address);
    this.#realms.delete(name);
  }

  #release(name: string, realm: RealmLeases, desired: DesiredIndex): void {
    for (const { key, address, releasedAt } of realm.allocator.leases()) {
      if (releasedAt !== undefined || realm.services.has(key)) continue;
      const client = realm.endpoint(key)!;
      if (desired.isAdmitted(name, client, address.family)) continue;
      this.#write(name, realm.release(key)!);
    }
  }

  #lease(
    name: string,
    realm: RealmLeases,
    present: readonly PresentService[],
    problems: Map<string, AllocatorError>
  ): void {
    const exhausted = new Map<Family, { readonly error: Error; readonly services: string[] }>();
    for (const { presenceKey: key, presenceFamily: family, service, home } of present) {
      if (realm.allocator.lookup(key) !== undefined) continue;
      const known = exhausted.get(family);
      if (known !== undefined) {
        known.services.push(service.name);
        continue;
      }
      try {
        this.#write(name, realm.allocate(home, family));
      } catch (error) {
        if (!(error instanceof AllocatorError)) throw error;
        exhausted.set(family, { error, services: [service.name] });
      }
    }
    for (const [family, { error, services }] of exhausted) {
      const more = services.length === 1 ? '' : ` and ${services.length - 1} more`;
      const message = `no presence in "${name}" for "${services[0]}"${more}: ${error.message}`;
      problems.set(`${name} IPv${family}`, new PoolExhaustedError(message));
    }
  }

  /** Leases an address in the transit realm to each client with a presence in another site, so that sites may move. */
  #leaseTransit(
    transit: string,
    desired: DesiredIndex,
    problems: Map<string, AllocatorError>
  ): void {
    const between = this.#realms.get(transit);
    if (between === undefined) return;
    for (const [name, realm] of this.#realms) {
      for (const { key, address, releasedAt } of realm.allocator.leases()) {
        if (releasedAt !== undefined || realm.services.has(key)) continue;
        const client = realm.endpoint(key)!;
        const own = client.address.family;
        const family = desired.transitFamily(name, client.realm, address.family, own);
        if (family === undefined) continue;
        const problem = `${transit} transit of ${client.realm} IPv${family}`;
        const transitKey = presenceKey(client.key, family);
        if (problems.has(problem)) continue;
        if (between.allocator.lookup(transitKey) !== undefined) continue;
        try {
          this.check(transit, client, family, Number.POSITIVE_INFINITY);
          this.#leaseClient(transit, between, client, family);
        } catch (error) {
          if (!(error instanceof AllocatorError)) throw error;
          const message = `no presence in "${transit}" for clients of "${client.realm}": ${error.message}`;
          problems.set(problem, new PoolExhaustedError(message));
        }
      }
    }
  }

  #leaseClient(name: string, realm: RealmLeases, client: Endpoint, family: Family): void {
    this.#use(name, realm, realm.allocate(client, family));
  }

  /** Notes a use, and stores it with the next commit. */
  #use(name: string, realm: RealmLeases, lease: Lease): void {
    const nowMs = this.#clock.now();
    realm.uses.set(lease.key, { usedAtMs: nowMs, storedAtMs: nowMs });
    this.#write(name, lease, nowMs);
  }

  #touch(name: string, realm: RealmLeases, key: string): void {
    const use = realm.uses.get(key);
    if (use === undefined) return;
    const { storedAtMs } = use;
    const nowMs = this.#clock.now();
    if (nowMs - storedAtMs < this.#options.storeUseMs) {
      realm.uses.set(key, { usedAtMs: nowMs, storedAtMs });
    } else {
      this.#use(name, realm, realm.allocator.lookup(key)!);
    }
  }

  /** @param usedAtMs the last use of a client's lease in use */
  #write(realm: string, lease: Lease, usedAtMs?: number): void {
    const value = leaseValue(lease, usedAtMs);
    this.#pending.set(leaseKey(realm, lease.address), { realm, lease, value });
  }

  #erase(realm: string, address: IpAddress): void {
    this.#pending.set(leaseKey(realm, address), { realm, lease: undefined, value: undefined });
  }
}

interface PendingWrite {
  readonly realm: string;
  /** Undefined for an entry that is deleted, and for an entry that is not a lease. */
  readonly lease: Lease | undefined;
  readonly value: Json | undefined;
}

const NONE: ReadonlyMap<string, Presence> = new Map();
