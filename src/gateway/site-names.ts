/**
 * The names of a gateway's own site, for DNS clients and for `lookup`.
 * @module
 */
import { HostNames } from '../base/host-names.ts';
import {
  nameChangesBetween,
  type Snapshot,
  type SnapshotHost,
  zoneDataOf,
  zonePatchOf,
} from '../control/index.ts';
import { type DnsServer, Zone } from '../dns/index.ts';

/**
 * Makes the server answer from this snapshot. The zone of the snapshot before is patched if only names have changed, and
 * compiled anew otherwise.
 */
export function serveNames(dns: DnsServer, snapshot: Snapshot): void {
  dns.setSources(snapshot.sources);
  const before = served.get(dns);
  const changes = before && nameChangesBetween(before.snapshot, snapshot);
  let zone = before?.zone;
  if (zone !== undefined && changes !== undefined) {
    zone.patch(zonePatchOf(changes));
  } else {
    zone = Zone.compile(zoneDataOf(snapshot, [dns.address.host]));
  }
  // The server may have stopped answering from this zone, because it had expired.
  dns.setZone(zone);
  served.set(dns, { snapshot, zone });
}

/** Makes the server answer none of these names: the snapshot has expired. */
export function expireNames(dns: DnsServer, snapshot: Snapshot): void {
  serveNames(dns, snapshot);
  dns.expireZone();
}

/**
 * Returns the hosts that a name resolves to.
 *
 * @param name a full domain name, or a name within the site's zone; it may be an alias, and one that only a wildcard
 *   covers must be full
 */
export function hostsNamed(snapshot: Snapshot | undefined, name: string): readonly SnapshotHost[] {
  if (snapshot === undefined) return [];
  let names = namesOf.get(snapshot);
  if (names === undefined) {
    names = new HostNames(snapshot.zone, snapshot.hosts);
    namesOf.set(snapshot, names);
  }
  const found = names.find(name);
  return snapshot.hosts.filter((host) => host.name === found);
}

/** What each server answers from. */
const served: WeakMap<DnsServer, { readonly snapshot: Snapshot; readonly zone: Zone }> =
  new WeakMap();
/** The names of snapshots that were asked for. */
const namesOf: WeakMap<Snapshot, HostNames> = new WeakMap();
