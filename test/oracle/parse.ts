/**
 * Check 1 of the translator's contract: reads a packet into an object, or returns why it is dropped.
 *
 * Where a packet has several faults, the outer one decides (IP headers, transport header, quote, then
 * the virtio-net header), and within one header malformed comes before the others.
 * @module
 */
import type { VerdictName } from '../../src/translator/verdict.ts';
import { DCCP, ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE } from '../support/packets.ts';
import { VNET } from '../support/vnet.ts';
import { type IpHeader, parseIp, uint16 } from './headers.ts';
import { isPartial, offloadFault } from './offload.ts';

export interface Packet {
  readonly ip: IpHeader;
  readonly kind:
    | 'tcp'
    | 'udp'
    | 'udplite'
    | 'sctp'
    | 'echo-request'
    | 'echo-reply'
    | 'error'
    | 'ip'
    | 'later-fragment';
  /** 0 where there are no ports. */
  readonly sourcePort: number;
  readonly destinationPort: number;
  /** Identifier of an echo. */
  readonly echo?: number;
  /** A TCP segment with SYN and without ACK, or an SCTP packet that begins with INIT. */
  readonly opensSession: boolean;
  /** A TCP RST or an SCTP ABORT. */
  readonly resetsSession: boolean;
  readonly quote?: Quote;
}

/** What an ICMP error quotes. */
export interface Quote {
  /** Its offsets count from its own first byte. */
  readonly packet: Packet;
  readonly bytes: Uint8Array;
  /** What follows the quote (RFC 4884); absent: there is no length attribute. */
  readonly extensions: Uint8Array | undefined;
}

/** Reads a frame: a virtio-net header and one IP packet. */
export function parseFrame(frame: Uint8Array): Packet | VerdictName {
  const packet = parsePacket(frame.subarray(VNET), false);
  if (typeof packet === 'string') return packet;
  const at = VNET + packet.ip.length + 6;
  // RFC 8200 section 8.1: UDP over IPv6 has a checksum. RFC 3828: so has UDP-Lite.
  const mustHaveChecksum =
    packet.kind === 'udplite' || (packet.kind === 'udp' && packet.ip.version === 6);
  if (mustHaveChecksum && !isPartial(frame) && uint16(frame, at) === 0) return 'DropMalformed';
  return offloadFault(frame, packet) ?? packet;
}

/** Where a type of ICMP message may say how long its quote is, and in units of what (RFC 4884). */
export function lengthAttribute(
  version: number,
  type: number
): { readonly at: number; readonly unit: number } | undefined {
  if (version === 4) return [3, 11, 12].includes(type) ? { at: 5, unit: 4 } : undefined;
  return [1, 3].includes(type) ? { at: 4, unit: 8 } : undefined;
}

/** Reads a packet, or what is left of one in the quote of an ICMP error. */
function parsePacket(bytes: Uint8Array, quoted: boolean): Packet | VerdictName {
  const ip = parseIp(bytes, quoted);
  if (typeof ip === 'string') return ip;
  if (ip.fragment !== undefined && ip.fragment.offset > 0) {
    // RFC 3128: such a fragment could replace the flags of the first one.
    if (ip.protocol === TCP && ip.fragment.offset === 8) return 'DropFragment';
    return packetOf(ip, 'later-fragment');
  }
  if (UNSUPPORTED_PROTOCOLS[ip.version].includes(ip.protocol)) return 'DropUnsupported';
  const transport = bytes.subarray(ip.length, ip.length + Math.max(0, ip.payloadLength));
  if (quoted && transport.length < QUOTED_BYTES) return 'DropMalformed';
  switch (ip.protocol) {
    case TCP:
      return parseTcp(ip, transport, quoted);
    case UDP:
      return parseUdp(ip, transport, quoted);
    case UDPLITE:
      return parseUdpLite(ip, transport, quoted);
    case SCTP:
      return parseSctp(ip, transport, quoted);
    case ICMP:
    case ICMPV6:
      return parseIcmp(ip, transport, quoted);
    default:
      return packetOf(ip, 'ip');
  }
}

function packetOf(ip: IpHeader, kind: Packet['kind'], rest: Partial<Packet> = {}): Packet {
  return {
    ip,
    kind,
    sourcePort: 0,
    destinationPort: 0,
    opensSession: false,
    resetsSession: false,
    ...rest,
  };
}

