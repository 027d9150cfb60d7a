/**
 * The desired state: sites, services and exposures. An operator states nothing else; presences, paths and zones are
 * derived from it.
 * @module
 */
import type { AddressInput, Family, IpAddress } from '../base/address.ts';
import type { PortInput, PortRange } from '../base/port-range.ts';
import type { IpPrefix, PrefixInput } from '../base/prefix.ts';

/** The name of the cloud, which is a site like the others. */
export const CLOUD = 'cloud';

/** A network with its addresses and limits. */
export interface Site {
  /** The name of the site, which is a DNS label. The site of the cloud is `cloud`. */
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
   * How many names services may have in the site: one for each exposure, and one more for each alias and each HTTPS or
   * SVCB record. The names of clients are bounded by the `maxClients` of their sites instead.
   */
  readonly maxNames: number;
  /** The largest packet that goes into the site, in bytes; any size if absent. */
  readonly mtu?: number | undefined;
  /**
   * How a packet of the site's hosts that no exposure allows is answered: not at all (`drop`, the default), by an ICMP
   * error (`unreachable`), or by a reset to TCP and an ICMP error to others (`reset`).
   */
  readonly reject?: 'drop' | 'unreachable' | 'reset' | undefined;
  /** What selectors of exposures take the site by: at most 64 keys, each with one value. */
  readonly labels?: Labels | undefined;
}

/** Labels by their keys. Keys and values are names of 1 to 63 lower-case letters, digits and hyphens. */
export type Labels = Readonly<Record<string, string>>;

/** A named service of a real host in one site, its home. */
export interface Service {
  /** The name of the service, which is a DNS label. */
  readonly name: string;
  /** The site where it is at home. */
  readonly site: string;
  /** Its real address: one of the `sources` of its site. */
  readonly address: IpAddress;
  /** What it offers: `tcp/5672`, `udp/8000-8100` (likewise `udplite`, `sctp`), `icmp` (echo) or `ip/47`. */
  readonly ports: readonly PortRange[];
}

/** What an exposure says apart from where it holds. */
export interface ExposureTerms {
  /** The service that becomes visible. */
  readonly service: string;
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
  /**
   * The service's presence in the site: an address of its pools that is not reserved. Services of one host with
   * presences of one IP version have the same presence. If absent, any free address is allocated.
   */
  readonly address?: IpAddress | undefined;
  /** Further names within the site's zone, at most 16. Each is a CNAME of the exposure's name. */
  readonly aliases?: readonly string[] | undefined;
  /**
   * Whether names below the exposure's name that do not exist are answered as the name is
   * ([RFC 4592](https://www.rfc-editor.org/rfc/rfc4592)); default false.
   */
  readonly wildcard?: boolean | undefined;
  /** HTTPS records, at most 8 ([RFC 9460 section 9](https://www.rfc-editor.org/rfc/rfc9460#section-9)). */
  readonly https?: readonly ServiceBinding[] | undefined;
  /** SVCB records, at most 8 ([RFC 9460 section 2](https://www.rfc-editor.org/rfc/rfc9460#section-2)). */
  readonly svcb?: readonly ServiceBinding[] | undefined;
  /**
   * The instant from which on the exposure is in force; from its start on if absent. It is ISO 8601 in UTC, such as
   * `2026-12-01T08:00:00.000Z`.
   */
  readonly notBefore?: string | undefined;
  /** The instant from which on it is not in force any more; there is no end if absent. */
  readonly notAfter?: string | undefined;
}

/**
 * Makes a service visible in another site. It goes before every `SelectorExposure` of that service there, also while it
 * is not in force.
 */
export interface Exposure extends ExposureTerms {
  /** The site of the clients. */
  readonly site: string;
}

/**
 * Makes a service visible in each site whose labels have all those of the selector, as if it had an `Exposure` there.
 * The site where the service is at home is never taken. A selector without labels takes every site but the cloud, which
 * is taken by its labels alone. Where two of them take a site for one service, the one with the lower name holds.
 */
export interface SelectorExposure extends ExposureTerms {
  /** The exposure's own name, among all exposures with a selector. */
  readonly name: string;
  /** At most 64 labels. */
  readonly siteSelector: Labels;
}

/** What names an exposure: its site and service, or its own name if it has a selector. */
export type ExposureKey = Pick<Exposure, 'site' | 'service'> | Pick<SelectorExposure, 'name'>;

/** An HTTPS or SVCB record of an exposure's name. */
export interface ServiceBinding {
  /**
   * One or two labels that begin with an underscore, in front of the exposure's name: `_dns` or `_8443._https`. The
   * record is at the exposure's name if absent.
   */
  readonly prefix?: string | undefined;
  /** From 1 to 65535; lower ones are tried first. Default 1. */
  readonly priority: number;
  /** A full domain name; `.` is the name of the record itself. Default `.`. */
  readonly target: string;
  /** Identifiers of protocols, such as `h2`: at most 8, each of 1 to 63 letters, digits, `.`, `-`, `_` and `/`. */
  readonly alpn?: readonly string[] | undefined;
  /** The port of the service, if it is not the one of the protocol. */
  readonly port?: number | undefined;
}

