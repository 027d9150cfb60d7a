/**
 * The desired state: sites, services, exposures. What is written here is all that an operator says;
 * everything else (presences, paths, zones) is derived.
 * @module
 */
import * as v from 'valibot';
import type { AddressInput, Family, IpAddress } from '../base/address.ts';
import type { PortInput, PortRange } from '../base/port-range.ts';
import type { IpPrefix, PrefixInput } from '../base/prefix.ts';
import {
  AddressText,
  DomainText,
  NameText,
  PortText,
  PrefixText,
  type Schema,
  wholeNumber,
} from '../base/schema.ts';

/** The cloud is a site like the others, under this name. */
export const CLOUD = 'cloud';

/** A realm and the addresses in it. */
export interface Site {
  readonly name: string;
  /** Prefixes of the real hosts that may take part, as clients or services. */
  readonly sources: readonly IpPrefix[];
  /** Prefixes the site's presences are taken from; real hosts there take no part. */
  readonly pools: readonly IpPrefix[];
  /** Addresses in the pools that are never handed out, for example the gateway's own. */
  readonly reserved: readonly IpPrefix[];
  /** Domain that the site's names are in. */
  readonly zone: string;
  /** How many of the site's hosts may have client presences elsewhere, in each other site. */
  readonly maxClients: number;
  /**
   * How many addresses of the site's pools, of each IP version, stay free for services that are exposed
   * later; by default an eighth of the pools.
   */
  readonly serviceReserve?: number | undefined;
  /**
   * How many addresses of the site's pools, of each IP version, every other site is sure of for its clients;
   * by default half of what is left beside the services and their reserve, divided by the number of sites
   * that can have clients there and one more. The same part of all that is left, not of its half, is the most that
   * is in force; a warning names a `clientShare` above that.
   */
  readonly clientShare?: number | undefined;
  /**
   * How many services may be exposed in the site, each of them a name in its zone. Those of clients are
   * bounded by the `maxClients` of their sites.
   */
  readonly maxNames: number;
  /** Largest packet that goes into the site, in bytes; any if absent. */
  readonly mtu?: number | undefined;
  /**
   * How a packet of the site's hosts that no exposure allows is answered: by nothing (the default), by
   * an ICMP error, or TCP by a reset and the rest by an ICMP error.
   */
  readonly reject?: 'drop' | 'unreachable' | 'reset' | undefined;
}

/** A named endpoint with what it offers, at home in one site. */
export interface Service {
  readonly name: string;
  readonly site: string;
  readonly address: IpAddress;
  /** `tcp/5672`, `udp/8000-8100` (likewise `udplite`, `sctp`), `icmp` (echo) or `ip/47`. */
  readonly ports: readonly PortRange[];
}

/** The permission that a service be visible in another site. */
export interface Exposure {
  readonly service: string;
  /** The clients' site. */
  readonly site: string;
  /**
   * DNS name within the site's zone; the service's name if absent. Two services may share one if in
   * this site one has an IPv4 and the other an IPv6 presence.
   */
  readonly dnsName?: string | undefined;
  /**
   * Prefixes of the clients' real addresses, which are of the IP version of the service's presence in
   * the site; every source of the site if absent.
   */
  readonly clients?: readonly IpPrefix[] | undefined;
}

/** All of it, as a configuration file has it. */
export interface DesiredState {
  readonly sites: readonly Site[];
  readonly services: readonly Service[];
  readonly exposures: readonly Exposure[];
}

/** A site as a caller gives it: addresses are values or text, and what is left out has its default. */
export interface SiteInput
  extends Pick<Site, 'name' | 'zone'>,
    Partial<Omit<Site, 'name' | 'zone' | 'sources' | 'pools' | 'reserved'>> {
  readonly sources: readonly PrefixInput[];
  readonly pools: readonly PrefixInput[];
  readonly reserved?: readonly PrefixInput[];
}

/** A service as a caller gives it: addresses and ports are values or text. */
export interface ServiceInput extends Omit<Service, 'address' | 'ports'> {
  readonly address: AddressInput;
  readonly ports: readonly PortInput[];
}

/** An exposure as a caller gives it: prefixes are values or text. */
export interface ExposureInput extends Omit<Exposure, 'clients'> {
  readonly clients?: readonly PrefixInput[] | undefined;
}

/** A desired state as a caller gives it. */
export interface DesiredInput {
  readonly sites: readonly SiteInput[];
  readonly services?: readonly ServiceInput[] | undefined;
  readonly exposures?: readonly ExposureInput[] | undefined;
}

/**
 * Longest zone, in characters: a name of 253 (RFC 1035 section 2.3.4) has room for the longest name
 * that is made for a client, its IPv6 address and its site.
 */
const MAX_ZONE_LENGTH: number = 253 - '.'.length - 63 - '.'.length - 39;

/** What every IPv4 host takes (RFC 1122 section 3.3.2), and the longest IPv4 packet. */
const MIN_MTU = 576;
const MAX_MTU = 65_535;

export const SiteSchema: Schema<Site> = /* @__PURE__ */ v.strictObject({
  name: NameText,
  sources: v.array(PrefixText),
  pools: v.array(PrefixText),
  reserved: v.optional(v.array(PrefixText), []),
  zone: v.pipe(DomainText, v.maxLength(MAX_ZONE_LENGTH)),
  maxClients: v.optional(wholeNumber(0, 1_000_000), 1024),
  maxNames: v.optional(wholeNumber(0, 1_000_000), 4096),
  serviceReserve: v.optional(wholeNumber(0, 2 ** 32)),
  clientShare: v.optional(wholeNumber(0, 2 ** 32)),
  mtu: v.optional(wholeNumber(MIN_MTU, MAX_MTU)),
  reject: v.optional(v.picklist(['drop', 'unreachable', 'reset'])),
}) as Schema<Site>;

export const ServiceSchema: Schema<Service> = /* @__PURE__ */ v.strictObject({
  name: NameText,
  site: NameText,
  address: AddressText,
  ports: v.array(PortText),
}) as Schema<Service>;

export const ExposureSchema: Schema<Exposure> = /* @__PURE__ */ v.strictObject({
  service: NameText,
  site: NameText,
  dnsName: v.optional(DomainText),
  clients: v.optional(v.array(PrefixText)),
}) as Schema<Exposure>;

/**
 * Who asked for a record. Each owner replaces only what is its own, so that reloading a file leaves
 * alone what was exposed at run time.
 */
export type Owner = 'file' | 'admin';

/** One site, service or exposure, as it is stored. */
export interface DesiredRecord {
  readonly owner: Owner;
  readonly spec: Site | Service | Exposure;
}

export const DesiredStateSchema: Schema<DesiredState> = /* @__PURE__ */ v.strictObject({
  sites: v.array(SiteSchema),
  services: v.optional(v.array(ServiceSchema), []),
  exposures: v.optional(v.array(ExposureSchema), []),
}) as Schema<DesiredState>;

/**
 * IP version of a service's presence in a site: the service's own if the site has a pool of that, else
 * the one that its pools are of. The gateway then translates between the two.
 */
export function presenceFamily(service: Family, pools: readonly IpPrefix[]): Family {
  const pool = pools.find(({ family }) => family === service) ?? pools[0];
  return pool?.family ?? service;
}

/** Full domain name of an exposure. */
export function exposureName(exposure: ExposureInput, site: Pick<Site, 'zone'>): string {
  const name = (exposure.dnsName ?? exposure.service).toLowerCase();
  const zone = site.zone.toLowerCase();
  return name === zone || name.endsWith(`.${zone}`) ? name : `${name}.${zone}`;
}
