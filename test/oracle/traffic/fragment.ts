/**
 * Fragmented datagrams: in order and out of order, duplicated, late, overlapping, and with holes.
 * @module
 */
import { textOf } from '../../support/address.ts';
import { type Ends, icmpError, ipPacket } from '../../support/packets.ts';
import type { Random } from '../../support/random.ts';
import { framed } from '../../support/vnet.ts';
import { fragmentHeader, fragmentOf, fragmentPacket } from '../fragment-packet.ts';
import type { Flow, World } from '../plans.ts';
import { destinationOptions } from './extension.ts';
import {
  type Draft,
  type Draw,
  entrance,
  harmlessExtensions,
  type Kinds,
  type Port,
  type Protocol,
  pickPort,
  type Side,
  type Style,
  sessionPacket,
} from './flow.ts';

/** A datagram of a flow, and functions that fragment it. */
interface Datagram {
  readonly packet: Uint8Array;
  readonly identification: number;
  /** Bytes behind the IP header. */
  readonly length: number;
  /** Fragments it at random multiples of 8 behind the transport header. */
  readonly pieces: (count: number) => Uint8Array[];
  /** A fragment of the datagram from one place to another; behind its end, of more bytes. */
  readonly piece: (from: number, to: number, more?: boolean) => Uint8Array;
}

type Arrange = (random: Random, datagram: Datagram) => readonly Uint8Array[] | undefined;

/** The fragments of a request, as they come. */
function train(
  arrange: Arrange,
  options: {
    readonly flows?: 'open' | 'closed' | 'unbound';
    readonly side?: Side;
    readonly protocol?: Protocol;
    readonly style?: Style;
    readonly afterMs?: (random: Random, i: number) => number | undefined;
    readonly vnet?: (i: number) => { readonly flags: number };
  } = {}
): Draw {
  return (random, world: World) => {
    const flow: Flow | undefined = random.pick(world[options.flows ?? 'open']);
    const port = flow && pickPort(random, flow, options.protocol);
    if (flow === undefined || port === undefined) return undefined;
    const { realm, ends } = entrance(flow, options.side ?? 'request');
    const datagram = datagramOf(random, ends, port, options.side ?? 'request', options.style ?? {});
    return arrange(random, datagram)?.map((packet, i): Draft => {
      const frame = framed(packet, options.vnet?.(i));
      const afterMs = options.afterMs?.(random, i);
      return afterMs === undefined ? { realm, frame } : { realm, frame, afterMs };
    });
  };
}

function datagramOf(random: Random, ends: Ends, port: Port, side: Side, style: Style): Datagram {
  const packet = sessionPacket(random, ends, port, side, {
    fragment: 0,
    tcpOptions: new Uint8Array(0),
    payloadLength: random.pick([120, 130, 137, 200, 256]),
    ...style,
  });
  const length = packet.length - (packet[0]! >> 4 === 4 ? 20 : 40);
  const identification = random.below(random.pick([0x10000, 2 ** 32]));
  const payload = packet.subarray(packet.length - length);
  return {
    packet,
    identification,
    length,
    pieces: (count) => {
      const boundaries = new Set<number>();
      const most = Math.ceil(length / 8) - 1;
      const least = Math.min(3, most);
      for (let i = 1; i < count; i++) boundaries.add(8 * random.between(least, most));
      return fragmentPacket(
        packet,
        [...boundaries].sort((a, b) => a - b),
        identification % 2 ** 32
      );
    },
    piece: (from, to, more = to < length) => {
      const data = new Uint8Array(to - from);
      data.set(payload.subarray(from, to));
      return fragmentOf(packet, { from, more, identification }, data);
    },
  };
}

function shuffled<T>(random: Random, list: readonly T[]): T[] {
  const rest = [...list];
  return list.map(() => rest.splice(random.below(rest.length), 1)[0]!);
}

/** Some fragments, the first one first, the others in any order. */
const outOfOrder: Arrange = (random, { pieces }) => {
  const [first, ...later] = pieces(random.between(2, 5));
  return [first!, ...shuffled(random, later)];
};

const inOrder: Arrange = (random, { pieces }) => pieces(random.between(2, 4));

