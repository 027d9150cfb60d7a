/**
 * Fragments: the first opens the path for the later ones, and the attacks that use them.
 * @module
 */

import { bytes, counting, u8, u32 } from '../../support/bytes.ts';
import {
  DESTINATION,
  type Ends,
  fragment,
  fragmentHeader,
  GRE,
  HOP_BY_HOP,
  type IpOptions,
  icmp,
  isIpv6,
  optionsHeader,
  packet,
  raw,
  SYN,
  type Transport,
} from '../../support/packets.ts';
import type { Case, Step, Subject } from '../corpus.ts';
import { echo, sctp, tcp, udp, udpLite } from '../packets.ts';
import {
  back,
  drop,
  type Extras,
  forward,
  PATHS,
  type PacketPath,
  type PathName,
  pass,
  planOf,
  reply,
  request,
  SAME,
  test,
} from '../scene.ts';

export function fragments(): Subject {
  return {
    subject: 'fragments',
    about: 'Fragments pass without being put together; attacks that are made of them do not.',
    plans: { base: planOf(), same: planOf(), closed: planOf({ permits: [] }) },
    cases: [
      ...PATHS.flatMap(passing),
      ...SAME.flatMap((name) => [
        ...lifetimes(name),
        ...orphans(name),
        ...malformed(name),
        ...attacks(name),
      ]),
      ...ipv6Only(),
      ...ipv4Only(),
      ...mixedOnly(),
    ],
  };
}

type Range = readonly [number, number];
type FragmentIp = IpOptions & { readonly more?: boolean };

/** A UDP datagram of 64 bytes with its header. */
const DATAGRAM = udp({ payload: counting(56) });
/** 80 bytes with its UDP header. */
const LONG = udp({ payload: counting(72) });

/** The fragment as it enters. */
function piece(
  path: PacketPath,
  transport: Transport,
  range: Range,
  ip: FragmentIp = {}
): Uint8Array {
  return fragment(path.before, transport, range, ip);
}

/** The fragment as it leaves, if it passes. */
function pieceAfter(
  path: PacketPath,
  transport: Transport,
  range: Range,
  ip: FragmentIp
): Uint8Array {
  if (isIpv6(path.before) === isIpv6(path.after)) return fragment(path.after, transport, range, ip);
  const { trafficClass = 0, hopLimit = 64, identification = 0xbeef } = ip;
  const more = ip.more === undefined ? {} : { more: ip.more };
  return fragment(path.after, transport, range, {
    trafficClass,
    hopLimit,
    identification: identification & 0xffff,
    ...more,
  });
}

function passes(
  path: PacketPath,
  transport: Transport,
  range: Range,
  ip: FragmentIp = {},
  extras: Extras = {}
): Step {
  return forward(
    path,
    piece(path, transport, range, ip),
    pieceAfter(path, transport, range, ip),
    extras
  );
}

function citesOf(name: PathName): string[] {
  if (name === '4 to 4') return ['RFC 791 section 3.2'];
  if (name === '6 to 6') return ['RFC 8200 section 4.5'];
  return name === '4 to 6'
    ? ['RFC 7915 section 4.1', 'RFC 7915 section 4']
    : ['RFC 7915 section 5.1.1', 'RFC 7915 section 5.1'];
}

