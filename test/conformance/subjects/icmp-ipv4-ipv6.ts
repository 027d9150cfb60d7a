/**
 * ICMP errors that change their IP version: every row of RFC 7915 sections 4.2 and 5.2, sizes and
 * pointers, and the quote.
 * @module
 */

import { counting, u32 } from '../../support/bytes.ts';
import {
  ACK,
  DESTINATION,
  DONT_FRAGMENT,
  fragmentHeader,
  GRE,
  HOP_BY_HOP,
  icmp,
  MORE_FRAGMENTS,
  optionsHeader,
  packet,
  raw,
  SYN,
  type Transport,
} from '../../support/packets.ts';
import type { Case, Step, Subject } from '../corpus.ts';
import { authenticationHeader, echo, routingHeader, sctp, tcp, udp, udpLite } from '../packets.ts';
import {
  drop,
  type ErrorSide,
  error,
  errorPacket,
  type PacketPath,
  planOf,
  reply,
  request,
  test,
} from '../scene.ts';

/** What went out as IPv4, so that an ICMP error comes back and becomes ICMPv6. */
const INTO6 = request('6 to 4');
/** What went out as IPv6, so that an ICMPv6 error comes back and becomes ICMP. */
const INTO4 = request('4 to 6');

export function icmpIpv4Ipv6(): Subject {
  return {
    subject: 'icmp-ipv4-ipv6',
    about: 'ICMP errors between IPv4 and IPv6: types, codes, sizes, pointers, quotes.',
    plans: { base: planOf() },
    cases: [
      ...unreachable4(),
      ...sizes4(),
      ...pointers4(),
      ...others4(),
      ...unreachable6(),
      ...sizes6(),
      ...pointers6(),
      ...others6(),
      ...quotesInto6(),
      ...quotesInto4(),
      ...lengths(),
    ],
  };
}

const FOUR = 'RFC 7915 section 4.2';
const FIVE = 'RFC 7915 section 5.2';

function becomes(path: PacketPath, before: ErrorSide, after: Partial<ErrorSide>, n = 0): Step {
  const isInto4 = path === INTO4;
  return error(path, udp(), before, {
    ...after,
    ...(isInto4
      ? {
          ip: {
            identification: n,
            fragment: 0,
            trafficClass: before.ip?.trafficClass ?? 0,
            hopLimit: before.ip?.hopLimit ?? 64,
          },
        }
      : {}),
  });
}

function refused(path: PacketPath, side: ErrorSide): Step {
  return drop('cloud', errorPacket(path, udp(), side), 'DropUnsupported');
}

function unreachable4(): Case[] {
  const rows: readonly (readonly [number, string, Partial<ErrorSide>, string])[] = [
    [0, 'net unreachable', { type: 1, code: 0 }, '1/0 (no route)'],
    [1, 'host unreachable', { type: 1, code: 0 }, '1/0 (no route)'],
    [2, 'protocol unreachable', { type: 4, code: 1, rest: u32(6) }, '4/1 at the next header'],
    [3, 'port unreachable', { type: 1, code: 4 }, '1/4 (port unreachable)'],
    [5, 'source route failed', { type: 1, code: 0 }, '1/0 (no route)'],
    [6, 'network unknown', { type: 1, code: 0 }, '1/0 (no route)'],
    [7, 'host unknown', { type: 1, code: 0 }, '1/0 (no route)'],
    [8, 'source host isolated', { type: 1, code: 0 }, '1/0 (no route)'],
    [9, 'network prohibited', { type: 1, code: 1 }, '1/1 (prohibited)'],
    [10, 'host prohibited', { type: 1, code: 1 }, '1/1 (prohibited)'],
    [11, 'network unreachable for TOS', { type: 1, code: 0 }, '1/0 (no route)'],
    [12, 'host unreachable for TOS', { type: 1, code: 0 }, '1/0 (no route)'],
    [13, 'prohibited', { type: 1, code: 1 }, '1/1 (prohibited)'],
    [15, 'precedence cutoff', { type: 1, code: 1 }, '1/1 (prohibited)'],
  ];
  return [
    ...rows.map(([code, what, after, text]) =>
      test(
        `ICMP 3/${code} (${what}) becomes ICMPv6 ${text}`,
        [FOUR],
        becomes(INTO6, { type: 3, code }, after)
      )
    ),
    test(
      'ICMP 3/14 (precedence violation) has no counterpart',
      [FOUR],
      refused(INTO6, { type: 3, code: 14 })
    ),
    test(
      'ICMP 3 with an unknown code has no counterpart',
      [FOUR],
      [16, 255].map((code) => refused(INTO6, { type: 3, code }))
    ),
  ];
}

