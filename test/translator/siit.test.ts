import { describe, expect, test } from 'vitest';
import { TRANSLATION_HEADROOM } from '../../src/translator/index.ts';
import { NaiveTranslator } from '../oracle/translate.ts';
import { verifyChecksums } from '../oracle/verify.ts';
import {
  type Ends,
  echoPacket,
  icmpError,
  ipPacket,
  SYN,
  sctpPacket,
  tcpPacket,
  udpLitePacket,
  udpPacket,
} from '../support/packets.ts';
import { framed, VNET, type VnetHeader } from '../support/vnet.ts';
import { CROSS_VERSION_PATHS, mixedPath, mixedPlan, mixedScene, type Version } from './mixed.ts';
import { PAYLOAD, type Scene } from './scene.ts';

const INTO6 = mixedPath(4, 6);
const INTO4 = mixedPath(6, 4);
const UDP_PORTS = { sourcePort: 40_000, destinationPort: 53 };
const TCP_PORTS = { sourcePort: 40_000, destinationPort: 5672 };

/** The fields of a small packet from IPv6: without DF, with an identification from the counter. */
const withoutDf = (identification = 0): object => ({ fragment: 0, identification });
/** The fields of a larger packet from IPv6. */
const withDf = { fragment: 0x4000, identification: 0 };

describe('translates, byte by byte', () => {
  test('a datagram from IPv4 to IPv6', () => {
    const before = hex(
      '45 b8 00 20', // version 4; TOS; total length 32
      'be ef 40 00', // identification; don't fragment
      '3f 11 0d e0', // TTL 63; protocol 17; header checksum
      '0a 00 00 05', // source 10.0.0.5
      '64 40 00 06', // destination 100.64.0.6
      '9c 40 00 35', // ports 40000, 53
      '00 0c 2d 6b', // UDP length 12; checksum
      '61 62 63 64'
    );
    repair(before, 17);
    const after = hex(
      '6b 80 00 00', // version 6; traffic class b8; flow label 0
      '00 0c 11 3f', // payload length 12; next header 17; hop limit 63
      'fd 64 00 00 00 00 00 00 00 00 00 00 00 00 00 46', // source fd64::46
      'fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 09', // destination fd00::9
      '9c 40 00 35',
      '00 0c ab 94', // UDP length 12; checksum
      '61 62 63 64'
    );
    repair(after, 17);
    expect(mixedScene().forward('site', before)).toEqual(after);
  });

  test('a SYN from IPv6 to IPv4', () => {
    const before = hex(
      '62 ea bc de', // version 6; traffic class 2e; flow label
      '00 14 06 40', // payload length 20; next header 6; hop limit 64
      'fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 05', // source fd00::5
      'fd 64 00 00 00 00 00 00 00 00 00 00 00 00 00 04', // destination fd64::4
      '9c 40 16 28', // ports 40000, 5672
      '01 02 03 04 00 00 00 00', // sequence, acknowledgement
      '50 02 fa f0', // 5 words; SYN; window
      '00 00 00 00' // checksum; urgent pointer
    );
    repair(before, 6);
    const after = hex(
      '45 2e 00 28', // version 4; TOS 2e; total length 40
      '00 00 00 00', // identification: the first; no DF
      '40 06 00 00', // TTL 64; protocol 6; header checksum
      '64 40 00 40', // source 100.64.0.64
      '0a 00 00 09', // destination 10.0.0.9
      '9c 40 16 28',
      '01 02 03 04 00 00 00 00',
      '50 02 fa f0',
      '00 00 00 00'
    );
    repair(after, 6);
    expect(mixedScene().forward('site', before)).toEqual(after);
  });

  test('an echo request from IPv6 to IPv4', () => {
    const before = hex(
      '60 00 00 00',
      '00 0c 3a 40', // payload length 12; next header 58; hop limit 64
      'fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 05',
      'fd 64 00 00 00 00 00 00 00 00 00 00 00 00 00 04',
      '80 00 00 00', // echo request; checksum
      '12 34 00 01', // identifier, sequence number
      '61 62 63 64'
    );
    repair(before, 58);
    const after = hex(
      '45 00 00 20',
      '00 00 00 00',
      '40 01 00 00', // TTL 64; protocol 1; header checksum
      '64 40 00 40',
      '0a 00 00 09',
      '08 00 00 00', // echo request; checksum
      '12 34 00 01',
      '61 62 63 64'
    );
    repair(after, 1);
    expect(mixedScene().forward('site', before)).toEqual(after);
  });

  test('"port unreachable" from IPv6 to IPv4, about a datagram in the opposite direction', () => {
    const scene = mixedScene();
    const quote6 = hex(
      '60 00 00 00',
      '00 0c 11 3e', // payload length 12; next header 17; hop limit 62
      'fd 64 00 00 00 00 00 00 00 00 00 00 00 00 00 46', // source fd64::46
      'fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 09', // destination fd00::9
      '9c 40 00 35',
      '00 0c 00 00',
      '61 62 63 64'
    );
    repair(quote6, 17);
    const before = hex(
      '60 00 00 00',
      '00 3c 3a 40', // payload length 60; next header 58; hop limit 64
      'fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 09',
      'fd 64 00 00 00 00 00 00 00 00 00 00 00 00 00 46',
      '01 04 00 00', // port unreachable; checksum
      '00 00 00 00',
      hexOf(quote6)
    );
    repair(before, 58);
    const quote4 = hex(
      '45 00 00 20', // total length 32
      '00 00 40 00', // identification 0; don't fragment
      '3e 11 00 00', // TTL 62; protocol 17; header checksum
      '0a 00 00 05', // source 10.0.0.5
      '64 40 00 06', // destination 100.64.0.6
      '9c 40 00 35',
      '00 0c 00 00',
      '61 62 63 64'
    );
    repair(quote4, 17);
    const after = hex(
      '45 00 00 3c', // total length 60
      '00 00 00 00', // identification: the first; no DF
      '40 01 00 00', // TTL 64; protocol 1; header checksum
      '64 40 00 06', // source 100.64.0.6
      '0a 00 00 05', // destination 10.0.0.5
      '03 03 00 00', // port unreachable; checksum
      '00 00 00 00',
      hexOf(quote4)
    );
    repair(after, 1);
    expect(scene.forward('cloud', before)).toEqual(after);
  });
});

