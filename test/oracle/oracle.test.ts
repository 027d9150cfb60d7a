/**
 * The oracle against cases worked out by hand, which find a mistake that both it and the translator make.
 */
import { describe, expect, test } from 'vitest';
import {
  ACK,
  echoPacket,
  icmpError,
  icmpMessage,
  ipPacket,
  SYN,
  sctpPacket,
  TCP,
  tcpPacket,
  udpPacket,
} from '../support/packets.ts';
import type { TextPlan } from '../support/text-of.ts';
import { framed, VNET } from '../support/vnet.ts';
import { fragmentPacket } from './fragment-packet.ts';
import { type NaiveResult, NaiveTranslator } from './translate.ts';
import { verifyChecksums } from './verify.ts';

/** A client with both versions in the office, services of either version in the cloud. */
const PLAN: TextPlan = {
  realms: [
    {
      name: 'office',
      sources: ['10.0.0.0/24', 'fd00::/64'],
      pools: ['100.64.0.0/24', 'fd64::/64'],
      reject: 'reset',
      mtu: 1500,
    },
    { name: 'cloud', sources: ['10.0.0.0/24', 'fd00::/64'], mtu: 1400 },
  ],
  presences: [
    { realm: 'office', address: '100.64.0.4', of: { realm: 'cloud', address: '10.0.0.4' } },
    { realm: 'office', address: '100.64.0.6', of: { realm: 'cloud', address: 'fd00::6' } },
    { realm: 'office', address: 'fd64::6', of: { realm: 'cloud', address: 'fd00::6' } },
    { realm: 'office', address: 'fd64::4', of: { realm: 'cloud', address: '10.0.0.4' } },
    { realm: 'cloud', address: '100.64.1.1', of: { realm: 'office', address: '10.0.0.1' } },
    { realm: 'cloud', address: 'fd64:1::1', of: { realm: 'office', address: '10.0.0.1' } },
    { realm: 'cloud', address: '100.64.1.2', of: { realm: 'office', address: 'fd00::1' } },
    { realm: 'cloud', address: 'fd64:1::2', of: { realm: 'office', address: 'fd00::1' } },
  ],
  permits: ['10.0.0.4', 'fd00::6'].map((address) => ({
    realm: 'office',
    service: { realm: 'cloud', address },
    ports: ['tcp/80', 'udp/53', 'icmp', 'sctp/9', 'ip/47'],
  })),
};

const TO_4 = { source: '10.0.0.1', destination: '100.64.0.4' };
const TO_6 = { source: '10.0.0.1', destination: '100.64.0.6' };
const FROM_4 = { source: '10.0.0.4', destination: '100.64.1.1' };
const FROM_6 = { source: 'fd00::6', destination: 'fd64:1::1' };
const QUESTION = { sourcePort: 1024, destinationPort: 53 };
const ANSWER = { sourcePort: 53, destinationPort: 1024 };

function send(translator: NaiveTranslator, realm: string, packet: Uint8Array): NaiveResult {
  return translator.translate(realm, framed(packet));
}

function leaving(result: NaiveResult): Uint8Array {
  expect(result.verdict).toBe('Forward');
  expect(verifyChecksums(result.frame!)).toEqual([]);
  return result.frame!.subarray(VNET);
}

function uint16(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!;
}

