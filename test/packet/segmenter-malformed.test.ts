import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PacketSegmenter, SegmentResult } from '../../src/packet/index.ts';
import {
  AUTHENTICATION,
  DESTINATION,
  type Ends,
  FRAGMENT,
  HOP_BY_HOP,
  repairIpv4Checksum,
  SYN,
  tcpPacket,
  udpPacket,
} from '../support/packets.ts';
import { framed, type VnetHeader } from '../support/vnet.ts';
import {
  extended,
  MAY_FRAGMENT,
  partialHeader,
  ROUTER_ALERT,
  split,
  UNCOPIED_OPTION,
} from './pieces.ts';

const ENDS4: Ends = { source: '10.0.0.5', destination: '100.64.0.1' };
const ENDS6: Ends = { source: 'fd00::5', destination: 'fd64::1' };
const PORTS = { sourcePort: 49_152, destinationPort: 5672 };
const PAYLOAD: Uint8Array = new Uint8Array(1000).fill(0x5a);
const SEGMENT = { ...PORTS, payload: PAYLOAD, checksum: 'partial' } as const;

const TCP4 = tcpPacket(ENDS4, SEGMENT);
const TCP6 = tcpPacket(ENDS6, SEGMENT);
const UDP4 = udpPacket(ENDS4, { ...SEGMENT, ...MAY_FRAGMENT });
const ODD = udpPacket(ENDS4, { ...SEGMENT, payload: PAYLOAD.subarray(1) });
const UDP6 = udpPacket(ENDS6, SEGMENT);
const BARE6 = patched(extended(UDP6.subarray(0, 40), []), 6, DESTINATION);
const EMPTY4 = tcpPacket(ENDS4, { ...PORTS, checksum: 'partial' });
const TSO: VnetHeader = { gsoType: 1, gsoSize: 100 };
const SUPER_TCP4 = partialHeader(TCP4, { gsoType: 1, gsoSize: 100 });
const SUPER_TCP6 = partialHeader(TCP6, { gsoType: 4, gsoSize: 100 });
const SUPER_UDP4 = partialHeader(UDP4, { gsoType: 5, gsoSize: 100 });

/** The packet with other bytes at an offset, and a correct IPv4 header checksum. */
function patched(packet: Uint8Array, at: number, ...bytes: number[]): Uint8Array {
  const copy = packet.slice();
  copy.set(bytes, at);
  repairIpv4Checksum(copy);
  return copy;
}

function withOptions(options: Uint8Array): Uint8Array {
  return udpPacket(ENDS4, { ...PORTS, payload: PAYLOAD, options, ...MAY_FRAGMENT });
}

