import { describe, expect, test } from 'vitest';
import {
  type Ends,
  echoPacket,
  icmpError,
  ipPacket,
  sctpPacket,
  tcpPacket,
  udpLitePacket,
  udpPacket,
} from '../support/packets.ts';
import type { VnetHeader } from '../support/vnet.ts';
import { expectForwarded, FAMILIES, PAYLOAD, pathOf, Scene } from './scene.ts';

const UDP_PORTS = { sourcePort: 40_000, destinationPort: 53 };
/** Destination options. */
const OPTIONS = { type: 60, bytes: Uint8Array.of(0, 0, 1, 4, 0, 0, 0, 0) };

describe('offloads', () => {
  const LENGTH = 65_000;
  const tcpHeader = (family: 4 | 6): VnetHeader => ({
    flags: 1,
    gsoType: family === 4 ? 1 : 4,
    headerLength: family === 4 ? 40 : 60,
    gsoSize: 1448,
    checksumStart: family === 4 ? 20 : 40,
    checksumOffset: 16,
  });
  const udpHeader = (family: 4 | 6): VnetHeader => ({
    ...tcpHeader(family),
    gsoType: 5,
    checksumOffset: 6,
  });
  const payload = new Uint8Array(LENGTH).map((_, i) => i * 7);

  test.each(FAMILIES)('a TCP super-packet over IPv%i keeps a partial checksum', (family) => {
    const header = tcpHeader(family);
    const toCloud = pathOf(family, 'site-a', 'cloud');
    for (const gsoType of [header.gsoType!, header.gsoType! | 0x80]) {
      expectForwarded(
        new Scene(),
        toCloud,
        (ends) =>
          tcpPacket(ends, {
            sourcePort: 49_500,
            destinationPort: 5672,
            payload,
            checksum: 'partial',
          }),
        { ...header, gsoType }
      );
    }
  });

  test.each(FAMILIES)('a UDP super-packet over IPv%i keeps a partial checksum', (family) => {
    expectForwarded(
      new Scene(),
      pathOf(family, 'site-a', 'cloud'),
      (ends) =>
        udpPacket(ends, { sourcePort: 40_000, destinationPort: 53, payload, checksum: 'partial' }),
      udpHeader(family)
    );
  });

  test('an ICMPv6 echo may have a partial checksum', () => {
    expectForwarded(
      new Scene(),
      pathOf(6, 'site-a', 'cloud'),
      (ends) => echoPacket(ends, { payload, checksum: 'partial' }),
      { flags: 1, checksumStart: 40, checksumOffset: 2 }
    );
  });

  test('a partial UDP checksum of 0 is a sum like any other', () => {
    const { before, after } = pathOf(6, 'site-a', 'cloud');
    const datagram = { sourcePort: 40_000, destinationPort: 53, checksum: 0 };
    const header = { flags: 1, checksumStart: 40, checksumOffset: 6 };
    const left = new Scene().forward('site-a', udpPacket(before, datagram), header);
    expect(left.subarray(0, 46)).toEqual(udpPacket(after, datagram).subarray(0, 46));
    expect(left.subarray(46, 48)).not.toEqual(Uint8Array.of(0, 0));
  });

  test('checksums marked as verified are complete', () => {
    expectForwarded(
      new Scene(),
      pathOf(4, 'site-a', 'cloud'),
      (ends) => udpPacket(ends, { sourcePort: 40_000, destinationPort: 53, payload: PAYLOAD }),
      { flags: 2 }
    );
  });

  test('a partial checksum behind extension headers stays partial', () => {
    expectForwarded(
      new Scene(),
      pathOf(6, 'site-a', 'cloud'),
      (ends) => udpPacket(ends, { ...UDP_PORTS, extensions: [OPTIONS], checksum: 'partial' }),
      { flags: 1, checksumStart: 48, checksumOffset: 6 }
    );
  });

  test.each([
    [4, 'TCP', 1, 128],
    [4, 'TCP', 215, 128],
    [4, 'TCP', 216, 303],
    [6, 'TCP', 1, 128],
    [4, 'UDP', 1, 128],
    [6, 'UDP', 48, 128],
    [6, 'UDP', 500, 128],
  ] as const)(
    'an IPv%i %s super-packet of segments of %i bytes makes at most %i of them, on both paths',
    (family, protocol, gsoSize, most) => {
      const { before } = pathOf(family, 'site-a', 'cloud');
      const scene = new Scene();
      const send = (length: number): string => {
        const payload = new Uint8Array(length);
        const packet =
          protocol === 'TCP'
            ? tcpPacket(before, {
                sourcePort: 49_500,
                destinationPort: 5672,
                payload,
                checksum: 'partial',
              })
            : udpPacket(before, {
                sourcePort: 40_000,
                destinationPort: 53,
                payload,
                checksum: 'partial',
              });
        const header = protocol === 'TCP' ? tcpHeader(family) : udpHeader(family);
        return scene.send('site-a', packet, { ...header, gsoSize }).verdict;
      };
      // The first packet of a path takes the slow path, the second one the fast path if it may.
      const tooLong = most * gsoSize + 1;
      if (most === 128) expect(send(tooLong)).toBe('DropTooManySegments');
      expect(send(most * gsoSize)).toBe('Forward');
      expect(send(most * gsoSize)).toBe('Forward');
      if (most === 128) expect(send(tooLong)).toBe('DropTooManySegments');
    }
  );

  const tcp = (ends: Ends): Uint8Array =>
    tcpPacket(ends, { sourcePort: 49_500, destinationPort: 5672, checksum: 'partial' });
  const udp = (ends: Ends): Uint8Array =>
    udpPacket(ends, { sourcePort: 40_000, destinationPort: 53, checksum: 'partial' });

  test.each<[string, 4 | 6, (ends: Ends) => Uint8Array, VnetHeader, string]>([
    ['checksum start before TCP', 4, tcp, { ...tcpHeader(4), checksumStart: 18 }, 'Malformed'],
    ['checksum start behind TCP', 4, tcp, { ...tcpHeader(4), checksumStart: 22 }, 'Malformed'],
    ['checksum start of the other IP', 6, tcp, { ...tcpHeader(6), checksumStart: 20 }, 'Malformed'],
    ['checksum start 65535', 4, tcp, { ...tcpHeader(4), checksumStart: 65_535 }, 'Malformed'],
    ["checksum offset of UDP's", 4, tcp, { ...tcpHeader(4), checksumOffset: 6 }, 'Malformed'],
    ["checksum offset of TCP's", 4, udp, { ...udpHeader(4), checksumOffset: 16 }, 'Malformed'],
    ['checksum offset 65535', 4, tcp, { ...tcpHeader(4), checksumOffset: 65_535 }, 'Malformed'],
    ['super-packet, complete checksum', 4, tcp, { ...tcpHeader(4), flags: 0 }, 'Malformed'],
    ['segment size 0', 4, tcp, { ...tcpHeader(4), gsoSize: 0 }, 'Malformed'],
    ['type TCPv6 of an IPv4 packet', 4, tcp, { ...tcpHeader(4), gsoType: 4 }, 'Malformed'],
    ['type TCPv4 of an IPv6 packet', 6, tcp, { ...tcpHeader(6), gsoType: 1 }, 'Malformed'],
    ['type UDP_L4 of TCP', 4, tcp, { ...tcpHeader(4), gsoType: 5 }, 'Malformed'],
    ['type TCPv4 of UDP', 4, udp, { ...udpHeader(4), gsoType: 1 }, 'Malformed'],
    ['type unknown', 4, tcp, { ...tcpHeader(4), gsoType: 2 }, 'Malformed'],
    ['unknown flags', 4, tcp, { ...tcpHeader(4), flags: 0x05 }, 'Malformed'],
    ['flags as an IPv4 packet begins', 4, udp, { ...udpHeader(4), flags: 0x45 }, 'Malformed'],
    ['type 0x7f', 4, tcp, { ...tcpHeader(4), gsoType: 0x7f }, 'Malformed'],
    ['UDP fragmentation offload', 4, udp, { ...udpHeader(4), gsoType: 3 }, 'Unsupported'],
    [
      'partial checksum of an IPv4 echo, which has no pseudo-header',
      4,
      (ends) => echoPacket(ends, {}),
      { flags: 1, checksumStart: 20, checksumOffset: 2 },
      'Malformed',
    ],
    [
      'partial checksum of an ICMPv6 error',
      6,
      (ends) => icmpError(ends, { type: 1, quoted: tcp(ends) }),
      { flags: 1, checksumStart: 40, checksumOffset: 2 },
      'Malformed',
    ],
    [
      'partial checksum of UDP-Lite',
      4,
      (ends) => udpLitePacket(ends, { sourcePort: 1, destinationPort: 2 }),
      { flags: 1, checksumStart: 20, checksumOffset: 6 },
      'Malformed',
    ],
    [
      'partial checksum of SCTP',
      4,
      (ends) => sctpPacket(ends, { sourcePort: 1, destinationPort: 2 }),
      { flags: 1, checksumStart: 20, checksumOffset: 8 },
      'Malformed',
    ],
    [
      'partial checksum of GRE',
      4,
      (ends) => ipPacket(ends, 47, new Uint8Array(8)),
      { flags: 1, checksumStart: 20, checksumOffset: 2 },
      'Malformed',
    ],
    [
      'checksum start before the extension headers',
      6,
      (ends) => udpPacket(ends, { ...UDP_PORTS, extensions: [OPTIONS], checksum: 'partial' }),
      { flags: 1, checksumStart: 40, checksumOffset: 6 },
      'Malformed',
    ],
  ])('a virtio-net header that contradicts its packet: %s', (_, family, build, header, fault) => {
    const { before } = pathOf(family, 'site-a', 'cloud');
    expect(new Scene().send('site-a', build(before), header).verdict).toBe(`Drop${fault}`);
  });
});