function sizes4(): Case[] {
  const rows = [
    [1400, 1420, 'the size grows by 20'],
    [1260, 1280, 'the least size that grows by 20'],
    [1259, 1280, 'a smaller size is 1280'],
    [68, 1280, 'the least size of IPv4 is 1280'],
    [1, 1280, 'a size of 1 is 1280'],
    [1480, 1500, 'an Ethernet'],
    [65_535, 65_555, 'the greatest size grows beyond 16 bits'],
  ] as const;
  const plateaus = [
    [1280, 1280, 'the plateau 1006 is too small, so 1280'],
    [1492, 1280, 'a plateau of the same size is not under it'],
    [1493, 1492, 'the plateau under 1493'],
    [1500, 1492, 'the plateau under 1500'],
    [2002, 1492, 'the plateau under 2002'],
    [2003, 2002, 'the plateau under 2003'],
    [4352, 2002, 'the plateau under 4352'],
    [4353, 4352, 'the plateau under 4353'],
    [8167, 8166, 'the plateau under 8167'],
    [17_915, 17_914, 'the plateau under 17915'],
    [32_001, 32_000, 'the plateau under 32001'],
    [65_535, 32_000, 'the plateau under 65535'],
    [576, 1280, 'a plateau of 508 is too small, so 1280'],
  ] as const;
  return [
    ...rows.map(([before, after, what]) =>
      test(
        `ICMP 3/4 with ${before} becomes ICMPv6 2/0 with ${after}: ${what}`,
        [FOUR, 'RFC 7915 section 7', 'RFC 1191 section 4'],
        becomes(
          INTO6,
          { type: 3, code: 4, rest: u32(before) },
          { type: 2, code: 0, rest: u32(after) }
        )
      )
    ),
    ...plateaus.map(([length, after, what]) =>
      test(
        `ICMP 3/4 without a size, about ${length} bytes, becomes ICMPv6 2/0 with ${after}: ${what}`,
        [FOUR, 'RFC 1191 section 7', 'RFC 1191 section 5'],
        plateau(length, after)
      )
    ),
  ];
}

/** A router that does not know RFC 1191 quotes 8 bytes behind the IP header of a packet of `length`. */
function plateau(length: number, size: number): Step {
  const whole = udp({ payload: counting(length - 28) });
  return error(
    INTO6,
    whole,
    { type: 3, code: 4, quotedBytes: 8 },
    { type: 2, code: 0, rest: u32(size) }
  );
}

