/**
 * A desired state, indexed for the questions of the controller: which services are exposed in a site, and which hosts
 * are clients there.
 * @module
 */
import type { Family, IpAddress } from '../base/address.ts';
import { Endpoint } from '../base/endpoint.ts';
import type { IpPrefix } from '../base/prefix.ts';
import {
  type DesiredState,
  type Exposure,
  exposureName,
  presenceFamily,
  type Service,
  type Site,
} from '../registry/index.ts';
import { presenceKey } from './presence-key.ts';
import { transitFamily } from './transit.ts';

/** A service that has a presence in a site. */
export interface PresentService {
  readonly service: Service;
  /** The real host that offers it. */
  readonly home: Endpoint;
  /** The IP version and the key of its presence there. */
  readonly presenceFamily: Family;
  readonly presenceKey: string;
}

/** A service as it is exposed in one site. */
export interface ExposedService extends PresentService {
  readonly exposure: Exposure;
  /** The full domain name in the clients' site. */
  readonly name: string;
}

type Records = Pick<DesiredState, 'sites' | 'services' | 'exposures'>;

/** Is immutable. It leaves out an exposure without its service or site, which another writer may have stored. */
export class DesiredIndex {
  readonly state: Records;
  readonly sites: ReadonlyMap<string, Site>;
  readonly exposed: readonly ExposedService[];
  /** The transit realm, if there is one. */
  readonly transit: string | undefined;
  readonly #exposedIn = new Map<string, ExposedService[]>();
  readonly #servicesAt = new Map<string, string[]>();
  /**
   * Keyed by home, clients' site and IP version of the services: the prefixes of these clients.
   */
  readonly #clients = new Map<string, ClientPrefixes>();
  /** Keyed by home and IP version: the `maxClients` of sites whose hosts may have presences of that version there. */
  readonly #clientSites = new Map<string, Map<string, number>>();
  /** The services with a presence in the transit realm for hosts of other sites. */
  readonly #inTransit: PresentService[] = [];
  /** Keyed by clients' site, their IP version and the version in the transit realm: the prefixes of these clients. */
  readonly #transitClients = new Map<string, ClientPrefixes>();

