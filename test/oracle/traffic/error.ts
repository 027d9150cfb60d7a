/**
 * ICMP errors about packets of a plan's flows, with complete and truncated quotes, and extensions (RFC 4884).
 * @module
 */

import { type ChecksumFill, icmpError, transportStart } from '../../support/packets.ts';
import type { Random } from '../../support/random.ts';
import { framed, type VnetHeader } from '../../support/vnet.ts';
import { fragmentHeader } from '../fragment-packet.ts';
import { versionOf } from '../headers.ts';
import { authentication } from './extension.ts';
import {
  anyAddress,
  type Draft,
  type Draw,
  dress,
  type Entrance,
  entrance,
  type Kinds,
  type Port,
  type Protocol,
  patched,
  pickPort,
  type Side,
  type Style,
  sessionPacket,
} from './flow.ts';

export interface ErrorStyle {
  readonly quoted?: Style;
  readonly quote?: (packet: Uint8Array) => Uint8Array;
  readonly quoteLength?: (packet: Uint8Array) => number;
  readonly checksum?: ChecksumFill;
  readonly foreign?: boolean;
  readonly vnet?: VnetHeader;
  readonly icmpExtensions?: Uint8Array;
  readonly header?: ErrorWords;
  readonly outer?: Style;
}

/** Type, code and second word. */
type ErrorWords = readonly [type: number, code: number, rest: number];

/** An ICMP error that enters on `side`, about a packet in the opposite direction. */
export function error(
  side: Side,
  flows: 'open' | 'unbound' | 'closed',
  style?: (random: Random, version: number) => ErrorStyle,
  protocol?: Protocol
): Draw {
  return (random, world) => {
    const flow = random.pick(world[flows]);
    const port = flow && pickPort(random, flow, protocol);
    if (flow === undefined || port === undefined) return undefined;
    const at = entrance(flow, side);
    return errorAbout(random, at, port, side, style?.(random, versionOf(at.ends.source)) ?? {});
  };
}

export function errorAbout(
  random: Random,
  { realm, ends }: Entrance,
  port: Port,
  side: Side,
  style: ErrorStyle
): Draft {
  const version = versionOf(ends.destination);
  const quotedEnds = {
    source: style.foreign ? anyAddress(random, version) : ends.destination,
    destination: ends.source,
  };
  const quotedStyle = { ...dress(random, quotedEnds), ...style.quoted };
  let quoted = sessionPacket(
    random,
    quotedEnds,
    port,
    side === 'request' ? 'reply' : 'request',
    quotedStyle
  );
  quoted = style.quote?.(quoted) ?? quoted;
  const least = transportStart(quoted) + 8;
  const quoteLength =
    style.quoteLength?.(quoted) ??
    random.pick([least, quoted.length, random.between(least, Math.max(least, quoted.length))]);
  const source = random.pick([ends.source, anyAddress(random, version)]);
  const [type, code, rest] = style.header ?? errorWords(random, version);
  const packet = icmpError(
    { source, destination: ends.destination },
    {
      ...dress(random, ends),
      type,
      code,
      rest,
      quoted,
      quoteLength,
      checksum: style.checksum ?? 'complete',
      icmpExtensions: style.icmpExtensions,
      ...style.outer,
    }
  );
  return { realm, frame: framed(packet, style.vnet) };
}

function errorWords(random: Random, version: number): ErrorWords {
  const size = random.pick([0, 68, 576, 1260, 1280, 1400, 1480, 1500, 9000, 65_535]);
  const code = random.chance(0.1) ? random.below(256) : random.below(5);
  if (version === 4) {
    const pointer = random.below(random.pick([21, 256])) * 0x1000000;
    return random.pick<ErrorWords>([
      [3, random.below(16), 0],
      [3, random.pick([0, 1, 3, 13]), 0],
      [3, 4, size],
      [11, code, 0],
      [12, random.pick([0, 0, 0, 1, 2, code]), pointer],
    ]);
  }
  return random.pick<ErrorWords>([
    [1, code, 0],
    [2, random.pick([0, 0, code]), random.pick([size, size, random.below(0x100000000)])],
    [3, code, 0],
    [4, random.pick([0, 0, 0, 1, code]), random.below(random.pick([41, 41, 0x100000000]))],
  ]);
}

/** An error of a type that may have extensions. */
function extended(random: Random, version: number): ErrorStyle {
  const code = random.pick([0, 1, 3]);
  return {
    icmpExtensions: random.bytes(random.pick([4, 8, 12, 40])),
    header: random.pick<ErrorWords>(
      version === 4
        ? [
            [3, code, 0],
            [3, random.pick([2, 4]), random.pick([0, 1400])],
            [11, code, 0],
            [12, 0, random.below(20) * 0x1000000],
          ]
        : [
            [1, code, 0],
            [3, code, 0],
          ]
    ),
  };
}

const wrongChecksum = (random: Random): Style => ({
  checksum: random.pick([0xffff, 1, random.below(0x10000)]),
});

