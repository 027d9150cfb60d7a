/**
 * Changes a frame of a connection into one that an attacker, or a broken machine, might send.
 *
 * `mutate` does anything. `mutateWithoutHarm` makes only what a receiver must not act upon: a transfer that goes on must
 * still end with the right bytes.
 * @module
 */
import type { ControlBlock } from '../../../src/tcp/control-block.ts';
import type { Random } from '../../support/random.ts';
import { VNET } from '../../support/vnet.ts';
import { ACK, FIN, type Frame, RST, SYN, URG } from './frame.ts';

/** Does one to three things to the frame. `block`: the connection at which it will arrive, if there is one. */
export function mutate(random: Random, frame: Frame, block: ControlBlock | undefined): void {
  for (let count = random.between(1, 3); count > 0; count--) {
    random.pick(ANYTHING)(random, frame, block);
  }
  seal(random, frame);
  if (random.chance(0.1)) breakAfterwards(random, frame);
}

/** Returns false if nothing without harm can be made of this frame now. */
export function mutateWithoutHarm(
  random: Random,
  frame: Frame,
  block: ControlBlock | undefined
): boolean {
  const isRunning = block !== undefined && block.state >= ESTABLISHED && block.state < TIME_WAIT;
  const list = isRunning ? HARMLESS : HARMLESS_ALWAYS;
  return random.pick(list)(random, frame, block!);
}

type Mutation = (random: Random, frame: Frame, block: ControlBlock | undefined) => void;

const ANYTHING: readonly Mutation[] = [
  (random, frame, block) => {
    frame.sequence = nearReceive(random, block, frame);
  },
  (random, frame, block) => {
    frame.sequence = nearReceive(random, block, frame);
  },
  (random, frame, block) => {
    frame.acknowledgement = nearSend(random, block, frame);
  },
  (random, frame) => {
    frame.flags = random.chance(0.5) ? random.below(256) : frame.flags ^ (1 << random.below(8));
  },
  (random, frame) => {
    frame.window = random.pick([0, 1, random.below(65_536), 65_535]);
  },
  (random, frame) => writeOptions(random, frame),
  (random, frame, block) => writeSack(random, frame, block),
  (random, frame) => writeTimestamps(random, frame),
  (random, frame) => {
    const change = random.pick([-frame.payloadLength, -1, 1, random.between(-100, 100), 1400]);
    frame.resize(Math.min(Math.max(frame.length + change, frame.payload), VNET + 3000));
  },
  (random, frame) => {
    const at = random.between(VNET, frame.length - 1);
    // The version decides where everything is.
    if (at !== VNET) frame.bytes[at] = random.below(256);
  },
  (random, frame) => {
    const at = random.between(frame.tcp, Math.min(frame.length, frame.tcp + 40) - 1);
    frame.bytes[at] = random.below(256);
  },
  (random, frame) => {
    // Another client, perhaps with a SYN.
    frame.setPort(0, random.below(65_536));
    if (random.chance(0.5)) frame.setSourceEnd(random.below(65_536));
    if (random.chance(0.7)) frame.flags = SYN;
  },
  (random, frame) => frame.setPort(1, random.below(65_536)),
];

type Harmless = (random: Random, frame: Frame, block: ControlBlock) => boolean;

/** These do no harm to a connection in any state. */
const HARMLESS_ALWAYS: readonly Harmless[] = [
  // A checksum that is wrong. 0 and 0xffff are the same sum: the error is neither.
  (random, frame) => {
    frame.sealCompletely(1 + random.below(0xfffe));
    return true;
  },
  // A data offset that is too small, or behind the end.
  (random, frame) => {
    const words = Math.ceil((frame.length - frame.tcp) / 4) + 1;
    const offset = words <= 15 && random.chance(0.5) ? random.between(words, 15) : random.below(5);
    frame.bytes[frame.tcp + 12] = offset << 4;
    frame.bytes[0] = 0;
    return true;
  },
  // A length that is not that of the frame.
  (random, frame) => {
    seal(random, frame);
    frame.setIpLength(frame.length - VNET + random.pick([-3000, 1, 7, 1000]));
    return frame.length - VNET < 3000;
  },
  // Another client.
  (random, frame) => {
    frame.setPort(0, 1 + random.below(1000));
    frame.setSourceEnd(0x0a00 + random.below(256));
    frame.flags = random.pick([SYN, ACK, RST, FIN | ACK, SYN | ACK, 0]);
    seal(random, frame);
    return true;
  },
];

