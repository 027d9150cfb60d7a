/**
 * The names of a gateway's own site, for DNS clients and for `lookup`.
 * @module
 */
import { type Snapshot, type SnapshotHost, zoneDataOf } from '../control/index.ts';
import { type DnsServer, Zone } from '../dns/index.ts';

/** Makes the server answer from this snapshot. */
export function serveNames(dns: DnsServer, snapshot: Snapshot): void {
  dns.setSources(snapshot.sources);
  dns.setZone(Zone.compile(zoneDataOf(snapshot, [dns.address.host])));
}

/** Makes the server answer none of these names: the snapshot has expired. */
export function expireNames(dns: DnsServer, snapshot: Snapshot): void {
  serveNames(dns, snapshot);
  dns.expireZone();
}

/**
 * Returns the hosts that a name resolves to.
 *
 * @param name a full domain name, or a name within the site's zone
 */
export function hostsNamed(snapshot: Snapshot | undefined, name: string): readonly SnapshotHost[] {
  if (snapshot === undefined) return [];
  const wanted = name.toLowerCase().replace(/\.$/, '');
  return snapshot.hosts.filter(
    (host) => host.name === wanted || host.name === `${wanted}.${snapshot.zone}`
  );
}