export const FRAGMENTS: Kinds = {
  'fragments in order': [1, train(inOrder)],
  'fragments out of order': [0.8, train(outOfOrder)],
  'fragments of a reply': [0.5, train(outOfOrder, { side: 'reply', protocol: 'tcp' })],
  'fragments of sctp': [0.3, train(inOrder, { protocol: 'sctp' })],
  'fragments of udp without checksum': [
    0.3,
    train(inOrder, { protocol: 'udp', style: { checksum: 'none' } }),
  ],
  'fragments with a wrong checksum': [
    0.2,
    train(inOrder, { protocol: 'tcp', style: { checksum: 0x1234 } }),
  ],
  'fragments of an echo': [0.4, train(inOrder, { protocol: 'icmp' })],
  'fragments that must not be split': [
    0.2,
    train((random, datagram) =>
      inOrder(random, datagram)!.map((packet) => {
        if (packet[0]! >> 4 === 6) return packet;
        const ends = {
          source: textOf(packet.subarray(12, 16)),
          destination: textOf(packet.subarray(16, 20)),
        };
        return ipPacket(ends, packet[9]!, packet.subarray(20), {
          identification: datagram.identification % 0x10000,
          fragment: 0x4000 | (packet[6]! << 8) | packet[7]!,
        });
      })
    ),
  ],
  'large fragments': [
    0.2,
    train((_random, { piece }) => [piece(0, 1400), piece(1400, 1700)], {
      style: { payloadLength: 1680 },
    }),
  ],
  'fragments behind extension headers': [
    0.4,
    train((random, { packet, identification, length, piece }) => {
      if (packet[0]! >> 4 === 4) return undefined;
      const at = 8 * random.between(3, 8);
      // Those in front are in every fragment; those behind are in the first, if at all.
      const front = random.chance(0.7) ? harmlessExtensions(random) : [];
      const behind = random.chance(0.3) ? [destinationOptions(random)] : [];
      const first = behind.length === 0 ? piece(0, at) : undefined;
      return [
        first === undefined || front.length > 0
          ? withExtensions(packet, at, identification, front, behind)
          : first,
        piece(at + behind.reduce((sum, { bytes }) => sum + bytes.length, 0), length, false),
      ];
    }),
  ],
  'first fragment that comes late': [
    0.5,
    train((random, { pieces }) => {
      const [first, ...later] = pieces(random.between(2, 4));
      const [early, ...rest] = shuffled(random, later);
      return early === undefined ? undefined : [early, first!, early, ...rest];
    }),
  ],
  'fragments twice': [
    0.5,
    train((random, datagram) =>
      outOfOrder(random, datagram)!.flatMap((packet) =>
        random.chance(0.4) ? [packet, packet] : [packet]
      )
    ),
  ],
  'first fragment again': [
    0.4,
    train((random, { pieces }) => {
      const [first, ...later] = pieces(4);
      const seen = later.slice(0, random.below(later.length + 1));
      return [first!, ...seen, first!, ...shuffled(random, later)];
    }),
  ],
  'another first fragment': [
    0.3,
    train((random, { piece, length }) => [
      piece(0, 64),
      piece(0, 64 + 8 * random.pick([-1, 1])),
      piece(64, length),
      piece(0, 64),
    ]),
  ],
  'fragments that overlap': [
    0.5,
    train((random, { piece, length }) =>
      random.pick([
        // From within the first, into the first, and beyond another.
        [piece(0, 48), piece(40, 72), piece(72, length)],
        [piece(0, 48), piece(64, 96), piece(48, 72), piece(96, length)],
        [piece(0, 48), piece(64, 80), piece(56, 88), piece(88, length), piece(0, 48)],
      ])
    ),
  ],
  'fragment behind the last': [
    0.3,
    train((random, { piece, length }) =>
      random.pick([
        [piece(0, 48), piece(48, 80, false), piece(80, 96), piece(0, 48)],
        [piece(0, 48), piece(72, 88, false), piece(96, 112), piece(48, 72)],
        [piece(0, 48), piece(96, 112), piece(64, 80, false), piece(48, 64)],
        [piece(0, 48), piece(72, length), piece(48, 56, false), piece(56, 72)],
      ])
    ),
  ],
  'fragments with many holes': [
    0.15,
    train(
      (random, { piece, length }) => {
        const later = Array.from({ length: 10 }, (_, i) => piece(48 + 16 * i, 56 + 16 * i));
        const last = random.chance(0.5) ? [piece(length - (length % 8 || 8), length)] : [];
        const fill = Array.from({ length: 4 }, (_, i) => piece(40 + 16 * i, 48 + 16 * i));
        return [piece(0, 40 - 8 * random.below(2)), ...last, ...later, ...fill, later[9]!];
      },
      { style: { payloadLength: 256 } }
    ),
  ],
  'fragments too late': [
    0.1,
    train((random, { pieces }) => pieces(random.between(3, 4)), {
      afterMs: (random, i) => (i === 2 ? random.between(14_000, 17_000) : undefined),
    }),
  ],
  'fragments of a wrong client': [0.3, train(outOfOrder, { flows: 'closed' })],
  'fragments, no presence of the client yet': [0.2, train(outOfOrder, { flows: 'unbound' })],
  'later fragments alone': [
    0.4,
    train((random, { pieces }) => pieces(random.between(2, 3)).slice(1)),
  ],
  'tiny first fragment': [
    0.4,
    train((random, { piece, length, packet }) => {
      const at = packet[packet[0]! >> 4 === 4 ? 9 : 6] === 6 ? random.pick([8, 16]) : 8;
      return [piece(0, at), piece(at, length)];
    }),
  ],
  'later tcp fragment at offset 8': [
    0.3,
    train((_random, { piece, length }) => [piece(0, 40), piece(8, 16), piece(40, length)], {
      protocol: 'tcp',
    }),
  ],
  'first fragment that hides tcp options': [
    0.2,
    train((_random, { piece, length }) => [piece(0, 24), piece(24, length)], {
      protocol: 'tcp',
      style: { tcpOptions: new Uint8Array(20).fill(1) },
    }),
  ],
  'ragged fragment': [
    0.4,
    train((random, { piece }) => {
      const length = 8 * random.between(3, 6) + random.between(1, 7);
      return random.pick([[piece(0, length, true)], [piece(0, 24), piece(48, 48 + length, true)]]);
    }),
  ],
  'empty fragment': [
    0.3,
    train((random, { piece }) => [piece(0, 48), piece(64, 64, random.chance(0.5))]),
  ],
  'fragment behind 65535 bytes': [
    0.3,
    train((random, { piece }) => [
      piece(0, 48),
      piece(65_528, 65_528 + random.pick([7, 8]), false),
    ]),
  ],
  'udp length of a fragment': [
    0.3,
    train(
      (random, { packet, piece, length }) => {
        const first = piece(0, 64);
        const field = random.pick([8, 63, 64, 65, 65_535]);
        first.set([field >> 8, field & 255], (packet[0]! >> 4 === 4 ? 20 : 48) + 4);
        return [first, piece(64, length)];
      },
      { protocol: 'udp' }
    ),
  ],
  'fragment of an error': [
    0.4,
    (random, world) => {
      const flow = random.pick(world.open);
      const { realm, ends } = entrance(flow, 'request');
      const quotedEnds = { source: ends.destination, destination: ends.source };
      const quoted = sessionPacket(random, quotedEnds, pickPort(random, flow)!, 'reply', {});
      const isIpv4 = !ends.source.includes(':');
      const packet = icmpError(ends, { type: isIpv4 ? 3 : 1, quoted });
      return fragmentPacket(packet, [8 * random.between(1, 5)], random.below(0x10000)).map(
        (piece) => ({
          realm,
          frame: framed(piece),
        })
      );
    },
  ],
  'fragment with an offload': [0.3, train(inOrder, { vnet: (i) => ({ flags: i === 0 ? 2 : 1 }) })],
};

/** The first fragment of an IPv6 packet, with headers in front of the fragment header and behind. */
function withExtensions(
  packet: Uint8Array,
  length: number,
  identification: number,
  front: Style['extensions'] & object,
  behind: Style['extensions'] & object
): Uint8Array {
  const ends = {
    source: textOf(packet.subarray(8, 24)),
    destination: textOf(packet.subarray(24, 40)),
  };
  const extensions = [...front, fragmentHeader(0, true, identification), ...behind];
  return ipPacket(ends, packet[6]!, packet.subarray(40, 40 + length), { extensions });
}