function pointers4(): Case[] {
  const rows: readonly (readonly [readonly number[], number | undefined, string])[] = [
    [[0], 0, 'version'],
    [[1], 1, 'type of service'],
    [[2, 3], 4, 'total length'],
    [[4, 5], undefined, 'identification'],
    [[6], undefined, 'flags'],
    [[7], undefined, 'fragment offset'],
    [[8], 7, 'time to live'],
    [[9], 6, 'protocol'],
    [[10, 11], undefined, 'header checksum'],
    [[12, 13, 14, 15], 8, 'source address'],
    [[16, 17, 18, 19], 24, 'destination address'],
    [[20, 21, 59, 255], undefined, 'not listed'],
  ];
  const cites = ['RFC 7915 section 4.2 Figure 3'];
  const at = (pointer: number): Uint8Array => u32(pointer * 0x1000000);
  return [0, 2].flatMap((code) =>
    rows.map(([before, after, what]) =>
      after === undefined
        ? test(
            `ICMP 12/${code} at ${before.join(', ')} (${what}) has no counterpart`,
            cites,
            before.map((pointer) => refused(INTO6, { type: 12, code, rest: at(pointer) }))
          )
        : test(
            `ICMP 12/${code} at ${before.join(', ')} (${what}) becomes ICMPv6 4/0 at ${after}`,
            cites,
            before.map((pointer) =>
              becomes(
                INTO6,
                { type: 12, code, rest: at(pointer) },
                { type: 4, code: 0, rest: u32(after) }
              )
            )
          )
    )
  );
}

function others4(): Case[] {
  return [
    test(
      'ICMP 11/0 (time to live exceeded) becomes ICMPv6 3/0',
      [FOUR],
      becomes(INTO6, { type: 11, code: 0 }, { type: 3, code: 0 })
    ),
    test(
      'ICMP 11/1 (reassembly time exceeded) becomes ICMPv6 3/1',
      [FOUR],
      becomes(INTO6, { type: 11, code: 1 }, { type: 3, code: 1 })
    ),
    test(
      'ICMP 12/1 (missing option) has no counterpart',
      [FOUR],
      refused(INTO6, { type: 12, code: 1 })
    ),
    test(
      'ICMP 12 with an unknown code has no counterpart',
      [FOUR],
      [3, 255].map((code) => refused(INTO6, { type: 12, code }))
    ),
    test(
      'the outer header of an ICMP error to ICMPv6 is translated as any other',
      ['RFC 7915 section 4.1', FOUR],
      becomes(
        INTO6,
        {
          type: 3,
          code: 1,
          ip: { trafficClass: 0xc0, hopLimit: 250, identification: 0x77, fragment: 0 },
        },
        { type: 1, code: 0, ip: { trafficClass: 0xc0, hopLimit: 250 } }
      )
    ),
    test(
      'options in front of an ICMP error are left out',
      ['RFC 7915 section 4.1', FOUR],
      becomes(
        INTO6,
        { type: 3, code: 3, ip: { options: Uint8Array.of(148, 4, 0, 0) } },
        { type: 1, code: 4, ip: {} }
      )
    ),
  ];
}

function unreachable6(): Case[] {
  const rows: readonly (readonly [number, string, Partial<ErrorSide>, string])[] = [
    [0, 'no route', { type: 3, code: 1 }, '3/1 (host unreachable)'],
    [1, 'prohibited', { type: 3, code: 10 }, '3/10 (host prohibited)'],
    [2, 'beyond scope', { type: 3, code: 1 }, '3/1 (host unreachable)'],
    [3, 'address unreachable', { type: 3, code: 1 }, '3/1 (host unreachable)'],
    [4, 'port unreachable', { type: 3, code: 3 }, '3/3 (port unreachable)'],
  ];
  return [
    ...rows.map(([code, what, after, text]) =>
      test(
        `ICMPv6 1/${code} (${what}) becomes ICMP ${text}`,
        [FIVE],
        becomes(INTO4, { type: 1, code }, after)
      )
    ),
    test(
      'ICMPv6 1 with another code has no counterpart',
      [FIVE],
      [5, 6, 7, 255].map((code) => refused(INTO4, { type: 1, code }))
    ),
  ];
}

