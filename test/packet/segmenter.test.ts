import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PacketSegmenter, SegmentResult } from '../../src/packet/index.ts';
import {
  ACK,
  AUTHENTICATION,
  CWR,
  DESTINATION,
  type Ends,
  echoPacket,
  FIN,
  FRAGMENT,
  HOP_BY_HOP,
  ipPacket,
  PSH,
  ROUTING,
  repairIpv4Checksum,
  SYN,
  tcpPacket,
  UDP,
  udpPacket,
} from '../support/packets.ts';
import type { VnetHeader } from '../support/vnet.ts';
import {
  completed,
  extended,
  fragmentPayload,
  isTransportRight,
  MAY_FRAGMENT,
  naiveSegments,
  partialHeader,
  pieceOf,
  pieces,
  ROUTER_ALERT,
  reassembled,
  split,
  UNCOPIED_OPTION,
} from './pieces.ts';

const ENDS4: Ends = { source: '10.0.0.5', destination: '100.64.0.1' };
const ENDS6: Ends = { source: 'fd00::5', destination: 'fd64::1' };
const PORTS = { sourcePort: 49_152, destinationPort: 5672 };
const TCPV4 = 1;
const TCPV6 = 4;
const UDP_L4 = 5;
const ECN = 0x80;
const RUNS = { numRuns: 300 };

/** Hop-by-hop options, a routing header with no segments left, destination options. */
const EXTENSIONS: readonly (readonly [number, Uint8Array])[] = [
  [HOP_BY_HOP, Uint8Array.of(1, 4, 0, 0, 0, 0)],
  [ROUTING, Uint8Array.of(0, 0, 0, 0, 0, 0)],
  [DESTINATION, Uint8Array.of(1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)],
];

/** Counted in units of four bytes, unlike the others. */
const AUTHENTICATED = [AUTHENTICATION, new Uint8Array(22)] as const;

function payloadOf(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 7 + (i >> 8)) & 255);
}

/** Returns whether these are the same bytes. */
function isSame(packets: readonly Uint8Array[], expected: readonly Uint8Array[]): boolean {
  return Buffer.concat(packets).equals(Buffer.concat(expected));
}

interface SuperPacket {
  readonly packet: Uint8Array;
  readonly gsoSize: number;
  readonly header: VnetHeader;
}

function superTcp(payload: Uint8Array, gsoSize: number, flags = ACK, ends = ENDS4): SuperPacket {
  const packet = tcpPacket(ends, { ...PORTS, payload, flags, checksum: 'partial' });
  const gsoType = ends === ENDS4 ? TCPV4 : TCPV6;
  return { packet, gsoSize, header: partialHeader(packet, { gsoType, gsoSize }) };
}

function superUdp(payload: Uint8Array, gsoSize: number, ends = ENDS4): SuperPacket {
  const packet = udpPacket(ends, { ...PORTS, payload, checksum: 'partial' });
  return { packet, gsoSize, header: partialHeader(packet, { gsoType: UDP_L4, gsoSize }) };
}

const payloads = (maxLength: number): fc.Arbitrary<Uint8Array> =>
  fc.uint8Array({ maxLength, size: 'max' });

const superPackets: fc.Arbitrary<SuperPacket> = fc
  .record({
    isIpv6: fc.boolean(),
    isTcp: fc.boolean(),
    payload: payloads(1600),
    // from 128 segments on
    gsoSize: fc.oneof(fc.integer({ min: 13, max: 64 }), fc.integer({ min: 65, max: 3200 })),
    flags: fc.integer({ min: 0, max: 255 }).map((bits) => bits & ~SYN),
    options: fc.uint8Array({ maxLength: 40 }),
    identification: fc.constantFrom(0, 0xbeef, 0xfffe),
    hasExtensions: fc.boolean(),
    ecn: fc.constantFrom(0, ECN),
  })
  .map((c) => {
    const segment = {
      ...PORTS,
      payload: c.payload,
      flags: c.flags,
      tcpOptions: c.options,
      identification: c.identification,
      checksum: 'partial' as const,
      ...(c.hasExtensions && { options: ROUTER_ALERT }),
    };
    let packet = (c.isTcp ? tcpPacket : udpPacket)(c.isIpv6 ? ENDS6 : ENDS4, segment);
    if (c.isIpv6 && c.hasExtensions) packet = extended(packet, [...EXTENSIONS, AUTHENTICATED]);
    const gsoType = c.isTcp ? (c.isIpv6 ? TCPV6 : TCPV4) | c.ecn : UDP_L4;
    const header = partialHeader(packet, { gsoType, gsoSize: c.gsoSize });
    return { packet, gsoSize: c.gsoSize, header };
  });

