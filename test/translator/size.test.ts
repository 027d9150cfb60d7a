import { describe, expect, test } from 'vitest';
import { verifyChecksums } from '../oracle/verify.ts';
import {
  type Ends,
  echoPacket,
  icmpError,
  ipPacket,
  SYN,
  tcpPacket,
  udpPacket,
} from '../support/packets.ts';
import { framed, type VnetHeader } from '../support/vnet.ts';
import { MIXED_PATHS, mixedPath, mixedScene, VERSIONS, type Version } from './mixed.ts';
import type { Scene } from './scene.ts';

const DF = 0x4000;
const ACK = 0x10;

/** A datagram, `length` bytes long with its IP header. */
function datagram(ends: Ends, length: number, fragment = DF): Uint8Array {
  const headers = ends.source.includes(':') ? 48 : 28;
  const payload = new Uint8Array(length - headers);
  return udpPacket(ends, { sourcePort: 40_000, destinationPort: 53, payload, fragment });
}

describe('a packet that does not fit', () => {
  /**
   * [from, to, MTU of the cloud, greatest length before translation, MTU in the answer to a longer one]
   */
  test.each<[Version, Version, number, number, number]>([
    [4, 4, 576, 576, 576],
    [4, 4, 1400, 1400, 1400],
    [4, 4, 65_535, 65_535, 0],
    [6, 6, 1400, 1400, 1400],
    [6, 6, 1280, 1280, 1280],
    // RFC 8200 section 5: the least MTU of IPv6 is 1280.
    [6, 6, 576, 1280, 1280],
    [4, 6, 1400, 1380, 1380],
    [4, 6, 1280, 1260, 1260],
    [4, 6, 576, 1260, 1260],
    [6, 4, 1400, 1420, 1420],
    [6, 4, 1300, 1320, 1320],
    [6, 4, 1280, 1300, 1300],
  ])('IPv%i to IPv%i, MTU %i: %i bytes pass, one more is answered with %i', (...row) => {
    const [from, to, mtu, most, answered] = row;
    const { before } = mixedPath(from, to).request;
    const scene = mixedScene({ cloud: { mtu } });
    expect(scene.send('site', datagram(before, most)).verdict).toBe('Forward');
    expect(scene.translator.segmentTo).toBe(0);
    if (answered === 0) return;
    const large = datagram(before, most + 1);
    expect(scene.send('site', large).verdict).toBe('DropTooBig');
    const [type, code] = from === 4 ? [3, 4] : [2, 0];
    const back = { source: before.destination, destination: before.source };
    const quoteLength = Math.min(large.length, from === 4 ? 548 : 1232);
    expect(scene.reply).toEqual(
      icmpError(back, { type, code, rest: answered, quoted: large, quoteLength, identification: 0 })
    );
    expect(verifyChecksums(framed(scene.reply!))).toEqual([]);
  });

  test('a small IPv6 packet that leaves without DF is fragmented, not refused: its sender never gets an MTU under 1280', () => {
    const scene = mixedScene({ cloud: { mtu: 576 } });
    const { before } = mixedPath(6, 4).request;
    const verdicts = [596, 597, 1280, 1281].map((length) => {
      const { verdict } = scene.send('site', datagram(before, length));
      return [
        length,
        verdict,
        verdict === 'Forward' ? scene.translator.segmentTo : scene.reply?.[47],
      ];
    });
    expect(verdicts).toEqual([
      [596, 'Forward', 0],
      [597, 'Forward', 576],
      [1280, 'Forward', 576],
      // 1280, as a byte.
      [1281, 'DropTooBig', 0],
    ]);
  });

  test.each(MIXED_PATHS)('$name: any size fits a realm without an MTU', ({ request, from, to }) => {
    const scene = mixedScene();
    // The longest that both length fields can say: that of IPv6 does not count the header.
    const most = from === 4 ? 65_535 : to === 4 ? 65_555 : 65_575;
    expect(scene.send('site', datagram(request.before, most)).verdict).toBe('Forward');
    expect(scene.translator.segmentTo).toBe(0);
  });

  test('an IPv6 packet that would be longer than any IPv4 packet is too big', () => {
    const { before } = mixedPath(6, 4).request;
    const scene = mixedScene();
    const large = datagram(before, 65_556);
    expect(scene.send('site', large).verdict).toBe('DropTooBig');
    expect(new DataView(scene.reply!.buffer).getUint32(44)).toBe(65_555);
  });

  test('the MTU of the ingress realm does not matter', () => {
    const scene = mixedScene({ site: { mtu: 576 } });
    const { request } = mixedPath(4, 4);
    expect(scene.send('site', datagram(request.before, 1500)).verdict).toBe('Forward');
  });

  test('headers that are removed do not count', () => {
    const { before, after } = mixedPath(6, 4).request;
    const options = { type: 60, bytes: Uint8Array.of(0, 0, 1, 4, 0, 0, 0, 0) };
    const build = (ends: Ends, extensions: (typeof options)[]): Uint8Array =>
      udpPacket(ends, {
        sourcePort: 40_000,
        destinationPort: 53,
        payload: new Uint8Array(1372),
        identification: 0,
        extensions,
      });
    const packet = build(before, [options, options]);
    expect(packet.length).toBe(1436);
    expect(mixedScene({ cloud: { mtu: 1400 } }).forward('site', packet)).toEqual(build(after, []));
  });

  test('an ICMP error is dropped, and not answered', () => {
    const { request, reply } = mixedPath(6, 6);
    const error = icmpError(reply.before, {
      type: 1,
      code: 4,
      quoted: datagram(request.after, 1240),
    });
    const scene = mixedScene({ site: { mtu: 1280 } });
    expect([error.length, scene.send('cloud', error).verdict]).toEqual([1288, 'DropTooBig']);
    expect(scene.reply).toBeUndefined();
  });

  test('an error that changes its version always fits: it is truncated to the least MTU', () => {
    const scene = mixedScene({ site: { mtu: 576 } });
    const { request, reply } = mixedPath(4, 6);
    const error = icmpError(reply.before, {
      type: 1,
      code: 4,
      quoted: datagram(request.after, 1232),
    });
    const left = scene.forward('cloud', error);
    expect([left.length, scene.translator.segmentTo]).toEqual([576, 0]);
  });
});

