/**
 * Builds packets of both IP versions from their fields, with right lengths and checksums unless a test asks for
 * wrong ones. It shares no code with `src`: each checksum is computed from zero.
 *
 * A packet has two forms: `tcpPacket(ends, fields)`, and `packet(ends, tcp(fields), ip)`, whose transport can be
 * built again for other addresses.
 * @module
 */
import { bytesOf } from './address.ts';
import { bytes, NOTHING, padded, u8, u16, u32 } from './bytes.ts';
import { checksumOf, onesSum, pseudoHeader, wordsOf } from './checksum.ts';

export const ICMP = 1;
export const TCP = 6;
export const UDP = 17;
export const DCCP = 33;
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
export const CWR = 0x80;

/** IPv4 flags, as bits of `IpOptions.fragment`. */
export const DONT_FRAGMENT = 0x4000;
export const MORE_FRAGMENTS = 0x2000;

export interface Ends {
  readonly source: string;
  readonly destination: string;
}

/** The fields of both IP headers; those of the other version are ignored. */
export interface IpOptions {
  /** IPv4 TOS, IPv6 traffic class; 0 by default. */
  readonly trafficClass?: number;
  /** IPv4 TTL, IPv6 hop limit; 64 by default. */
  readonly hopLimit?: number;
  /** IPv4; 0xbeef by default. */
  readonly identification?: number;
  /** The IPv4 flags and fragment offset (in units of 8 bytes) as one 16-bit word; DF by default. */
  readonly fragment?: number;
  /** IPv4 options, filled up with zeros to a multiple of 4 bytes. */
  readonly options?: Uint8Array;
  /** IPv6. */
  readonly flowLabel?: number;
  /** IPv6, in their order. */
  readonly extensions?: readonly Extension[];
  /** Instead of the right IPv4 total length or IPv6 payload length. */
  readonly length?: number;
  /** Instead of the right IPv4 header checksum. */
  readonly headerChecksum?: number;
}

/** An IPv6 extension header; its first byte, the next header, is filled in when it is put in place. */
export interface Extension {
  readonly type: number;
  readonly bytes: Uint8Array;
}

/**
 * How a transport checksum is filled in. `partial`: the sum of the pseudo-header; `none`: 0; a number: this one;
 * `receiver`: so that a receiver sums up to this, where 0xffff is right.
 */
export type ChecksumFill = 'complete' | 'partial' | 'none' | number | { readonly receiver: number };

/** What follows the IP header, with a checksum that is right for these addresses. */
export type Transport = (ends: Ends) => { readonly protocol: number; readonly bytes: Uint8Array };

interface Segment {
  readonly payload?: Uint8Array;
  readonly checksum?: ChecksumFill;
}

interface Ports {
  readonly sourcePort: number;
  readonly destinationPort: number;
}

export interface TcpFields extends Segment, Ports {
  readonly sequence?: number;
  readonly acknowledgment?: number;
  /** ACK by default. */
  readonly flags?: number;
  readonly window?: number;
  readonly urgent?: number;
  /** Filled up with zeros to a multiple of 4 bytes. */
  readonly tcpOptions?: Uint8Array;
  /** Instead of the right data offset, in units of 4 bytes. */
  readonly dataOffset?: number;
}

export interface UdpFields extends Segment, Ports {
  /** Instead of the right one. */
  readonly udpLength?: number;
}

export interface UdpLiteFields extends Segment, Ports {
  /** How many bytes the checksum covers; 0, the default, covers everything (RFC 3828). */
  readonly coverage?: number;
}

export interface SctpFields extends Ports {
  /** The chunks. */
  readonly payload?: Uint8Array;
}

export interface EchoFields extends Segment {
  readonly reply?: boolean;
  readonly id?: number;
  readonly sequence?: number;
}

export interface IcmpFields extends Segment {
  readonly type: number;
  readonly code?: number;
  /** Bytes 4 to 7; zero by default. */
  readonly rest?: number | Uint8Array;
}

export interface IcmpErrorFields extends Omit<IcmpFields, 'payload' | 'rest'> {
  readonly rest?: number;
  readonly quoted: Uint8Array;
  /** How many bytes of `quoted` it quotes; all by default. */
  readonly quoteLength?: number;
  /** RFC 4884: the quote is filled up, and its length is given where the type has a place for it. */
  readonly icmpExtensions?: Uint8Array | undefined;
}

