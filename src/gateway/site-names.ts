/**
 * The names of a gateway's own site, as its clients ask for them by DNS.
 * @module
 */
import { type Snapshot, zoneDataOf } from '../control/index.ts';
import { type DnsServer, Zone } from '../dns/index.ts';

/** Has the server answer by this snapshot from now on. */
export function serveNames(dns: DnsServer, snapshot: Snapshot): void {
  dns.setSources(snapshot.sources);
  dns.setZone(Zone.compile(zoneDataOf(snapshot, [dns.address.host])));
}
