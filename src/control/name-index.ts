/**
 * The names of one site, kept up to date by keys: for a resolver in the process of the controller, whose site may have
 * the names of the services and clients of all others. It says the same as the site's snapshot, but names every client.
 *
 * It follows the plan of the translator, whose presences are stored and in force, and the desired state. `take` returns
 * what has changed since.
 * @module
 */
import type { Family, IpAddress } from '../base/address.ts';
import { Endpoint } from '../base/endpoint.ts';
import type { IpPrefix } from '../base/prefix.ts';
import { type DesiredSource, presenceFamily, type Site, type Touched } from '../registry/index.ts';
import type { PlanChanges, TranslationPlan } from '../translator/index.ts';
import { contains } from './client-pair.ts';
import { serviceHost } from './service-names.ts';
import { clientName } from './site-view.ts';
import type { Snapshot, SnapshotHost } from './snapshot.ts';

export interface NameIndexOptions {
  readonly site: string;
  readonly desired: DesiredSource;
  /** Whether the site is the transit realm, in which hosts without a name have presences too. */
  readonly isTransit: boolean;
}

/** What some names and addresses stand for now. */
export interface ChangedNames extends Pick<Snapshot, 'hosts' | 'pointers'> {
  /** The names that have changed; `hosts` has all hosts that these names have. */
  readonly names: readonly string[];
  /** The addresses whose pointers have changed; `pointers` has those that are left. */
  readonly addresses: readonly IpAddress[];
}

export class NameIndex {
  readonly #options: NameIndexOptions;
  #site: Site | undefined;
  /** The hosts that have presences in the site, by key. */
  readonly #hosts = new Map<string, NamedHost>();
  /** The host behind each address, by the text of the address. */
  readonly #behind = new Map<string, NamedHost>();
  /** The keys of the hosts of each site. */
  readonly #hostsOf = new Map<string, Set<string>>();
  /** Keyed by service: the key of its host when it was last seen. */
  readonly #homes = new Map<string, string>();
  /** Keyed by service of the site, if that is the transit realm: its IP version when it was last seen. */
  readonly #versions = new Map<string, Family>();
  /** Keyed by name and then by the key of the host. */
  readonly #names = new Map<string, Map<string, readonly SnapshotHost[]>>();
  /** The keys of hosts whose names may have changed. */
  readonly #touched = new Set<string>();
  readonly #changedNames = new Set<string>();
  readonly #changedAddresses = new Map<string, IpAddress>();
  #pools: readonly IpPrefix[] | undefined;
  /** Whether the site itself is another one, so that everything has changed. */
  #isReplaced = true;

  constructor(options: NameIndexOptions) {
    this.#options = options;
    const { site, desired, isTransit } = options;
    this.#site = desired.site(site);
    if (!isTransit) return;
    for (const { name } of desired.servicesOf(site))
      this.#versions.set(name, this.#versionOf(name)!);
  }

