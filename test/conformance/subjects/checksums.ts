/**
 * Checksums: RFC 1071, RFC 1624, RFC 768.
 * @module
 */
import type { TranslationPlanInput } from '../../../src/translator/plan.ts';
import { counting, u16 } from '../../support/bytes.ts';
import { wordsOf } from '../../support/checksum.ts';
import {
  complementTo,
  type Ends,
  packet,
  type Transport,
  transportSum,
} from '../../support/packets.ts';
import type { Case, Subject } from '../corpus.ts';
import { echo, tcp, udp } from '../packets.ts';
import {
  back,
  drop,
  error,
  forward,
  PATHS,
  type PacketPath,
  pass,
  planOf,
  reply,
  request,
  SAME,
  small,
  test,
} from '../scene.ts';

/** A path on which one word changes, 0x5555 to 0x3285, and the destination not at all. */
const EXAMPLE: PacketPath = {
  from: 'site',
  to: 'cloud',
  before: { source: '10.0.85.85', destination: '10.9.0.9' },
  after: { source: '10.0.50.133', destination: '10.9.0.9' },
};

const EXAMPLE_PLAN: TranslationPlanInput = {
  realms: [
    { name: 'site', sources: ['10.0.0.0/16'] },
    { name: 'cloud', sources: ['10.9.0.0/24'] },
  ],
  presences: [
    { realm: 'site', address: '10.9.0.9', of: { realm: 'cloud', address: '10.9.0.9' } },
    { realm: 'cloud', address: '10.0.50.133', of: { realm: 'site', address: '10.0.85.85' } },
  ],
  permits: [
    {
      realm: 'site',
      service: { realm: 'cloud', address: '10.9.0.9' },
      ports: ['tcp/5672', 'udp/53'],
    },
  ],
};

const TO_ZERO = 'RFC 1624 section 4: 0xDD2F, of which 0x5555 becomes 0x3285, must give 0x0000';

/** A payload of two bytes with which a receiver of these addresses sums up to `sum`, checksum 0. */
function tuned(
  ends: Ends,
  checksumAt: number,
  sum: number,
  build: (payload: Uint8Array) => Transport
): Transport {
  const word = complementTo(sum, [transportSum(ends, build(u16(0)), checksumAt)]);
  return build(u16(word));
}

function rfc1624(): Case[] {
  const segment = tcp();
  const plain = packet(EXAMPLE.before, segment, { identification: 0, headerChecksum: 0 });
  const id = complementTo(0xffff - 0xdd2f, wordsOf(plain.subarray(0, 20)));
  const answerBefore = tcp({ sourcePort: 5672, destinationPort: 40_000 });
  const plainAnswer = packet(back(EXAMPLE).after, answerBefore, {
    identification: 0,
    headerChecksum: 0,
  });
  const answerId = complementTo(0xffff - 0xdd2f, wordsOf(plainAnswer.subarray(0, 20)));
  const wordTo = (checksumAt: number, build: (payload: Uint8Array) => Transport): Transport =>
    tuned(EXAMPLE.before, checksumAt, 0xffff - 0xdd2f, build);
  const more = { plan: 'rfc1624', comment: TO_ZERO };
  return [
    test(
      'the header checksum of the example becomes 0x0000, not 0xFFFF',
      ['RFC 1624 section 4', 'RFC 1624 section 3'],
      pass(EXAMPLE, segment, { identification: id }),
      more
    ),
    test(
      'the header checksum 0x0000 becomes 0xDD2F on the way back',
      ['RFC 1624 section 4'],
      pass(back(EXAMPLE), answerBefore, { identification: answerId }),
      { plan: 'rfc1624' }
    ),
    test(
      'the TCP checksum of the example becomes 0x0000, not 0xFFFF',
      ['RFC 1624 section 4', 'RFC 9293 section 3.1'],
      pass(
        EXAMPLE,
        wordTo(16, (payload) => tcp({ payload }))
      ),
      more
    ),
    test(
      'the UDP checksum of the example is computed as 0x0000 and sent as 0xFFFF',
      ['RFC 1624 section 4', 'RFC 768'],
      pass(
        EXAMPLE,
        wordTo(6, (payload) => udp({ payload }))
      ),
      more
    ),
  ];
}

function rfc1071(): Case[] {
  const example = { id: 0x0001, sequence: 0xf203, payload: Uint8Array.of(0xf4, 0xf5, 0xf6, 0xf7) };
  const odd = { ...example, payload: Uint8Array.of(0xf4, 0xf5, 0xf6) };
  return PATHS.flatMap((name) => [
    test(
      `${name}: the bytes 00 01 f2 03 f4 f5 f6 f7 in an echo request and its reply`,
      ['RFC 1071 section 3'],
      [
        pass(back(reply(name)), echo(example)),
        pass(reply(name), echo({ ...example, reply: true })),
      ],
      { comment: 'Over IPv4 the checksum of the reply is the example’s, 0x220d.' }
    ),
    test(
      `${name}: an odd last byte is summed as if a zero byte followed`,
      ['RFC 1071 section 1', 'RFC 1071 section 4.1'],
      [
        pass(request(name), echo(odd)),
        pass(request(name), udp({ payload: counting(5) }), {}, small(name, 1)),
      ]
    ),
  ]);
}

