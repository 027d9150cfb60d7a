/**
 * The desired state: sites, services, exposures. What is written here is all that an operator says;
 * everything else (presences, paths, zones) is derived.
 * @module
 */
import * as v from 'valibot';
import {
  AddressText,
  DomainText,
  NameText,
  PortText,
  PrefixText,
  type Schema,
  wholeNumber,
} from '../schema.ts';

/** The cloud is a site like the others, under this name. */
export const CLOUD = 'cloud';

/** A realm and the addresses in it. */
export interface Site {
  readonly name: string;
  /** Prefixes of the real hosts that may take part, as clients or services. */
  readonly sources: readonly string[];
  /** Prefixes the site's presences are taken from; real hosts there take no part. */
  readonly pools: readonly string[];
  /** Addresses in the pools that are never handed out, for example the gateway's own. */
  readonly reserved: readonly string[];
  /** Domain that the site's names are in. */
  readonly zone: string;
  /** How many of the site's hosts may have client presences elsewhere, in each other site. */
  readonly maxClients: number;
}

/** A named endpoint with what it offers, at home in one site. */
export interface Service {
  readonly name: string;
  readonly site: string;
  readonly address: string;
  /** `tcp/5672`, `udp/8000-8100` or `icmp` (echo). */
  readonly ports: readonly string[];
}

/** The permission that a service be visible in another site. */
export interface Exposure {
  readonly service: string;
  /** The clients' site. */
  readonly site: string;
  /** DNS name within the site's zone; the service's name if absent. */
  readonly dnsName?: string | undefined;
  /** Prefixes of the clients' real addresses; every source of the site if absent. */
  readonly clients?: readonly string[] | undefined;
}

/** All of it, as a configuration file has it. */
export interface DesiredState {
  readonly sites: readonly Site[];
  readonly services: readonly Service[];
  readonly exposures: readonly Exposure[];
}

export const SiteSchema: Schema<Site> = /* @__PURE__ */ v.strictObject({
  name: NameText,
  sources: v.array(PrefixText),
  pools: v.array(PrefixText),
  reserved: v.optional(v.array(PrefixText), []),
  zone: DomainText,
  maxClients: v.optional(wholeNumber(0, 1_000_000), 1024),
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

export const DesiredStateSchema: Schema<DesiredState> = /* @__PURE__ */ v.strictObject({
  sites: v.array(SiteSchema),
  services: v.optional(v.array(ServiceSchema), []),
  exposures: v.optional(v.array(ExposureSchema), []),
}) as Schema<DesiredState>;
