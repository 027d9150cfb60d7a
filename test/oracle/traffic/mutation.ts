/**
 * Allowed packets with flipped bytes, truncated packets, wrong lengths, and random bytes.
 * @module
 */

import { repairIpv4Checksum, transportOf, transportStart, UDP } from '../../support/packets.ts';
import type { Random } from '../../support/random.ts';
import { framed, VNET } from '../../support/vnet.ts';
import { fragmentHeader } from '../fragment-packet.ts';
import { error } from './error.ts';
import { type Draft, type Draw, harmlessExtensions, type Kinds, offloadHeader } from './flow.ts';
import { partial, valid } from './session.ts';

/** A frame of another kind, changed; now and then with its IPv4 header checksum put right. */
function mutated(change: (random: Random, frame: Uint8Array) => Uint8Array): Draw {
  return (random, world) => {
    const original = random.pick(MUTABLE)(random, world) as Draft | undefined;
    if (original === undefined) return undefined;
    const frame = change(random, original.frame.slice());
    if (random.chance(0.6)) repairIpv4Checksum(frame.subarray(VNET));
    return { realm: original.realm, frame };
  };
}

/** Truncates or extends the packet, and may update its length fields. */
function resized(random: Random, frame: Uint8Array, length: number): Uint8Array {
  const result = new Uint8Array(VNET + length);
  result.set(frame.subarray(0, result.length));
  for (let i = frame.length; i < result.length; i++) result[i] = random.below(256);
  const packet = result.subarray(VNET);
  if (random.chance(0.5) && packet.length >= 40) {
    const isIpv4 = packet[0]! >> 4 === 4;
    const field = isIpv4 ? length : length - 40;
    packet.set([field >> 8, field & 255], isIpv4 ? 2 : 4);
    const { protocol, start } = transportOf(packet);
    if (protocol === UDP && random.chance(0.5) && length >= start + 8) {
      packet.set([(length - start) >> 8, (length - start) & 255], start + 4);
    }
  }
  return result;
}

/** One packet each. */
const MUTABLE: readonly Draw[] = [
  valid('request', 'tcp'),
  valid('reply', 'tcp'),
  valid('request', 'udp'),
  valid('request', 'udplite'),
  valid('request', 'sctp'),
  valid('request', 'icmp'),
  valid('request', 'ip'),
  valid('request', 'tcp', partial),
  valid('request', 'udp', partial),
  valid('request', undefined, (random) => ({ extensions: harmlessExtensions(random) })),
  valid('request', undefined, (random) => ({
    extensions: [fragmentHeader(0, random.chance(0.5), random.below(2 ** 32))],
    fragment: random.pick([0, 0x2000]),
  })),
  error('request', 'open'),
  error('reply', 'open'),
];

const BYTES = [0, 1, 2, 3, 4, 5, 6, 16, 20, 40, 0x80, 0x81, 0x84, 255];

/** Packets that may have several faults at once. */
export const MUTATIONS: Kinds = {
  'bit flip': [
    5,
    mutated((random, frame) => {
      for (let i = random.pick([1, 1, 1, 2, 8]); i > 0; i--) {
        const spans = [frame.length - VNET, 40, 60].filter((n) => n <= frame.length - VNET);
        frame[VNET + random.below(random.pick(spans))]! ^= 1 << random.below(8);
      }
      return frame;
    }),
  ],
  'random byte': [
    3,
    mutated((random, frame) => {
      frame[VNET + random.below(frame.length - VNET)] = random.pick([0, 255, random.below(256)]);
      return frame;
    }),
  ],
  truncation: [
    3,
    mutated((random, frame) => resized(random, frame, random.below(frame.length - VNET))),
  ],
  extension: [
    2,
    mutated((random, frame) => resized(random, frame, frame.length - VNET + random.between(1, 40))),
  ],
  'length field': [
    3,
    mutated((random, frame) => {
      const packet = frame.subarray(VNET);
      const start = transportStart(packet);
      const at = random.pick(
        packet[0]! >> 4 === 4
          ? [0, 2, 3, start + 4, start + 5, start + 12]
          : [4, 5, 41, start + 4, start + 5, start + 12]
      );
      if (at >= packet.length) return frame;
      packet[at] = random.pick([packet[at]! + 1, packet[at]! - 1, 0, random.below(256)]);
      return frame;
    }),
  ],
  'virtio-net header': [
    4,
    mutated((random, frame) => {
      const header = offloadHeader(random, frame.subarray(VNET), random.chance(0.6));
      frame.set(framed(new Uint8Array(0), header));
      const count = random.below(3);
      for (let i = 0; i < count; i++) {
        frame[random.below(VNET)] = random.pick([...BYTES, random.below(256)]);
      }
      return frame;
    }),
  ],
  noise: [
    0.5,
    (random, world) => {
      const frame = new Uint8Array(VNET + random.below(100));
      frame.set(random.bytes(frame.length - VNET), VNET);
      if (frame.length > VNET) frame[VNET] = random.pick([0x45, 0x46, 0x60, frame[VNET]!]);
      return { realm: random.pick(world.plan.realms).name, frame };
    },
  ],
};
