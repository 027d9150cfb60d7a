/**
 * What one site gets to see: the services exposed there, and the clients of its own services, as
 * names and addresses.
 * @module
 */
import { IpAddress } from '../base/address.ts';
import type { Site } from '../registry/index.ts';
import type { Endpoint } from '../translator/index.ts';
import type { DesiredIndex } from './desired-index.ts';
import { endpointOf, parseEndpoint } from './endpoint.ts';
import type { LeaseTable } from './lease-table.ts';
import type { Snapshot, SnapshotHost } from './snapshot.ts';

/** A snapshot before it has a revision. */
export type SiteView = Omit<Snapshot, 'revision'>;

/** The same leases and desired state make the same view. @param isLive whether a site takes part */
export function viewOf(
  site: Site,
  ttlSeconds: number,
  desired: DesiredIndex,
  book: LeaseTable,
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
  const clients = new Map<string, Client>();
  for (const [key, address] of book.addressesIn(site.name)) {
    const client = parseEndpoint(endpointOf(key));
    if (names.has(address) || !isLive(client.realm)) continue;
    if (site.name === desired.transit && !isClientOf(site.name, client, address, desired)) continue;
    const name = `${labelOf(client.address)}.${client.realm}.${zone}`;
    // A client that uses services of both IP versions has two.
    const addresses = [...(clients.get(name)?.addresses ?? []), address].sort();
    clients.set(name, { name, addresses, realm: client.realm });
  }
  const named = withinBudget([...clients.values()]);
  for (const { name, addresses } of named) {
    for (const address of addresses) names.set(address, name);
  }
  return {
    site: site.name,
    sources: site.sources,
    pools: site.pools,
    zone,
    ttlSeconds,
    hosts: [...hosts, ...named.map(({ name, addresses }) => ({ name, addresses, ports: [] }))],
    pointers: [...names]
      .map(([address, name]) => ({ address, name }))
      .sort((a, b) => (a.address < b.address ? -1 : 1)),
  };
}

interface Client {
  readonly name: string;
  readonly addresses: readonly string[];
  readonly realm: string;
}

/**
 * Those that get a name, sorted. There are so many that a snapshot still fits a control message: sites
 * make up clients as they like, but no site's take the names of another's.
 */
function withinBudget(clients: readonly Client[]): Client[] {
  const sorted = [...clients].sort((a, b) => (a.name < b.name ? -1 : 1));
  const total = sorted.reduce((sum, client) => sum + bytesOf(client), 0);
  if (total <= MAX_CLIENT_BYTES) return sorted;
  const share = MAX_CLIENT_BYTES / new Set(sorted.map(({ realm }) => realm)).size;
  const used = new Map<string, number>();
  return sorted.filter((client) => {
    const bytes = (used.get(client.realm) ?? 0) + bytesOf(client);
    used.set(client.realm, bytes);
    return bytes <= share;
  });
}

/** What a client adds to a snapshot as JSON: a host, and a pointer for each address. */
function bytesOf({ name, addresses }: Client): number {
  return addresses.reduce(
    (sum, { length }) => sum + name.length + 2 * length + 32,
    name.length + 40
  );
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

/** Of the 4 MiB that a control message has by default, the larger part. */
const MAX_CLIENT_BYTES: number = 2.5 * 1024 * 1024;
