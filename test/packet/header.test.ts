import { describe, expect, test } from 'vitest';
import { FragmentPart } from '../../src/packet/fields.ts';
import { PacketHeader, PacketKind, Parse } from '../../src/packet/index.ts';
import { repairIpv4Checksum } from '../support/packets.ts';
import { Random } from '../support/random.ts';
import { GuardedView } from '../translator/guarded-view.ts';

const UDP4 = hex(
  '45 00 00 20', // version 4, header of 5 words; traffic class; total length 32
  'be ef 40 00', // identification; don't fragment
  '40 11 0d 98', // hop limit 64; protocol 17; header checksum
  '0a 00 00 05', // source 10.0.0.5
  '64 40 00 01', // destination 100.64.0.1
  '9c 40 00 35', // source port 40000, destination port 53
  '00 0c 00 00', // UDP length 12; no checksum
  '61 62 63 64' // payload
);

const TCP4 = hex(
  '45 00 00 2c', // version 4, header of 5 words; traffic class; total length 44
  'be ef 40 00', // identification; don't fragment
  '40 06 0d 97', // hop limit 64; protocol 6; header checksum
  '0a 00 00 05', // source 10.0.0.5
  '64 40 00 01', // destination 100.64.0.1
  'c0 00 16 28', // source port 49152, destination port 5672
  '01 02 03 04', // sequence number
  '05 06 07 08', // acknowledgement number
  '60 10 fa f0', // header of 6 words; ACK; window
  '00 00 00 00', // checksum; urgent pointer
  '02 04 05 b4' // option: maximum segment size 1460
);

const ECHO4 = hex(
  '45 00 00 1c', // version 4, header of 5 words; traffic class; total length 28
  'be ef 40 00', // identification; don't fragment
  '40 01 0d ac', // hop limit 64; protocol 1; header checksum
  '0a 00 00 05', // source 10.0.0.5
  '64 40 00 01', // destination 100.64.0.1
  '08 00 e5 ca', // echo request; checksum
  '12 34 00 01' // identifier; sequence number
);

const UDP6 = hex(
  '60 00 00 00', // version 6
  '00 0c 11 40', // payload length 12; next header 17; hop limit 64
  'fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 05', // source fd00::5
  'fd 64 00 00 00 00 00 00 00 00 00 00 00 00 00 01', // destination fd64::1
  '9c 40 00 35', // source port 40000, destination port 53
  '00 0c 12 34', // UDP length 12; checksum
  '61 62 63 64' // payload
);

const TCP6 = hex(
  '60 00 00 00', // version 6
  '00 14 06 40', // payload length 20; next header 6; hop limit 64
  'fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 05', // source fd00::5
  'fd 64 00 00 00 00 00 00 00 00 00 00 00 00 00 01', // destination fd64::1
  'c0 00 16 28', // source port 49152, destination port 5672
  '01 02 03 04', // sequence number
  '05 06 07 08', // acknowledgement number
  '50 10 fa f0', // header of 5 words; ACK; window
  '00 00 00 00' // checksum; urgent pointer
);

const ECHO6 = hex(
  '60 00 00 00', // version 6
  '00 08 3a 40', // payload length 8; next header 58; hop limit 64
  'fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 05', // source fd00::5
  'fd 64 00 00 00 00 00 00 00 00 00 00 00 00 00 01', // destination fd64::1
  '80 00 00 00', // echo request; checksum
  '12 34 00 01' // identifier; sequence number
);

const SCTP4 = hex(
  '45 00 00 24', // version 4, header of 5 words; traffic class; total length 36
  'be ef 40 00', // identification; don't fragment
  '40 84 0d 21', // hop limit 64; protocol 132; header checksum
  '0a 00 00 05', // source 10.0.0.5
  '64 40 00 01', // destination 100.64.0.1
  'c0 00 0f 1c', // source port 49152, destination port 3868
  '01 02 03 04', // verification tag
  '05 06 07 08', // checksum
  '01 00 00 04' // first chunk: INIT
);

const UDPLITE6 = hex(
  '60 00 00 00', // version 6
  '00 0c 88 40', // payload length 12; next header 136; hop limit 64
  'fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 05', // source fd00::5
  'fd 64 00 00 00 00 00 00 00 00 00 00 00 00 00 01', // destination fd64::1
  '9c 40 13 8c', // source port 40000, destination port 5004
  '00 08 12 34', // coverage: the header; checksum
  '61 62 63 64' // payload
);

