/**
 * Gathers what changes of the desired state touch, until it is derived, a part at a time.
 * @module
 */
import type { ExposureId, Touched } from '../registry/index.ts';

export class TouchedKeys implements Touched {
  readonly sites: Set<string> = new Set();
  readonly services: Set<string> = new Set();
  readonly exposures: Map<string, ExposureId> = new Map();

  get isEmpty(): boolean {
    return this.sites.size + this.services.size + this.exposures.size === 0;
  }

  add({ sites, services, exposures }: Touched): void {
    for (const name of sites) this.sites.add(name);
    for (const name of services) this.services.add(name);
    for (const [key, id] of exposures) this.exposures.set(key, id);
  }

  /** Removes and returns some sites and services, and what of a turn is left for exposures. */
  takeRecords(): Pick<Touched, 'sites' | 'services'> & { readonly left: number } {
    const sites = new Set<string>();
    const services = new Set<string>();
    let left = PER_TURN;
    for (const name of this.sites) {
      if (left <= 0) return { sites, services, left };
      left -= SITE_COST;
      sites.add(name);
      this.sites.delete(name);
    }
    for (const name of this.services) {
      if (left <= 0) return { sites, services, left };
      left--;
      services.add(name);
      this.services.delete(name);
    }
    return { sites, services, left };
  }

  /** Removes and returns some exposures. */
  takeExposures(count: number): ExposureId[] {
    const exposures: ExposureId[] = [];
    for (const [key, id] of this.exposures) {
      if (exposures.length >= count) break;
      exposures.push(id);
      this.exposures.delete(key);
    }
    return exposures;
  }
}

/** How many exposures are derived in one turn of the event loop, so that it takes a few ms. */
const PER_TURN = 128;
/** A site counts for so many, because what is exposed there is derived with it. */
const SITE_COST = 16;
