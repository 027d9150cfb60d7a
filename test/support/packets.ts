/**
 * Builders of packets for tests: IPv4 and IPv6, TCP, UDP, UDP-Lite, SCTP, ICMP echo and ICMP errors,
 * and the virtio-net header in front. Everything has right lengths and checksums unless told otherwise.
 * @module
 */
import { bytesOf } from './address.ts';
import { checksumOf, onesSum, pseudoHeader, wordsOf } from './checksum.ts';

export const TCP = 6;
export const UDP = 17;
export const ICMP = 1;
export const ICMPV6 = 58;
export const UDPLITE = 136;
export const SCTP = 132;
export const DCCP = 33;
export const FIN = 0x01;
export const SYN = 0x02;
export const ACK = 0x10;

/** Bytes of the virtio-net header. */
export const VNET = 10;

export interface Ends {
  readonly source: string;
  readonly destination: string;
}

export interface IpOptions {
  /** IPv4 options, filled up with zeros to a multiple of 4 bytes. */
  readonly options?: Uint8Array;
  /** The IPv4 flags and fragment offset, as one 16-bit word; by default "don't fragment". */
  readonly fragment?: number;
  readonly identification?: number;
  readonly hopLimit?: number;
  readonly trafficClass?: number;
  /** IPv6 extension headers, in their order. */
  readonly extensions?: readonly Extension[];
}

/** An IPv6 extension header; its first byte, the next header, is filled in. */
export interface Extension {
  readonly type: number;
  readonly bytes: Uint8Array;
}

/** How the transport checksum is filled in. `partial`: the pseudo-header sum; `none`: 0. */
export type ChecksumFill = 'complete' | 'partial' | 'none' | number;

export interface SegmentOptions extends IpOptions {
  readonly payload?: Uint8Array;
  readonly checksum?: ChecksumFill;
}

export interface VnetHeader {
  readonly flags?: number;
  readonly gsoType?: number;
  readonly headerLength?: number;
  readonly gsoSize?: number;
  readonly checksumStart?: number;
  readonly checksumOffset?: number;
}

export function ipPacket(
  ends: Ends,
  protocol: number,
  payload: Uint8Array,
  options: IpOptions = {}
): Uint8Array {
  return isIpv6(ends)
    ? ipv6Packet(ends, protocol, payload, options)
    : ipv4Packet(ends, protocol, payload, options);
}

export function tcpPacket(
  ends: Ends,
  segment: SegmentOptions & {
    readonly sourcePort: number;
    readonly destinationPort: number;
    readonly flags?: number;
    /** Filled up with zeros to a multiple of 4 bytes. */
    readonly tcpOptions?: Uint8Array;
    readonly sequence?: number;
    readonly acknowledgment?: number;
    readonly window?: number;
  }
): Uint8Array {
  const tcpOptions = padded(segment.tcpOptions);
  const header = new Uint8Array(20 + tcpOptions.length);
  const view = new DataView(header.buffer);
  view.setUint16(0, segment.sourcePort);
  view.setUint16(2, segment.destinationPort);
  view.setUint32(4, segment.sequence ?? 0x01020304);
  view.setUint32(8, segment.acknowledgment ?? 0xfffefdfc);
  view.setUint8(12, (header.length / 4) << 4);
  view.setUint8(13, segment.flags ?? ACK);
  view.setUint16(14, segment.window ?? 0xfaf0);
  header.set(tcpOptions, 20);
  return transportPacket(ends, TCP, header, segment);
}

export function udpPacket(
  ends: Ends,
  datagram: SegmentOptions & { readonly sourcePort: number; readonly destinationPort: number }
): Uint8Array {
  const header = new Uint8Array(8);
  const view = new DataView(header.buffer);
  view.setUint16(0, datagram.sourcePort);
  view.setUint16(2, datagram.destinationPort);
  view.setUint16(4, 8 + (datagram.payload?.length ?? 0));
  return transportPacket(ends, UDP, header, datagram);
}

/** RFC 3828; `coverage` 0, as by default, covers everything. */
export function udpLitePacket(
  ends: Ends,
  datagram: SegmentOptions & {
    readonly sourcePort: number;
    readonly destinationPort: number;
    readonly coverage?: number;
  }
): Uint8Array {
  const header = new Uint8Array(8);
  const view = new DataView(header.buffer);
  view.setUint16(0, datagram.sourcePort);
  view.setUint16(2, datagram.destinationPort);
  view.setUint16(4, datagram.coverage ?? 0);
  return transportPacket(ends, UDPLITE, header, datagram);
}