const GRE4 = hex(
  '45 00 00 1c', // version 4, header of 5 words; traffic class; total length 28
  'be ef 40 00', // identification; don't fragment
  '40 2f 0d 7e', // hop limit 64; protocol 47; header checksum
  '0a 00 00 05', // source 10.0.0.5
  '64 40 00 01', // destination 100.64.0.1
  '00 00 08 00 61 62 63 64' // anything
);

const VALID = [
  { name: 'UDP over IPv4', packet: UDP4 },
  { name: 'TCP over IPv4', packet: TCP4 },
  { name: 'echo over IPv4', packet: ECHO4 },
  { name: 'UDP over IPv4 with options', packet: withOptions(UDP4, '94 04 00 00') },
  { name: 'UDP over IPv6', packet: UDP6 },
  { name: 'TCP over IPv6', packet: TCP6 },
  { name: 'echo over IPv6', packet: ECHO6 },
  { name: 'SCTP over IPv4', packet: SCTP4 },
  { name: 'UDP-Lite over IPv6', packet: UDPLITE6 },
  { name: 'GRE over IPv4', packet: GRE4 },
];

describe('the fields of a valid packet', () => {
  const START = 7;

  test.each([
    ['UDP over IPv4', UDP4, { family: 4, kind: PacketKind.Udp, checksum: 26, ports: [40000, 53] }],
    [
      'TCP over IPv4',
      TCP4,
      { family: 4, kind: PacketKind.Tcp, checksum: 36, ports: [49152, 5672] },
    ],
    ['echo over IPv4', ECHO4, { family: 4, kind: PacketKind.EchoRequest, checksum: 22 }],
    ['UDP over IPv6', UDP6, { family: 6, kind: PacketKind.Udp, checksum: 46, ports: [40000, 53] }],
    [
      'TCP over IPv6',
      TCP6,
      { family: 6, kind: PacketKind.Tcp, checksum: 56, ports: [49152, 5672] },
    ],
    ['echo over IPv6', ECHO6, { family: 6, kind: PacketKind.EchoRequest, checksum: 42 }],
    ['SCTP over IPv4', SCTP4, { family: 4, kind: PacketKind.Sctp, ports: [49152, 3868] }],
    [
      'UDP-Lite over IPv6',
      UDPLITE6,
      { family: 6, kind: PacketKind.UdpLite, checksum: 46, ports: [40000, 5004] },
    ],
    ['GRE over IPv4', GRE4, { family: 4, kind: PacketKind.Other, ports: [47, 47] }],
  ] as const)('%s, from a start that is not 0', (_name, packet, expected) => {
    const { outcome, header } = parse(packet, START);
    expect(outcome).toBe('Ok');
    const isIpv4 = expected.family === 4;
    const [sourcePort, destinationPort] = 'ports' in expected ? expected.ports : [0, 0];
    const transport = isIpv4 ? 20 : 40;
    expect(header).toMatchObject({
      family: expected.family,
      kind: expected.kind,
      protocol: packet[isIpv4 ? 9 : 6],
      start: START,
      source: START + (isIpv4 ? 12 : 8),
      transport: START + transport,
      checksum: 'checksum' in expected ? START + expected.checksum : -1,
      sourcePort,
      destinationPort,
      end: START + packet.length,
      payloadLength: packet.length - transport,
      dontFragment: true,
      part: FragmentPart.Whole,
      fragmentHeader: -1,
      isAuthenticated: false,
    });
  });

  test.each([
    ['SYN', patch(TCP4, { 33: 0x02 }), true],
    ['SYN and ACK', patch(TCP4, { 33: 0x12 }), false],
    ['ACK', TCP4, false],
    ['SYN and FIN', patch(TCP4, { 33: 0x03 }), true],
    ['an SCTP packet with INIT first', SCTP4, true],
    ['an SCTP packet with INIT ACK first', patch(SCTP4, { 32: 2 }), false],
    ['an SCTP packet without a chunk', withLength(SCTP4.subarray(0, 32)), false],
    ['UDP', UDP4, false],
    ['an echo request', ECHO4, false],
  ])('what opens a session by its flags: %s', (_name, packet, opens) => {
    const header = new PacketHeader();
    header.parse(viewOf(patch(TCP4, { 33: 0x02 })), 0, TCP4.length);
    header.parse(viewOf(packet), 0, packet.length);
    expect(header.opensSession).toBe(opens);
  });

  test('"don\'t fragment" is the IPv4 flag, and holds for every IPv6 packet', () => {
    const may = repaired(UDP4, { 6: 0 });
    expect([parse(UDP4), parse(may), parse(UDP6)].map(({ header }) => header.dontFragment)).toEqual(
      [true, false, true]
    );
  });

  test('IPv4 options move the transport header back', () => {
    const { header } = parse(withOptions(UDP4, '01 01 94 04 00 00 00 00'), START);
    expect(header).toMatchObject({
      source: START + 12,
      transport: START + 28,
      destinationPort: 53,
    });
  });

  test('an echo has no ports, whatever the packet before it had', () => {
    const header = new PacketHeader();
    header.parse(viewOf(UDP4), 0, UDP4.length);
    header.parse(viewOf(ECHO4), 0, ECHO4.length);
    expect([header.sourcePort, header.destinationPort]).toEqual([0, 0]);
  });
});

