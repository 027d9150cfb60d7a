/**
 * Requests and replies as they should be: every protocol, with and without offload, answered in time and
 * too late, and of every size.
 * @module
 */

import { SYN, transportOf } from '../../support/packets.ts';
import type { Random } from '../../support/random.ts';
import { VNET } from '../../support/vnet.ts';
import { fragmentHeader } from '../fragment-packet.ts';
import { versionOf } from '../headers.ts';
import { authentication } from './extension.ts';
import {
  type Draw,
  exchange,
  harmlessExtensions,
  type Kinds,
  ofFlow,
  type Protocol,
  patched,
  SIDES,
  type Side,
  type Style,
} from './flow.ts';

export function valid(
  side: Side | 'any',
  protocol?: Protocol,
  extra: (random: Random) => Style = () => ({})
): Draw {
  return (random, world) =>
    ofFlow(
      random,
      random.pick(world.open),
      side === 'any' ? random.pick(SIDES) : side,
      protocol,
      extra(random)
    );
}

function answered(
  protocol: Protocol,
  style: (random: Random) => Parameters<typeof exchange>[3] = () => ({})
): Draw {
  return (random, world) => exchange(random, random.pick(world.open), protocol, style(random));
}

/** One that only asks; its answers come without a request. */
function unasked(protocol: Protocol): Draw {
  return (random, world) => exchange(random, random.pick(world.open), protocol)?.slice(1);
}

export const partial = (): Style => ({ offload: 'partial' });
const superPacket = (): Style => ({ offload: 'super' });
/** Segments so short that there may be more of them than one packet may make. */
const manySegments = (random: Random): Style => ({
  offload: 'super',
  gsoSize: random.pick([1, 1, 2, 7, 215, 216]),
  payloadLength: random.pick([127, 128, 129, 256, 257, 128 * 215, 128 * 215 + 1, 128 * 216 + 1]),
});
const wrongChecksum = (random: Random): Style => ({
  checksum: random.pick([0xffff, 1, random.below(0x10000)]),
});

/** A SYN with an MSS option at the front, behind others, not aligned, twice, and before a bad one. */
function mss(random: Random): Style {
  const size = random.pick([
    0,
    500,
    536,
    1220,
    1240,
    1300,
    1460,
    8960,
    65_535,
    random.below(65_536),
  ]);
  const option = [2, 4, size >> 8, size & 255];
  return {
    flags: random.pick([SYN, SYN | 0x10]),
    tcpOptions: Uint8Array.from(
      random.pick([
        option,
        [1, ...option],
        [1, 1, 1, ...option, 0],
        [4, 2, 8, 10, 0, 1, 2, 3, 4, 5, 6, 7, ...option],
        [...option, ...option],
        [2, 3, 9, ...option],
        [...option, 8, 200],
        [0, ...option],
        [3, 1, ...option],
        [1, 2, 4, 5],
      ])
    ),
  };
}

const large = (random: Random): Style => ({
  payloadLength: random.pick([480, 900, 1180, 1232, 1240, 1260, 1380, 1420, 1460, 1500]),
  fragment: random.pick([0, 0, 0x4000]),
});