  /** @param transit the transit realm, if there is one */
  constructor(state: Records, transit?: string) {
    this.state = state;
    this.transit = transit;
    this.sites = new Map(state.sites.map((site) => [site.name, site]));
    for (const { name } of state.sites) this.#exposedIn.set(name, []);
    const services = new Map<string, Pick<ExposedService, 'service' | 'home'>>();
    for (const service of state.services) {
      const home = new Endpoint(service.site, service.address.canonical());
      services.set(service.name, { service, home });
      const names = this.#servicesAt.get(home.key);
      if (names === undefined) this.#servicesAt.set(home.key, [service.name]);
      else names.push(service.name);
    }
    this.exposed = state.exposures.flatMap((exposure) => {
      const service = services.get(exposure.service);
      const site = this.sites.get(exposure.site);
      if (service === undefined || site === undefined) return [];
      const { home } = service;
      if (home.realm === site.name || !this.sites.has(home.realm)) return [];
      const family = presenceFamily(home.address.family, site.pools);
      const presence = {
        presenceFamily: family,
        presenceKey: presenceKey(home.key, family),
      };
      return [{ ...service, ...presence, exposure, name: exposureName(exposure, site) }];
    });
    for (const each of this.exposed) {
      this.#exposedIn.get(each.exposure.site)!.push(each);
      const { exposure, home } = each;
      const { family } = home.address;
      addClients(this.#clients, clientsKey(home.realm, exposure.site, family), exposure);
      this.#addClientSite(home.realm, family, exposure.site);
      this.#addTransit(each);
    }
  }

  /** Returns the services that are visible in a site. */
  exposedIn(site: string): readonly ExposedService[] {
    return this.#exposedIn.get(site) ?? [];
  }

  /** Returns the services with a presence in a site: the visible ones, and those in transit there. */
  presentIn(site: string): readonly PresentService[] {
    const exposed = this.exposedIn(site);
    return site === this.transit ? [...exposed, ...this.#inTransit] : exposed;
  }

  /**
   * Returns the IP version of the presences that two hosts of these sites have in the transit realm; undefined if
   * packets between these sites need no such presences.
   */
  transitFamily(site: string, other: string, host: Family, otherHost: Family): Family | undefined {
    const between = this.transit === undefined ? undefined : this.sites.get(this.transit);
    if (between === undefined || site === this.transit || other === this.transit) return undefined;
    return transitFamily(host, otherHost, between.pools);
  }

  /** Returns the sites whose hosts may have presences of an IP version in a site, with the `maxClients` of each. */
  clientSitesOf(home: string, family: Family): ReadonlyMap<string, number> {
    return this.#clientSites.get(`${home} IPv${family}`) ?? NONE;
  }

  /** Returns the names of the services that an endpoint offers. */
  servicesAt({ key }: Endpoint): readonly string[] {
    return this.#servicesAt.get(key) ?? [];
  }

  /**
   * Returns whether a host is a client of any service of IP version `family` in `home`. The host's own version must be
   * that of the service's presence in its site.
   */
  isClient(home: string, { realm, address }: Endpoint, family: Family): boolean {
    const key = clientsKey(home, realm, family);
    const site = this.sites.get(realm);
    if (site === undefined || !this.#clients.has(key)) return false;
    if (address.family !== presenceFamily(family, site.pools)) return false;
    if (!contains(site.sources, address) || contains(site.pools, address)) return false;
    return isWithin(this.#clients.get(key), address);
  }

  /** Returns the same; in the transit realm also whether the host is a client of any service of a third site. */
  isAdmitted(home: string, client: Endpoint, family: Family): boolean {
    if (this.isClient(home, client, family)) return true;
    const { realm, address } = client;
    const key = clientsKey(`IPv${address.family}`, realm, family);
    const site = this.sites.get(realm);
    if (home !== this.transit || site === undefined || !this.#transitClients.has(key)) return false;
    if (!contains(site.sources, address) || contains(site.pools, address)) return false;
    return isWithin(this.#transitClients.get(key), address);
  }

  #addTransit({ exposure, service, home, presenceFamily: own }: ExposedService): void {
    const transit = this.transitFamily(home.realm, exposure.site, home.address.family, own);
    if (transit === undefined) return;
    const key = presenceKey(home.key, transit);
    this.#inTransit.push({ service, home, presenceFamily: transit, presenceKey: key });
    addClients(this.#transitClients, clientsKey(`IPv${own}`, exposure.site, transit), exposure);
    this.#addClientSite(this.transit!, transit, exposure.site);
  }

  #addClientSite(home: string, family: Family, site: string): void {
    const key = `${home} IPv${family}`;
    const sites = this.#clientSites.get(key) ?? new Map<string, number>();
    sites.set(site, this.sites.get(site)!.maxClients);
    this.#clientSites.set(key, sites);
  }
}

const NONE: ReadonlyMap<string, number> = new Map();

/** Prefixes by their text; undefined for all sources. */
type ClientPrefixes = Map<string, IpPrefix> | undefined;

function addClients(
  table: Map<string, ClientPrefixes>,
  key: string,
  { clients }: Pick<Exposure, 'clients'>
): void {
  const isOpen = table.has(key) && table.get(key) === undefined;
  if (isOpen) return;
  if (clients === undefined) {
    table.set(key, undefined);
    return;
  }
  const prefixes = table.get(key) ?? new Map<string, IpPrefix>();
  for (const prefix of clients) prefixes.set(prefix.toString(), prefix);
  table.set(key, prefixes);
}

function isWithin(prefixes: ClientPrefixes, address: IpAddress): boolean {
  return prefixes === undefined || contains(prefixes.values(), address);
}

function contains(prefixes: Iterable<IpPrefix>, address: IpAddress): boolean {
  for (const prefix of prefixes) {
    if (prefix.contains(address)) return true;
  }
  return false;
}

function clientsKey(home: string, site: string, family: Family): string {
  return `${home}/${site} IPv${family}`;
}