function passing(name: PathName): Case[] {
  const path = request(name);
  const answers = reply(name);
  const cites = [...citesOf(name), 'RFC 4787 section 11'];
  const segment = tcp({ payload: counting(60) });
  return [
    test(`${name}: two fragments of a UDP datagram pass`, cites, [
      passes(path, DATAGRAM, [0, 32]),
      passes(path, DATAGRAM, [32, 64]),
    ]),
    test(`${name}: three fragments of a TCP segment pass`, cites, [
      passes(path, segment, [0, 24]),
      passes(path, segment, [24, 48]),
      passes(path, segment, [48, 80]),
    ]),
    test(`${name}: later fragments pass in any order`, cites, [
      passes(path, LONG, [0, 16]),
      passes(path, LONG, [64, 80]),
      passes(path, LONG, [32, 64]),
      passes(path, LONG, [16, 32]),
    ]),
    test(`${name}: fragments of SCTP, UDP-Lite and GRE pass`, cites, [
      ...fragmented(path, sctp({ payload: counting(40) }), 1),
      ...fragmented(path, udpLite({ payload: counting(48), coverage: 8 }), 2),
      ...fragmented(path, raw(GRE, counting(56)), 3),
    ]),
    test(
      `${name}: the coverage of UDP-Lite may end behind its first fragment`,
      [...cites, 'RFC 3828 section 3.1'],
      fragmented(path, udpLite({ payload: counting(48) }), 1)
    ),
    test(`${name}: fragments keep their DS field, hop limit and identification`, cites, [
      passes(path, DATAGRAM, [0, 32], { trafficClass: 0xb8, hopLimit: 3, identification: 0xffff }),
      passes(path, DATAGRAM, [32, 64], { trafficClass: 0x28, hopLimit: 4, identification: 0xffff }),
    ]),
    test(
      `${name}: fragments of a UDP reply go by the session of its request`,
      [...cites, 'RFC 4787 section 4.3'],
      [
        pass(back(answers), udp()),
        passes(
          answers,
          udp({ sourcePort: 53, destinationPort: 40_000, payload: counting(56) }),
          [0, 32]
        ),
        passes(
          answers,
          udp({ sourcePort: 53, destinationPort: 40_000, payload: counting(56) }),
          [32, 64]
        ),
      ]
    ),
    test(
      `${name}: the first fragment of a UDP reply without a request has no session`,
      [...cites, 'RFC 4787 section 4.3'],
      [
        drop(
          answers.from,
          piece(
            answers,
            udp({ sourcePort: 53, destinationPort: 40_000, payload: counting(56) }),
            [0, 32]
          ),
          'DropNoSession'
        ),
        drop(
          answers.from,
          piece(
            answers,
            udp({ sourcePort: 53, destinationPort: 40_000, payload: counting(56) }),
            [32, 64]
          ),
          'DropFragmentOrphan'
        ),
      ]
    ),
  ];
}

/** Two fragments, of 32 bytes and the rest. */
function fragmented(path: PacketPath, transport: Transport, id: number): Step[] {
  const { length } = transport(path.before).bytes;
  return [
    passes(path, transport, [0, 32], { identification: id }),
    passes(path, transport, [32, length], { identification: id }),
  ];
}

