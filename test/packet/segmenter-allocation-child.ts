/**
 * Measures, for `segmenter-malformed.test.ts`, how much memory the segmenter takes for 100,000 packets of
 * each kind; prints the bytes by kind, as JSON. Run it with `--expose-gc`.
 * @module
 */
import { PacketSegmenter, SegmentResult } from '../../src/packet/index.ts';
import { tcpPacket, udpPacket } from '../support/packets.ts';
import { framed } from '../support/vnet.ts';
import { partialHeader } from './pieces.ts';

const PACKETS = 100_000;
const MOST_ROUNDS = 5;
const ENDS4 = { source: '10.0.0.5', destination: '100.64.0.1' };
const ENDS6 = { source: 'fd00::5', destination: 'fd64::1' };
const segment = {
  sourcePort: 49_152,
  destinationPort: 5672,
  payload: new Uint8Array(3001).fill(0x5a),
  checksum: 'partial',
  fragment: 0,
} as const;
const tcp4 = tcpPacket(ENDS4, segment);
const tcp6 = tcpPacket(ENDS6, segment);
const udp4 = udpPacket(ENDS4, segment);
const udp6 = udpPacket(ENDS6, segment);

const frames: Record<string, Uint8Array> = {
  'TCP over IPv4': framed(tcp4, partialHeader(tcp4, { gsoType: 1, gsoSize: 1000 })),
  'TCP over IPv6': framed(tcp6, partialHeader(tcp6, { gsoType: 4, gsoSize: 1000 })),
  'UDP over IPv4': framed(udp4, partialHeader(udp4, { gsoType: 5, gsoSize: 1000 })),
  'fragments of IPv4': framed(udp4, partialHeader(udp4)),
  'fragments of IPv6': framed(udp6, partialHeader(udp6)),
  malformed: framed(udp4.subarray(0, 100)),
};

const segmenter = new PacketSegmenter(1);
const buffer = new Uint8Array(4096);

function send(frame: Uint8Array, packets: number): number {
  let pieces = 0;
  for (let i = 0; i < packets; i++) {
    if (segmenter.begin(buffer, 0, 10, frame.length, 1500) !== SegmentResult.Ready) continue;
    while (segmenter.next() > 0) pieces++;
  }
  return pieces;
}

function bytesFor(frame: Uint8Array): number {
  buffer.set(frame);
  globalThis.gc!();
  const before = process.memoryUsage().heapUsed;
  send(frame, PACKETS);
  return process.memoryUsage().heapUsed - before;
}

const costs: Record<string, number> = {};
for (let round = 0; round < MOST_ROUNDS; round++) {
  for (const [name, frame] of Object.entries(frames)) {
    costs[name] = Math.min(costs[name] ?? Number.POSITIVE_INFINITY, bytesFor(frame));
  }
}
console.log(JSON.stringify(costs));
