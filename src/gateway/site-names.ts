/**
 * The names of a gateway's own site, as its clients ask for them by DNS, and as the host program does.
 * @module
 */
import { type Snapshot, type SnapshotHost, zoneDataOf } from '../control/index.ts';
import { type DnsServer, Zone } from '../dns/index.ts';

/** Has the server answer by this snapshot from now on. */
export function serveNames(dns: DnsServer, snapshot: Snapshot): void {
  dns.setSources(snapshot.sources);
  dns.setZone(Zone.compile(zoneDataOf(snapshot, [dns.address.host])));
}

/**
 * Returns the hosts that a name stands for.
 *
 * @param name a full domain name, or one within the site's zone
 */
export function hostsNamed(snapshot: Snapshot | undefined, name: string): readonly SnapshotHost[] {
  if (snapshot === undefined) return [];
  const wanted = name.toLowerCase().replace(/\.$/, '');
  return snapshot.hosts.filter(
    (host) => host.name === wanted || host.name === `${wanted}.${snapshot.zone}`
  );
}