describe.each(CROSS_VERSION_PATHS)('$name', ({ from, to, request, reply }) => {
  const into4 = to === 4;
  const small = into4 ? withoutDf() : {};
  const builders: [string, (ends: Ends, more?: object) => Uint8Array][] = [
    ['TCP', (ends, more) => tcpPacket(ends, { ...TCP_PORTS, payload: PAYLOAD, ...more })],
    ['UDP', (ends, more) => udpPacket(ends, { ...UDP_PORTS, payload: PAYLOAD, ...more })],
    [
      'UDP-Lite',
      (ends, more) =>
        udpLitePacket(ends, {
          sourcePort: 40_000,
          destinationPort: 5004,
          coverage: 8,
          payload: PAYLOAD,
          ...more,
        }),
    ],
    [
      'SCTP',
      (ends, more) =>
        sctpPacket(ends, { sourcePort: 40_000, destinationPort: 3868, payload: PAYLOAD, ...more }),
    ],
    ['GRE', (ends, more) => ipPacket(ends, 47, PAYLOAD, more)],
    ['echo request', (ends, more) => echoPacket(ends, { payload: PAYLOAD, ...more })],
  ];

  test.each(builders)('%s', (_name, build) => {
    const left = mixedScene().forward('site', build(request.before));
    expect(left).toEqual(build(request.after, small));
    expect(verifyChecksums(framed(left))).toEqual([]);
  });

  test('translates an echo reply', () => {
    const scene = mixedScene();
    const echo = { id: 5, sequence: 6, payload: PAYLOAD };
    scene.forward('site', echoPacket(request.before, echo));
    const left = scene.forward('cloud', echoPacket(reply.before, { ...echo, reply: true }));
    expect(left).toEqual(
      echoPacket(reply.after, { ...echo, reply: true, ...(into4 ? {} : withoutDf()) })
    );
  });

  test('traffic class and hop limit do not change, also with an odd length', () => {
    const manner = { trafficClass: 0xa5, hopLimit: 3, payload: Uint8Array.of(1, 2, 3) };
    const build = (ends: Ends, more = {}): Uint8Array =>
      udpPacket(ends, { ...UDP_PORTS, ...manner, ...more });
    expect(mixedScene().forward('site', build(request.before))).toEqual(
      build(request.after, small)
    );
  });

  test.each([
    ['TCP', (ends: Ends, more: object) => tcpPacket(ends, { ...TCP_PORTS, ...more })],
    ['UDP', (ends: Ends, more: object) => udpPacket(ends, { ...UDP_PORTS, ...more })],
    ['echo', (ends: Ends, more: object) => echoPacket(ends, more)],
  ])('a wrong checksum of %s stays wrong', (_name, build) => {
    const left = mixedScene().forward('site', build(request.before, { checksum: 0x1234 }));
    expect(verifyChecksums(framed(left))).toHaveLength(1);
  });

  test('paths count packets before translation, and list the new addresses', () => {
    const scene = mixedScene();
    const packet = udpPacket(request.before, UDP_PORTS);
    scene.forward('site', packet);
    expect(scene.paths()).toEqual([
      {
        ingress: 'site',
        source: request.before.source,
        destination: request.before.destination,
        egress: 'cloud',
        newSource: request.after.source,
        newDestination: request.after.destination,
        packets: 1,
        bytes: packet.length,
      },
    ]);
  });

  test('a source without a presence needs one of the other version', () => {
    const presences = mixedPlan().presences.filter(
      ({ address }) => address !== request.after.source
    );
    const { translator } = mixedScene({ presences });
    const packet = udpPacket(request.before, UDP_PORTS);
    const verdict = translator.translate(translator.realm('site'), packet, 0, packet.length);
    expect([verdict, translator.lackingFamily]).toEqual([1, to]);
    expect(translator.lackingPresence().toString()).toBe(request.before.source);
    translator.bind({
      realm: 'cloud',
      address: request.after.source,
      of: { realm: 'site', address: request.before.source },
    });
    const room = new Uint8Array(64 + packet.length);
    room.set(packet, 64);
    translator.translate(translator.realm('site'), room, 64, room.length, -1, 64);
    expect(room.slice(translator.start, translator.end)).toEqual(
      udpPacket(request.after, { ...UDP_PORTS, ...small })
    );
  });

  test.each([
    ['an authentication header', authenticated],
    ['a fragment of an echo', echoFragment],
  ])('%s cannot be translated', (_name, build) => {
    const verdict = build === authenticated ? 'DropUnsupported' : 'DropFragment';
    expect(mixedScene().send('site', build(request.before, from)).verdict).toBe(verdict);
  });
});

