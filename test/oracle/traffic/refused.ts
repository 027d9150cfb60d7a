/**
 * Packets that differ from allowed ones in an address, a port, a header or an option.
 * @module
 */

import {
  DCCP,
  type Ends,
  echoPacket,
  ICMP,
  ICMPV6,
  icmpMessage,
  ipPacket,
  repairIpv4Checksum,
  SYN,
  TCP,
  transportOf,
  UDP,
  UDPLITE,
} from '../../support/packets.ts';
import type { Random } from '../../support/random.ts';
import { framed } from '../../support/vnet.ts';
import { versionOf } from '../headers.ts';
import type { Flow, World } from '../plans.ts';
import { ADDRESS_OPTIONS, BAD_IPV4_OPTIONS } from './error.ts';
import {
  authentication,
  BAD_OPTIONS,
  destinationOptions,
  HOME_ADDRESS_OPTIONS,
  hopByHop,
  routing,
} from './extension.ts';
import {
  anyAddress,
  type Draft,
  type Draw,
  dress,
  type Entrance,
  entrance,
  exchange,
  type Kinds,
  ofFlow,
  offloadHeader,
  type Port,
  patched,
  pickPort,
  SIDES,
  type Side,
  type Style,
  segment,
  sessionPacket,
} from './flow.ts';

/** A packet that differs from an allowed one only in its addresses or ports. */
function astray(
  side: Side | 'any',
  change: (random: Random, at: Entrance, port: Port, flow: Flow, world: World) => Draft | undefined
): Draw {
  return (random, world) => {
    const flow = random.pick(world.open);
    const port = pickPort(random, flow)!;
    const at = entrance(flow, side === 'any' ? random.pick(SIDES) : side);
    return change(random, at, port, flow, world);
  };
}

/** A request of a client that has the version that the style needs. */
function styled(version: 4 | 6, style: (random: Random) => Style): Draw {
  return astray('request', (random, { realm, ends }, port) =>
    versionOf(ends.source) === version
      ? { realm, frame: segment(random, ends, port, 'request', style(random)) }
      : undefined
  );
}

/** An allowed packet whose bytes were changed behind its builder's back. */
function spoilt(
  change: (random: Random, packet: Uint8Array, ends: Ends) => Uint8Array | undefined
): Draw {
  return astray('any', (random, { realm, ends }, port) => {
    const side = random.pick(SIDES);
    const packet = sessionPacket(random, ends, port, side, dress(random, ends));
    const changed = change(random, packet, ends);
    return changed && { realm, frame: framed(changed) };
  });
}

/** The packet with another value in its transport header, if it is of that protocol. */
function patchedTransport(
  packet: Uint8Array,
  protocol: number,
  at: number,
  ...values: number[]
): Uint8Array | undefined {
  const transport = transportOf(packet);
  return transport.protocol === protocol
    ? patched(packet, transport.start + at, ...values)
    : undefined;
}

