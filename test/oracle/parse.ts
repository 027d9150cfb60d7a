/**
 * Step 1 of the translator's rule: reads a packet into an object, or says why it is dropped.
 *
 * Where a packet has several faults, the outer one decides (IP header, transport header, quote, then
 * the virtio-net header), and within one header malformed comes before fragment before unsupported.
 * @module
 */
import type { VerdictName } from '../../src/translator/verdict.ts';
import { textOf } from './address.ts';
import { isRight, wordsOf } from './checksum.ts';
import { ICMP, ICMPV6, TCP, UDP, VNET } from './packets.ts';

export interface IpHeader {
  readonly version: 4 | 6;
  readonly source: string;
  readonly destination: string;
  readonly protocol: number;
  /** Where the transport header begins. */
  readonly length: number;
  /** Bytes behind the header, as the header tells it: for a quote, those of the original packet. */
  readonly payloadLength: number;
}

export interface Packet {
  readonly ip: IpHeader;
  readonly kind: 'tcp' | 'udp' | 'echo-request' | 'echo-reply' | 'error';
  /** 0 for ICMP, which has no ports. */
  readonly sourcePort: number;
  readonly destinationPort: number;
  /** A TCP segment with SYN and without ACK. */
  readonly opensSession: boolean;
  /** The packet that an ICMP error quotes; its offsets count from its own first byte. */
  readonly quote?: Packet;
}

/** Reads a frame: a virtio-net header and one IP packet. */
export function parseFrame(frame: Uint8Array): Packet | VerdictName {
  const packet = parsePacket(frame.subarray(VNET), false);
  if (typeof packet === 'string') return packet;
  const { version, protocol, length } = packet.ip;
  // RFC 8200 section 8.1: UDP over IPv6 has a checksum.
  if (version === 6 && protocol === UDP && !isPartial(frame)) {
    if (uint16(frame, VNET + length + checksumOffset(UDP)) === 0) return 'DropMalformed';
  }
  return offloadFault(frame, packet) ?? packet;
}

/** Where in its transport header a protocol keeps the checksum. */
export function checksumOffset(protocol: number): number {
  if (protocol === TCP) return 16;
  return protocol === UDP ? 6 : 2;
}

/** Whether the virtio-net header says that the transport checksum is still partial. */
export function isPartial(frame: Uint8Array): boolean {
  return (frame[0]! & NEEDS_CHECKSUM) !== 0;
}

/** Reads a packet, or what is left of one in the quote of an ICMP error. */
function parsePacket(bytes: Uint8Array, quoted: boolean): Packet | VerdictName {
  if (bytes.length === 0) return 'DropMalformed';
  const version = bytes[0]! >> 4;
  if (version !== 4 && version !== 6) return 'DropMalformed';
  const ip = version === 4 ? parseIpv4(bytes, quoted) : parseIpv6(bytes, quoted);
  if (typeof ip === 'string') return ip;
  const transport = bytes.subarray(ip.length);
  if (ip.protocol === TCP) return parseTcp(ip, transport, quoted);
  if (ip.protocol === UDP) return parseUdp(ip, transport, quoted);
  if (ip.protocol === (version === 4 ? ICMP : ICMPV6)) return parseIcmp(ip, transport, quoted);
  return 'DropUnsupported';
}

function parseIpv4(bytes: Uint8Array, quoted: boolean): IpHeader | VerdictName {
  if (bytes.length < 20) return 'DropMalformed';
  const length = (bytes[0]! & 15) * 4;
  const totalLength = uint16(bytes, 2);
  if (length < 20 || length > bytes.length) return 'DropMalformed';
  if (quoted) {
    if (Math.min(totalLength, bytes.length) < length + QUOTED_BYTES) return 'DropMalformed';
  } else {
    if (totalLength !== bytes.length) return 'DropMalformed';
    if (!isRight(wordsOf(bytes.subarray(0, length)), 0)) return 'DropMalformed';
  }
  const fault = optionsFault(bytes.subarray(20, length));
  if (fault === 'DropMalformed') return fault;
  if ((uint16(bytes, 6) & (FRAGMENT_OFFSET | MORE_FRAGMENTS)) !== 0) return 'DropFragment';
  return (
    fault ?? {
      version: 4,
      source: textOf(bytes.subarray(12, 16)),
      destination: textOf(bytes.subarray(16, 20)),
      protocol: bytes[9]!,
      length,
      payloadLength: totalLength - length,
    }
  );
}