describe('IPv4 to IPv6', () => {
  const { before, after } = INTO6.request;

  test('removes options', () => {
    const options = Uint8Array.of(0x94, 4, 0, 0, 1, 1, 1, 1);
    expect(mixedScene().forward('site', udpPacket(before, { ...UDP_PORTS, options }))).toEqual(
      udpPacket(after, UDP_PORTS)
    );
  });

  test('adds no fragment header to an unfragmented packet, with DF or without', () => {
    for (const fragment of [0, 0x4000]) {
      expect(mixedScene().forward('site', udpPacket(before, { ...UDP_PORTS, fragment }))).toEqual(
        udpPacket(after, UDP_PORTS)
      );
    }
  });

  test('adds a fragment header to fragments', () => {
    const scene = mixedScene();
    const whole = (ends: Ends): Uint8Array =>
      udpPacket(ends, { ...UDP_PORTS, payload: new Uint8Array(92).fill(9) });
    const piece4 = (from: number, to: number, more: boolean): Uint8Array =>
      ipPacket(before, 17, whole(before).subarray(20 + from, 20 + to), {
        fragment: (more ? 0x2000 : 0) | (from / 8),
        identification: 0xfeed,
      });
    const piece6 = (from: number, to: number, more: boolean): Uint8Array =>
      ipPacket(after, 17, whole(after).subarray(40 + from, 40 + to), {
        extensions: [
          {
            type: 44,
            bytes: Uint8Array.of(0, 0, from >> 8, from | (more ? 1 : 0), 0, 0, 0xfe, 0xed),
          },
        ],
      });
    for (const [from, to, more] of [
      [0, 64, true],
      [64, 72, true],
      [72, 100, false],
    ] as const) {
      expect(scene.forward('site', piece4(from, to, more))).toEqual(piece6(from, to, more));
    }
  });

  test('computes a checksum for UDP without one', () => {
    const packet = udpPacket(before, { ...UDP_PORTS, payload: PAYLOAD, checksum: 'none' });
    expect(mixedScene().forward('site', packet)).toEqual(
      udpPacket(after, { ...UDP_PORTS, payload: PAYLOAD })
    );
  });

  test('sends a computed UDP checksum of 0 as 0xffff', () => {
    const build = (ends: Ends, payload: Uint8Array, checksum?: 'none'): Uint8Array =>
      udpPacket(ends, { ...UDP_PORTS, payload, ...(checksum && { checksum }) });
    const missing = build(after, new Uint8Array(2)).subarray(46, 48);
    const left = mixedScene().forward('site', build(before, missing, 'none'));
    expect(left).toEqual(build(after, missing));
    expect(left.subarray(46, 48)).toEqual(Uint8Array.of(0xff, 0xff));
  });

  test('refuses a fragment of UDP without a checksum', () => {
    const whole = udpPacket(before, {
      ...UDP_PORTS,
      payload: new Uint8Array(64),
      checksum: 'none',
    });
    const first = ipPacket(before, 17, whole.subarray(20, 52), { fragment: 0x2000 });
    expect(mixedScene().send('site', first).verdict).toBe('DropUnsupported');
  });

  describe('headroom', () => {
    test.each([
      ['a plain packet', udpPacket(before, UDP_PORTS), 20],
      [
        'one with 8 bytes of options',
        udpPacket(before, { ...UDP_PORTS, options: new Uint8Array(8) }),
        12,
      ],
      [
        'one with 20 bytes of options',
        udpPacket(before, { ...UDP_PORTS, options: new Uint8Array(20) }),
        0,
      ],
      [
        'one with 40 bytes of options',
        udpPacket(before, { ...UDP_PORTS, options: new Uint8Array(40) }),
        0,
      ],
      ['a fragment', ipPacket(before, 47, new Uint8Array(8), { fragment: 0x2000 }), 28],
      [
        'an ICMP error',
        icmpError(INTO4.reply.before, {
          type: 3,
          code: 3,
          quoted: udpPacket(INTO4.request.after, UDP_PORTS),
        }),
        40,
      ],
      [
        'an ICMP error about a first fragment',
        icmpError(INTO4.reply.before, {
          type: 3,
          code: 3,
          quoted: udpPacket(INTO4.request.after, { ...UDP_PORTS, fragment: 0x2000 }),
        }),
        48,
      ],
      [
        'an ICMP error with extensions and padding',
        icmpError(INTO4.reply.before, {
          type: 3,
          code: 3,
          quoted: udpPacket(INTO4.request.after, { ...UDP_PORTS, payload: new Uint8Array(100) }),
          icmpExtensions: Uint8Array.of(0x20, 0, 0xdf, 0xff, 0, 8, 1, 1, 0, 1, 1, 1),
        }),
        44,
      ],
    ])('%s needs %3$i bytes: with one less nothing is changed', (_name, packet, needed) => {
      const realm = packet[9] === 1 ? 'cloud' : 'site';
      for (const header of [undefined, {}]) {
        const scene = mixedScene();
        // Without a virtio-net header, its place is room as well.
        const room = header === undefined ? needed - 10 : needed;
        if (needed > 0) {
          const sent = scene.send(realm, packet, header, room - 1);
          expect(sent.verdict).toBe('NeedsHeadroom');
          expect(scene.counters(realm)).toEqual({ NeedsHeadroom: 1 });
        }
        expect(scene.send(realm, packet, header, Math.max(room, 0)).verdict).toBe('Forward');
        expect(packet.length).toBeLessThanOrEqual(scene.translator.end);
      }
      expect(needed).toBeLessThanOrEqual(TRANSLATION_HEADROOM);
    });

    test('is not needed by a packet that keeps its version or shrinks', () => {
      const scene = mixedScene();
      for (const path of [mixedPath(4, 4), mixedPath(6, 6), INTO4]) {
        const packet = udpPacket(path.request.before, UDP_PORTS);
        expect(scene.send('site', packet, {}, 0).verdict).toBe('Forward');
      }
    });

    test('is not asked for by a packet that is not permitted', () => {
      const packet = udpPacket(before, { sourcePort: 1, destinationPort: 1 });
      expect(mixedScene().send('site', packet, {}, 0).verdict).toBe('DropNotPermitted');
    });
  });
});

