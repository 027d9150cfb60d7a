/**
 * A desired state in memory in place of a registry: what is looked up costs what it finds, and is counted.
 */
import { EventEmitter } from 'eventemitter3';
import {
  type DesiredSource,
  type Exposure,
  type ExposureId,
  exposureId,
  type Registry,
  type Service,
  type Site,
  type Touched,
} from '../../src/registry/index.ts';

export class SourceDouble extends EventEmitter<{ change: [Touched] }> implements DesiredSource {
  /** How many records were returned. */
  reads = 0;
  readonly #sites = new Map<string, Site>();
  readonly #services = new Map<string, Service>();
  /** Keyed by site and service. */
  readonly #at = new Map<string, Map<string, Service>>();
  /** Keyed by site and service. */
  readonly #to = new Map<string, Map<string, Exposure>>();
  /** Keyed by service and site. */
  readonly #of = new Map<string, Map<string, Exposure>>();

  /** The same for the option of a controller. */
  get registry(): Registry {
    return this as unknown as Registry;
  }

  put(sites: readonly Site[], services: readonly Service[], exposures: readonly Exposure[]): void {
    for (const each of sites) this.#sites.set(each.name, each);
    for (const each of services) {
      const before = this.#services.get(each.name);
      if (before !== undefined) this.#at.get(before.site)!.delete(each.name);
      this.#services.set(each.name, each);
      inner(this.#at, each.site).set(each.name, each);
    }
    for (const each of exposures) {
      inner(this.#to, each.site).set(each.service, each);
      inner(this.#of, each.service).set(each.site, each);
    }
    this.emit('change', {
      sites: new Set(sites.map(({ name }) => name)),
      services: new Set(services.map(({ name }) => name)),
      exposures: new Map(exposures.map((each) => [exposureId(each), each])),
    });
  }

  unexpose(id: ExposureId): void {
    this.#to.get(id.site)?.delete(id.service);
    this.#of.get(id.service)?.delete(id.site);
    const exposures = new Map([[exposureId(id), id]]);
    this.emit('change', { sites: new Set<string>(), services: new Set<string>(), exposures });
  }

  site(name: string): Site | undefined {
    this.reads++;
    return this.#sites.get(name);
  }

  service(name: string): Service | undefined {
    this.reads++;
    return this.#services.get(name);
  }

  exposure({ service, site }: ExposureId): Exposure | undefined {
    this.reads++;
    return this.#to.get(site)?.get(service);
  }

  sites(): Iterable<Site> {
    return this.#counted(this.#sites.values());
  }

  services(): Iterable<Service> {
    return this.#counted(this.#services.values());
  }

  *exposures(): Iterable<Exposure> {
    for (const all of this.#to.values()) yield* this.#counted(all.values());
  }

  servicesOf(site: string): Iterable<Service> {
    return this.#counted(this.#at.get(site)?.values() ?? []);
  }

  exposuresTo(site: string): Iterable<Exposure> {
    return this.#counted(this.#to.get(site)?.values() ?? []);
  }

  exposuresOf(service: string): Iterable<Exposure> {
    return this.#counted(this.#of.get(service)?.values() ?? []);
  }

  sitesOf(service: string): Iterable<string> {
    return this.#counted(this.#of.get(service)?.keys() ?? []);
  }

  *#counted<T>(items: Iterable<T>): Iterable<T> {
    for (const item of items) {
      this.reads++;
      yield item;
    }
  }
}

function inner<T>(map: Map<string, Map<string, T>>, key: string): Map<string, T> {
  let found = map.get(key);
  if (found === undefined) {
    found = new Map();
    map.set(key, found);
  }
  return found;
}