describe('a packet that may be fragmented', () => {
  test.each<
    [name: string, from: Version, to: Version, length: number, fragment: number, segmentTo: number]
  >([
    ['IPv4 without DF', 4, 4, 1401, 0, 1400],
    ['IPv4 without DF that fits', 4, 4, 1400, 0, 0],
    ['IPv4 without DF, to IPv6', 4, 6, 1381, 0, 1400],
    ['IPv4 without DF that fits, to IPv6', 4, 6, 1380, 0, 0],
    ['64 KiB without DF', 4, 4, 65_535, 0, 1400],
  ])('%s', (_name, from, to, length, fragment, segmentTo) => {
    const scene = mixedScene({ cloud: { mtu: 1400 } });
    const { before, after } = mixedPath(from, to).request;
    const left = scene.forward('site', datagram(before, length, fragment));
    expect(scene.translator.segmentTo).toBe(segmentTo);
    if (from === to) expect(left).toEqual(datagram(after, length, fragment));
  });

  test('towards IPv6 an MTU under 1280 counts as 1280', () => {
    const scene = mixedScene({ cloud: { mtu: 1000 } });
    const { before } = mixedPath(4, 6).request;
    scene.forward('site', datagram(before, 1300, 0));
    expect(scene.translator.segmentTo).toBe(1280);
  });

  test.each([
    ['an IPv4 fragment without DF', 4, 4],
    ['an IPv4 fragment without DF, to IPv6', 4, 6],
    ['an IPv6 fragment, to IPv4', 6, 4],
  ] as const)('%s', (_name, from, to) => {
    const scene = mixedScene({ cloud: { mtu: 600 } });
    const { before } = mixedPath(from, to).request;
    const bytes = datagram(before, 1700).slice(from === 4 ? 20 : 40, -100);
    const packet =
      from === 4
        ? ipPacket(before, 17, bytes.subarray(0, 1480), { fragment: 0x2000 })
        : ipPacket(before, 17, bytes.subarray(0, 1480), {
            extensions: [{ type: 44, bytes: Uint8Array.of(0, 0, 0, 1, 0, 0, 0, 7) }],
          });
    scene.forward('site', packet);
    expect(scene.translator.segmentTo).toBe(to === 6 ? 1280 : 600);
  });

  test.each([
    ['IPv6 to IPv6', 6, 6],
    ['IPv6 to IPv4, which gets DF', 6, 4],
  ] as const)('not %s', (_name, from, to) => {
    const scene = mixedScene({ cloud: { mtu: 1400 } });
    const { before } = mixedPath(from, to).request;
    expect(scene.send('site', datagram(before, 1500)).verdict).toBe('DropTooBig');
  });

  test('may be an ICMP error without DF', () => {
    const { request, reply } = mixedPath(4, 4);
    const scene = mixedScene({ site: { mtu: 576 } });
    const quoted = datagram(request.after, 1000);
    scene.forward('cloud', icmpError(reply.before, { type: 3, code: 3, quoted, fragment: 0 }));
    expect(scene.translator.segmentTo).toBe(576);
  });

  test('does not affect the next packet, which fits', () => {
    const scene = mixedScene({ cloud: { mtu: 1400 } });
    const { before } = mixedPath(4, 4).request;
    scene.forward('site', datagram(before, 1500, 0));
    scene.forward('site', datagram(before, 1400, 0));
    expect(scene.translator.segmentTo).toBe(0);
  });
});

