/**
 * A site and a cloud whose hosts use the same addresses, and in which every host has a presence of both
 * IP versions: each of the two clients can reach each of the two services, on four paths.
 * @module
 */
import type { Ends } from '../support/packets.ts';
import type { TextPermit, TextPlan, TextPresence, TextRealm } from '../support/text-of.ts';
import { Scene } from './scene.ts';

export const VERSIONS = [4, 6] as const;
export type Version = (typeof VERSIONS)[number];

/** The client in the site, by IP version. */
export const CLIENT: Readonly<Record<Version, string>> = { 4: '10.0.0.5', 6: 'fd00::5' };
/** The service in the cloud, by IP version. */
export const SERVICE: Readonly<Record<Version, string>> = { 4: '10.0.0.9', 6: 'fd00::9' };
/** An address in a pool of both realms that is never bound. */
export const UNBOUND: Readonly<Record<Version, string>> = { 4: '100.64.0.200', 6: 'fd64::c8' };

/** The presences of the services, by IP version of the service and of the presence. */
const SERVICE_PRESENCE = {
  4: { 4: '100.64.0.1', 6: 'fd64::4' },
  6: { 4: '100.64.0.6', 6: 'fd64::1' },
} as const;
const CLIENT_PRESENCE = {
  4: { 4: '100.64.0.11', 6: 'fd64::46' },
  6: { 4: '100.64.0.64', 6: 'fd64::11' },
} as const;

export const PORTS: readonly string[] = [
  'tcp/5672',
  'udp/53',
  'udplite/5004',
  'sctp/3868',
  'icmp',
  'ip/47',
  'ip/51',
];

export interface PlanOptions {
  readonly site?: Partial<TextRealm>;
  readonly cloud?: Partial<TextRealm>;
  readonly ports?: readonly string[];
  readonly presences?: readonly TextPresence[];
}

export function mixedPlan(options: PlanOptions = {}): TextPlan {
  const realm = { sources: ['10.0.0.0/24', 'fd00::/64'], pools: ['100.64.0.0/24', 'fd64::/64'] };
  const presences = VERSIONS.flatMap((real) =>
    VERSIONS.flatMap((version): TextPresence[] => [
      {
        realm: 'site',
        address: SERVICE_PRESENCE[real][version],
        of: { realm: 'cloud', address: SERVICE[real] },
      },
      {
        realm: 'cloud',
        address: CLIENT_PRESENCE[real][version],
        of: { realm: 'site', address: CLIENT[real] },
      },
    ])
  );
  const permits = VERSIONS.map(
    (version): TextPermit => ({
      realm: 'site',
      service: { realm: 'cloud', address: SERVICE[version] },
      ports: options.ports ?? PORTS,
    })
  );
  return {
    realms: [
      { name: 'site', ...realm, ...options.site },
      { name: 'cloud', ...realm, ...options.cloud },
    ],
    presences: options.presences ?? presences,
    permits,
  };
}

/** Both directions between a client of version `from` and a service of version `to`. */
export interface MixedPath {
  readonly from: Version;
  readonly to: Version;
  readonly name: string;
  /** The packet from the site to the cloud: addresses as they enter, and as they leave. */
  readonly request: { readonly before: Ends; readonly after: Ends };
  /** The packet from the cloud to the site. */
  readonly reply: { readonly before: Ends; readonly after: Ends };
}

export function mixedPath(from: Version, to: Version): MixedPath {
  const before = { source: CLIENT[from], destination: SERVICE_PRESENCE[to][from] };
  const after = { source: CLIENT_PRESENCE[from][to], destination: SERVICE[to] };
  return {
    from,
    to,
    name: `from IPv${from} to IPv${to}`,
    request: { before, after },
    reply: { before: reversed(after), after: reversed(before) },
  };
}

export const MIXED_PATHS: readonly MixedPath[] = VERSIONS.flatMap((from) =>
  VERSIONS.map((to) => mixedPath(from, to))
);

/** The paths that keep the IP version. */
export const SAME_WAYS: readonly MixedPath[] = MIXED_PATHS.filter(({ from, to }) => from === to);
/** The paths that change the IP version. */
export const CROSS_VERSION_PATHS: readonly MixedPath[] = MIXED_PATHS.filter(
  ({ from, to }) => from !== to
);

export function reversed({ source, destination }: Ends): Ends {
  return { source: destination, destination: source };
}

export function mixedScene(
  options: PlanOptions & ConstructorParameters<typeof Scene>[0] = {}
): Scene {
  const { site, cloud, ports, presences, ...rest } = options;
  const plan = mixedPlan({
    ...(site && { site }),
    ...(cloud && { cloud }),
    ...(ports && { ports }),
    ...(presences && { presences }),
  });
  return new Scene({ plan, ...rest });
}