describe('a packet truncated at any length is malformed', () => {
  test.each(VALID)('$name', ({ packet }) => {
    for (let length = 0; length < packet.length; length++) {
      expect([length, parse(packet.subarray(0, length)).outcome]).toEqual([length, 'Malformed']);
    }
  });

  test.each(VALID)('$name, although its IP header has the new length', ({ packet }) => {
    const headerLength = packet[0]! >>> 4 === 4 ? (packet[0]! & 15) * 4 : 40;
    const least = transportLength(packet);
    for (let length = headerLength; length < packet.length; length++) {
      const cut = withLength(packet.subarray(0, length));
      const isWhole = length - headerLength >= least;
      expect([length, parse(cut).outcome]).toEqual([length, isWhole ? 'Ok' : 'Malformed']);
    }
  });
});

describe('faults of headers', () => {
  test.each<[fault: string, packet: Uint8Array, outcome: keyof typeof Parse]>([
    ['nothing', hex(), 'Malformed'],
    ['version 0', patch(UDP4, { 0: 0x05 }), 'Malformed'],
    ['version 5', patch(UDP4, { 0: 0x55 }), 'Malformed'],
    ['version 15', patch(UDP4, { 0: 0xf5 }), 'Malformed'],
    ['version 4 before an IPv6 header', patch(UDP6, { 0: 0x45 }), 'Malformed'],
    ['version 6 before an IPv4 header', patch(UDP4, { 0: 0x60 }), 'Malformed'],

    ['IPv4 header length 0', repaired(UDP4, { 0: 0x40 }), 'Malformed'],
    ['IPv4 header length of 4 words', repaired(UDP4, { 0: 0x44 }), 'Malformed'],
    ['IPv4 header length beyond the packet', repaired(UDP4, { 0: 0x4f }), 'Malformed'],
    ['IPv4 header up to the last byte', repaired(ECHO4, { 0: 0x47 }), 'Malformed'],
    ['IPv4 total length 0', repaired(UDP4, { 3: 0 }), 'Malformed'],
    ['IPv4 total length shorter than the header', repaired(UDP4, { 3: 19 }), 'Malformed'],
    ['IPv4 total length shorter than the packet', repaired(UDP4, { 3: 31 }), 'Malformed'],
    ['IPv4 total length longer than the packet', repaired(UDP4, { 3: 33 }), 'Malformed'],
    ['IPv4 total length 65535', repaired(UDP4, { 2: 0xff, 3: 0xff }), 'Malformed'],
    ['IPv4 header checksum off by one', patch(UDP4, { 11: UDP4[11]! + 1 }), 'Malformed'],
    ['IPv4 header checksum 0', patch(UDP4, { 10: 0, 11: 0 }), 'Malformed'],
    ['a bit of the source changed in flight', patch(UDP4, { 15: 0x04 }), 'Malformed'],

    ['IPv4 reserved flag set, no fragment', repaired(UDP4, { 6: 0x80 }), 'Ok'],
    ['IPv4 no flags set', repaired(UDP4, { 6: 0 }), 'Ok'],

    ['IPv6 payload length 0', patch(UDP6, { 5: 0 }), 'Malformed'],
    ['IPv6 payload length shorter than the packet', patch(UDP6, { 5: 11 }), 'Malformed'],
    ['IPv6 payload length longer than the packet', patch(UDP6, { 5: 13 }), 'Malformed'],
    ['IPv6 payload length 65535', patch(UDP6, { 4: 0xff, 5: 0xff }), 'Malformed'],
    ['IPv6 jumbogram: hop-by-hop options, length 0', jumbogram(), 'Malformed'],

    ['IGMP', repaired(UDP4, { 9: 2 }), 'Ok'],
    ['IPv4 in IPv4', repaired(UDP4, { 9: 4 }), 'Ok'],
    ['IPv6 in IPv4', repaired(UDP4, { 9: 41 }), 'Ok'],
    ['authentication header (AH) over IPv4', repaired(UDP4, { 9: 51 }), 'Ok'],
    ['encapsulated payload (ESP) over IPv6', patch(UDP6, { 6: 50 }), 'Ok'],
    ['no next header', repaired(UDP4, { 9: 59 }), 'Ok'],
    ['no next header over IPv6', patch(UDP6, { 6: 59 }), 'Ok'],
    ['an unknown protocol, of 1 byte', withLength(GRE4.slice(0, 21)), 'Ok'],
    ['an unknown protocol, of no byte', withLength(GRE4.slice(0, 20)), 'Ok'],
    ['DCCP', repaired(UDP4, { 9: 33 }), 'Unsupported'],
    ['DCCP over IPv6', patch(UDP6, { 6: 33 }), 'Unsupported'],
    ['ICMPv6 in IPv4', repaired(ECHO4, { 9: 58, 20: 128 }), 'Unsupported'],
    ['ICMP in IPv6', patch(ECHO6, { 6: 1, 40: 8 }), 'Unsupported'],

    ['TCP data offset 0', patch(TCP4, { 32: 0x00 }), 'Malformed'],
    ['TCP data offset of 4 words', patch(TCP4, { 32: 0x40 }), 'Malformed'],
    ['TCP data offset beyond the segment', patch(TCP4, { 32: 0x70 }), 'Malformed'],
    ['TCP data offset of 15 words', patch(TCP6, { 52: 0xf0 }), 'Malformed'],
    ['TCP data offset up to the last byte', patch(TCP4, { 32: 0x60 }), 'Ok'],
    ['TCP without options, with 4 bytes of data', patch(TCP4, { 32: 0x50 }), 'Ok'],
    ['TCP with all flags (a Christmas tree)', patch(TCP4, { 33: 0xff }), 'Ok'],

    ['UDP length 0', patch(UDP4, { 25: 0 }), 'Malformed'],
    ['UDP length 0 over IPv6', patch(UDP6, { 45: 0 }), 'Malformed'],
    ['UDP length 7', patch(UDP4, { 25: 7 }), 'Malformed'],
    ['UDP length shorter than the payload', patch(UDP4, { 25: 11 }), 'Malformed'],
    ['UDP length longer than the payload', patch(UDP4, { 25: 13 }), 'Malformed'],
    ['UDP length shorter than the payload over IPv6', patch(UDP6, { 45: 11 }), 'Malformed'],

    ['UDP-Lite coverage 0: all', patch(UDPLITE6, { 45: 0 }), 'Ok'],
    ['UDP-Lite coverage 1', patch(UDPLITE6, { 45: 1 }), 'Malformed'],
    ['UDP-Lite coverage 7', patch(UDPLITE6, { 45: 7 }), 'Malformed'],
    ['UDP-Lite coverage up to the last byte', patch(UDPLITE6, { 45: 12 }), 'Ok'],
    ['UDP-Lite coverage beyond the payload', patch(UDPLITE6, { 45: 13 }), 'Malformed'],
    ['UDP-Lite without a checksum', patch(UDPLITE6, { 46: 0, 47: 0 }), 'Malformed'],
    ['UDP-Lite without a checksum over IPv4', repaired(UDP4, { 9: 136 }), 'Malformed'],
  ])('%s', (_fault, packet, outcome) => {
    expect(parse(packet).outcome).toBe(outcome);
  });
});