export function packet(ends: Ends, transport: Transport, ip: IpOptions = {}): Uint8Array {
  const { protocol, bytes: payload } = transport(ends);
  return ipPacket(ends, protocol, payload, ip);
}

export function ipPacket(
  ends: Ends,
  protocol: number,
  payload: Uint8Array,
  ip: IpOptions = {}
): Uint8Array {
  return isIpv6(ends) ? ipv6(ends, protocol, payload, ip) : ipv4(ends, protocol, payload, ip);
}

export function tcpPacket(ends: Ends, fields: TcpFields & IpOptions): Uint8Array {
  return packet(ends, tcp(fields), fields);
}

export function udpPacket(ends: Ends, fields: UdpFields & IpOptions): Uint8Array {
  return packet(ends, udp(fields), fields);
}

export function udpLitePacket(ends: Ends, fields: UdpLiteFields & IpOptions): Uint8Array {
  return packet(ends, udpLite(fields), fields);
}

export function sctpPacket(ends: Ends, fields: SctpFields & IpOptions): Uint8Array {
  return packet(ends, sctp(fields), fields);
}

export function echoPacket(ends: Ends, fields: EchoFields & IpOptions): Uint8Array {
  return packet(ends, echo(fields), fields);
}

export function icmpMessage(ends: Ends, fields: IcmpFields & IpOptions): Uint8Array {
  return packet(ends, icmp(fields), fields);
}

export function icmpError(ends: Ends, error: IcmpErrorFields & IpOptions): Uint8Array {
  const quote = error.quoted.subarray(0, error.quoteLength ?? error.quoted.length);
  if (error.icmpExtensions === undefined) return icmpMessage(ends, { ...error, payload: quote });
  const unit = isIpv6(ends) ? 8 : 4;
  const length = Math.max(128, Math.ceil(quote.length / unit) * unit);
  const payload = bytes(quote, new Uint8Array(length - quote.length), error.icmpExtensions);
  const attribute = (length / unit) * (isIpv6(ends) ? 0x1000000 : 0x10000);
  return icmpMessage(ends, { ...error, rest: (error.rest ?? 0) + attribute, payload });
}

/** Any bytes, none of whose checksums depends on addresses. */
export function raw(protocol: number, payload: Uint8Array): Transport {
  return () => ({ protocol, bytes: payload });
}

export function tcp(fields: TcpFields): Transport {
  const options = padded(fields.tcpOptions ?? NOTHING, 4);
  const header = new Uint8Array(20 + options.length);
  const view = new DataView(header.buffer);
  view.setUint16(0, fields.sourcePort);
  view.setUint16(2, fields.destinationPort);
  view.setUint32(4, fields.sequence ?? 0x01020304);
  view.setUint32(8, fields.acknowledgment ?? 0xfffefdfc);
  view.setUint8(12, (fields.dataOffset ?? header.length / 4) << 4);
  view.setUint8(13, fields.flags ?? ACK);
  view.setUint16(14, fields.window ?? 0xfaf0);
  view.setUint16(18, fields.urgent ?? 0);
  header.set(options, 20);
  return summed(TCP, header, fields);
}

export function udp(fields: UdpFields): Transport {
  const length = fields.udpLength ?? 8 + (fields.payload?.length ?? 0);
  return summed(UDP, bytes(portsOf(fields), u16(length), u16(0)), fields);
}

export function udpLite(fields: UdpLiteFields): Transport {
  const header = bytes(portsOf(fields), u16(fields.coverage ?? 0), u16(0));
  return summed(UDPLITE, header, fields, fields.coverage);
}

/** Builds an SCTP packet with its CRC32c, which covers no addresses (RFC 9260 section 6.8). */
export function sctp(fields: SctpFields): Transport {
  const whole = bytes(portsOf(fields), u32(0xcafe0001), u32(0), fields.payload ?? NOTHING);
  new DataView(whole.buffer).setUint32(8, crc32c(whole), true);
  return raw(SCTP, whole);
}

export function echo(fields: EchoFields = {}): Transport {
  const { id = 0x1234, sequence = 1, reply = false, ...segment } = fields;
  const rest = bytes(u16(id), u16(sequence));
  return (ends) => {
    const [request, answer] = isIpv6(ends) ? [128, 129] : [8, 0];
    return icmp({ ...segment, type: reply ? answer : request, rest })(ends);
  };
}

