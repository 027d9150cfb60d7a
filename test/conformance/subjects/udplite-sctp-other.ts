/**
 * UDP-Lite, SCTP, and protocols known by number alone.
 * @module
 */

import { counting, NOTHING, u16 } from '../../support/bytes.ts';
import {
  complementTo,
  GRE,
  NO_NEXT_HEADER,
  packet,
  raw,
  SCTP,
  transportSum,
  UDPLITE,
} from '../../support/packets.ts';
import type { Case, Subject } from '../corpus.ts';
import { sctp, udpLite } from '../packets.ts';
import {
  back,
  drop,
  PATHS,
  type PathName,
  pass,
  planOf,
  reply,
  request,
  small,
  test,
} from '../scene.ts';

export function udpliteSctpOther(): Subject {
  return {
    subject: 'udplite-sctp-other',
    about: 'UDP-Lite (RFC 3828), SCTP (RFC 9260), and protocols by number.',
    plans: { base: planOf() },
    cases: [
      ...PATHS.flatMap((name) => [...lite(name), ...association(name), ...numbered(name)]),
      ...authentication(),
      ...whole(),
    ],
  };
}

const LITE = 'RFC 3828 section 3.1';

function lite(name: PathName): Case[] {
  const path = request(name);
  const answers = reply(name);
  const payload = counting(30);
  const covering = (coverage: number) => udpLite({ payload, coverage });
  const coverages = [
    [0, 'covers all, said as 0,'],
    [38, 'covers all'],
    [8, 'covers its header alone'],
    [9, 'covers an odd number of bytes'],
  ] as const;
  return [
    ...coverages.map(([length, what]) =>
      test(
        `${name}: a UDP-Lite checksum that ${what} follows the pseudo-header`,
        [LITE, ...(path.before.source.includes(':') ? ['RFC 8200 section 8.1'] : [])],
        pass(path, covering(length))
      )
    ),
    test(
      `${name}: a UDP-Lite checksum that comes out as 0 is sent as 0xFFFF`,
      [LITE],
      pass(path, summingUp(path.after))
    ),
    test(
      `${name}: a wrong UDP-Lite checksum stays wrong by the same amount`,
      [LITE, 'RFC 1624 section 3'],
      pass(path, udpLite({ payload, coverage: 12, checksum: { receiver: 0x1234 } }))
    ),
    test(
      `${name}: a UDP-Lite checksum of zero is malformed`,
      [LITE],
      drop('site', packet(path.before, udpLite({ checksum: 0 })), 'DropMalformed')
    ),
    test(
      `${name}: a UDP-Lite coverage of 1 to 7, or of more than there is, is malformed`,
      [LITE],
      [1, 7, 39, 0xffff].map((coverage) =>
        drop(
          'site',
          packet(path.before, udpLite({ payload, coverage, checksum: 0x1234 })),
          'DropMalformed'
        )
      )
    ),
    test(
      `${name}: a UDP-Lite reply needs a request`,
      ['RFC 3828 section 3', 'RFC 4787 section 4.3'],
      [
        drop(
          'cloud',
          packet(answers.before, udpLite({ sourcePort: 7, destinationPort: 40_000 })),
          'DropNoSession'
        ),
        pass(back(answers), udpLite()),
        pass(answers, udpLite({ sourcePort: 7, destinationPort: 40_000, coverage: 8 })),
      ]
    ),
    test(
      `${name}: a UDP-Lite port that is not permitted`,
      ['RFC 3828 section 3'],
      drop('site', packet(path.before, udpLite({ destinationPort: 53 })), 'DropNotPermitted'),
      { comment: 'The plan permits udp/53, but not udplite/53.' }
    ),
  ];
}

/** A UDP-Lite datagram whose checksum is computed as 0 for these addresses; it covers 10 bytes. */
function summingUp(ends: { source: string; destination: string }) {
  const build = (word: number) => udpLite({ payload: u16(word), coverage: 10 });
  const word = complementTo(0xffff, [transportSum(ends, build(0), 6)]);
  return build(word);
}