describe('super-packets', () => {
  test('become the segments that a sender would make one by one', () => {
    fc.assert(
      fc.property(superPackets, ({ packet, gsoSize, header }) => {
        const segments = pieces(packet, 65_535, header);
        expect(isSame(segments, naiveSegments(packet, gsoSize))).toBe(true);
        expect(segments.every(isTransportRight)).toBe(true);
      }),
      RUNS
    );
  });

  test('of 64 KiB become the same segments', () => {
    for (const gsoSize of [216, 1448, 1449, 32_767]) {
      const { packet, header } = superTcp(payloadOf(65_495).fill(0xff, 0, 40_000), gsoSize);
      expect(packet.length).toBe(65_535);
      const segments = pieces(packet, 65_535, header);
      expect(isSame(segments, naiveSegments(packet, gsoSize))).toBe(true);
      expect(segments.length).toBe(Math.ceil(65_495 / gsoSize));
    }
  });

  test('make up to 128 short segments, and more if these are of TCP and not short', () => {
    for (const [make, gsoSize, most] of [
      [superTcp, 1, 128],
      [superTcp, 215, 128],
      [superUdp, 1, 128],
      [superUdp, 48, 128],
      [superUdp, 400, 128],
    ] as const) {
      const { packet, header } = make(payloadOf(most * gsoSize), gsoSize);
      expect(isSame(pieces(packet, 1500, header), naiveSegments(packet, gsoSize))).toBe(true);
      const more = make(payloadOf(most * gsoSize + 1), gsoSize);
      expect(split(more.packet, 1500, more.header)).toEqual({
        outcome: SegmentResult.TooMany,
        packets: [],
      });
    }
    const { packet, header } = superTcp(payloadOf(65_495), 216);
    expect(pieces(packet, 1500, header)).toHaveLength(304);
  });

  test('of TCP have FIN and PSH in the last segment and CWR in the first', () => {
    const { packet, header } = superTcp(payloadOf(2500), 1000, ACK | FIN | PSH | CWR);
    const flags = pieces(packet, 1500, { ...header, gsoType: TCPV4 | ECN }).map((s) => s[33]);
    expect(flags).toEqual([ACK | CWR, ACK, ACK | FIN | PSH]);
  });

  test('of TCP with one segment keep all flags', () => {
    const { packet, header } = superTcp(payloadOf(1000), 1000, ACK | FIN | PSH | CWR);
    expect(pieces(packet, 1500, header).map((s) => s[33])).toEqual([ACK | FIN | PSH | CWR]);
  });

  test('of TCP without data are one segment', () => {
    const { packet, header } = superTcp(new Uint8Array(0), 1000, ACK | FIN);
    expect(pieces(packet, 40, header)).toEqual([completed(packet)]);
  });

  test('wrap the sequence number and the identification around', () => {
    const { packet, header } = superTcp(payloadOf(30), 10);
    packet.set([0xff, 0xff], 4);
    repairIpv4Checksum(packet);
    packet.set([0xff, 0xff, 0xff, 0xf6], 24);
    const segments = pieces(packet, 1500, header);
    expect(segments.map((s) => pieceOf(s).identification)).toEqual([0xffff, 0, 1]);
    expect(segments.map((s) => Buffer.from(s).readUInt32BE(24))).toEqual([0xffff_fff6, 0, 10]);
  });

  test('send a UDP checksum of zero as 0xffff (RFC 768)', () => {
    for (const ends of [ENDS4, ENDS6]) {
      const { packet, header } = superUdp(new Uint8Array(8), 4, ends);
      const [first] = naiveSegments(packet, 4);
      // a payload equal to the checksum makes the checksum 0
      const at = packet.length - 8;
      const checksum = first!.subarray(-6, -4);
      packet.set(checksum, at);
      const field = pieces(packet, 1500, header)[0]!.subarray(-6, -4);
      expect([...field]).toEqual([0xff, 0xff]);
    }
  });

  test('make segments as large as the size, and no larger', () => {
    const { packet, header } = superTcp(payloadOf(5000), 1460);
    expect(split(packet, 1500, header).outcome).toBe(SegmentResult.Ready);
    expect(split(packet, 1499, header)).toEqual({ outcome: SegmentResult.TooBig, packets: [] });
  });
});

