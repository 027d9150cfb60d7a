/**
 * A desired state as it would be after a change, seen over the present one.
 * @module
 */
import type { Exposure, SelectorExposure, Service, Site, Spec } from './model.ts';
import { NameSets } from './name-sets.ts';
import { claimsOf, countNames } from './names.ts';
import { EXPOSURES, SELECTORS, SERVICES, SITES } from './records.ts';
import { type ExposureSource, type SourceView, sourceOf, takes } from './selector.ts';
import { ShardedMap } from './sharded-map.ts';
import { exposureId } from './source.ts';
import { byName, type DesiredTables, hostOf, type RecordChange } from './tables.ts';

/** What a change touches in one site. */
interface SiteChange {
  /** The touched services, with what gives each its exposure in the site then. */
  readonly sources: Map<string, ExposureSource | undefined>;
  /** The services by what their new exposures take. */
  readonly claims: NameSets;
  /** How many names the site gains, or loses if it is negative. */
  gain: number;
}

/** Call `prepare` before any other method. What the change does not touch is looked up in the tables. */
export class Proposal implements SourceView {
  readonly #tables: DesiredTables;
  readonly #sites = new Map<string, Site | undefined>();
  readonly #services = new Map<string, Service | undefined>();
  /** The new services by their hosts. */
  readonly #hosts = new NameSets();
  readonly #selectors = new Map<string, SelectorExposure | undefined>();
  /** The new selectors by their services. */
  readonly #selectorsOf = new Map<string, SelectorExposure[]>();
  readonly #exposures = new ShardedMap<Exposure | undefined>();
  readonly #touched = new Map<string, SiteChange>();

  constructor(tables: DesiredTables) {
    this.#tables = tables;
  }