const MALFORMED: readonly (readonly [string, Uint8Array, VnetHeader])[] = [
  ['no bytes', new Uint8Array(0), {}],
  ['half an IPv4 header', UDP4.subarray(0, 19), {}],
  ['half an IPv6 header', UDP6.subarray(0, 39), {}],
  ['version 5', patched(UDP4, 0, 0x55), {}],
  ['an IPv4 header of four words', patched(UDP4, 0, 0x44), {}],
  ['an IPv4 header longer than the packet', patched(UDP4, 0, 0x4f).subarray(0, 40), {}],
  ['an IPv4 length of fewer bytes', patched(UDP4, 2, 4, 3), {}],
  ['an IPv4 length of more bytes', patched(UDP4, 2, 4, 5), {}],
  ['an IPv6 length of fewer bytes', patched(UDP6, 4, 3, 239), {}],
  ['an IPv6 length of more bytes', patched(UDP6, 4, 3, 241), {}],
  ['a wrong IPv4 header checksum', Uint8Array.from(UDP4, (b, i) => (i === 8 ? b - 1 : b)), {}],
  ['an option that runs over its end', withOptions(Uint8Array.of(7, 5, 1, 1)), {}],
  ['an option of length 0', withOptions(Uint8Array.of(7, 0, 1, 1)), {}],
  ['an option without a length', withOptions(Uint8Array.of(1, 1, 1, 7)), {}],
  ['a fragment that is not a multiple of 8', patched(ODD, 6, 0x20, 0), {}],
  ['a fragment that ends behind 65535', patched(UDP4, 6, 0x1f, 0xff), {}],
  ['a partial checksum in a first fragment', patched(UDP4, 6, 0x20, 0), partialHeader(UDP4)],
  ['a partial checksum in a later fragment', patched(UDP4, 6, 0, 1), partialHeader(UDP4)],
  [
    'a partial checksum in an IPv6 fragment',
    extended(UDP6, [[FRAGMENT, Uint8Array.of(0, 1, 0, 0, 0, 1)]]),
    { ...partialHeader(UDP6), checksumStart: 48 },
  ],
  ['a super-packet in a fragment', patched(TCP4, 6, 0x20, 0), SUPER_TCP4],
  [
    'two fragment headers',
    extended(UDP6, [
      [FRAGMENT, new Uint8Array(6)],
      [FRAGMENT, new Uint8Array(6)],
    ]),
    {},
  ],
  [
    'hop-by-hop options in second place',
    extended(UDP6, [
      [DESTINATION, new Uint8Array(6)],
      [HOP_BY_HOP, new Uint8Array(6)],
    ]),
    {},
  ],
  [
    'an extension header that runs over its end',
    patched(patched(UDP6, 6, DESTINATION), 41, 255),
    {},
  ],
  ['an authentication header that does', patched(patched(UDP6, 6, AUTHENTICATION), 41, 255), {}],
  ['half an extension header', patched(extended(UDP6.subarray(0, 44), []), 6, DESTINATION), {}],
  ['a checksum within the IP header', UDP4, { flags: 1, checksumStart: 16, checksumOffset: 6 }],
  ['a checksum behind the packet', UDP4, { flags: 1, checksumStart: 20, checksumOffset: 1008 }],
  ['a checksum far behind it', UDP4, { flags: 1, checksumStart: 65_532, checksumOffset: 65_534 }],
  ['a checksum start between words', UDP4, { flags: 1, checksumStart: 22, checksumOffset: 4 }],
  ['a checksum at an odd byte', UDP4, { flags: 1, checksumStart: 20, checksumOffset: 7 }],
  ['a super-packet with a complete checksum', TCP4, { ...SUPER_TCP4, flags: 0 }],
  ['a super-packet of segments of 0 bytes', TCP4, { ...SUPER_TCP4, gsoSize: 0 }],
  ['a super-packet of no known kind', TCP4, { ...SUPER_TCP4, gsoType: 2 }],
  ['UDP fragmentation offload', UDP4, { ...SUPER_UDP4, gsoType: 3 }],
  ['TCPV6 over IPv4', TCP4, { ...SUPER_TCP4, gsoType: 4 }],
  ['TCPV4 over IPv6', TCP6, { ...SUPER_TCP6, gsoType: 1 }],
  ['TCPV4 of UDP', UDP4, { ...SUPER_UDP4, gsoType: 1 }],
  ['UDP_L4 of TCP', TCP4, { ...SUPER_TCP4, gsoType: 5 }],
  ['TCP with the checksum of UDP', TCP4, { ...SUPER_TCP4, checksumOffset: 6 }],
  ['UDP with the checksum of TCP', UDP4, { ...SUPER_UDP4, checksumOffset: 16 }],
  ['a transport header elsewhere', TCP4, { ...SUPER_TCP4, checksumStart: 24, checksumOffset: 12 }],
  ['an extension header of which nothing is there', BARE6, {}],
  ['a UDP length that is not the payload’s', patched(UDP4, 24, 3, 239), SUPER_UDP4],
  ['a TCP header of four words', patched(TCP4, 32, 0x40), SUPER_TCP4],
  ['a TCP header longer than the packet', patched(EMPTY4, 32, 0x60), partialHeader(EMPTY4, TSO)],
  ['a super-packet with SYN', patched(TCP4, 33, SYN), SUPER_TCP4],
];

describe('malformed', () => {
  test.each(MALFORMED)('%s', (_, packet, header) => {
    for (const size of [100, 65_535]) {
      // the fault of a fragment is visible only when it is fragmented
      if (size > packet.length && header.flags === undefined && isFragment(packet)) continue;
      expect(split(packet, size, header)).toEqual({
        outcome: SegmentResult.Malformed,
        packets: [],
      });
      // a buffer of only these bytes: a read of any other would throw
      const frame = framed(packet, header);
      const outcome = new PacketSegmenter().begin(frame, 0, 10, frame.length, size);
      expect(outcome).toBe(SegmentResult.Malformed);
    }
  });

  test('a range outside of the buffer, or that overlaps the virtio-net header', () => {
    const segmenter = new PacketSegmenter();
    const frame = framed(UDP4);
    for (const [vnet, start, end] of [
      [0, 10, frame.length + 1],
      [0, 10, 9],
      [0, frame.length + 10, frame.length + 20],
      [0, 9, frame.length],
      [1, 10, frame.length],
      [-1, -1, frame.length],
    ] as const) {
      expect(segmenter.begin(frame, vnet, start, end, 1500)).toBe(SegmentResult.Malformed);
      expect(segmenter.next()).toBe(0);
    }
  });
});

