/**
 * Checks what a schema cannot check: that the records of a desired state fit together.
 * @module
 */
import type { Family } from '../base/address.ts';
import type { IpPrefix } from '../base/prefix.ts';
import { ConfigError } from '../errors.ts';
import {
  type DesiredRecord,
  type Exposure,
  exposureName,
  presenceFamily,
  type Service,
  type Site,
} from './model.ts';
import { describe, stateOf } from './records.ts';

/** Keyed by record: its place in what a caller asks for, '' if it is the whole. */
export type Paths = ReadonlyMap<Site | Service | Exposure, string>;

/**
 * Checks that records fit together.
 *
 * @param records the records that are asked for now come last, so that they are at fault in a conflict
 * @param paths the places of the records that are asked for now; if another record no longer fits, the message names
 *   its owner
 * @throws {ConfigError} naming the first fault.
 */
export function checkFit(records: ReadonlyMap<string, DesiredRecord>, paths: Paths): void {
  new FitCheck(records, paths).run();
}

class FitCheck {
  readonly #records: ReadonlyMap<string, DesiredRecord>;
  readonly #paths: Paths;
  readonly #sites = new Map<string, CheckedSite>();
  readonly #services = new Map<string, CheckedService>();

  constructor(records: ReadonlyMap<string, DesiredRecord>, paths: Paths) {
    this.#records = records;
    this.#paths = paths;
  }

  run(): void {
    const { sites, services, exposures } = stateOf(this.#records);
    for (const site of sites) this.#checkSite(site);
    for (const service of services) this.#checkService(service);
    const names = new Map<string, string>();
    for (const exposure of exposures) this.#checkExposure(exposure, names);
  }

  #checkSite(spec: Site): void {
    const { pools } = spec;
    for (const [i, pool] of pools.entries()) {
      const other = pools.slice(0, i).find((each) => each.overlaps(pool));
      if (other) this.#fail(spec, `pools[${i}]`, `${pool} overlaps ${other}`);
    }
    this.#sites.set(spec.name, { spec, names: 0 });
  }

  #checkService(spec: Service): void {
    const site =
      this.#sites.get(spec.site) ?? this.#fail(spec, 'site', `"${spec.site}" is not a site`);
    const { address } = spec;
    const isWithin = (prefixes: readonly IpPrefix[]) =>
      prefixes.some((prefix) => prefix.contains(address));
    if (!isWithin(site.spec.sources)) {
      this.#fail(spec, 'address', `${address} is not in the sources of "${spec.site}"`);
    }
    if (isWithin(site.spec.pools)) {
      this.#fail(spec, 'address', `${address} is in a pool of "${spec.site}"`);
    }
    this.#services.set(spec.name, { spec, home: site, family: address.family });
  }

  #checkExposure(spec: Exposure, names: Map<string, string>): void {
    const site =
      this.#sites.get(spec.site) ?? this.#fail(spec, 'site', `"${spec.site}" is not a site`);
    const service =
      this.#services.get(spec.service) ??
      this.#fail(spec, 'service', `"${spec.service}" is not a service`);
    if (service.home === site) {
      this.#fail(spec, 'site', `"${spec.service}" is at home in "${spec.site}"`);
    }
    const { family, home } = service;
    if (site.spec.pools.length === 0) {
      const what = `no pool for a presence of "${spec.service}"`;
      this.#fail(spec, 'site', `"${spec.site}" has ${what}`);
    }
    if (!home.spec.pools.some((pool) => pool.family === family)) {
      const what = `no IPv${family} pool for presences of its clients`;
      this.#fail(spec, 'service', `"${home.spec.name}", where it is at home, has ${what}`);
    }
    const { maxNames } = site.spec;
    if (site.names >= maxNames) {
      this.#fail(
        spec,
        'site',
        `"${spec.site}" has all the names that its maxNames, ${maxNames}, allows`
      );
    }
    site.names++;
    this.#checkName(spec, site, presenceFamily(family, site.spec.pools), names);
  }

  /** Checks that a name leads to one host by each type of address record. */
  #checkName(spec: Exposure, site: CheckedSite, family: Family, names: Map<string, string>): void {
    const name = exposureName(spec, site.spec);
    if (name.length > MAX_NAME_LENGTH) {
      this.#fail(
        spec,
        'dnsName',
        `it has ${name.length} characters within "${site.spec.zone}", more than ${MAX_NAME_LENGTH}`
      );
    }
    if (name === `ns.${site.spec.zone}`.toLowerCase()) {
      this.#fail(spec, 'dnsName', `${name} is the name of the site's own name server`);
    }
    const key = `${family} ${spec.site} ${name}`;
    const other = names.get(key);
    if (other !== undefined) {
      this.#fail(spec, 'dnsName', `${name} is the name of "${other}" in "${spec.site}" already`);
    }
    names.set(key, spec.service);
  }

  #fail(spec: Site | Service | Exposure, field: string, message: string): never {
    const path = this.#paths.get(spec);
    if (path !== undefined)
      throw new ConfigError(path === '' ? field : `${path}.${field}`, message);
    const owner = [...this.#records.values()].find((record) => record.spec === spec)!.owner;
    throw new ConfigError(
      '',
      `${describe(spec)}, kept by the ${owner}, would no longer fit: ${message}`
    );
  }
}

interface CheckedSite {
  readonly spec: Site;
  /** How many exposures the site has so far. */
  names: number;
}

interface CheckedService {
  readonly spec: Service;
  readonly home: CheckedSite;
  readonly family: Family;
}

/** Longest domain name, as text without the trailing dot (RFC 1035 section 2.3.4). */
const MAX_NAME_LENGTH = 253;