/** RFC 9260. Its checksum, which covers no addresses, is any number; `payload` are the chunks. */
export function sctpPacket(
  ends: Ends,
  packet: SegmentOptions & { readonly sourcePort: number; readonly destinationPort: number }
): Uint8Array {
  const header = new Uint8Array(12);
  const view = new DataView(header.buffer);
  view.setUint16(0, packet.sourcePort);
  view.setUint16(2, packet.destinationPort);
  view.setUint32(4, 0x7a6b5c4d);
  view.setUint32(8, 0x11223344);
  return transportPacket(ends, SCTP, header, packet);
}

export function echoPacket(
  ends: Ends,
  echo: SegmentOptions & {
    readonly reply?: boolean;
    readonly id?: number;
    readonly sequence?: number;
  }
): Uint8Array {
  const header = new Uint8Array(8);
  const view = new DataView(header.buffer);
  const types = isIpv6(ends) ? { request: 128, reply: 129 } : { request: 8, reply: 0 };
  view.setUint8(0, echo.reply ? types.reply : types.request);
  view.setUint16(4, echo.id ?? 0x1234);
  view.setUint16(6, echo.sequence ?? 1);
  return icmpPacket(ends, header, echo);
}

/** Any ICMP message that is 8 bytes and a payload; `code` and the second word default to 0. */
export function icmpMessage(
  ends: Ends,
  message: SegmentOptions & {
    readonly type: number;
    readonly code?: number;
    readonly rest?: number;
  }
): Uint8Array {
  const header = new Uint8Array(8);
  const view = new DataView(header.buffer);
  view.setUint8(0, message.type);
  view.setUint8(1, message.code ?? 0);
  view.setUint32(4, message.rest ?? 0);
  return icmpPacket(ends, header, message);
}

/**
 * An ICMP error whose quote is the first `quoteLength` bytes of `quoted`. With `extensions` (RFC 4884)
 * the quote is filled up, and says its length where the type has a place for it.
 */
export function icmpError(
  ends: Ends,
  error: IpOptions & {
    readonly type: number;
    readonly code?: number;
    readonly rest?: number;
    readonly quoted: Uint8Array;
    readonly quoteLength?: number;
    readonly checksum?: ChecksumFill;
    readonly icmpExtensions?: Uint8Array | undefined;
  }
): Uint8Array {
  const quote = error.quoted.subarray(0, error.quoteLength ?? error.quoted.length);
  if (error.icmpExtensions === undefined) return icmpMessage(ends, { ...error, payload: quote });
  const unit = isIpv6(ends) ? 8 : 4;
  const length = Math.max(128, Math.ceil(quote.length / unit) * unit);
  const payload = new Uint8Array(length + error.icmpExtensions.length);
  payload.set(quote);
  payload.set(error.icmpExtensions, length);
  const attribute = (length / unit) * (isIpv6(ends) ? 0x1000000 : 0x10000);
  return icmpMessage(ends, { ...error, rest: (error.rest ?? 0) + attribute, payload });
}

/** Puts a virtio-net header, by default all zero, in front of the packet. */
export function framed(packet: Uint8Array, header: VnetHeader = {}): Uint8Array {
  const frame = new Uint8Array(VNET + packet.length);
  const view = new DataView(frame.buffer);
  view.setUint8(0, header.flags ?? 0);
  view.setUint8(1, header.gsoType ?? 0);
  view.setUint16(2, header.headerLength ?? 0, true);
  view.setUint16(4, header.gsoSize ?? 0, true);
  view.setUint16(6, header.checksumStart ?? 0, true);
  view.setUint16(8, header.checksumOffset ?? 0, true);
  frame.set(packet, VNET);
  return frame;
}

/** Where in its transport header a protocol keeps the Internet checksum, if it has one. */
export function checksumOffset(protocol: number): number | undefined {
  return CHECKSUM_OFFSETS.get(protocol);
}

/** What follows the IP headers of a packet, and where. */
export function transportOf(packet: Uint8Array): { protocol: number; start: number } {
  if (packet[0]! >> 4 === 4) return { protocol: packet[9]!, start: (packet[0]! & 15) * 4 };
  let protocol = packet[6]!;
  let start = 40;
  while ([0, 43, 44, 51, 60].includes(protocol) && start + 1 < packet.length) {
    const told = protocol === 44 ? 0 : packet[start + 1]!;
    const length = protocol === 51 ? (told + 2) * 4 : (told + 1) * 8;
    protocol = packet[start]!;
    start += length;
  }
  return { protocol, start };
}

/** Where the transport header of a packet begins. */
export function transportStart(packet: Uint8Array): number {
  return transportOf(packet).start;
}

