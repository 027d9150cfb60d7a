/**
 * Finds who sends: a host of a site, and whether it may.
 * @module
 */
import { type Family, IpAddress } from '../base/address.ts';
import type { IpPrefix } from '../base/prefix.ts';
import { ConfigError } from '../errors.ts';
import type { Site } from '../registry/index.ts';
import { no, ok, type Stage } from './explanation.ts';
import { advice, sourceFix } from './fixes.ts';
import { hint } from './nearest.ts';
import type { FlowSource } from './query.ts';
import type { ExplainedWorld } from './world.ts';

type World = Pick<ExplainedWorld, 'registry' | 'lookup'>;

/**
 * Returns the site that a query names.
 *
 * @throws {ConfigError} if there is no such site.
 */
export function senderSite({ registry }: World, name: string): Site {
  const site = registry.site(name);
  if (site !== undefined) return site;
  const names = Array.from(registry.sites(), (each) => each.name);
  throw new ConfigError('from.site', `"${name}" is not a site${hint(String(name), names)}`);
}

/**
 * Returns the address that a query names; undefined if it names none.
 *
 * @throws {ConfigError} if it is no address, or there is no such service at home in the site.
 */
export function senderAddress(
  { registry }: World,
  site: Site,
  { address, service: name }: FlowSource
): IpAddress | undefined {
  if (address !== undefined) {
    try {
      return IpAddress.from(address).canonical();
    } catch (cause) {
      throw new ConfigError('from.address', (cause as Error).message, { cause });
    }
  }
  if (name === undefined) return undefined;
  const service = registry.service(name);
  if (service?.site === site.name) return service.address.canonical();
  const names = Array.from(registry.servicesOf(site.name), (each) => each.name);
  throw new ConfigError(
    'from',
    `"${name}" is neither an address nor a service at home in ${site.name}${hint(name, names)}`
  );
}

/** Returns a host of a site that may send; undefined if the first addresses of the prefixes have none. */
export function anyHost(
  { lookup }: World,
  site: Site,
  family: Family,
  clients: readonly IpPrefix[] = site.sources
): IpAddress | undefined {
  const pools = lookup.poolsOf(site.name);
  for (const prefix of clients) {
    if (prefix.family !== family) continue;
    // The first address of an IPv4 network is no host's.
    const first = prefix.size > 2 ? 1 : 0;
    for (let i = first; i < Math.min(prefix.size, first + MOST_TRIED); i++) {
      const address = prefix.at(i);
      if (isIn(site.sources, address) && !isIn(pools, address)) return address;
    }
  }
  return undefined;
}

/** Checks that an address is that of a real host of a site. */
export function judgeSender(
  { registry, lookup }: World,
  site: Site,
  address: IpAddress
): Stage<'source'> {
  const { name } = site;
  const pool = lookup.poolsOf(name).find((each) => each.contains(address));
  if (pool !== undefined) {
    const reserved = site.reserved.find((each) => each.contains(address));
    const what = reserved === undefined ? '' : `, and kept from presences by ${reserved}`;
    const reason = `${address} is in the pool ${pool} of ${name}${what}: no real host takes part under an address of the pools`;
    const fix = advice(
      `give the host an address outside of ${pool}, or move the pools of ${name} to addresses that no host has`
    );
    return no('source', reason, fix);
  }
  if (!isIn(site.sources, address)) {
    const reason = `${address} is not in the sources of ${name}, ${site.sources.join(', ')}`;
    return no('source', reason, sourceFix(registry, site, address));
  }
  return ok('source', `${address} is a host of ${name}`);
}

export function isIn(prefixes: readonly IpPrefix[], address: IpAddress): boolean {
  return prefixes.some((prefix) => prefix.contains(address));
}

const MOST_TRIED = 1024;