describe('IPv6 to IPv4', () => {
  const { before, after } = INTO4.request;
  const udp = (ends: Ends, more: object): Uint8Array => udpPacket(ends, { ...UDP_PORTS, ...more });

  test.each([
    ['hop-by-hop options', [{ type: 0, bytes: Uint8Array.of(0, 0, 1, 4, 0, 0, 0, 0) }]],
    ['a routing header', [{ type: 43, bytes: Uint8Array.of(0, 0, 4, 0, 0, 0, 0, 0) }]],
    ['destination options', [{ type: 60, bytes: Uint8Array.of(0, 0, 1, 4, 0, 0, 0, 0) }]],
    [
      'the fragment header of an unfragmented packet',
      [{ type: 44, bytes: Uint8Array.of(0, 0, 0, 0, 1, 2, 3, 4) }],
    ],
  ])('%s are left out', (_name, extensions) => {
    expect(mixedScene().forward('site', udp(before, { extensions }))).toEqual(
      udp(after, withoutDf())
    );
  });

  test('sets DF only in packets that leave with more than 1260 bytes', () => {
    const build = (ends: Ends, length: number, manner: object): Uint8Array =>
      udp(ends, { payload: new Uint8Array(length - 28), ...manner });
    const scene = mixedScene();
    const sizes: [number, object][] = [
      [1260, withoutDf(0)],
      [1261, withDf],
      [100, withoutDf(1)],
      [1480, withDf],
      [28, withoutDf(2)],
    ];
    for (const [length, manner] of sizes) {
      expect(scene.forward('site', build(before, length, {}))).toEqual(
        build(after, length, manner)
      );
    }
  });

  test('wraps the identification around', () => {
    const scene = mixedScene();
    const packet = udp(before, {});
    for (let i = 0; i < 0x10000; i++) scene.send('site', packet);
    expect(scene.forward('site', packet)).toEqual(udp(after, withoutDf(0)));
    expect(scene.forward('site', packet)).toEqual(udp(after, withoutDf(1)));
  });

  test('uses no identification for a refused packet', () => {
    const scene = mixedScene();
    scene.send('site', udpPacket(before, { sourcePort: 1, destinationPort: 1 }));
    scene.send('site', authenticated(before, 6));
    expect(scene.forward('site', udp(before, {}))).toEqual(udp(after, withoutDf(0)));
  });

  test('keeps the low 16 bits of the identification of a fragment', () => {
    const scene = mixedScene();
    const bytes = (ends: Ends): Uint8Array => udp(ends, { payload: new Uint8Array(56) });
    const extension = (bits: number): object => ({
      extensions: [{ type: 44, bytes: Uint8Array.of(0, 0, 0, bits, 0x12, 0x34, 0xab, 0xcd) }],
    });
    const manner = (fragment: number): object => ({ fragment, identification: 0xabcd });
    expect(
      scene.forward('site', ipPacket(before, 17, bytes(before).subarray(40, 72), extension(1)))
    ).toEqual(ipPacket(after, 17, bytes(after).subarray(20, 52), manner(0x2000)));
    expect(
      scene.forward('site', ipPacket(before, 17, bytes(before).subarray(72), extension(32)))
    ).toEqual(ipPacket(after, 17, bytes(after).subarray(52), manner(4)));
    expect(scene.forward('site', udp(before, {}))).toEqual(udp(after, withoutDf(0)));
  });

  test('refuses a first fragment with options behind its fragment header, because the offsets would change', () => {
    const extensions = [
      { type: 44, bytes: Uint8Array.of(0, 0, 0, 1, 0, 0, 0, 1) },
      { type: 60, bytes: Uint8Array.of(0, 0, 1, 4, 0, 0, 0, 0) },
    ];
    const packet = ipPacket(before, 47, new Uint8Array(8), { extensions });
    expect(mixedScene().send('site', packet).verdict).toBe('DropUnsupported');
  });
});