function lifetimes(name: PathName): Case[] {
  const path = request(name);
  const cites = citesOf(name);
  return [
    test(`${name}: a later fragment passes until 15 s after the first`, cites, [
      passes(path, DATAGRAM, [0, 32], {}, { at: 1000 }),
      passes(path, DATAGRAM, [32, 64], {}, { at: 15_999 }),
    ]),
    test(
      `${name}: a later fragment more than 15 s after the first is an orphan`,
      [...cites, 'RFC 8200 section 4.5'],
      [
        passes(path, DATAGRAM, [0, 32], {}, { at: 1000 }),
        drop('site', piece(path, DATAGRAM, [32, 64]), 'DropFragmentOrphan', { at: 16_001 }),
      ]
    ),
    test(`${name}: later fragments do not make the time longer`, cites, [
      passes(path, LONG, [0, 32], {}, { at: 0 }),
      passes(path, LONG, [32, 48], {}, { at: 14_000 }),
      drop('site', piece(path, LONG, [48, 80]), 'DropFragmentOrphan', { at: 15_001 }),
    ]),
    test(`${name}: a record goes when all has come, so the same last one is an orphan`, cites, [
      passes(path, DATAGRAM, [0, 32]),
      passes(path, DATAGRAM, [32, 64]),
      drop('site', piece(path, DATAGRAM, [32, 64]), 'DropFragmentOrphan'),
    ]),
    test(`${name}: a first fragment again, of the same length, starts the datagram again`, cites, [
      passes(path, LONG, [0, 32]),
      passes(path, LONG, [32, 48]),
      passes(path, LONG, [0, 32]),
      passes(path, LONG, [32, 48]),
      passes(path, LONG, [48, 80]),
    ]),
    test(`${name}: the same later fragment again is dropped without harm to the others`, cites, [
      passes(path, LONG, [0, 32]),
      passes(path, LONG, [32, 48]),
      drop('site', piece(path, LONG, [32, 48]), 'DropFragment'),
      passes(path, LONG, [48, 80]),
    ]),
    test(`${name}: a later fragment passes after a new plan that still has its path`, cites, [
      passes(path, DATAGRAM, [0, 32]),
      passes(path, DATAGRAM, [32, 64], {}, { load: 'same' }),
    ]),
    test(`${name}: a later fragment is an orphan after a plan without its path`, cites, [
      passes(path, DATAGRAM, [0, 32]),
      drop('site', piece(path, DATAGRAM, [32, 64]), 'DropFragmentOrphan', { load: 'closed' }),
    ]),
    test(
      `${name}: of too many datagrams the oldest is forgotten`,
      [...cites, 'RFC 4787 section 11'],
      [
        ...[1, 2, 3, 4, 5].map((id) =>
          passes(path, DATAGRAM, [0, 32], { identification: id }, { at: id })
        ),
        drop('site', piece(path, DATAGRAM, [32, 64], { identification: 1 }), 'DropFragmentOrphan'),
        ...[5, 4, 3, 2].map((id) => passes(path, DATAGRAM, [32, 64], { identification: id })),
      ],
      { options: { maxFragments: 4 } }
    ),
  ];
}

function orphans(name: PathName): Case[] {
  const path = request(name);
  const cites = citesOf(name);
  const closed = udp({ destinationPort: 54, payload: counting(56) });
  const other = {
    ...path,
    before: { ...path.before, source: isIpv6(path.before) ? 'fd00::7' : '10.0.0.7' },
  };
  const orphan = (data: Uint8Array): Step => drop('site', data, 'DropFragmentOrphan');
  const cases = [
    test(`${name}: a later fragment before the first is an orphan`, cites, [
      orphan(piece(path, DATAGRAM, [32, 64])),
      passes(path, DATAGRAM, [0, 32]),
      passes(path, DATAGRAM, [32, 64]),
    ]),
    test(`${name}: a later fragment of another identification is an orphan`, cites, [
      passes(path, DATAGRAM, [0, 32], { identification: 1 }),
      orphan(piece(path, DATAGRAM, [32, 64], { identification: 2 })),
    ]),
    test(`${name}: a later fragment of another source is an orphan`, cites, [
      passes(path, DATAGRAM, [0, 32]),
      orphan(piece(other, DATAGRAM, [32, 64])),
    ]),
    test(
      `${name}: a later fragment whose first was refused is an orphan`,
      [...cites, 'RFC 1858 section 3'],
      [
        drop('site', piece(path, closed, [0, 32]), 'DropNotPermitted'),
        orphan(piece(path, closed, [32, 64])),
      ]
    ),
    test(`${name}: a later fragment of another realm is an orphan`, cites, [
      passes(path, DATAGRAM, [0, 32]),
      drop('cloud', piece(path, DATAGRAM, [32, 64]), 'DropFragmentOrphan'),
    ]),
  ];
  if (name === '4 to 4') {
    cases.push(
      test(
        `${name}: a later fragment of another protocol is an orphan`,
        ['RFC 791 section 3.2'],
        [passes(path, DATAGRAM, [0, 32]), orphan(piece(path, raw(GRE, counting(64)), [32, 64]))]
      )
    );
  }
  return cases;
}

