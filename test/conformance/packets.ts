/**
 * Packets by field, of both IP versions, every checksum computed from nothing. What is built here for
 * the addresses before and for those after a translation shares no bytes, only the description.
 * @module
 */
import { bytesOf } from '../support/address.ts';
import { checksumOf, onesSum, pseudoHeader, wordsOf } from '../support/checksum.ts';

export const ICMP = 1;
export const TCP = 6;
export const UDP = 17;
export const GRE = 47;
export const ICMPV6 = 58;
export const SCTP = 132;
export const UDPLITE = 136;

export const HOP_BY_HOP = 0;
export const ROUTING = 43;
export const FRAGMENT = 44;
export const AUTHENTICATION = 51;
export const NO_NEXT_HEADER = 59;
export const DESTINATION = 60;

export const FIN = 0x01;
export const SYN = 0x02;
export const RST = 0x04;
export const PSH = 0x08;
export const ACK = 0x10;

export interface Ends {
  readonly source: string;
  readonly destination: string;
}

/** An IPv6 extension header; its first byte, the next header, is filled in when it is put in place. */
export interface Extension {
  readonly type: number;
  readonly bytes: Uint8Array;
}

/** The fields of both IP headers; those of the other version are not looked at. */
export interface Ip {
  /** IPv4 TOS, IPv6 traffic class; 0 unless told. */
  readonly tos?: number;
  /** IPv4 TTL, IPv6 hop limit; 64 unless told. */
  readonly ttl?: number;
  /** IPv4; 0xbeef unless told. */
  readonly id?: number;
  /** IPv4 "don't fragment"; set unless told. */
  readonly df?: boolean;
  /** IPv4 "more fragments". */
  readonly mf?: boolean;
  /** IPv4 fragment offset, in bytes. */
  readonly offset?: number;
  /** IPv4 options, filled up with zeros to a multiple of 4 bytes. */
  readonly options?: Uint8Array;
  /** IPv6 flow label. */
  readonly flow?: number;
  readonly extensions?: readonly Extension[];
  /** Instead of the right IPv4 total length or IPv6 payload length. */
  readonly length?: number;
  /** Instead of the right IPv4 header checksum. */
  readonly headerChecksum?: number;
}

/** What stands behind the IP header, its checksum right for these addresses. */
export type Transport = (ends: Ends) => { readonly protocol: number; readonly bytes: Uint8Array };

/** `partial`: the sum of the pseudo-header; `receiver`: what a receiver sums up to, 0xffff if right. */
export type Fill = 'complete' | 'partial' | number | { readonly receiver: number };

export function isIpv6({ source }: Ends): boolean {
  return source.includes(':');
}

export function packet(ends: Ends, transport: Transport, ip: Ip = {}): Uint8Array {
  const { protocol, bytes } = transport(ends);
  return isIpv6(ends) ? ipv6(ends, protocol, bytes, ip) : ipv4(ends, protocol, bytes, ip);
}

/**
 * The bytes `from` to `to` of what stands behind the IP header, as a fragment. In IPv6, `extensions`
 * are those in front of the fragment header.
 */
export function fragment(
  ends: Ends,
  transport: Transport,
  [from, to]: readonly [number, number],
  ip: Ip & { readonly more?: boolean } = {}
): Uint8Array {
  const { protocol, bytes } = transport(ends);
  const more = ip.more ?? to < bytes.length;
  const part = raw(protocol, bytes.slice(from, to));
  const id = ip.id ?? 0xbeef;
  if (!isIpv6(ends)) {
    return packet(ends, part, { df: false, ...ip, id, mf: more, offset: from });
  }
  const header = fragmentHeader({ offset: from, more, id });
  return packet(ends, part, { ...ip, extensions: [...(ip.extensions ?? []), header] });
}

/** Any bytes, which no checksum covers that depends on addresses. */
export function raw(protocol: number, bytes: Uint8Array): Transport {
  return () => ({ protocol, bytes });
}

export interface TcpFields {
  readonly from?: number;
  readonly to?: number;
  readonly sequence?: number;
  readonly acknowledgment?: number;
  readonly flags?: number;
  readonly window?: number;
  readonly urgent?: number;
  /** Filled up with zeros to a multiple of 4 bytes. */
  readonly options?: Uint8Array;
  /** Instead of the right data offset, in units of 4 bytes. */
  readonly dataOffset?: number;
  readonly payload?: Uint8Array;
  readonly checksum?: Fill;
}

export function tcp(fields: TcpFields = {}): Transport {
  const options = padded(fields.options ?? NOTHING, 4);
  const header = bytes(
    u16(fields.from ?? 40_000),
    u16(fields.to ?? 5672),
    u32(fields.sequence ?? 0x01020304),
    u32(fields.acknowledgment ?? 0xfffefdfc),
    u8((fields.dataOffset ?? 5 + options.length / 4) << 4),
    u8(fields.flags ?? ACK),
    u16(fields.window ?? 0xfaf0),
    u16(0),
    u16(fields.urgent ?? 0),
    options
  );
  return summed(TCP, 16, bytes(header, fields.payload ?? NOTHING), fields.checksum);
}

