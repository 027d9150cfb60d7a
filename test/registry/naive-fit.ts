/**
 * The rules of a desired state, written down once more as plainly as possible: everything is expanded and compared with
 * everything.
 * @module
 */
import {
  type DesiredState,
  type Exposure,
  type ExposureTerms,
  presenceFamily,
  type SelectorExposure,
  type Service,
  type Site,
} from '../../src/registry/index.ts';

/** Returns all exposures of a state, those outside of their time boxes too. */
export function expandAll({ sites, services, exposures, selectors }: DesiredState): Exposure[] {
  const all = [...exposures];
  for (const { name, siteSelector, ...terms } of [...selectors].sort(byName)) {
    const home = services.find((each) => each.name === terms.service)?.site;
    for (const site of sites) {
      if (home === undefined || home === site.name) continue;
      if (all.some((each) => each.site === site.name && each.service === terms.service)) continue;
      if (isTaken(siteSelector, site)) all.push({ ...terms, site: site.name });
    }
  }
  return all;
}

/** Returns a state's exposures in force, by site and service. */
export function inForce(state: DesiredState, nowMs: number): Map<string, Exposure> {
  const open = expandAll(state).filter(
    ({ notBefore, notAfter }) =>
      (notBefore === undefined || Date.parse(notBefore) <= nowMs) &&
      (notAfter === undefined || nowMs < Date.parse(notAfter))
  );
  return new Map(open.map((each) => [`${each.site}/${each.service}`, each]));
}

/** Returns whether the records fit together. */
export function fits(state: DesiredState): boolean {
  const sites = new Map(state.sites.map((each) => [each.name, each]));
  const services = new Map(state.services.map((each) => [each.name, each]));
  const all = expandAll(state);
  const isFitting = (each: Exposure): boolean => {
    const site = sites.get(each.site);
    const service = services.get(each.service);
    if (site === undefined || service === undefined || service.site === site.name) return false;
    if (!isExposable(each, site, service, sites.get(service.site)!)) return false;
    const others = all.filter((other) => other !== each && other.site === each.site);
    if (sum([each, ...others].map(countNames)) > site.maxNames) return false;
    return others.every((other) => {
      const theirs = services.get(other.service);
      return theirs !== undefined && areTogether([each, service], [other, theirs], site);
    });
  };
  return (
    state.services.every((service) => isAtHome(service, sites.get(service.site))) &&
    state.selectors.every(({ service }) => services.has(service)) &&
    [...state.exposures, ...state.selectors].every(
      ({ notBefore = '', notAfter = 'Z' }) => notBefore < notAfter
    ) &&
    all.every(isFitting)
  );
}

function countNames({ aliases = [], https = [], svcb = [] }: Exposure): number {
  return 1 + aliases.length + https.length + svcb.length;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, each) => total + each, 0);
}

function isAtHome({ address }: Service, home: Site | undefined): boolean {
  if (home === undefined || home.pools.some((pool) => pool.contains(address))) return false;
  return home.sources.some((prefix) => prefix.contains(address));
}

function isExposable(each: Exposure, site: Site, { address }: Service, home: Site): boolean {
  if (site.pools.length === 0) return false;
  if (!home.pools.some(({ family }) => family === address.family)) return false;
  const [name, ...others] = [...namesOf(each, site).address, ...namesOf(each, site).alias];
  const zone = site.zone.toLowerCase();
  if ([name, ...others].includes(`ns.${zone}`) || others.includes(zone)) return false;
  if (new Set([name, ...others]).size !== others.length + 1) return false;
  if (namesOf(each, site).alias.some((one) => namesOf(each, site).binding.includes(one))) {
    return false;
  }
  const asked = each.address;
  if (asked === undefined) return true;
  return (
    asked.family === presenceFamily(address.family, site.pools) &&
    site.pools.some((pool) => pool.contains(asked)) &&
    !site.reserved.some((prefix) => prefix.contains(asked))
  );
}

type Placed = readonly [Exposure, Service];

function areTogether([a, from]: Placed, [b, other]: Placed, site: Site): boolean {
  const names = namesOf(a, site);
  const theirs = namesOf(b, site);
  const isOneName = names.address[0] === theirs.address[0];
  const versions = [from, other].map((each) => presenceFamily(each.address.family, site.pools));
  if (isOneName && versions[0] === versions[1]) return false;
  for (const alias of names.alias) {
    if (theirs.address.includes(alias) || theirs.binding.includes(alias)) return false;
    if (theirs.alias.includes(alias) && !isOneName) return false;
  }
  if (a.address === undefined || b.address === undefined) return true;
  const isOneHost = from.site === other.site && from.address.equals(other.address);
  return isOneHost === a.address.equals(b.address);
}

function namesOf(each: ExposureTerms, { zone }: Site) {
  const full = (text: string): string => {
    const name = text.toLowerCase();
    const end = zone.toLowerCase();
    return name === end || name.endsWith(`.${end}`) ? name : `${name}.${end}`;
  };
  const name = full(each.dnsName ?? each.service);
  const bindings = [...(each.https ?? []), ...(each.svcb ?? [])];
  return {
    address: [name],
    alias: (each.aliases ?? []).map(full),
    binding: bindings.flatMap(({ prefix }) => (prefix === undefined ? [] : [`${prefix}.${name}`])),
  };
}

function isTaken(selector: SelectorExposure['siteSelector'], { name, labels = {} }: Site): boolean {
  const wanted = Object.entries(selector);
  if (wanted.length === 0) return name !== 'cloud';
  return wanted.every(([key, value]) => labels[key] === value);
}

function byName(a: SelectorExposure, b: SelectorExposure): number {
  return a.name < b.name ? -1 : 1;
}