describe('IPv4 fragments', () => {
  /** A header of 20 bytes with these flags and this offset, and `length` bytes of the datagram. */
  const piece = (packet: Uint8Array, bits: number, length: number): Uint8Array => {
    const bytes = new Uint8Array(20 + length);
    bytes.set(packet.subarray(0, 20 + length));
    bytes.set([bits >>> 8, bits & 255], 6);
    return repaired(bytes, { 2: bytes.length >>> 8, 3: bytes.length & 255 });
  };
  // A UDP header with a length of 64.
  const datagram = patch(UDP4, { 25: 64 });
  const MORE = 0x2000;

  test.each<[name: string, packet: Uint8Array, outcome: keyof typeof Parse]>([
    ['first one', piece(datagram, MORE, 16), 'Ok'],
    ['first one, though not to be fragmented', piece(datagram, MORE | 0x4000, 16), 'Ok'],
    ['later one', piece(datagram, MORE | 2, 16), 'Ok'],
    ['last one of a length that is no multiple of 8', piece(datagram, 4, 13), 'Ok'],
    ['last one of 1 byte', piece(datagram, 4, 1), 'Ok'],
    ['first one of a length that is no multiple of 8', piece(datagram, MORE, 12), 'Malformed'],
    ['later one of a length that is no multiple of 8', piece(datagram, MORE | 2, 7), 'Malformed'],
    ['empty first one', piece(datagram, MORE, 0), 'Malformed'],
    ['empty later one', piece(datagram, MORE | 2, 0), 'Malformed'],
    ['empty last one', piece(datagram, 2, 0), 'Malformed'],
    ['one that ends at byte 65535', piece(datagram, 0x1fff, 7), 'Ok'],
    ['one that ends behind it (ping of death)', piece(datagram, 0x1fff, 8), 'Malformed'],
    ['one that ends far behind it', piece(datagram, MORE | 0x1ffe, 64), 'Malformed'],

    ['first one whose UDP length is more than its payload', piece(UDP4, MORE, 8), 'Ok'],
    ['first one whose UDP length is 8 of 8', piece(patch(UDP4, { 25: 8 }), MORE, 8), 'Malformed'],
    [
      'first one whose UDP length is no more',
      piece(patch(UDP4, { 25: 16 }), MORE, 16),
      'Malformed',
    ],

    ['tiny first one of TCP: 8 bytes (RFC 1858)', piece(TCP4, MORE, 8), 'BadFragment'],
    ['tiny first one of TCP: 16 bytes', piece(TCP4, MORE, 16), 'BadFragment'],
    ['first one of TCP with all options', piece(TCP4, MORE, 24), 'Ok'],
    [
      'first one of TCP without all options (RFC 7112)',
      piece(patch(TCP4, { 32: 0x70 }), MORE, 24),
      'BadFragment',
    ],
    [
      'first one of TCP with a data offset of 4 words',
      piece(patch(TCP4, { 32: 0x40 }), MORE, 24),
      'Malformed',
    ],
    ['later one of TCP at offset 8 (RFC 3128)', piece(TCP4, MORE | 1, 16), 'BadFragment'],
    ['last one of TCP at offset 8', piece(TCP4, 1, 16), 'BadFragment'],
    ['later one of TCP at offset 16', piece(TCP4, MORE | 2, 16), 'Ok'],
    ['later one of UDP at offset 8', piece(datagram, MORE | 1, 16), 'Ok'],

    ['tiny first one of SCTP', piece(SCTP4, MORE, 8), 'BadFragment'],
    ['first one of SCTP', piece(SCTP4, MORE, 16), 'Ok'],
    ['first one of UDP-Lite', piece(patch(datagram, { 9: 136, 27: 1 }), MORE, 16), 'Ok'],
    [
      'first one of UDP-Lite, whose coverage is not checked',
      piece(patch(datagram, { 9: 136, 25: 7, 27: 1 }), MORE, 16),
      'Ok',
    ],
    [
      'first one of UDP-Lite without a checksum',
      piece(patch(datagram, { 9: 136 }), MORE, 16),
      'Malformed',
    ],
    ['first one of an echo', piece(ECHO4, MORE, 16), 'Ok'],
    ['first one of an ICMP error', piece(patch(ECHO4, { 20: 3 }), MORE, 16), 'BadFragment'],
    ['first one of an ICMP redirect', piece(patch(ECHO4, { 20: 5 }), MORE, 16), 'Unsupported'],
    ['first one of GRE', piece(GRE4, MORE, 8), 'Ok'],
    ['first one of DCCP', piece(patch(GRE4, { 9: 33 }), MORE, 16), 'Unsupported'],
    [
      'record route and a length that is no multiple of 8: both of the IPv4 header',
      repaired(withOptions(UDP4, '07 07 04 00 00 00 00 00'), { 6: 0x20 }),
      'Malformed',
    ],
  ])('%s', (_name, packet, outcome) => {
    expect(parse(packet).outcome).toBe(outcome);
  });

  test('have their offset in the datagram', () => {
    const first = parse(piece(datagram, MORE, 16), 3).header;
    expect(first).toMatchObject({
      part: FragmentPart.First,
      kind: PacketKind.Udp,
      destinationPort: 53,
      identification: 0xbeef,
      fragmentOffset: 0,
      fragmentPayload: 23,
      moreFragments: true,
    });
    const later = parse(piece(datagram, 0x1234, 8), 3).header;
    expect(later).toMatchObject({
      part: FragmentPart.Later,
      kind: PacketKind.None,
      protocol: 17,
      transport: 23,
      fragmentOffset: 8 * 0x1234,
      fragmentPayload: 23,
      moreFragments: false,
    });
  });
});

