/**
 * The stream of an edge, frame by frame, valid and with faults.
 * @module
 */
import { FrameType } from '../../src/tunnel/index.ts';
import { udpPacket } from '../support/packets.ts';
import type { Random } from '../support/random.ts';
import { frameBytes, HELLO } from '../support/raw-peer.ts';
import { framed } from '../support/vnet.ts';
import { mutate } from './fuzz-cases.ts';

/** The longest control message that is accepted, in bytes. */
export const MAX_CONTROL_BYTES = 10_000;

/** Returns a stream from HELLO to perhaps CLOSE, with up to eight faults. */
export function edgeStream(random: Random): Buffer {
  const frames = [random.chance(0.9) ? HELLO_FRAME : anyFrame(random)];
  for (let i = random.below(8); i > 0; i--) frames.push(anyFrame(random));
  if (random.chance(0.2)) frames.push(CLOSE_FRAME);
  return spoilt(random, Buffer.concat(frames));
}

/** Returns the stream of a tunnel that is up, without a HELLO. */
export function openStream(random: Random): Buffer {
  const frames = Array.from({ length: random.between(1, 8) }, () => anyFrame(random));
  return spoilt(random, Buffer.concat(frames));
}

/** Returns the stream in random pieces. */
export function split(random: Random, stream: Buffer): Buffer[] {
  const pieces: Buffer[] = [];
  const most = random.pick([1, 3, 5, 100, 1_000, 20_000]);
  // Only a short stream is sent byte by byte.
  const longest = Math.max(most, Math.ceil(stream.length / 500));
  for (let at = 0; at < stream.length; ) {
    const end = at + random.between(1, longest);
    pieces.push(stream.subarray(at, end));
    at = end;
  }
  return pieces;
}

function spoilt(random: Random, stream: Buffer): Buffer {
  return random.chance(0.15) ? stream : mutate(random, stream);
}

function anyFrame(random: Random): Buffer {
  if (random.chance(0.15)) return frameBytes(random.below(256), randomPayload(random));
  return random.pick(GOOD_FRAMES);
}

function randomPayload(random: Random): Buffer {
  return Buffer.from(random.bytes(random.pick([0, 1, 2, 8, 10, 11, 60])));
}

const PACKET = Buffer.from(
  framed(
    udpPacket(
      { source: '10.0.0.5', destination: '10.0.0.129' },
      { sourcePort: 1, destinationPort: 2, payload: Buffer.alloc(20) }
    )
  )
);
const HELLO_FRAME = frameBytes(FrameType.Hello, HELLO);
const CLOSE_FRAME = frameBytes(FrameType.Close, { code: 'shutdown', reason: '' });
const GOOD_FRAMES: readonly Buffer[] = [
  frameBytes(FrameType.Packet, PACKET),
  frameBytes(FrameType.Packet, Buffer.concat([PACKET, Buffer.alloc(1_400)])),
  frameBytes(FrameType.Packet, Buffer.alloc(11)),
  frameBytes(FrameType.Control, { type: 'ack', revision: 1 }),
  frameBytes(FrameType.Control, { type: 'status', counters: { a: 1 } }),
  frameBytes(FrameType.Ping, Buffer.alloc(8, 1)),
  frameBytes(FrameType.Pong, Buffer.alloc(8, 2)),
  frameBytes(FrameType.Drain, Buffer.alloc(0)),
  frameBytes(0x80, Buffer.alloc(5)),
  frameBytes(0xff, Buffer.alloc(0)),
  HELLO_FRAME,
];