describe('the virtio-net header', () => {
  const tcp = (ends: Ends, checksum: 'partial' | 'complete', more = {}): Uint8Array =>
    tcpPacket(ends, { ...TCP_PORTS, payload: new Uint8Array(3000), checksum, ...more });
  const partial = (version: Version, more: VnetHeader = {}): VnetHeader => ({
    flags: 1,
    checksumStart: version === 4 ? 20 : 40,
    checksumOffset: 16,
    ...more,
  });

  test.each(CROSS_VERSION_PATHS)(
    'is updated for a TCP super-packet $name',
    ({ from, to, request }) => {
      const scene = mixedScene();
      const header = (version: Version): VnetHeader =>
        partial(version, {
          gsoType: (version === 4 ? 1 : 4) | 0x80,
          gsoSize: 1000,
          headerLength: version === 4 ? 40 : 60,
        });
      const left = scene.forward('site', tcp(request.before, 'partial'), header(from));
      expect(left).toEqual(tcp(request.after, 'partial', to === 4 ? withDf : {}));
      expect(scene.vnet).toEqual(framed(left, header(to)).slice(0, 10));
    }
  );

  test.each(CROSS_VERSION_PATHS)(
    'a partial checksum of UDP $name, header length 0',
    ({ from, to, request }) => {
      const scene = mixedScene();
      const build = (ends: Ends, more = {}): Uint8Array =>
        udpPacket(ends, { ...UDP_PORTS, payload: PAYLOAD, checksum: 'partial', ...more });
      const left = scene.forward(
        'site',
        build(request.before),
        partial(from, { checksumOffset: 6 })
      );
      expect(left).toEqual(build(request.after, to === 4 ? withoutDf() : {}));
      expect(scene.vnet).toEqual(framed(left, partial(to, { checksumOffset: 6 })).slice(0, 10));
    }
  );

  test('loses the partial checksum of an ICMPv6 echo, which is complete over IPv4', () => {
    const scene = mixedScene();
    const { before, after } = INTO4.request;
    const left = scene.forward(
      'site',
      echoPacket(before, { payload: PAYLOAD, checksum: 'partial' }),
      { flags: 1, checksumStart: 40, checksumOffset: 2 }
    );
    expect(left).toEqual(echoPacket(after, { payload: PAYLOAD, ...withoutDf() }));
    expect(scene.vnet[0]).toBe(0);
  });

  test('of zeros does not change', () => {
    const scene = mixedScene();
    for (const { request } of CROSS_VERSION_PATHS) {
      scene.forward('site', tcp(request.before, 'complete'), {});
      expect(scene.vnet).toEqual(new Uint8Array(10));
    }
  });
});

