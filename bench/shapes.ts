/**
 * The kinds of packets that the benchmark of the translator sends.
 * @module
 */
import { type Ends, icmpError, tcpPacket, udpPacket } from '../test/support/packets.ts';
import { framed, VNET } from '../test/support/vnet.ts';

/** Packets as their clients send them; the answers are the same with both ends exchanged. */
export interface Shape {
  readonly name: string;
  /** IP versions that the clients and the service have. */
  readonly near: 4 | 6;
  readonly far: 4 | 6;
  /** The packets are errors about what the other end has sent. */
  readonly isError: boolean;
  /** Build frames, a virtio-net header and the packet each. Each kind comes up as often as any other. */
  readonly frames: readonly ((ends: Ends) => Uint8Array)[];
}

/** Clients use the port of the service too, so that packets and answers differ only in their addresses. */
export const TCP_PORT = 5672;
export const UDP_PORT = 53;

/** @param length of the packet, in bytes */
function udp(ends: Ends, length: number): Uint8Array {
  const headers = ends.source.includes(':') ? 48 : 28;
  const payload = new Uint8Array(length - headers);
  return framed(udpPacket(ends, { sourcePort: UDP_PORT, destinationPort: UDP_PORT, payload }));
}

/** @param length of the packet, in bytes; IPv4 */
function tcp(ends: Ends, length: number): Uint8Array {
  const payload = new Uint8Array(length - 40);
  return framed(tcpPacket(ends, { sourcePort: TCP_PORT, destinationPort: TCP_PORT, payload }));
}

/** A super-packet of 49 segments with a partial checksum, as a kernel writes it. */
function superPacket(ends: Ends): Uint8Array {
  const packet = tcpPacket(ends, {
    sourcePort: TCP_PORT,
    destinationPort: TCP_PORT,
    payload: new Uint8Array(65_535 - 40),
    checksum: 'partial',
  });
  return framed(packet, {
    flags: 1,
    gsoType: 1,
    headerLength: 40,
    gsoSize: 1_360,
    checksumStart: 20,
    checksumOffset: 16,
  });
}

/** Port unreachable, about a datagram of 64 bytes. */
function portUnreachable({ source, destination }: Ends): Uint8Array {
  const quoted = udp({ source: destination, destination: source }, 64).subarray(VNET);
  return framed(icmpError({ source, destination }, { type: 3, code: 3, quoted }));
}

const ipv4 = { near: 4, far: 4, isError: false } as const;

export const TCP_SHAPE: Shape = { name: 'tcp-1400B', ...ipv4, frames: [(ends) => tcp(ends, 1400)] };

export const SHAPES: readonly Shape[] = [
  { name: 'udp-64B', ...ipv4, frames: [(ends) => udp(ends, 64)] },
  TCP_SHAPE,
  {
    name: 'imix',
    ...ipv4,
    frames: [
      ...[64, 64, 64, 64, 576, 576].map((length) => (ends: Ends) => udp(ends, length)),
      ...[64, 64, 64, 576, 576, 1500].map((length) => (ends: Ends) => tcp(ends, length)),
    ],
  },
  { name: 'icmp-error', ...ipv4, isError: true, frames: [portUnreachable] },
  { name: 'tcp-64KiB-partial', ...ipv4, frames: [superPacket] },
  { name: '4to6', near: 4, far: 6, isError: false, frames: [(ends) => udp(ends, 64)] },
  { name: '6to4', near: 6, far: 4, isError: false, frames: [(ends) => udp(ends, 64)] },
];