function association(name: PathName): Case[] {
  const path = request(name);
  const answers = reply(name);
  const cites = ['RFC 9260 section 6.8', 'RFC 3022 section 2'];
  const from = { sourcePort: 5060, destinationPort: 40_000 };
  return [
    test(
      `${name}: an SCTP INIT to a permitted port is forwarded, its checksum unchanged`,
      cites,
      pass(path, sctp({ chunk: 1, payload: counting(16) }))
    ),
    test(
      `${name}: SCTP chunks other than INIT pass without a session, both ways`,
      ['RFC 9260 section 3.2', 'RFC 9260 section 5.1'],
      [
        pass(path, sctp({ chunk: 0, payload: counting(13) })),
        pass(answers, sctp({ ...from, chunk: 2, payload: counting(16) }), {}, small(name, 1)),
        pass(answers, sctp({ ...from, chunk: 6 }), {}, small(name, 2)),
      ]
    ),
    test(
      `${name}: an SCTP INIT from a permitted port opens an association, so it is no reply`,
      ['RFC 9260 section 5.1'],
      drop(
        'cloud',
        packet(answers.before, sctp({ ...from, chunk: 1, payload: counting(16) })),
        'DropNotPermitted'
      )
    ),
    test(
      `${name}: an SCTP port that is not permitted`,
      ['RFC 9260 section 3.1'],
      drop('site', packet(path.before, sctp({ destinationPort: 443 })), 'DropNotPermitted')
    ),
  ];
}

function numbered(name: PathName): Case[] {
  const path = request(name);
  const answers = reply(name);
  const gre = raw(GRE, counting(37));
  return [
    test(
      `${name}: nothing behind the IP header of GRE is changed`,
      ['RFC 2784 section 2', ...mixedCites(name)],
      pass(path, gre)
    ),
    test(
      `${name}: ESP is a protocol as any other`,
      ['RFC 4303 section 2', ...mixedCites(name)],
      pass(path, raw(50, counting(40)))
    ),
    test(
      `${name}: a protocol by number may have no payload`,
      ['RFC 791 section 3.1', ...mixedCites(name)],
      pass(path, raw(GRE, NOTHING))
    ),
    test(
      `${name}: a GRE reply needs a request`,
      ['RFC 2784 section 2', 'RFC 4787 section 4.3'],
      [
        drop('cloud', packet(answers.before, gre), 'DropNoSession'),
        pass(back(answers), gre),
        pass(answers, gre),
      ]
    ),
    test(
      `${name}: a protocol number that is not permitted`,
      ['RFC 791 section 3.1'],
      [4, 41, 115, 255].map((protocol) =>
        drop('site', packet(path.before, raw(protocol, counting(20))), 'DropNotPermitted')
      )
    ),
  ];
}

function mixedCites(name: PathName): string[] {
  if (name === '4 to 6') return ['RFC 7915 section 4.1'];
  return name === '6 to 4' ? ['RFC 7915 section 5.1'] : [];
}

function authentication(): Case[] {
  const path = request('4 to 4');
  return [
    test(
      '4 to 4: over IPv4 an authentication header is a protocol as any other',
      ['RFC 4302 section 2'],
      pass(path, raw(51, counting(44)))
    ),
    test(
      '4 to 6: an authentication header cannot be translated',
      ['RFC 7915 section 4.1', 'RFC 4302 section 2'],
      drop('site', packet(request('4 to 6').before, raw(51, counting(44))), 'DropUnsupported')
    ),
    test(
      '4 to 4: over IPv4 protocol 59 is a protocol as any other',
      ['RFC 8200 section 4.7', 'RFC 791 section 3.1'],
      pass(path, raw(NO_NEXT_HEADER, counting(4)))
    ),
  ];
}

function whole(): Case[] {
  return (['4 to 4', '6 to 6'] as const).flatMap((name) => {
    const { before } = request(name);
    return [
      test(
        `${name}: a UDP-Lite header that is not whole is malformed`,
        [LITE],
        [0, 1, 7].map((length) =>
          drop('site', packet(before, raw(UDPLITE, counting(length))), 'DropMalformed')
        )
      ),
      test(
        `${name}: an SCTP header that is not whole is malformed`,
        ['RFC 9260 section 3.1'],
        [0, 1, 8, 11].map((length) =>
          drop('site', packet(before, raw(SCTP, counting(length))), 'DropMalformed')
        )
      ),
      test(
        `${name}: an SCTP packet of its common header alone is forwarded`,
        ['RFC 9260 section 3.1'],
        pass(request(name), raw(SCTP, sctp()(before).bytes.slice(0, 12)))
      ),
    ];
  });
}
