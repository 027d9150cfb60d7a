/**
 * Checks what a schema cannot check: that the records of a desired state fit together. It checks what a change touches
 * and what refers to that; the rest was checked when it was made.
 * @module
 */
import type { Family } from '../base/address.ts';
import type { IpPrefix } from '../base/prefix.ts';
import { ConfigError } from '../errors.ts';
import {
  exposureName,
  nameWithin,
  presenceFamily,
  type Service,
  type Site,
  type Spec,
} from './model.ts';
import { addressClaim, countNames, type NameUse, nameClaim, namesOf } from './names.ts';
import type { Proposal } from './proposal.ts';
import { describe, keyOf } from './records.ts';
import { type ExposureSource, isSelector } from './selector.ts';
import type { ShardedMap } from './sharded-map.ts';
import type { DesiredTables, RecordChange } from './tables.ts';

/** The place of a record that is asked for now. */
export interface Place {
  /** In what the caller gave; '' if that is the record. */
  readonly path: string;
  /** Later ones are at fault in a conflict. */
  readonly rank: number;
}

/** An exposure in one site, with what it refers to. */
interface Exposed {
  readonly source: ExposureSource;
  readonly site: Site;
  readonly service: Service;
  /** The IP version of its presence. */
  readonly family: Family;
}

/** Checks one change of the records in `tables`. */
export class FitCheck {
  readonly #tables: DesiredTables;
  readonly #proposal: Proposal;
  readonly #places: Pick<ShardedMap<Place>, 'get'>;

  /**
   * @param proposal the change; `run` prepares it
   * @param places keyed by the keys of the records that are asked for now: in a conflict these are at fault. If another
   *   record no longer fits, the message names its owner
   */
  constructor(tables: DesiredTables, proposal: Proposal, places: Pick<ShardedMap<Place>, 'get'>) {
    this.#tables = tables;
    this.#proposal = proposal;
    this.#places = places;
  }

  /**
   * Checks in steps.
   *
   * @throws {ConfigError} naming the first fault.
   */
  *run(changes: Iterable<RecordChange>): Generator<void> {
    const proposal = this.#proposal;
    yield* proposal.prepare(changes);
    for (const site of proposal.changedSites.values()) {
      if (site !== undefined) this.#checkSite(site);
      yield;
    }
    for (const name of proposal.changedSites.keys()) {
      for (const service of proposal.keptServicesOf(name)) {
        yield* this.#checkServiceAt(service);
      }
      yield;
    }
    for (const [name, service] of proposal.changedServices) {
      if (service !== undefined) this.#checkService(service);
      else this.#checkUnused(name);
      yield;
    }
    for (const selector of proposal.changedSelectors.values()) {
      if (selector !== undefined) this.#checkSelector(selector);
      yield;
    }
    for (const [site, sources] of proposal.touched()) {
      for (const source of sources.values()) {
        if (source !== undefined) this.#checkExposure(source, site);
        yield;
      }
    }
  }