function malformed(name: PathName): Case[] {
  const path = request(name);
  const cites = citesOf(name);
  const bad = (data: Uint8Array): Step => drop('site', data, 'DropMalformed');
  return [
    test(
      `${name}: a fragment other than the last that is no multiple of 8 bytes is malformed`,
      cites,
      [
        bad(piece(path, DATAGRAM, [0, 31])),
        bad(piece(path, DATAGRAM, [0, 33])),
        bad(piece(path, DATAGRAM, [32, 60], { more: true })),
      ]
    ),
    test(`${name}: a fragment other than the last that is empty is malformed`, cites, [
      bad(piece(path, DATAGRAM, [32, 32], { more: true })),
      bad(piece(path, DATAGRAM, [0, 0], { more: true })),
    ]),
    test(
      `${name}: a fragment that ends behind 65535 bytes is malformed`,
      cites,
      [
        bad(piece(path, far(65_528, 8), [65_528, 65_536], { more: false })),
        bad(piece(path, far(65_528, 8), [65_528, 65_536], { more: true })),
        bad(piece(path, far(65_520, 32), [65_520, 65_552], { more: false })),
      ],
      { comment: 'The "ping of death".' }
    ),
    test(
      `${name}: a first fragment with a UDP length of no more than its payload is malformed`,
      ['RFC 768', ...cites],
      [32, 31, 8, 0].map((udpLength) =>
        bad(piece(path, udp({ payload: counting(56), udpLength }), [0, 32]))
      )
    ),
    test(
      `${name}: a fragment with a partial checksum is malformed`,
      ['virtio 1.2 5.1.6.2', ...cites],
      drop(
        'site',
        piece(path, udp({ payload: counting(56), checksum: 'partial' }), [0, 32]),
        'DropMalformed',
        {
          vnet: {
            flags: 1,
            checksumStart: name === '4 to 4' ? 20 : 48,
            checksumOffset: 6,
          },
        }
      )
    ),
    test(
      `${name}: a fragment that is a super-packet is malformed`,
      ['virtio 1.2 5.1.6.2', ...cites],
      drop(
        'site',
        piece(path, tcp({ payload: counting(60), checksum: 'partial' }), [0, 64]),
        'DropMalformed',
        {
          vnet: {
            flags: 1,
            gsoType: name === '4 to 4' ? 1 : 4,
            gsoSize: 20,
            checksumStart: name === '4 to 4' ? 20 : 48,
            checksumOffset: 16,
          },
        }
      )
    ),
  ];
}

/** Bytes of a UDP datagram at an offset that no whole datagram has. */
function far(at: number, length: number): Transport {
  return raw(17, bytes(new Uint8Array(at), counting(length)));
}

