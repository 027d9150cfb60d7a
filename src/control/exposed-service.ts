/**
 * A service as it is exposed in one site.
 * @module
 */
import type { Family } from '../base/address.ts';
import type { Endpoint } from '../base/endpoint.ts';
import type { Exposure, Service } from '../registry/index.ts';

/** A service as it is exposed in one site. */
export interface ExposedService {
  readonly service: Service;
  /** The real host that offers it. */
  readonly home: Endpoint;
  /** The IP version and the key of its presence there. */
  readonly presenceFamily: Family;
  readonly presenceKey: string;
  readonly exposure: Exposure;
  /** The IP version of its presence in the transit realm; undefined if it needs none. */
  readonly transit: Family | undefined;
}

/** Compares two services by their names. */
export function byService({ service: a }: ExposedService, { service: b }: ExposedService): number {
  return a.name < b.name ? -1 : 1;
}
