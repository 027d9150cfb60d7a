/**
 * Makes the translator's plan: the realms, presences and permits of the sites that take part.
 * @module
 */
import type { Site } from '../registry/index.ts';
import type { Permit, Presence, Realm, TranslationPlan } from '../translator/index.ts';
import type { DesiredIndex } from './desired-index.ts';
import type { ExposedService } from './exposed-service.ts';

/** @param isLive returns whether a site takes part */
export function planOf(
  desired: DesiredIndex,
  presences: readonly Presence[],
  isLive: (site: string) => boolean
): TranslationPlan {
  return {
    realms: [...desired.sites.values()].filter(({ name }) => isLive(name)).map(realmOf),
    presences: presences.filter(({ realm, of }) => isLive(realm) && isLive(of.realm)),
    permits: Array.from(desired.exposed())
      .filter(({ exposure, home }) => isLive(exposure.site) && isLive(home.realm))
      .map(permitOf),
  };
}

export function realmOf({ name, sources, pools, mtu, reject }: Site): Realm {
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