function portsOf(transport: Uint8Array): { sourcePort: number; destinationPort: number } {
  return { sourcePort: uint16(transport, 0), destinationPort: uint16(transport, 2) };
}

/** Returns the verdict on an incomplete header: a first fragment may be tiny on purpose. */
function truncated(ip: IpHeader): VerdictName {
  return ip.fragment === undefined ? 'DropMalformed' : 'DropFragment';
}

function parseTcp(ip: IpHeader, segment: Uint8Array, quoted: boolean): Packet | VerdictName {
  if (quoted) return packetOf(ip, 'tcp', portsOf(segment));
  if (segment.length < 20) return truncated(ip);
  const headerLength = (segment[12]! >> 4) * 4;
  if (headerLength < 20) return 'DropMalformed';
  if (headerLength > segment.length) return truncated(ip);
  return packetOf(ip, 'tcp', {
    ...portsOf(segment),
    opensSession: (segment[13]! & 0x12) === 0x02,
    resetsSession: (segment[13]! & 0x04) !== 0,
  });
}

function parseUdp(ip: IpHeader, datagram: Uint8Array, quoted: boolean): Packet | VerdictName {
  if (datagram.length < 8) return truncated(ip);
  const length = uint16(datagram, 4);
  if (!quoted) {
    const agrees =
      ip.fragment === undefined ? length === datagram.length : length > datagram.length;
    if (!agrees) return 'DropMalformed';
  }
  return packetOf(ip, 'udp', portsOf(datagram));
}

function parseUdpLite(ip: IpHeader, datagram: Uint8Array, quoted: boolean): Packet | VerdictName {
  if (datagram.length < 8) return truncated(ip);
  const coverage = uint16(datagram, 4);
  if (!quoted && ip.fragment === undefined && coverage !== 0) {
    if (coverage < 8 || coverage > datagram.length) return 'DropMalformed';
  }
  return packetOf(ip, 'udplite', portsOf(datagram));
}

function parseSctp(ip: IpHeader, packet: Uint8Array, quoted: boolean): Packet | VerdictName {
  if (quoted) return packetOf(ip, 'sctp', portsOf(packet));
  if (packet.length < 12) return truncated(ip);
  return packetOf(ip, 'sctp', {
    ...portsOf(packet),
    opensSession: packet[12] === SCTP_INIT,
    resetsSession: packet[12] === SCTP_ABORT,
  });
}

function parseIcmp(ip: IpHeader, message: Uint8Array, quoted: boolean): Packet | VerdictName {
  if (message.length < 8) return truncated(ip);
  const type = message[0]!;
  const types = ip.version === 4 ? ICMPV4_TYPES : ICMPV6_TYPES;
  const echo = uint16(message, 4);
  if (type === types.echoRequest) return packetOf(ip, 'echo-request', { echo });
  if (type === types.echoReply) return packetOf(ip, 'echo-reply', { echo });
  if (quoted || !types.errors.includes(type)) return 'DropUnsupported';
  if (ip.fragment !== undefined) return 'DropFragment';
  const attribute = lengthAttribute(ip.version, type);
  const length = attribute === undefined ? 0 : message[attribute.at]! * attribute.unit;
  if (8 + length > message.length) return 'DropMalformed';
  const bytes = length === 0 ? message.subarray(8) : message.subarray(8, 8 + length);
  const extensions = length === 0 ? undefined : message.subarray(8 + length);
  const packet = parsePacket(bytes, true);
  if (typeof packet === 'string') return packet;
  // An address of the other IP version has another text, so this compares the versions too.
  if (packet.ip.source !== ip.destination) return 'DropMalformed';
  return packetOf(ip, 'error', { quote: { packet, bytes, extensions } });
}

/** DCCP, the ICMP of the other version, and IPv6 extension headers, which IPv4 does not know as such. */
const UNSUPPORTED_PROTOCOLS: Record<4 | 6, readonly number[]> = {
  4: [DCCP, ICMPV6],
  6: [135, 139, 140, 253, 254, DCCP, ICMP],
};
/** An error quotes at least this much behind the IP header (RFC 792). */
const QUOTED_BYTES = 8;
const SCTP_INIT = 1;
const SCTP_ABORT = 6;

const ICMPV4_TYPES = { echoRequest: 8, echoReply: 0, errors: [3, 11, 12] };
const ICMPV6_TYPES = { echoRequest: 128, echoReply: 129, errors: [1, 2, 3, 4] };