function sizes6(): Case[] {
  const rows = [
    [1280, 1260, 'the size shrinks by 20'],
    [1500, 1480, 'an Ethernet'],
    [1420, 1400, 'what ICMP 3/4 with 1400 became'],
    [88, 68, 'the least size that shrinks by 20'],
    [87, 68, 'a smaller size is 68'],
    [0, 68, 'no size is 68'],
    [65_555, 65_535, 'the greatest size of IPv4'],
    [65_556, 65_535, 'a greater size is 65535'],
    [0xffffffff, 65_535, 'the greatest size is 65535'],
  ] as const;
  return rows.map(([before, after, what]) =>
    test(
      `ICMPv6 2/0 with ${before} becomes ICMP 3/4 with ${after}: ${what}`,
      [FIVE, 'RFC 7915 section 7', 'RFC 1191 section 4'],
      becomes(
        INTO4,
        { type: 2, code: 0, rest: u32(before) },
        { type: 3, code: 4, rest: u32(after) }
      )
    )
  );
}

function pointers6(): Case[] {
  const range = (from: number, to: number): number[] =>
    Array.from({ length: to - from + 1 }, (_, i) => from + i);
  const rows: readonly (readonly [readonly number[], string, number | undefined, string])[] = [
    [[0], '0', 0, 'version'],
    [[1], '1', 1, 'traffic class'],
    [[2, 3], '2, 3', undefined, 'flow label'],
    [[4, 5], '4, 5', 2, 'payload length'],
    [[6], '6', 9, 'next header'],
    [[7], '7', 8, 'hop limit'],
    [range(8, 23), '8 to 23', 12, 'source address'],
    [range(24, 39), '24 to 39', 16, 'destination address'],
    [[40, 48, 255, 256, 264, 0x06000000, 0xffffffff], '40 and more', undefined, 'not listed'],
  ];
  const cites = ['RFC 7915 section 5.2 Figure 6'];
  return rows.map(([before, text, after, what]) =>
    after === undefined
      ? test(
          `ICMPv6 4/0 at ${text} (${what}) has no counterpart`,
          cites,
          before.map((pointer) => refused(INTO4, { type: 4, code: 0, rest: u32(pointer) }))
        )
      : test(
          `ICMPv6 4/0 at ${text} (${what}) becomes ICMP 12/0 at ${after}`,
          cites,
          before.map((pointer, n) =>
            becomes(
              INTO4,
              { type: 4, code: 0, rest: u32(pointer) },
              { type: 12, code: 0, rest: u32(after * 0x1000000) },
              n
            )
          )
        )
  );
}

function others6(): Case[] {
  return [
    test(
      'ICMPv6 3/0 (hop limit exceeded) becomes ICMP 11/0',
      [FIVE],
      becomes(INTO4, { type: 3, code: 0 }, { type: 11, code: 0 })
    ),
    test(
      'ICMPv6 3/1 (reassembly time exceeded) becomes ICMP 11/1',
      [FIVE],
      becomes(INTO4, { type: 3, code: 1 }, { type: 11, code: 1 })
    ),
    test(
      'ICMPv6 4/1 (unknown next header) becomes ICMP 3/2 (protocol unreachable)',
      [FIVE],
      [6, 40].map((pointer, n) =>
        becomes(
          INTO4,
          { type: 4, code: 1, rest: u32(pointer) },
          { type: 3, code: 2, rest: u32(0) },
          n
        )
      )
    ),
    test(
      'ICMPv6 4 with another code has no counterpart',
      [FIVE],
      [2, 3, 255].map((code) => refused(INTO4, { type: 4, code }))
    ),
    test(
      'the outer header of an ICMPv6 error to ICMP is translated as any other',
      ['RFC 7915 section 5.1', FIVE],
      becomes(
        INTO4,
        { type: 1, code: 0, ip: { trafficClass: 0xc0, hopLimit: 250, flowLabel: 0x54321 } },
        { type: 3, code: 1 }
      )
    ),
    test(
      'extension headers in front of an ICMPv6 error are left out',
      ['RFC 7915 section 5.1', FIVE],
      becomes(
        INTO4,
        {
          type: 1,
          code: 4,
          ip: {
            extensions: [
              optionsHeader(HOP_BY_HOP, Uint8Array.of(5, 2, 0, 0)),
              fragmentHeader({ id: 3 }),
            ],
          },
        },
        { type: 3, code: 3 }
      )
    ),
  ];
}