describe('IPv4 and IPv6', () => {
  test('an IPv4 header becomes an IPv6 one without options', () => {
    const options = Uint8Array.of(0x94, 4, 0, 0);
    const packet = udpPacket(TO_6, { ...QUESTION, options, trafficClass: 0xb8, hopLimit: 9 });
    const leaves = leaving(send(new NaiveTranslator(PLAN), 'office', packet));
    // Version 6 and class b8, no flow label; 8 bytes of UDP; hop limit 9.
    expect([...leaves.subarray(0, 8)]).toEqual([0x6b, 0x80, 0, 0, 0, 8, 17, 9]);
    expect(leaves.length).toBe(48);
  });

  test('an IPv6 packet of 1260 bytes as IPv4 has no DF and an identification, a larger one has DF', () => {
    const translator = new NaiveTranslator(PLAN);
    const numberOf = (length: number): number[] => {
      const payload = new Uint8Array(length - 28);
      const ends = { source: 'fd00::1', destination: 'fd64::4' };
      const packet = udpPacket(ends, { ...QUESTION, payload });
      const leaves = leaving(send(translator, 'office', packet));
      expect(leaves.length).toBe(length);
      return [uint16(leaves, 4), uint16(leaves, 6)];
    };
    expect([1260, 1261, 100].map(numberOf)).toEqual([
      [0, 0],
      [0, 0x4000],
      [1, 0],
    ]);
  });

  test('a UDP datagram without checksum gets one, and wrong ones stay wrong', () => {
    const none = udpPacket(TO_6, { ...QUESTION, checksum: 'none' });
    leaving(send(new NaiveTranslator(PLAN), 'office', none));
    const wrong = udpPacket(TO_6, { ...QUESTION, checksum: 0x1234 });
    const result = send(new NaiveTranslator(PLAN), 'office', wrong);
    expect(verifyChecksums(result.frame!)).toEqual(['udp']);
  });

  test('SCTP keeps its checksum, an echo changes its type', () => {
    const translator = new NaiveTranslator(PLAN);
    const sctp = sctpPacket(TO_6, { sourcePort: 1, destinationPort: 9, payload: Uint8Array.of(1) });
    expect(leaving(send(translator, 'office', sctp)).subarray(40)).toEqual(sctp.subarray(20));
    expect(leaving(send(translator, 'office', echoPacket(TO_6, {})))[40]).toBe(128);
  });

  test.each([
    // type, code and second word over IPv6, and over IPv4 (RFC 7915 section 5.2)
    [1, 0, 0, 3, 1, 0],
    [1, 1, 0, 3, 10, 0],
    [1, 4, 0, 3, 3, 0],
    [1, 5, 0],
    [2, 0, 1280, 3, 4, 1260],
    [2, 0, 60, 3, 4, 68],
    [2, 0, 0xffffffff, 3, 4, 65535],
    [3, 1, 0, 11, 1, 0],
    [4, 0, 6, 12, 0, 0x09000000],
    [4, 0, 23, 12, 0, 0x0c000000],
    [4, 0, 24, 12, 0, 0x10000000],
    [4, 0, 2],
    [4, 0, 256 + 6],
    [4, 1, 6, 3, 2, 0],
    [4, 2, 0],
  ])('ICMPv6 %i/%i with %i', (type, code, rest, ...expected) => {
    const quoted = udpPacket({ source: 'fd64:1::1', destination: 'fd00::6' }, QUESTION);
    const packet = icmpError(FROM_6, { type, code, rest, quoted });
    const result = send(new NaiveTranslator(PLAN), 'cloud', packet);
    if (expected.length === 0) return expect(result.verdict).toBe('DropUnsupported');
    const leaves = leaving(result);
    const word = uint16(leaves, 24) * 0x10000 + uint16(leaves, 26);
    expect([leaves[20], leaves[21], word]).toEqual(expected);
    // It quotes the packet as the client sent it.
    expect([leaves[28], leaves[37], uint16(leaves, 30)]).toEqual([0x45, 17, 28]);
    expect([...leaves.subarray(40, 48)]).toEqual([10, 0, 0, 1, 100, 64, 0, 6]);
    return expect(leaves.length).toBe(28 + 28);
  });

  test.each([
    // type, code and second word over IPv4, and over IPv6 (RFC 7915 section 4.2)
    [3, 1, 0, 1, 0, 0],
    [3, 2, 0, 4, 1, 6],
    [3, 3, 0, 1, 4, 0],
    [3, 13, 0, 1, 1, 0],
    [3, 14, 0],
    [3, 4, 1400, 2, 0, 1420],
    [3, 4, 576, 2, 0, 1280],
    [3, 4, 0, 2, 0, 1492],
    [11, 0, 0, 3, 0, 0],
    [12, 0, 0x09000000, 4, 0, 6],
    [12, 0, 0x0c000000, 4, 0, 8],
    [12, 0, 0x0a000000],
    [12, 2, 0x02000000, 4, 0, 4],
    [12, 1, 0],
  ])('ICMP %i/%i with %i', (type, code, rest, ...expected) => {
    const quotedEnds = { source: '100.64.1.2', destination: '10.0.0.4' };
    const quoted = udpPacket(quotedEnds, { ...QUESTION, payload: new Uint8Array(1472) });
    const ends = { source: '10.0.0.9', destination: '100.64.1.2' };
    const packet = icmpError(ends, { type, code, rest, quoted, quoteLength: 28 });
    const result = send(new NaiveTranslator(PLAN), 'cloud', packet);
    if (expected.length === 0) return expect(result.verdict).toBe('DropUnsupported');
    const leaves = leaving(result);
    const word = uint16(leaves, 44) * 0x10000 + uint16(leaves, 46);
    expect([leaves[40], leaves[41], word]).toEqual(expected);
    expect([leaves[48], leaves[54], uint16(leaves, 52)]).toEqual([0x60, 17, 1480]);
    return expect(leaves.length).toBe(48 + 48);
  });

  test('extensions follow the quote, padded to 128 bytes', () => {
    const quoted = udpPacket({ source: 'fd64:1::1', destination: 'fd00::6' }, QUESTION);
    const icmpExtensions = Uint8Array.of(0x20, 0, 0xdf, 0xff);
    const packet = icmpError(FROM_6, { type: 1, code: 4, quoted, icmpExtensions });
    const leaves = leaving(send(new NaiveTranslator(PLAN), 'cloud', packet));
    expect(leaves.length).toBe(28 + 128 + 4);
    expect(leaves[25]).toBe(128 / 4);
    expect(leaves.subarray(-4)).toEqual(icmpExtensions);
  });
});