function isFragment(packet: Uint8Array): boolean {
  return packet[0]! >> 4 === 4 && ((packet[6]! & 0x3f) | packet[7]!) !== 0;
}

describe('a PacketSegmenter', () => {
  const options = Buffer.concat([UNCOPIED_OPTION, ROUTER_ALERT]);
  const extensions = extended(UDP6, [
    [HOP_BY_HOP, new Uint8Array(6)],
    [AUTHENTICATION, new Uint8Array(14)],
    [DESTINATION, new Uint8Array(6)],
  ]);
  const seeds: readonly (readonly [Uint8Array, VnetHeader])[] = [
    [TCP4, SUPER_TCP4],
    [TCP6, SUPER_TCP6],
    [UDP4, SUPER_UDP4],
    [UDP4, partialHeader(UDP4)],
    [withOptions(options), {}],
    [extensions, {}],
    [extended(UDP6, [[FRAGMENT, Uint8Array.of(0, 1, 0, 0, 0, 1)]]), {}],
  ];
  const edits = fc.array(fc.tuple(fc.nat(80), fc.nat(255)), { maxLength: 4 });

  test('returns a result for any bytes, and reads none around them', () => {
    const segmenter = new PacketSegmenter(1);
    fc.assert(
      fc.property(
        fc.constantFrom(...seeds),
        edits,
        fc.integer({ min: 0, max: 1200 }),
        fc.boolean(),
        ([packet, header], changes, size, repair) => {
          const frame = framed(packet, header);
          for (const [at, value] of changes) frame[at] = value;
          if (repair) repairIpv4Checksum(frame.subarray(10));
          // A buffer of only these bytes: a read of any other would throw.
          const outcome = segmenter.begin(frame, 0, 10, frame.length, size);
          const lengths: number[] = [];
          for (let length = segmenter.next(); length > 0; length = segmenter.next()) {
            lengths.push(length);
            if (lengths.length > packet.length) break;
          }
          expect(lengths.length > 0).toBe(outcome === SegmentResult.Ready);
          expect(lengths.length).toBeLessThanOrEqual(Math.max(128, packet.length / 8));
          expect(Math.max(0, ...lengths)).toBeLessThanOrEqual(10 + size);
        }
      ),
      { numRuns: 10_000 }
    );
  });

  test('forgets a packet whose frames were not all taken', () => {
    const segmenter = new PacketSegmenter();
    const frame = framed(TCP4, SUPER_TCP4);
    segmenter.begin(frame, 0, 10, frame.length, 1500);
    expect(segmenter.next()).toBe(150);
    expect(segmenter.begin(frame, 0, 10, frame.length - 1, 1500)).toBe(SegmentResult.Malformed);
    expect(segmenter.next()).toBe(0);
    expect(split(UDP4, 1500, {}, segmenter).packets).toEqual([UDP4]);
  });

  test('takes a packet without a virtio-net header', () => {
    const segmenter = new PacketSegmenter();
    expect(segmenter.begin(UDP4, -1, 0, UDP4.length, 1500)).toBe(SegmentResult.Ready);
    expect(segmenter.next()).toBe(10 + UDP4.length);
    expect(segmenter.frame.subarray(0, 10 + UDP4.length)).toEqual(Buffer.from(framed(UDP4)));
  });

  test('allocates nothing for a packet', { timeout: 120_000 }, () => {
    const child = fileURLToPath(new URL('segmenter-allocation-child.ts', import.meta.url));
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      ['--expose-gc', '--import', 'tsx', child],
      { encoding: 'utf8', timeout: 120_000 }
    );
    expect([status, stderr]).toEqual([0, '']);
    // for 100,000 packets; it covers the reading of the heap's size and the compiler
    for (const bytes of Object.values(JSON.parse(stdout))) expect(bytes).toBeLessThan(64 * 1024);
  });
});