describe('IPv4 options', () => {
  test.each<[name: string, options: string, outcome: keyof typeof Parse]>([
    ['no operation', '01 01 01 01', 'Ok'],
    ['end of the list', '00 00 00 00', 'Ok'],
    ['end of the list, with anything behind it', '01 00 83 00', 'Ok'],
    ['router alert', '94 04 00 00', 'Ok'],
    ['stream identifier behind no operation', '88 04 12 34 01 01 01 00', 'Ok'],
    ['an unknown one', '1e 04 ab cd', 'Ok'],
    ['one that ends with the header', '01 1e 03 ab', 'Ok'],
    ['record route', '07 07 04 00 00 00 00 00', 'Unsupported'],
    ['record route without room', '07 03 04 00', 'Unsupported'],
    ['timestamp', '44 0c 05 01 00 00 00 00 00 00 00 00', 'Unsupported'],
    ['loose source route', '83 07 04 c0 00 02 01 00', 'Unsupported'],
    ['strict source route', '89 07 04 c0 00 02 01 00', 'Unsupported'],
    ['source route behind no operation', '01 83 07 04 c0 00 02 01', 'Unsupported'],
    ['source route behind router alert', '94 04 00 00 83 07 04 c0 00 02 01 00', 'Unsupported'],
    ['length 0', '94 00 00 00', 'Malformed'],
    ['length 1', '94 01 00 00', 'Malformed'],
    ['length one beyond the header', '94 05 00 00', 'Malformed'],
    ['length 255', '94 ff 00 00', 'Malformed'],
    ['type on the last byte, its length outside', '01 01 01 94', 'Malformed'],
    ['source route on the last byte', '01 01 01 83', 'Malformed'],
    ['source route of length 0', '83 00 00 00', 'Malformed'],
    ['source route beyond the header', '83 07 04 c0', 'Malformed'],
  ])('%s', (_name, options, outcome) => {
    expect(parse(withOptions(UDP4, options)).outcome).toBe(outcome);
  });
});

