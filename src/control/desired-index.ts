/**
 * The desired state, indexed for the questions of the controller: which services are exposed in a site, and which hosts
 * are clients there. A change recomputes what it touches.
 * @module
 */
import type { Family } from '../base/address.ts';
import { Endpoint } from '../base/endpoint.ts';
import type { Slices } from '../base/slices.ts';
import {
  type DesiredSource,
  type ExposureId,
  presenceFamily,
  type Service,
  type Site,
} from '../registry/index.ts';
import { ClientPair, contains } from './client-pair.ts';
import { ClientSites } from './client-sites.ts';
import { byService, type ExposedService } from './exposed-service.ts';
import type { IndexChanges } from './index-changes.ts';
import { presenceKey } from './presence-key.ts';
import { type PresentHost, PresentHosts } from './present-hosts.ts';
import type { TouchedKeys } from './touched-keys.ts';
import { transitFamily } from './transit.ts';

/**
 * It is the desired state as last updated, whatever has changed since. It leaves out an exposure without its service
 * or site, which another writer may have stored.
 */
export class DesiredIndex {
  /** The transit realm, if there is one. */
  readonly transit: string | undefined;
  readonly #source: DesiredSource;
  readonly #sites = new Map<string, Site>();
  /** Keyed by service. */
  readonly #homes = new Map<string, HomeService>();
  /** Keyed by the key of an endpoint: the names of its services, sorted. */
  readonly #servicesAt = new Map<string, string[]>();
  /** Keyed by site: what is exposed there. */
  readonly #realms = new Map<string, IndexedRealm>();
  /** Keyed by home and then by clients' site. */
  readonly #pairs = new Map<string, Map<string, ClientPair>>();
  /** Keyed by clients' site: the clients in the transit realm of services of third sites. */
  readonly #transitPairs = new Map<string, ClientPair>();
  /** Keyed by realm and IP version. */
  readonly #clientSites = new Map<string, ClientSites>();

  /** @param transit the transit realm, if there is one */
  constructor(source: DesiredSource, transit?: string) {
    this.#source = source;
    this.transit = transit;
  }

  get sites(): ReadonlyMap<string, Site> {
    return this.#sites;
  }

  /**
   * Takes over a part of what is touched, and removes it from `touched`: so much that what follows from it is derived,
   * stored and sent within a turn of the event loop. What is exposed in a site that has come or gone, and of a changed
   * service, may be much: it stays as it is, and is added to `touched`.
   */
  async updateSome(touched: TouchedKeys, changes: IndexChanges, slices: Slices): Promise<void> {
    if (touched.keyCount > LEAST_AT_ONCE && slices.used > UPDATE_PART) await slices.next();
    slices.run(this.#update(touched, changes), LEAST_AT_ONCE, UPDATE_PART);
  }

  *#update(touched: TouchedKeys, changes: IndexChanges): Generator<void> {
    for (const name of touched.sites) {
      this.#updateSite(name, touched, changes);
      touched.sites.delete(name);
      yield;
    }
    for (const name of touched.services) {
      this.#updateService(name, touched);
      touched.services.delete(name);
      yield;
    }
    let left = MOST_AT_ONCE;
    do {
      for (const [key, id] of touched.exposures) {
        if (left-- === 0) return;
        this.#updateExposure(id, changes);
        touched.exposures.delete(key);
        yield;
      }
    } while (touched.addDeferred());
  }

  /** Takes over the whole desired state; before, there was none. */
  updateAll(changes: IndexChanges): void {
    const source = this.#source;
    for (const site of source.sites()) {
      this.#sites.set(site.name, site);
      changes.sites.add(site.name);
      changes.views.add(site.name);
    }
    for (const service of source.services()) this.#offer(service);
    for (const each of source.exposures()) this.#updateExposure(each, changes);
  }

