/**
 * Answers questions about single presences, for people: which host an address stands for, which addresses a service has
 * in a site, and what the first packet of a client would bring. An answer costs what it names, and changes nothing.
 * @module
 */
import type { Family, IpAddress } from '../base/address.ts';
import type { Endpoint } from '../base/endpoint.ts';
import type { IpPrefix } from '../base/prefix.ts';
import { type AllocatorError, PoolExhaustedError } from '../errors.ts';
import type { ExposureId } from '../registry/index.ts';
import type { Whois } from './controller-events.ts';
import type { DerivedState } from './derivation-check.ts';
import type { ExposedService } from './exposed-service.ts';
import { presenceKey } from './presence-key.ts';

/** A service as it is visible in a site. */
export interface VisibleService {
  readonly exposed: ExposedService;
  /** The address of its name; undefined while none could be leased, or its lease is not stored. */
  readonly address: IpAddress | undefined;
  /** Addresses from before the site was renumbered, which lead to it too. */
  readonly former: readonly IpAddress[];
}

export class PresenceLookup {
  readonly #state: () => Pick<DerivedState, 'desired' | 'leases' | 'isLive'>;

  /**
   * @internal A `PresenceController` has one.
   * @param state returns what is in force now
   */
  constructor(state: () => Pick<DerivedState, 'desired' | 'leases' | 'isLive'>) {
    this.#state = state;
  }

  /** Returns whether a site exists and takes part: it is not suspended. */
  isLive(site: string): boolean {
    return this.#state().isLive(site);
  }

  /** Returns the host that an address stands for in a site; undefined if the address is not a presence there. */
  whois(site: string, address: IpAddress): Whois | undefined {
    const { leases, desired } = this.#state();
    const endpoint = leases.holder(site, address);
    if (endpoint === undefined) return undefined;
    const { realm } = endpoint;
    return { site: realm, address: endpoint.address, services: desired.servicesAt(endpoint) };
  }

  /** Returns the prefixes of a site's presences: its pools, and what they have lost while an overlap lasts. */
  poolsOf(site: string): readonly IpPrefix[] {
    const { leases, desired } = this.#state();
    const found = desired.sites.get(site);
    return found === undefined ? [] : leases.poolsOf(found);
  }

  /** Returns a service as it is visible in a site; undefined if it is not exposed there now. */
  service(id: ExposureId): VisibleService | undefined {
    const { leases, desired } = this.#state();
    const exposed = desired.entry(id);
    if (exposed === undefined) return undefined;
    const address = leases.address(id.site, exposed.presenceKey);
    return { exposed, address, former: leases.formerAddresses(id.site, exposed.presenceKey) };
  }

  /** Returns the services of a real host that are visible in a site by presences of an IP version. */
  servicesAt(site: string, endpoint: Endpoint, family: Family): readonly ExposedService[] {
    const host = this.#state().desired.hostIn(site, presenceKey(endpoint.key, family));
    return [...(host?.exposed ?? [])];
  }

  /** Returns the names of the services of a real host, exposed or not. */
  namesAt(endpoint: Endpoint): readonly string[] {
    return this.#state().desired.servicesAt(endpoint);
  }

  /** Returns the address of a client's presence of an IP version in a site; undefined if it has none. */
  clientAddress(client: Endpoint, site: string, family: Family): IpAddress | undefined {
    return this.#state().leases.address(site, presenceKey(client.key, family));
  }

  /**
   * Returns why a client that has no presence in a site would get none, although it is permitted; undefined if its first
   * packet would bring one.
   */
  refusal(client: Endpoint, site: string, family: Family): AllocatorError | undefined {
    const { leases, desired } = this.#state();
    const from = desired.sites.get(client.realm);
    const realm = leases.realm(site);
    if (from === undefined || realm === undefined) return undefined;
    try {
      leases.check(site, client, family, from.maxClients);
    } catch (error) {
      return error as AllocatorError;
    }
    const { capacity, leased, quarantined } = realm.allocator.statsOf(family);
    const key = presenceKey(client.key, family);
    if (leased + quarantined < capacity || realm.isKept(key)) return undefined;
    return new PoolExhaustedError(
      `the IPv${family} pools of "${site}" have no free address: ${leased} of ${capacity} are leased, and ${quarantined} rest after their release`
    );
  }
}