function zeroes(): Case[] {
  const without = udp({ checksum: 0 });
  const cases = [
    test(
      '4 to 4: a UDP datagram without a checksum stays without',
      ['RFC 768', 'RFC 3022 section 4.2'],
      pass(request('4 to 4'), without)
    ),
    test(
      '6 to 6: a UDP datagram without a checksum is malformed',
      ['RFC 8200 section 8.1', 'RFC 768'],
      drop('site', packet(request('6 to 6').before, without), 'DropMalformed')
    ),
    test(
      '6 to 4: a UDP datagram without a checksum is malformed, though IPv4 would take it',
      ['RFC 8200 section 8.1'],
      drop('site', packet(request('6 to 4').before, without), 'DropMalformed')
    ),
    test(
      '4 to 6: a UDP datagram without a checksum gets one',
      ['RFC 7915 section 4.5', 'RFC 8200 section 8.1'],
      forward(
        request('4 to 6'),
        packet(request('4 to 6').before, without),
        packet(request('4 to 6').after, udp())
      )
    ),
  ];
  const path = request('4 to 6');
  const summingUp = tuned(path.after, 6, 0xffff, (payload) => udp({ payload }));
  cases.push(
    test(
      '4 to 6: the checksum that a UDP datagram gets is computed as 0 and sent as 0xFFFF',
      ['RFC 7915 section 4.5', 'RFC 768'],
      forward(
        path,
        packet(
          path.before,
          tuned(path.after, 6, 0xffff, (payload) => udp({ payload, checksum: 0 }))
        ),
        packet(path.after, summingUp)
      )
    )
  );
  return [...cases, ...PATHS.flatMap(zeroSums)];
}

function zeroSums(name: (typeof PATHS)[number]): Case[] {
  const path = request(name);
  return [
    test(
      `${name}: a UDP checksum that comes out as 0 is sent as 0xFFFF`,
      ['RFC 768', 'RFC 8200 section 8.1'],
      pass(
        path,
        tuned(path.after, 6, 0xffff, (payload) => udp({ payload }))
      )
    ),
    test(
      `${name}: a UDP checksum that was sent as 0xFFFF is an ordinary one`,
      ['RFC 768', 'RFC 1624 section 3'],
      pass(
        path,
        tuned(path.before, 6, 0xffff, (payload) => udp({ payload }))
      )
    ),
    test(
      `${name}: a TCP checksum that comes out as 0 is sent as 0`,
      ['RFC 9293 section 3.1', 'RFC 1624 section 3'],
      pass(
        path,
        tuned(path.after, 16, 0xffff, (payload) => tcp({ payload }))
      )
    ),
  ];
}

function damaged(): Case[] {
  const receiver = 0x1234;
  const cites = ['RFC 1624 section 3', 'RFC 3022 section 4.2'];
  const cases = PATHS.flatMap((name) => {
    const path = request(name);
    const stays = (what: string, transport: Transport): Case =>
      test(
        `${name}: a wrong ${what} checksum stays wrong by the same amount`,
        cites,
        pass(path, transport),
        { comment: 'A receiver sums up to 0x1234 where 0xFFFF would be right, before and after.' }
      );
    return [
      stays('TCP', tcp({ checksum: { receiver } })),
      stays('UDP', udp({ checksum: { receiver } })),
      stays('echo', echo({ checksum: { receiver } })),
    ];
  });
  const errors = SAME.map((name) =>
    test(
      `${name}: a wrong checksum of an ICMP error stays wrong by the same amount`,
      cites,
      error(request(name), udp(), {
        type: name === '4 to 4' ? 3 : 1,
        code: name === '4 to 4' ? 3 : 4,
        checksum: { receiver },
      })
    )
  );
  return [...cases, ...errors];
}

function uncovered(): Case[] {
  return [
    test(
      '4 to 4: an ICMP checksum covers no addresses and is not changed',
      ['RFC 792', 'RFC 3022 section 4.2'],
      pass(request('4 to 4'), echo({ payload: counting(64) }))
    ),
    test(
      '6 to 6: an ICMPv6 checksum covers the pseudo-header and follows',
      ['RFC 4443 section 2.3', 'RFC 8200 section 8.1'],
      pass(request('6 to 6'), echo({ payload: counting(64) }))
    ),
  ];
}

/** Where the checksum is, and what it has to be. */
function mustBe(data: Uint8Array, at: number, checksum: number): void {
  if (wordsOf(data.subarray(at, at + 2))[0] !== checksum) throw new Error('not the example');
}

export function checksums(): Subject {
  const cases = [...rfc1624(), ...rfc1071(), ...zeroes(), ...damaged(), ...uncovered()];
  const hexOf = (i: number): Uint8Array => Buffer.from(cases[i]!.steps[0]!.packet, 'hex');
  const leaving = (i: number): Uint8Array => Buffer.from(cases[i]!.steps[0]!.expect.packet!, 'hex');
  for (const [i, at, before, after] of [
    [0, 10, 0xdd2f, 0x0000],
    [1, 10, 0x0000, 0xdd2f],
    [2, 20 + TCP_CHECKSUM, 0xdd2f, 0x0000],
    [3, 20 + UDP_CHECKSUM, 0xdd2f, 0xffff],
  ] as const) {
    mustBe(hexOf(i), at, before);
    mustBe(leaving(i), at, after);
  }
  return {
    subject: 'checksums',
    about: 'The Internet checksum, its update, and what zero means.',
    plans: { base: planOf(), rfc1624: EXAMPLE_PLAN },
    cases,
  };
}

const TCP_CHECKSUM = 16;
const UDP_CHECKSUM = 6;
