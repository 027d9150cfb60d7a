/**
 * Which sites a selector takes, and which record gives a service its exposure in a site.
 * @module
 */
import {
  CLOUD,
  type Exposure,
  type Labels,
  type SelectorExposure,
  type Service,
  type Site,
} from './model.ts';

/** The record that an exposure in a site comes from. */
export type ExposureSource = Exposure | SelectorExposure;

/** The lookups by which it is decided what holds in a site. */
export interface SourceView {
  site(name: string): Site | undefined;
  service(name: string): Service | undefined;
  /** Returns the record that exposes a service to this very site. */
  explicit(service: string, site: string): Exposure | undefined;
  /** Returns the exposures of a service that have a selector, in the order of their names. */
  selectorsOf(service: string): readonly SelectorExposure[];
}

export function isSelector(source: ExposureSource): source is SelectorExposure {
  return 'siteSelector' in source;
}

/** Returns the record that gives a service its exposure in a site, whether it is in force now or not. */
export function sourceOf(
  view: SourceView,
  service: string,
  site: string
): ExposureSource | undefined {
  const explicit = view.explicit(service, site);
  if (explicit !== undefined) return explicit;
  const selectors = view.selectorsOf(service);
  if (selectors.length === 0) return undefined;
  const home = view.service(service)?.site;
  const spec = view.site(site);
  if (home === undefined || spec === undefined || home === site) return undefined;
  return selectors.find(({ siteSelector }) => takes(siteSelector, spec));
}

/** Returns whether a selector takes a site that is not the service's home. */
export function takes(selector: Labels, { name, labels }: Pick<Site, 'name' | 'labels'>): boolean {
  const wanted = Object.keys(selector);
  if (wanted.length === 0) return name !== CLOUD;
  return labels !== undefined && wanted.every((key) => labelOf(labels, key) === selector[key]);
}

/** Returns the exposure that a selector makes in a site. */
export function expand(
  { name: _name, siteSelector: _selector, ...terms }: SelectorExposure,
  site: string
): Exposure {
  return { ...terms, site };
}

/** Finds the sites that have the labels of a selector, and the selectors that may take a site, by their labels. */
export class LabelIndex {
  /** Names of sites by `key=value`. */
  readonly #sites = new Map<string, Set<string>>();
  /** Selectors by the `key=value` of their first label, '' if they have none. */
  readonly #selectors = new Map<string, Set<SelectorExposure>>();

  addSite({ name, labels = {} }: Site): void {
    for (const label of textsOf(labels)) add(this.#sites, label, name);
  }

  deleteSite({ name, labels = {} }: Site): void {
    for (const label of textsOf(labels)) remove(this.#sites, label, name);
  }

  addSelector(selector: SelectorExposure): void {
    add(this.#selectors, textsOf(selector.siteSelector)[0] ?? '', selector);
  }

  deleteSelector(selector: SelectorExposure): void {
    remove(this.#selectors, textsOf(selector.siteSelector)[0] ?? '', selector);
  }

  /** Returns the smallest known set of names with all sites that have these labels, of which there is at least one. */
  sitesWith(labels: Labels): ReadonlySet<string> {
    const sets = textsOf(labels).map((label) => this.#sites.get(label) ?? NO_SITES);
    return sets.reduce((a, b) => (b.size < a.size ? b : a));
  }

  /** Returns all selectors that take a site with these labels, and perhaps others. */
  *selectorsFor(labels: Labels = {}): Generator<SelectorExposure> {
    yield* this.#selectors.get('') ?? [];
    for (const label of textsOf(labels)) yield* this.#selectors.get(label) ?? [];
  }
}

function textsOf(labels: Labels): string[] {
  return Object.entries(labels).map(([key, value]) => `${key}=${value}`);
}

function labelOf(labels: Labels, key: string): string | undefined {
  return Object.hasOwn(labels, key) ? labels[key] : undefined;
}

function add<T>(sets: Map<string, Set<T>>, key: string, value: T): void {
  const set = sets.get(key);
  if (set === undefined) sets.set(key, new Set([value]));
  else set.add(value);
}

function remove<T>(sets: Map<string, Set<T>>, key: string, value: T): void {
  const set = sets.get(key);
  set?.delete(value);
  if (set?.size === 0) sets.delete(key);
}

const NO_SITES: ReadonlySet<string> = new Set();
