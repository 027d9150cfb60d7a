/**
 * Compares what is in force for one site with what its records and stored leases say. It derives from the records
 * anew, a key at a time, and reads no index for that. Each key is compared at one moment, so it does not matter what
 * changes between two keys.
 *
 * | compared | with |
 * | --- | --- |
 * | the index of the desired state: sites, exposures, hosts, clients, `maxClients` | the records of the registry |
 * | the leases in memory: services, clients, own and former addresses, uses, shares | the records, pools and overlaps |
 * | the leases in use | the entries of the store |
 * | the plan in the translator: realms, pools, presences, how many services clients may use | the leases and the index |
 * | the snapshot that was published | the view of the site now |
 * @module
 */

import type { Family } from '../base/address.ts';
import { Endpoint } from '../base/endpoint.ts';
import {
  type DesiredSource,
  type ExposureId,
  presenceFamily,
  type Site,
} from '../registry/index.ts';
import type { Entry, Store } from '../store/index.ts';
import { contains } from './client-pair.ts';
import type { PlanTarget } from './controller-options.ts';
import type { DesiredIndex } from './desired-index.ts';
import type { ExposedService } from './exposed-service.ts';
import type { HeldLease } from './held-lease.ts';
import type { LeaseTable } from './lease-table.ts';
import { presenceKey } from './presence-key.ts';
import { type PresentHost, servicesOf, wantedAddress } from './present-hosts.ts';
import { FAMILIES, type RealmLeases, reserveOf } from './realm-leases.ts';
import type { SnapshotPublisher } from './snapshot-publisher.ts';
import { isLeaseOf, leaseKey } from './stored-lease.ts';
import { transitFamily } from './transit.ts';

/** What is in force. */
export interface DerivedState {
  readonly desired: DesiredIndex;
  readonly leases: LeaseTable;
  readonly snapshots: SnapshotPublisher;
  /** Returns whether a site takes part. */
  readonly isLive: (site: string) => boolean;
}

export interface DerivationCheckOptions {
  /** The records. */
  readonly source: DesiredSource;
  /** The store of the leases. */
  readonly store: Store;
  readonly translator: Pick<PlanTarget, 'planned'>;
  /** The transit realm, if there is one. */
  readonly transit: string | undefined;
  /** Returns what is in force now. */
  readonly state: () => DerivedState;
  /** Returns whether what an entry has been since its version is known here; absent: it always is. */
  readonly isKnown?: ((entry: Entry | undefined) => boolean) | undefined;
}

export class DerivationCheck {
  readonly #options: DerivationCheckOptions;
  /** Keyed by site: the leases that were not compared with the store, where there are many. */
  readonly #presences = new Map<string, Iterable<HeldLease>>();

  constructor(options: DerivationCheckOptions) {
    this.#options = options;
  }

  /**
   * Compares one key with each step, and yields what differs; undefined if nothing does. While the desired state has
   * changes that are not derived, no step must be taken.
   */
  *steps(name: string): Generator<string | undefined> {
    yield this.#siteFault(name);
    yield* this.#exposureFaults(name);
    yield* this.#hostFaults(name);
    yield* this.#clientFaults(name);
    yield* this.#leaseFaults(name);
    yield this.#quotaFault(name);
    yield this.#planFault(name);
    yield this.#snapshotFault(name);
  }

  /**
   * Compares the leases in use in a site with the store, at most `MAX_READ` of them; the next call goes on with the
   * others. What changes meanwhile is left out.
   *
   * @throws {StoreError} if the store cannot be read.
   */
  async storedFaults(name: string): Promise<string[]> {
    const leases = this.#leasesToRead(name);
    const { store, isKnown } = this.#options;
    const entries = await Promise.all(
      leases.map(({ address }) => store.get(leaseKey(name, address)))
    );
    return leases.flatMap((held, i) => {
      const { address, key, of } = held;
      // It may have ended meanwhile.
      if (this.#state.leases.realm(name)?.allOf(key).includes(held) !== true) return [];
      if (isLeaseOf(entries[i], key) || isKnown?.(entries[i]) === false) return [];
      return [`the store does not have the lease of ${address} to ${of}`];
    });
  }

  #leasesToRead(name: string): HeldLease[] {
    const presences = this.#presences.get(name) ?? this.#state.leases.presencesIn(name);
    const iterator = presences[Symbol.iterator]();
    const leases: HeldLease[] = [];
    for (let next = iterator.next(); !next.done; next = iterator.next()) {
      leases.push(next.value);
      if (leases.length < MAX_READ) continue;
      this.#presences.set(name, { [Symbol.iterator]: () => iterator });
      return leases;
    }
    this.#presences.delete(name);
    return leases;
  }