/** Everything that an operator wants. */
export interface DesiredState {
  readonly sites: readonly Site[];
  readonly services: readonly Service[];
  readonly exposures: readonly Exposure[];
  /** The exposures to the sites with certain labels. */
  readonly selectors: readonly SelectorExposure[];
}

/** A site as a caller gives it: addresses are values or text, and what is left out has its default. */
export interface SiteInput
  extends Pick<Site, 'name' | 'zone'>,
    Partial<Omit<Site, 'name' | 'zone' | 'sources' | 'pools' | 'reserved'>> {
  /** Prefixes of the real hosts that may take part, as clients or services. */
  readonly sources: readonly PrefixInput[];
  /** Prefixes of the site's presences; real hosts with such an address take no part. */
  readonly pools: readonly PrefixInput[];
  /** Addresses in the pools that no presence gets, for example the gateway's own; default none. */
  readonly reserved?: readonly PrefixInput[];
}

/** A service as a caller gives it: addresses and ports are values or text. */
export interface ServiceInput extends Omit<Service, 'address' | 'ports'> {
  /** Its real address: one of the `sources` of its site. */
  readonly address: AddressInput;
  /** What it offers: `tcp/5672`, `udp/8000-8100` (likewise `udplite`, `sctp`), `icmp` (echo) or `ip/47`. */
  readonly ports: readonly PortInput[];
}

/**
 * The terms of an exposure as a caller gives them: addresses and prefixes are values or text, and what is left out has
 * its default. Instants are ISO 8601 with `Z` or an offset, such as `2026-12-01T09:00:00+01:00`.
 */
export interface ExposureTermsInput
  extends Omit<ExposureTerms, 'clients' | 'address' | 'https' | 'svcb'> {
  /**
   * Prefixes of the clients' real addresses, of the IP version of the service's presence in the site. Default: every
   * source of the site.
   */
  readonly clients?: readonly PrefixInput[] | undefined;
  /**
   * The service's presence in the site: an address of its pools that is not reserved. Services of one host with presences
   * of one IP version have the same presence. Default: any free address.
   */
  readonly address?: AddressInput | undefined;
  /** HTTPS records, at most 8 ([RFC 9460 section 9](https://www.rfc-editor.org/rfc/rfc9460#section-9)); default none. */
  readonly https?: readonly Partial<ServiceBinding>[] | undefined;
  /** SVCB records, at most 8 ([RFC 9460 section 2](https://www.rfc-editor.org/rfc/rfc9460#section-2)); default none. */
  readonly svcb?: readonly Partial<ServiceBinding>[] | undefined;
}

/** An exposure to one site as a caller gives it. */
export interface ExposureInput extends ExposureTermsInput, Pick<Exposure, 'site'> {}

/** An exposure to the sites with certain labels as a caller gives it. */
export interface SelectorExposureInput
  extends ExposureTermsInput,
    Pick<SelectorExposure, 'name' | 'siteSelector'> {}

/** A desired state as a caller gives it. */
export interface DesiredInput {
  /** The networks that take part. One of them has the name `cloud`. */
  readonly sites: readonly SiteInput[];
  /** The services of the cloud and of the sites; default none. */
  readonly services?: readonly ServiceInput[] | undefined;
  /**
   * Where services are visible: each entry with `site` holds at that site, and each with `siteSelector` at the sites with
   * these labels. Default none.
   */
  readonly exposures?: readonly (ExposureInput | SelectorExposureInput)[] | undefined;
}

/**
 * The owner of a record: the one who asked for it. Each owner replaces only its own records, so that reloading a file
 * keeps what was exposed at run time.
 */
export type Owner = 'file' | 'admin';

/** What a record of the store says. */
export type Spec = Site | Service | Exposure | SelectorExposure;

/** A site, service or exposure as the store has it. */
export interface DesiredRecord {
  readonly owner: Owner;
  readonly spec: Spec;
}

/** Names a record: a site, a service, an exposure to one site, or an exposure with a selector. */
export type RecordName =
  | { readonly kind: 'site' | 'service' | 'selector'; readonly name: string }
  | { readonly kind: 'exposure'; readonly site: string; readonly service: string };

/** A record with its version, which is another one after each change of the record. */
export interface VersionedRecord<T extends Spec = Spec> extends DesiredRecord {
  readonly spec: T;
  /** 16 letters, digits, `-` and `_`; the same for the same owner and spec. */
  readonly version: string;
}

/**
 * Returns the IP version of a service's presence in a site: the service's own version if the site has a pool of that
 * version, else the version of its pools. The gateway then translates between the two.
 */
export function presenceFamily(service: Family, pools: readonly IpPrefix[]): Family {
  const pool = pools.find(({ family }) => family === service) ?? pools[0];
  return pool?.family ?? service;
}

/** Returns the full domain name of an exposure, in lower case. */
export function exposureName(
  { dnsName, service }: Pick<ExposureTerms, 'dnsName' | 'service'>,
  site: Pick<Site, 'zone'>
): string {
  return nameWithin(dnsName ?? service, site);
}

/** Returns the full domain name of an alias, or of another name within a site's zone, in lower case. */
export function nameWithin(text: string, site: Pick<Site, 'zone'>): string {
  const name = text.toLowerCase();
  const zone = site.zone.toLowerCase();
  return name === zone || name.endsWith(`.${zone}`) ? name : `${name}.${zone}`;
}
