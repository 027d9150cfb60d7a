import { expect, test } from 'vitest';
import { CapturedPacket } from '../../src/replay/captured-packet.ts';
import { LinkLayer } from '../../src/replay/link-layer.ts';
import { udpPacket } from '../support/packets.ts';
import { joined, u16, u32 } from './capture-bytes.ts';

const PORTS = { sourcePort: 40_000, destinationPort: 53 };
const IPV4 = udpPacket({ source: '10.0.0.5', destination: '10.0.0.9' }, PORTS);
const IPV6 = udpPacket({ source: 'fd00::5', destination: 'fd00::9' }, PORTS);
const MACS = new Uint8Array(12);
const GROUP = joined([Uint8Array.of(0xff), new Uint8Array(11)]);
const be = (value: number): Uint8Array => u16(value, false);

function find(linkType: number, frame: Uint8Array): [number, string | boolean] {
  const packet = new CapturedPacket();
  // A frame in the middle of other bytes.
  packet.bytes = joined([new Uint8Array(7).fill(0x45), frame, new Uint8Array(9).fill(0x45)]);
  packet.view = new DataView(packet.bytes.buffer);
  packet.start = 7;
  packet.end = 7 + frame.length;
  packet.linkType = linkType;
  const link = new LinkLayer();
  const at = link.findIp(packet);
  return at < 0 ? [at, link.reason] : [at - 7, link.isToGroup];
}

test.each([
  ['Ethernet', 1, [MACS, be(0x0800), IPV4], 14],
  ['Ethernet with IPv6', 1, [MACS, be(0x86dd), IPV6], 14],
  ['a VLAN', 1, [MACS, be(0x8100), be(7), be(0x0800), IPV4], 18],
  [
    'four VLAN tags',
    1,
    [MACS, ...[1, 2, 3, 4].flatMap(() => [be(0x88a8), be(1)]), be(0x0800), IPV4],
    30,
  ],
  ['raw IP', 101, [IPV4], 0],
  ['raw IP of OpenBSD', 14, [IPV6], 0],
  ['LINKTYPE_IPV4', 228, [IPV4], 0],
  ['LINKTYPE_IPV6', 229, [IPV6], 0],
  ['SLL', 113, [new Uint8Array(14), be(0x0800), IPV4], 16],
  ['SLL with a VLAN', 113, [new Uint8Array(14), be(0x8100), be(7), be(0x86dd), IPV6], 20],
  ['SLL2', 276, [be(0x0800), new Uint8Array(18), IPV4], 20],
  ['loopback, little-endian', 0, [u32(2), IPV4], 4],
  ['loopback, big-endian, FreeBSD', 0, [u32(28, false), IPV6], 4],
  ['loopback of OpenBSD', 108, [u32(24, false), IPV6], 4],
] as const)('finds the IP packet in %s', (_, linkType, parts, at) => {
  expect(find(linkType, joined(parts))).toEqual([at, false]);
});

test.each([
  ['ARP', 1, [MACS, be(0x0806), new Uint8Array(28)], 'ARP'],
  ['an unknown type', 1, [MACS, be(0x1234), IPV4], 'EtherType 0x1234'],
  ['a length', 1, [MACS, be(38), IPV4], '802.3 (such as spanning tree)'],
  [
    'too many tags',
    1,
    [MACS, ...[1, 2, 3, 4, 5].flatMap(() => [be(0x8100), be(1)]), be(0x0800)],
    'more VLAN tags than four',
  ],
  [
    'a frame that ends in the type',
    1,
    [MACS, Uint8Array.of(8)],
    'too few bytes for its link header',
  ],
  ['a frame without a packet', 1, [MACS, be(0x0800)], 'too few bytes for its link header'],
  [
    'a short SLL2 header',
    276,
    [be(0x0800), new Uint8Array(17)],
    'too few bytes for its link header',
  ],
  ['another address family', 0, [u32(7), IPV4], 'address family 7'],
  ['another IP version', 101, [Uint8Array.of(0x50)], 'IP version 5'],
  ['nothing', 127, [], 'nothing: no byte of it was captured'],
  ['802.11', 105, [IPV4], 'link type 105'],
] as const)('says what %s has instead', (_, linkType, parts, reason) => {
  expect(find(linkType, joined(parts))).toEqual([-1, reason]);
});

test('tells frames to several hosts', () => {
  expect(find(1, joined([GROUP, be(0x0800), IPV4]))).toEqual([14, true]);
  expect(find(113, joined([be(1), new Uint8Array(12), be(0x0800), IPV4]))).toEqual([16, true]);
  const cooked2 = joined([
    be(0x0800),
    new Uint8Array(8),
    Uint8Array.of(2),
    new Uint8Array(9),
    IPV4,
  ]);
  expect(find(276, cooked2)).toEqual([20, true]);
});