export interface UdpFields {
  readonly from?: number;
  readonly to?: number;
  readonly payload?: Uint8Array;
  readonly checksum?: Fill;
  /** Instead of the right length (UDP), or the coverage, by default all (UDP-Lite). */
  readonly length?: number;
}

export function udp(fields: UdpFields = {}): Transport {
  const payload = fields.payload ?? TEXT;
  const length = fields.length ?? 8 + payload.length;
  const header = [u16(fields.from ?? 40_000), u16(fields.to ?? 53), u16(length), u16(0)];
  return summed(UDP, 6, bytes(...header, payload), fields.checksum);
}

/** RFC 3828: the checksum covers `length` bytes, or all if it is 0. */
export function udpLite(fields: UdpFields = {}): Transport {
  const payload = fields.payload ?? TEXT;
  const coverage = fields.length ?? 8 + payload.length;
  const header = [u16(fields.from ?? 40_000), u16(fields.to ?? 7), u16(coverage), u16(0)];
  return summed(UDPLITE, 6, bytes(...header, payload), fields.checksum, coverage);
}

export interface SctpFields {
  readonly from?: number;
  readonly to?: number;
  /** Type of the first chunk. */
  readonly chunk?: number;
  readonly payload?: Uint8Array;
}

/** An SCTP packet of one chunk, with its CRC32c (RFC 9260 section 6.8). */
export function sctp(fields: SctpFields = {}): Transport {
  const value = fields.payload ?? NOTHING;
  const chunk = bytes(u8(fields.chunk ?? 0), u8(3), u16(4 + value.length), padded(value, 4));
  const header = [u16(fields.from ?? 40_000), u16(fields.to ?? 5060), u32(0xcafe0001), u32(0)];
  const whole = bytes(...header, chunk);
  const crc = crc32c(whole);
  for (let i = 0; i < 4; i++) whole[8 + i] = (crc >>> (8 * i)) & 255;
  return raw(SCTP, whole);
}

export function echo(
  fields: {
    readonly reply?: boolean;
    readonly id?: number;
    readonly sequence?: number;
    readonly payload?: Uint8Array;
    readonly checksum?: Fill;
  } = {}
): Transport {
  return (ends) => {
    const [request, reply] = isIpv6(ends) ? [128, 129] : [8, 0];
    return icmp({
      type: (fields.reply ? reply : request)!,
      rest: bytes(u16(fields.id ?? 0x1234), u16(fields.sequence ?? 1)),
      body: fields.payload ?? TEXT,
      ...(fields.checksum === undefined ? {} : { checksum: fields.checksum }),
    })(ends);
  };
}

/** Any ICMP or ICMPv6 message, by the IP version of the addresses. */
export function icmp(fields: {
  readonly type: number;
  readonly code?: number;
  /** Bytes 4 to 7; zero unless told. */
  readonly rest?: Uint8Array;
  readonly body?: Uint8Array;
  readonly checksum?: Fill;
}): Transport {
  const header = [u8(fields.type), u8(fields.code ?? 0), u16(0), fields.rest ?? u32(0)];
  const message = bytes(...header, fields.body ?? NOTHING);
  return (ends) => summed(isIpv6(ends) ? ICMPV6 : ICMP, 2, message, fields.checksum)(ends);
}

/** Hop-by-hop or destination options, filled up to a multiple of 8 bytes with Pad1. */
export function optionsHeader(type: number, options: Uint8Array): Extension {
  const length = Math.ceil((2 + options.length) / 8) * 8;
  return { type, bytes: padded(bytes(u8(0), u8(length / 8 - 1), options), 8) };
}

/** A type 0 routing header with one address. */
export function routingHeader(segmentsLeft: number): Extension {
  const address = bytesOf('2001:db8::77');
  return { type: ROUTING, bytes: bytes(u8(0), u8(2), u8(0), u8(segmentsLeft), u32(0), address) };
}

/** RFC 4302: with 12 bytes of integrity check value. */
export function authenticationHeader(): Extension {
  const header = [u8(0), u8(4), u16(0), u32(0x1001), u32(7)];
  return { type: AUTHENTICATION, bytes: bytes(...header, counting(12)) };
}

export function fragmentHeader(fields: {
  readonly offset?: number;
  readonly more?: boolean;
  readonly id?: number;
}): Extension {
  const place = (fields.offset ?? 0) | (fields.more ? 1 : 0);
  return { type: FRAGMENT, bytes: bytes(u8(0), u8(0), u16(place), u32(fields.id ?? 0xbeef)) };
}

export interface Vnet {
  readonly flags?: number;
  readonly gsoType?: number;
  readonly headerLength?: number;
  readonly gsoSize?: number;
  readonly checksumStart?: number;
  readonly checksumOffset?: number;
}

export const NEEDS_CSUM = 1;
export const GSO_TCPV4 = 1;
export const GSO_UDP = 3;
export const GSO_TCPV6 = 4;
export const GSO_UDP_L4 = 5;
export const GSO_ECN = 0x80;

