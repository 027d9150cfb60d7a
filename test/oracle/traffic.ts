/**
 * Random packets for a random plan: what the plan allows, what it just does not allow, and
 * mutations of both. Each kind has a name and a weight, so that a test can see that it had them all.
 * @module
 */
import { bytesOf, textOf } from './address.ts';
import {
  ACK,
  type ChecksumFill,
  type Ends,
  echoPacket,
  FIN,
  framed,
  ICMP,
  ICMPV6,
  type IpOptions,
  icmpError,
  icmpMessage,
  ipPacket,
  repairIpv4Checksum,
  SYN,
  TCP,
  tcpPacket,
  transportStart,
  UDP,
  udpPacket,
  VNET,
  type VnetHeader,
} from './packets.ts';
import type { Flow, World } from './plans.ts';
import type { Random } from './random.ts';

/** A frame (virtio-net header and packet) and the realm that it enters from. */
export interface Draft {
  readonly realm: string;
  readonly frame: Uint8Array;
}

export interface Packet extends Draft {
  readonly kind: string;
}

/** Draws one packet; of a kind that this plan has no flows for, draws again. */
export function randomPacket(random: Random, world: World): Packet {
  for (;;) {
    let ticket = random.next() * TOTAL_WEIGHT;
    for (const { kind, weight, draw } of KINDS) {
      ticket -= weight;
      if (ticket >= 0) continue;
      const draft = draw(random, world);
      if (draft !== undefined) return { kind, ...draft };
      break;
    }
  }
}

type Side = 'request' | 'reply';
type Protocol = 'tcp' | 'udp' | 'icmp';

interface Port {
  readonly protocol: Protocol;
  readonly number: number;
}

interface Entrance {
  readonly realm: string;
  readonly ends: Ends;
}

/** What `dress` may change of a packet and its virtio-net header. */
interface Style extends IpOptions {
  readonly flags?: number;
  readonly offload?: 'partial' | 'super';
  readonly checksum?: ChecksumFill;
}

/** Where a packet of the flow enters, and between which addresses, in the realm that it enters. */
function entrance(flow: Flow, side: Side): Entrance {
  const { service } = flow.permit;
  return side === 'request'
    ? { realm: flow.realm, ends: { source: flow.client, destination: flow.servicePresence } }
    : {
        realm: service.realm,
        ends: { source: service.address, destination: flow.clientPresence ?? flow.client },
      };
}

function pickPort(random: Random, flow: Flow, wanted?: Protocol): Port | undefined {
  const texts = flow.permit.ports.filter((text) => wanted === undefined || text.startsWith(wanted));
  if (texts.length === 0) return undefined;
  const [protocol, range] = random.pick(texts).split('/') as [Protocol, string | undefined];
  const [first, last = first] = (range ?? '0').split('-').map(Number);
  const number = random.pick([first!, last!, random.between(first!, last!)]);
  return { protocol, number };
}

/** One packet of a session, with its virtio-net header. */
function segment(
  random: Random,
  ends: Ends,
  port: Port,
  side: Side,
  style: Style = {}
): Uint8Array {
  const packet = sessionPacket(random, ends, port, side, style);
  if (style.offload === undefined) return framed(packet, { flags: random.chance(0.05) ? 2 : 0 });
  return framed(packet, offloadHeader(random, packet, style.offload === 'super'));
}

function sessionPacket(
  random: Random,
  ends: Ends,
  port: Port,
  side: Side,
  style: Style
): Uint8Array {
  const large = style.offload === 'super' ? random.between(2900, 6000) : random.below(80);
  const options = { payload: random.bytes(large), ...style };
  if (style.offload !== undefined) Object.assign(options, { checksum: 'partial' });
  if (port.protocol === 'icmp') {
    return echoPacket(ends, { ...options, reply: side === 'reply', id: random.below(0x10000) });
  }
  const other = random.between(1, 65_535);
  const ports =
    side === 'request'
      ? { sourcePort: other, destinationPort: port.number }
      : { sourcePort: port.number, destinationPort: other };
  if (port.protocol === 'udp') return udpPacket(ends, { ...options, ...ports });
  const flags = style.flags ?? random.pick(side === 'request' ? REQUEST_FLAGS : REPLY_FLAGS);
  const tcpOptions = random.bytes(random.pick([0, 0, 12, 40]));
  return tcpPacket(ends, { ...options, ...ports, flags, tcpOptions });
}

