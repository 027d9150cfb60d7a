/**
 * Packets that contradict themselves or end too early. None of them may be read past its end.
 * @module
 */

import { bytes, counting, NOTHING, u16 } from '../../support/bytes.ts';
import {
  fragmentHeader,
  ICMP,
  ICMPV6,
  icmp,
  packet,
  raw,
  TCP,
  type Transport,
  UDP,
} from '../../support/packets.ts';
import type { Case, Step, Subject } from '../corpus.ts';
import { echo, tcp, udp, udpLite } from '../packets.ts';
import { drop, type PathName, planOf, request, SAME, test, UNBOUND4, UNBOUND6 } from '../scene.ts';

export function malformed(): Subject {
  return {
    subject: 'malformed',
    about: 'Packets that contradict themselves or are truncated.',
    plans: { base: planOf() },
    cases: [
      ...versions(),
      ...SAME.flatMap((name) => [...lengths(name), ...transports(name)]),
      ...checksums(),
      ...orders(),
    ],
  };
}

const four = request('4 to 4').before;
const six = request('6 to 6').before;

function bad(data: Uint8Array): Step {
  return drop('site', data, 'DropMalformed');
}

function versions(): Case[] {
  const whole = packet(four, udp());
  const of = (version: number): Uint8Array => {
    const data = whole.slice();
    data[0] = (version << 4) | 5;
    return data;
  };
  return [
    test('an empty packet is malformed', ['RFC 1812 section 5.2.2'], bad(NOTHING)),
    test(
      'an IP version other than 4 and 6 is malformed',
      ['RFC 1812 section 5.2.2', 'RFC 8200 section 3'],
      [0, 1, 2, 3, 5, 7, 8, 15].map((version) => bad(of(version)))
    ),
    test('an IPv4 packet that says it is IPv6 is malformed', ['RFC 8200 section 3'], bad(of(6))),
    test(
      'an IPv6 packet that says it is IPv4 is malformed',
      ['RFC 791 section 3.1'],
      bad(bytes(Uint8Array.of(0x45), packet(six, udp()).slice(1)))
    ),
  ];
}

function lengths(name: PathName): Case[] {
  const { before } = request(name);
  const isIpv4 = name === '4 to 4';
  const header = isIpv4 ? 20 : 40;
  const cites = isIpv4 ? ['RFC 791 section 3.1', 'RFC 1812 section 5.2.2'] : ['RFC 8200 section 3'];
  const whole = packet(before, udp());
  const right = isIpv4 ? whole.length : whole.length - 40;
  const said = (length: number): Uint8Array => packet(before, udp(), { length });
  const ends = [...new Set([1, 4, 8, header - 1, header, header + 7, whole.length - 1])];
  return [
    test(
      `${name}: a packet that ends before its IP length says is malformed`,
      cites,
      ends.map((end) => bad(whole.slice(0, end)))
    ),
    test(
      `${name}: an IP length that is more than the packet’s is malformed`,
      cites,
      [right + 1, right + 8, 0xffff].map((length) => bad(said(length)))
    ),
    test(
      `${name}: an IP length that is less than the packet’s is malformed`,
      cites,
      [right - 1, 8, 1, 0].map((length) => bad(said(length)))
    ),
    test(
      `${name}: bytes behind the packet are malformed`,
      cites,
      [1, 6, 60].map((count) => bad(bytes(whole, new Uint8Array(count))))
    ),
  ];
}