describe('super-packets', () => {
  const tcp = (ends: Ends, payload: number, tcpOptions = 0): Uint8Array =>
    tcpPacket(ends, {
      sourcePort: 40_000,
      destinationPort: 5672,
      payload: new Uint8Array(payload),
      tcpOptions: new Uint8Array(tcpOptions).fill(1),
      checksum: 'partial',
      fragment: 0,
    });
  const udp = (ends: Ends, payload: number): Uint8Array =>
    udpPacket(ends, {
      sourcePort: 40_000,
      destinationPort: 53,
      payload: new Uint8Array(payload),
      checksum: 'partial',
      fragment: 0,
    });
  const header = (version: Version, isTcp: boolean, gsoSize: number): VnetHeader => ({
    flags: 1,
    gsoType: isTcp ? (version === 4 ? 1 : 4) : 5,
    gsoSize,
    checksumStart: version === 4 ? 20 : 40,
    checksumOffset: isTcp ? 16 : 6,
  });

  /** The greatest segment at MTU 1400: as it leaves, without all headers. */
  test.each<
    [name: string, from: Version, to: Version, isTcp: boolean, options: number, most: number]
  >([
    ['TCP', 4, 4, true, 0, 1360],
    ['TCP with options', 4, 4, true, 12, 1348],
    ['TCP', 6, 6, true, 0, 1340],
    ['TCP', 4, 6, true, 0, 1340],
    ['TCP with options', 4, 6, true, 12, 1328],
    ['TCP', 6, 4, true, 0, 1360],
    ['UDP', 4, 4, false, 0, 1372],
    ['UDP', 6, 6, false, 0, 1352],
    ['UDP', 4, 6, false, 0, 1352],
    ['UDP', 6, 4, false, 0, 1372],
  ])(
    '%s, IPv%i to IPv%i: the size is that of a segment',
    (_name, from, to, isTcp, options, most) => {
      const scene = mixedScene({ cloud: { mtu: 1400 } });
      const { before } = mixedPath(from, to).request;
      const packet = isTcp ? tcp(before, 40_000, options) : udp(before, 40_000);
      const verdict = (size: number): string => {
        const { verdict } = scene.send('site', packet, header(from, isTcp, size));
        return `${verdict} ${verdict === 'Forward' ? scene.translator.segmentTo : ''}`;
      };
      expect([most, most + 1, 500, 65_535].map(verdict)).toEqual([
        'Forward 0',
        'DropTooBig ',
        'Forward 0',
        'DropTooBig ',
      ]);
    }
  );

  test('gets the size that fits in the answer, as any other packet', () => {
    const scene = mixedScene({ cloud: { mtu: 1400 } });
    const { before } = mixedPath(6, 6).request;
    scene.send('site', tcp(before, 40_000), header(6, true, 1341));
    expect(scene.reply?.subarray(40, 42)).toEqual(Uint8Array.of(2, 0));
    expect(new DataView(scene.reply!.buffer).getUint32(44)).toBe(1400);
    expect(scene.reply).toHaveLength(1280);
  });

  test('of less than one segment have their own size', () => {
    const scene = mixedScene({ cloud: { mtu: 1400 } });
    const { before } = mixedPath(4, 4).request;
    expect(scene.send('site', tcp(before, 100), header(4, true, 60_000)).verdict).toBe('Forward');
  });
});