  /** Takes the changes, in steps, and finds what they touch. */
  *prepare(changes: Iterable<RecordChange>): Generator<void> {
    for (const change of changes) {
      this.#take(change);
      yield;
    }
    for (const name of this.#sites.keys()) yield* this.#touchSite(name);
    for (const name of this.#services.keys()) {
      for (const site of this.#tables.sitesOf(name)) {
        this.#touch(name, site);
        yield;
      }
      for (const selector of this.selectorsOf(name)) yield* this.#touchLike(selector);
      yield;
    }
    for (const [name, selector] of this.#selectors) {
      const before = this.#tables.selector(name);
      if (before !== undefined) yield* this.#touchLike(before);
      if (selector !== undefined) yield* this.#touchLike(selector);
    }
    for (const id of this.#exposures.keys()) {
      const at = id.indexOf('/');
      this.#touch(id.slice(at + 1), id.slice(0, at));
      yield;
    }
  }

  /** The sites that change, with what they are then. */
  get changedSites(): ReadonlyMap<string, Site | undefined> {
    return this.#sites;
  }

  get changedServices(): ReadonlyMap<string, Service | undefined> {
    return this.#services;
  }

  get changedSelectors(): ReadonlyMap<string, SelectorExposure | undefined> {
    return this.#selectors;
  }

  /** Returns the sites with touched exposures, and the touched services of each, with what exposes them then. */
  *touched(): Generator<readonly [site: string, ReadonlyMap<string, ExposureSource | undefined>]> {
    for (const [site, { sources }] of this.#touched) yield [site, sources];
  }

  site(name: string): Site | undefined {
    return this.#sites.has(name) ? this.#sites.get(name) : this.#tables.site(name);
  }

  service(name: string): Service | undefined {
    return this.#services.has(name) ? this.#services.get(name) : this.#tables.service(name);
  }

  explicit(service: string, site: string): Exposure | undefined {
    const id = exposureId({ service, site });
    return this.#exposures.has(id) ? this.#exposures.get(id) : this.#tables.explicit(service, site);
  }

  selectorsOf(service: string): readonly SelectorExposure[] {
    const before = this.#tables.selectorsOf(service);
    if (this.#selectors.size === 0) return before;
    const kept = before.filter(({ name }) => !this.#selectors.has(name));
    return [...kept, ...(this.#selectorsOf.get(service) ?? [])].sort(byName);
  }

  /** Returns what gives a service its exposure in a site. */
  source(service: string, site: string): ExposureSource | undefined {
    const touched = this.#touched.get(site)?.sources;
    return touched?.has(service) ? touched.get(service) : this.#tables.source(service, site);
  }

  /** Returns how many names the exposures to a site have; see `countNames`. */
  namesTo(site: string): number {
    return this.#tables.namesTo(site) + (this.#touched.get(site)?.gain ?? 0);
  }

  /** Returns all services that are exposed to a site. */
  servicesTo(site: string): string[] {
    const services = new Set([
      ...this.#tables.servicesTo(site),
      ...(this.#touched.get(site)?.sources.keys() ?? []),
    ]);
    return [...services].filter((service) => this.source(service, site) !== undefined);
  }

  /** Returns the sites that a service is exposed to, apart from those where that changes. */
  sitesOf(service: string): Iterable<string> {
    return this.#tables.sitesOf(service);
  }

  /** Returns the services at home in a site, apart from those that change. */
  *keptServicesOf(site: string): Generator<Service> {
    for (const service of this.#tables.servicesHomeIn(site)) {
      if (!this.#services.has(service.name)) yield service;
    }
  }

  /** Returns the services of the host of a service. */
  servicesBeside(service: Service): string[] {
    const host = hostOf(service);
    const kept = this.#tables.servicesAt(service.site, host);
    const changed = this.#hosts.get(`${service.site}/${host}`);
    return [...kept.filter((name) => !this.#services.has(name)), ...changed];
  }

  /** Returns the services whose exposures take a name or an address of a site. */
  claimantsOf(site: string, claim: string): string[] {
    const touched = this.#touched.get(site);
    const kept = this.#tables.claimantsOf(site, claim);
    if (touched === undefined) return [...kept];
    return [
      ...kept.filter((service) => !touched.sources.has(service)),
      ...touched.claims.get(claim),
    ];
  }

  #take({ key, record }: RecordChange): void {
    const spec: Spec | undefined = record?.spec;
    if (key.startsWith(SITES)) {
      this.#sites.set(key.slice(SITES.length), spec as Site | undefined);
    } else if (key.startsWith(SERVICES)) {
      const name = key.slice(SERVICES.length);
      const service = spec as Service | undefined;
      this.#services.set(name, service);
      if (service) this.#hosts.add(`${service.site}/${hostOf(service)}`, name);
    } else if (key.startsWith(SELECTORS)) {
      const selector = spec as SelectorExposure | undefined;
      this.#selectors.set(key.slice(SELECTORS.length), selector);
      if (selector === undefined) return;
      const others = this.#selectorsOf.get(selector.service);
      if (others === undefined) this.#selectorsOf.set(selector.service, [selector]);
      else others.push(selector);
    } else {
      this.#exposures.set(key.slice(EXPOSURES.length), spec as Exposure | undefined);
    }
  }

  *#touchSite(name: string): Generator<void> {
    for (const service of this.#tables.servicesTo(name)) {
      this.#touch(service, name);
      yield;
    }
    const site = this.#sites.get(name);
    if (site === undefined) return;
    for (const { service } of this.#tables.selectorsLike(site)) this.#touch(service, name);
    yield;
  }

  *#touchLike(selector: SelectorExposure): Generator<void> {
    for (const site of this.#tables.sitesLike(selector)) {
      this.#touch(selector.service, site);
      yield;
    }
    for (const [name, site] of this.#sites) {
      if (site !== undefined && takes(selector.siteSelector, site)) {
        this.#touch(selector.service, name);
      }
      yield;
    }
  }

  #touch(service: string, site: string): void {
    let change = this.#touched.get(site);
    if (change === undefined) {
      change = { sources: new Map(), claims: new NameSets(), gain: 0 };
      this.#touched.set(site, change);
    }
    if (change.sources.has(service)) return;
    const source = sourceOf(this, service, site);
    const before = this.#tables.source(service, site);
    if (source === undefined && before === undefined) return;
    change.sources.set(service, source);
    change.gain += (source ? countNames(source) : 0) - (before ? countNames(before) : 0);
    const spec = this.site(site);
    if (source === undefined || spec === undefined) return;
    for (const claim of claimsOf(source, spec)) change.claims.add(claim, service);
  }
}