describe('ICMP errors', () => {
  const into = (to: Version): typeof INTO4 => (to === 6 ? INTO4 : INTO6);
  /** The error to the client, whose version is `to`, about the datagram that it sent. */
  const error = (
    scene: Scene,
    to: Version,
    before: { type: number; code?: number; rest?: number },
    quotedMore: object = {},
    more: object = {}
  ): { verdict: string; packet: Uint8Array } => {
    const { request, reply } = into(to);
    const quoted = udpPacket(request.after, { ...UDP_PORTS, payload: PAYLOAD, ...quotedMore });
    return scene.send('cloud', icmpError(reply.before, { ...before, quoted, ...more }));
  };

  test.each<[name: string, to: Version, { type: number; code: number; rest?: number }, object]>([
    ['port unreachable', 6, { type: 3, code: 3 }, { type: 1, code: 4 }],
    ['time exceeded', 6, { type: 11, code: 0 }, { type: 3, code: 0 }],
    ['pointer to the TTL', 6, { type: 12, code: 0, rest: 8 << 24 }, { type: 4, code: 0, rest: 7 }],
    ['fragmentation needed', 6, { type: 3, code: 4, rest: 1400 }, { type: 2, code: 0, rest: 1420 }],
    ['port unreachable', 4, { type: 1, code: 4 }, { type: 3, code: 3 }],
    ['time exceeded', 4, { type: 3, code: 1 }, { type: 11, code: 1 }],
    [
      'pointer to the hop limit',
      4,
      { type: 4, code: 0, rest: 7 },
      { type: 12, code: 0, rest: 8 << 24 },
    ],
    ['packet too big', 4, { type: 2, code: 0, rest: 1400 }, { type: 3, code: 4, rest: 1380 }],
  ])('%s, to IPv%i', (_name, to, before, after) => {
    const { request, reply } = into(to);
    const left = error(mixedScene(), to, before);
    const quoted = udpPacket(request.before, { ...UDP_PORTS, payload: PAYLOAD, ...withDf });
    const kind = after as { type: number };
    expect(left.packet).toEqual(
      icmpError(reply.after, { ...kind, quoted, ...(to === 4 ? withoutDf() : {}) })
    );
    expect(verifyChecksums(framed(left.packet))).toEqual([]);
  });

  test.each<[name: string, to: Version, { type: number; code: number; rest?: number }]>([
    ['host precedence violation', 6, { type: 3, code: 14 }],
    ['a missing option', 6, { type: 12, code: 1 }],
    ['a pointer to the identification', 6, { type: 12, code: 0, rest: 4 << 24 }],
    ['a pointer behind the header', 4, { type: 4, code: 0, rest: 40 }],
    ['an unknown option', 4, { type: 4, code: 2 }],
    ['an ingress policy', 4, { type: 1, code: 5 }],
  ])('%s has no counterpart, to IPv%i', (_name, to, kind) => {
    expect(error(mixedScene(), to, kind).verdict).toBe('DropUnsupported');
  });

  test.each([4, 6] as const)('translates a quote truncated at any length, to IPv%i', (to) => {
    const { request, reply } = into(to);
    const headers = to === 6 ? 28 : 48;
    const full = udpPacket(request.after, { ...UDP_PORTS, payload: PAYLOAD }).length;
    const after = udpPacket(request.before, { ...UDP_PORTS, payload: PAYLOAD, ...withDf });
    for (let length = headers; length <= full; length++) {
      const kind = to === 6 ? { type: 3, code: 3 } : { type: 1, code: 4 };
      const left = error(mixedScene(), to, kind, {}, { quoteLength: length });
      const quoteLength = length - headers + (to === 6 ? 48 : 28);
      expect(left.packet).toEqual(
        icmpError(reply.after, {
          ...(to === 6 ? { type: 1, code: 4 } : { type: 3, code: 3 }),
          quoted: after,
          quoteLength,
          ...(to === 4 ? withoutDf() : {}),
        })
      );
    }
  });

  test.each([4, 6] as const)('keeps a wrong ICMP checksum wrong, to IPv%i', (to) => {
    const kind = to === 6 ? { type: 3, code: 3 } : { type: 1, code: 4 };
    const left = error(mixedScene(), to, kind, {}, { checksum: 0x1234 });
    expect(verifyChecksums(framed(left.packet))).toEqual(['icmp']);
  });

  test.each([
    [6, 1280],
    [4, 576],
  ] as const)('truncates an error to IPv%i that would be longer than %i', (to, most) => {
    const kind = to === 6 ? { type: 3, code: 3 } : { type: 1, code: 4 };
    const left = error(mixedScene(), to, kind, { payload: new Uint8Array(1300).fill(5) });
    expect(left.packet).toHaveLength(most);
    expect(verifyChecksums(framed(left.packet))).toEqual([]);
  });

  const extensions = Uint8Array.of(0x20, 0, 0xdf, 0xff, 0, 8, 1, 1, 0, 1, 1, 1);

  test.each([4, 6] as const)('keeps extensions (RFC 4884) behind the quote, to IPv%i', (to) => {
    const { request, reply } = into(to);
    const [before, after] =
      to === 6
        ? [
            { type: 3, code: 1 },
            { type: 1, code: 0 },
          ]
        : [
            { type: 1, code: 0 },
            { type: 3, code: 1 },
          ];
    const payload = new Uint8Array(99).fill(5);
    const left = error(mixedScene(), to, before, { payload }, { icmpExtensions: extensions });
    const quoted = udpPacket(request.before, { ...UDP_PORTS, payload, ...withDf });
    // The quote was already padded, with zeros that are part of it now.
    const filled = filledUp(to === 6 ? 28 : 48, 107, to === 6 ? 4 : 8, quoted);
    expect(left.packet).toEqual(
      icmpError(reply.after, {
        ...after,
        quoted: filled,
        icmpExtensions: extensions,
        ...(to === 4 ? withoutDf() : {}),
      })
    );
    expect(verifyChecksums(framed(left.packet))).toEqual([]);
  });

  test.each([
    ['a packet with DF', { fragment: 0x4000, identification: 7 }, withDf],
    ['one without DF', { fragment: 0, identification: 7 }, withDf],
  ])('a quote of %s', (_name, before, after) => {
    const left = error(mixedScene(), 6, { type: 3, code: 3 }, before);
    const { request, reply } = into(6);
    expect(left.packet).toEqual(
      icmpError(reply.after, {
        type: 1,
        code: 4,
        quoted: udpPacket(request.before, { ...UDP_PORTS, payload: PAYLOAD, ...after }),
      })
    );
  });

  test('translates a quote of a first fragment, to IPv6', () => {
    const { request, reply } = into(6);
    const left = error(
      mixedScene(),
      6,
      { type: 3, code: 3 },
      { fragment: 0x2000, identification: 7 }
    );
    const bytes = Uint8Array.of(0, 0, 0, 1, 0, 0, 0, 7);
    const quoted = udpPacket(request.before, {
      ...UDP_PORTS,
      payload: PAYLOAD,
      extensions: [{ type: 44, bytes }],
    });
    expect(left.packet).toEqual(icmpError(reply.after, { type: 1, code: 4, quoted }));
  });

  test('removes the extension headers of an IPv6 quote', () => {
    const options = { type: 60, bytes: Uint8Array.of(0, 0, 1, 4, 0, 0, 0, 0) };
    const left = error(mixedScene(), 4, { type: 1, code: 4 }, { extensions: [options, options] });
    const { request, reply } = into(4);
    const quoted = udpPacket(request.before, { ...UDP_PORTS, payload: PAYLOAD, ...withDf });
    expect(left.packet).toEqual(
      icmpError(reply.after, { type: 3, code: 3, quoted, ...withoutDf() })
    );
  });

  test.each([
    ['TCP', (ends: Ends, more: object) => tcpPacket(ends, { ...TCP_PORTS, flags: SYN, ...more })],
    ['echo', (ends: Ends, more: object) => echoPacket(ends, { payload: PAYLOAD, ...more })],
    ['GRE', (ends: Ends, more: object) => ipPacket(ends, 47, PAYLOAD, more)],
  ])('translates a quote of %s, in both directions', (_name, build) => {
    for (const to of [4, 6] as const) {
      const { request, reply } = into(to);
      const [before, after] =
        to === 6
          ? [
              { type: 3, code: 1 },
              { type: 1, code: 0 },
            ]
          : [
              { type: 1, code: 0 },
              { type: 3, code: 1 },
            ];
      const packet = icmpError(reply.before, { ...before, quoted: build(request.after, {}) });
      const expected = icmpError(reply.after, {
        ...after,
        quoted: build(request.before, withDf),
        ...(to === 4 ? withoutDf() : {}),
      });
      expect(mixedScene().forward('cloud', packet)).toEqual(expected);
    }
  });
});

