/**
 * All records of a desired state with their indexes, and the exposures that follow from them.
 * @module
 */

import { SortedMap } from '../base/sorted-map.ts';
import type { DesiredRecord, Exposure, SelectorExposure, Service, Site } from './model.ts';
import { NameSets } from './name-sets.ts';
import { claimsOf, countNames } from './names.ts';
import { EXPOSURES, exposureKey, SELECTORS, SERVICES, SITES } from './records.ts';
import {
  type ExposureSource,
  expand,
  isSelector,
  LabelIndex,
  type SourceView,
  sourceOf,
} from './selector.ts';
import { ShardedMap } from './sharded-map.ts';
import { type DesiredSource, type ExposureId, exposureId } from './source.ts';
import { TimeBoxes } from './time-boxes.ts';
import type { TouchedKeys } from './touched-keys.ts';

/** A record that has come, or gone if it is `undefined`. */
export interface RecordChange {
  readonly key: string;
  readonly record: DesiredRecord | undefined;
}

/**
 * The tables. Each change costs what it touches. An exposure with a selector is expanded to the sites that it takes: an
 * expansion is made when the change comes that causes it, and never stored.
 */
export class DesiredTables implements SourceView, DesiredSource {
  readonly #nowMs: () => number;
  readonly #records = new ShardedMap<DesiredRecord>();
  readonly #sites = new SortedMap<Site>();
  readonly #services = new SortedMap<Service>();
  readonly #selectors = new SortedMap<SelectorExposure>();
  readonly #labels = new LabelIndex();
  readonly #servicesOf = new Map<string, SortedMap<Service>>();
  /** Services by their home, and there by their address. */
  readonly #servicesAt = new Map<string, NameSets>();
  /** In the order of their names. */
  readonly #selectorsOf = new Map<string, readonly SelectorExposure[]>();
  /** Exposures by site and service, and by service and site; those outside of their time boxes too. */
  readonly #to = new Map<string, SortedMap<Exposure>>();
  /** Keyed by site: how many names its exposures have besides the first one of each. A site without any is absent. */
  readonly #moreNames = new Map<string, number>();
  readonly #of = new Map<string, SortedMap<Exposure>>();
  /** The selector that an exposure was expanded from. */
  readonly #expandedFrom = new WeakMap<Exposure, SelectorExposure>();
  /** Services by site and by what their exposures take there, of the sites where somebody has asked for it. */
  readonly #claims = new Map<string, NameSets>();
  readonly #boxes = new TimeBoxes();
  #revision = 0;

  /** @param nowMs returns the time of day, in ms since 1970 */
  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /** Grows with each change. */
  get revision(): number {
    return this.#revision;
  }

  get records(): Pick<ShardedMap<DesiredRecord>, 'get' | 'has' | 'keys' | 'entries'> {
    return this.#records;
  }

  get boxes(): Pick<TimeBoxes, 'size' | 'nextMs'> {
    return this.#boxes;
  }

  site(name: string): Site | undefined {
    return this.#sites.get(name);
  }

  service(name: string): Service | undefined {
    return this.#services.get(name);
  }

