/**
 * IP headers as objects: IPv4 with its options, IPv6 with its extension headers, and where they say
 * that the packet is a fragment.
 * @module
 */
import type { VerdictName } from '../../src/translator/verdict.ts';
import { textOf } from '../support/address.ts';
import { isRight, wordsOf } from '../support/checksum.ts';

export type IpVersion = 4 | 6;

/** A fragment; offsets count from the first byte of the fragmentable part. */
export interface Fragment {
  readonly identification: number;
  readonly offset: number;
  /** Where it ends in the datagram. */
  readonly end: number;
  /** More follow. */
  readonly more: boolean;
  /** Headers between the fragment header and the transport header. */
  readonly hasHeaders: boolean;
}

export interface IpHeader {
  readonly version: IpVersion;
  readonly source: string;
  readonly destination: string;
  readonly trafficClass: number;
  readonly hopLimit: number;
  /** IPv4 only. */
  readonly dontFragment: boolean;
  /** The protocol of the transport header. */
  readonly protocol: number;
  /** Where the transport header begins, or what a later fragment has instead. */
  readonly length: number;
  /** The length behind the header, from the length field: for a quote, that of the original packet. */
  readonly payloadLength: number;
  /** Absent: the packet is not a fragment. */
  readonly fragment: Fragment | undefined;
  /** There is an authentication header. */
  readonly isAuthenticated: boolean;
}

/** The IP version of an address. */
export function versionOf(address: string): IpVersion {
  return address.includes(':') ? 6 : 4;
}

/** Reads the IP header of a packet, or of what is left of one in a quote. */
export function parseIp(bytes: Uint8Array, quoted: boolean): IpHeader | VerdictName {
  const version = (bytes[0] ?? 0) >> 4;
  if (version === 4) return parseIpv4(bytes, quoted);
  return version === 6 ? parseIpv6(bytes, quoted) : 'DropMalformed';
}

function parseIpv4(bytes: Uint8Array, quoted: boolean): IpHeader | VerdictName {
  if (bytes.length < 20) return 'DropMalformed';
  const length = (bytes[0]! & 15) * 4;
  const totalLength = uint16(bytes, 2);
  if (length < 20 || length > bytes.length) return 'DropMalformed';
  if (!quoted) {
    if (totalLength !== bytes.length) return 'DropMalformed';
    if (!isRight(wordsOf(bytes.subarray(0, length)), 0)) return 'DropMalformed';
  }
  const flags = uint16(bytes, 6);
  const fragment = fragmentOf({
    identification: uint16(bytes, 4),
    offset: (flags & 0x1fff) * 8,
    more: (flags & 0x2000) !== 0,
    length: totalLength - length,
    quoted,
  });
  const fault = worst(optionsFault(bytes.subarray(20, length)), faultOf(fragment));
  if (fault !== undefined) return fault;
  return {
    version: 4,
    source: textOf(bytes.subarray(12, 16)),
    destination: textOf(bytes.subarray(16, 20)),
    trafficClass: bytes[1]!,
    hopLimit: bytes[8]!,
    dontFragment: (flags & 0x4000) !== 0,
    protocol: bytes[9]!,
    length,
    payloadLength: totalLength - length,
    fragment: fragment as Fragment | undefined,
    isAuthenticated: bytes[9] === AUTHENTICATION,
  };
}

function parseIpv6(bytes: Uint8Array, quoted: boolean): IpHeader | VerdictName {
  if (bytes.length < 40) return 'DropMalformed';
  const claimed = 40 + uint16(bytes, 4);
  if (!quoted && claimed !== bytes.length) return 'DropMalformed';
  const end = Math.min(claimed, bytes.length);
  let at = 40;
  let protocol = bytes[6]!;
  let fragment: Fragment | undefined;
  let hasFragmentHeader = false;
  let isAuthenticated = false;
  for (let count = 1; EXTENSION_HEADERS.includes(protocol); count++) {
    if (protocol === HOP_BY_HOP && count > 1) return 'DropMalformed';
    if (protocol === FRAGMENT && hasFragmentHeader) return 'DropMalformed';
    const length = extensionLength(bytes, at, protocol);
    if (at + 8 > end || at + length > end) return 'DropMalformed';
    const header = bytes.subarray(at, at + length);
    const fault = worst(
      extensionFault(protocol, header),
      count > MOST_EXTENSION_HEADERS ? 'DropUnsupported' : undefined
    );
    if (fault !== undefined) return fault;
    if (protocol === AUTHENTICATION) isAuthenticated = true;
    if (fragment !== undefined) fragment = { ...fragment, hasHeaders: true };
    at += length;
    if (protocol === FRAGMENT) {
      hasFragmentHeader = true;
      const found = fragmentOf({
        identification: uint16(header, 4) * 0x10000 + uint16(header, 6),
        offset: uint16(header, 2) & 0xfff8,
        more: (header[3]! & 1) !== 0,
        length: claimed - at,
        quoted,
      });
      if (typeof found === 'string') return found;
      fragment = found;
    }
    protocol = header[0]!;
    if (fragment !== undefined && fragment.offset > 0) break;
  }
  return {
    version: 6,
    source: textOf(bytes.subarray(8, 24)),
    destination: textOf(bytes.subarray(24, 40)),
    trafficClass: ((bytes[0]! & 15) << 4) | (bytes[1]! >> 4),
    hopLimit: bytes[7]!,
    dontFragment: false,
    protocol,
    length: at,
    payloadLength: claimed - at,
    fragment,
    isAuthenticated,
  };
}

