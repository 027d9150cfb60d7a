/**
 * ICMP errors between realms of one IP version: outer header, quote, and every checksum in it.
 * @module
 */

import { bytes, counting, NOTHING, u8, u16, u32 } from '../../support/bytes.ts';
import {
  ACK,
  DESTINATION,
  fragmentHeader,
  GRE,
  icmp,
  MORE_FRAGMENTS,
  optionsHeader,
  packet,
  raw,
  SYN,
  type Transport,
} from '../../support/packets.ts';
import type { Case, Subject } from '../corpus.ts';
import { echo, sctp, tcp, udp, udpLite } from '../packets.ts';
import {
  back,
  CLIENT4,
  CLIENT6,
  drop,
  error,
  errorPacket,
  forward,
  NEW_CLIENT4,
  NEW_CLIENT6,
  type PacketPath,
  type PathName,
  planOf,
  ROUTER4,
  ROUTER6,
  reply,
  request,
  SAME,
  test,
} from '../scene.ts';

export function icmpErrors(): Subject {
  return {
    subject: 'icmp-errors',
    about: 'ICMP errors and what they quote, between realms of one IP version.',
    plans: { base: planOf(), silent: planOf({ ports: ['tcp/5672'] }) },
    cases: [
      ...types(),
      ...SAME.flatMap((name) => [...quotes(name), ...policy(name), ...bad(name)]),
    ],
  };
}

const NAT = 'RFC 3022 section 4.3';
const BEHAVIOR = 'RFC 5508 section 4.2';

function types(): Case[] {
  const four = request('4 to 4');
  const six = request('6 to 6');
  const cases: Case[] = [];
  for (let code = 0; code <= 15; code++) {
    const rest = code === 4 ? u32(1400) : u32(0);
    cases.push(
      test(
        `4 to 4: ICMP 3/${code} comes from the host that was talked to`,
        ['RFC 792', 'RFC 1812 section 5.2.7.1', NAT, BEHAVIOR],
        error(four, udp(), { type: 3, code, rest })
      )
    );
  }
  for (const [type, code, rest] of [
    [11, 0, u32(0)],
    [11, 1, u32(0)],
    [12, 0, u32(0x09000000)],
    [12, 1, u32(0)],
    [12, 2, u32(0x02000000)],
  ] as const) {
    cases.push(
      test(
        `4 to 4: ICMP ${type}/${code} keeps its pointer and code`,
        ['RFC 792', NAT],
        error(four, udp(), { type, code, rest })
      )
    );
  }
  for (const [type, code, rest] of [
    ...[0, 1, 2, 3, 4, 5, 6].map((code) => [1, code, u32(0)] as const),
    [2, 0, u32(1400)],
    [2, 0, u32(0xffffffff)],
    [3, 0, u32(0)],
    [3, 1, u32(0)],
    [4, 0, u32(6)],
    [4, 1, u32(40)],
    [4, 2, u32(0xfedcba98)],
  ] as const) {
    const said = type === 2 || type === 4 ? ` with ${Buffer.from(rest).readUInt32BE()}` : '';
    cases.push(
      test(
        `6 to 6: ICMPv6 ${type}/${code}${said} comes from the host that was talked to`,
        [`RFC 4443 section 3.${type}`, BEHAVIOR],
        error(six, udp(), { type, code, rest })
      )
    );
  }
  return cases;
}

/** Port unreachable, in the IP version of the path. */
function unreachable(name: PathName): { readonly type: number; readonly code: number } {
  return name === '4 to 4' ? { type: 3, code: 3 } : { type: 1, code: 4 };
}