  /** Returns the names of records behind `name`, in their order. */
  namesAfter(kind: 'site' | 'service' | 'selector', name: string): Iterable<string> {
    const maps = { site: this.#sites, service: this.#services, selector: this.#selectors };
    return maps[kind].keysAfter(name);
  }

  /** Returns the services behind `service` that are exposed to a site, also outside their time boxes, in their order. */
  servicesAfter(site: string, service: string): Iterable<string> {
    return this.#to.get(site)?.keysAfter(service) ?? [];
  }

  /** Returns the sites behind `site` to which a service is exposed, as `servicesAfter` does. */
  sitesAfter(service: string, site: string): Iterable<string> {
    return this.#of.get(service)?.keysAfter(site) ?? [];
  }

  /** Returns the services behind `service` that are at home in a site, in the order of their names. */
  homeServicesAfter(site: string, service: string): Iterable<string> {
    return this.#servicesOf.get(site)?.keysAfter(service) ?? [];
  }

  selector(name: string): SelectorExposure | undefined {
    return this.#selectors.get(name);
  }

  explicit(service: string, site: string): Exposure | undefined {
    return this.#records.get(exposureKey({ service, site }))?.spec as Exposure | undefined;
  }

  selectorsOf(service: string): readonly SelectorExposure[] {
    return this.#selectorsOf.get(service) ?? [];
  }

  exposure({ service, site }: ExposureId): Exposure | undefined {
    const exposure = this.#to.get(site)?.get(service);
    return exposure !== undefined && this.#isInForce(exposure) ? exposure : undefined;
  }

  sites(): Iterable<Site> {
    return this.#sites.values();
  }

  services(): Iterable<Service> {
    return this.#services.values();
  }

  *exposures(): Generator<Exposure> {
    const sites = [...this.#to.keys()].sort((a, b) => (`${a}/` < `${b}/` ? -1 : 1));
    for (const site of sites) yield* this.exposuresTo(site);
  }

  servicesOf(site: string): Iterable<Service> {
    return this.#servicesOf.get(site)?.values() ?? [];
  }

  /** Returns the services at home in a site, in the order in which they came. */
  *servicesHomeIn(site: string): Generator<Service> {
    for (const [, service] of this.#servicesOf.get(site)?.entries() ?? []) yield service;
  }

  exposuresTo(site: string): Iterable<Exposure> {
    return this.#inForce(this.#to.get(site));
  }

  exposuresOf(service: string): Iterable<Exposure> {
    return this.#inForce(this.#of.get(service));
  }

  /** Returns the names of services at home in `site` with an address, which is canonical. */
  servicesAt(site: string, address: string): readonly string[] {
    return this.#servicesAt.get(site)?.get(address) ?? [];
  }

  /** Returns the record that gives a service its exposure in a site, also outside of its time box. */
  source(service: string, site: string): ExposureSource | undefined {
    const exposure = this.#to.get(site)?.get(service);
    return exposure && (this.#expandedFrom.get(exposure) ?? exposure);
  }

  /** Returns the services with an exposure in a site, as `source` has it, in no particular order. */
  *servicesTo(site: string): Generator<string> {
    for (const [service] of this.#to.get(site)?.entries() ?? []) yield service;
  }

  /** Returns the sites with an exposure of a service, as `source` has it, in no particular order. */
  *sitesOf(service: string): Generator<string> {
    for (const [site] of this.#of.get(service)?.entries() ?? []) yield site;
  }

  /** Returns how many names the exposures to a site have; see `countNames`. */
  namesTo(site: string): number {
    return (this.#to.get(site)?.size ?? 0) + (this.#moreNames.get(site) ?? 0);
  }

  /** Returns the services whose exposures take a name or an address of a site; see `claimsOf`. */
  claimantsOf(site: string, claim: string): readonly string[] {
    return this.#claimsIn(site).get(claim);
  }

  /** Returns the names of all sites that a selector takes, and perhaps of others. */
  sitesLike({ siteSelector }: SelectorExposure): Iterable<string> {
    const isOpen = Object.keys(siteSelector).length === 0;
    return isOpen ? this.#sites.keys() : this.#labels.sitesWith(siteSelector);
  }

  /** Returns all selectors that take a site with these labels, and perhaps others. */
  selectorsLike(site: Pick<Site, 'labels'>): Iterable<SelectorExposure> {
    return this.#labels.selectorsFor(site.labels);
  }

  /**
   * Takes changes, in steps between which the tables are consistent. Up to 256 exposures to one site change in one step.
   * What comes is taken before what goes, so that an exposure that passes from one record to another never ends.
   *
   * @param touched gets what the changes have touched; undefined if nobody needs to know
   */
  *take(changes: Iterable<RecordChange>, touched: TouchedKeys | undefined): Generator<void> {
    const come: RecordChange[][] = [[], [], []];
    const gone: RecordChange[][] = [[], [], []];
    const exposures = new Map<string, RecordChange[]>();
    for (const change of changes) {
      const { key, record } = change;
      const rank = [SITES, SERVICES, SELECTORS].findIndex((prefix) => key.startsWith(prefix));
      if (rank >= 0) {
        (record === undefined ? gone : come)[rank]!.push(change);
      } else if (key.startsWith(EXPOSURES)) {
        const site = key.slice(EXPOSURES.length, key.indexOf('/', EXPOSURES.length));
        const group = exposures.get(site);
        if (group === undefined) exposures.set(site, [change]);
        else group.push(change);
      }
      yield;
    }
    for (const group of come) for (const change of group) yield* this.#set(change, touched);
    for (const [site, group] of exposures) {
      for (const [i, change] of group.entries()) {
        this.#setExposure(site, change, touched);
        if ((i + 1) % MAX_TOGETHER === 0) yield;
      }
      yield;
    }
    for (const group of gone.reverse()) {
      for (const change of group) yield* this.#set(change, touched);
    }
  }

  /** Opens and closes time boxes as it is right now, in steps. */
  *turnBoxes(touched: TouchedKeys): Generator<void> {
    for (const source of this.#boxes.turn(this.#nowMs())) {
      if (isSelector(source)) {
        for (const [site, exposure] of this.#of.get(source.service)?.entries() ?? []) {
          if (this.#expandedFrom.get(exposure) === source) {
            this.#touch(touched, source.service, site);
          }
          yield;
        }
      } else {
        this.#touch(touched, source.service, source.site);
      }
      yield;
    }
  }

  #set(change: RecordChange, touched: TouchedKeys | undefined): Generator<void> {
    if (change.key.startsWith(SITES)) return this.#setSite(change, touched);
    if (change.key.startsWith(SERVICES)) return this.#setService(change, touched);
    return this.#setSelector(change, touched);
  }

  *#setSite({ key, record }: RecordChange, touched: TouchedKeys | undefined): Generator<void> {
    const name = key.slice(SITES.length);
    const before = this.#sites.get(name);
    const site = record?.spec as Site | undefined;
    this.#setRecord({ key, record });
    touched?.sites.add(name);
    const selectors = new Set<SelectorExposure>();
    if (before !== undefined) {
      this.#labels.deleteSite(before);
      for (const selector of this.selectorsLike(before)) selectors.add(selector);
    }
    if (site === undefined) {
      this.#sites.delete(name);
    } else {
      this.#sites.set(name, site);
      this.#labels.addSite(site);
      for (const selector of this.selectorsLike(site)) selectors.add(selector);
    }
    if (before?.zone !== site?.zone) this.#claims.delete(name);
    for (const { service } of selectors) this.#settle(service, name, touched);
    yield;
  }

  *#setService({ key, record }: RecordChange, touched: TouchedKeys | undefined): Generator<void> {
    const name = key.slice(SERVICES.length);
    const before = this.#services.get(name);
    const service = record?.spec as Service | undefined;
    this.#setRecord({ key, record });
    touched?.services.add(name);
    if (before !== undefined) {
      deleteFrom(this.#servicesOf, before.site, name);
      deleteFrom(this.#servicesAt, before.site, hostOf(before), name);
      this.#services.delete(name);
    }
    if (service !== undefined) {
      setOf(this.#servicesOf, service.site, () => new SortedMap<Service>()).set(name, service);
      setOf(this.#servicesAt, service.site, () => new NameSets()).add(hostOf(service), name);
      this.#services.set(name, service);
    }
    yield;
    if (before?.site === service?.site) return;
    for (const selector of this.selectorsOf(name)) yield* this.#settleAll(selector, touched);
  }

  *#setSelector({ key, record }: RecordChange, touched: TouchedKeys | undefined): Generator<void> {
    const name = key.slice(SELECTORS.length);
    const before = this.#selectors.get(name);
    const selector = record?.spec as SelectorExposure | undefined;
    this.#setRecord({ key, record });
    if (before !== undefined) {
      this.#selectors.delete(name);
      this.#labels.deleteSelector(before);
      const rest = this.selectorsOf(before.service).filter((each) => each !== before);
      if (rest.length === 0) this.#selectorsOf.delete(before.service);
      else this.#selectorsOf.set(before.service, rest);
    }
    if (selector !== undefined) {
      this.#selectors.set(name, selector);
      this.#labels.addSelector(selector);
      const all = [...this.selectorsOf(selector.service), selector].sort(byName);
      this.#selectorsOf.set(selector.service, all);
      yield* this.#settleAll(selector, touched);
    }
    if (before !== undefined) yield* this.#settleAll(before, touched);
    yield;
  }

  #setExposure(
    site: string,
    { key, record }: RecordChange,
    touched: TouchedKeys | undefined
  ): void {
    this.#setRecord({ key, record });
    // The text of the record is shared, and not kept twice.
    const exposure = record?.spec as Exposure | undefined;
    const service = exposure?.service ?? key.slice(EXPOSURES.length + site.length + 1);
    this.#settle(service, site, touched);
  }

  #setRecord({ key, record }: RecordChange): void {
    this.#revision++;
    const before = this.#records.get(key);
    if (before !== undefined && isSource(before.spec)) this.#boxes.delete(before.spec);
    if (record === undefined) {
      this.#records.delete(key);
      return;
    }
    this.#records.set(key, record);
    if (isSource(record.spec)) this.#boxes.add(record.spec, this.#nowMs());
  }

  *#settleAll(selector: SelectorExposure, touched: TouchedKeys | undefined): Generator<void> {
    for (const site of this.sitesLike(selector)) {
      this.#settle(selector.service, site, touched);
      yield;
    }
  }

  /** Brings the exposure of a service in a site to what the records say. */
  #settle(service: string, site: string, touched: TouchedKeys | undefined): void {
    const source = sourceOf(this, service, site);
    if (source === this.source(service, site)) return;
    this.#touch(touched, service, site);
    const before = this.#to.get(site)?.get(service);
    if (before !== undefined) this.#unclaim(site, before);
    this.#countMore(site, moreNamesOf(source) - moreNamesOf(before));
    if (source === undefined) {
      deleteFrom(this.#to, site, service);
      deleteFrom(this.#of, service, site);
      return;
    }
    const exposure = isSelector(source) ? expand(source, site) : source;
    if (isSelector(source)) this.#expandedFrom.set(exposure, source);
    setOf(this.#to, site, () => new SortedMap<Exposure>()).set(service, exposure);
    setOf(this.#of, service, () => new SortedMap<Exposure>('/', OF_PARTS)).set(site, exposure);
    this.#claim(site, exposure);
  }

  #touch(touched: TouchedKeys | undefined, service: string, site: string): void {
    this.#revision++;
    if (touched === undefined) return;
    const id = { service, site };
    touched.exposures.set(exposureId(id), id);
  }

  #countMore(site: string, gain: number): void {
    if (gain === 0) return;
    const count = (this.#moreNames.get(site) ?? 0) + gain;
    if (count === 0) this.#moreNames.delete(site);
    else this.#moreNames.set(site, count);
  }

  /** Returns the claims in a site, which are made when somebody first asks for them. */
  #claimsIn(name: string): NameSets {
    let claims = this.#claims.get(name);
    if (claims === undefined) {
      claims = new NameSets();
      if (this.#sites.get(name) === undefined) return claims;
      this.#claims.set(name, claims);
      for (const [, exposure] of this.#to.get(name)?.entries() ?? []) this.#claim(name, exposure);
    }
    return claims;
  }

  #claim(name: string, exposure: Exposure): void {
    const claims = this.#claims.get(name);
    const site = this.#sites.get(name);
    if (claims === undefined || site === undefined) return;
    for (const claim of claimsOf(exposure, site)) claims.add(claim, exposure.service);
  }

  #unclaim(name: string, exposure: Exposure): void {
    const site = this.#sites.get(name);
    if (site === undefined) return;
    for (const claim of claimsOf(exposure, site)) {
      deleteFrom(this.#claims, name, claim, exposure.service);
    }
  }

  #inForce(exposures: SortedMap<Exposure> | undefined): Iterable<Exposure> {
    return exposures === undefined ? [] : this.#filterInForce(exposures);
  }

  *#filterInForce(exposures: SortedMap<Exposure>): Generator<Exposure> {
    for (const exposure of exposures.values()) if (this.#isInForce(exposure)) yield exposure;
  }

  #isInForce(exposure: Exposure): boolean {
    if (exposure.notBefore === undefined && exposure.notAfter === undefined) return true;
    return this.#boxes.isOpen(this.#expandedFrom.get(exposure) ?? exposure);
  }
}

/** Each site gets all services that are exposed everywhere, so their maps grow together. */
const OF_PARTS = 16;
/** How many exposures to one site change together. */
const MAX_TOGETHER = 256;

/** Returns the canonical address of a service, by which services of one host are found. */
export function hostOf({ address }: Service): string {
  return address.canonical().toString();
}

export function byName(a: SelectorExposure, b: SelectorExposure): number {
  return a.name < b.name ? -1 : 1;
}

function isSource(spec: DesiredRecord['spec']): spec is ExposureSource {
  return 'service' in spec;
}

function setOf<T>(sets: Map<string, T>, key: string, make: () => T): T {
  let set = sets.get(key);
  if (set === undefined) {
    set = make();
    sets.set(key, set);
  }
  return set;
}

interface Emptied<K extends readonly string[]> {
  readonly size: number;
  delete(...key: K): void;
}

/** Deletes from a set, and the set when it is empty. */
function deleteFrom<K extends readonly string[]>(
  sets: Map<string, Emptied<K>>,
  name: string,
  ...key: K
): void {
  const set = sets.get(name);
  set?.delete(...key);
  if (set?.size === 0) sets.delete(name);
}

/** Returns how many names an exposure has besides its own. */
function moreNamesOf(exposure: ExposureSource | undefined): number {
  return exposure === undefined ? 0 : countNames(exposure) - 1;
}
