/**
 * The desired state: sites, services and exposures. An operator states nothing else; presences, paths and zones are
 * derived from it.
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

/** The name of the cloud, which is a site like the others. */
export const CLOUD = 'cloud';

/** A network with its addresses and limits. */
export interface Site {
  readonly name: string;
  /** Prefixes of the real hosts that may take part, as clients or services. */
  readonly sources: readonly IpPrefix[];
  /** Prefixes of the site's presences; real hosts with such an address take no part. */
  readonly pools: readonly IpPrefix[];
  /** Addresses in the pools that no presence gets, for example the gateway's own. */
  readonly reserved: readonly IpPrefix[];
  /** The domain of the site's names. */
  readonly zone: string;
  /** How many of the site's hosts may have client presences in each other site. */
  readonly maxClients: number;
  /**
   * How many addresses of the site's pools, of each IP version, stay free for services that are exposed
   * later; by default an eighth of the pools.
   */
  readonly serviceReserve?: number | undefined;
  /**
   * How many addresses of the site's pools, of each IP version, every other site is sure of for its clients. By
   * default it is half of what the services and their reserve leave, divided by the number of sites that can have
   * clients there and one more. The same part of all that is left, instead of half of it, is the most that takes
   * effect; a warning names a larger `clientShare`.
   */
  readonly clientShare?: number | undefined;
  /**
   * How many services may be exposed in the site. Each of them has a name in its zone. The names of clients are
   * bounded by the `maxClients` of their sites instead.
   */
  readonly maxNames: number;
  /** The largest packet that goes into the site, in bytes; any size if absent. */
  readonly mtu?: number | undefined;
  /**
   * How a packet of the site's hosts that no exposure allows is answered: not at all (`drop`, the default), by an ICMP
   * error (`unreachable`), or by a reset to TCP and an ICMP error to others (`reset`).
   */
  readonly reject?: 'drop' | 'unreachable' | 'reset' | undefined;
}

/** A named service of a real host in one site, its home. */
export interface Service {
  readonly name: string;
  readonly site: string;
  readonly address: IpAddress;
  /** `tcp/5672`, `udp/8000-8100` (likewise `udplite`, `sctp`), `icmp` (echo) or `ip/47`. */
  readonly ports: readonly PortRange[];
}

/** Makes a service visible in another site. */
export interface Exposure {
  readonly service: string;
  /** The site of the clients. */
  readonly site: string;
  /**
   * The DNS name within the site's zone; the service's name if absent. Two services may share a name if one has an
   * IPv4 and the other an IPv6 presence in this site.
   */
  readonly dnsName?: string | undefined;
  /**
   * Prefixes of the clients' real addresses, of the IP version of the service's presence in the site; every source of
   * the site if absent.
   */
  readonly clients?: readonly IpPrefix[] | undefined;
  /** The service's presence in the site: an address of its pools that is not reserved. */
  readonly address?: IpAddress | undefined;
}

/** Everything that an operator wants. */
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
export interface ExposureInput extends Omit<Exposure, 'clients' | 'address'> {
  readonly clients?: readonly PrefixInput[] | undefined;
  readonly address?: AddressInput | undefined;
}

/** A desired state as a caller gives it. */
export interface DesiredInput {
  readonly sites: readonly SiteInput[];
  readonly services?: readonly ServiceInput[] | undefined;
  readonly exposures?: readonly ExposureInput[] | undefined;
}

/**
 * The longest zone, in characters: a client's name is made of its address and its site, and the longest such name must
 * fit within the 253 characters of a name (RFC 1035 section 2.3.4).
 */
const MAX_ZONE_LENGTH: number = 253 - '.'.length - 63 - '.'.length - 39;

/** What every IPv4 host accepts (RFC 1122 section 3.3.2), and the longest IPv4 packet. */
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
  address: v.optional(AddressText),
}) as Schema<Exposure>;

/**
 * The owner of a record: the one who asked for it. Each owner replaces only its own records, so that reloading a file
 * keeps what was exposed at run time.
 */
export type Owner = 'file' | 'admin';

/** A site, service or exposure as the store has it. */
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
 * Returns the IP version of a service's presence in a site: the service's own version if the site has a pool of that
 * version, else the version of its pools. The gateway then translates between the two.
 */
export function presenceFamily(service: Family, pools: readonly IpPrefix[]): Family {
  const pool = pools.find(({ family }) => family === service) ?? pools[0];
  return pool?.family ?? service;
}

/** Returns the full domain name of an exposure. */
export function exposureName(exposure: ExposureInput, site: Pick<Site, 'zone'>): string {
  const name = (exposure.dnsName ?? exposure.service).toLowerCase();
  const zone = site.zone.toLowerCase();
  return name === zone || name.endsWith(`.${zone}`) ? name : `${name}.${zone}`;
}