function quotes(name: PathName): Case[] {
  const path = request(name);
  const side = unreachable(name);
  const isIpv4 = name === '4 to 4';
  const long = udp({ payload: counting(200) });
  const cut = ['RFC 792', 'RFC 1812 section 4.3.2.3', NAT];
  const quoted = (what: string, transport: Transport, quotedBytes?: number): Case =>
    test(
      `${name}: ${what} is translated back in the quote`,
      quotedBytes === undefined ? [NAT, BEHAVIOR] : cut,
      error(path, transport, { ...side, ...(quotedBytes === undefined ? {} : { quotedBytes }) })
    );
  const cases = [
    quoted('a quoted TCP SYN', tcp({ flags: SYN, tcpOptions: Uint8Array.of(2, 4, 0x05, 0xb4) })),
    quoted('a quoted TCP segment with data', tcp({ flags: ACK, payload: counting(77) })),
    quoted('a TCP segment of which 8 bytes are quoted, without its checksum,', tcp(), 8),
    quoted('a TCP segment quoted to just in front of its checksum', tcp(), 16),
    quoted('a TCP segment quoted to just behind its checksum', tcp(), 18),
    quoted('a UDP datagram of which 8 bytes are quoted', long, 8),
    quoted('a UDP datagram of which 9 bytes are quoted', long, 9),
    quoted('a UDP datagram of which 101 bytes are quoted', long, 101),
    quoted('a quoted UDP-Lite datagram', udpLite({ coverage: 8 })),
    quoted('a quoted SCTP INIT', sctp({ chunk: 1, payload: counting(16) })),
    quoted('an SCTP packet of which 8 bytes are quoted, without its checksum,', sctp(), 8),
    quoted('a quoted echo request', echo()),
    quoted('an echo request of which 8 bytes are quoted', echo({ payload: counting(64) }), 8),
    quoted('a quoted GRE packet', raw(GRE, counting(24))),
    test(
      `${name}: a quoted TCP SYN keeps its maximum segment size`,
      [NAT, 'RFC 9293 section 3.7.1'],
      error(path, tcp({ flags: SYN, tcpOptions: Uint8Array.of(2, 4, 0xff, 0xff) }), side)
    ),
    test(
      `${name}: a wrong checksum in the quote stays wrong by the same amount`,
      ['RFC 1624 section 3', NAT],
      error(path, udp({ checksum: { receiver: 0x4321 } }), side)
    ),
    test(
      `${name}: a quoted datagram keeps its DS field and what is left of its hop limit`,
      ['RFC 1812 section 4.3.2.3', NAT],
      error(path, udp(), {
        ...side,
        ip: { trafficClass: 0xc0, hopLimit: 250 },
        quoteIp: { trafficClass: 0xb8, hopLimit: 1 },
      })
    ),
    test(
      `${name}: a router with an address of the pools may send an error`,
      ['RFC 1812 section 4.3.2.4', BEHAVIOR],
      fromRouter(path, isIpv4 ? '100.64.0.99' : 'fd64::99', side)
    ),
    test(
      `${name}: the quoted lengths may name fewer bytes than there are`,
      ['RFC 1812 section 4.3.2.3', NAT],
      error(path, udp(), { ...side, quoteIp: { length: isIpv4 ? 28 : 8 } })
    ),
    test(
      `${name}: the quoted lengths may name more bytes than there are`,
      ['RFC 1812 section 4.3.2.3', NAT],
      error(path, udp(), { ...side, quoteIp: { length: 1400 } })
    ),
    test(
      `${name}: the quoted UDP length is not checked`,
      ['RFC 1812 section 4.3.2.3', NAT],
      error(path, udp({ udpLength: 1 }), side)
    ),
    test(
      `${name}: the error itself may have options or extension headers`,
      ['RFC 791 section 3.1', 'RFC 8200 section 4'],
      error(path, udp(), {
        ...side,
        ip: {
          options: Uint8Array.of(148, 4, 0, 0),
          extensions: [optionsHeader(DESTINATION, NOTHING)],
        },
      })
    ),
    test(
      `${name}: the service itself may send an error`,
      ['RFC 1122 section 3.2.2.1', BEHAVIOR],
      fromRouter(path, path.after.destination, side)
    ),
  ];
  if (isIpv4) cases.push(...ipv4Quotes(path));
  else cases.push(...ipv6Quotes(path));
  return cases;
}

function fromRouter(path: PacketPath, source: string, side: { type: number; code: number }) {
  const body = packet(path.after, udp());
  const ends = back(path);
  return forward(
    ends,
    packet({ source, destination: path.after.source }, icmp({ ...side, payload: body })),
    packet(ends.after, icmp({ ...side, payload: packet(path.before, udp()) }))
  );
}