const TO6: readonly [ErrorSide, Partial<ErrorSide>] = [
  { type: 3, code: 3 },
  { type: 1, code: 4 },
];
const TO4: readonly [ErrorSide, Partial<ErrorSide>] = [
  { type: 1, code: 4 },
  { type: 3, code: 3 },
];

const QUOTED: readonly (readonly [string, Transport, number?])[] = [
  ['a TCP SYN', tcp({ flags: SYN, tcpOptions: Uint8Array.of(2, 4, 5, 0xb4) })],
  ['a TCP segment with data', tcp({ flags: ACK, payload: counting(77) })],
  ['a TCP segment of which 8 bytes are quoted', tcp({ payload: counting(500) }), 8],
  ['a TCP segment quoted to just behind its checksum', tcp({ payload: counting(500) }), 18],
  ['a UDP datagram of which 8 bytes are quoted', udp({ payload: counting(500) }), 8],
  ['a UDP datagram of which an odd number of bytes is quoted', udp({ payload: counting(500) }), 61],
  ['a UDP-Lite datagram', udpLite({ coverage: 8 })],
  ['an SCTP packet', sctp({ payload: counting(16) })],
  ['a GRE packet', raw(GRE, counting(24))],
  ['an echo request', echo()],
  ['an echo request of which 8 bytes are quoted', echo({ payload: counting(500) }), 8],
];

function quotesInto6(): Case[] {
  const [before, after] = TO6;
  const options = Uint8Array.of(148, 4, 0, 0);
  return [
    ...QUOTED.map(([what, transport, quotedBytes]) =>
      test(
        `an ICMP error to ICMPv6 that quotes ${what}`,
        ['RFC 7915 section 4.3', 'RFC 7915 section 4.2'],
        error(
          INTO6,
          transport,
          { ...before, ...(quotedBytes === undefined ? {} : { quotedBytes }) },
          after
        )
      )
    ),
    test(
      'an ICMP error to ICMPv6 that quotes an echo reply goes to the service',
      ['RFC 7915 section 4.3'],
      error(reply('6 to 4'), echo({ reply: true }), before, after)
    ),
    test(
      'an ICMP error to ICMPv6: a quoted UDP checksum of zero stays zero',
      ['RFC 7915 section 4.3', 'RFC 768'],
      error(INTO6, udp({ checksum: 0 }), before, after)
    ),
    test(
      'an ICMP error to ICMPv6: TOS and TTL of the quote become traffic class and hop limit',
      ['RFC 7915 section 4.3'],
      error(
        INTO6,
        udp(),
        { ...before, quoteIp: { trafficClass: 0xb8, hopLimit: 1, identification: 3, fragment: 0 } },
        after
      )
    ),
    test(
      'an ICMP error to ICMPv6: options of the quote are left out',
      ['RFC 7915 section 4.3', 'RFC 7915 section 4.1'],
      error(INTO6, udp(), { ...before, quoteIp: { options } }, after)
    ),
    test(
      'an ICMP error to ICMPv6: a quoted first fragment gets a fragment header',
      ['RFC 7915 section 4.3', 'RFC 7915 section 4'],
      error(
        INTO6,
        udp({ payload: counting(120) }),
        {
          ...before,
          quoteIp: { fragment: MORE_FRAGMENTS, identification: 0xabcd, length: 20 + 64 },
          quotedBytes: 28,
        },
        {
          ...after,
          quoteIp: { extensions: [fragmentHeader({ more: true, id: 0xabcd })], length: 8 + 64 },
        }
      )
    ),
    test(
      'an ICMP error to ICMPv6: a wrong checksum in the quote stays wrong by the same amount',
      ['RFC 7915 section 4.3', 'RFC 1624 section 3'],
      error(INTO6, udp({ checksum: { receiver: 0x4321 } }), before, after)
    ),
    test(
      'an ICMP error to ICMPv6: a wrong outer checksum stays wrong by the same amount',
      ['RFC 7915 section 4.2', 'RFC 1624 section 3'],
      error(INTO6, udp(), { ...before, checksum: { receiver: 0x4321 } }, after)
    ),
    test(
      'an ICMP error to ICMPv6 about a port that is not permitted is not permitted',
      ['RFC 5508 section 4.2'],
      drop('cloud', errorPacket(INTO6, tcp({ destinationPort: 22 }), before), 'DropNotPermitted')
    ),
    test(
      'an ICMP error to ICMPv6 that quotes an ICMP error is not handled',
      ['RFC 7915 section 4.3', 'RFC 1122 section 3.2.2'],
      drop(
        'cloud',
        errorPacket(INTO6, icmp({ type: 3, code: 3, payload: packet(INTO6.after, udp()) }), before),
        'DropUnsupported'
      )
    ),
  ];
}

