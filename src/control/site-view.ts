/**
 * Makes the view of one site: the names and addresses of the services that are exposed there, and of the clients of
 * its own services.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import type { Endpoint } from '../base/endpoint.ts';
import type { Site } from '../registry/index.ts';
import type { DesiredIndex } from './desired-index.ts';
import type { LeaseTable } from './lease-table.ts';
import { serviceHost } from './service-names.ts';
import type { Snapshot, SnapshotHost } from './snapshot.ts';

/** A snapshot before it has a revision. */
export type SiteView = Omit<Snapshot, 'revision'>;

/**
 * Returns the view of a site. The same leases and desired state make the same view.
 *
 * @param isLive returns whether a site takes part
 */
export function viewOf(
  site: Site,
  ttlSeconds: number,
  desired: DesiredIndex,
  leases: LeaseTable,
  isLive: (site: string) => boolean
): SiteView {
  const zone = site.zone.toLowerCase();
  const hosts: SnapshotHost[] = [];
  /** Keyed by the text of an address. */
  const pointers = new Map<string, Snapshot['pointers'][number]>();
  const point = (address: IpAddress, name: string): void => {
    pointers.set(address.toString(), { address, name });
  };
  for (const { presenceKey, home, service, exposure } of desired.exposedIn(site.name)) {
    const address = isLive(home.realm) ? leases.address(site.name, presenceKey) : undefined;
    if (address === undefined) continue;
    const former = leases.formerAddresses(site.name, presenceKey);
    const host = serviceHost(exposure, service, address, site, former);
    hosts.push(host);
    // The first of several services on a host gives the host its name.
    if (pointers.has(address.toString())) continue;
    for (const each of [address, ...former]) point(each, host.name);
  }
  const clients = new Map<string, Client>();
  for (const { address, of: client } of leases.presencesIn(site.name)) {
    if (pointers.has(address.toString()) || !isLive(client.realm)) continue;
    // A host may have a presence in the transit realm only for packets to another site.
    const isTransit = site.name === desired.transit;
    if (isTransit && !desired.isClient(site.name, client, address.family)) continue;
    const name = clientName(client, site);
    // A client that uses services of both IP versions has two addresses.
    const addresses = [...(clients.get(name)?.addresses ?? []), address].sort(byText);
    clients.set(name, { name, addresses, realm: client.realm });
  }
  const named = withinBudget([...clients.values()]);
  for (const { name, addresses } of named) {
    for (const address of addresses) point(address, name);
  }
  return {
    site: site.name,
    sources: site.sources,
    pools: leases.poolsOf(site),
    zone,
    ttlSeconds,
    hosts: [...hosts, ...named.map(({ name, addresses }) => ({ name, addresses, ports: [] }))],
    pointers: [...pointers].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, pointer]) => pointer),
  };
}

/** Returns the full domain name of a client in a site. */
export function clientName({ realm, address }: Endpoint, { zone }: Pick<Site, 'zone'>): string {
  return `${labelOf(address)}.${realm}.${zone.toLowerCase()}`;
}

interface Client {
  readonly name: string;
  readonly addresses: readonly IpAddress[];
  readonly realm: string;
}

/**
 * Returns the clients that get a name, sorted. Their number is limited so that the snapshot fits a control message. A
 * site may have many clients, but they cannot take the names of another site's clients.
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

/** Returns how many bytes a client adds to a snapshot as JSON: a host, and a pointer for each address. */
function bytesOf({ name, addresses }: Client): number {
  return addresses.reduce(
    (sum, address) => sum + name.length + 2 * address.toString().length + 32,
    name.length + 40
  );
}

function byText(a: IpAddress, b: IpAddress): number {
  return a.toString() < b.toString() ? -1 : 1;
}

/**
 * Makes a label of a client's address, such as `10-0-0-5` or `2001-db8--5`, since a client has no name. Each address has
 * another label. A zero keeps the hyphens of `::` away from the ends.
 */
function labelOf(address: IpAddress): string {
  return address.toString().replace(/^:/, '0:').replace(/:$/, ':0').replace(/[.:]/g, '-');
}

/** The larger part of the 4 MiB that a control message may have by default. */
const MAX_CLIENT_BYTES: number = 2.5 * 1024 * 1024;