  /** The plan is replaced. */
  load({ realms, presences }: TranslationPlan): void {
    this.#follow(realms.find(({ name }) => name === this.#options.site)?.pools);
    const gone = new Map(
      [...this.#behind].map(([text, host]) => [text, host.addresses.get(text)!])
    );
    for (const { realm, address, of, formerUntil } of presences) {
      if (realm !== this.#options.site) continue;
      gone.delete(address.toString());
      this.#setPresence(address, of, formerUntil !== undefined);
    }
    for (const address of gone.values()) this.#setPresence(address, undefined);
    for (const key of this.#hosts.keys()) this.#touched.add(key);
  }

  /** The plan has changed. */
  apply({ realms = [], presences = [] }: PlanChanges): void {
    for (const { realm, address, of, formerUntil } of presences) {
      if (realm === this.#options.site) this.#setPresence(address, of, formerUntil !== undefined);
    }
    for (const { name, realm } of realms) {
      if (name === this.#options.site) this.#follow(realm?.pools);
      if (realm !== undefined) continue;
      const keys = name === this.#options.site ? this.#hosts.keys() : this.#hostsOf.get(name);
      for (const key of [...(keys ?? [])]) {
        for (const address of [...this.#hosts.get(key)!.addresses.values()]) {
          this.#setPresence(address, undefined);
        }
      }
    }
  }

  /** The desired state has changed. */
  touch({ sites, services, exposures }: Touched): void {
    const { site, desired, isTransit } = this.#options;
    if (sites.has(site)) {
      const before = this.#site;
      this.#site = desired.site(site);
      if (textOf(before) !== textOf(this.#site)) this.#isReplaced = true;
    }
    for (const name of services) this.#touchService(name);
    for (const exposure of exposures.values()) {
      if (exposure.site === site) this.#touchService(exposure.service);
    }
    if (isTransit) this.#touchClients({ sites, services, exposures });
  }

  /** Other hosts may be clients of services of the site now. */
  #touchClients({ sites, services, exposures }: Touched): void {
    const clients = new Set(sites);
    for (const { service, site } of exposures.values()) {
      if (this.#versions.has(service) || this.#versionOf(service) !== undefined) clients.add(site);
    }
    for (const name of services) {
      const version = this.#versionOf(name);
      if (version === this.#versions.get(name)) continue;
      if (version === undefined) this.#versions.delete(name);
      else this.#versions.set(name, version);
      for (const site of this.#options.desired.sitesOf(name)) clients.add(site);
    }
    for (const site of clients) {
      for (const key of this.#hostsOf.get(site) ?? []) this.#touched.add(key);
    }
  }

  /** Returns the IP version of a service of the site. */
  #versionOf(name: string): Family | undefined {
    const service = this.#options.desired.service(name);
    return service?.site === this.#options.site ? service.address.canonical().family : undefined;
  }

  /** Whether `take` has something to return. */
  get isBehind(): boolean {
    return this.#isReplaced || this.#touched.size > 0;
  }

  /**
   * Returns what has changed since the last call; undefined if nothing has. Returns `everything` if the zone or the pools
   * of the site have changed, as at first: the next calls then return all names and addresses.
   *
   * @param most of how many hosts, to leave the others to the next calls; default all
   */
  take(most: number = Number.POSITIVE_INFINITY): ChangedNames | 'everything' | undefined {
    if (this.#isReplaced) {
      for (const key of this.#hosts.keys()) this.#touched.add(key);
      this.#isReplaced = false;
      return 'everything';
    }
    let left = most;
    for (const key of this.#touched) {
      if (left-- === 0) break;
      this.#touched.delete(key);
      this.#derive(key);
    }
    const names = [...this.#changedNames];
    const addresses = [...this.#changedAddresses.values()];
    this.#changedNames.clear();
    this.#changedAddresses.clear();
    if (names.length + addresses.length === 0) return undefined;
    return {
      names,
      hosts: names.flatMap((name) => this.hostsNamed(name)),
      addresses,
      pointers: addresses.flatMap((address) => this.#pointerOf(address)),
    };
  }

  /** All names and pointers, as of the last `take`. */
  get all(): Pick<Snapshot, 'hosts' | 'pointers'> {
    const addresses = [...this.#hosts.values()].flatMap((host) => [...host.addresses.values()]);
    return {
      hosts: [...this.#names.keys()].flatMap((name) => this.hostsNamed(name)),
      pointers: addresses.flatMap((address) => this.#pointerOf(address)),
    };
  }

  /** The prefixes of the presences in the site, as the plan has them; undefined if it does not have the site. */
  get pools(): readonly IpPrefix[] | undefined {
    return this.#pools;
  }

  #follow(pools: readonly IpPrefix[] | undefined): void {
    if (pools?.join() !== this.#pools?.join()) this.#isReplaced = true;
    this.#pools = pools;
  }

  #setPresence(address: IpAddress, of: Endpoint | undefined, isFormer = false): void {
    const text = address.toString();
    const before = this.#behind.get(text);
    const isSame = before?.endpoint.key === of?.key && before?.former.has(text) === isFormer;
    if (before !== undefined && isSame) return;
    if (before !== undefined) {
      before.addresses.delete(text);
      before.former.delete(text);
      this.#behind.delete(text);
      this.#touched.add(before.endpoint.key);
    }
    if (of === undefined) return;
    let host = this.#hosts.get(of.key);
    if (host === undefined) {
      host = {
        endpoint: of,
        addresses: new Map(),
        former: new Set(),
        names: new Set(),
        pointers: new Map(),
      };
      this.#hosts.set(of.key, host);
      this.#hostsOf.set(of.realm, (this.#hostsOf.get(of.realm) ?? new Set()).add(of.key));
    }
    host.addresses.set(text, address);
    if (isFormer) host.former.add(text);
    this.#behind.set(text, host);
    this.#touched.add(of.key);
  }

  /** Notes the host of a service, as it was and as it is. */
  #touchService(name: string): void {
    const service = this.#options.desired.service(name);
    const before = this.#homes.get(name);
    if (before !== undefined) this.#touched.add(before);
    this.#homes.delete(name);
    if (service === undefined) return;
    const { key } = new Endpoint(service.site, service.address.canonical());
    this.#touched.add(key);
    if (this.#hosts.has(key)) this.#homes.set(name, key);
  }

  /** Derives the names of a host from the present state. */
  #derive(key: string): void {
    const host = this.#hosts.get(key);
    if (host === undefined) return;
    const hosts = this.#site === undefined ? [] : this.#hostsFor(host, this.#site);
    for (const name of host.names) {
      const named = this.#names.get(name)!;
      named.delete(key);
      if (named.size === 0) this.#names.delete(name);
      this.#changedNames.add(name);
    }
    for (const [text, { address }] of host.pointers) this.#changedAddresses.set(text, address);
    host.names.clear();
    host.pointers.clear();
    for (const each of hosts) {
      const { name } = each;
      const named = this.#names.get(name) ?? new Map<string, readonly SnapshotHost[]>();
      this.#names.set(name, named);
      named.set(key, [...(named.get(key) ?? []), each]);
      host.names.add(name);
      this.#changedNames.add(name);
      for (const address of [...each.addresses, ...(each.former ?? [])]) {
        const text = address.toString();
        // The first of several services on a host gives the host its name.
        if (!host.pointers.has(text)) host.pointers.set(text, { address, name });
        this.#changedAddresses.set(text, address);
      }
    }
    if (host.addresses.size === 0) this.#forget(host);
  }

  #forget({ endpoint: { realm, key } }: NamedHost): void {
    this.#hosts.delete(key);
    const others = this.#hostsOf.get(realm)!;
    others.delete(key);
    if (others.size === 0) this.#hostsOf.delete(realm);
  }

  /** Returns what a host is called: the names of its exposed services, and one as a client. */
  #hostsFor({ endpoint, addresses, former }: NamedHost, site: Site): SnapshotHost[] {
    const { desired } = this.#options;
    const left = new Map(addresses);
    const hosts: SnapshotHost[] = [];
    for (const service of desired.servicesOf(endpoint.realm)) {
      if (!service.address.canonical().equals(endpoint.address)) continue;
      const exposure = desired.exposure({ service: service.name, site: site.name });
      if (exposure === undefined) continue;
      this.#homes.set(service.name, endpoint.key);
      const family = presenceFamily(endpoint.address.family, site.pools);
      const own = [...addresses.values()].filter((each) => each.family === family);
      const isFormer = (each: IpAddress): boolean => former.has(each.toString());
      // If a host has two addresses of which none is a former one, the newer one stays.
      const address = own.findLast((each) => !isFormer(each)) ?? own.at(-1);
      if (address === undefined) continue;
      const others = own.filter((each) => isFormer(each) && each !== address);
      hosts.push(serviceHost(exposure, service, address, site, others));
      for (const each of [address, ...others]) left.delete(each.toString());
    }
    const own = [...left.values()].filter(({ family }) => this.#isNamed(endpoint, family, site));
    if (own.length === 0) return hosts;
    const sorted = own.sort((a, b) => (a.toString() < b.toString() ? -1 : 1));
    return [...hosts, { name: clientName(endpoint, site), addresses: sorted, ports: [] }];
  }

  /** Returns whether a presence of this IP version is that of a client of a service of the site. */
  #isNamed({ realm, address }: Endpoint, family: Family, site: Site): boolean {
    const { desired, isTransit } = this.#options;
    if (!isTransit) return true;
    const home = desired.site(realm);
    if (home === undefined || !isSource(home, address)) return false;
    for (const { service: name, clients } of desired.exposuresTo(realm)) {
      const service = desired.service(name);
      if (service?.site !== site.name || service.address.canonical().family !== family) continue;
      const own = presenceFamily(family, home.pools);
      const isClient = clients?.some((prefix) => prefix.contains(address)) ?? true;
      if (own === address.family && isClient) return true;
    }
    return false;
  }

  /** Returns the hosts with this full name, in lower case. */
  hostsNamed(name: string): readonly SnapshotHost[] {
    return [...(this.#names.get(name)?.values() ?? [])].flat();
  }

  #pointerOf(address: IpAddress): Snapshot['pointers'] {
    const text = address.toString();
    const pointer = this.#behind.get(text)?.pointers.get(text);
    return pointer === undefined ? [] : [pointer];
  }
}

/** Returns whether a host of a site may be a client. */
function isSource({ sources, pools }: Site, address: IpAddress): boolean {
  return contains(sources, address) && !contains(pools, address);
}

/** Returns what of a site all its names and pointers depend on. */
function textOf(site: Site | undefined): string {
  return site === undefined ? '' : JSON.stringify([site.zone, site.pools]);
}

interface NamedHost {
  readonly endpoint: Endpoint;
  /** Its presences in the site, by text, in the order in which they came. */
  readonly addresses: Map<string, IpAddress>;
  /** The texts of those that are former ones. */
  readonly former: Set<string>;
  /** What it is called. */
  readonly names: Set<string>;
  /** Keyed by the text of an address. */
  readonly pointers: Map<string, Snapshot['pointers'][number]>;
}
