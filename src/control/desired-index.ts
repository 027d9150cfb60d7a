/**
 * A desired state, indexed by what the controller asks of it: what is exposed in a site, and who is
 * a client there.
 * @module
 */
import { type Family, IpAddress, IpPrefix } from '../address.ts';
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

/** A service as it is exposed in one site. */
export interface ExposedService {
  readonly exposure: Exposure;
  readonly service: Service;
  /** Where it is at home; its address is in canonical form. */
  readonly home: Endpoint;
  readonly family: Family;
  /** IP version and key of its presence in the clients' site. */
  readonly presenceFamily: Family;
  readonly presenceKey: string;
  /** Full domain name in the clients' site. */
  readonly name: string;
}

/** Immutable. An exposure whose service or site is not there is left out: no check has seen it. */
export class DesiredIndex {
  readonly state: DesiredState;
  readonly sites: ReadonlyMap<string, Site>;
  readonly exposed: readonly ExposedService[];
  readonly #exposedIn = new Map<string, ExposedService[]>();
  readonly #servicesAt = new Map<string, string[]>();
  readonly #addresses = new Map<string, SiteAddresses>();
  /**
   * By home, clients' site and IP version of the services: the prefixes of those clients, by their
   * text; absent: all sources.
   */
  readonly #clients = new Map<string, Map<string, IpPrefix> | undefined>();

  constructor(state: DesiredState) {
    this.state = state;
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
      this.#addClients(each);
    }
  }

  /** The services that are visible in a site. */
  exposedIn(site: string): readonly ExposedService[] {
    return this.#exposedIn.get(site) ?? [];
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
    const prefixes = this.#clients.get(key);
    return prefixes === undefined || contains(prefixes.values(), address);
  }

  #addClients({ exposure, home, family }: ExposedService): void {
    const key = clientsKey(home.realm, exposure.site, family);
    if (exposure.clients === undefined) {
      this.#clients.set(key, undefined);
      return;
    }
    const isOpen = this.#clients.has(key) && this.#clients.get(key) === undefined;
    if (isOpen) return;
    const prefixes = this.#clients.get(key) ?? new Map<string, IpPrefix>();
    for (const text of exposure.clients) {
      if (!prefixes.has(text)) prefixes.set(text, IpPrefix.parse(text));
    }
    this.#clients.set(key, prefixes);
  }
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