describe('partial checksums', () => {
  test('are completed in a packet that fits', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(ENDS4, ENDS6),
        payloads(200),
        fc.nat(2),
        (ends, payload, kind) => {
          const build = [tcpPacket, udpPacket, echoPacket][ends === ENDS4 ? kind % 2 : kind]!;
          const packet = build(ends, { ...PORTS, payload, checksum: 'partial' });
          const whole = pieces(packet, 1500, partialHeader(packet));
          expect(isSame(whole, [completed(packet)])).toBe(true);
        }
      ),
      RUNS
    );
  });

  test('are completed before the packet is fragmented', () => {
    const payload = payloadOf(3000);
    const packet = tcpPacket(ENDS4, { ...PORTS, payload, checksum: 'partial', ...MAY_FRAGMENT });
    // with pieces of 8 bytes the checksum is in the third one
    for (const size of [28, 44, 576, 1500]) {
      const fragments = pieces(packet, size, partialHeader(packet));
      expect(reassembled(fragments)).toEqual(Buffer.from(pieceOf(completed(packet)).payload));
    }
  });

  test('are ignored if the virtio-net header has none', () => {
    const packet = udpPacket(ENDS4, { ...PORTS, payload: payloadOf(9), checksum: 0x1234 });
    expect(pieces(packet, 1500)).toEqual([packet]);
    expect(pieces(packet, packet.length, { flags: 2, gsoType: ECN })).toEqual([packet]);
  });
});

const optionLists = fc.array(fc.constantFrom(ROUTER_ALERT, UNCOPIED_OPTION, Uint8Array.of(1)), {
  maxLength: 6,
});

describe('IPv4 fragments', () => {
  test('reassemble to the packet', () => {
    const sizes = fc.integer({ min: 68, max: 700 });
    fc.assert(
      fc.property(payloads(3000), optionLists, sizes, (payload, options, size) => {
        const packet = ipPacket(ENDS4, UDP, payload, {
          options: Buffer.concat(options),
          ...MAY_FRAGMENT,
        });
        const fragments = pieces(packet, size);
        expect(isSame([reassembled(fragments)], [payload])).toBe(true);
        expect(pieceOf(fragments.at(-1)!).moreFragments).toBe(false);
        const room = Math.floor((size - (packet[0]! & 15) * 4) / 8) * 8;
        const isFragmented = packet.length > size;
        expect(fragments.length).toBe(isFragmented ? Math.ceil(payload.length / room) : 1);
      }),
      RUNS
    );
  });

  test('still reassemble to the packet after a second fragmentation', () => {
    const size = fc.integer({ min: 68, max: 400 });
    fc.assert(
      fc.property(payloads(2000), size, size, (payload, first, second) => {
        const packet = ipPacket(ENDS4, UDP, payload, { options: ROUTER_ALERT, ...MAY_FRAGMENT });
        const fragments = pieces(packet, first).flatMap((fragment) => pieces(fragment, second));
        expect(isSame([reassembled(fragments)], [payload])).toBe(true);
        expect(pieceOf(fragments.at(-1)!).moreFragments).toBe(false);
      }),
      RUNS
    );
  });

  test('all have the copied options; only the first has the others', () => {
    const options = Buffer.concat([UNCOPIED_OPTION, Uint8Array.of(1, 1), ROUTER_ALERT]);
    const packet = ipPacket(ENDS4, UDP, payloadOf(100), { options, ...MAY_FRAGMENT });
    const headers = pieces(packet, 72).map((fragment) => pieceOf(fragment).headers.subarray(20));
    const blanked = Uint8Array.of(1, 1, 1, 1, 1, 1, 1, 1, ...ROUTER_ALERT);
    expect(headers).toEqual([new Uint8Array(options), blanked, blanked]);
  });

  test('keep the bytes behind the end of the options', () => {
    const options = Uint8Array.of(...UNCOPIED_OPTION, 0, 10);
    const packet = ipPacket(ENDS4, UDP, payloadOf(60), { options, ...MAY_FRAGMENT });
    const [, last] = pieces(packet, 68);
    expect([...pieceOf(last!).headers.subarray(20)]).toEqual([1, 1, 1, 1, 1, 1, 0, 10]);
  });

  test('are not made from a packet with DF', () => {
    const packet = udpPacket(ENDS4, { ...PORTS, payload: payloadOf(100) });
    expect(split(packet, 127)).toEqual({ outcome: SegmentResult.TooBig, packets: [] });
    expect(pieces(packet, 128)).toEqual([packet]);
  });

  test('need room for eight bytes', () => {
    const packet = udpPacket(ENDS4, { ...PORTS, payload: payloadOf(100), ...MAY_FRAGMENT });
    expect(split(packet, 27).outcome).toBe(SegmentResult.TooBig);
    expect(split(packet, 0).outcome).toBe(SegmentResult.TooBig);
    expect(pieces(packet, 28)).toHaveLength(14);
  });
});

