/**
 * What would mend a refusal: a command of the operator, and the same as a change of the desired state. Each adds as
 * little as lets this one flow pass. A record can be changed by its owner only, so a record of the configuration file
 * gets no command: `why` then says what to write there.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import type { PortRange } from '../base/port-range.ts';
import { IpPrefix } from '../base/prefix.ts';
import type {
  Exposure,
  ExposureInput,
  Owner,
  SelectorExposure,
  Service,
  Site,
} from '../registry/index.ts';
import type { Fix, FixChange } from './explanation.ts';
import type { ExplainedWorld } from './world.ts';

type Records = ExplainedWorld['registry'];

/** Exposes a service to all hosts of a site. */
export function exposeFix(service: string, site: string): Fix {
  return {
    why: `expose ${service} to ${site}`,
    command: `virtual-presence expose ${service} ${site}`,
    change: { kind: 'expose', exposure: { service, site } },
    owner: 'admin',
  };
}

/** Lets one more host of a site use a service that is exposed there. */
export function clientFix(registry: Records, exposure: Exposure, client: IpAddress): Fix {
  const { service, site, clients = [] } = exposure;
  const added = IpPrefix.around(client);
  const all = [...clients, added];
  return exposureFix(registry, { ...exposure, clients: all }, [
    `let ${client} use ${service} too`,
    registry.record({ kind: 'exposure', service, site }) === undefined
      ? `--clients ${all.join(',')}`
      : `--add-clients ${added}`,
  ]);
}

/** Takes the time box off an exposure. */
export function timeBoxFix(
  registry: Records,
  { service, site }: Pick<Exposure, 'service' | 'site'>,
  terms: Omit<Exposure | SelectorExposure, 'notBefore' | 'notAfter'>
): Fix {
  const { name: _, siteSelector: __, ...rest } = terms as Partial<SelectorExposure>;
  const exposure = { ...rest, service, site } as Exposure;
  return exposureFix(registry, exposure, [
    `expose ${service} to ${site} without a time box`,
    '--unset not-before,not-after',
  ]);
}

/** Adds ports to a service. */
export function portFix(registry: Records, service: Service, port: PortRange): Fix {
  const { name } = service;
  return recordFix(
    registry.record({ kind: 'service', name })?.owner,
    `add the port ${port} to the service ${name}, if it listens there`,
    `virtual-presence service set ${name} --add-ports ${port}`,
    { kind: 'service', service: { ...service, ports: [...service.ports, port] } }
  );
}

/** Makes a host one that takes part. */
export function sourceFix(registry: Records, site: Site, host: IpAddress): Fix {
  const added = IpPrefix.around(host);
  return recordFix(
    registry.record({ kind: 'site', name: site.name })?.owner,
    `let the host ${host} of ${site.name} take part`,
    `virtual-presence site set ${site.name} --add-sources ${added}`,
    { kind: 'site', site: { ...site, sources: [...site.sources, added] } }
  );
}

export function reinstateFix(site: string): Fix {
  return {
    why: `reinstate ${site} if its gateway can be trusted again, and give it a new token: its certificates stay revoked`,
    command: `virtual-presence reinstate ${site}`,
    change: { kind: 'reinstate', site },
    owner: 'admin',
  };
}

/** Something that no command of this gateway does. */
export function advice(why: string): Fix {
  return { why };
}

/**
 * Changes an exposure to one site. If the site is taken by a selector, its exposure stays as it is for the other sites:
 * an exposure to this very site goes before it.
 */
function exposureFix(
  registry: Records,
  exposure: Exposure,
  [why, flags]: readonly [string, string]
): Fix {
  const { service, site, clients: _, ...more } = exposure;
  const explicit = registry.record({ kind: 'exposure', service, site });
  const change: FixChange = { kind: 'expose', exposure: exposure as ExposureInput };
  const command = `virtual-presence expose ${service} ${site} ${flags}`;
  if (explicit !== undefined) return recordFix(explicit.owner, why, command, change);
  const isPlain = Object.values(more).every((value) => value === undefined);
  // The flags alone would lose the other terms of the selector's exposure.
  return { why, ...(isPlain && { command }), change, owner: 'admin' };
}

function recordFix(
  owner: Owner | undefined = 'admin',
  why: string,
  command: string,
  change: FixChange
): Fix {
  if (owner === 'admin') return { why, command, change, owner };
  return { why: `${why}: in the configuration file, which has this record`, change, owner };
}
