/**
 * Gathers what changes of the desired state touch, until it is derived.
 * @module
 */
import type { ExposureId, Touched } from '../registry/index.ts';

export class TouchedKeys implements Touched {
  readonly sites: Set<string> = new Set();
  readonly services: Set<string> = new Set();
  readonly exposures: Map<string, ExposureId> = new Map();

  add({ sites, services, exposures }: Touched): void {
    for (const name of sites) this.sites.add(name);
    for (const name of services) this.services.add(name);
    for (const [key, id] of exposures) this.exposures.set(key, id);
  }
}