describe('ICMP types', () => {
  const { EchoRequest, EchoReply, IcmpError, None } = PacketKind;

  test.each([
    [
      'ICMP',
      ECHO4,
      20,
      { 8: EchoRequest, 0: EchoReply, 3: IcmpError, 11: IcmpError, 12: IcmpError },
    ],
    [
      'ICMPv6',
      ECHO6,
      40,
      { 128: EchoRequest, 129: EchoReply, 1: IcmpError, 2: IcmpError, 3: IcmpError, 4: IcmpError },
    ],
  ] as const)('%s: echo, the errors, and no others', (_name, packet, typeAt, handled) => {
    const kinds = new Map(Object.entries(handled).map(([type, kind]) => [Number(type), kind]));
    for (let type = 0; type < 256; type++) {
      const { outcome, header } = parse(patch(packet, { [typeAt]: type }));
      const kind = kinds.get(type) ?? None;
      expect([type, outcome]).toEqual([type, kind === None ? 'Unsupported' : 'Ok']);
      if (kind !== None) expect([type, header.kind]).toEqual([type, kind]);
    }
  });
});

describe('quotes', () => {
  test.each(VALID)('$name, truncated anywhere behind 8 bytes of transport header', ({ packet }) => {
    const headerLength = packet[0]! >>> 4 === 4 ? (packet[0]! & 15) * 4 : 40;
    for (let length = 0; length <= packet.length; length++) {
      const outcome = length < headerLength + 8 ? 'Malformed' : 'Ok';
      expect([length, parseQuote(packet.subarray(0, length)).outcome]).toEqual([length, outcome]);
    }
  });

  test.each<[name: string, quote: Uint8Array, outcome: keyof typeof Parse]>([
    ['nothing', hex(), 'Malformed'],
    ['version 5', patch(UDP4, { 0: 0x55 }), 'Malformed'],
    ['IPv4 header length of 4 words', patch(UDP4, { 0: 0x44 }), 'Malformed'],
    ['IPv4 header length beyond the quote', patch(UDP4, { 0: 0x4f }), 'Malformed'],
    ['IPv4 total length shorter than the header', patch(UDP4, { 3: 19 }), 'Malformed'],
    ['IPv4 total length of 7 bytes of transport header', patch(UDP4, { 3: 27 }), 'Malformed'],
    ['IPv4 total length of 8 bytes of transport header', patch(UDP4, { 3: 28 }), 'Ok'],
    ['IPv4 total length 65535', patch(UDP4, { 2: 0xff, 3: 0xff }), 'Ok'],
    ['IPv4 header checksum that a router did not mend', patch(UDP4, { 8: 63 }), 'Ok'],
    ['IPv4 first fragment', patch(UDP4, { 6: 0x20 }), 'Ok'],
    ['IPv4 later fragment', patch(UDP4, { 6: 0x20, 7: 2 }), 'BadFragment'],
    ['IPv4 last fragment', patch(UDP4, { 7: 2 }), 'BadFragment'],
    ['IPv4 source route', withOptions(UDP4, '83 07 04 c0 00 02 01 00'), 'Unsupported'],
    ['IPv4 option beyond the header', withOptions(UDP4, '94 05 00 00'), 'Malformed'],
    ['IPv6 payload length 7', patch(UDP6, { 5: 7 }), 'Malformed'],
    ['IPv6 payload length 65535', patch(UDP6, { 4: 0xff, 5: 0xff }), 'Ok'],
    ['an unknown protocol', patch(UDP4, { 9: 47 }), 'Ok'],
    ['an unknown protocol of 7 bytes', GRE4.subarray(0, 27), 'Malformed'],
    ['SCTP', SCTP4, 'Ok'],
    ['DCCP', patch(UDP4, { 9: 33 }), 'Unsupported'],
    ['ICMPv6 in IPv4', patch(ECHO4, { 9: 58 }), 'Unsupported'],
    ['an ICMP redirect', patch(ECHO4, { 20: 5 }), 'Unsupported'],
    ['UDP length that is not the payload', patch(UDP4, { 25: 200 }), 'Ok'],
    ['TCP data offset 0, which may not have been quoted', patch(TCP4, { 32: 0 }), 'Ok'],
  ])('%s', (_name, quote, outcome) => {
    expect(parseQuote(quote).outcome).toBe(outcome);
  });

  test.each([
    ['UDP over IPv4', UDP4],
    ['UDP over IPv6', UDP6],
  ])('padding and extensions (RFC 4884) behind %s are not part of it', (_name, packet) => {
    const extended = new Uint8Array(160).fill(0x20);
    extended.set(packet);
    const { outcome, header } = parseQuote(extended);
    expect([outcome, header.end]).toEqual(['Ok', packet.length]);
  });

  test('the end of a truncated quote is where it was truncated', () => {
    const { header } = parseQuote(TCP4.subarray(0, 28), 5);
    expect(header).toMatchObject({
      kind: PacketKind.Tcp,
      end: 33,
      checksum: 41,
      payloadLength: 24,
    });
  });
});

