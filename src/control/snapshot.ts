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
import type { ZoneBinding, ZoneData, ZoneHost, ZonePatch, ZonePointer } from '../dns/index.ts';

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
  readonly pointers: readonly SnapshotPointer[];
}

export interface SnapshotHost {
  /** The full domain name. */
  readonly name: string;
  readonly addresses: readonly IpAddress[];
  /** Empty for a host that is only a client. */
  readonly ports: readonly PortRange[];
  /**
   * Addresses that the host had before the site was renumbered. They lead to it until they go from here, but its name
   * does not name them. None if absent.
   */
  readonly former?: readonly IpAddress[] | undefined;
  /** Full domain names within the zone that are aliases of `name`; none if absent. */
  readonly aliases?: readonly string[] | undefined;
  /** Whether the names below `name` that do not exist are answered as `name` is; false if absent. */
  readonly wildcard?: boolean | undefined;
  /** The HTTPS records; none if absent. */
  readonly https?: readonly SnapshotBinding[] | undefined;
  /** The SVCB records; none if absent. */
  readonly svcb?: readonly SnapshotBinding[] | undefined;
}

/** An HTTPS or SVCB record of a host (RFC 9460). */
export interface SnapshotBinding {
  /** Labels in front of the host's name, such as `_8443._https`; none if absent. */
  readonly prefix?: string | undefined;
  /** 0 for AliasMode, which has neither `alpn` nor `port`. */
  readonly priority: number;
  /** A full domain name, or `.` for the name of the record itself. */
  readonly target: string;
  readonly alpn?: readonly string[] | undefined;
  readonly port?: number | undefined;
}

export interface SnapshotPointer {
  readonly address: IpAddress;
  /** The full domain name. */
  readonly name: string;
}

/** What some names and addresses of a site stand for from a revision on. */
export interface NameChanges extends Pick<Snapshot, 'revision' | 'hosts' | 'pointers'> {
  /** The names whose hosts have changed; `hosts` has all hosts that these names have now. */
  readonly names: readonly string[];
  /** The addresses whose pointers have changed; `pointers` has all that these addresses have now. */
  readonly addresses: readonly IpAddress[];
}

/** RFC 2181 section 8. */
const MAX_TTL_SECONDS = 0x7fffffff;

const BindingSchema: Schema<SnapshotBinding> = /* @__PURE__ */ v.object({
  prefix: v.optional(DomainText),
  priority: wholeNumber(0, 65_535),
  target: v.union([v.literal('.'), DomainText]),
  alpn: v.optional(
    v.pipe(
      v.array(v.pipe(v.string(), v.nonEmpty(), v.maxBytes(255))),
      v.nonEmpty(),
      v.maxLength(16)
    )
  ),
  port: v.optional(wholeNumber(1, 65_535)),
}) as Schema<SnapshotBinding>;

export const SnapshotSchema: Schema<Snapshot> = /* @__PURE__ */ v.object({
  revision: wholeNumber(1, Number.MAX_SAFE_INTEGER),
  site: NameText,
  sources: v.array(PrefixText),
  pools: v.array(PrefixText),
  zone: DomainText,
  ttlSeconds: wholeNumber(0, MAX_TTL_SECONDS),
  hosts: v.array(
    v.object({
      name: DomainText,
      addresses: v.array(AddressText),
      ports: v.array(PortText),
      former: v.optional(v.array(AddressText)),
      aliases: v.optional(v.array(DomainText)),
      wildcard: v.optional(v.boolean()),
      https: v.optional(v.array(BindingSchema)),
      svcb: v.optional(v.array(BindingSchema)),
    })
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
    hosts: snapshot.hosts.map(zoneHostOf),
    pointers: snapshot.pointers.map(zonePointerOf),
    reverse: snapshot.pools,
    serial: serialOf(snapshot),
    ttlSeconds: snapshot.ttlSeconds,
    negativeTtlSeconds: NEGATIVE_TTL_SECONDS,
    nameserver: `ns.${snapshot.zone}`,
    nameserverAddresses,
  };
}

/** Returns what changes in the zone that `zoneDataOf` has made of an earlier revision. */
export function zonePatchOf(changes: NameChanges): ZonePatch {
  return {
    serial: serialOf(changes),
    names: changes.names,
    hosts: changes.hosts.map(zoneHostOf),
    addresses: changes.addresses,
    pointers: changes.pointers.map(zonePointerOf),
  };
}

function serialOf({ revision }: Pick<Snapshot, 'revision'>): number {
  return revision % 2 ** 32;
}

function zoneHostOf(host: SnapshotHost): ZoneHost {
  const { name, addresses, ports, aliases = [], wildcard = false, https = [], svcb = [] } = host;
  return {
    name,
    addresses,
    ports: ports.flatMap(({ protocol, first, last }) =>
      (protocol === 'tcp' || protocol === 'udp') && first === last
        ? [{ protocol, port: first }]
        : []
    ),
    aliases,
    wildcard,
    bindings: [
      ...https.map((binding) => zoneBindingOf('HTTPS', binding)),
      ...svcb.map((binding) => zoneBindingOf('SVCB', binding)),
    ],
  };
}

function zoneBindingOf(
  type: ZoneBinding['type'],
  { prefix, priority, target, alpn, port }: SnapshotBinding
): ZoneBinding {
  const absolute = target === '.' ? target : `${target}.`;
  // A client ignores the parameters of AliasMode (RFC 9460 section 2.4.2), and a zone refuses them.
  const parameters = priority === 0 ? {} : { alpn, port };
  return { type, prefix, priority, target: absolute, ...parameters };
}

function zonePointerOf({ address, name }: SnapshotPointer): ZonePointer {
  return { address, name: `${name}.` };
}

/** Short, so that a client that asked too early soon finds a name that is exposed at run time. */
const NEGATIVE_TTL_SECONDS = 1;