function quotesInto4(): Case[] {
  const [before, after] = TO4;
  const extensions = [
    optionsHeader(HOP_BY_HOP, Uint8Array.of(5, 2, 0, 0)),
    optionsHeader(DESTINATION, Uint8Array.of(1, 4, 0, 0, 0, 0)),
    routingHeader(0),
  ];
  return [
    ...QUOTED.map(([what, transport, quotedBytes]) =>
      test(
        `an ICMPv6 error to ICMP that quotes ${what}`,
        ['RFC 7915 section 5.3', 'RFC 7915 section 5.2'],
        error(
          INTO4,
          transport,
          { ...before, ...(quotedBytes === undefined ? {} : { quotedBytes }) },
          after
        )
      )
    ),
    test(
      'an ICMPv6 error to ICMP that quotes an echo reply goes to the service',
      ['RFC 7915 section 5.3'],
      error(reply('4 to 6'), echo({ reply: true }), before, after)
    ),
    test(
      'an ICMPv6 error to ICMP: a small quote has DF and identification 0, as a larger packet has',
      ['RFC 7915 section 5.3', 'RFC 7915 section 5.1'],
      error(INTO4, udp(), before, {
        ...after,
        quoteIp: { trafficClass: 0, hopLimit: 64, fragment: DONT_FRAGMENT, identification: 0 },
      })
    ),
    test(
      'an ICMPv6 error to ICMP: traffic class and hop limit of the quote become TOS and TTL',
      ['RFC 7915 section 5.3'],
      error(
        INTO4,
        udp(),
        { ...before, quoteIp: { trafficClass: 0xb8, hopLimit: 1, flowLabel: 0xabcde } },
        after
      )
    ),
    test(
      'an ICMPv6 error to ICMP: extension headers of the quote are left out',
      ['RFC 7915 section 5.3', 'RFC 7915 section 5.1'],
      error(INTO4, udp(), { ...before, quoteIp: { extensions } }, after)
    ),
    test(
      'an ICMPv6 error to ICMP: the fragment header of a whole quoted packet is left out',
      ['RFC 7915 section 5.3', 'RFC 6946 section 4'],
      error(
        INTO4,
        udp(),
        { ...before, quoteIp: { extensions: [fragmentHeader({ id: 0x11112222 })] } },
        after
      )
    ),
    test(
      'an ICMPv6 error to ICMP: a quoted first fragment is one of IPv4, without DF',
      ['RFC 7915 section 5.3', 'RFC 7915 section 5.1.1'],
      error(
        INTO4,
        udp({ payload: counting(120) }),
        {
          ...before,
          quoteIp: {
            extensions: [fragmentHeader({ more: true, id: 0x1234abcd })],
            length: 8 + 64,
          },
          quotedBytes: 28,
        },
        { ...after, quoteIp: { fragment: MORE_FRAGMENTS, identification: 0xabcd, length: 20 + 64 } }
      )
    ),
    test(
      'an ICMPv6 error to ICMP: an authentication header in the quote cannot be translated',
      ['RFC 7915 section 5.1', 'RFC 4302 section 2'],
      drop(
        'cloud',
        errorPacket(INTO4, udp(), { ...before, quoteIp: { extensions: [authenticationHeader()] } }),
        'DropUnsupported'
      )
    ),
    test(
      'an ICMPv6 error to ICMP: a wrong checksum in the quote stays wrong by the same amount',
      ['RFC 7915 section 5.3', 'RFC 1624 section 3'],
      error(INTO4, udp({ checksum: { receiver: 0x4321 } }), before, after)
    ),
    test(
      'an ICMPv6 error to ICMP: a wrong outer checksum stays wrong by the same amount',
      ['RFC 7915 section 5.2', 'RFC 1624 section 3'],
      error(INTO4, udp(), { ...before, checksum: { receiver: 0x4321 } }, after)
    ),
    test(
      'an ICMPv6 error to ICMP about a port that is not permitted is not permitted',
      ['RFC 5508 section 4.2'],
      drop('cloud', errorPacket(INTO4, tcp({ destinationPort: 22 }), before), 'DropNotPermitted')
    ),
    test(
      'an ICMPv6 error to ICMP that quotes an ICMPv6 error is not handled',
      ['RFC 7915 section 5.3', 'RFC 4443 section 2.4'],
      drop(
        'cloud',
        errorPacket(INTO4, icmp({ type: 1, code: 4, payload: packet(INTO4.after, udp()) }), before),
        'DropUnsupported'
      )
    ),
  ];
}