/** The 10 bytes of virtio 1.2 section 5.1.6, little-endian. */
export function vnetHeader(fields: Vnet = {}): Uint8Array {
  const words = [
    fields.headerLength ?? 0,
    fields.gsoSize ?? 0,
    fields.checksumStart ?? 0,
    fields.checksumOffset ?? 0,
  ];
  const little = words.flatMap((word) => [u8(word & 255), u8(word >> 8)]);
  return bytes(u8(fields.flags ?? 0), u8(fields.gsoType ?? 0), ...little);
}

/** The 16-bit word to write so that `words` and it add up to `sum`, in ones' complement. */
export function complementTo(sum: number, words: readonly number[]): number {
  return onesSum([sum, 0xffff - onesSum(words)]);
}

/** What the words of the transport header and the pseudo-header sum up to, the checksum as 0. */
export function transportSum(ends: Ends, transport: Transport, checksumAt: number): number {
  const { protocol, bytes: segment } = transport(ends);
  const copy = segment.slice();
  copy[checksumAt] = 0;
  copy[checksumAt + 1] = 0;
  return onesSum([...pseudoOf(ends, protocol, copy.length), ...wordsOf(copy)]);
}

export function bytes(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

export function u8(value: number): Uint8Array {
  return Uint8Array.of(value);
}

export function u16(value: number): Uint8Array {
  return Uint8Array.of(value >> 8, value & 255);
}

export function u32(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255);
}

/** `length` bytes, all of them different from their neighbours. */
export function counting(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 7 + 3) & 255);
}

export function padded(part: Uint8Array, unit: number): Uint8Array {
  return bytes(part, new Uint8Array(Math.ceil(part.length / unit) * unit - part.length));
}

function ipv4(ends: Ends, protocol: number, payload: Uint8Array, ip: Ip): Uint8Array {
  const options = padded(ip.options ?? NOTHING, 4);
  const headerLength = 20 + options.length;
  const flags = ((ip.df ?? true) ? 0x4000 : 0) | (ip.mf ? 0x2000 : 0);
  const whole = bytes(
    u8(0x40 | (headerLength / 4)),
    u8(ip.tos ?? 0),
    u16(ip.length ?? headerLength + payload.length),
    u16(ip.id ?? 0xbeef),
    u16(flags | ((ip.offset ?? 0) / 8)),
    u8(ip.ttl ?? 64),
    u8(protocol),
    u16(0),
    bytesOf(ends.source),
    bytesOf(ends.destination),
    options,
    payload
  );
  const checksum = ip.headerChecksum ?? checksumOf(wordsOf(whole.subarray(0, headerLength)));
  whole.set(u16(checksum), 10);
  return whole;
}

function ipv6(ends: Ends, protocol: number, payload: Uint8Array, ip: Ip): Uint8Array {
  const extensions = ip.extensions ?? [];
  const nexts = [...extensions.map(({ type }) => type), protocol];
  const headers = extensions.map((extension, i) => {
    const header = extension.bytes.slice();
    if (header.length > 0) header[0] = nexts[i + 1]!;
    return header;
  });
  const behind = bytes(...headers, payload);
  return bytes(
    u32(0x60000000 + (ip.tos ?? 0) * 0x100000 + (ip.flow ?? 0)),
    u16(ip.length ?? behind.length),
    u8(nexts[0]!),
    u8(ip.ttl ?? 64),
    bytesOf(ends.source),
    bytesOf(ends.destination),
    behind
  );
}

function summed(
  protocol: number,
  checksumAt: number,
  segment: Uint8Array,
  fill: Fill = 'complete',
  coverage = 0
): Transport {
  return (ends) => {
    const whole = segment.slice();
    const pseudo = pseudoOf(ends, protocol, whole.length);
    const covered = wordsOf(coverage === 0 ? whole : whole.subarray(0, coverage));
    let checksum = 0;
    if (fill === 'complete') {
      checksum = checksumOf([...pseudo, ...covered]);
      if (checksum === 0 && (protocol === UDP || protocol === UDPLITE)) checksum = 0xffff;
    } else if (fill === 'partial') {
      checksum = onesSum(pseudo);
    } else if (typeof fill === 'number') {
      checksum = fill;
    } else {
      checksum = complementTo(fill.receiver, [...pseudo, ...covered]);
    }
    whole.set(u16(checksum), checksumAt);
    return { protocol, bytes: whole };
  };
}

function pseudoOf(ends: Ends, protocol: number, length: number): number[] {
  if (protocol === ICMP) return [];
  return pseudoHeader(bytesOf(ends.source), bytesOf(ends.destination), protocol, length);
}

/** RFC 9260 appendix A, a bit at a time. */
function crc32c(data: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of data) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

export const NOTHING: Uint8Array = new Uint8Array(0);

export const TEXT: Uint8Array = Uint8Array.from('the quick brown fox', (letter) =>
  letter.charCodeAt(0)
);

export function onesChecksum(data: Uint8Array): number {
  return checksumOf(wordsOf(data));
}
