/**
 * A snapshot: everything that an edge knows about its site, the services that are exposed there, and their names.
 * @module
 */
import * as v from 'valibot';
import type { AddressInput, IpAddress } from '../base/address.ts';
import type { PortRange } from '../base/port-range.ts';
import type { IpPrefix } from '../base/prefix.ts';
import {
  AddressText,
  DomainText,
  NameText,
  PortText,
  PrefixText,
  type Schema,
  wholeNumber,
} from '../base/schema.ts';
import type { ZoneData } from '../dns/index.ts';

export interface Snapshot {
  /** A number that grows with every change. */
  readonly revision: number;
  readonly site: string;
  /** Prefixes of the site's real hosts that take part. */
  readonly sources: readonly IpPrefix[];
  /** Prefixes of the site's presences. */
  readonly pools: readonly IpPrefix[];
  /** The domain of the names. */
  readonly zone: string;
  /** How long clients may cache the address of a name. */
  readonly ttlSeconds: number;
  readonly hosts: readonly SnapshotHost[];
  /** The name of the host behind each presence. */
  readonly pointers: readonly { readonly address: IpAddress; readonly name: string }[];
}

export interface SnapshotHost {
  /** The full domain name. */
  readonly name: string;
  readonly addresses: readonly IpAddress[];
  /** Empty for a host that is only a client. */
  readonly ports: readonly PortRange[];
}

/** RFC 2181 section 8. */
const MAX_TTL_SECONDS = 0x7fffffff;

export const SnapshotSchema: Schema<Snapshot> = /* @__PURE__ */ v.object({
  revision: wholeNumber(1, Number.MAX_SAFE_INTEGER),
  site: NameText,
  sources: v.array(PrefixText),
  pools: v.array(PrefixText),
  zone: DomainText,
  ttlSeconds: wholeNumber(0, MAX_TTL_SECONDS),
  hosts: v.array(
    v.object({ name: DomainText, addresses: v.array(AddressText), ports: v.array(PortText) })
  ),
  pointers: v.array(v.object({ address: AddressText, name: DomainText })),
}) as Schema<Snapshot>;

/**
 * Returns the zone that a site's resolver serves.
 *
 * @param nameserverAddresses the addresses at which the site's clients reach that resolver
 */
export function zoneDataOf(
  snapshot: Snapshot,
  nameserverAddresses: readonly AddressInput[]
): ZoneData {
  return {
    origin: snapshot.zone,
    hosts: snapshot.hosts.map(({ name, addresses, ports }) => ({
      name,
      addresses,
      ports: ports.flatMap(({ protocol, first, last }) =>
        (protocol === 'tcp' || protocol === 'udp') && first === last
          ? [{ protocol, port: first }]
          : []
      ),
    })),
    pointers: snapshot.pointers.map(({ address, name }) => ({ address, name: `${name}.` })),
    reverse: snapshot.pools,
    serial: snapshot.revision % 2 ** 32,
    ttlSeconds: snapshot.ttlSeconds,
    negativeTtlSeconds: NEGATIVE_TTL_SECONDS,
    nameserver: `ns.${snapshot.zone}`,
    nameserverAddresses,
  };
}

/** Short, so that a client that asked too early soon finds a name that is exposed at run time. */
const NEGATIVE_TTL_SECONDS = 1;