describe('IPv6 fragments', () => {
  const extensions = fc
    .shuffledSubarray([...EXTENSIONS.keys()])
    .map((some) => [...some].sort().map((i) => EXTENSIONS[i]!));

  test('reassemble to the packet', () => {
    const sizes = fc.integer({ min: 180, max: 1300 });
    fc.assert(
      fc.property(payloads(3000), extensions, sizes, (payload, chain, size) => {
        const packet = extended(udpPacket(ENDS6, { ...PORTS, payload }), chain);
        const fragments = pieces(packet, size);
        if (packet.length <= size) {
          expect(isSame(fragments, [packet])).toBe(true);
          return;
        }
        const perFragment = packet.length - reassembled(fragments).length;
        expect(isSame([reassembled(fragments)], [packet.subarray(perFragment)])).toBe(true);
        expect(pieceOf(fragments[0]!).identification).toBe(1);
        expect(fragments.map((f) => pieceOf(f).protocol)[0]).toBe(UDP);
      }),
      RUNS
    );
  });

  test('have the extension headers for routers in front of the fragment header', () => {
    const packet = extended(udpPacket(ENDS6, { ...PORTS, payload: payloadOf(300) }), EXTENSIONS);
    for (const fragment of pieces(packet, 200)) {
      expect(fragment[6]).toBe(HOP_BY_HOP);
      expect(fragment[40]).toBe(ROUTING);
      expect(fragment[48]).toBe(FRAGMENT);
      expect(fragment[56]).toBe(DESTINATION);
    }
  });

  test('keep their identification after a second fragmentation', () => {
    const size = fc.integer({ min: 120, max: 400 });
    fc.assert(
      fc.property(payloads(1500), size, size, (payload, first, second) => {
        const packet = udpPacket(ENDS6, { ...PORTS, payload });
        if (packet.length <= first) return;
        const segmenter = new PacketSegmenter(7);
        const once = pieces(packet, first, {}, segmenter);
        const twice = once.flatMap((fragment) => pieces(fragment, second, {}, segmenter));
        expect(isSame([reassembled(twice)], [packet.subarray(40)])).toBe(true);
        expect(pieceOf(twice.at(-1)!)).toMatchObject({ identification: 7, moreFragments: false });
      }),
      RUNS
    );
  });

  test('have only one fragment header if the packet already had one', () => {
    const atomic = Uint8Array.of(0, 0, 0xde, 0xad, 0xbe, 0xef);
    const packet = extended(udpPacket(ENDS6, { ...PORTS, payload: payloadOf(300) }), [
      [FRAGMENT, atomic],
    ]);
    const fragments = pieces(packet, 200);
    expect(reassembled(fragments)).toEqual(Buffer.from(fragmentPayload(packet)));
    expect(pieceOf(fragments[0]!).identification).toBe(0xdead_beef);
  });

  test('are made from a later fragment, whatever bytes it begins with', () => {
    const later = [FRAGMENT, Uint8Array.of(0x01, 0x00, 0, 0, 0, 9)] as const;
    const packet = extended(ipPacket(ENDS6, DESTINATION, payloadOf(300).fill(0xff)), [later]);
    expect(reassembled(pieces(packet, 200), 0x100)).toHaveLength(300);
  });

  test('get an identification for each packet, which wraps around', () => {
    const segmenter = new PacketSegmenter(0xffff_ffff);
    const packet = udpPacket(ENDS6, { ...PORTS, payload: payloadOf(300) });
    const numbers = [1, 2].map(
      () => pieceOf(pieces(packet, 200, {}, segmenter)[0]!).identification
    );
    expect(numbers).toEqual([0xffff_ffff, 0]);
  });

  test('are not made if the first could not contain all headers (RFC 7112)', () => {
    const long = [DESTINATION, new Uint8Array(254)] as const; // 256 bytes
    const packet = extended(udpPacket(ENDS6, { ...PORTS, payload: payloadOf(300) }), [long]);
    expect(split(packet, 300).outcome).toBe(SegmentResult.TooBig);
    expect(pieces(packet, 376)).toHaveLength(2);
  });
});