describe('where a quote ends (RFC 4884)', () => {
  const endOf = (packet: Uint8Array): readonly number[] => {
    const { header } = parse(packet);
    const view = viewOf(packet);
    return [header.findQuoteEnd(view), header.extensions];
  };
  const error4 = (type: number, length: number): Uint8Array => {
    const packet = Uint8Array.of(...ECHO4, ...new Uint8Array(132));
    return repaired(patch(packet, { 20: type, 25: length }), { 3: packet.length });
  };
  const error6 = (type: number, length: number): Uint8Array => {
    const packet = Uint8Array.of(...ECHO6, ...new Uint8Array(132));
    return patch(packet, { 5: packet.length - 40, 40: type, 44: length });
  };

  test.each<[string, Uint8Array, end: number, extensions: number]>([
    ['ICMP without a length: at the end', error4(3, 0), 160, 0],
    ['ICMP 3 with a length of 32 words', error4(3, 32), 156, 156],
    ['ICMP 11', error4(11, 32), 156, 156],
    ['ICMP 12', error4(12, 32), 156, 156],
    ['a length up to the last byte', error4(3, 33), 160, 160],
    ['a length one word too much', error4(3, 34), -1, 0],
    ['a length of 255', error4(3, 255), -1, 0],
    ['ICMPv6 without a length', error6(1, 0), 180, 0],
    ['ICMPv6 1 with a length of 16 double words', error6(1, 16), 176, 176],
    ['ICMPv6 3', error6(3, 16), 176, 176],
    ['ICMPv6 1 with a length one too much', error6(1, 17), -1, 0],
    ['ICMPv6 2, which has a size there', error6(2, 16), 180, 0],
    ['ICMPv6 4, which has a pointer there', error6(4, 16), 180, 0],
  ])('%s', (_name, packet, end, extensions) => {
    expect(endOf(packet)).toEqual([end, extensions]);
  });
});

describe('a range outside of the buffer', () => {
  test.each([
    ['end one behind the buffer', 0, 33],
    ['start one before the buffer', -1, 31],
    ['start behind the buffer', 40, 72],
    ['end before start', 32, 0],
    ['start that is no number', Number.NaN, 32],
    ['start between two bytes', 0.5, 32.5],
  ])('%s is malformed', (_name, start, end) => {
    expect(new PacketHeader().parse(viewOf(UDP4), start, end)).toBe(Parse.Malformed);
  });

  test('a packet whose length field goes with an end behind the buffer is malformed', () => {
    const longer = repaired(patch(UDP4, { 25: 13 }), { 3: 33 });
    expect(new PacketHeader().parse(viewOf(longer), 0, 33)).toBe(Parse.Malformed);
    const longer6 = patch(UDP6, { 5: 13, 45: 13 });
    expect(new PacketHeader().parse(viewOf(longer6), 0, 53)).toBe(Parse.Malformed);
  });
});