/** Errors that pass if their flow does. */
export const ERRORS: Kinds = {
  'error about a request': [5, error('reply', 'open')],
  'error about a reply': [5, error('request', 'open')],
  'error with a wrong checksum': [1, error('reply', 'open', wrongChecksum)],
  'error about a wrong checksum': [
    1,
    error('reply', 'open', (random) => ({ quoted: wrongChecksum(random) })),
  ],
  'error about udp without checksum': [
    0.7,
    error('reply', 'open', () => ({ quoted: { checksum: 'none' } }), 'udp'),
  ],
  'error about an echo': [1, error('reply', 'open', undefined, 'icmp')],
  'error about a wrong quoted header': [
    0.7,
    error('request', 'open', (random) => ({
      quote: (packet) => patched(packet, 8, random.below(256)),
    })),
  ],
  'error about a packet of another length': [
    0.7,
    error('request', 'open', (random, version) => ({
      // More than there is, or less: what follows is padding.
      quote: (packet) => patched(packet, version === 4 ? 3 : 5, random.between(40, 255)),
    })),
  ],
  'error about a first fragment': [
    0.7,
    error('reply', 'open', (random, version) => ({
      quoted:
        version === 4
          ? { fragment: 0x2000 }
          : { extensions: [fragmentHeader(0, true, random.below(2 ** 32))] },
    })),
  ],
  'error about an atomic fragment': [
    0.4,
    error('reply', 'open', (random) => ({
      quoted: { extensions: [fragmentHeader(0, false, random.below(2 ** 32))] },
    })),
  ],
  'error with extensions': [1.5, error('reply', 'open', extended)],
  'error with extensions and a long quote': [
    0.4,
    error('request', 'open', (random, version) => ({
      ...extended(random, version),
      quoted: { payloadLength: random.pick([400, 500, 900, 1200]) },
      quoteLength: (packet) => Math.min(packet.length, version === 4 ? 1020 : 1400),
    })),
  ],
  'error with a length attribute': [
    0.7,
    error('reply', 'open', (random, version) => ({
      // The length of the whole quote, less than that, too little, and too much.
      quoteLength: (packet) => packet.length,
      header: [version === 4 ? 11 : 3, 0, random.below(20) * (version === 4 ? 0x10000 : 0x1000000)],
    })),
  ],
  'error with a long quote': [
    0.5,
    error('request', 'open', (random) => ({
      quoted: { payloadLength: random.pick([480, 530, 560, 1180, 1240, 1400]) },
      quoteLength: (packet) => packet.length,
    })),
  ],
};

/** Errors that are refused for what they quote, or how. */
export const REFUSED_ERRORS: Kinds = {
  'error, no presence of the client yet': [0.5, error('request', 'unbound')],
  'wrong client of an error': [0.5, error('request', 'closed')],
  'error about a syn as a reply': [
    0.3,
    error('reply', 'open', () => ({ quoted: { flags: 0x02, chunk: 1 } })),
  ],
  'error about a spoofed source': [
    0.5,
    (random, world) => {
      const flow = random.pick(world.open);
      const port = pickPort(random, flow)!;
      const { realm, ends } = entrance(flow, 'request');
      const source = anyAddress(random, versionOf(ends.source));
      return errorAbout(random, { realm, ends: { ...ends, source } }, port, 'request', {});
    },
  ],
  'error about a foreign packet': [0.5, error('reply', 'open', () => ({ foreign: true }))],
  'error about an error': [
    0.5,
    error('request', 'open', (random, version) => ({
      quoted: { extensions: [], options: new Uint8Array(0), payloadLength: 20 },
      quote: (packet) =>
        version === 4
          ? patched(patched(packet, 9, 1), 20, random.pick([3, 11, 12, 5, 13]))
          : patched(patched(packet, 6, 58), 40, random.pick([1, 2, 3, 4, 135])),
    })),
  ],
  'error about an unsupported protocol': [
    0.5,
    error('request', 'open', (random, version) => ({
      quoted: { extensions: [], payloadLength: 20 },
      quote: (packet) =>
        patched(packet, version === 4 ? 9 : 6, random.pick([33, 135, 139, version === 4 ? 58 : 1])),
    })),
  ],
  'error about an authentication header': [
    0.4,
    error('request', 'open', (random) => ({ quoted: { extensions: [authentication(random)] } })),
  ],
  'error about a later fragment': [
    0.5,
    error('reply', 'open', (random) => {
      const offset = random.between(1, 0x1fff);
      const more = random.chance(0.5);
      return {
        quoted: {
          fragment: offset | (more ? 0x2000 : 0),
          extensions: [fragmentHeader(offset * 8, more, random.below(2 ** 32))],
        },
      };
    }),
  ],
  'error about options with addresses': [
    0.5,
    error('reply', 'open', (random) => ({ quoted: { options: random.pick(ADDRESS_OPTIONS) } })),
  ],
  'error about malformed options': [
    0.3,
    error('reply', 'open', (random) => ({ quoted: { options: random.pick(BAD_IPV4_OPTIONS) } })),
  ],
  'error with a short quote': [
    1,
    error('request', 'open', (random) => ({
      quoteLength: (packet) => random.below(transportStart(packet) + 8),
    })),
  ],
  'error with an offload': [
    0.5,
    error('request', 'open', (random) => ({
      vnet: { flags: 1, checksumStart: random.pick([20, 40]), checksumOffset: 2 },
    })),
  ],
};

export const ADDRESS_OPTIONS: readonly Uint8Array[] = [
  [7, 7, 4, 0, 0, 0, 0],
  [131, 7, 4, 10, 0, 0, 1],
  [1, 137, 7, 4, 10, 0, 0, 1],
  [68, 12, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0],
  [68, 12, 5, 3, 10, 0, 0, 1, 0, 0, 0, 0],
].map((bytes) => Uint8Array.from(bytes));

export const BAD_IPV4_OPTIONS: readonly Uint8Array[] = [
  [0x94, 0, 0, 0],
  [0x94, 1, 0, 0],
  [0x94, 5, 0, 0],
  [1, 1, 1, 0x94],
  [1, 1, 0x94, 200],
].map((bytes) => Uint8Array.from(bytes));