function attacks(name: PathName): Case[] {
  const path = request(name);
  const cites = citesOf(name);
  const segment = tcp({ flags: SYN, payload: counting(76) });
  const bad = (data: Uint8Array, at?: number): Step =>
    drop('site', data, 'DropFragment', at === undefined ? {} : { at });
  const later = (range: Range, more?: boolean): Uint8Array =>
    piece(path, LONG, range, more === undefined ? {} : { more });
  return [
    test(
      `${name}: a tiny first fragment, without the flags of TCP, is refused`,
      ['RFC 1858 section 3', 'RFC 7112 section 5'],
      [
        bad(piece(path, segment, [0, 8])),
        bad(piece(path, segment, [0, 16])),
        drop('site', piece(path, segment, [16, 96]), 'DropFragmentOrphan'),
      ]
    ),
    test(
      `${name}: a first fragment that ends within the options of TCP is refused`,
      ['RFC 1858 section 3', 'RFC 7112 section 5'],
      bad(
        piece(path, tcp({ tcpOptions: new Uint8Array(20).fill(1), payload: counting(40) }), [0, 32])
      )
    ),
    test(
      `${name}: a first fragment that ends with the options of TCP passes`,
      ['RFC 1858 section 3', 'RFC 7112 section 5'],
      passes(path, tcp({ tcpOptions: new Uint8Array(20).fill(1), payload: counting(40) }), [0, 40])
    ),
    test(
      `${name}: a first fragment with 8 of the 12 bytes of SCTP’s header is refused`,
      ['RFC 7112 section 5', 'RFC 9260 section 3.1'],
      bad(piece(path, sctp({ payload: counting(40) }), [0, 8]))
    ),
    test(
      `${name}: a UDP header alone in the first fragment is whole`,
      ['RFC 7112 section 5', 'RFC 768'],
      [passes(path, DATAGRAM, [0, 8]), passes(path, DATAGRAM, [8, 64])]
    ),
    test(
      `${name}: a later TCP fragment at offset 8 is refused`,
      ['RFC 3128', 'RFC 1858 section 3.2'],
      [passes(path, segment, [0, 24]), bad(piece(path, segment, [8, 32]))],
      { comment: 'It would replace the flags that the first one was permitted by.' }
    ),
    test(
      `${name}: an overlapping fragment is refused, and all that comes after it`,
      ['RFC 5722 section 4', 'RFC 1858 section 4', ...cites],
      [
        passes(path, LONG, [0, 32]),
        bad(later([24, 48])),
        bad(later([32, 64])),
        bad(later([64, 80])),
      ]
    ),
    test(
      `${name}: a datagram with an overlap is forgotten when its time is over`,
      ['RFC 5722 section 4', ...cites],
      [
        passes(path, LONG, [0, 32], {}, { at: 0 }),
        bad(later([24, 48])),
        bad(later([32, 64]), 14_999),
        drop('site', later([32, 64]), 'DropFragmentOrphan', { at: 15_001 }),
        passes(path, LONG, [0, 32], {}, { at: 15_002 }),
        passes(path, LONG, [32, 80], {}, { at: 15_003 }),
      ]
    ),
    test(
      `${name}: a fragment that covers another and more is an overlap`,
      ['RFC 5722 section 4'],
      [
        passes(path, LONG, [0, 16]),
        passes(path, LONG, [32, 48]),
        bad(later([24, 64])),
        bad(later([16, 32])),
      ]
    ),
    test(
      `${name}: a fragment inside of another is dropped, the others pass`,
      ['RFC 5722 section 4'],
      [
        passes(path, LONG, [0, 16]),
        passes(path, LONG, [16, 64]),
        bad(later([24, 40])),
        passes(path, LONG, [64, 80]),
      ],
      { comment: 'It is never forwarded, so the receiver meets no overlap.' }
    ),
    test(
      `${name}: a first fragment again, of another length, is an overlap`,
      ['RFC 5722 section 4'],
      [passes(path, LONG, [0, 32]), bad(later([0, 24])), bad(later([32, 80]))]
    ),
    test(
      `${name}: a fragment behind the last one is refused, and all that comes after it`,
      ['RFC 5722 section 4', ...cites],
      [
        passes(path, LONG, [0, 16]),
        passes(path, LONG, [32, 48], { more: false }),
        bad(later([48, 64])),
        bad(later([16, 32])),
      ]
    ),
    test(`${name}: a ninth hole is refused`, ['RFC 815 section 3', ...cites], holes(path), {
      comment: 'First and last leave one hole, each fragment in the middle of it one more.',
    }),
    test(
      `${name}: a datagram with an overlap does no harm to another`,
      ['RFC 5722 section 4'],
      [
        passes(path, LONG, [0, 32], { identification: 1 }),
        passes(path, LONG, [0, 32], { identification: 2 }),
        bad(piece(path, LONG, [24, 48], { identification: 1 })),
        passes(path, LONG, [32, 80], { identification: 2 }),
      ]
    ),
    test(
      `${name}: the first fragment of an ICMP error is refused`,
      ['RFC 1812 section 4.3.2.7', 'RFC 4443 section 2.4', 'RFC 5508 section 4.2'],
      bad(fragmentOfError(name))
    ),
  ];
}

