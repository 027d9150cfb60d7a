/**
 * The shapes on both sides of a zone: the plain data it is compiled from, and what it answers.
 * @module
 */
import type { AddressInput } from '../base/address.ts';
import type { PrefixInput } from '../base/prefix.ts';
import type { ZoneRecord } from './record.ts';

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

/** One exposed service: its presences at the site, its ports, and texts for TXT records. */
export interface ZoneHost extends ZoneRecordSet {
  readonly ports?: readonly ZonePort[];
  /** One TXT record each. */
  readonly texts?: readonly string[];
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

/** `nodata`: the name exists but has no record of the type. */
export type ZoneOutcome = 'success' | 'nodata' | 'nxdomain' | 'not-authoritative';

export interface ZoneAnswer {
  readonly outcome: ZoneOutcome;
  readonly answers: readonly ZoneRecord[];
  /** The SOA that says how long `nodata` and `nxdomain` hold; else empty. */
  readonly authority: readonly ZoneRecord[];
  /** Addresses of the names that SRV and NS answers point to. */
  readonly additional: readonly ZoneRecord[];
}

/** What is known of one existing name. */
export interface ZoneNode {
  /** Keyed by the number of the type. */
  readonly byType: ReadonlyMap<number, ZoneAnswer>;
  /** The answer for every other type. */
  readonly nodata: ZoneAnswer;
  /** The answer for names below that do not exist. */
  readonly nxdomain: ZoneAnswer;
}
