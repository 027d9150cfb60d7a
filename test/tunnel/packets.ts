/**
 * Packets with numbers in them, so that a test sees which have come.
 * @module
 */
import { FrameType, type Tunnel } from '../../src/tunnel/index.ts';
import { plainFrame } from '../support/datagrams.ts';
import { udpPacket } from '../support/packets.ts';
import { VNET } from '../support/vnet.ts';

/** The length of a packet that alone makes its flow busy, with its virtio-net header. */
export const BUSY_LENGTH = 65_540;

/** A UDP packet of a flow, with its number in it, behind a virtio-net header. */
export function packetOf(flow: number, number: number, length: number): Buffer {
  const payload = Buffer.alloc(length - VNET - 28);
  payload.writeUInt32BE(number);
  const ends = { source: '10.0.0.1', destination: '10.0.0.2' };
  const ports = { sourcePort: flow, destinationPort: 0 };
  return plainFrame(udpPacket(ends, { ...ports, payload, checksum: 'none' }));
}

export function flowOf(payload: Buffer, start = 0): number {
  return payload.readUInt16BE(start + VNET + 20);
}

export function numberOf(payload: Buffer, start = 0): number {
  return payload.readUInt32BE(start + VNET + 28);
}

/** Keeps the numbers that come, by flow. */
export function record(tunnel: Tunnel): Map<number, number[]> {
  const numbers = new Map<number, number[]>();
  tunnel.onPacket = (buffer, start) => {
    const flow = flowOf(buffer, start);
    const known = numbers.get(flow);
    if (known === undefined) numbers.set(flow, [numberOf(buffer, start)]);
    else known.push(numberOf(buffer, start));
  };
  return numbers;
}

/** Sends one packet of each flow, without a copy and with one. */
export function sendRound(tunnel: Tunnel, flows: number, number: number, length: number): number {
  let sent = 0;
  for (let flow = 0; flow < flows; flow++) {
    const packet = packetOf(flow, number, length);
    if ((flow + number) % 2 === 0) {
      if (tunnel.sendPacket(packet, 0, packet.length)) sent++;
      continue;
    }
    const at = tunnel.reserve();
    if (at < 0) continue;
    packet.copy(tunnel.buffer, at);
    if (tunnel.commit(FrameType.Packet, packet.length)) sent++;
  }
  tunnel.flush();
  return sent;
}