/** Packets whose headers are right, but that the plan does not let pass. */
export const REFUSED: Kinds = {
  'no presence of the client yet': [
    1,
    (random, world) => exchange(random, random.pick(world.unbound), undefined)?.slice(0, 1),
  ],
  'wrong port': [
    1.5,
    astray('request', (random, { realm, ends }, port) => {
      const number = (port.number + random.pick([1, 65_535])) % 65_536;
      if (port.protocol === 'ip') return undefined;
      return { realm, frame: segment(random, ends, { ...port, number }, 'request') };
    }),
  ],
  'wrong protocol': [
    1.5,
    astray('any', (random, { realm, ends }, { number }) => {
      const protocol = random.pick(['tcp', 'tcp', 'udp', 'udplite', 'sctp', 'icmp'] as const);
      return { realm, frame: segment(random, ends, { protocol, number }, random.pick(SIDES)) };
    }),
  ],
  'wrong protocol number': [
    0.7,
    astray('any', (random, { realm, ends }) => {
      const number = random.pick([2, 4, 41, 50, 59, 89, 47, 255]);
      return { realm, frame: segment(random, ends, { protocol: 'ip', number }, 'request') };
    }),
  ],
  'large packet to a wrong port': [
    0.4,
    astray('request', (random, { realm, ends }, port) => {
      const payloadLength = random.pick([500, 548, 1228, 1400]);
      const style = { ...dress(random, ends), payloadLength };
      const wrong = { protocol: random.pick(['tcp', 'udp'] as const), number: port.number ^ 1 };
      return { realm, frame: segment(random, ends, wrong, 'request', style) };
    }),
  ],
  'wrong realm': [
    1,
    astray('any', (random, { ends }, port, _flow, { plan }) => ({
      realm: random.pick(plan.realms).name,
      frame: segment(random, ends, port, random.pick(SIDES)),
    })),
  ],
  'wrong client': [
    1,
    (random, world) => ofFlow(random, random.pick(world.closed), random.pick(SIDES)),
  ],
  'stray client': [
    0.5,
    (random, world) => ofFlow(random, random.pick(world.stray), random.pick(SIDES)),
  ],
  'spoofed source': [
    1,
    astray('request', (random, { realm, ends }, port) => {
      const source = anyAddress(random, versionOf(ends.source));
      return { realm, frame: segment(random, { ...ends, source }, port, 'request') };
    }),
  ],
  'source out of a pool': [
    0.6,
    astray('request', (random, { realm, ends }, port, _flow, { plan }) => {
      const presences = plan.presences.filter(
        (presence) =>
          presence.realm === realm && versionOf(presence.address) === versionOf(ends.source)
      );
      const source = random.pick(presences).address;
      return { realm, frame: segment(random, { ...ends, source }, port, 'request') };
    }),
  ],
  'no such presence': [
    1,
    astray('any', (random, { realm, ends }, port, _flow, { plan }) => {
      const pool = plan.realms.find(({ name }) => name === realm)?.pools?.[0];
      const inPool = `${pool?.split('.').slice(0, 3).join('.')}.${random.between(251, 255)}`;
      const destination = random.pick([
        ends.source,
        anyAddress(random, versionOf(ends.source)),
        pool === undefined || versionOf(ends.source) === 6 ? ends.source : inPool,
      ]);
      return { realm, frame: segment(random, { ...ends, destination }, port, 'request') };
    }),
  ],
  'any two addresses of the plan': [
    1,
    astray('any', (random, { realm, ends }, port, _flow, { plan }) => {
      const presence = random.pick(plan.presences);
      const source = random.pick(plan.presences).of.address;
      const destinations = [presence.address, ends.destination].filter(
        (text) => versionOf(text) === versionOf(source)
      );
      if (destinations.length === 0) return undefined;
      const destination = random.pick(destinations);
      return {
        realm: random.pick([realm, presence.realm]),
        frame: segment(random, { source, destination }, port, random.pick(SIDES)),
      };
    }),
  ],
  'session opened by the service': [
    1,
    astray('reply', (random, { realm, ends }, port) => {
      const number = random.between(1, 65_535);
      if (port.protocol === 'ip') return undefined;
      return { realm, frame: segment(random, ends, { ...port, number }, 'request') };
    }),
  ],
  'syn as a reply': [
    1,
    (random, world) =>
      ofFlow(random, random.pick(world.open), 'reply', 'tcp', {
        flags: random.pick([SYN, SYN | 0x01, SYN | 0xc0, SYN | 0x04]),
      }),
  ],
  'init as a reply': [
    0.9,
    (random, world) => ofFlow(random, random.pick(world.open), 'reply', 'sctp', { chunk: 1 }),
  ],
};

