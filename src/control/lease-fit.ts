/**
 * Adapts the leases to a changed desired state: leases the addresses that it needs, and releases those that it does not
 * need. It looks only at what has changed, and at the realms in which something has failed.
 * @module
 */
import type { Lease } from '../allocator/index.ts';
import type { Family } from '../base/address.ts';
import { Endpoint } from '../base/endpoint.ts';
import {
  AddressUnavailableError,
  AllocatorError,
  PoolExhaustedError,
  type StoreError,
} from '../errors.ts';
import type { Site } from '../registry/index.ts';
import type { Change } from '../store/index.ts';
import type { HeldLease } from './held-lease.ts';
import type { IndexChanges } from './index-changes.ts';
import { FailedServices, LeaseFailures } from './lease-failures.ts';
import { type FoundLeases, LeaseFollow } from './lease-follow.ts';
import type { LeaseState } from './lease-state.ts';
import { Overlaps } from './overlaps.ts';
import { endpointKeyOf, familyOfKey } from './presence-key.ts';
import { type PresentHost, servicesOf, wantedAddress } from './present-hosts.ts';
import { definitionOf, RealmLeases } from './realm-leases.ts';
import type { FoundLease } from './stored-lease.ts';

export interface LeaseFitOptions {
  readonly quarantineMs: number;
  readonly overlapMs: number;
  readonly storeUseMs: number;
  /** Throws an `AllocatorError` if a client may not have one more address of a realm. */
  readonly check: (realm: string, client: Endpoint, family: Family, maxClients: number) => void;
}

export class LeaseFit {
  readonly #state: LeaseState;
  readonly #options: LeaseFitOptions;
  readonly #found: FoundLeases;
  /** The realms in which an overlap lasts. */
  readonly #overlapping = new Set<string>();
  readonly #failures = new LeaseFailures();
  /** The keys of presences in the transit realm that leases in other realms may need. */
  readonly #inTransit = new Set<string>();
  /** What is done in place of that while another process allocates. */
  readonly #follow: LeaseFollow;

