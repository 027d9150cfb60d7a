/**
 * Gathers what changes of the desired state touch, until it is derived.
 * @module
 */
import { type ExposureId, exposureId, type Touched } from '../registry/index.ts';

export class TouchedKeys implements Touched {
  readonly sites: Set<string> = new Set();
  readonly services: Set<string> = new Set();
  readonly exposures: Map<string, ExposureId> = new Map();
  /** More exposures, which may be many. */
  readonly #deferred: Iterator<ExposureId>[] = [];

  get isEmpty(): boolean {
    return this.keyCount === 0 && this.#deferred.length === 0;
  }

  /** How many keys there are, without those that are deferred. */
  get keyCount(): number {
    return this.sites.size + this.services.size + this.exposures.size;
  }

  add({ sites, services, exposures }: Touched): void {
    for (const name of sites) this.sites.add(name);
    for (const name of services) this.services.add(name);
    for (const [key, id] of exposures) this.exposures.set(key, id);
  }

  /** Adds exposures that are looked up only when it is their turn. What they come from may change meanwhile. */
  defer(exposures: Iterable<ExposureId>): void {
    this.#deferred.push(exposures[Symbol.iterator]());
  }

  /** Moves some deferred exposures to `exposures`. Returns false if there were none. */
  addDeferred(): boolean {
    for (let next = this.#deferred[0]; next !== undefined; next = this.#deferred[0]) {
      for (let count = 0; count < AT_ONCE; count++) {
        const { done, value } = next.next();
        if (done === true) {
          this.#deferred.shift();
          break;
        }
        this.exposures.set(exposureId(value), { service: value.service, site: value.site });
      }
      if (this.exposures.size > 0) return true;
    }
    return false;
  }
}

const AT_ONCE = 64;