describe('size', () => {
  test('an MSS that is too large for both realms is lowered', () => {
    const mssOf = (ends: typeof TO_4, mss: number): number => {
      const tcpOptions = Uint8Array.of(1, 1, 2, 4, mss >> 8, mss & 255);
      const packet = tcpPacket(ends, {
        sourcePort: 1,
        destinationPort: 80,
        flags: SYN,
        tcpOptions,
      });
      const leaves = leaving(send(new NaiveTranslator(PLAN), 'office', packet));
      return uint16(leaves, leaves.length - 4);
    };
    expect([9000, 1361, 1360, 536].map((mss) => mssOf(TO_4, mss))).toEqual([1360, 1360, 1360, 536]);
    expect(mssOf(TO_6, 1460)).toBe(1340);
  });

  test('a large packet is fragmented, or refused with an answer', () => {
    const payload = new Uint8Array(1372);
    const sent = (ends: typeof TO_4, fragment: number): NaiveResult =>
      send(
        new NaiveTranslator(PLAN),
        'office',
        udpPacket(ends, { ...QUESTION, payload, fragment })
      );
    expect(sent(TO_4, 0).segmentTo).toBe(0);
    expect(sent(TO_6, 0).segmentTo).toBe(1400);
    expect(sent(TO_4, 0x4000).verdict).toBe('Forward');
    const { verdict, reply } = sent(TO_6, 0x4000);
    expect(verdict).toBe('DropTooBig');
    expect(verifyChecksums(reply!)).toEqual([]);
    expect(reply!.length).toBe(VNET + 576);
    expect([...reply!.subarray(VNET + 12, VNET + 22)]).toEqual([100, 64, 0, 6, 10, 0, 0, 1, 3, 4]);
    expect(uint16(reply!, VNET + 26)).toBe(1380);
  });
});

test('a refused TCP segment is reset where its sender expects it (RFC 9293 section 3.5.2)', () => {
  const resetOf = (flags: number): number[] => {
    const packet = tcpPacket(TO_4, { sourcePort: 5, destinationPort: 81, flags });
    const { verdict, reply } = send(new NaiveTranslator(PLAN), 'office', packet);
    expect(verdict).toBe('DropNotPermitted');
    expect(verifyChecksums(reply!)).toEqual([]);
    const segment = reply!.subarray(VNET + 20);
    return [0, 2, 4, 6, 8, 10, 12].map((at) => uint16(segment, at));
  };
  expect(resetOf(SYN)).toEqual([81, 5, 0, 0, 0x0102, 0x0305, 0x5014]);
  expect(resetOf(ACK)).toEqual([81, 5, 0xfffe, 0xfdfc, 0, 0, 0x5004]);
});

