/**
 * Check 9 of the translator's contract: the translated packet. IP header and transport are built separately,
 * and a quote like a packet. Every checksum is derived from what it covers before and after.
 * @module
 */
import { bytesOf } from '../support/address.ts';
import { checksumOf, isRight, onesSum, pseudoHeader, wordsOf } from '../support/checksum.ts';
import { checksumOffset, type Ends, ICMP, ICMPV6, UDP, UDPLITE } from '../support/packets.ts';
import { type IpVersion, uint16, versionOf } from './headers.ts';
import { type ErrorHeader, otherErrorHeader } from './icmp-errors.ts';
import { lengthAttribute, type Packet, type Quote } from './parse.ts';

export interface Manner {
  /** The transport checksum is partial: the sum of the pseudo-header. */
  readonly isPartial: boolean;
  /** Most that an MSS option may say. */
  readonly mss: number;
  /** The identification for an IPv4 packet without DF that was IPv6. */
  readonly identification: number;
  readonly isQuoted: boolean;
}

/** The packet with other ends, in their IP version. */
export function rewritten(
  bytes: Uint8Array,
  packet: Packet,
  ends: Ends,
  manner: Manner
): Uint8Array {
  const version = versionOf(ends.source);
  const transport = rewrittenTransport(bytes, packet, ends, manner);
  const header =
    version === packet.ip.version
      ? readdressedHeader(bytes, packet, ends)
      : version === 4
        ? ipv4Header(packet, ends, transport, manner)
        : ipv6Header(packet, ends, transport, manner);
  return joined(header, transport);
}

/** Where the transport header begins in a packet that is of `version` now. */
export function transportStartIn(packet: Packet, version: IpVersion): number {
  if (version === packet.ip.version) return packet.ip.length;
  if (version === 4) return 20;
  return packet.ip.fragment === undefined ? 40 : 48;
}

/** Whether a packet that was IPv6 took the identification that was there for it. */
export function isNumbered(packet: Packet, after: Uint8Array): boolean {
  return after[0]! >> 4 === 4 && packet.ip.fragment === undefined && (after[6]! & 0x40) === 0;
}

/** RFC 1812 section 4.3.2.3, RFC 4443 section 2.4. */
export const LONGEST_ERROR: Record<IpVersion, number> = { 4: 576, 6: 1280 };

function readdressedHeader(bytes: Uint8Array, { ip }: Packet, ends: Ends): Uint8Array {
  const before = bytes.subarray(0, ip.length);
  const after = before.slice();
  after.set(bytesOf(ends.source), ip.version === 4 ? 12 : 8);
  after.set(bytesOf(ends.destination), ip.version === 4 ? 16 : 24);
  if (ip.version === 4) {
    const covered = (header: Uint8Array): number[] => wordsOf(withZeroAt(header, 10));
    setUint16(after, 10, followed(uint16(before, 10), covered(before), covered(after)));
  }
  return after;
}

/** RFC 7915 section 5.1. */
function ipv4Header(
  { ip }: Packet,
  ends: Ends,
  transport: Uint8Array,
  { isQuoted, identification }: Manner
): Uint8Array {
  const totalLength = 20 + (isQuoted ? ip.payloadLength : transport.length);
  const header = new Uint8Array(20);
  header[0] = 0x45;
  header[1] = ip.trafficClass;
  setUint16(header, 2, Math.min(65_535, totalLength));
  if (ip.fragment !== undefined) {
    setUint16(header, 4, ip.fragment.identification % 0x10000);
    setUint16(header, 6, (ip.fragment.more ? 0x2000 : 0) | (ip.fragment.offset / 8));
  } else if (isQuoted || totalLength > 1260) {
    setUint16(header, 6, 0x4000);
  } else {
    setUint16(header, 4, identification);
  }
  header[8] = ip.hopLimit;
  header[9] = ip.protocol === ICMPV6 ? ICMP : ip.protocol;
  header.set(bytesOf(ends.source), 12);
  header.set(bytesOf(ends.destination), 16);
  setUint16(header, 10, checksumOf(wordsOf(header)));
  return header;
}