  #checkSite(site: Site): void {
    const { pools } = site;
    for (const [i, pool] of pools.entries()) {
      const other = pools.slice(0, i).find((each) => each.overlaps(pool));
      if (other) this.#fail(site, `pools[${i}]`, `${pool} overlaps ${other}`);
    }
  }

  #checkService(service: Service): Site {
    const home = this.#siteOf(service, service.site);
    const { address } = service;
    if (!contains(home.sources, address)) {
      this.#fail(service, 'address', `${address} is not in the sources of "${home.name}"`);
    }
    if (contains(home.pools, address)) {
      this.#fail(service, 'address', `${address} is in a pool of "${home.name}"`);
    }
    return home;
  }

  /** Checks a service whose home changes, and that its clients can have presences there. */
  *#checkServiceAt(service: Service): Generator<void> {
    const home = this.#checkService(service);
    yield;
    if (hasPool(home, service.address.family)) return;
    for (const site of this.#proposal.sitesOf(service.name)) {
      const source = this.#proposal.source(service.name, site);
      if (source !== undefined) this.#checkExposure(source, site);
      yield;
    }
  }

  /** Checks that no selector has a service that goes. */
  #checkUnused(name: string): void {
    const [selector] = this.#proposal.selectorsOf(name);
    if (selector !== undefined) this.#checkSelector(selector);
  }

  #checkSelector(selector: ExposureSource): void {
    this.#serviceOf(selector);
    this.#checkBox(selector);
  }

  #checkBox(source: ExposureSource): void {
    const { notBefore, notAfter } = source;
    if (notBefore === undefined || notAfter === undefined || notBefore < notAfter) return;
    this.#fail(source, 'notAfter', `${notAfter} is not after notBefore, ${notBefore}`);
  }

  #checkExposure(source: ExposureSource, name: string): void {
    const site = this.#siteOf(source, name);
    const service = this.#serviceOf(source);
    if (service.site === name) {
      this.#fail(source, 'site', `"${service.name}" is at home in "${name}"`);
    }
    if (site.pools.length === 0) {
      const what = `no pool for a presence of "${service.name}"`;
      this.#fail(source, 'site', `"${name}" has ${what}`, name);
    }
    const { family } = service.address;
    const home = this.#siteOf(service, service.site);
    if (!hasPool(home, family)) {
      const what = `no IPv${family} pool for presences of its clients`;
      this.#fail(source, 'service', `"${home.name}", where it is at home, has ${what}`, name);
    }
    this.#checkBox(source);
    this.#checkCount(site);
    const exposed = { source, site, service, family: presenceFamily(family, site.pools) };
    this.#checkNames(exposed);
    this.#checkAddress(exposed);
  }

  #checkCount({ name, maxNames }: Site): void {
    const proposal = this.#proposal;
    if (proposal.namesTo(name) <= maxNames) return;
    const sources = proposal.servicesTo(name).map((service) => proposal.source(service, name)!);
    let names = 0;
    const last = sources
      .sort((a, b) => (this.#isAtFault(a, b) ? 1 : -1))
      .find((source) => {
        names += countNames(source);
        return names > maxNames;
      })!;
    const what = `all the names that its maxNames, ${maxNames}, allows`;
    this.#fail(last, 'site', `"${name}" has ${what}`, name);
  }

  /** Checks that a name leads to one host by each type of address record, and that an alias is nothing else. */
  #checkNames(exposed: Exposed): void {
    const { source, site } = exposed;
    const uses = namesOf(source, site);
    for (const use of uses) {
      this.#checkOwnName(exposed, use);
      const twin = uses.find((other) => other !== use && isClash(use, other));
      if (twin !== undefined) {
        const at = use.kind === 'alias' ? use : twin;
        this.#fail(source, at.field, `${use.name} is a name of the exposure already`, site.name);
      }
      for (const other of this.#proposal.claimantsOf(site.name, nameClaim(use.name, site))) {
        if (other !== source.service) this.#checkOtherName(exposed, use, other);
      }
    }
  }

  #checkOwnName({ source, site }: Exposed, { kind, name, field }: NameUse): void {
    const isWildcard = kind === 'name' && source.wildcard === true;
    const length = name.length + (isWildcard ? '*.'.length : 0);
    if (length > MAX_NAME_LENGTH) {
      const what = `it has ${length} characters within "${site.zone}", more than ${MAX_NAME_LENGTH}`;
      this.#fail(source, field, what, site.name);
    }
    if (name === nameWithin('ns', site)) {
      this.#fail(source, field, `${name} is the name of the site's own name server`, site.name);
    }
    if (kind === 'alias' && name === site.zone.toLowerCase()) {
      this.#fail(source, field, `${name} is the zone itself, which cannot be an alias`, site.name);
    }
  }

  /** Checks a name of an exposure against those of another service in the site. */
  #checkOtherName(exposed: Exposed, use: NameUse, service: string): void {
    const { source, site, family } = exposed;
    const other = this.#proposal.source(service, site.name)!;
    const same = namesOf(other, site).filter(({ name }) => name === use.name);
    for (const theirs of same) {
      if (use.kind === 'name' && theirs.kind === 'name') {
        const { address } = this.#serviceOf(other);
        if (presenceFamily(address.family, site.pools) !== family) continue;
      } else if (use.kind === 'alias' && theirs.kind === 'alias') {
        if (exposureName(source, site) === exposureName(other, site)) continue;
      } else if (!isClash(use, theirs)) {
        continue;
      }
      const [fault, kept] = this.#isAtFault(source, other)
        ? ([
            { source, use },
            { source: other, use: theirs },
          ] as const)
        : ([
            { source: other, use: theirs },
            { source, use },
          ] as const);
      const what = kept.use.kind === 'alias' ? 'an alias' : 'the name';
      const whose = `${what} of "${kept.source.service}" in "${site.name}" already`;
      this.#fail(fault.source, fault.use.field, `${use.name} is ${whose}`, site.name);
    }
  }

  /** Checks the address that an exposure asks for; services of one host share their presence. */
  #checkAddress({ source, site, service, family }: Exposed): void {
    const { address } = source;
    if (address === undefined) return;
    const fail = (message: string) => this.#fail(source, 'address', message, site.name);
    if (address.family !== family) {
      fail(`${address} is no IPv${family} address, as the presence in "${site.name}" is`);
    }
    if (!contains(site.pools, address)) fail(`${address} is not in the pools of "${site.name}"`);
    if (contains(site.reserved, address)) fail(`${address} is reserved in "${site.name}"`);
    const beside = this.#proposal.servicesBeside(service);
    for (const name of this.#proposal.claimantsOf(site.name, addressClaim(address))) {
      if (beside.includes(name)) continue;
      const other = this.#proposal.source(name, site.name)!;
      const [fault, kept] = this.#isAtFault(source, other) ? [source, other] : [other, source];
      const whose = `the address of "${kept.service}" in "${site.name}" already`;
      this.#fail(fault, 'address', `${address} is ${whose}`, site.name);
    }
    for (const name of beside) {
      const other = this.#proposal.source(name, site.name);
      if (other?.address === undefined || other.address.equals(address)) continue;
      const [fault, kept] = this.#isAtFault(source, other) ? [source, other] : [other, source];
      const whose = `"${kept.service}", a service of the same host, has ${kept.address}`;
      this.#fail(fault, 'address', `${whose} in "${site.name}"`, site.name);
    }
  }

  #siteOf(spec: Service | ExposureSource, name: string): Site {
    return this.#proposal.site(name) ?? this.#fail(spec, 'site', `"${name}" is not a site`);
  }

  #serviceOf(source: ExposureSource): Service {
    return (
      this.#proposal.service(source.service) ??
      this.#fail(source, 'service', `"${source.service}" is not a service`)
    );
  }

  /** Whether the first of two exposures that do not fit together is at fault, because it was asked for later. */
  #isAtFault(source: ExposureSource, other: ExposureSource): boolean {
    const [key, otherKey] = [keyOf(source), keyOf(other)];
    const rank = this.#places.get(key)?.rank ?? -1;
    const otherRank = this.#places.get(otherKey)?.rank ?? -1;
    if (rank !== otherRank) return rank > otherRank;
    if (isSelector(source) !== isSelector(other)) return isSelector(source);
    return key > otherKey;
  }

  /** @param site where an exposure does not fit, if that follows from its selector */
  #fail(spec: Spec, field: string, message: string, site?: string): never {
    const key = keyOf(spec);
    const place = this.#places.get(key);
    const where = 'siteSelector' in spec && site !== undefined ? site : undefined;
    if (place !== undefined) {
      const own = 'siteSelector' in spec && field === 'site' ? 'siteSelector' : field;
      const path = place.path === '' ? own : `${place.path}.${own}`;
      if (where === undefined) throw new ConfigError(path, message);
      const { name } = spec as { name: string };
      throw new ConfigError(
        path,
        `"${name}" takes the site "${where}", where it does not fit: ${message}`
      );
    }
    const owner = this.#tables.records.get(key)!.owner;
    const at = where === undefined ? '' : ` in the site "${where}"`;
    throw new ConfigError(
      '',
      `${describe(spec)}, kept by the ${owner}, would no longer fit${at}: ${message}`
    );
  }
}

/** Whether two names of different kinds cannot be one: an alias has no other records (RFC 1034 section 3.6.2). */
function isClash(a: NameUse, b: NameUse): boolean {
  return a.name === b.name && (a.kind === 'alias' || b.kind === 'alias');
}

function contains(prefixes: readonly IpPrefix[], address: Service['address']): boolean {
  return prefixes.some((prefix) => prefix.contains(address));
}

function hasPool({ pools }: Site, family: Family): boolean {
  return pools.some((pool) => pool.family === family);
}

/** Longest domain name, as text without the trailing dot (RFC 1035 section 2.3.4). */
const MAX_NAME_LENGTH = 253;