function holes(path: PacketPath): Step[] {
  const datagram = udp({ payload: counting(392) });
  const steps = [passes(path, datagram, [0, 16]), passes(path, datagram, [384, 400])];
  for (let i = 1; i <= 7; i++) steps.push(passes(path, datagram, [32 * i, 32 * i + 8]));
  steps.push(drop('site', piece(path, datagram, [32 * 8, 32 * 8 + 8]), 'DropFragment'));
  return steps;
}

function fragmentOfError(name: PathName): Uint8Array {
  const { before } = request(name);
  const side = isIpv6(before) ? { type: 1, code: 4 } : { type: 3, code: 3 };
  const quoted = packet({ source: before.destination, destination: before.source }, udp());
  return fragment(before, icmp({ ...side, payload: bytes(quoted, counting(80)) }), [0, 88]);
}

function ipv6Only(): Case[] {
  const path = request('6 to 6');
  const hopByHop = optionsHeader(HOP_BY_HOP, Uint8Array.of(5, 2, 0, 0));
  const destination = optionsHeader(DESTINATION, Uint8Array.of(1, 4, 0, 0, 0, 0));
  const inner = (payload: Uint8Array): Transport => raw(DESTINATION, payload);
  const chain = (ends: Ends): Uint8Array => {
    const options = bytes(u8(17), u8(0), u8(1), u8(4), u32(0));
    return bytes(options, DATAGRAM(ends).bytes);
  };
  const extensions = [hopByHop];
  return [
    test(
      '6 to 6: fragments behind hop-by-hop options pass',
      ['RFC 8200 section 4.5'],
      [
        passes(path, DATAGRAM, [0, 32], { extensions }),
        passes(path, DATAGRAM, [32, 64], { extensions }),
      ]
    ),
    test(
      '6 to 6: extension headers behind the fragment header are passed over',
      ['RFC 8200 section 4.5', 'RFC 7112 section 5'],
      [
        [0, 16],
        [16, 72],
      ].map((range) =>
        forward(
          path,
          fragment(path.before, inner(chain(path.before)), range as [number, number]),
          fragment(path.after, inner(chain(path.after)), range as [number, number])
        )
      )
    ),
    test(
      '6 to 6: a first fragment without the whole chain of headers is refused',
      ['RFC 7112 section 5'],
      [
        drop('site', fragment(path.before, inner(chain(path.before)), [0, 8]), 'DropFragment'),
        drop(
          'site',
          fragment(path.before, inner(chain(path.before)), [8, 72]),
          'DropFragmentOrphan'
        ),
      ]
    ),
    test(
      '6 to 6: the identification is of 32 bits',
      ['RFC 8200 section 4.5'],
      [
        passes(path, DATAGRAM, [0, 32], { identification: 0x10001 }),
        drop(
          'site',
          piece(path, DATAGRAM, [32, 64], { identification: 0x20001 }),
          'DropFragmentOrphan'
        ),
        passes(path, DATAGRAM, [32, 64], { identification: 0x10001 }),
      ]
    ),
    test(
      '6 to 6: a whole packet with a fragment header is no fragment of a datagram that is under way',
      ['RFC 6946 section 4'],
      [
        passes(path, DATAGRAM, [0, 32], { identification: 9 }),
        pass(path, udp(), { extensions: [fragmentHeader({ id: 9 })] }),
        pass(path, udp(), { extensions: [destination, fragmentHeader({ id: 9 })] }),
        passes(path, DATAGRAM, [32, 64], { identification: 9 }),
      ]
    ),
  ];
}