function transports(name: PathName): Case[] {
  const { before } = request(name);
  const isIpv4 = name === '4 to 4';
  const cut = (protocol: number, transport: Transport, counts: readonly number[]): Step[] =>
    counts.map((count) =>
      bad(packet(before, raw(protocol, transport(before).bytes.slice(0, count))))
    );
  const protocol = isIpv4 ? ICMP : ICMPV6;
  const payload = counting(19);
  return [
    test(
      `${name}: a TCP header that is not whole is malformed`,
      ['RFC 9293 section 3.1'],
      cut(TCP, tcp(), [0, 1, 4, 12, 13, 19])
    ),
    test(
      `${name}: a TCP data offset under 5 is malformed`,
      ['RFC 9293 section 3.1'],
      [0, 1, 4].map((dataOffset) => bad(packet(before, tcp({ dataOffset, payload }))))
    ),
    test(
      `${name}: a TCP data offset beyond the packet is malformed`,
      ['RFC 9293 section 3.1'],
      [
        bad(packet(before, tcp({ dataOffset: 6 }))),
        bad(packet(before, tcp({ dataOffset: 15, payload }))),
        bad(packet(before, tcp({ dataOffset: 10, payload }))),
      ]
    ),
    test(
      `${name}: a UDP header that is not whole is malformed`,
      ['RFC 768'],
      cut(UDP, udp(), [0, 1, 4, 7])
    ),
    test(
      `${name}: a UDP length that is not the payload’s is malformed`,
      ['RFC 768'],
      [0, 7, 8, 26, 28, 0xffff].map((udpLength) => bad(packet(before, udp({ payload, udpLength }))))
    ),
    test(
      `${name}: an ICMP header that is not whole is malformed`,
      [isIpv4 ? 'RFC 792' : 'RFC 4443 section 2.1'],
      cut(protocol, echo(), [0, 1, 4, 7])
    ),
    test(
      `${name}: a UDP-Lite coverage of 7 is malformed`,
      ['RFC 3828 section 3.1'],
      bad(packet(before, udpLite({ coverage: 7 })))
    ),
  ];
}

function checksums(): Case[] {
  const right = packet(four, udp());
  const checksum = (right[10]! << 8) | right[11]!;
  const flipped = (at: number): Uint8Array => {
    const data = right.slice();
    data[at]! ^= 0x10;
    return data;
  };
  return [
    test(
      'a wrong IPv4 header checksum is malformed',
      ['RFC 791 section 3.1', 'RFC 1812 section 5.2.2'],
      [checksum - 1, checksum + 1, checksum ^ 0x8000, 0].map((headerChecksum) =>
        bad(packet(four, udp(), { headerChecksum }))
      )
    ),
    test(
      'a damaged byte of the IPv4 header is found by its checksum',
      ['RFC 791 section 3.1', 'RFC 1071 section 1'],
      [1, 4, 5, 6, 8, 9, 12, 15, 16, 19].map((at) => bad(flipped(at)))
    ),
    test(
      'a wrong IPv4 header checksum with options is malformed',
      ['RFC 791 section 3.1'],
      bad(packet(four, udp(), { options: Uint8Array.of(1, 1, 1, 0), headerChecksum: checksum }))
    ),
    test(
      'a wrong IPv4 header checksum of a later fragment is malformed',
      ['RFC 791 section 3.1'],
      bad(packet(four, raw(UDP, counting(16)), { fragment: 1480 / 8, headerChecksum: checksum }))
    ),
  ];
}

function orders(): Case[] {
  return [
    test(
      'what is malformed is reported before a missing presence',
      ['RFC 1812 section 5.2.2'],
      [
        bad(packet({ ...four, destination: UNBOUND4 }, udp({ udpLength: 3 }))),
        bad(packet({ ...six, destination: UNBOUND6 }, tcp({ dataOffset: 1 }))),
      ]
    ),
    test(
      'a wrong header checksum is reported before an option that is not handled',
      ['RFC 1812 section 5.2.2'],
      bad(packet(four, udp(), { options: Uint8Array.of(7, 3, 4, 0), headerChecksum: 0x1234 })),
      { comment: 'Within one header malformed comes before unsupported.' }
    ),
    test(
      'an option that is not handled is reported before a malformed transport header',
      ['RFC 1812 section 5.2.2'],
      drop(
        'site',
        packet(four, tcp({ dataOffset: 1 }), { options: Uint8Array.of(7, 3, 4, 0) }),
        'DropUnsupported'
      ),
      { comment: 'Where a packet has several faults, the outer one decides.' }
    ),
    test(
      'the fragment header of a whole packet does not hide a malformed transport header',
      ['RFC 6946 section 4', 'RFC 9293 section 3.1'],
      [
        bad(packet(six, tcp({ dataOffset: 3 }), { extensions: [fragmentHeader({ id: 1 })] })),
        bad(packet(six, raw(UDP, u16(7)), { extensions: [fragmentHeader({ id: 1 })] })),
      ]
    ),
    test(
      'an ICMP error without a whole quote is malformed whatever it is to',
      ['RFC 792', 'RFC 4443 section 2.4'],
      [
        bad(packet({ ...four, destination: UNBOUND4 }, icmp({ type: 3, payload: counting(8) }))),
        bad(packet({ ...six, destination: UNBOUND6 }, icmp({ type: 1, payload: counting(8) }))),
      ]
    ),
  ];
}