describe('MSS', () => {
  const mss = (value: number): number[] => [2, 4, value >> 8, value & 255];
  const syn = (ends: Ends, options: readonly number[], more: object = {}): Uint8Array =>
    tcpPacket(ends, {
      sourcePort: 40_000,
      destinationPort: 5672,
      flags: SYN,
      tcpOptions: Uint8Array.from(options),
      ...more,
    });

  /** [from, to, MTU of the site, MTU of the cloud, MSS then] for one of 9000. */
  test.each<[Version, Version, number | undefined, number | undefined, number]>([
    [4, 4, undefined, undefined, 9000],
    [4, 4, undefined, 1400, 1360],
    [4, 4, 1300, 1400, 1260],
    [4, 4, 1400, 1300, 1260],
    [4, 4, 1300, undefined, 1260],
    [6, 6, undefined, 1400, 1340],
    [6, 6, 1300, 1400, 1240],
    [6, 6, 576, undefined, 1220],
    [4, 6, undefined, 1400, 1340],
    [4, 6, 1400, undefined, 1360],
    [4, 6, 1300, 1400, 1260],
    [4, 6, 1400, 1400, 1340],
    [6, 4, undefined, 1400, 1360],
    [6, 4, 1400, undefined, 1340],
    [6, 4, 1400, 1400, 1340],
    [6, 4, 1400, 1300, 1260],
  ])('IPv%i to IPv%i, MTU %s and %s: %i, in both directions', (from, to, site, cloud, most) => {
    const scene = mixedScene({
      site: site === undefined ? {} : { mtu: site },
      cloud: cloud === undefined ? {} : { mtu: cloud },
    });
    const { request, reply } = mixedPath(from, to);
    const identification = from === to ? 0xbeef : 0;
    const fragment = to === 4 && from === 6 ? 0 : DF;
    const manner = { identification, fragment };
    expect(scene.forward('site', syn(request.before, mss(9000), { identification }))).toEqual(
      syn(request.after, mss(most), manner)
    );
    const answer = {
      sourcePort: 5672,
      destinationPort: 40_000,
      flags: SYN | ACK,
      identification: from === to ? 0xbeef : 0,
    };
    const left = scene.forward('cloud', syn(reply.before, mss(9000), answer));
    expect(left.slice(-4)).toEqual(Uint8Array.from(mss(most)));
    expect(verifyChecksums(framed(left))).toEqual([]);
  });

  const limited = (): Scene => mixedScene({ cloud: { mtu: 1400 } });

  test.each<[name: string, before: number[], after: number[]]>([
    ['a greater one', mss(1460), mss(1360)],
    ['the greatest', mss(65_535), mss(1360)],
    ['one greater by one', mss(1361), mss(1360)],
    ['the very limit', mss(1360), mss(1360)],
    ['a smaller one is not raised', mss(536), mss(536)],
    ['0', mss(0), mss(0)],
    ['behind other options', [3, 3, 7, 4, 2, ...mss(1460)], [3, 3, 7, 4, 2, ...mss(1360)]],
    ['at an odd offset', [1, ...mss(1460)], [1, ...mss(1360)]],
    ['at an odd offset, and only its low byte changes', [1, ...mss(0x0551)], [1, ...mss(1360)]],
    [
      'at the end of all options',
      [...Array(36).fill(1), ...mss(1460)],
      [...Array(36).fill(1), ...mss(1360)],
    ],
    [
      'at the greatest odd offset',
      [...Array(35).fill(1), ...mss(1460), 0],
      [...Array(35).fill(1), ...mss(1360), 0],
    ],
    ['behind the end of options', [0, 0, 0, 0, ...mss(1460)], [0, 0, 0, 0, ...mss(1460)]],
    ['none', [1, 1, 1, 1], [1, 1, 1, 1]],
    ['no options', [], []],
    ['of length 3', [2, 3, 5, 180], [2, 3, 5, 180]],
    ['of length 6', [2, 6, 5, 180, 0, 0, 0, 0], [2, 6, 5, 180, 0, 0, 0, 0]],
    ['of length 0', [2, 0, 5, 180], [2, 0, 5, 180]],
    ['beyond the header', [1, 1, 2, 4], [1, 1, 2, 4]],
    ['on the last byte', [1, 1, 1, 2], [1, 1, 1, 2]],
    ['behind one that is malformed', [3, 0, 1, 1, ...mss(1460)], [3, 0, 1, 1, ...mss(1460)]],
    [
      'behind one that runs over the header',
      [3, 9, 1, 1, ...mss(1460)],
      [3, 9, 1, 1, ...mss(1460)],
    ],
    [
      'twice, of which hosts use the last',
      [...mss(1460), ...mss(1460)],
      [...mss(1360), ...mss(1360)],
    ],
    ['twice, the first of them small', [...mss(500), ...mss(1460)], [...mss(500), ...mss(1360)]],
  ])('%s', (_name, before, after) => {
    const { request } = mixedPath(4, 4);
    const left = limited().forward('site', syn(request.before, before));
    expect(left).toEqual(syn(request.after, after));
    expect(verifyChecksums(framed(left))).toEqual([]);
  });

  test.each(MIXED_PATHS)(
    '$name: updates the checksum for an option at an odd offset',
    ({ request }) => {
      const left = limited().forward('site', syn(request.before, [1, ...mss(0xfedc)]));
      expect(verifyChecksums(framed(left))).toEqual([]);
      expect(left.at(-5)).toBeLessThan(6);
    }
  );

  test('keeps a wrong checksum wrong by the same amount', () => {
    const { request } = mixedPath(4, 4);
    const left = limited().forward('site', syn(request.before, mss(1460), { checksum: 0x1234 }));
    expect(verifyChecksums(framed(left))).toEqual(['tcp']);
  });

  test.each(VERSIONS)('is lowered in a segment with a partial checksum, IPv%i', (version) => {
    const { request } = mixedPath(version, version);
    const header = { flags: 1, checksumStart: version === 4 ? 20 : 40, checksumOffset: 16 };
    const left = limited().forward(
      'site',
      syn(request.before, mss(1460), { checksum: 'partial' }),
      header
    );
    const most = version === 4 ? 1360 : 1340;
    expect(left).toEqual(syn(request.after, mss(most), { checksum: 'partial' }));
  });

  test('is lowered in a SYN with data that comes in fragments', () => {
    const { request } = mixedPath(4, 4);
    const whole = (ends: Ends, value: number): Uint8Array =>
      ipPacket(ends, 6, syn(ends, mss(value), { payload: new Uint8Array(40) }).slice(20, 60), {
        fragment: 0x2000,
      });
    expect(limited().forward('site', whole(request.before, 1460))).toEqual(
      whole(request.after, 1360)
    );
  });

  test.each([
    ['ACK', ACK],
    ['RST', 0x04],
    ['FIN and ACK', 0x11],
    ['no flag', 0],
  ])('is left alone in a segment with %s', (_name, flags) => {
    const { request } = mixedPath(4, 4);
    expect(limited().forward('site', syn(request.before, mss(1460), { flags }))).toEqual(
      syn(request.after, mss(1460), { flags })
    );
  });

  test('does not change in a quote', () => {
    const { request, reply } = mixedPath(4, 4);
    const error = (ends: Ends, quoted: Ends): Uint8Array =>
      icmpError(ends, { type: 3, code: 3, quoted: syn(quoted, mss(1460)) });
    expect(limited().forward('cloud', error(reply.before, request.after))).toEqual(
      error(reply.after, request.before)
    );
  });

  test('does not change the same bytes in another protocol', () => {
    const { request } = mixedPath(4, 4);
    const build = (ends: Ends): Uint8Array =>
      echoPacket(ends, { payload: Uint8Array.from([...Array(12).fill(0x52), ...mss(1460)]) });
    expect(limited().forward('site', build(request.before))).toEqual(build(request.after));
  });
});