/** These do no harm to a connection from ESTABLISHED to LAST-ACK. */
const HARMLESS: readonly Harmless[] = [
  ...HARMLESS_ALWAYS,
  // The same frame once more.
  (random, frame) => {
    if (frame.has(SYN) || frame.has(RST)) return false;
    seal(random, frame);
    return true;
  },
  // Urgent data is not known here; nor are the two bits of ECN.
  (random, frame) => {
    if (frame.has(SYN) || frame.has(RST)) return false;
    frame.flags |= random.pick([URG, 0x40, 0x80, 0xe0]);
    frame.bytes[frame.tcp + 19] = random.below(256);
    seal(random, frame);
    return true;
  },
  // A RST that is not exact.
  (random, frame, block) => {
    frame.flags = random.pick([RST, RST | ACK, RST | FIN | ACK, RST | SYN]);
    frame.sequence = nearReceive(random, block, frame);
    seal(random, frame);
    return frame.sequence !== block.window.next;
  },
  // A SYN.
  (random, frame, block) => {
    frame.flags = random.pick([SYN, SYN | ACK, SYN | FIN]);
    frame.sequence = nearReceive(random, block, frame);
    seal(random, frame);
    return true;
  },
  // An ACK of what was never sent, or of what is long gone.
  (random, frame, block) => {
    if (frame.has(SYN) || frame.has(RST)) return false;
    const beyond = (block.sndNxt + 1 + random.below(100_000)) | 0;
    const before = (block.sndUna - block.sendWindow.max - 1 - random.below(100_000)) | 0;
    frame.acknowledgement = random.chance(0.5) ? beyond : before;
    seal(random, frame);
    return true;
  },
  // A segment outside of the window.
  (random, frame, block) => {
    if (frame.has(SYN) || frame.has(RST)) return false;
    const { next, size } = block.window;
    const behind = (next + size + 1 + random.below(100_000)) | 0;
    const before = (next - frame.segmentLength - 1 - random.below(100_000)) | 0;
    frame.sequence = random.chance(0.5) ? behind : before;
    seal(random, frame);
    return true;
  },
  // Neither ACK nor RST nor SYN.
  (random, frame) => {
    frame.flags = random.pick([0, FIN, URG, FIN | URG, 0x08]);
    seal(random, frame);
    return true;
  },
  // Options whose lengths are wrong.
  (random, frame) => {
    if (frame.has(SYN) || frame.has(RST) || frame.payload === frame.tcp + 20) return false;
    frame.bytes[frame.tcp + 20] = random.pick([2, 3, 4, 8, 30, 253]);
    frame.bytes[frame.tcp + 21] = random.pick([0, 1, 60, 255]);
    seal(random, frame);
    return true;
  },
];

/** A number near the edges of what the connection receives. */
function nearReceive(random: Random, block: ControlBlock | undefined, frame: Frame): number {
  if (block === undefined || random.chance(0.05)) return random.below(2 ** 32) | 0;
  const { next, size } = block.window;
  const length = frame.segmentLength;
  const edge = random.pick([0, size, -length, size - length, -size, random.below(size + 1)]);
  return (next + edge + random.between(-2, 2)) | 0;
}

function nearSend(random: Random, block: ControlBlock | undefined, _: Frame): number {
  if (block === undefined || random.chance(0.05)) return random.below(2 ** 32) | 0;
  const { sndUna, sndNxt, sendWindow } = block;
  const edge = random.pick([sndUna, sndNxt, sndUna - sendWindow.max, sndUna + 1448]);
  return (edge + random.between(-2, 2)) | 0;
}

function writeOptions(random: Random, frame: Frame): void {
  frame.setOptionsLength(4 * random.below(11));
  for (let at = frame.tcp + 20; at < frame.payload; at++) {
    frame.bytes[at] = random.chance(0.5) ? random.below(11) : random.below(256);
  }
}

/** Blocks near what is outstanding: empty ones, turned ones, ones that overlap. */
function writeSack(random: Random, frame: Frame, block: ControlBlock | undefined): void {
  const count = random.between(1, 4);
  frame.setOptionsLength(4 + 8 * count);
  const at = frame.tcp + 20;
  frame.bytes.set([1, 1, 5, 2 + 8 * count], at);
  const view = new DataView(frame.bytes.buffer, at + 4, 8 * count);
  const outstanding = block === undefined ? 1 : (block.sndNxt - block.sndUna) | 0;
  const base = block === undefined ? 0 : block.sndUna;
  for (let edge = 0; edge < 2 * count; edge++) {
    const offset = random.between(-3, Math.max(outstanding, 0) + 3);
    view.setInt32(4 * edge, random.chance(0.9) ? (base + offset) | 0 : random.below(2 ** 32) | 0);
  }
}

function writeTimestamps(random: Random, frame: Frame): void {
  const at = frame.tcp + 20;
  if (frame.payload < at + 12 || frame.bytes[at + 2] !== 8) return;
  const view = new DataView(frame.bytes.buffer, at + 4, 8);
  const index = random.pick([0, 4]);
  const change = random.pick([-1, 1, 1000, -1000, 2 ** 31 - 1, random.below(2 ** 32)]);
  view.setInt32(index, (view.getInt32(index) + change) | 0);
}

function seal(random: Random, frame: Frame): void {
  if (frame.length - frame.tcp > 600 || random.chance(0.5)) frame.sealPartially();
  else frame.sealCompletely();
}

/** What no checksum covers, or what breaks them. */
function breakAfterwards(random: Random, frame: Frame): void {
  switch (random.below(4)) {
    case 0:
      for (let at = 0; at < VNET; at++) if (random.chance(0.3)) frame.bytes[at] = random.below(256);
      break;
    case 1:
      frame.bytes[1] = random.pick([1, 3, 4, 5, 0x81]);
      frame.bytes[4] = random.below(256);
      frame.bytes[5] = random.below(8);
      break;
    case 2:
      frame.length = random.between(VNET, frame.length);
      break;
    default:
      frame.bytes[random.between(VNET + 1, frame.length - 1)] = random.below(256);
  }
}

const ESTABLISHED = 3;
const TIME_WAIT = 9;
