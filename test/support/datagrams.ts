/**
 * UDP over IPv4 as the tests' hosts send and read it.
 * @module
 */

import { UDP, udpPacket } from './packets.ts';
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
  return Buffer.from(framed(udpPacket({ source, destination }, segment)));
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

/** Makes the packet its own answer: no checksum changes when the ends change places. */
export function turnBack(buffer: Buffer, vnet: number): void {
  const addresses = vnet + VNET + 12;
  swap(buffer, addresses, 4);
  swap(buffer, addresses + 8, 2);
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
