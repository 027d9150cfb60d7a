/**
 * What one site gets to see: the services exposed there, and the clients of its own services, as
 * names and addresses.
 * @module
 */
import { IpAddress } from '../address.ts';
import type { Site } from '../registry/index.ts';
import type { Endpoint } from '../translator/index.ts';
import type { DesiredIndex } from './desired-index.ts';
import { endpointOf, parseEndpoint } from './endpoint.ts';
import type { LeaseBook } from './lease-book.ts';
import type { Snapshot, SnapshotHost } from './snapshot.ts';

/** A snapshot before it has a revision. */
export type SiteView = Omit<Snapshot, 'revision'>;

/** The same leases and desired state make the same view. @param isLive whether a site takes part */
export function viewOf(
  site: Site,
  ttlSeconds: number,
  desired: DesiredIndex,
  book: LeaseBook,
  isLive: (site: string) => boolean
): SiteView {
  const zone = site.zone.toLowerCase();
  const hosts: SnapshotHost[] = [];
  const names = new Map<string, string>();
  for (const { name, presenceKey, home, service } of desired.exposedIn(site.name)) {
    const address = isLive(home.realm) ? book.address(site.name, presenceKey) : undefined;
    if (address === undefined) continue;
    hosts.push({ name, addresses: [address], ports: service.ports });
    // The first of several services on one host gives it its name.
    if (!names.has(address)) names.set(address, name);
  }
  const clients = new Map<string, string[]>();
  for (const [key, address] of book.addressesIn(site.name)) {
    const client = parseEndpoint(endpointOf(key));
    if (names.has(address) || !isLive(client.realm)) continue;
    if (site.name === desired.transit && !isClientOf(site.name, client, address, desired)) continue;
    const name = `${labelOf(client.address)}.${client.realm}.${zone}`;
    // A client that uses services of both IP versions has two.
    clients.set(name, [...(clients.get(name) ?? []), address].sort());
    names.set(address, name);
  }
  return {
    site: site.name,
    sources: site.sources,
    pools: site.pools,
    zone,
    ttlSeconds,
    hosts: [
      ...hosts,
      ...[...clients]
        .map(([name, addresses]) => ({ name, addresses, ports: [] }))
        .sort((a, b) => (a.name < b.name ? -1 : 1)),
    ],
    pointers: [...names]
      .map(([address, name]) => ({ address, name }))
      .sort((a, b) => (a.address < b.address ? -1 : 1)),
  };
}

/** Whether it is there for itself, and not in transit to another site only. */
function isClientOf(
  site: string,
  client: Endpoint,
  presence: string,
  desired: DesiredIndex
): boolean {
  const { family } = IpAddress.parse(presence);
  return desired.isClient(site, client.realm, IpAddress.parse(client.address), family);
}

/**
 * A client has no name of its own: its address makes a label, `10-0-0-5` or `2001-db8--5`, a
 * different one for each. A zero keeps the hyphens of `::` off the edges.
 */
function labelOf(address: string): string {
  return address.replace(/^:/, '0:').replace(/:$/, ':0').replace(/[.:]/g, '-');
}
