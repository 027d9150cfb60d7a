/**
 * Builds the first packet of a connection, and the first answer to it, so that a gateway can be asked what it would do
 * with them: a TCP segment with SYN ([RFC 9293](https://www.rfc-editor.org/rfc/rfc9293)), a UDP or UDP-Lite datagram
 * without payload, an SCTP packet with INIT, an ICMP echo, or a packet of another protocol with four bytes of payload.
 * Lengths and checksums are right, apart from that of SCTP, which covers no addresses and is left zero.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import type { NamedProtocol } from '../base/port-range.ts';
import { ApiMisuseError } from '../errors.ts';
import { fold, sumBytes } from './checksum.ts';
import {
  ICMP_CHECKSUM,
  ICMP_HEADER,
  Protocol,
  SCTP_CHUNK_INIT,
  SCTP_HEADER,
  TCP_CHECKSUM,
  TCP_FLAG_ACK,
  TCP_FLAG_SYN,
  TCP_MIN_HEADER,
  UDP_CHECKSUM,
  UDP_HEADER,
  UDP_LENGTH,
} from './fields.ts';
import {
  ipHeaderLength,
  pseudoHeaderSum,
  sourceOffset,
  writeAddresses,
  writeIpv4Header,
  writeIpv6Header,
} from './ip-writer.ts';

export interface ProbeInput {
  readonly protocol: NamedProtocol | 'ip';
  /** Both addresses are of one IP version. */
  readonly source: IpAddress;
  readonly destination: IpAddress;
  /** For `icmp` the identifier of the echo; not used for `ip`. */
  readonly sourcePort: number;
  /** For `ip` the number of the protocol; not used for `icmp`. */
  readonly destinationPort: number;
  /** Whether it is the first answer of the service, and not the first packet of the client. Default false. */
  readonly isAnswer?: boolean;
}

/**
 * Returns an IP packet without a virtio-net header.
 *
 * @throws {ApiMisuseError} if the addresses are not of one IP version.
 */
export function probePacket(input: ProbeInput): Uint8Array {
  const { source, destination } = input;
  const { family } = source;
  if (family !== destination.family) {
    throw new ApiMisuseError(`${source} and ${destination} are not of one IP version`);
  }
  const transport = transportOf(input);
  const start = ipHeaderLength(family);
  const packet = new Uint8Array(start + transport.length);
  const view = new DataView(packet.buffer);
  const protocol = protocolOf(input);
  packet.set(transport, start);
  writeAddresses(view, 0, source, destination);
  if (family === 4) writeIpv4Header(view, 0, packet.length, protocol, 0, DONT_FRAGMENT);
  else writeIpv6Header(view, 0, transport.length, protocol);
  const checksumAt = CHECKSUM_OFFSETS.get(protocol);
  if (checksumAt === undefined) return packet;
  const pseudo =
    protocol === Protocol.Icmp
      ? 0
      : pseudoHeaderSum(view, sourceOffset(family), family, protocol, transport.length);
  const sum = ~fold(sumBytes(packet, start, packet.length, pseudo)) & 0xffff;
  // RFC 768: zero means "no checksum", so a computed zero becomes 0xffff.
  view.setUint16(start + checksumAt, sum === 0 ? 0xffff : sum);
  return packet;
}

/** Returns what follows the IP header, with a checksum of zero. */
function transportOf(input: ProbeInput): Uint8Array {
  const { protocol, sourcePort, destinationPort, isAnswer = false } = input;
  const bytes = new Uint8Array(LENGTHS[protocol]);
  const view = new DataView(bytes.buffer);
  if (protocol === 'ip') return bytes;
  if (protocol === 'icmp') {
    const [request, reply] = input.source.family === 4 ? [8, 0] : [128, 129];
    view.setUint8(0, isAnswer ? reply : request);
    view.setUint16(4, sourcePort);
    return bytes;
  }
  view.setUint16(0, sourcePort);
  view.setUint16(2, destinationPort);
  if (protocol === 'tcp') {
    const flags = isAnswer ? TCP_FLAG_SYN | TCP_FLAG_ACK : TCP_FLAG_SYN;
    view.setUint16(12, ((TCP_MIN_HEADER / 4) << 12) | flags);
    view.setUint16(14, WINDOW);
  } else if (protocol === 'sctp') {
    view.setUint8(SCTP_HEADER, isAnswer ? SCTP_CHUNK_INIT_ACK : SCTP_CHUNK_INIT);
    view.setUint16(SCTP_HEADER + 2, SCTP_INIT_LENGTH);
  } else {
    // In UDP-Lite this is the coverage, here of the whole datagram.
    view.setUint16(UDP_LENGTH, UDP_HEADER);
  }
  return bytes;
}

function protocolOf({ protocol, destinationPort, source }: ProbeInput): number {
  switch (protocol) {
    case 'tcp':
      return Protocol.Tcp;
    case 'udp':
      return Protocol.Udp;
    case 'udplite':
      return Protocol.UdpLite;
    case 'sctp':
      return Protocol.Sctp;
    case 'icmp':
      return source.family === 4 ? Protocol.Icmp : Protocol.Icmpv6;
    case 'ip':
      return destinationPort;
  }
}

const DONT_FRAGMENT = 0x4000;
const WINDOW = 65_535;
const SCTP_CHUNK_INIT_ACK = 2;
/** A chunk header and the fixed fields of INIT (RFC 9260 section 3.3.2). */
const SCTP_INIT_LENGTH = 20;
const LENGTHS = {
  tcp: TCP_MIN_HEADER,
  udp: UDP_HEADER,
  udplite: UDP_HEADER,
  sctp: SCTP_HEADER + SCTP_INIT_LENGTH,
  icmp: ICMP_HEADER,
  ip: 4,
} as const;
const CHECKSUM_OFFSETS: ReadonlyMap<number, number> = new Map([
  [Protocol.Tcp, TCP_CHECKSUM],
  [Protocol.Udp, UDP_CHECKSUM],
  [Protocol.UdpLite, UDP_CHECKSUM],
  [Protocol.Icmp, ICMP_CHECKSUM],
  [Protocol.Icmpv6, ICMP_CHECKSUM],
]);