describe('sessions', () => {
  test('a UDP reply passes for 300 s after the last request', () => {
    const translator = new NaiveTranslator(PLAN);
    const reply = (): string => send(translator, 'cloud', udpPacket(FROM_4, ANSWER)).verdict;
    expect(reply()).toBe('DropNoSession');
    send(translator, 'office', udpPacket(TO_4, QUESTION));
    translator.advance(299_000);
    expect(reply()).toBe('Forward');
    translator.advance(300_001);
    expect(reply()).toBe('DropNoSession');
  });

  test('an echo reply passes for 60 s, with the identifier of the request', () => {
    const translator = new NaiveTranslator(PLAN);
    send(translator, 'office', echoPacket(TO_6, { id: 7 }));
    const reply = (id: number): string =>
      send(translator, 'cloud', echoPacket(FROM_6, { id, reply: true })).verdict;
    expect([reply(7), reply(8)]).toEqual(['Forward', 'DropNoSession']);
    translator.advance(60_001);
    expect(reply(7)).toBe('DropNoSession');
  });

  test('sessions end with their path', () => {
    const translator = new NaiveTranslator(PLAN);
    send(translator, 'office', udpPacket(TO_4, QUESTION));
    translator.load({ ...PLAN, permits: [...PLAN.permits] });
    expect(send(translator, 'cloud', udpPacket(FROM_4, ANSWER)).verdict).toBe('Forward');
    translator.load({ ...PLAN, presences: PLAN.presences.slice(1) });
    translator.load(PLAN);
    expect(send(translator, 'cloud', udpPacket(FROM_4, ANSWER)).verdict).toBe('DropNoSession');
  });
});

describe('fragments', () => {
  const datagram = udpPacket(TO_4, { ...QUESTION, payload: new Uint8Array(92), fragment: 0 });
  const [first, second, third] = fragmentPacket(datagram, [24, 56], 77) as [
    Uint8Array,
    Uint8Array,
    Uint8Array,
  ];
  const verdicts = (translator: NaiveTranslator, ...packets: Uint8Array[]): string[] =>
    packets.map((packet) => send(translator, 'office', packet).verdict);

  test('later ones pass after the first, in any order, until all have arrived', () => {
    const translator = new NaiveTranslator(PLAN);
    expect(verdicts(translator, second, first, third, third, second, second)).toEqual([
      'DropFragmentOrphan',
      'Forward',
      'Forward',
      'DropFragment',
      'Forward',
      'DropFragmentOrphan',
    ]);
  });

  test('one that overlaps blocks the datagram until its timeout', () => {
    const translator = new NaiveTranslator(PLAN);
    const [, overlap] = fragmentPacket(datagram, [16, 48], 77);
    expect(verdicts(translator, first, overlap!, third, first)).toEqual([
      'Forward',
      'DropFragment',
      'DropFragment',
      'DropFragment',
    ]);
    translator.advance(15_001);
    expect(verdicts(translator, second, first, second)).toEqual([
      'DropFragmentOrphan',
      'Forward',
      'Forward',
    ]);
  });

  test('a first one without the complete transport header is dropped (RFC 1858)', () => {
    const segment = tcpPacket(TO_4, { sourcePort: 1, destinationPort: 80, fragment: 0 });
    const tiny = fragmentPacket(segment, [8], 1);
    expect(verdicts(new NaiveTranslator(PLAN), ...tiny)).toEqual(['DropFragment', 'DropFragment']);
  });

  test('over IPv6 they get a fragment header', () => {
    const ends = { ...TO_4, destination: '100.64.0.6' };
    const whole = ipPacket(ends, 47, new Uint8Array(32).fill(1), { fragment: 0 });
    const translator = new NaiveTranslator(PLAN);
    const leave = fragmentPacket(whole, [16], 0x8123).map((packet) =>
      leaving(send(translator, 'office', packet))
    );
    expect(leave.map((packet) => [...packet.subarray(40, 48)])).toEqual([
      [47, 0, 0, 1, 0, 0, 0x81, 0x23],
      [47, 0, 0, 16, 0, 0, 0x81, 0x23],
    ]);
    expect(leave.map((packet) => packet.length)).toEqual([64, 64]);
  });
});

test('an unknown ICMP type and a truncated TCP segment are dropped', () => {
  const translator = new NaiveTranslator(PLAN);
  expect(send(translator, 'office', icmpMessage(TO_4, { type: 13 })).verdict).toBe(
    'DropUnsupported'
  );
  expect(send(translator, 'office', ipPacket(TO_4, TCP, new Uint8Array(19))).verdict).toBe(
    'DropMalformed'
  );
});