  /** Returns everything that is exposed. */
  *exposed(): Iterable<ExposedService> {
    for (const { exposed } of this.#realms.values()) yield* exposed.values();
  }

  /** Returns the services that are visible in a site, sorted. */
  exposedIn(site: string): readonly ExposedService[] {
    const realm = this.#realms.get(site);
    if (realm === undefined) return [];
    realm.sorted ??= [...realm.exposed.values()].sort(byService);
    return realm.sorted;
  }

  /** Returns the same by service, in no order. */
  entriesIn(site: string): ReadonlyMap<string, ExposedService> {
    return this.#realms.get(site)?.exposed ?? NO_ENTRIES;
  }

  /** Returns a service as it is exposed in a site. */
  entry({ service, site }: ExposureId): ExposedService | undefined {
    return this.#realms.get(site)?.exposed.get(service);
  }

  /** Returns who of a site is a client of the services of another one. */
  pair(home: string, site: string): ClientPair | undefined {
    return this.#pairs.get(home)?.get(site);
  }

  /** Returns who of a site is a client in the transit realm of services of third sites. */
  transitPair(site: string): ClientPair | undefined {
    return this.#transitPairs.get(site);
  }

  /** Returns the hosts that have presences in a site for their services: visible ones, and those in transit there. */
  hostsIn(site: string): PresentHosts {
    return this.#realms.get(site)?.hosts ?? NO_HOSTS;
  }

  hostIn(site: string, key: string): PresentHost | undefined {
    return this.#realms.get(site)?.hosts.get(key);
  }

  /** Returns whether any service of a site is exposed. */
  isHome(site: string): boolean {
    return this.#pairs.has(site);
  }

  /** Returns the sites to which services of a site are exposed. */
  clientsOf(home: string): Iterable<string> {
    return this.#pairs.get(home)?.keys() ?? [];
  }

  /** Returns the services of a site that are exposed in another one. */
  exposedFrom(home: string, site: string): Iterable<ExposedService> {
    return this.pair(home, site)?.exposed() ?? [];
  }

  /**
   * Returns the IP version of the presences that two hosts of these sites have in the transit realm; undefined if
   * packets between these sites need no such presences.
   */
  transitFamily(site: string, other: string, host: Family, otherHost: Family): Family | undefined {
    const between = this.transit === undefined ? undefined : this.#sites.get(this.transit);
    if (between === undefined || site === this.transit || other === this.transit) return undefined;
    return transitFamily(host, otherHost, between.pools);
  }

  /**
   * Returns the sites whose hosts may have presences of an IP version in a site. The same object is returned for ever,
   * and follows all changes.
   */
  clientSitesOf(home: string, family: Family): ClientSites {
    const key = clientSitesKey(home, family);
    let sites = this.#clientSites.get(key);
    if (sites === undefined) {
      sites = new ClientSites();
      this.#clientSites.set(key, sites);
    }
    return sites;
  }

  /** Returns the names of the services that an endpoint offers. */
  servicesAt({ key }: Endpoint): readonly string[] {
    return this.#servicesAt.get(key) ?? [];
  }

  /**
   * Returns whether a host is a client of any service of IP version `family` in `home`. The host's own version must be
   * that of the service's presence in its site.
   */
  isClient(home: string, client: Endpoint, family: Family): boolean {
    return this.#admits(this.pair(home, client.realm), client, family);
  }

  /** Returns the same; in the transit realm also whether the host is a client of any service of a third site. */
  isAdmitted(home: string, client: Endpoint, family: Family): boolean {
    if (this.isClient(home, client, family)) return true;
    if (home !== this.transit) return false;
    return this.#admits(this.#transitPairs.get(client.realm), client, family);
  }

  #admits(pair: ClientPair | undefined, { realm, address }: Endpoint, family: Family): boolean {
    const site = this.#sites.get(realm);
    if (pair === undefined || site === undefined || !pair.admits(address, family)) return false;
    return contains(site.sources, address) && !contains(site.pools, address);
  }