/** RFC 7915 section 4.1. */
function ipv6Header(
  { ip }: Packet,
  ends: Ends,
  transport: Uint8Array,
  { isQuoted }: Manner
): Uint8Array {
  const protocol = ip.protocol === ICMP ? ICMPV6 : ip.protocol;
  const header = new Uint8Array(ip.fragment === undefined ? 40 : 48);
  header[0] = 0x60 | (ip.trafficClass >> 4);
  header[1] = (ip.trafficClass & 15) << 4;
  setUint16(header, 4, header.length - 40 + (isQuoted ? ip.payloadLength : transport.length));
  header[6] = protocol;
  header[7] = ip.hopLimit;
  header.set(bytesOf(ends.source), 8);
  header.set(bytesOf(ends.destination), 24);
  if (ip.fragment !== undefined) {
    header[6] = 44;
    header[40] = protocol;
    setUint16(header, 42, ip.fragment.offset | (ip.fragment.more ? 1 : 0));
    setUint16(header, 46, ip.fragment.identification);
  }
  return header;
}

function rewrittenTransport(
  bytes: Uint8Array,
  packet: Packet,
  ends: Ends,
  manner: Manner
): Uint8Array {
  const before = bytes.subarray(packet.ip.length);
  const version = versionOf(ends.source);
  switch (packet.kind) {
    case 'later-fragment':
    case 'sctp':
    case 'ip':
      return before;
    case 'error':
      return withChecksum(before, rewrittenError(before, packet, ends), packet, ends, manner);
    case 'echo-request':
    case 'echo-reply': {
      const after = before.slice();
      if (version !== packet.ip.version) after[0] = ECHO_TYPES[version][packet.kind];
      return withChecksum(before, after, packet, ends, manner);
    }
    case 'tcp': {
      const after = before.slice();
      if (!manner.isQuoted) lowerMss(after, manner.mss);
      return withChecksum(before, after, packet, ends, manner);
    }
    default:
      return withChecksum(before, before.slice(), packet, ends, manner);
  }
}

/** An ICMP error with another quote and, in the other IP version, another header. */
function rewrittenError(message: Uint8Array, packet: Packet, ends: Ends): Uint8Array {
  const quote = packet.quote!;
  const quoted = rewritten(
    quote.bytes,
    quote.packet,
    { source: ends.destination, destination: ends.source },
    { isPartial: false, mss: 0, identification: 0, isQuoted: true }
  );
  const version = versionOf(ends.source);
  if (version === packet.ip.version) {
    return joined(message.subarray(0, 8), quoted, quote.extensions);
  }
  const header = otherErrorHeader(packet.ip.version, message, totalLengthOf(quote))!;
  const most = LONGEST_ERROR[version] - transportStartIn(packet, version);
  const attribute = lengthAttribute(version, header.type);
  if (quote.extensions !== undefined && attribute !== undefined) {
    const length = Math.max(128, Math.ceil(quoted.length / attribute.unit) * attribute.unit);
    const padding = new Uint8Array(length - quoted.length);
    const first = errorHeader(header);
    first[attribute.at] = length / attribute.unit;
    const extended = joined(first, quoted, padding, quote.extensions);
    if (extended.length <= most) return extended;
  }
  return joined(errorHeader(header), quoted).slice(0, most);
}

function errorHeader({ type, code, rest }: ErrorHeader): Uint8Array {
  return Uint8Array.from([type, code, 0, 0, ...rest]);
}

function totalLengthOf({ packet: { ip } }: Quote): number {
  return ip.length + ip.payloadLength;
}

/** Lowers every MSS option (RFC 9293 section 3.2) of a TCP segment with SYN, up to a malformed option. */
function lowerMss(segment: Uint8Array, most: number): void {
  if ((segment[13]! & 0x02) === 0) return;
  const end = (segment[12]! >> 4) * 4;
  for (let at = 20; at < end && segment[at] !== 0; ) {
    if (segment[at] === 1) {
      at += 1;
      continue;
    }
    const length = at + 1 < end ? segment[at + 1]! : 0;
    if (length < 2 || at + length > end) return;
    if (segment[at] === 2 && length === 4 && uint16(segment, at + 2) > most) {
      setUint16(segment, at + 2, most);
    }
    at += length;
  }
}

