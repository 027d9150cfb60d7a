/**
 * A desired state, indexed by what the controller asks of it: what is exposed in a site, and who is
 * a client there.
 * @module
 */
import { type Family, IpAddress, IpPrefix } from '../base/address.ts';
import {
  type DesiredState,
  type Exposure,
  exposureName,
  presenceFamily,
  type Service,
  type Site,
} from '../registry/index.ts';
import type { Endpoint } from '../translator/index.ts';
import { endpointKey, presenceKey } from './endpoint.ts';
import { transitFamily } from './transit.ts';

/** A service that has a presence in a site. */
export interface PresentService {
  readonly service: Service;
  /** IP version and key of its presence there. */
  readonly presenceFamily: Family;
  readonly presenceKey: string;
}

/** A service as it is exposed in one site. */
export interface ExposedService extends PresentService {
  readonly exposure: Exposure;
  /** Where it is at home; its address is in canonical form. */
  readonly home: Endpoint;
  readonly family: Family;
  /** Full domain name in the clients' site. */
  readonly name: string;
}

/** Immutable. An exposure whose service or site is not there is left out: no check has seen it. */
export class DesiredIndex {
  readonly state: DesiredState;
  readonly sites: ReadonlyMap<string, Site>;
  readonly exposed: readonly ExposedService[];
  /** The realm between the sites, if there is one. */
  readonly transit: string | undefined;
  readonly #exposedIn = new Map<string, ExposedService[]>();
  readonly #servicesAt = new Map<string, string[]>();
  readonly #addresses = new Map<string, SiteAddresses>();
  /**
   * By home, clients' site and IP version of the services: the prefixes of those clients.
   */
  readonly #clients = new Map<string, ClientPrefixes>();
  /** By home and IP version: the sites whose hosts may have presences of that version there. */
  readonly #clientSites = new Map<string, Map<string, number>>();
  /** Services that have a presence in the transit realm for others than its own hosts. */
  readonly #inTransit: PresentService[] = [];
  /** By clients' site, their own IP version and that in the transit realm. */
  readonly #transitClients = new Map<string, ClientPrefixes>();

  /** @param transit the realm between the sites, if there is one */
  constructor(state: DesiredState, transit?: string) {
    this.state = state;
    this.transit = transit;
    this.sites = new Map(state.sites.map((site) => [site.name, site]));
    for (const { name, sources, pools } of state.sites) {
      this.#exposedIn.set(name, []);
      this.#addresses.set(name, { sources: parseAll(sources), pools: parseAll(pools) });
    }
    const services = new Map<string, Pick<ExposedService, 'service' | 'home' | 'family'>>();
    for (const service of state.services) {
      const address = IpAddress.parse(service.address);
      const home = { realm: service.site, address: address.toString() };
      services.set(service.name, { service, home, family: address.family });
      const key = endpointKey(home);
      const names = this.#servicesAt.get(key);
      if (names === undefined) this.#servicesAt.set(key, [service.name]);
      else names.push(service.name);
    }
    this.exposed = state.exposures.flatMap((exposure) => {
      const service = services.get(exposure.service);
      const site = this.sites.get(exposure.site);
      if (service === undefined || site === undefined) return [];
      const { home, family: own } = service;
      if (home.realm === site.name || !this.sites.has(home.realm)) return [];
      const family = presenceFamily(own, this.#addresses.get(site.name)!.pools);
      const presence = {
        presenceFamily: family,
        presenceKey: presenceKey(endpointKey(home), family),
      };
      return [{ ...service, ...presence, exposure, name: exposureName(exposure, site) }];
    });
    for (const each of this.exposed) {
      this.#exposedIn.get(each.exposure.site)!.push(each);
      const { exposure, home, family } = each;
      addClients(this.#clients, clientsKey(home.realm, exposure.site, family), exposure);
      this.#addClientSite(home.realm, family, exposure.site);
      this.#addTransit(each);
    }
  }

  /** The services that are visible in a site. */
  exposedIn(site: string): readonly ExposedService[] {
    return this.#exposedIn.get(site) ?? [];
  }

  /** The services that have a presence in a site: those, and others that are in transit there. */
  presentIn(site: string): readonly PresentService[] {
    const exposed = this.exposedIn(site);
    return site === this.transit ? [...exposed, ...this.#inTransit] : exposed;
  }

  /**
   * IP version of the presences that a host and a client or service of another site have in the transit
   * realm; undefined if packets between these sites need none.
   */
  transitFamily(site: string, other: string, host: Family, otherHost: Family): Family | undefined {
    const addresses = this.transit === undefined ? undefined : this.#addresses.get(this.transit);
    if (addresses === undefined || site === this.transit || other === this.transit)
      return undefined;
    return transitFamily(host, otherHost, addresses.pools);
  }

  /** The sites whose hosts may have presences of an IP version in a site, and the `maxClients` of each. */
  clientSitesOf(home: string, family: Family): ReadonlyMap<string, number> {
    return this.#clientSites.get(`${home} IPv${family}`) ?? NONE;
  }

  /** Names of the services at home at an endpoint. */
  servicesAt(key: string): readonly string[] {
    return this.#servicesAt.get(key) ?? [];
  }

  /**
   * Whether a host of `site` is a client of any service at home in `home` of IP version `family`:
   * the host's own version is that of the service's presence in its site.
   */
  isClient(home: string, site: string, address: IpAddress, family: Family): boolean {
    const key = clientsKey(home, site, family);
    const of = this.#addresses.get(site);
    if (of === undefined || !this.#clients.has(key)) return false;
    if (address.family !== presenceFamily(family, of.pools)) return false;
    if (!contains(of.sources, address) || contains(of.pools, address)) return false;
    return isWithin(this.#clients.get(key), address);
  }

  /** The same, or in the transit realm whether it is a client of any service of a third site. */
  isAdmitted(home: string, site: string, address: IpAddress, family: Family): boolean {
    if (this.isClient(home, site, address, family)) return true;
    const key = clientsKey(`IPv${address.family}`, site, family);
    const of = this.#addresses.get(site);
    if (home !== this.transit || of === undefined || !this.#transitClients.has(key)) return false;
    if (!contains(of.sources, address) || contains(of.pools, address)) return false;
    return isWithin(this.#transitClients.get(key), address);
  }

  #addTransit({ exposure, service, home, family, presenceFamily: own }: ExposedService): void {
    const transit = this.transitFamily(home.realm, exposure.site, family, own);
    if (transit === undefined) return;
    const key = presenceKey(endpointKey(home), transit);
    this.#inTransit.push({ service, presenceFamily: transit, presenceKey: key });
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

/** Prefixes by their text; undefined: all sources. */
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
  for (const text of clients) {
    if (!prefixes.has(text)) prefixes.set(text, IpPrefix.parse(text));
  }
  table.set(key, prefixes);
}

function isWithin(prefixes: ClientPrefixes, address: IpAddress): boolean {
  return prefixes === undefined || contains(prefixes.values(), address);
}

interface SiteAddresses {
  readonly sources: readonly IpPrefix[];
  readonly pools: readonly IpPrefix[];
}

function parseAll(texts: readonly string[]): IpPrefix[] {
  return texts.map((text) => IpPrefix.parse(text));
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