/** Packets of allowed sessions. */
export const SESSIONS: Kinds = {
  'tcp request': [8, valid('request', 'tcp')],
  'tcp reply': [8, valid('reply', 'tcp')],
  'udp request': [4, valid('request', 'udp')],
  'udp exchange': [3, answered('udp')],
  'udp without checksum': [
    0.7,
    answered('udp', () => ({ request: { checksum: 'none' }, reply: { checksum: 'none' } })),
  ],
  'udp reply without a request': [0.7, unasked('udp')],
  'udp-lite exchange': [2, answered('udplite')],
  'udp-lite reply without a request': [0.9, unasked('udplite')],
  'sctp request': [2, valid('request', 'sctp')],
  'sctp reply': [2, valid('reply', 'sctp')],
  'echo exchange': [3, answered('icmp')],
  'echo reply without a request': [0.7, unasked('icmp')],
  'exchange of another protocol': [2, answered('ip')],
  'reply of another protocol without a request': [0.7, unasked('ip')],
  'reply in the last moment': [
    0.3,
    (random, world) => {
      const protocol = random.pick(['udp', 'icmp'] as const);
      const afterMs = protocol === 'udp' ? 300_000 : 60_000;
      return exchange(random, random.pick(world.open), protocol, {
        afterMs: afterMs + random.below(2),
      });
    },
  ],
  'reply too late': [
    0.3,
    (random, world) =>
      exchange(random, random.pick(world.open), random.pick(['udp', 'icmp', 'udplite', 'ip']), {
        afterMs: random.between(60_001, 400_000),
      }),
  ],
  'partial request': [3, valid('request', undefined, partial)],
  'partial exchange': [
    1,
    (random, world) => {
      const protocol = random.pick(['udp', 'icmp'] as const);
      const flow = random.pick(world.open);
      const isIpv4 = (text: string): boolean => !text.includes(':');
      if (protocol === 'icmp' && (isIpv4(flow.client) || isIpv4(flow.permit.service.address))) {
        return undefined;
      }
      return exchange(random, flow, protocol, { request: partial(), reply: partial() });
    },
  ],
  'partial echo': [1.2, valid('request', 'icmp', partial)],
  'partial reply': [3, valid('reply', 'tcp', partial)],
  'tcp super-packet': [0.7, valid('request', 'tcp', superPacket)],
  'udp super-packet': [0.8, valid('request', 'udp', superPacket)],
  'super-packet of many segments': [
    1.6,
    (random, world) => valid('request', random.pick(['tcp', 'udp']), manySegments)(random, world),
  ],
  'wrong tcp checksum': [1.5, valid('reply', 'tcp', wrongChecksum)],
  'wrong udp checksum': [1.5, valid('request', 'udp', wrongChecksum)],
  'wrong udp-lite checksum': [0.9, valid('request', 'udplite', wrongChecksum)],
  'wrong icmp checksum': [1, valid('request', 'icmp', wrongChecksum)],
  'wrong partial sum': [
    1,
    (random, world) => {
      const protocol = random.pick(['tcp', 'icmp'] as const);
      const draft = ofFlow(random, random.pick(world.open), 'request', protocol, partial());
      if (draft === undefined) return undefined;
      const { protocol: number, start } = transportOf(draft.frame.subarray(VNET));
      const at = VNET + start + (number === 6 ? 16 : 2);
      draft.frame.set(random.pick([[0, 0], [255, 255], [...random.bytes(2)]]), at);
      return draft;
    },
  ],
  'tcp syn with mss': [1.5, valid('any', 'tcp', mss)],
  'partial tcp syn with mss': [
    0.7,
    valid('request', 'tcp', (random) => ({ ...mss(random), offload: 'partial' })),
  ],
  'large packet': [2, valid('request', undefined, large)],
  'large reply': [0.4, valid('reply', 'tcp', large)],
  'packet as large as can be': [
    0.6,
    (random, world) => {
      const flow = random.pick(world.open);
      const largest = (versionOf(flow.client) === 4 ? 65_515 : 65_535) - 8;
      const payload = new Uint8Array(largest - random.pick([0, 19, 20, 21, 100]));
      const style = { payload, options: new Uint8Array(0), extensions: [], fragment: 0 };
      return ofFlow(random, flow, 'request', random.pick(['udp', 'udplite']), style);
    },
  ],
  'extension headers': [
    1.5,
    valid('any', undefined, (random) => ({ extensions: harmlessExtensions(random) })),
  ],
  'atomic fragment': [
    0.6,
    valid('any', undefined, (random) => ({
      extensions: [
        ...random.pick([[], harmlessExtensions(random)]),
        fragmentHeader(0, false, random.below(2 ** 32)),
      ],
    })),
  ],
  'authentication header': [
    0.4,
    valid('any', undefined, (random) => ({ extensions: [authentication(random)] })),
  ],
  'flow label': [
    0.5,
    (random, world) => {
      const draft = valid('any')(random, world);
      if (draft === undefined || 'length' in draft) return undefined;
      if (draft.frame[VNET]! >> 4 === 4) return undefined;
      const { realm, frame } = draft;
      return { realm, frame: patched(frame, VNET + 1, frame[VNET + 1]! | 5, ...random.bytes(2)) };
    },
  ],
};
