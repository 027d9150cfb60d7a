/**
 * Makes the translator's plan: the realms, presences and permits of the sites that take part.
 * @module
 */
import type { IpPrefix } from '../base/prefix.ts';
import type { Site } from '../registry/index.ts';
import type { Permit, Realm, TranslationPlan } from '../translator/index.ts';
import type { DesiredIndex } from './desired-index.ts';
import type { ExposedService } from './exposed-service.ts';
import type { LeaseTable } from './lease-table.ts';

/** @param isLive returns whether a site takes part */
export function planOf(
  desired: DesiredIndex,
  leases: Pick<LeaseTable, 'presences' | 'poolsOf'>,
  isLive: (site: string) => boolean
): TranslationPlan {
  const sites = [...desired.sites.values()].filter(({ name }) => isLive(name));
  return {
    realms: sites.map((site) => realmOf(site, leases.poolsOf(site))),
    presences: leases.presences().filter(({ realm, of }) => isLive(realm) && isLive(of.realm)),
    permits: Array.from(desired.exposed())
      .filter(({ exposure, home }) => isLive(exposure.site) && isLive(home.realm))
      .map(permitOf),
  };
}

/** @param pools the prefixes of the site's presences */
export function realmOf({ name, sources, mtu, reject }: Site, pools: readonly IpPrefix[]): Realm {
  return {
    name,
    sources,
    pools,
    ...(mtu === undefined ? {} : { mtu }),
    ...(reject === undefined ? {} : { reject }),
  };
}

export function permitOf({ exposure, service, home }: ExposedService): Permit {
  const { site: realm, clients } = exposure;
  const permit = { realm, service: home, ports: service.ports };
  return clients === undefined ? permit : { ...permit, clients };
}