function offloadHeader(random: Random, packet: Uint8Array, isSuper: boolean): VnetHeader {
  const version = packet[0]! >> 4;
  const protocol = packet[version === 4 ? 9 : 6]!;
  const header = {
    flags: random.pick([1, 1, 3]),
    checksumStart: transportStart(packet),
    checksumOffset: protocol === TCP ? 16 : protocol === UDP ? 6 : 2,
  };
  if (!isSuper) return header;
  const gsoType = protocol === UDP ? 5 : version === 4 ? 1 : 4;
  return {
    ...header,
    gsoType: protocol === TCP && random.chance(0.2) ? gsoType | 0x80 : gsoType,
    gsoSize: random.between(1, 1448),
    headerLength: random.pick([0, transportStart(packet) + 20]),
  };
}

/** What is left to chance in packets that are as they should be. */
function dress(random: Random, ends: Ends): Style {
  const style = {
    identification: random.below(0x10000),
    hopLimit: random.between(1, 255),
    trafficClass: random.pick([0, 0, 0xb8]),
    fragment: random.pick([0, 0x4000]),
  };
  if (ends.destination.includes(':') || random.chance(0.95)) return style;
  return { ...style, options: random.pick(HARMLESS_OPTIONS) };
}

function valid(side: Side, protocol: Protocol, extra: (random: Random) => Style = () => ({})) {
  return (random: Random, world: World): Draft | undefined =>
    ofFlow(random, random.pick(world.open), side, protocol, extra(random));
}

function ofFlow(
  random: Random,
  flow: Flow | undefined,
  side: Side,
  protocol?: Protocol,
  style: Style = {}
): Draft | undefined {
  const port = flow && pickPort(random, flow, protocol);
  if (flow === undefined || port === undefined) return undefined;
  const { realm, ends } = entrance(flow, side);
  const whole = { ...dress(random, ends), ...style };
  // ICMP over IPv4 has no pseudo-header, so its checksum is never partial.
  if (whole.offload && port.protocol === 'icmp' && !ends.source.includes(':')) return undefined;
  return { realm, frame: segment(random, ends, port, side, whole) };
}

interface ErrorStyle {
  readonly quoted?: Style;
  readonly quote?: (packet: Uint8Array) => Uint8Array;
  readonly quoteLength?: (packet: Uint8Array) => number;
  readonly checksum?: ChecksumFill;
  readonly foreign?: boolean;
  readonly vnet?: VnetHeader;
}

/** An ICMP error that enters on `side`, about a packet that went the other way. */
function error(
  side: Side,
  flows: 'open' | 'unbound' | 'closed',
  style?: (random: Random) => ErrorStyle
) {
  return (random: Random, world: World): Draft | undefined => {
    const flow = random.pick(world[flows]);
    const port = flow && pickPort(random, flow);
    if (flow === undefined || port === undefined) return undefined;
    return errorAbout(random, entrance(flow, side), port, side, style?.(random) ?? {});
  };
}