  #updateSite(name: string, touched: TouchedKeys, changes: IndexChanges): void {
    const before = this.#sites.get(name);
    const site = this.#source.site(name);
    if (before === site) return;
    if (site === undefined) this.#sites.delete(name);
    else this.#sites.set(name, site);
    changes.sites.add(name);
    changes.views.add(name);
    if (before === undefined || site === undefined) {
      touched.defer(this.#exposuresAt(name));
      this.#forget(name);
    } else {
      this.#adaptClients(site, changes);
      if (versionsOf(before) === versionsOf(site)) return;
      // The addresses of other IP versions are derived at once, because the old ones end together with their pools.
      for (const { exposure } of [...this.#entriesIn(name)])
        this.#updateExposure(exposure, changes);
    }
    if (name !== this.transit) return;
    // The IP versions of all presences in the transit realm may change.
    for (const { exposure } of [...this.exposed()]) this.#updateExposure(exposure, changes);
  }

  /** Returns what is or was exposed in a site, and what its services are or were exposed in. */
  *#exposuresAt(name: string): Generator<ExposureId> {
    for (const { exposure } of this.#entriesIn(name)) yield exposure;
    yield* this.#source.exposuresTo(name);
    for (const other of this.clientsOf(name)) {
      for (const { exposure } of this.exposedFrom(name, other)) yield exposure;
    }
    for (const service of this.#source.servicesOf(name)) yield* this.#exposuresOf(service.name);
  }

  *#exposuresOf(service: string): Generator<ExposureId> {
    for (const site of this.#source.sitesOf(service)) yield { service, site };
  }

  #entriesIn(name: string): Iterable<ExposedService> {
    return this.#realms.get(name)?.exposed.values() ?? [];
  }

  /** Notes that a site has other clients, or another number of them. */
  #adaptClients({ name, maxClients }: Site, changes: IndexChanges): void {
    const adapt = (realm: string, family: Family): void => {
      this.clientSitesOf(realm, family).adapt(name, maxClients);
      changes.realm(realm).parties.add(name);
      changes.realm(realm).narrowed.add(name);
    };
    for (const { home, transit } of this.#entriesIn(name)) {
      adapt(home.realm, home.address.family);
      if (transit !== undefined) adapt(this.transit!, transit);
    }
  }

  /** Forgets what was kept for a site that is gone, when nothing is exposed there or from there any more. */
  #forget(name: string): void {
    if (this.#sites.has(name) || this.#pairs.has(name)) return;
    const realm = this.#realms.get(name);
    if (realm !== undefined && !(realm.exposed.size === 0 && realm.hosts.isEmpty)) return;
    this.#realms.delete(name);
    for (const family of FAMILIES) this.#clientSites.delete(clientSitesKey(name, family));
  }

  #updateService(name: string, touched: TouchedKeys): void {
    const before = this.#homes.get(name);
    const service = this.#source.service(name);
    if (before?.service === service) return;
    if (before !== undefined) this.#withdraw(before);
    if (service === undefined) this.#homes.delete(name);
    else this.#offer(service);
    touched.defer(this.#exposuresOf(name));
  }

  #offer(service: Service): void {
    const { name, site, address } = service;
    const home = new Endpoint(site, address.canonical());
    this.#homes.set(name, { service, home });
    const names = this.#servicesAt.get(home.key);
    if (names === undefined) this.#servicesAt.set(home.key, [name]);
    else this.#servicesAt.set(home.key, [...names, name].sort());
  }

