/**
 * The shapes on both sides of a zone: the plain data it is compiled from, and what it answers.
 * @module
 */
import type { AddressInput } from '../base/address.ts';
import type { PrefixInput } from '../base/prefix.ts';
import type { ZoneRecord } from './record.ts';
import type { SvcbData } from './svcb.ts';

/** A name and its addresses, IPv4 and IPv6 mixed. */
export interface ZoneRecordSet {
  /** Relative to the origin (`keystone`), or below it in full. */
  readonly name: string;
  readonly addresses: readonly AddressInput[];
}

export interface ZonePort {
  readonly protocol: 'tcp' | 'udp';
  readonly port: number;
  /** With it, an SRV record stands at `_service._protocol.name`. */
  readonly service?: string;
}

/** An SVCB or HTTPS record of a host. */
export interface ZoneBinding extends Omit<SvcbData, 'target'> {
  readonly type: 'HTTPS' | 'SVCB';
  /**
   * Labels in front of the host's name, for example `_8443._https` or `_dns` (RFC 9460 section 2.3). Default none, as it
   * is for `https` at its own port.
   */
  readonly prefix?: string | undefined;
  /** Relative to the origin, or anywhere when it ends with a dot; default `.`, which is the owner. */
  readonly target?: string | undefined;
}

/** One exposed service: its presences at the site, and what else clients may learn of it or call it. */
export interface ZoneHost extends ZoneRecordSet {
  readonly ports?: readonly ZonePort[];
  /** One TXT record each. */
  readonly texts?: readonly string[];
  readonly bindings?: readonly ZoneBinding[];
  /**
   * Further names within the zone, each with a CNAME record that leads to `name`. `*.apps` is a wildcard. An alias gives
   * way to a host of its name and to records there; of two hosts with the same alias, the one whose name sorts first
   * has it.
   */
  readonly aliases?: readonly string[];
  /**
   * Whether the names below `name` that do not exist have its addresses, texts and bindings without a prefix
   * (RFC 4592); default false.
   */
  readonly wildcard?: boolean;
}

/** What a PTR query for `address` answers. */
export interface ZonePointer {
  readonly address: AddressInput;
  /** Relative to the origin, or anywhere when it ends with a dot. */
  readonly name: string;
}

export interface ZoneData {
  /** For example `openstack.test`. */
  readonly origin: string;
  readonly hosts: readonly ZoneHost[];
  readonly pointers: readonly ZonePointer[];
  /**
   * Prefixes whose reverse zones are served here, that is the presence pools. The address of a
   * pointer outside of all of them is a reverse zone by itself.
   */
  readonly reverse?: readonly PrefixInput[];
  /** Version of the data, compared as RFC 1982 says. */
  readonly serial: number;
  /** How long clients may keep an answer. An address must stay unused for as long after its end. */
  readonly ttlSeconds: number;
  /** How long clients may keep the answer that a name or a type of record is missing. */
  readonly negativeTtlSeconds: number;
  /** The name of this server, in the zone; for SOA and NS. */
  readonly nameserver: string;
  readonly nameserverAddresses: readonly AddressInput[];
}

/**
 * A change of a zone by names and addresses. What is not named stays as it is; naming the same again changes nothing, so
 * that a change may be applied twice.
 */
export interface ZonePatch {
  /** The version of the zone from now on. */
  readonly serial: number;
  /** Names that keep none of their former hosts, in the form of `ZoneHost.name`; the names of `hosts` are added to them. */
  readonly names?: readonly string[];
  /** All hosts that these names have from now on, with what belongs to them (aliases, wildcard, SRV, bindings). */
  readonly hosts?: readonly ZoneHost[];
  /** Addresses that keep none of their former pointers; the addresses of `pointers` are added to them. */
  readonly addresses?: readonly AddressInput[];
  /** All pointers that these addresses have from now on. */
  readonly pointers?: readonly ZonePointer[];
}

/** `nodata`: the name exists but has no record of the type. */
export type ZoneOutcome = 'success' | 'nodata' | 'nxdomain' | 'not-authoritative';

export interface ZoneAnswer {
  /** The outcome for the name; if it is an alias, for the name that it leads to. */
  readonly outcome: ZoneOutcome;
  /** The CNAME record comes first if the name is an alias. */
  readonly answers: readonly ZoneRecord[];
  /** The SOA that says how long `nodata` and `nxdomain` hold; else empty. */
  readonly authority: readonly ZoneRecord[];
  /** Addresses of the names that SRV, NS, SVCB and HTTPS answers point to, and SVCB or HTTPS records of these names. */
  readonly additional: readonly ZoneRecord[];
}