function ipv4Only(): Case[] {
  const path = request('4 to 4');
  return [
    test(
      '4 to 4: fragments of an echo request pass',
      ['RFC 791 section 3.2', 'RFC 5508 section 3.1'],
      [
        passes(path, echo({ payload: counting(56) }), [0, 32]),
        passes(path, echo({ payload: counting(56) }), [32, 64]),
      ]
    ),
    test(
      '6 to 6: fragments of an echo request pass',
      ['RFC 8200 section 4.5', 'RFC 5508 section 3.1'],
      [
        passes(request('6 to 6'), echo({ payload: counting(56) }), [0, 32]),
        passes(request('6 to 6'), echo({ payload: counting(56) }), [32, 64]),
      ]
    ),
    test(
      '4 to 4: the first fragment of a UDP datagram without a checksum stays without',
      ['RFC 768', 'RFC 791 section 3.2'],
      [
        passes(path, udp({ payload: counting(56), checksum: 0 }), [0, 32]),
        passes(path, udp({ payload: counting(56), checksum: 0 }), [32, 64]),
      ]
    ),
    test(
      '4 to 4: options of fragments are kept',
      ['RFC 791 section 3.1'],
      [
        passes(path, DATAGRAM, [0, 32], { options: Uint8Array.of(148, 4, 0, 0) }),
        passes(path, DATAGRAM, [32, 64], { options: Uint8Array.of(1, 1, 1, 1) }),
      ]
    ),
  ];
}

function mixedOnly(): Case[] {
  const into6 = request('4 to 6');
  const into4 = request('6 to 4');
  const icmp4 = echo({ payload: counting(56) });
  return [
    test(
      '6 to 4: the low 16 bits of the identification are kept',
      ['RFC 7915 section 5.1.1'],
      [
        passes(into4, DATAGRAM, [0, 32], { identification: 0x1234abcd }),
        passes(into4, DATAGRAM, [32, 64], { identification: 0x1234abcd }),
      ]
    ),
    test(
      '6 to 4: extension headers of fragments are left out',
      ['RFC 7915 section 5.1.1', 'RFC 7915 section 5.1'],
      [
        [0, 32],
        [32, 64],
      ].map(([from, to]) => {
        const range = [from, to] as [number, number];
        const extensions = [optionsHeader(HOP_BY_HOP, Uint8Array.of(5, 2, 0, 0))];
        return forward(
          into4,
          piece(into4, DATAGRAM, range, { extensions, identification: 77 }),
          pieceAfter(into4, DATAGRAM, range, { identification: 77 })
        );
      })
    ),
    test(
      '4 to 6: options of fragments are left out',
      ['RFC 7915 section 4.1'],
      [
        [0, 32],
        [32, 64],
      ].map(([from, to]) => {
        const range = [from, to] as [number, number];
        const options = Uint8Array.of(148, 4, 0, 0);
        return forward(
          into6,
          piece(into6, DATAGRAM, range, { options, identification: 77 }),
          pieceAfter(into6, DATAGRAM, range, { identification: 77 })
        );
      })
    ),
    ...[into6, into4].map((path) =>
      test(
        `${path === into6 ? '4 to 6' : '6 to 4'}: a fragment of ICMP cannot be translated`,
        ['RFC 7915 section 1.2'],
        drop('site', piece(path, icmp4, [0, 32]), 'DropFragment'),
        {
          comment:
            'ICMPv6 covers a pseudo-header with the length of the whole, which is not known.',
        }
      )
    ),
    test(
      '4 to 6: a fragmented UDP datagram without a checksum cannot be translated',
      ['RFC 7915 section 4.5'],
      drop(
        'site',
        piece(into6, udp({ payload: counting(56), checksum: 0 }), [0, 32]),
        'DropUnsupported'
      )
    ),
    test(
      '4 to 6: a refused first fragment leaves the later ones orphans',
      ['RFC 7915 section 4.5'],
      [
        drop(
          'site',
          piece(into6, udp({ payload: counting(56), checksum: 0 }), [0, 32]),
          'DropUnsupported'
        ),
        drop(
          'site',
          piece(into6, udp({ payload: counting(56), checksum: 0 }), [32, 64]),
          'DropFragmentOrphan'
        ),
      ]
    ),
    test(
      '6 to 4: the fragment header of a whole packet is left out, and its identification with it',
      ['RFC 7915 section 5.1', 'RFC 6946 section 4'],
      pass(into4, udp(), { extensions: [fragmentHeader({ id: 0x11112222 })] })
    ),
  ];
}
