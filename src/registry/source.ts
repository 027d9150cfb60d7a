/**
 * What derives presences reads from the desired state: keyed lookups, and which keys a change has touched.
 *
 * An exposure here is one that is in force: a selector of labels is expanded to the sites that it takes, and an exposure
 * outside its time box is absent.
 * @module
 */
import type { Exposure, Service, Site } from './model.ts';

/**
 * The keys of what a change has added, replaced or removed. A key may be touched without a difference: who derives from
 * it recomputes it from the present state, and doing so twice is harmless.
 */
export interface Touched {
  /** Names of sites. */
  readonly sites: ReadonlySet<string>;
  /** Names of services. */
  readonly services: ReadonlySet<string>;
  /** Exposures in force, keyed by `exposureId`. */
  readonly exposures: ReadonlyMap<string, ExposureId>;
}

/** Names an exposure of a service in one site. */
export interface ExposureId {
  readonly service: string;
  readonly site: string;
}

/** Returns the key of an exposure in force. */
export function exposureId({ service, site }: ExposureId): string {
  return `${site}/${service}`;
}

/** The desired state by keys. All lists are in the order of their keys, so that the same state derives the same. */
export interface DesiredSource {
  site(name: string): Site | undefined;
  service(name: string): Service | undefined;
  /** Returns the exposure in force of a service in a site. */
  exposure(id: ExposureId): Exposure | undefined;
  sites(): Iterable<Site>;
  services(): Iterable<Service>;
  exposures(): Iterable<Exposure>;
  /** Returns the services at home in a site. */
  servicesOf(site: string): Iterable<Service>;
  /** Returns the exposures in force in a site. */
  exposuresTo(site: string): Iterable<Exposure>;
  /** Returns the exposures in force of a service. */
  exposuresOf(service: string): Iterable<Exposure>;
  /** Returns the sites with an exposure of a service, in force or not, in no particular order. */
  sitesOf(service: string): Iterable<string>;
}