/**
 * Writes into `after` the checksum that follows from the one in `before`. Leaves alone what a quote has
 * cut off: half a checksum cannot be changed, and what follows behind the length of the quoted packet is
 * none of it.
 */
function withChecksum(
  before: Uint8Array,
  after: Uint8Array,
  packet: Packet,
  ends: Ends,
  { isPartial, isQuoted }: Manner
): Uint8Array {
  const { ip } = packet;
  const version = versionOf(ends.source);
  const at = checksumOffset(ip.protocol)!;
  if (at + 2 > Math.min(before.length, ip.payloadLength)) return after;
  const pseudoBefore = pseudoOf(ip, ip.version, ip.protocol, ip.payloadLength);
  const pseudoAfter = pseudoOf(
    ends,
    version,
    otherProtocol(ip.protocol, version),
    packet.kind === 'error' ? after.length : ip.payloadLength
  );
  let field = uint16(before, at);
  if (isPartial && pseudoAfter.length > 0) {
    setUint16(after, at, followedPartial(field, pseudoBefore, pseudoAfter));
    return after;
  }
  // What a device would do that sends the packet.
  if (isPartial) field = checksumOf(wordsOf(before));
  const covered = (pseudo: readonly number[], transport: Uint8Array): number[] => [
    ...pseudo,
    ...wordsOf(withZeroAt(transport, at).subarray(0, coverageOf(packet, before))),
  ];
  let checksum = followed(field, covered(pseudoBefore, before), covered(pseudoAfter, after));
  if (ip.protocol === UDP && field === 0) {
    const isMissed = version === 6 && !isQuoted && ip.fragment === undefined;
    if (!isMissed) return after;
    checksum = checksumOf(covered(pseudoAfter, after));
  }
  const neverZero = ip.protocol === UDP || ip.protocol === UDPLITE;
  setUint16(after, at, checksum === 0 && neverZero ? 0xffff : checksum);
  return after;
}

/** How much of the transport the checksum covers, from its start: only UDP-Lite says (RFC 3828). */
function coverageOf(packet: Packet, transport: Uint8Array): number | undefined {
  return packet.kind === 'udplite' ? uint16(transport, 4) || undefined : undefined;
}

/**
 * Correct ones are computed in full, wrong ones stay wrong by the same amount. Where the changes cancel
 * out, nothing has to follow: the two forms of zero, 0 and 0xffff, are left as they were.
 */
function followed(field: number, before: readonly number[], after: readonly number[]): number {
  const [sumBefore, sumAfter] = [onesSum(before), onesSum(after)];
  if (sumBefore === sumAfter) return field;
  if (isRight(before, field)) return checksumOf(after);
  return 0xffff - onesSum([0xffff - field, 0xffff - sumBefore, sumAfter]);
}

/** The same for the bare sum of the pseudo-header, which is not complemented. */
function followedPartial(
  field: number,
  before: readonly number[],
  after: readonly number[]
): number {
  return 0xffff - followed(0xffff - field, before, after);
}

function pseudoOf(
  ends: { readonly source: string; readonly destination: string },
  version: IpVersion,
  protocol: number,
  length: number
): number[] {
  if (version === 4 && protocol === ICMP) return [];
  return pseudoHeader(bytesOf(ends.source), bytesOf(ends.destination), protocol, length);
}

/** ICMP has a number for each IP version. */
function otherProtocol(protocol: number, version: IpVersion): number {
  if (protocol === ICMP || protocol === ICMPV6) return version === 4 ? ICMP : ICMPV6;
  return protocol;
}

function withZeroAt(bytes: Uint8Array, at: number): Uint8Array {
  const copy = bytes.slice();
  setUint16(copy, at, 0);
  return copy;
}

export function joined(...parts: readonly (Uint8Array | undefined)[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + (part?.length ?? 0), 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part ?? [], at);
    at += part?.length ?? 0;
  }
  return whole;
}

export function setUint16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >> 8;
  bytes[at + 1] = value & 255;
}

const ECHO_TYPES = {
  4: { 'echo-request': 8, 'echo-reply': 0 },
  6: { 'echo-request': 128, 'echo-reply': 129 },
};
