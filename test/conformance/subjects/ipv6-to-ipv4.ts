/**
 * What becomes of an IPv6 packet that leaves as IPv4: RFC 7915 section 5.
 * @module
 */

import { counting, NOTHING } from '../../support/bytes.ts';
import {
  ACK,
  DESTINATION,
  DONT_FRAGMENT,
  fragmentHeader,
  GRE,
  HOP_BY_HOP,
  type IpOptions,
  optionsHeader,
  packet,
  raw,
  SYN,
  type Transport,
} from '../../support/packets.ts';
import type { Case, Step, Subject } from '../corpus.ts';
import { echo, routingHeader, sctp, tcp, udp, udpLite } from '../packets.ts';
import {
  drop,
  error,
  NEW_CLIENT6,
  needsPresence,
  pass,
  planOf,
  reply,
  request,
  test,
} from '../scene.ts';

const PATH = request('6 to 4');
const BACK = reply('6 to 4');
const CITE = 'RFC 7915 section 5.1';

export function ipv6ToIpv4(): Subject {
  return {
    subject: 'ipv6-to-ipv4',
    about: 'IPv6 packets that leave as IPv4: header, identification and DF, transport.',
    plans: { base: planOf() },
    cases: [...headers(), ...identifications(), ...transports(), ...policy()],
  };
}

function headers(): Case[] {
  const one = (what: string, ip: IpOptions): Case =>
    test(`6 to 4: ${what}`, [CITE], pass(PATH, udp(), ip));
  return [
    ...[0, 0xb8, 0x01, 0xff].map((tos) =>
      one(`traffic class ${tos} becomes TOS ${tos}`, { trafficClass: tos })
    ),
    ...[0, 1, 64, 255].map((ttl) =>
      one(`hop limit ${ttl} becomes TTL ${ttl}, not one less`, { hopLimit: ttl })
    ),
    one('the flow label is left out', { flowLabel: 0xfffff }),
    test(
      '6 to 4: no headroom is needed where a header shrinks',
      [CITE],
      pass(PATH, udp(), {}, {}, { headroom: 0 })
    ),
    test(
      '6 to 4: a reply comes from the service’s presence',
      [CITE],
      pass(BACK, tcp({ sourcePort: 5672, destinationPort: 40_000, flags: SYN | ACK }), {
        hopLimit: 61,
      })
    ),
  ];
}

/** A UDP datagram that leaves in an IPv4 packet of `size` bytes. */
function sized(size: number): Transport {
  return udp({ payload: counting(size - 28) });
}

/** A larger packet than 1260 bytes has DF and identification 0. */
const LARGE: IpOptions = { fragment: DONT_FRAGMENT, identification: 0 };

function identifications(): Case[] {
  const extensions = [
    optionsHeader(HOP_BY_HOP, Uint8Array.of(5, 2, 0, 0)),
    routingHeader(0),
    optionsHeader(DESTINATION, NOTHING),
    fragmentHeader({ id: 0xfeedbeef }),
  ];
  return [
    test('6 to 4: a packet that leaves with 1260 bytes has no DF', [CITE], pass(PATH, sized(1260))),
    test(
      '6 to 4: a packet that leaves with 1261 bytes has DF and identification 0',
      [CITE],
      pass(PATH, sized(1261), {}, LARGE)
    ),
    test(
      '6 to 4: it is the size without extension headers that counts',
      [CITE],
      [pass(PATH, sized(1260), { extensions }), pass(PATH, sized(1261), { extensions }, LARGE)]
    ),
    test(
      '6 to 4: small packets are numbered from 0 on, and others are not counted',
      [CITE, 'RFC 6864 section 4'],
      [
        pass(PATH, udp()),
        pass(PATH, tcp(), {}, { identification: 1 }),
        pass(PATH, sized(1400), {}, LARGE),
        drop('site', packet(PATH.before, tcp({ destinationPort: 22 })), 'DropNotPermitted'),
        pass(PATH, echo(), {}, { identification: 2 }),
        pass(BACK, tcp({ sourcePort: 443, destinationPort: 40_000 }), {}, { identification: 3 }),
        pass(request('4 to 4'), udp(), { fragment: 0, identification: 99 }),
        pass(request('6 to 6'), udp()),
        pass(PATH, udp(), {}, { identification: 4 }),
      ] satisfies Step[]
    ),
    test(
      '6 to 4: an ICMP error is numbered as any small packet',
      [CITE, 'RFC 7915 section 5.2'],
      [
        error(request('4 to 6'), udp(), { type: 1, code: 4 }, { type: 3, code: 3 }),
        pass(PATH, udp(), {}, { identification: 1 }),
      ]
    ),
  ];
}

function transports(): Case[] {
  const each: readonly (readonly [string, Transport])[] = [
    ['a TCP SYN', tcp({ flags: SYN })],
    ['a TCP segment with data', tcp({ payload: counting(99) })],
    ['a UDP datagram', udp({ payload: counting(40) })],
    ['an empty UDP datagram', udp({ payload: NOTHING })],
    ['a UDP-Lite datagram', udpLite({ coverage: 8 })],
    ['an SCTP packet', sctp({ payload: counting(12) })],
    ['a GRE packet', raw(GRE, counting(60))],
    ['an ESP packet', raw(50, counting(60))],
  ];
  return each.map(([what, transport]) =>
    test(
      `6 to 4: ${what}`,
      [what.includes('UDP-Lite') ? 'RFC 3828 section 3.1' : 'RFC 7915 section 5.5'],
      pass(PATH, transport, { trafficClass: 0x20, hopLimit: 33 })
    )
  );
}

function policy(): Case[] {
  return [
    test(
      '6 to 4: a port that is not permitted',
      ['RFC 4787 section 5'],
      drop('site', packet(PATH.before, tcp({ destinationPort: 22 })), 'DropNotPermitted')
    ),
    test(
      '6 to 4: a SYN from a permitted port is no reply',
      ['RFC 9293 section 3.5'],
      drop(
        'cloud',
        packet(BACK.before, tcp({ sourcePort: 5672, destinationPort: 40_000, flags: SYN })),
        'DropNotPermitted'
      )
    ),
    test(
      '6 to 4: a source without an IPv4 presence needs one',
      ['RFC 7915 section 6', 'RFC 2663 section 3.1'],
      needsPresence(PATH, packet({ ...PATH.before, source: NEW_CLIENT6 }, tcp({ flags: SYN })), 4)
    ),
  ];
}