function authenticated(ends: Ends, version: Version): Uint8Array {
  if (version === 4) return ipPacket(ends, 51, new Uint8Array(24));
  const extensions = [{ type: 51, bytes: Uint8Array.of(0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2) }];
  return udpPacket(ends, { ...UDP_PORTS, extensions });
}

function echoFragment(ends: Ends, version: Version): Uint8Array {
  const echo = echoPacket(ends, { payload: new Uint8Array(24) });
  if (version === 4) return ipPacket(ends, 1, echo.subarray(20, 36), { fragment: 0x2000 });
  const extensions = [{ type: 44, bytes: Uint8Array.of(0, 0, 0, 1, 0, 0, 0, 9) }];
  return ipPacket(ends, 58, echo.subarray(40, 56), { extensions });
}

/** The quote with other headers, padded to a multiple of `unit` and to at least 128 bytes. */
function filledUp(
  headers: number,
  transport: number,
  unit: number,
  quoted: Uint8Array
): Uint8Array {
  const before = Math.max(128, Math.ceil((headers - 8 + transport) / unit) * unit);
  const newHeaders = quoted.length - transport;
  const bytes = new Uint8Array(newHeaders + before - (headers - 8));
  bytes.set(quoted);
  return bytes;
}

function hex(...lines: string[]): Uint8Array {
  return Uint8Array.from(Buffer.from(lines.join('').replaceAll(' ', ''), 'hex'));
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

/** Writes the right checksums: of the IPv4 header, and of what follows, by the definition (RFC 1071). */
function repair(packet: Uint8Array, protocol: number): void {
  const isIpv4 = packet[0]! >>> 4 === 4;
  const start = isIpv4 ? 20 : 40;
  const sum = (bytes: Uint8Array): number => {
    let total = 0;
    for (let i = 0; i < bytes.length; i += 2) total += (bytes[i]! << 8) | (bytes[i + 1] ?? 0);
    return total;
  };
  const write = (at: number, total: number): void => {
    while (total > 0xffff) total = (total & 0xffff) + Math.floor(total / 0x10000);
    packet[at] = (~total >> 8) & 255;
    packet[at + 1] = ~total & 255;
  };
  if (isIpv4) {
    packet.fill(0, 10, 12);
    write(10, sum(packet.subarray(0, 20)));
  }
  const at = start + ({ 1: 2, 6: 16, 17: 6, 58: 2 }[protocol] ?? 0);
  packet.fill(0, at, at + 2);
  const addresses = packet.subarray(isIpv4 ? 12 : 8, isIpv4 ? 20 : 40);
  const pseudo = protocol === 1 ? 0 : sum(addresses) + protocol + packet.length - start;
  write(at, sum(packet.subarray(start)) + pseudo);
}

test.each([
  { from: 4, to: 6, error: { type: 3, code: 3 } },
  { from: 6, to: 4, error: { type: 1, code: 4 } },
] as const)(
  'a damaged checksum of an error, IPv$from to IPv$to, stays damaged by the same amount',
  (row) => {
    const { from, to, error } = row;
    const { request, reply } = mixedPath(to, from);
    const quoted = udpPacket(request.after, { sourcePort: 40_000, destinationPort: 53 });
    const plan = mixedPlan();
    const oracle = new NaiveTranslator(plan);
    const { translator } = mixedScene();
    const cloud = translator.realm('cloud');
    const different: number[] = [];
    for (let checksum = 0; checksum < 0x10000; checksum++) {
      const frame = framed(icmpError(reply.before, { ...error, quoted, checksum }));
      const buffer = new Uint8Array(TRANSLATION_HEADROOM + frame.length);
      buffer.set(frame, TRANSLATION_HEADROOM);
      const start = TRANSLATION_HEADROOM + VNET;
      translator.translate(cloud, buffer, start, buffer.length, start - VNET, TRANSLATION_HEADROOM);
      const left = buffer.subarray(translator.vnet, translator.end);
      const expected = oracle.translate('cloud', frame).frame;
      if (expected === undefined || Buffer.compare(left, expected) !== 0) different.push(checksum);
    }
    expect(different).toEqual([]);
  }
);