  constructor(state: LeaseState, found: FoundLeases, options: LeaseFitOptions) {
    this.#state = state;
    this.#found = found;
    this.#options = options;
    this.#follow = new LeaseFollow(state, found, (site, overlaps) => {
      this.#renew(site, overlaps);
      this.#divide(site.name);
    });
  }

  /** Takes what the store shows of leases and overlaps while another process allocates. Returns what was no lease. */
  show(changes: Iterable<Change>): StoreError[] {
    return this.#follow.show(changes);
  }

  /** Takes over from another process: what was begun in memory only is to be stored. Everything is then to be fitted. */
  takeOver(): void {
    const { realms, clock, journal } = this.#state;
    const unstored = this.#follow.takeUnstored();
    const untilMs = clock.now() + this.#options.overlapMs;
    for (const [name, realm] of realms) {
      if (!realm.hasOutside && !this.#overlapping.has(name)) continue;
      const isLimited = realm.overlaps.limit(untilMs);
      // A lease may have come after its pool had gone.
      const hasBegun = realm.beginOverlap(undefined, untilMs);
      if (!isLimited && !hasBegun && !unstored.has(name)) continue;
      journal.write(realm.overlaps.write(name));
      if (!realm.overlaps.isEmpty) this.#overlapping.add(name);
      this.#state.touchRealm(name);
      for (const held of realm.all()) {
        if (realm.formerUntil(held) !== undefined) this.#state.touchPlace(held);
      }
    }
  }

  /**
   * Whether something is to be done later although nothing changes: a presence has no address, an overlap lasts, or an
   * address without a pool rests.
   */
  get isWaiting(): boolean {
    if (this.#state.isFollowing) return false;
    const { realms } = this.#failures;
    return realms.length > 0 || this.#overlapping.size > 0 || !this.#state.retired.isEmpty;
  }

  /** Returns whether a service of a realm has no address, or not the one that it asks for. */
  hasFailed(realm: string, key: string): boolean {
    return this.#failures.in(realm).has(key);
  }

  hasFailures(realm: string): boolean {
    return this.#failures.in(realm).size > 0;
  }

  /** In how many ms the next overlap ends; infinite if none lasts. */
  get overlapEndsInMs(): number {
    const { realms, clock, isFollowing } = this.#state;
    if (isFollowing) return Number.POSITIVE_INFINITY;
    const ends = Array.from(this.#overlapping, (name) => realms.get(name)!.overlaps.nextEndMs);
    return Math.max(0, Math.min(...ends) - clock.now());
  }

  /**
   * Fits the leases in steps. Between two of them, nobody else may change leases.
   *
   * @param isRetry whether what has failed before is tried again in all realms
   * @param problems gets the reasons why addresses could not be leased, unless these were so before
   */
  *fit(changes: IndexChanges, isRetry: boolean, problems: AllocatorError[]): Generator<void> {
    const { desired, isFollowing } = this.#state;
    const isTransitChanged = desired.transit !== undefined && changes.sites.has(desired.transit);
    if (isTransitChanged) this.#recountNeeds();
    const renewed = new Set<string>();
    for (const name of changes.sites) {
      const site = desired.sites.get(name);
      if (site === undefined) this.#leave(name);
      else if (this.#renew(site)) renewed.add(name);
      else this.#divide(name);
      yield;
    }
    if (!isFollowing) {
      for (const found of [this.#found.leases, this.#found.overlaps]) {
        for (const name of found.keys()) this.#leave(name);
      }
      this.#endOverlaps();
    }
    const realms = new Set([...renewed, ...changes.realms.keys()]);
    if (changes.isEverything) for (const name of desired.sites.keys()) realms.add(name);
    if (isRetry) for (const name of this.#failures.realms) realms.add(name);
    for (const name of realms) {
      const realm = this.#state.realms.get(name);
      if (realm === undefined) continue;
      const part = changes.realms.get(name);
      const isAll = changes.isEverything || renewed.has(name);
      if (isAll) this.#fitAll(name, realm);
      else if (part !== undefined) this.#fitPart(name, realm, part.hosts, part.narrowed);
      if (isAll || part !== undefined) this.#divide(name, part?.parties);
      const hosts = part?.hosts ?? [];
      const keys = isAll ? [...desired.hostsIn(name).keys(), ...hosts] : hosts;
      if (!isFollowing) problems.push(...this.#leaseServices(name, realm, keys));
      yield;
    }
    if (isFollowing) {
      this.#follow.fitWidened(changes);
      this.#inTransit.clear();
      return;
    }
    problems.push(...this.#leaseTransit());
    this.#eraseRested();
  }

  /** Notes that a client's lease may need a presence in the transit realm. */
  #needTransit(held: HeldLease): void {
    const key = this.#state.transitKeyOf(held);
    if (key !== undefined) this.#inTransit.add(key);
  }

  /** Deletes from the store what has no pool any more and whose quarantine has ended. */
  #eraseRested(): void {
    const { retired, clock, journal } = this.#state;
    for (const { realm, lease } of retired.takeRested(clock.now())) {
      journal.erase(realm, lease.address);
    }
  }

  /** Ends the leases whose pools are gone and whose overlap has ended. */
  #endOverlaps(): void {
    const { realms, desired, clientRealms, clock, journal } = this.#state;
    for (const name of this.#overlapping) {
      const realm = realms.get(name)!;
      const ended = realm.endOverlaps(clock.now());
      if (ended === undefined) continue;
      for (const held of ended) {
        this.#state.endOne(realm, held);
        // A client with a presence in another site needs one in the transit realm, too.
        if (name === desired.transit && clientRealms.isNeeded(held.key)) {
          this.#inTransit.add(held.key);
        }
      }
      journal.write(realm.overlaps.write(name));
      this.#state.touchRealm(name);
      if (realm.overlaps.isEmpty) this.#overlapping.delete(name);
    }
  }

  /** Ends the use of a realm that is gone. */
  #leave(name: string): void {
    if (this.#state.isFollowing) this.#follow.setAside(name);
    else this.#drop(name);
    this.#overlapping.delete(name);
    this.#failures.delete(name);
    this.#state.touchPool(name);
  }

  /** Ends the leases of a realm that is gone. */
  #drop(name: string): void {
    const realm = this.#state.realms.get(name);
    const { leases: found, overlaps } = this.#takeFound(name);
    for (const held of realm?.all() ?? []) {
      this.#state.endClient(realm!, held);
      this.#retire(name, held);
    }
    if ((realm?.overlaps ?? overlaps)?.isEmpty === false) {
      this.#state.journal.write(new Overlaps().write(name));
    }
    for (const lease of realm?.released() ?? found) this.#retire(name, lease);
    this.#state.realms.delete(name);
  }

  /** Keeps a lease without a pool until its quarantine has ended. */
  #retire(realm: string, { key, address, releasedAt }: Lease): void {
    const nowMs = this.#state.clock.now();
    const lease = { key, address, releasedAt: releasedAt ?? nowMs };
    if (releasedAt === undefined) {
      this.#state.journal.release(realm, lease);
      this.#state.touchPlace({ realm, address });
    }
    this.#state.retired.add(realm, lease);
  }

  #takeFound(realm: string): {
    readonly leases: readonly FoundLease[];
    readonly overlaps: Overlaps | undefined;
  } {
    const { leases, overlaps } = this.#found;
    const taken = { leases: leases.get(realm) ?? [], overlaps: overlaps.get(realm) };
    leases.delete(realm);
    overlaps.delete(realm);
    return taken;
  }

  /**
   * Makes the leases of a site anew from those that there were, if its pools have changed. Returns false if not.
   *
   * @param shown the overlaps that another process has stored, because of which they are made anew in any case
   */
  #renew(site: Site, shown?: Overlaps): boolean {
    const { name } = site;
    const before = this.#state.realms.get(name);
    if (shown === undefined && before?.definition === definitionOf(site)) return false;
    const { leases: found, overlaps } = this.#takeFound(name);
    const { quarantineMs, overlapMs } = this.#options;
    const { clock, journal, realms, retired, releases, isFollowing } = this.#state;
    const realm = new RealmLeases(site, {
      quarantineMs,
      now: clock.now,
      uses: before?.uses,
      overlaps: shown ?? before?.overlaps ?? overlaps,
      releases,
    });
    const held = before === undefined ? this.#heldOf(name, found) : [...before.all()];
    const released = before?.released() ?? found.filter(({ of }) => of === undefined);
    for (const lease of realm.restore(held, [...released, ...retired.take(name)])) {
      this.#retire(name, lease);
    }
    realms.set(name, realm);
    const untilMs = clock.now() + overlapMs;
    const { value: stored = [] } = realm.overlaps.write(name);
    // An overlap of an earlier process may be longer than they are now.
    const isLimited = !isFollowing && realm.overlaps.limit(untilMs);
    // What another process has stored may lack what it has yet to begin.
    const hasBegun = realm.beginOverlap(shown === undefined ? before : undefined, untilMs);
    if (hasBegun || isLimited) journal.write(realm.overlaps.write(name));
    if (hasBegun && isFollowing) this.#follow.noteBegun(name, stored);
    if (realm.overlaps.isEmpty) this.#overlapping.delete(name);
    else {
      this.#overlapping.add(name);
      // Another one of several leases may be the newest one now.
      for (const each of realm.all()) {
        if (realm.allOf(each.key).length > 1) this.#state.touchPlace(each);
      }
    }
    if (before === undefined) this.#restoreUses(realm, found);
    // The plan may have had the site between two steps, before its overlap began.
    this.#state.touchRealm(name);
    return true;
  }

  #heldOf(realm: string, found: readonly FoundLease[]): HeldLease[] {
    const held: HeldLease[] = [];
    for (const { key, of, address } of found) {
      if (of === undefined) continue;
      const isService = this.#state.desired.hostIn(realm, key) !== undefined;
      held.push({ realm, key, of, address, isStored: true, isService });
    }
    return held;
  }

  #restoreUses(realm: RealmLeases, found: readonly FoundLease[]): void {
    const known = found.filter(({ of, usedAtMs }) => of !== undefined && usedAtMs !== undefined);
    known.sort((a, b) => a.usedAtMs! - b.usedAtMs!);
    const nowMs = this.#state.clock.now();
    for (const { key, usedAtMs } of known) {
      const held = realm.get(key);
      if (held === undefined) continue;
      // The lease may have been in use after this, up to the time at which its use would have been stored again.
      const atMs = Math.min(nowMs, usedAtMs! + this.#options.storeUseMs);
      this.#state.setUse(realm, held, atMs, usedAtMs!);
    }
  }

  /** @param parties the sites whose part of the pools may have changed */
  #divide(name: string, parties: Iterable<string> = []): void {
    const { desired, realms } = this.#state;
    const site = desired.sites.get(name)!;
    realms.get(name)!.divide(site, (family) => desired.clientSitesOf(name, family));
    this.#state.touchPool(name);
    for (const each of parties) this.#state.touchPool(name, each);
  }

  #fitAll(name: string, realm: RealmLeases): void {
    const all = this.#state.isFollowing ? realm.all() : realm.held();
    for (const held of [...all]) this.#fitLease(name, realm, held);
  }

  #fitPart(
    name: string,
    realm: RealmLeases,
    hosts: Iterable<string>,
    narrowed: Iterable<string>
  ): void {
    for (const key of hosts) {
      const held = realm.get(key);
      if (held !== undefined) this.#fitLease(name, realm, held);
    }
    for (const site of narrowed) {
      for (const key of [...realm.uses.of(site).keys()]) {
        this.#fitLease(name, realm, realm.get(key)!);
      }
    }
  }

  /** Notes whether a lease is a service's or a client's, and releases it if it is neither. */
  #fitLease(name: string, realm: RealmLeases, held: HeldLease): void {
    const { desired, journal } = this.#state;
    if (this.#state.isFollowing) {
      this.#follow.fitLease(realm, held);
      return;
    }
    const isService = desired.hostIn(name, held.key) !== undefined;
    if (!isService && !desired.isAdmitted(name, held.of, held.address.family)) {
      this.#state.release(realm, held);
      return;
    }
    // It was not needed while another process allocated, which has not released it.
    if (!held.isStored && !journal.has(held)) this.#state.setStored(held, true);
    realm.setService(held, isService);
    if (isService) {
      this.#state.endClient(realm, held);
      return;
    }
    if (realm.uses.get(held.key) === undefined) this.#state.noteUse(realm, held);
    this.#needTransit(held);
  }

  /** Leases addresses to those of these services that have none or another one, and to those that failed before. */
  #leaseServices(name: string, realm: RealmLeases, keys: Iterable<string>): AllocatorError[] {
    const failed = new FailedServices(name);
    const hosts: { readonly host: PresentHost; readonly services: readonly string[] }[] = [];
    for (const key of new Set([...keys, ...this.#failures.in(name)])) {
      const host = this.#state.desired.hostIn(name, key);
      const address = host && wantedAddress(host);
      try {
        if (address !== undefined && address.family !== host!.family) {
          realm.keep(key, undefined);
          throw new AddressUnavailableError(`its presence there is an IPv${host!.family} address`);
        }
        realm.keep(key, address);
        const held = realm.get(key);
        const isRight =
          held !== undefined &&
          !realm.isOutside(held) &&
          (address === undefined || held.address.equals(address));
        if (host !== undefined && !isRight) hosts.push({ host, services: servicesOf(host) });
      } catch (error) {
        failed.addUnavailable(host!, servicesOf(host!), error);
      }
    }
    hosts.sort((a, b) => (a.services[0]! < b.services[0]! ? -1 : 1));
    for (const { host, services } of hosts) {
      const held = realm.get(host.key);
      const isOwn = wantedAddress(host) !== undefined;
      try {
        if (held !== undefined && !realm.isOutside(held)) this.#state.moveService(realm, held);
        else if (isOwn || !failed.isExhausted(host.family)) {
          this.#state.leaseService(realm, host.home, host.family);
        } else failed.addExhausted(host, services);
      } catch (error) {
        if (isOwn) failed.addUnavailable(host, services, error);
        else failed.addExhausted(host, services, error);
      }
    }
    return this.#failures.set(name, failed.keys, failed.problems());
  }

  /** Counts anew what leases need in the transit realm, because its pools have changed. */
  #recountNeeds(): void {
    const { clientRealms, realms } = this.#state;
    clientRealms.clearNeeds();
    for (const realm of realms.values()) {
      for (const held of realm.held()) {
        if (realm.uses.get(held.key) === undefined) continue;
        const key = this.#state.transitKeyOf(held);
        if (key === undefined) continue;
        clientRealms.need(key);
        this.#inTransit.add(key);
      }
    }
  }

  /** Leases an address in the transit realm to each client with a presence in another site, so that sites may move. */
  #leaseTransit(): AllocatorError[] {
    const { desired, clientRealms, realms } = this.#state;
    const realm = desired.transit === undefined ? undefined : realms.get(desired.transit);
    if (realm === undefined) return [];
    const subject = `${desired.transit} transit`;
    const keys = [...new Set([...this.#inTransit, ...this.#failures.in(subject)])];
    this.#inTransit.clear();
    const problems = new Map<string, AllocatorError>();
    const failed = new Set<string>();
    for (const key of keys) {
      if (!clientRealms.isNeeded(key) || realm.get(key) !== undefined) continue;
      const client = Endpoint.parse(endpointKeyOf(key));
      const family = familyOfKey(key);
      const problem = `${client.realm} IPv${family}`;
      try {
        if (!problems.has(problem)) {
          this.#options.check(desired.transit!, client, family, Number.POSITIVE_INFINITY);
          this.#state.leaseClient(realm, client, family);
        }
      } catch (error) {
        if (!(error instanceof AllocatorError)) throw error;
        const message = `no presence in "${desired.transit}" for clients of "${client.realm}": ${error.message}`;
        problems.set(problem, new PoolExhaustedError(message));
      }
      if (problems.has(problem)) failed.add(key);
    }
    return this.#failures.set(subject, failed, problems);
  }
}