function errorAbout(
  random: Random,
  { realm, ends }: Entrance,
  port: Port,
  side: Side,
  style: ErrorStyle
): Draft {
  const family = bytesOf(ends.destination).length;
  const quotedEnds = {
    source: style.foreign ? anyAddress(random, family) : ends.destination,
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
  const source = random.pick([ends.source, anyAddress(random, family)]);
  const packet = icmpError(
    { source, destination: ends.destination },
    {
      ...dress(random, ends),
      type: random.pick(family === 4 ? [3, 11, 12] : [1, 2, 3, 4]),
      code: random.below(16),
      rest: random.pick([0, 1400, 0x00080000]),
      quoted,
      quoteLength,
      checksum: style.checksum ?? 'complete',
    }
  );
  return { realm, frame: framed(packet, style.vnet) };
}

/** A packet that is like an allowed one, but for its addresses or ports. */
function astray(
  change: (random: Random, at: Entrance, port: Port, flow: Flow, world: World) => Draft | undefined,
  side?: Side
) {
  return (random: Random, world: World): Draft | undefined => {
    const flow = random.pick(world.open);
    const port = pickPort(random, flow);
    if (port === undefined) return undefined;
    return change(random, entrance(flow, side ?? random.pick(SIDES)), port, flow, world);
  };
}

/** An allowed packet whose bytes were changed behind its builder's back. */
function spoilt(
  change: (random: Random, packet: Uint8Array, ends: Ends) => Uint8Array | undefined
) {
  return (random: Random, world: World): Draft | undefined => {
    const flow = random.pick(world.open);
    const port = pickPort(random, flow);
    if (port === undefined) return undefined;
    const side = random.pick(SIDES);
    const { realm, ends } = entrance(flow, side);
    const packet = sessionPacket(random, ends, port, side, dress(random, ends));
    const changed = change(random, packet, ends);
    return changed && { realm, frame: framed(changed) };
  };
}

/** A frame of any other kind, changed; now and then with its IPv4 header checksum put right. */
function mutated(change: (random: Random, frame: Uint8Array) => Uint8Array) {
  return (random: Random, world: World): Draft | undefined => {
    const original = random.pick(MUTABLE)(random, world);
    if (original === undefined) return undefined;
    const frame = change(random, original.frame.slice());
    if (random.chance(0.6)) repairIpv4Checksum(frame.subarray(VNET));
    return { realm: original.realm, frame };
  };
}

function anyAddress(random: Random, family: number): string {
  return textOf(random.bytes(family));
}

/** The bytes with some of them overwritten. */
function patched(bytes: Uint8Array, at: number, ...values: number[]): Uint8Array {
  const copy = bytes.slice();
  copy.set(values, at);
  return copy;
}

function versionOf(packet: Uint8Array): number {
  return packet[0]! >> 4;
}

/** Puts `bytes` between an IPv6 header and what follows it, as the extension header `type`. */
function withExtension(packet: Uint8Array, type: number, length: number): Uint8Array {
  const extended = new Uint8Array(packet.length + length);
  extended.set(packet.subarray(0, 40));
  extended.set(packet.subarray(40), 40 + length);
  extended[40] = packet[6]!;
  extended[6] = type;
  const payloadLength = extended.length - 40;
  return patched(extended, 4, payloadLength >> 8, payloadLength & 255);
}

/** Cuts or lengthens the packet, and may tell its length fields. */
function resized(random: Random, frame: Uint8Array, length: number): Uint8Array {
  const result = new Uint8Array(VNET + length);
  result.set(frame.subarray(0, result.length));
  for (let i = frame.length; i < result.length; i++) result[i] = random.below(256);
  const packet = result.subarray(VNET);
  if (random.chance(0.5) && packet.length >= 40) {
    const version = versionOf(packet);
    const told = version === 4 ? length : length - 40;
    packet.set([told >> 8, told & 255], version === 4 ? 2 : 4);
    const start = transportStart(packet);
    if (packet[version === 4 ? 9 : 6] === UDP && random.chance(0.5) && length >= start + 8) {
      packet.set([(length - start) >> 8, (length - start) & 255], start + 4);
    }
  }
  return result;
}

const SIDES: readonly Side[] = ['request', 'reply'];
const REQUEST_FLAGS = [SYN, SYN | 0xc0, ACK, ACK | 0x08, FIN | ACK, 0x04, 0];
const REPLY_FLAGS = [SYN | ACK, ACK, ACK | 0x08, FIN | ACK, 0x04, 0];
/** No-operations, router alert, stream identifier, and an end before bytes that mean nothing. */
const HARMLESS_OPTIONS = [
  [1, 1, 1, 1],
  [0x94, 4, 0, 0],
  [1, 0x88, 4, 1, 2],
  [0, 131, 3, 9],
].map((bytes) => Uint8Array.from(bytes));
const ADDRESS_OPTIONS = [
  [7, 7, 4, 0, 0, 0, 0],
  [131, 7, 4, 10, 0, 0, 1],
  [1, 137, 7, 4, 10, 0, 0, 1],
  [68, 12, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0],
  [68, 12, 5, 3, 10, 0, 0, 1, 0, 0, 0, 0],
].map((bytes) => Uint8Array.from(bytes));
const BAD_OPTIONS = [
  [0x94, 0, 0, 0],
  [0x94, 1, 0, 0],
  [0x94, 5, 0, 0],
  [1, 1, 1, 0x94],
  [1, 1, 0x94, 200],
].map((bytes) => Uint8Array.from(bytes));

const partial = (): Style => ({ offload: 'partial' });
const superPacket = (): Style => ({ offload: 'super' });
const wrongChecksum = (random: Random): Style => ({
  checksum: random.pick([0xffff, 1, random.below(0x10000)]),
});
const noChecksum = (): Style => ({ checksum: 'none' });

type Draw = (random: Random, world: World) => Draft | undefined;

const MUTABLE: readonly Draw[] = [
  valid('request', 'tcp'),
  valid('reply', 'tcp'),
  valid('request', 'udp'),
  valid('reply', 'udp'),
  valid('request', 'icmp'),
  valid('request', 'tcp', partial),
  valid('reply', 'udp', partial),
  error('request', 'open'),
  error('reply', 'open'),
];

const VALID: Record<string, readonly [number, Draw]> = {
  'tcp request': [9, valid('request', 'tcp')],
  'tcp reply': [9, valid('reply', 'tcp')],
  'udp request': [5, valid('request', 'udp')],
  'udp reply': [5, valid('reply', 'udp')],
  'udp without checksum': [1, valid('request', 'udp', noChecksum)],
  'echo request': [3, valid('request', 'icmp')],
  'echo reply': [3, valid('reply', 'icmp')],
  'partial request': [
    4,
    (random, world) => ofFlow(random, random.pick(world.open), 'request', undefined, partial()),
  ],
  'partial reply': [
    4,
    (random, world) => ofFlow(random, random.pick(world.open), 'reply', undefined, partial()),
  ],
  'tcp super-packet': [0.5, valid('request', 'tcp', superPacket)],
  'udp super-packet': [0.3, valid('reply', 'udp', superPacket)],
  'wrong tcp checksum': [2, valid('reply', 'tcp', wrongChecksum)],
  'wrong udp checksum': [2, valid('request', 'udp', wrongChecksum)],
  'wrong icmp checksum': [1, valid('request', 'icmp', wrongChecksum)],
  'wrong partial sum': [
    1,
    (random, world) => {
      const draft = ofFlow(random, random.pick(world.open), 'request', 'tcp', partial());
      if (draft === undefined) return undefined;
      const start = transportStart(draft.frame.subarray(VNET));
      draft.frame.set(random.pick([[0, 0], [255, 255], [...random.bytes(2)]]), VNET + start + 16);
      return draft;
    },
  ],
  'error about a request': [6, error('reply', 'open')],
  'error about a reply': [6, error('request', 'open')],
  'error with a wrong checksum': [1, error('reply', 'open', wrongChecksum)],
  'error about a wrong checksum': [
    1,
    error('reply', 'open', (random) => ({ quoted: wrongChecksum(random) })),
  ],
  'error about udp without checksum': [
    1,
    (random, world) => {
      const flow = random.pick(world.open);
      const port = pickPort(random, flow, 'udp');
      return (
        port && errorAbout(random, entrance(flow, 'reply'), port, 'reply', { quoted: noChecksum() })
      );
    },
  ],
  'error about a wrong quoted header': [
    1,
    error('request', 'open', (random) => ({
      quote: (packet) => patched(packet, 8, random.below(256)),
    })),
  ],
  'error about a first fragment': [
    0.5,
    error('reply', 'open', () => ({ quoted: { fragment: 0x2000 } })),
  ],
};

const NEAR_MISSES: Record<string, readonly [number, Draw]> = {
  'no presence of the client yet': [
    1,
    (random, world) => ofFlow(random, random.pick(world.unbound), 'request'),
  ],
  'error, no presence of the client yet': [0.5, error('request', 'unbound')],
  'wrong port': [
    1,
    astray(
      (random, { realm, ends }, port) => ({
        realm,
        frame: segment(
          random,
          ends,
          { ...port, number: (port.number + random.pick([1, 65_535])) % 65_536 },
          'request'
        ),
      }),
      'request'
    ),
  ],
  'wrong protocol': [
    1,
    astray(
      (random, { realm, ends }, port) => ({
        realm,
        frame: segment(
          random,
          ends,
          { protocol: random.pick(['tcp', 'udp', 'icmp']), number: port.number },
          'request'
        ),
      }),
      'request'
    ),
  ],
  'wrong realm': [
    1,
    astray((random, { ends }, port, _flow, { plan }) => ({
      realm: random.pick(plan.realms).name,
      frame: segment(random, ends, port, random.pick(SIDES)),
    })),
  ],
  'wrong client': [
    1,
    (random, world) => ofFlow(random, random.pick(world.closed), random.pick(SIDES)),
  ],
  'wrong client of an error': [0.5, error('request', 'closed')],
  'stray client': [
    0.5,
    (random, world) => ofFlow(random, random.pick(world.stray), random.pick(SIDES)),
  ],
  'spoofed source': [
    1,
    astray(
      (random, { realm, ends }, port) => ({
        realm,
        frame: segment(
          random,
          { ...ends, source: anyAddress(random, bytesOf(ends.source).length) },
          port,
          'request'
        ),
      }),
      'request'
    ),
  ],
  'source out of a pool': [
    0.6,
    astray((random, { realm, ends }, port, _flow, { plan }) => {
      const family = bytesOf(ends.source).length;
      const presences = plan.presences.filter(
        (presence) => presence.realm === realm && bytesOf(presence.address).length === family
      );
      return presences.length === 0
        ? undefined
        : {
            realm,
            frame: segment(
              random,
              { ...ends, source: random.pick(presences).address },
              port,
              'request'
            ),
          };
    }, 'request'),
  ],
  'error about a spoofed source': [
    0.5,
    astray((random, { realm, ends }, port) =>
      errorAbout(
        random,
        { realm, ends: { ...ends, source: anyAddress(random, bytesOf(ends.source).length) } },
        port,
        'request',
        {}
      )
    ),
  ],
  'no such presence': [
    1,
    astray((random, { realm, ends }, port) => {
      const destination = random.pick([
        ends.source,
        anyAddress(random, bytesOf(ends.source).length),
      ]);
      return { realm, frame: segment(random, { ...ends, destination }, port, 'request') };
    }),
  ],
  'any two addresses of the plan': [
    1,
    astray((random, { realm, ends }, port, _flow, { plan }) => {
      const presence = random.pick(plan.presences);
      const source = random.pick(plan.presences).of.address;
      if (bytesOf(presence.address).length !== bytesOf(source).length) return undefined;
      return {
        realm: random.pick([realm, presence.realm]),
        frame: segment(
          random,
          {
            source,
            destination: random.pick(
              [presence.address, ends.destination].filter(
                (text) => bytesOf(text).length === bytesOf(source).length
              )
            ),
          },
          port,
          random.pick(SIDES)
        ),
      };
    }),
  ],
  'session opened by the service': [
    1,
    astray(
      (random, { realm, ends }, port) => ({
        realm,
        frame: segment(random, ends, { ...port, number: random.between(1, 65_535) }, 'request'),
      }),
      'reply'
    ),
  ],
  'syn as a reply': [
    1,
    (random, world) =>
      ofFlow(random, random.pick(world.open), 'reply', 'tcp', {
        flags: random.pick([SYN, SYN | FIN, SYN | 0xc0]),
      }),
  ],
  'error about a syn as a reply': [0.3, error('reply', 'open', () => ({ quoted: { flags: SYN } }))],
  'ipv4 fragment': [
    0.6,
    spoilt((random, packet) => {
      if (versionOf(packet) !== 4) return undefined;
      const fragment = random.pick([
        0x2000,
        0x2000 | random.below(0x2000),
        random.between(1, 0x1fff),
      ]);
      const changed = patched(packet, 6, fragment >> 8, fragment & 255);
      repairIpv4Checksum(changed);
      return changed;
    }),
  ],
  'ipv6 fragment': [
    0.6,
    spoilt((_random, packet) =>
      versionOf(packet) === 6 ? withExtension(packet, 44, 8) : undefined
    ),
  ],
  'extension header': [
    0.6,
    spoilt((random, packet) =>
      versionOf(packet) === 6
        ? withExtension(packet, random.pick([0, 43, 51, 60, 135]), 8)
        : undefined
    ),
  ],
  'unsupported protocol': [
    0.6,
    spoilt((random, _packet, ends) =>
      ipPacket(
        ends,
        random.pick([
          0,
          2,
          4,
          33,
          41,
          47,
          50,
          59,
          89,
          132,
          ends.source.includes(':') ? ICMP : ICMPV6,
        ]),
        random.bytes(40)
      )
    ),
  ],
  'unsupported icmp type': [
    0.6,
    spoilt((random, _packet, ends) =>
      icmpMessage(ends, {
        type: random.pick(
          ends.source.includes(':')
            ? [0, 5, 100, 130, 133, 134, 135, 136, 137, 255]
            : [1, 4, 5, 9, 10, 13, 14, 17, 18, 30, 40]
        ),
        payload: random.bytes(random.below(60)),
      })
    ),
  ],
  'option with addresses': [
    0.6,
    astray((random, { realm, ends }, port) =>
      ends.source.includes(':')
        ? undefined
        : {
            realm,
            frame: segment(random, ends, port, 'request', {
              options: random.pick(ADDRESS_OPTIONS),
            }),
          }
    ),
  ],
  'malformed option': [
    0.6,
    astray((random, { realm, ends }, port) =>
      ends.source.includes(':')
        ? undefined
        : {
            realm,
            frame: segment(random, ends, port, 'request', { options: random.pick(BAD_OPTIONS) }),
          }
    ),
  ],
  'wrong ipv4 header checksum': [
    0.5,
    spoilt((random, packet) =>
      versionOf(packet) === 4
        ? patched(packet, 10, packet[10]! ^ random.between(1, 255))
        : undefined
    ),
  ],
  'tcp data offset': [
    0.5,
    spoilt((random, packet) => {
      const start = transportStart(packet);
      return packet[versionOf(packet) === 4 ? 9 : 6] === TCP
        ? patched(packet, start + 12, random.below(16) << 4)
        : undefined;
    }),
  ],
  'error about a foreign packet': [0.5, error('reply', 'open', () => ({ foreign: true }))],
  'error about an error': [
    0.5,
    error('request', 'open', (random) => ({
      quote: (packet) => {
        const start = transportStart(packet);
        return versionOf(packet) === 4
          ? patched(patched(packet, 9, ICMP), start, random.pick([3, 11, 12, 5, 13]))
          : patched(patched(packet, 6, ICMPV6), start, random.pick([1, 2, 3, 4, 135]));
      },
    })),
  ],
  'error about an unsupported protocol': [
    0.5,
    error('request', 'open', (random) => ({
      quote: (packet) =>
        patched(packet, versionOf(packet) === 4 ? 9 : 6, random.pick([2, 47, 50, 132])),
    })),
  ],
  'error about a later fragment': [
    0.5,
    error('reply', 'open', (random) => ({
      quoted: { fragment: random.between(1, 0x1fff) | random.pick([0, 0x2000]) },
      quote: (packet) => (versionOf(packet) === 6 ? withExtension(packet, 44, 8) : packet),
    })),
  ],
  'error about options with addresses': [
    0.5,
    error('reply', 'open', (random) => ({ quoted: { options: random.pick(ADDRESS_OPTIONS) } })),
  ],
  'error about malformed options': [
    0.3,
    error('reply', 'open', (random) => ({ quoted: { options: random.pick(BAD_OPTIONS) } })),
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
  'udp fragmentation offload': [
    0.3,
    (random, world) => {
      const draft = ofFlow(
        random,
        random.pick(world.open),
        random.pick(SIDES),
        'udp',
        superPacket()
      );
      draft?.frame.set([random.pick([3, 0x83])], 1);
      return draft;
    },
  ],
  'offload of an icmp echo': [
    0.5,
    astray((random, { realm, ends }) => {
      const packet = echoPacket(ends, { checksum: 'partial' });
      return { realm, frame: framed(packet, offloadHeader(random, packet, false)) };
    }),
  ],
};

const MUTATIONS: Record<string, readonly [number, Draw]> = {
  'bit flip': [
    5,
    mutated((random, frame) => {
      for (let i = random.pick([1, 1, 1, 2, 8]); i > 0; i--) {
        const at =
          VNET +
          random.below(
            random.pick([frame.length - VNET, 40, 60].filter((n) => n <= frame.length - VNET))
          );
        frame[at]! ^= 1 << random.below(8);
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
        versionOf(packet) === 4
          ? [0, 2, 3, start + 4, start + 5, start + 12]
          : [4, 5, start + 4, start + 5, start + 12]
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
      for (let i = 0; i < count; i++)
        frame[random.below(VNET)] = random.pick([
          0,
          1,
          2,
          3,
          4,
          5,
          6,
          16,
          20,
          40,
          0x80,
          0x81,
          0x84,
          255,
          random.below(256),
        ]);
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

const KINDS: readonly { kind: string; weight: number; draw: Draw }[] = [
  VALID,
  NEAR_MISSES,
  MUTATIONS,
]
  .flatMap((group) => Object.entries(group))
  .map(([kind, [weight, draw]]) => ({ kind, weight, draw }));

/** Kinds whose packets may have several faults at once. */
export const MUTATED_KINDS: ReadonlySet<string> = new Set(Object.keys(MUTATIONS));

/** The names of all kinds that `randomPacket` draws. */
export const PACKET_KINDS: readonly string[] = KINDS.map(({ kind }) => kind);

const TOTAL_WEIGHT = KINDS.reduce((sum, { weight }) => sum + weight, 0);