  get #state(): DerivedState {
    return this.#options.state();
  }

  #siteFault(name: string): string | undefined {
    const { desired, leases } = this.#state;
    const site = this.#options.source.site(name);
    if (desired.sites.get(name) !== site) return 'its record is not the one in force';
    const isLeased = leases.realm(name) !== undefined;
    return isLeased === (site !== undefined) ? undefined : 'it has leases, but no record';
  }

  /** What is exposed in the site, by records and by the index. */
  *#exposureFaults(name: string): Generator<string | undefined> {
    for (const id of this.#options.source.exposuresTo(name)) yield this.#exposureFault(id);
    for (const { exposure } of this.#state.desired.entriesIn(name).values()) {
      const isGone = this.#options.source.exposure(exposure) === undefined;
      yield isGone ? this.#exposureFault(exposure) : undefined;
    }
  }

  #exposureFault(id: ExposureId): string | undefined {
    const { desired } = this.#state;
    const expected = this.#derive(id);
    const entry = desired.entry(id);
    const what = `the exposure of "${id.service}"`;
    if (expected === undefined || entry === undefined) {
      if (expected === entry) return undefined;
      return entry === undefined
        ? `${what} is not in force`
        : `${what} is in force without a record`;
    }
    const isSame =
      entry.exposure === expected.exposure &&
      entry.service === expected.service &&
      entry.home.key === expected.home.key &&
      entry.presenceKey === expected.presenceKey &&
      entry.presenceFamily === expected.presenceFamily &&
      entry.transit === expected.transit;
    if (!isSame) return `${what} is in force otherwise than its record says`;
    if (!desired.hostIn(id.site, entry.presenceKey)?.exposed.includes(entry)) {
      return `the host of "${id.service}" needs a presence`;
    }
    if (!desired.servicesAt(entry.home).includes(id.service)) {
      return `"${id.service}" is not among the services of its host`;
    }
    return this.#clientFault(entry);
  }

  /** Whether the hosts of a site are clients of what is exposed there. */
  #clientFault(entry: ExposedService): string | undefined {
    const { desired } = this.#state;
    const { home, service, exposure, transit } = entry;
    const { maxClients } = this.#options.source.site(exposure.site)!;
    const places: [string, Family, boolean][] = [
      [
        home.realm,
        home.address.family,
        desired.pair(home.realm, exposure.site)?.has(entry) ?? false,
      ],
    ];
    if (transit !== undefined) {
      const pair = desired.transitPair(exposure.site);
      places.push([desired.transit!, transit, pair?.has(entry) ?? false]);
      const host = desired.hostIn(desired.transit!, presenceKey(home.key, transit));
      if (host === undefined || !servicesOf(host).includes(service.name)) {
        return `"${service.name}" needs a presence in "${desired.transit}"`;
      }
    }
    for (const [realm, family, isPaired] of places) {
      const quota = desired.clientSitesOf(realm, family).quotas.get(exposure.site);
      if (isPaired && quota === maxClients) continue;
      return `its hosts are not clients of "${service.name}" in "${realm}" with its maxClients`;
    }
    return undefined;
  }

  /** The hosts that have presences in the site for their services. */
  *#hostFaults(name: string): Generator<string | undefined> {
    for (const host of this.#state.desired.hostsIn(name).values())
      yield this.#hostFault(name, host);
  }

  #hostFault(name: string, host: PresentHost): string | undefined {
    const { desired, leases } = this.#state;
    const { key, home, exposed } = host;
    for (const entry of exposed) {
      if (desired.entry({ service: entry.service.name, site: name }) !== entry) {
        return `${home} has a presence for "${entry.service.name}", which is not exposed`;
      }
    }
    const isNeeded =
      exposed.length > 0 || servicesOf(host).every((service) => this.#crosses(service, host));
    if (!isNeeded) return `${home} has a presence that no exposure needs`;
    // What has failed is tried again, and was reported. Another process has its time to allocate.
    if (leases.isFollowing || leases.hasFailed(name, key)) return undefined;
    const realm = leases.realm(name);
    const held = realm?.get(key);
    if (held === undefined) return `${home} has no lease`;
    if (realm!.isOutside(held)) return `${home} has only ${held.address}, which no pool has`;
    const address = wantedAddress(host);
    if (address === undefined || held.address.equals(address)) return undefined;
    return `${home} has ${held.address} in place of its own address ${address}`;
  }

  /** Whether packets of a service to any site cross the transit realm, by the presence of this host there. */
  #crosses(service: string, { key, family }: PresentHost): boolean {
    for (const id of this.#options.source.exposuresOf(service)) {
      const entry = this.#derive(id);
      if (entry?.transit === family && presenceKey(entry.home.key, family) === key) return true;
    }
    return false;
  }

  /** The sites whose hosts are clients in the site. */
  *#clientFaults(name: string): Generator<string | undefined> {
    const { desired } = this.#state;
    for (const service of this.#options.source.servicesOf(name)) {
      for (const id of this.#options.source.exposuresOf(service.name)) {
        const entry = desired.entry(id);
        yield entry && this.#clientFault(entry) && `clients in "${id.site}" differ`;
      }
    }
    const sites = new Set(desired.clientsOf(name));
    for (const family of FAMILIES) {
      for (const site of desired.clientSitesOf(name, family).quotas.keys()) sites.add(site);
    }
    for (const site of sites) yield* this.#pairFaults(name, site);
    yield this.#totalFault(name);
  }

  /** What makes the hosts of a site clients in another one. */
  *#pairFaults(name: string, site: string): Generator<string | undefined> {
    const { desired } = this.#state;
    const message = `hosts of "${site}" are clients without a record`;
    for (const { exposure } of desired.exposedFrom(name, site)) {
      yield this.#derive(exposure)?.home.realm === name ? undefined : message;
    }
    if (name === desired.transit) {
      for (const { exposure } of desired.transitPair(site)?.exposed() ?? []) {
        yield this.#derive(exposure)?.transit === undefined ? message : undefined;
      }
    }
    yield this.#countFault(name, site);
  }

  /** Whether a site has clients in another one by as many exposures as there are. */
  #countFault(name: string, site: string): string | undefined {
    const { desired } = this.#state;
    const counts = { 4: 0, 6: 0 };
    for (const { home } of desired.exposedFrom(name, site)) counts[home.address.family]++;
    if (name === desired.transit) {
      for (const { transit } of desired.transitPair(site)?.exposed() ?? []) counts[transit!]++;
    }
    for (const family of FAMILIES) {
      if (desired.clientSitesOf(name, family).countOf(site) === counts[family]) continue;
      return `the number of exposures that make hosts of "${site}" clients is wrong`;
    }
    return undefined;
  }

  #totalFault(name: string): string | undefined {
    for (const family of FAMILIES) {
      const { quotas, total } = this.#state.desired.clientSitesOf(name, family);
      let sum = 0;
      for (const quota of quotas.values()) sum += quota;
      if (sum !== total) return 'the sum of the maxClients of its clients is wrong';
    }
    return undefined;
  }

  *#leaseFaults(name: string): Generator<string | undefined> {
    const realm = this.#state.leases.realm(name);
    for (const held of realm?.all() ?? []) yield this.#leaseFault(name, realm!, held);
  }

  #leaseFault(name: string, realm: RealmLeases, held: HeldLease): string | undefined {
    const { desired, leases } = this.#state;
    const { key, of, address, isStored } = held;
    if (leases.realm(name) !== realm || !realm.allOf(key).includes(held)) return undefined;
    const what = `the lease of ${address} to ${of}`;
    if (!this.#isPlanned(held))
      return `the translator does not have ${of} at ${address} as it has to`;
    if (realm.allocator.holder(address)?.key !== key) return `${what} is not in the pool`;
    // Another process is to release it.
    if (leases.isFollowing && !isStored) return undefined;
    const isFormer = realm.get(key) !== held;
    const mayStay = !isFormer && !realm.isOutside(held);
    if (!mayStay && realm.overlaps.untilOf(address) === undefined) {
      return `${what} has no end, although ${isFormer ? 'there is a newer one' : 'no pool has it'}`;
    }
    const isService = desired.hostIn(name, key) !== undefined;
    if (held.isService !== isService)
      return `${what} counts as a ${isService ? 'client' : 'service'}'s`;
    // The rest is so of the newest lease alone.
    if (isFormer) return undefined;
    const isUsed = realm.uses.get(key) !== undefined;
    if (isUsed === isService) return `the uses of ${address} by ${of} are kept wrongly`;
    if (isService) return undefined;
    if (!this.#isAdmitted(name, of, address.family))
      return `${what} is one that no exposure allows`;
    if (!leases.hasClients(of.realm, name)) return `"${of.realm}" is not known to have clients`;
    return undefined;
  }

  /** Whether the translator has a presence that it has to have. */
  #isPlanned(held: HeldLease): boolean {
    const { realm, address, of, isStored } = held;
    const { leases, isLive } = this.#state;
    const { translator } = this.#options;
    // It gets what is stored, and in the meantime nothing.
    if (translator.planned === undefined || !isStored || !leases.isStored) return true;
    if (!isLive(realm) || !isLive(of.realm)) return true;
    const presence = translator.planned(realm)?.at(address);
    const until = leases.realm(realm)!.formerUntil(held);
    return presence?.of.key === of.key && presence.formerUntil === until;
  }

  /** Whether a record makes a host a client of a service in a realm; in the transit realm also of one elsewhere. */
  #isAdmitted(realm: string, client: Endpoint, family: Family): boolean {
    const { source, transit } = this.#options;
    const site = source.site(client.realm);
    if (site === undefined || !isSource(site, client)) return false;
    for (const { name } of source.servicesOf(realm)) {
      const entry = this.#derive({ service: name, site: site.name });
      if (entry?.home.address.family === family && admits(entry, client)) return true;
    }
    if (realm !== transit) return false;
    for (const id of source.exposuresTo(site.name)) {
      const entry = this.#derive(id);
      if (entry?.transit === family && admits(entry, client)) return true;
    }
    return false;
  }

  /** Whether each site is charged with the addresses of its clients, and the services with theirs. */
  #quotaFault(name: string): string | undefined {
    const realm = this.#state.leases.realm(name);
    const site = this.#options.source.site(name);
    if (realm === undefined || site === undefined || realm.size > MAX_COUNTED) return undefined;
    const services = { 4: 0, 6: 0 };
    const clients = { 4: new Map<string, number>(), 6: new Map<string, number>() };
    const uses = { 4: new Map<string, number>(), 6: new Map<string, number>() };
    const count = (counts: Map<string, number>, site: string): void => {
      counts.set(site, (counts.get(site) ?? 0) + 1);
    };
    for (const held of realm.all()) {
      const { isService, of, key } = held;
      const { family } = held.address;
      if (!isService && realm.get(key) === held) count(uses[family], of.realm);
      // What the pools have lost counts for nobody.
      if (realm.isOutside(held)) continue;
      if (isService) services[family]++;
      else count(clients[family], of.realm);
    }
    for (const family of FAMILIES) {
      const shares = realm.shares[family];
      const { capacity, quarantined } = realm.allocator.statsOf(family);
      const room = capacity - reserveOf(site, capacity) - services[family];
      if (shares.room !== Math.max(0, room)) return `the room of its IPv${family} pools is wrong`;
      for (const [party, used] of uses[family]) {
        if (realm.uses.count(party, family) === used) continue;
        return `the number of IPv${family} addresses that clients of "${party}" use is wrong`;
      }
      let held = 0;
      for (const [party, own] of clients[family]) {
        held += own;
        if (shares.heldBy(party) >= own) continue;
        return `"${party}" is charged with too few IPv${family} addresses`;
      }
      if (shares.taken !== held + quarantined) {
        return `its clients are charged with ${shares.taken} IPv${family} addresses in place of ${held + quarantined}`;
      }
    }
    return undefined;
  }

  /** Whether the translator has as many presences in a site, and services for its clients, as there have to be. */
  #planFault(name: string): string | undefined {
    const { desired, leases, isLive } = this.#state;
    const { translator } = this.#options;
    if (translator.planned === undefined || !leases.isStored) return undefined;
    const planned = translator.planned(name);
    if (planned === undefined || !isLive(name)) {
      if ((planned !== undefined) === isLive(name)) return undefined;
      return `the translator ${planned === undefined ? 'lacks' : 'has'} its realm`;
    }
    const pools = leases.poolsOf(desired.sites.get(name)!).join(', ');
    if (planned.pools.join(', ') !== pools) {
      return `the translator has the pools ${planned.pools.join(', ')} in place of ${pools}`;
    }
    if ((leases.realm(name)?.size ?? 0) > MAX_COUNTED) return undefined;
    let presences = 0;
    for (const { of } of leases.presencesIn(name)) {
      if (isLive(of.realm)) presences++;
    }
    if (planned.presences !== presences) {
      return `the translator has ${planned.presences} presences in place of ${presences}`;
    }
    const services = new Set<string>();
    for (const { home, exposed } of desired.hostsIn(name).values()) {
      if (exposed.length > 0 && isLive(home.realm)) services.add(home.key);
    }
    if (planned.services === services.size) return undefined;
    return `the translator has permits for ${planned.services} hosts in place of ${services.size}`;
  }

  #snapshotFault(name: string): string | undefined {
    const { desired, leases, snapshots } = this.#state;
    const size = desired.entriesIn(name).size + (leases.realm(name)?.size ?? 0);
    // The view of a large site takes longer than a slice.
    if (size > MAX_VIEWED || snapshots.isCurrent(name)) return undefined;
    return 'its snapshot is an old one';
  }

  /** Derives an exposure from its records; undefined if it is not in force. */
  #derive(id: ExposureId): ExposedService | undefined {
    const { source, transit } = this.#options;
    const exposure = source.exposure(id);
    const service = source.service(id.service);
    const site = source.site(id.site);
    if (exposure === undefined || service === undefined || site === undefined) return undefined;
    if (service.site === site.name || source.site(service.site) === undefined) return undefined;
    const home = new Endpoint(service.site, service.address.canonical());
    const own = presenceFamily(home.address.family, site.pools);
    const isBetween = transit !== undefined && transit !== site.name && transit !== home.realm;
    const between = isBetween ? source.site(transit) : undefined;
    return {
      service,
      home,
      exposure,
      presenceFamily: own,
      presenceKey: presenceKey(home.key, own),
      transit: between && transitFamily(home.address.family, own, between.pools),
    };
  }
}

/** Whether an exposure makes a host of its site a client. */
function admits({ exposure, presenceFamily: own }: ExposedService, { address }: Endpoint): boolean {
  if (address.family !== own) return false;
  return exposure.clients === undefined || contains(exposure.clients, address);
}

function isSource({ sources, pools }: Site, { address }: Endpoint): boolean {
  return contains(sources, address) && !contains(pools, address);
}

/** The most leases of a site that are read from the store at once. */
const MAX_READ = 256;
/** The most names and leases of which a view is made. */
const MAX_VIEWED = 512;
/** The most leases of a site that are counted at once. */
const MAX_COUNTED = 4096;
