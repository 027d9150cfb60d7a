/**
 * What becomes of an IPv4 packet that leaves as IPv6: RFC 7915 section 4.
 * @module
 */

import { counting, NOTHING } from '../../support/bytes.ts';
import {
  ACK,
  DONT_FRAGMENT,
  GRE,
  type IpOptions,
  packet,
  raw,
  SYN,
  type Transport,
} from '../../support/packets.ts';
import type { Case, Step, Subject } from '../corpus.ts';
import { sctp, tcp, udp, udpLite } from '../packets.ts';
import {
  drop,
  forward,
  NEW_CLIENT4,
  needsPresence,
  pass,
  planOf,
  presencesWithout,
  reply,
  request,
  test,
} from '../scene.ts';

const PATH = request('4 to 6');
const BACK = reply('4 to 6');

export function ipv4ToIpv6(): Subject {
  return {
    subject: 'ipv4-to-ipv6',
    about: 'IPv4 packets that leave as IPv6: header, transport, headroom.',
    plans: { base: planOf(), four: planOf({ presences: presencesWithout('fd64::46') }) },
    cases: [...headers(), ...transports(), ...policy(), ...headroom()],
  };
}

const CITE = 'RFC 7915 section 4.1';

function headers(): Case[] {
  const same = (what: string, fields: Parameters<typeof pass>[2], cite = CITE): Case =>
    test(`4 to 6: ${what}`, [cite], pass(PATH, udp(), fields));
  return [
    ...[0, 0xb8, 0x01, 0xff].map((tos) =>
      same(`TOS ${tos} becomes traffic class ${tos}`, { trafficClass: tos }, 'RFC 7915 section 4.1')
    ),
    ...[0, 1, 64, 255].map((ttl) =>
      same(`TTL ${ttl} becomes hop limit ${ttl}, not one less`, { hopLimit: ttl })
    ),
    same('the flow label is 0, whatever the identification', { identification: 0xffff }),
    same(
      'a whole packet without DF gets no fragment header',
      { fragment: 0 },
      'RFC 7915 section 4'
    ),
    same(
      'a whole packet with DF gets no fragment header',
      { fragment: DONT_FRAGMENT },
      'RFC 7915 section 4'
    ),
    same(
      'DF and identification 0',
      { fragment: DONT_FRAGMENT, identification: 0 },
      'RFC 7915 section 4'
    ),
    test(
      '4 to 6: a packet of the greatest size that fits 1500 bytes as IPv6',
      ['RFC 7915 section 4.1'],
      pass(PATH, udp({ payload: counting(1480 - 28) }), { trafficClass: 7 })
    ),
    test(
      '4 to 6: a reply comes from the service’s presence',
      [CITE],
      pass(BACK, tcp({ sourcePort: 5672, destinationPort: 40_000, flags: SYN | ACK }), {
        hopLimit: 61,
      })
    ),
  ];
}

function transports(): Case[] {
  const each: readonly (readonly [string, string, Transport])[] = [
    ['a TCP SYN', 'RFC 7915 section 4.5', tcp({ flags: SYN })],
    ['a TCP segment with data', 'RFC 7915 section 4.5', tcp({ payload: counting(99) })],
    ['a UDP datagram', 'RFC 7915 section 4.5', udp({ payload: counting(40) })],
    ['an empty UDP datagram', 'RFC 7915 section 4.5', udp({ payload: NOTHING })],
    ['a UDP-Lite datagram', 'RFC 3828 section 3.1', udpLite({ coverage: 8 })],
    ['an SCTP packet', 'RFC 7915 section 4.5', sctp({ payload: counting(12) })],
    ['a GRE packet', 'RFC 7915 section 4.1', raw(GRE, counting(60))],
    ['an ESP packet', 'RFC 7915 section 4.1', raw(50, counting(60))],
  ];
  return [
    ...each.map(([what, cite, transport]) =>
      test(`4 to 6: ${what}`, [cite], pass(PATH, transport, { trafficClass: 0x20, hopLimit: 33 }))
    ),
    ...[NOTHING, counting(1), counting(2), counting(1400)].map((payload) =>
      test(
        `4 to 6: a UDP datagram of ${payload.length} bytes without a checksum gets one`,
        ['RFC 7915 section 4.5'],
        forward(
          PATH,
          packet(PATH.before, udp({ payload, checksum: 0 })),
          packet(PATH.after, udp({ payload }))
        )
      )
    ),
  ];
}

function policy(): Case[] {
  const newClient = { ...PATH.before, source: NEW_CLIENT4 };
  return [
    test(
      '4 to 6: a port that is not permitted',
      ['RFC 4787 section 5'],
      drop('site', packet(PATH.before, tcp({ destinationPort: 22 })), 'DropNotPermitted')
    ),
    test(
      '4 to 6: a SYN from a permitted port is no reply',
      ['RFC 9293 section 3.5'],
      drop(
        'cloud',
        packet(BACK.before, tcp({ sourcePort: 5672, destinationPort: 40_000, flags: SYN })),
        'DropNotPermitted'
      )
    ),
    test(
      '4 to 6: a source without an IPv6 presence needs one',
      ['RFC 7915 section 6', 'RFC 2663 section 3.1'],
      needsPresence(PATH, packet(newClient, tcp({ flags: SYN })), 6)
    ),
    test(
      '4 to 6: a source with an IPv4 presence alone needs an IPv6 one',
      ['RFC 7915 section 6', 'RFC 2663 section 3.1'],
      needsPresence(PATH, packet(PATH.before, tcp({ flags: SYN })), 6),
      { plan: 'four' }
    ),
  ];
}

function headroom(): Case[] {
  const options = (count: number) => ({ options: new Uint8Array(count).fill(1) });
  const needs = (room: number, ip: IpOptions = {}): Step =>
    drop('site', packet(PATH.before, udp(), ip), 'NeedsHeadroom', { headroom: room });
  const comment = 'For those who translate in place: a header grows towards the front.';
  return [
    test(
      '4 to 6: a packet grows by 20 bytes, and needs so much headroom',
      [CITE],
      [needs(0), needs(19), pass(PATH, udp(), {}, {}, { headroom: 20 })],
      { comment }
    ),
    test(
      '4 to 6: options that are left out are room, too',
      [CITE],
      [
        needs(15, options(4)),
        pass(PATH, udp(), options(4), {}, { headroom: 16 }),
        pass(PATH, udp(), options(20), {}, { headroom: 0 }),
        pass(PATH, udp(), options(40), {}, { headroom: 0 }),
      ],
      { comment }
    ),
    test(
      '4 to 6: the headroom is in front of the virtio-net header',
      [CITE, 'virtio 1.2 5.1.6'],
      [
        drop('site', packet(PATH.before, udp()), 'NeedsHeadroom', { headroom: 19, vnet: {} }),
        pass(PATH, udp(), {}, {}, { headroom: 20, vnet: {} }),
      ],
      { comment }
    ),
    test(
      '4 to 4: no headroom is needed where the IP version stays',
      ['RFC 3022 section 4'],
      pass(request('4 to 4'), udp(), {}, {}, { headroom: 0 }),
      { comment }
    ),
    test(
      '4 to 6: a packet that is not permitted needs no headroom',
      [CITE],
      drop('site', packet(PATH.before, tcp({ destinationPort: 22 })), 'DropNotPermitted', {
        headroom: 0,
      }),
      { comment }
    ),
  ];
}
