/**
 * UDP over IPv4, as the hosts of tests send and read it.
 * @module
 */
import { repairIpv4Checksum, UDP, udpPacket } from './packets.ts';
import { framed, VNET } from './vnet.ts';

export interface Datagram {
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  readonly destinationPort: number;
  readonly payload: Buffer;
}

/** The packet behind a virtio-net header of zeros. */
export function writeDatagram({ source, destination, ...segment }: Datagram): Buffer {
  return plainFrame(udpPacket({ source, destination }, segment));
}

/** Reads what `writeDatagram` wrote; undefined for a packet of another protocol. */
export function readDatagram(buffer: Buffer, vnet: number, end: number): Datagram | undefined {
  const start = vnet + VNET;
  if (buffer[start] !== 0x45 || buffer[start + 9] !== UDP) return undefined;
  return {
    source: addressAt(buffer, start + 12),
    destination: addressAt(buffer, start + 16),
    sourcePort: buffer.readUInt16BE(start + 20),
    destinationPort: buffer.readUInt16BE(start + 22),
    payload: Buffer.from(buffer.subarray(start + 28, end)),
  };
}

/** Turns the packet into its own answer: no checksum changes when source and destination are exchanged. */
export function turnBack(buffer: Buffer, vnet: number): void {
  const addresses = vnet + VNET + 12;
  swap(buffer, addresses, 4);
  swap(buffer, addresses + 8, 2);
}

export interface PlainDatagram {
  readonly source: string;
  readonly destination: string;
  readonly id?: number;
  readonly sourcePort?: number;
  readonly destinationPort?: number;
  /** Whole packet, in bytes; the payload counts up from `id`. */
  readonly length?: number;
}

/** A packet that may be fragmented, without a UDP checksum. */
export function plainDatagram({
  source,
  destination,
  id = 0,
  sourcePort = 1000,
  destinationPort = 2000,
  length = 60,
}: PlainDatagram): Buffer {
  const payload = Uint8Array.from({ length: length - 28 }, (_, i) => id + 28 + i);
  const fields = { sourcePort, destinationPort, payload, checksum: 'none' } as const;
  const ip = { identification: id, fragment: 0 };
  return Buffer.from(udpPacket({ source, destination }, { ...fields, ...ip }));
}

/** The packet as a router passes it on: one hop less to live. */
export function forwarded(packet: Buffer): Buffer {
  const copy = Buffer.from(packet);
  copy[8]!--;
  repairIpv4Checksum(copy);
  return copy;
}

/** The packet behind a virtio-net header of zeros. */
export function plainFrame(packet: Uint8Array): Buffer {
  return Buffer.from(framed(packet));
}

/** The `length` bytes at `at` and those behind them. */
function swap(buffer: Buffer, at: number, length: number): void {
  const first = Buffer.from(buffer.subarray(at, at + length));
  buffer.copyWithin(at, at + length, at + 2 * length);
  first.copy(buffer, at + length);
}

function addressAt(buffer: Buffer, at: number): string {
  return [...buffer.subarray(at, at + 4)].join('.');
}