/** Packets with one fault in their headers. */
export const FAULTY: Kinds = {
  'unsupported protocol': [
    0.6,
    spoilt((random, _packet, ends) =>
      ipPacket(
        ends,
        random.pick(
          versionOf(ends.source) === 6
            ? [DCCP, 135, 139, 140, 253, 254, ICMP]
            : [DCCP, DCCP, 0, 44, 135, 254, ICMPV6, ICMPV6]
        ),
        random.bytes(40)
      )
    ),
  ],
  'unsupported icmp type': [
    0.6,
    spoilt((random, _packet, ends) =>
      icmpMessage(ends, {
        type: random.pick(
          versionOf(ends.source) === 6
            ? [0, 5, 100, 130, 133, 134, 135, 136, 137, 255]
            : [1, 4, 5, 9, 10, 13, 14, 17, 18, 30, 40]
        ),
        payload: random.bytes(random.below(60)),
      })
    ),
  ],
  'option with addresses': [
    0.6,
    styled(4, (random) => ({ options: random.pick(ADDRESS_OPTIONS) })),
  ],
  'malformed option': [0.6, styled(4, (random) => ({ options: random.pick(BAD_IPV4_OPTIONS) }))],
  'malformed ipv6 option': [
    0.5,
    styled(6, (random) => ({
      extensions: [{ type: random.pick([0, 60]), bytes: random.pick(BAD_OPTIONS).slice() }],
    })),
  ],
  'home address option': [
    0.4,
    styled(6, (random) => ({
      extensions: [{ type: 60, bytes: random.pick(HOME_ADDRESS_OPTIONS).slice() }],
    })),
  ],
  'routing header with segments left': [
    0.6,
    styled(6, (random) => {
      const { type, bytes } = routing(random);
      return { extensions: [{ type, bytes: patched(bytes, 3, random.between(1, 255)) }] };
    }),
  ],
  'hop-by-hop options behind others': [
    0.6,
    styled(6, (random) => ({ extensions: [destinationOptions(random), hopByHop(random)] })),
  ],
  'many extension headers': [
    0.6,
    styled(6, (random) => ({
      extensions: Array.from({ length: random.between(7, 10) }, () =>
        random.pick([destinationOptions, routing, authentication])(random)
      ),
    })),
  ],
  'extension header that is too long': [
    0.6,
    styled(6, (random) => ({
      payloadLength: 8,
      extensions: [
        { type: random.pick([0, 43, 51, 60]), bytes: Uint8Array.of(0, 200, 1, 4, 0, 0, 0, 0) },
      ],
    })),
  ],
  'wrong ipv4 header checksum': [
    0.5,
    spoilt((random, packet) =>
      packet[0]! >> 4 === 4 ? patched(packet, 10, packet[10]! ^ random.between(1, 255)) : undefined
    ),
  ],
  'tcp data offset': [
    0.8,
    spoilt((random, packet) => patchedTransport(packet, TCP, 12, random.below(16) << 4)),
  ],
  'udp length': [
    2,
    spoilt((random, packet) => {
      const length = packet.length - transportOf(packet).start + random.pick([-1, 1, 8]);
      return patchedTransport(packet, UDP, 4, length >> 8, length & 255);
    }),
  ],
  'udp-lite coverage': [
    3,
    spoilt((random, packet) => {
      const length = packet.length - transportOf(packet).start;
      const coverage = random.pick([1, 7, length + 1, 65_535]);
      return patchedTransport(packet, UDPLITE, 4, coverage >> 8, coverage & 255);
    }),
  ],
  'udp without checksum over ipv6': [
    0.8,
    (random, world) =>
      ofFlow(random, random.pick(world.open), 'request', 'udp', { checksum: 'none' }),
  ],
  'udp-lite without checksum': [
    0.9,
    (random, world) =>
      ofFlow(random, random.pick(world.open), 'request', 'udplite', { checksum: 'none' }),
  ],
  'short transport header': [
    0.5,
    spoilt((random, packet, ends) => {
      const { protocol, start } = transportOf(packet);
      return ipPacket(ends, protocol, packet.subarray(start, start + random.below(20)));
    }),
  ],
  'udp fragmentation offload': [
    0.6,
    (random, world) => {
      const style = { offload: 'super' } as const;
      const draft = ofFlow(random, random.pick(world.open), random.pick(SIDES), 'udp', style);
      draft?.frame.set([random.pick([3, 0x83])], 1);
      return draft;
    },
  ],
  'offload of another protocol': [
    0.5,
    astray('any', (random, { realm, ends }, port) => {
      const packet = ['udplite', 'sctp', 'ip'].includes(port.protocol)
        ? sessionPacket(random, ends, port, 'request', {})
        : echoPacket(ends, { checksum: 'partial' });
      return { realm, frame: framed(packet, offloadHeader(random, packet, false)) };
    }),
  ],
  'truncated header': [
    0.3,
    spoilt((random, packet) => {
      const truncated = packet.slice(0, random.below(transportOf(packet).start));
      if (truncated.length >= 20) repairIpv4Checksum(truncated);
      return truncated;
    }),
  ],
};