function ipv4Quotes(path: PacketPath): Case[] {
  const side = { type: 3, code: 3 };
  const options = Uint8Array.of(1, 1, 1, 0);
  const length = 0x2f00;
  return [
    test(
      '4 to 4: a quoted UDP datagram without a checksum stays without',
      ['RFC 768', NAT],
      error(path, udp({ checksum: 0 }), side)
    ),
    test(
      '4 to 4: a quoted IPv4 header with options is translated back',
      ['RFC 791 section 3.1', NAT],
      error(path, udp(), { ...side, quoteIp: { options } })
    ),
    test(
      '4 to 4: the quoted total length may name more bytes than there are',
      ['RFC 1812 section 4.3.2.3', NAT],
      error(path, udp(), { ...side, quoteIp: { length } }),
      { comment: 'Some senders quote it in the byte order of the host.' }
    ),
    test(
      '4 to 4: a quoted first fragment is as a whole packet',
      ['RFC 791 section 3.2', BEHAVIOR],
      error(path, udp({ payload: counting(40) }), {
        ...side,
        quoteIp: { fragment: MORE_FRAGMENTS, identification: 77 },
        quotedBytes: 32,
      })
    ),
    test(
      '4 to 4: a quoted later fragment is refused',
      ['RFC 792', BEHAVIOR],
      drop(
        'cloud',
        errorPacket(path, udp(), { ...side, quoteIp: { fragment: 1480 / 8 } }),
        'DropFragment'
      )
    ),
    test(
      '4 to 4: a wrong header checksum in the quote is not checked, and follows',
      ['RFC 1624 section 3', 'RFC 5508 section 4.1'],
      wrongQuotedHeader(path)
    ),
  ];
}

/** The quoted header checksum is wrong by one, before and after. */
function wrongQuotedHeader(path: PacketPath) {
  const [before, after] = [path.after, path.before].map((ends) => {
    const right = packet(ends, udp());
    return packet(ends, udp(), { headerChecksum: ((right[10]! << 8) | right[11]!) + 1 });
  });
  const ends = { source: ROUTER4, destination: path.after.source };
  return forward(
    back(path),
    packet(ends, icmp({ type: 3, code: 3, payload: before! })),
    packet(back(path).after, icmp({ type: 3, code: 3, payload: after! }))
  );
}

function ipv6Quotes(path: PacketPath): Case[] {
  const side = { type: 1, code: 4 };
  const options = optionsHeader(DESTINATION, Uint8Array.of(1, 4, 0, 0, 0, 0));
  return [
    test(
      '6 to 6: a quoted UDP checksum of zero stays zero',
      ['RFC 8200 section 8.1', NAT],
      error(path, udp({ checksum: 0 }), side)
    ),
    test(
      '6 to 6: a quoted packet with extension headers is translated back',
      ['RFC 8200 section 4.6', BEHAVIOR],
      error(path, udp(), { ...side, quoteIp: { extensions: [options, options] } })
    ),
    test(
      '6 to 6: a quoted first fragment is as a whole packet',
      ['RFC 8200 section 4.5', BEHAVIOR],
      error(path, udp({ payload: counting(40) }), {
        ...side,
        quoteIp: { extensions: [fragmentHeader({ more: true, id: 0x10002 })] },
        quotedBytes: 32,
      })
    ),
    test(
      '6 to 6: a quoted later fragment is refused',
      ['RFC 8200 section 4.5', BEHAVIOR],
      drop(
        'cloud',
        errorPacket(path, udp(), {
          ...side,
          quoteIp: { extensions: [fragmentHeader({ offset: 1448 })] },
        }),
        'DropFragment'
      )
    ),
    test(
      '6 to 6: a quoted datagram keeps its flow label',
      ['RFC 6437 section 2', BEHAVIOR],
      error(path, udp(), { ...side, ip: { flowLabel: 0x12345 }, quoteIp: { flowLabel: 0xfedcb } })
    ),
  ];
}

function policy(name: PathName): Case[] {
  const path = request(name);
  const side = unreachable(name);
  const answers = back(path);
  const isIpv4 = name === '4 to 4';
  return [
    test(
      `${name}: an error about a reply goes to the service`,
      [BEHAVIOR, NAT],
      error(reply(name), udp({ sourcePort: 53, destinationPort: 40_000 }), side)
    ),
    test(
      `${name}: an error about an echo reply goes to the service`,
      [BEHAVIOR, NAT],
      error(reply(name), echo({ reply: true }), side)
    ),
    test(
      `${name}: an error about a UDP datagram needs no session`,
      [BEHAVIOR],
      error(path, udp({ sourcePort: 1234, destinationPort: 8000 }), side)
    ),
    test(
      `${name}: an error about a port that is not permitted is not permitted`,
      [BEHAVIOR],
      drop('cloud', errorPacket(path, tcp({ destinationPort: 22 }), side), 'DropNotPermitted')
    ),
    test(
      `${name}: an error about an echo to a host without echo is not permitted`,
      [BEHAVIOR],
      drop('cloud', errorPacket(path, echo(), side), 'DropNotPermitted'),
      { plan: 'silent' }
    ),
    test(
      `${name}: an error about a packet to a host that is no source of the realm is spoofed`,
      [BEHAVIOR, 'RFC 2827 section 3'],
      drop(
        'cloud',
        quoting(path, answers, side, { destination: isIpv4 ? ROUTER4 : ROUTER6 }),
        'DropSpoofed'
      )
    ),
    test(
      `${name}: an error to an address that stands for nobody has no presence`,
      [BEHAVIOR],
      drop('cloud', toNobody(path, side, isIpv4 ? '100.64.0.201' : 'fd64::c9'), 'DropNoPresence')
    ),
    test(
      `${name}: an error about a packet to a host without a permit is not permitted`,
      [BEHAVIOR],
      drop(
        'cloud',
        quoting(path, answers, side, { destination: isIpv4 ? NEW_CLIENT4 : NEW_CLIENT6 }),
        'DropNotPermitted'
      )
    ),
  ];
}