  #withdraw({ service: { name }, home: { key } }: HomeService): void {
    const names = this.#servicesAt.get(key)!.filter((each) => each !== name);
    if (names.length === 0) this.#servicesAt.delete(key);
    else this.#servicesAt.set(key, names);
  }

  #updateExposure(id: ExposureId, changes: IndexChanges): void {
    const before = this.entry(id);
    const after = this.#resolve(id);
    const isSame =
      before?.exposure === after?.exposure &&
      before?.service === after?.service &&
      before?.presenceKey === after?.presenceKey &&
      before?.transit === after?.transit;
    if (isSame) return;
    if (before !== undefined) this.#remove(before, changes);
    if (after !== undefined) this.#add(after, changes);
    if (before !== undefined) this.#noteNarrowed(before, changes);
    if (after !== undefined) return;
    if (before !== undefined) for (const name of [id.site, before.home.realm]) this.#forget(name);
  }

  #resolve(id: ExposureId): ExposedService | undefined {
    const exposure = this.#source.exposure(id);
    const offered = this.#homes.get(id.service);
    const site = this.#sites.get(id.site);
    if (exposure === undefined || offered === undefined || site === undefined) return undefined;
    const { home, service } = offered;
    if (home.realm === site.name || !this.#sites.has(home.realm)) return undefined;
    const { family } = home.address;
    const own = presenceFamily(family, site.pools);
    return {
      service,
      home,
      exposure,
      presenceFamily: own,
      presenceKey: presenceKey(home.key, own),
      transit: this.transitFamily(home.realm, site.name, family, own),
    };
  }

  #add(entry: ExposedService, changes: IndexChanges): void {
    const { exposure, home, transit } = entry;
    const realm = this.#realm(exposure.site);
    realm.exposed.set(exposure.service, entry);
    realm.hosts.expose(entry);
    realm.sorted = undefined;
    changes.views.add(exposure.site);
    if (!changes.isEverything) this.#note(entry, changes);
    this.#addClients(entry, home.realm, home.address.family, changes);
    if (transit === undefined) return;
    const key = presenceKey(home.key, transit);
    this.#realm(this.transit!).hosts.cross(key, transit, entry);
    if (!changes.isEverything) changes.realm(this.transit!).hosts.add(key);
    this.#addClients(entry, undefined, transit, changes);
  }

  #remove(entry: ExposedService, changes: IndexChanges): void {
    const { exposure, home, transit } = entry;
    const realm = this.#realms.get(exposure.site)!;
    realm.exposed.delete(exposure.service);
    realm.hosts.unexpose(entry);
    realm.sorted = undefined;
    changes.views.add(exposure.site);
    this.#note(entry, changes);
    this.#removeClients(entry, home.realm, home.address.family, changes);
    if (transit === undefined) return;
    const key = presenceKey(home.key, transit);
    this.#realms.get(this.transit!)!.hosts.uncross(key, entry);
    changes.realm(this.transit!).hosts.add(key);
    this.#removeClients(entry, undefined, transit, changes);
  }

  #note(
    { exposure: { site }, home, presenceKey: key }: ExposedService,
    changes: IndexChanges
  ): void {
    changes.realm(site).hosts.add(key);
    changes.permit(site, home);
  }

  /** @param home undefined for the transit realm as such */
  #addClients(
    entry: ExposedService,
    home: string | undefined,
    there: Family,
    changes: IndexChanges
  ): void {
    const { site } = entry.exposure;
    const pairs = home === undefined ? this.#transitPairs : this.#pairsOf(home);
    let pair = pairs.get(site);
    if (pair === undefined) {
      pair = new ClientPair(home === undefined);
      pairs.set(site, pair);
    }
    pair.add(entry);
    const realm = home ?? this.transit!;
    this.clientSitesOf(realm, there).add(site, this.#sites.get(site)!.maxClients);
    changes.realm(realm).parties.add(site);
  }

  #removeClients(
    entry: ExposedService,
    home: string | undefined,
    there: Family,
    changes: IndexChanges
  ): void {
    const { site } = entry.exposure;
    const pairs = home === undefined ? this.#transitPairs : this.#pairsOf(home);
    const pair = pairs.get(site)!;
    pair.remove(entry);
    if (pair.isEmpty) pairs.delete(site);
    if (home !== undefined && pairs.size === 0) this.#pairs.delete(home);
    const realm = home ?? this.transit!;
    this.clientSitesOf(realm, there).remove(site);
    changes.realm(realm).parties.add(site);
  }

  /** Notes that hosts of a site may be clients no more, unless another exposure makes all of them clients. */
  #noteNarrowed(
    { exposure, home, presenceFamily, transit }: ExposedService,
    changes: IndexChanges
  ): void {
    const { site } = exposure;
    const note = (pair: ClientPair | undefined, realm: string, there: Family): void => {
      if (pair?.isOpen(presenceFamily, there) !== true) changes.realm(realm).narrowed.add(site);
    };
    note(this.#pairs.get(home.realm)?.get(site), home.realm, home.address.family);
    if (transit !== undefined) note(this.#transitPairs.get(site), this.transit!, transit);
  }

  #pairsOf(home: string): Map<string, ClientPair> {
    let pairs = this.#pairs.get(home);
    if (pairs === undefined) {
      pairs = new Map();
      this.#pairs.set(home, pairs);
    }
    return pairs;
  }

  #realm(site: string): IndexedRealm {
    let realm = this.#realms.get(site);
    if (realm === undefined) {
      realm = { exposed: new Map(), sorted: undefined, hosts: new PresentHosts() };
      this.#realms.set(site, realm);
    }
    return realm;
  }
}

/** A service and the real host that offers it. */
interface HomeService {
  readonly service: Service;
  readonly home: Endpoint;
}

interface IndexedRealm {
  /** Keyed by service. */
  readonly exposed: Map<string, ExposedService>;
  /** The same, sorted; undefined until somebody asks. */
  sorted: readonly ExposedService[] | undefined;
  readonly hosts: PresentHosts;
}

/** Returns the IP versions of a site's pools as text: those of the presences follow from them. */
function versionsOf({ pools }: Site): string {
  return pools.map(({ family }) => family).join(' ');
}

function clientSitesKey(home: string, family: Family): string {
  return `${home} IPv${family}`;
}

const NO_HOSTS: PresentHosts = new PresentHosts();
const NO_ENTRIES: ReadonlyMap<string, ExposedService> = new Map();
const FAMILIES: readonly Family[] = [4, 6];
/** How many keys are taken over together, at least and at most, and how much of a slice that takes: the rest needs the rest. */
const LEAST_AT_ONCE = 16;
const MOST_AT_ONCE = 128;
const UPDATE_PART = 0.25;