/** Any ICMP or ICMPv6 message, by the IP version of the addresses. */
export function icmp(fields: IcmpFields): Transport {
  const { rest = 0 } = fields;
  const word = typeof rest === 'number' ? u32(rest) : rest;
  const header = bytes(u8(fields.type), u8(fields.code ?? 0), u16(0), word);
  const [v4, v6] = [ICMP, ICMPV6].map((protocol) => summed(protocol, header, fields));
  return (ends) => (isIpv6(ends) ? v6! : v4!)(ends);
}

/**
 * The bytes `from` to `to` of what follows the IP header, as a fragment. In IPv6, `extensions` are those in front
 * of the fragment header.
 */
export function fragment(
  ends: Ends,
  transport: Transport,
  [from, to]: readonly [number, number],
  ip: IpOptions & { readonly more?: boolean } = {}
): Uint8Array {
  const { protocol, bytes: payload } = transport(ends);
  const more = ip.more ?? to < payload.length;
  const part = payload.slice(from, to);
  const id = ip.identification ?? 0xbeef;
  if (isIpv6(ends)) {
    const header = fragmentHeader({ offset: from, more, id });
    return ipv6(ends, protocol, part, { ...ip, extensions: [...(ip.extensions ?? []), header] });
  }
  const word = ((ip.fragment ?? 0) & DONT_FRAGMENT) | (more ? MORE_FRAGMENTS : 0) | (from / 8);
  return ipv4(ends, protocol, part, { ...ip, fragment: word });
}

export function fragmentHeader(fields: {
  /** In bytes. */
  readonly offset?: number;
  readonly more?: boolean;
  readonly id?: number;
}): Extension {
  const place = (fields.offset ?? 0) | (fields.more ? 1 : 0);
  return { type: FRAGMENT, bytes: bytes(u8(0), u8(0), u16(place), u32(fields.id ?? 0xbeef)) };
}

/** Hop-by-hop or destination options, filled up to a multiple of 8 bytes with Pad1. */
export function optionsHeader(type: number, options: Uint8Array): Extension {
  const length = Math.ceil((2 + options.length) / 8) * 8;
  return { type, bytes: padded(bytes(u8(0), u8(length / 8 - 1), options), 8) };
}

/** What follows the IP headers of a packet, and where. */
export function transportOf(packet: Uint8Array): { protocol: number; start: number } {
  if (packet[0]! >> 4 === 4) return { protocol: packet[9]!, start: (packet[0]! & 15) * 4 };
  let protocol = packet[6]!;
  let start = 40;
  while (EXTENSIONS.includes(protocol) && start + 1 < packet.length) {
    const field = protocol === FRAGMENT ? 0 : packet[start + 1]!;
    const length = protocol === AUTHENTICATION ? (field + 2) * 4 : (field + 1) * 8;
    protocol = packet[start]!;
    start += length;
  }
  return { protocol, start };
}

/** Where the transport header of a packet begins. */
export function transportStart(packet: Uint8Array): number {
  return transportOf(packet).start;
}

/** Where in its transport header a protocol keeps the Internet checksum, if it has one. */
export function checksumOffset(protocol: number): number | undefined {
  return CHECKSUM_OFFSETS.get(protocol);
}

/** Writes the right checksum into the IPv4 header, if the packet has one that is whole. */
export function repairIpv4Checksum(packet: Uint8Array): void {
  const length = ((packet[0] ?? 0) & 15) * 4;
  if (packet.length < 20 || packet[0]! >> 4 !== 4 || length < 20 || length > packet.length) return;
  packet.fill(0, 10, 12);
  packet.set(u16(checksumOf(wordsOf(packet.subarray(0, length)))), 10);
}

/** The 16-bit word to write so that `words` and it add up to `sum`, in ones' complement. */
export function complementTo(sum: number, words: readonly number[]): number {
  return onesSum([sum, 0xffff - onesSum(words)]);
}

/** What the words of the transport header and the pseudo-header sum up to, with the checksum as 0. */
export function transportSum(ends: Ends, transport: Transport, checksumAt: number): number {
  const { protocol, bytes: segment } = transport(ends);
  const copy = segment.slice().fill(0, checksumAt, checksumAt + 2);
  return onesSum([...pseudoOf(ends, protocol, copy.length), ...wordsOf(copy)]);
}