/** An error to the client’s presence, whose quote has other addresses than it sent. */
function quoting(
  path: PacketPath,
  answers: PacketPath,
  side: { type: number; code: number },
  ends: { source?: string; destination?: string }
): Uint8Array {
  const body = packet({ ...path.after, ...ends }, udp());
  const source = path.after.source.includes(':') ? ROUTER6 : ROUTER4;
  return packet(
    { source, destination: answers.before.destination },
    icmp({ ...side, payload: body })
  );
}

function toNobody(
  path: PacketPath,
  side: { type: number; code: number },
  nobody: string
): Uint8Array {
  const body = packet({ ...path.after, source: nobody }, udp());
  const source = nobody.includes(':') ? ROUTER6 : ROUTER4;
  return packet({ source, destination: nobody }, icmp({ ...side, payload: body }));
}

function bad(name: PathName): Case[] {
  const path = request(name);
  const answers = back(path);
  const side = unreachable(name);
  const isIpv4 = name === '4 to 4';
  const [own, other] = isIpv4 ? [CLIENT4, CLIENT6] : [CLIENT6, CLIENT4];
  const source = isIpv4 ? ROUTER4 : ROUTER6;
  const ends = { source, destination: answers.before.destination };
  const whole = (body: Uint8Array): Uint8Array => packet(ends, icmp({ ...side, payload: body }));
  const nested = icmp({ ...side, payload: packet(path.after, udp()) });
  return [
    test(
      `${name}: a quoted source that is not the error’s destination is malformed`,
      [BEHAVIOR, 'RFC 5927 section 4'],
      drop('cloud', quoting(path, answers, side, { source: own! }), 'DropMalformed')
    ),
    test(
      `${name}: a quote of the other IP version is malformed`,
      [isIpv4 ? 'RFC 792' : 'RFC 4443 section 2.4'],
      drop(
        'cloud',
        whole(packet({ source: other!, destination: isIpv4 ? 'fd00::9' : '10.0.0.9' }, udp())),
        'DropMalformed'
      )
    ),
    test(
      `${name}: a quote that is an ICMP error is not handled`,
      ['RFC 1122 section 3.2.2', 'RFC 4443 section 2.4'],
      drop('cloud', errorPacket(path, nested, side), 'DropUnsupported')
    ),
    test(
      `${name}: a quote with 7 bytes of its transport header is malformed`,
      ['RFC 792', 'RFC 5508 section 4.1'],
      [
        drop('cloud', errorPacket(path, udp(), { ...side, quotedBytes: 7 }), 'DropMalformed'),
        drop('cloud', errorPacket(path, tcp(), { ...side, quotedBytes: 7 }), 'DropMalformed'),
      ]
    ),
    test(
      `${name}: a quote that ends within its IP header is malformed`,
      ['RFC 792', 'RFC 5508 section 4.1'],
      [0, 1, isIpv4 ? 19 : 39].map((length) =>
        drop('cloud', whole(packet(path.after, udp()).slice(0, length)), 'DropMalformed')
      )
    ),
    test(
      `${name}: an error without a quote is malformed`,
      ['RFC 792', 'RFC 4443 section 2.4'],
      drop('cloud', whole(NOTHING), 'DropMalformed')
    ),
    test(
      `${name}: a quote of no IP version is malformed`,
      ['RFC 792', 'RFC 4443 section 2.4'],
      drop('cloud', whole(bytes(u8(0x55), u8(0), u16(40), counting(60))), 'DropMalformed')
    ),
  ];
}