test('random bytes around any mutation of a packet do not change the result', () => {
  const random = new Random(1);
  for (let i = 0; i < 20_000; i++) {
    const packet = random.pick(VALID).packet.slice();
    for (let n = random.between(0, 3); n > 0; n--) {
      packet[random.below(packet.length)] = random.pick([0, 1, 0xff, random.below(256)]);
    }
    if (random.chance(0.7)) repairIpv4Checksum(packet);
    // Both look at the packet with three kinds of surroundings.
    parse(packet, random.below(9));
    parseQuote(packet.subarray(0, random.between(0, packet.length)), random.below(9));
  }
});

interface Parsed {
  readonly outcome: string;
  readonly header: PacketHeader;
}

function parse(packet: Uint8Array, start = 0): Parsed {
  return inSurroundings(packet, start, (header, view, end) => header.parse(view, start, end));
}

function parseQuote(packet: Uint8Array, start = 0): Parsed {
  return inSurroundings(packet, start, (header, view, end) => header.parseQuote(view, start, end));
}

/**
 * Parses with zeros, ones and a plausible packet around, and through a view that throws when a byte
 * outside of the packet is read; all must find the same.
 */
function inSurroundings(
  packet: Uint8Array,
  start: number,
  check: (header: PacketHeader, view: DataView, end: number) => Parse
): Parsed {
  const end = start + packet.length;
  const found = SURROUNDINGS.map((around) => {
    const buffer = Uint8Array.from({ length: end + 64 }, (_, i) => around[i % around.length]!);
    buffer.set(packet, start);
    const header = new PacketHeader();
    const outcome = check(header, new GuardedView(buffer, start, end), end);
    return { outcome: nameOf(outcome), header };
  });
  const [first] = found;
  for (const { outcome, header } of found) {
    expect(outcome).toBe(first!.outcome);
    if (outcome === 'Ok') expect(header).toEqual(first!.header);
  }
  return first!;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function nameOf(outcome: Parse): string {
  return Object.entries(Parse).find(([, number]) => number === outcome)?.[0] ?? String(outcome);
}

function hex(...lines: string[]): Uint8Array {
  return Uint8Array.from(Buffer.from(lines.join('').replaceAll(' ', ''), 'hex'));
}

/** A copy with other bytes at some offsets. */
function patch(packet: Uint8Array, bytes: Record<number, number>): Uint8Array {
  const copy = packet.slice();
  for (const [at, byte] of Object.entries(bytes)) copy[Number(at)] = byte;
  return copy;
}

/** The same with a correct IPv4 header checksum, so that this is not the fault. */
function repaired(packet: Uint8Array, bytes: Record<number, number>): Uint8Array {
  const copy = patch(packet, bytes);
  repairIpv4Checksum(copy);
  return copy;
}

/** A copy whose length fields, UDP's too if it is there, say how long it is. */
function withLength(packet: Uint8Array): Uint8Array {
  const copy = packet.slice();
  const isIpv4 = copy[0]! >>> 4 === 4;
  const transport = isIpv4 ? (copy[0]! & 15) * 4 : 40;
  if (isIpv4) copy[3] = copy.length;
  else copy[5] = copy.length - 40;
  if (copy[isIpv4 ? 9 : 6] === 17 && copy.length >= transport + 6) {
    copy[transport + 5] = copy.length - transport;
  }
  repairIpv4Checksum(copy);
  return copy;
}

function withOptions(packet: Uint8Array, options: string): Uint8Array {
  const bytes = hex(options);
  const copy = Uint8Array.of(...packet.subarray(0, 20), ...bytes, ...packet.subarray(20));
  copy[0] = 0x45 + bytes.length / 4;
  return withLength(copy);
}

function jumbogram(): Uint8Array {
  return patch(UDP6, { 5: 0, 6: 0 }).slice(0, 40);
}

/** Bytes that the header of the packet's protocol takes at least, as it says itself for TCP. */
function transportLength(packet: Uint8Array): number {
  const isIpv4 = packet[0]! >>> 4 === 4;
  const protocol = packet[isIpv4 ? 9 : 6]!;
  if (protocol !== 6) return { 47: 0, 132: 12 }[protocol] ?? 8;
  return (packet[(isIpv4 ? (packet[0]! & 15) * 4 : 40) + 12]! >>> 4) * 4;
}

const SURROUNDINGS = [[0x00], [0xff], [...UDP4]];