/** Returns the fields of a fragment; undefined for an unfragmented packet (RFC 6946). */
function fragmentOf(fields: {
  readonly identification: number;
  readonly offset: number;
  readonly more: boolean;
  readonly length: number;
  readonly quoted: boolean;
}): Fragment | VerdictName | undefined {
  const { identification, offset, more, length, quoted } = fields;
  if (offset === 0 && !more) return undefined;
  const end = offset + length;
  if (quoted) {
    if (offset > 0) return 'DropFragment';
  } else if (length === 0 || (more && length % 8 !== 0) || end > 65_535) {
    return 'DropMalformed';
  }
  return { identification, offset, end, more, hasHeaders: false };
}

function faultOf(fragment: Fragment | VerdictName | undefined): VerdictName | undefined {
  return typeof fragment === 'string' ? fragment : undefined;
}

/** Returns the graver of two faults within one header: malformed comes before the others. */
function worst(a: VerdictName | undefined, b: VerdictName | undefined): VerdictName | undefined {
  return [a, b].includes('DropMalformed') ? 'DropMalformed' : (a ?? b);
}

/** RFC 791 section 3.1: a type byte, and except for types 0 and 1 a length that counts both bytes. */
function optionsFault(options: Uint8Array): VerdictName | undefined {
  let at = 0;
  let fault: VerdictName | undefined;
  while (at < options.length && options[at] !== END_OF_OPTIONS) {
    if (options[at] === NO_OPERATION) {
      at += 1;
      continue;
    }
    const length = options[at + 1];
    if (length === undefined || length < 2 || at + length > options.length) return 'DropMalformed';
    if (ADDRESS_OPTIONS.includes(options[at]!)) fault = 'DropUnsupported';
    at += length;
  }
  return fault;
}

/** RFC 8200 section 4: in units of 8 without the first, but RFC 4302: of 4 without the first two. */
function extensionLength(bytes: Uint8Array, at: number, type: number): number {
  if (type === FRAGMENT) return 8;
  const field = bytes[at + 1] ?? 0;
  return type === AUTHENTICATION ? (field + 2) * 4 : (field + 1) * 8;
}

function extensionFault(type: number, header: Uint8Array): VerdictName | undefined {
  if (type === ROUTING) return header[3] === 0 ? undefined : 'DropUnsupported';
  if (type !== HOP_BY_HOP && type !== DESTINATION_OPTIONS) return undefined;
  let fault: VerdictName | undefined;
  // RFC 8200 section 4.2: a type byte, and except for type 0 a length that counts neither.
  for (let at = 2; at < header.length; ) {
    if (header[at] === PAD1) {
      at += 1;
      continue;
    }
    const length = header[at + 1];
    if (length === undefined || at + 2 + length > header.length) return 'DropMalformed';
    if (header[at] === HOME_ADDRESS) fault = 'DropUnsupported';
    at += 2 + length;
  }
  return fault;
}

export function uint16(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!;
}

const END_OF_OPTIONS = 0;
const NO_OPERATION = 1;
/** Record route, timestamp, loose and strict source route (RFC 791 section 3.1). */
const ADDRESS_OPTIONS = [7, 68, 131, 137];

const HOP_BY_HOP = 0;
const ROUTING = 43;
const FRAGMENT = 44;
const AUTHENTICATION = 51;
const DESTINATION_OPTIONS = 60;
const EXTENSION_HEADERS = [HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION_OPTIONS];
const MOST_EXTENSION_HEADERS = 8;
const PAD1 = 0;
/** RFC 6275 section 6.3. */
const HOME_ADDRESS = 0xc9;