export function isIpv6({ destination }: Ends): boolean {
  return destination.includes(':');
}

function ipv4(ends: Ends, protocol: number, payload: Uint8Array, ip: IpOptions): Uint8Array {
  const options = padded(ip.options ?? NOTHING, 4);
  const headerLength = 20 + options.length;
  const whole = new Uint8Array(headerLength + payload.length);
  const view = new DataView(whole.buffer);
  view.setUint8(0, 0x40 | (headerLength / 4));
  view.setUint8(1, ip.trafficClass ?? 0);
  view.setUint16(2, ip.length ?? whole.length);
  view.setUint16(4, ip.identification ?? 0xbeef);
  view.setUint16(6, ip.fragment ?? DONT_FRAGMENT);
  view.setUint8(8, ip.hopLimit ?? 64);
  view.setUint8(9, protocol);
  whole.set(bytesOf(ends.source), 12);
  whole.set(bytesOf(ends.destination), 16);
  whole.set(options, 20);
  view.setUint16(10, ip.headerChecksum ?? checksumOf(wordsOf(whole.subarray(0, headerLength))));
  whole.set(payload, headerLength);
  return whole;
}

function ipv6(ends: Ends, protocol: number, payload: Uint8Array, ip: IpOptions): Uint8Array {
  const extensions = ip.extensions ?? [];
  const start = extensions.reduce((sum, extension) => sum + extension.bytes.length, 40);
  const whole = new Uint8Array(start + payload.length);
  const view = new DataView(whole.buffer);
  view.setUint32(0, 0x60000000 + (ip.trafficClass ?? 0) * 0x100000 + (ip.flowLabel ?? 0));
  view.setUint16(4, ip.length ?? whole.length - 40);
  view.setUint8(6, extensions[0]?.type ?? protocol);
  view.setUint8(7, ip.hopLimit ?? 64);
  whole.set(bytesOf(ends.source), 8);
  whole.set(bytesOf(ends.destination), 24);
  let at = 40;
  for (const [i, extension] of extensions.entries()) {
    whole.set(extension.bytes, at);
    if (extension.bytes.length > 0) whole[at] = extensions[i + 1]?.type ?? protocol;
    at += extension.bytes.length;
  }
  whole.set(payload, start);
  return whole;
}

/** @param coverage how many bytes the checksum covers; all if it is 0 */
function summed(
  protocol: number,
  header: Uint8Array,
  { payload = NOTHING, checksum: fill = 'complete' }: Segment,
  coverage = 0
): Transport {
  const checksumAt = CHECKSUM_OFFSETS.get(protocol)!;
  return (ends) => {
    const whole = bytes(header, payload);
    const pseudo = pseudoOf(ends, protocol, whole.length);
    const covered = coverage === 0 ? whole : whole.subarray(0, coverage);
    whole.set(u16(filled(fill, protocol, pseudo, covered)), checksumAt);
    return { protocol, bytes: whole };
  };
}

function filled(
  fill: ChecksumFill,
  protocol: number,
  pseudo: readonly number[],
  covered: Uint8Array
): number {
  if (typeof fill === 'number') return fill;
  if (fill === 'none') return 0;
  if (fill === 'partial') return onesSum(pseudo);
  const words = [...pseudo, ...wordsOf(covered)];
  if (fill !== 'complete') return complementTo(fill.receiver, words);
  const checksum = checksumOf(words);
  return checksum === 0 && (protocol === UDP || protocol === UDPLITE) ? 0xffff : checksum;
}

function pseudoOf(ends: Ends, protocol: number, length: number): number[] {
  if (protocol === ICMP) return [];
  return pseudoHeader(bytesOf(ends.source), bytesOf(ends.destination), protocol, length);
}

function portsOf({ sourcePort, destinationPort }: Ports): Uint8Array {
  return bytes(u16(sourcePort), u16(destinationPort));
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

const EXTENSIONS: readonly number[] = [HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION];

const CHECKSUM_OFFSETS: ReadonlyMap<number, number> = new Map([
  [TCP, 16],
  [UDP, 6],
  [UDPLITE, 6],
  [ICMP, 2],
  [ICMPV6, 2],
]);