function parseIpv6(bytes: Uint8Array, quoted: boolean): IpHeader | VerdictName {
  if (bytes.length < 40) return 'DropMalformed';
  const payloadLength = uint16(bytes, 4);
  if (quoted) {
    if (Math.min(payloadLength, bytes.length - 40) < QUOTED_BYTES) return 'DropMalformed';
  } else if (payloadLength !== bytes.length - 40) return 'DropMalformed';
  if (bytes[6] === IPV6_FRAGMENT) return 'DropFragment';
  return {
    version: 6,
    source: textOf(bytes.subarray(8, 24)),
    destination: textOf(bytes.subarray(24, 40)),
    protocol: bytes[6]!,
    length: 40,
    payloadLength,
  };
}

/** RFC 791 section 3.1: a type byte, and but for types 0 and 1 a length that counts both bytes. */
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

function parseTcp(ip: IpHeader, segment: Uint8Array, quoted: boolean): Packet | VerdictName {
  if (!quoted) {
    if (segment.length < 20) return 'DropMalformed';
    const headerLength = (segment[12]! >> 4) * 4;
    if (headerLength < 20 || headerLength > segment.length) return 'DropMalformed';
  }
  return {
    ip,
    kind: 'tcp',
    sourcePort: uint16(segment, 0),
    destinationPort: uint16(segment, 2),
    opensSession: !quoted && (segment[13]! & 0x12) === 0x02,
  };
}

function parseUdp(ip: IpHeader, datagram: Uint8Array, quoted: boolean): Packet | VerdictName {
  if (datagram.length < 8) return 'DropMalformed';
  if (!quoted && uint16(datagram, 4) !== datagram.length) return 'DropMalformed';
  return {
    ip,
    kind: 'udp',
    sourcePort: uint16(datagram, 0),
    destinationPort: uint16(datagram, 2),
    opensSession: false,
  };
}

function parseIcmp(ip: IpHeader, message: Uint8Array, quoted: boolean): Packet | VerdictName {
  if (message.length < 8) return 'DropMalformed';
  const type = message[0]!;
  const types = ip.version === 4 ? ICMPV4_TYPES : ICMPV6_TYPES;
  const packet = { ip, sourcePort: 0, destinationPort: 0, opensSession: false };
  if (type === types.echoRequest) return { ...packet, kind: 'echo-request' };
  if (type === types.echoReply) return { ...packet, kind: 'echo-reply' };
  if (quoted || !types.errors.includes(type)) return 'DropUnsupported';
  const quote = parsePacket(message.subarray(8), true);
  if (typeof quote === 'string') return quote;
  // An address of the other IP version has another text, so this compares the versions too.
  if (quote.ip.source !== ip.destination) return 'DropMalformed';
  return { ...packet, kind: 'error', quote };
}

/** What the virtio-net header and the packet disagree about. */
function offloadFault(frame: Uint8Array, packet: Packet): VerdictName | undefined {
  const view = new DataView(frame.buffer, frame.byteOffset, VNET);
  const gsoType = view.getUint8(1) & ~GSO_ECN;
  const { version, protocol, length } = packet.ip;
  if (isPartial(frame)) {
    if (packet.kind === 'error' || protocol === ICMP) return 'DropMalformed';
    if (view.getUint16(6, true) !== length) return 'DropMalformed';
    if (view.getUint16(8, true) !== checksumOffset(protocol)) return 'DropMalformed';
  }
  if (gsoType === GSO_NONE) return undefined;
  if (!isPartial(frame) || view.getUint16(4, true) === 0) return 'DropMalformed';
  if (gsoType === GSO_UDP) return 'DropUnsupported';
  const fits =
    (gsoType === GSO_TCPV4 && protocol === TCP && version === 4) ||
    (gsoType === GSO_TCPV6 && protocol === TCP && version === 6) ||
    (gsoType === GSO_UDP_L4 && protocol === UDP);
  return fits ? undefined : 'DropMalformed';
}

function uint16(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!;
}

const MORE_FRAGMENTS = 0x2000;
const FRAGMENT_OFFSET = 0x1fff;
/** RFC 8200 section 4.5. */
const IPV6_FRAGMENT = 44;
const END_OF_OPTIONS = 0;
const NO_OPERATION = 1;
/** Record route, timestamp, loose and strict source route (RFC 791 section 3.1). */
const ADDRESS_OPTIONS = [7, 68, 131, 137];
/** An error quotes at least this much behind the IP header (RFC 792). */
const QUOTED_BYTES = 8;

const ICMPV4_TYPES = { echoRequest: 8, echoReply: 0, errors: [3, 11, 12] };
const ICMPV6_TYPES = { echoRequest: 128, echoReply: 129, errors: [1, 2, 3, 4] };

const NEEDS_CHECKSUM = 1;
const GSO_NONE = 0;
const GSO_TCPV4 = 1;
const GSO_UDP = 3;
const GSO_TCPV6 = 4;
const GSO_UDP_L4 = 5;
const GSO_ECN = 0x80;
