/**
 * Builds and checks packets for the device tests in a simple way.
 * @module
 */
import { IpAddress } from '../../src/base/address.ts';
import { VNET_HEADER_LENGTH } from '../../src/packet/virtio.ts';

export interface UdpPacketFields {
  readonly source: string;
  readonly destination: string;
  readonly id?: number;
  readonly sourcePort?: number;
  readonly destinationPort?: number;
  /** Length of the whole packet in bytes; the payload counts up from `id`. */
  readonly length?: number;
}

/** Builds an IPv4 UDP packet without UDP checksum (RFC 768: zero means none). */
export function udpPacket({
  source,
  destination,
  id = 0,
  sourcePort = 1000,
  destinationPort = 2000,
  length = 60,
}: UdpPacketFields): Buffer {
  const packet = Buffer.alloc(length);
  packet[0] = 0x45; // version, header length
  packet.writeUInt16BE(length, 2);
  packet.writeUInt16BE(id, 4);
  packet[8] = 64; // TTL
  packet[9] = 17; // UDP
  IpAddress.parse(source).writeTo(packet, 12);
  IpAddress.parse(destination).writeTo(packet, 16);
  packet.writeUInt16BE(sourcePort, 20);
  packet.writeUInt16BE(destinationPort, 22);
  packet.writeUInt16BE(length - 20, 24);
  for (let i = 28; i < length; i++) packet[i] = id + i;
  return withHeaderChecksum(packet);
}

/** Returns the packet as a router forwards it: the time to live is one less. */
export function forwarded(packet: Buffer): Buffer {
  const copy = Buffer.from(packet);
  copy[8]!--;
  return withHeaderChecksum(copy);
}

/** Returns the packet behind an all-zero virtio-net header. */
export function plainFrame(packet: Buffer): Buffer {
  return Buffer.concat([Buffer.alloc(VNET_HEADER_LENGTH), packet]);
}

function withHeaderChecksum(packet: Buffer): Buffer {
  packet.writeUInt16BE(0, 10);
  let sum = 0;
  for (let i = 0; i < 20; i += 2) sum += packet.readUInt16BE(i);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  packet.writeUInt16BE(~sum & 0xffff, 10);
  return packet;
}