/** Bytes of an IPv6 error in front of the quoted transport header, and of an IPv4 error. */
const IN_FRONT6 = 40 + 8 + 40;
const IN_FRONT4 = 20 + 8 + 20;

function lengths(): Case[] {
  const long = udp({ payload: counting(1400) });
  return [
    test(
      'an ICMP error that becomes longer than 1280 bytes is truncated to them',
      ['RFC 4443 section 2.4', 'RFC 7915 section 4.2'],
      error(
        INTO6,
        long,
        { ...TO6[0], quotedBytes: 1280 - IN_FRONT4 },
        { ...TO6[1], quotedBytes: 1280 - IN_FRONT6 }
      )
    ),
    test(
      'an ICMP error that becomes 1280 bytes long is not truncated',
      ['RFC 4443 section 2.4', 'RFC 7915 section 4.2'],
      error(INTO6, long, { ...TO6[0], quotedBytes: 1280 - IN_FRONT6 }, TO6[1])
    ),
    test(
      'an ICMPv6 error that becomes longer than 576 bytes is truncated to them',
      ['RFC 1812 section 4.3.2.3', 'RFC 7915 section 5.2'],
      error(
        INTO4,
        long,
        { ...TO4[0], quotedBytes: 1280 - IN_FRONT6 },
        { ...TO4[1], quotedBytes: 576 - IN_FRONT4 }
      )
    ),
    test(
      'an ICMPv6 error that becomes 576 bytes long is not truncated',
      ['RFC 1812 section 4.3.2.3', 'RFC 7915 section 5.2'],
      error(INTO4, long, { ...TO4[0], quotedBytes: 576 - IN_FRONT4 }, TO4[1])
    ),
    test(
      'an ICMPv6 error that becomes 577 bytes long is truncated by one',
      ['RFC 1812 section 4.3.2.3', 'RFC 7915 section 5.2'],
      error(
        INTO4,
        long,
        { ...TO4[0], quotedBytes: 577 - IN_FRONT4 },
        { ...TO4[1], quotedBytes: 576 - IN_FRONT4 }
      )
    ),
  ];
}