/** Writes the right checksum into the IPv4 header, if the packet has one that is whole. */
export function repairIpv4Checksum(packet: Uint8Array): void {
  const length = ((packet[0] ?? 0) & 15) * 4;
  if (packet.length < 20 || packet[0]! >> 4 !== 4 || length < 20 || length > packet.length) return;
  packet[10] = 0;
  packet[11] = 0;
  setUint16(packet, 10, checksumOf(wordsOf(packet.subarray(0, length))));
}

function isIpv6(ends: Ends): boolean {
  return ends.destination.includes(':');
}

function ipv4Packet(
  ends: Ends,
  protocol: number,
  payload: Uint8Array,
  options: IpOptions
): Uint8Array {
  const ipOptions = padded(options.options);
  const headerLength = 20 + ipOptions.length;
  const packet = new Uint8Array(headerLength + payload.length);
  const view = new DataView(packet.buffer);
  view.setUint8(0, 0x40 | (headerLength / 4));
  view.setUint8(1, options.trafficClass ?? 0);
  view.setUint16(2, packet.length);
  view.setUint16(4, options.identification ?? 0xbeef);
  view.setUint16(6, options.fragment ?? 0x4000);
  view.setUint8(8, options.hopLimit ?? 64);
  view.setUint8(9, protocol);
  packet.set(bytesOf(ends.source), 12);
  packet.set(bytesOf(ends.destination), 16);
  packet.set(ipOptions, 20);
  view.setUint16(10, checksumOf(wordsOf(packet.subarray(0, headerLength))));
  packet.set(payload, headerLength);
  return packet;
}

function ipv6Packet(
  ends: Ends,
  protocol: number,
  payload: Uint8Array,
  options: IpOptions
): Uint8Array {
  const extensions = options.extensions ?? [];
  const start = extensions.reduce((sum, { bytes }) => sum + bytes.length, 40);
  const packet = new Uint8Array(start + payload.length);
  const view = new DataView(packet.buffer);
  view.setUint32(0, 0x60000000 + (options.trafficClass ?? 0) * 0x100000);
  view.setUint16(4, packet.length - 40);
  view.setUint8(6, extensions[0]?.type ?? protocol);
  view.setUint8(7, options.hopLimit ?? 64);
  packet.set(bytesOf(ends.source), 8);
  packet.set(bytesOf(ends.destination), 24);
  let at = 40;
  for (const [i, { bytes }] of extensions.entries()) {
    packet.set(bytes, at);
    packet[at] = extensions[i + 1]?.type ?? protocol;
    at += bytes.length;
  }
  packet.set(payload, start);
  return packet;
}

function icmpPacket(ends: Ends, header: Uint8Array, options: SegmentOptions): Uint8Array {
  return transportPacket(ends, isIpv6(ends) ? ICMPV6 : ICMP, header, options);
}

function transportPacket(
  ends: Ends,
  protocol: number,
  header: Uint8Array,
  options: SegmentOptions & { readonly coverage?: number }
): Uint8Array {
  const payload = options.payload ?? new Uint8Array(0);
  const segment = new Uint8Array(header.length + payload.length);
  segment.set(header);
  segment.set(payload, header.length);
  const checksumAt = checksumOffset(protocol);
  if (checksumAt !== undefined) {
    const pseudo =
      protocol === ICMP
        ? []
        : pseudoHeader(bytesOf(ends.source), bytesOf(ends.destination), protocol, segment.length);
    const covered = segment.subarray(0, options.coverage || segment.length);
    setUint16(segment, checksumAt, transportChecksum(options.checksum, pseudo, covered, protocol));
  }
  return ipPacket(ends, protocol, segment, options);
}

function transportChecksum(
  fill: ChecksumFill | undefined,
  pseudo: readonly number[],
  covered: Uint8Array,
  protocol: number
): number {
  if (typeof fill === 'number') return fill;
  if (fill === 'none') return 0;
  if (fill === 'partial') return onesSum(pseudo);
  const checksum = checksumOf([...pseudo, ...wordsOf(covered)]);
  return checksum === 0 && (protocol === UDP || protocol === UDPLITE) ? 0xffff : checksum;
}

function padded(options: Uint8Array | undefined): Uint8Array {
  const bytes = new Uint8Array(Math.ceil((options?.length ?? 0) / 4) * 4);
  bytes.set(options ?? []);
  return bytes;
}

function setUint16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >> 8;
  bytes[at + 1] = value & 255;
}

const CHECKSUM_OFFSETS: ReadonlyMap<number, number> = new Map([
  [TCP, 16],
  [UDP, 6],
  [UDPLITE, 6],
  [ICMP, 2],
  [ICMPV6, 2],
]);
