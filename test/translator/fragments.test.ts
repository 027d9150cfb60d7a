import { describe, expect, test } from 'vitest';
import {
  type Ends,
  ipPacket,
  sctpPacket,
  tcpPacket,
  transportOf,
  UDP,
  UDPLITE,
  udpLitePacket,
  udpPacket,
} from '../support/packets.ts';
import { MIXED_PATHS, mixedPath, mixedPlan, mixedScene, VERSIONS } from './mixed.ts';
import type { Scene } from './scene.ts';

/** A fragment of a datagram. */
interface Piece {
  readonly identification?: number;
  /** The length of the datagram, if it is not complete. */
  readonly isLast?: boolean;
  readonly protocol?: number;
  readonly datagram?: (ends: Ends) => Uint8Array;
}

const IDENTIFICATION = 0x4321;
const LENGTH = 200;

const udp = (ends: Ends): Uint8Array =>
  udpPacket(ends, {
    sourcePort: 40_000,
    destinationPort: 53,
    payload: new Uint8Array(LENGTH - 8).map((_, i) => i),
  });

/** The bytes `from` to `to` of the datagram, as a fragment; the last one if `to` is its end. */
function piece(ends: Ends, from: number, to: number, options: Piece = {}): Uint8Array {
  const { identification = IDENTIFICATION, datagram = udp } = options;
  const whole = datagram(ends);
  const { protocol, start } = transportOf(whole);
  const bytes = whole.subarray(start);
  const isLast = options.isLast ?? to === bytes.length;
  const payload = new Uint8Array(to - from);
  payload.set(bytes.subarray(from, to));
  if (!ends.source.includes(':')) {
    const fragment = (isLast ? 0 : 0x2000) | (from / 8);
    return ipPacket(ends, options.protocol ?? protocol, payload, { fragment, identification });
  }
  const header = new Uint8Array(8);
  const view = new DataView(header.buffer);
  view.setUint16(2, from | (isLast ? 0 : 1));
  view.setUint32(4, identification);
  return ipPacket(ends, options.protocol ?? protocol, payload, {
    extensions: [{ type: 44, bytes: header }],
  });
}

describe.each(VERSIONS)('IPv%i', (version) => {
  const { request, reply } = mixedPath(version, version);
  const { before, after } = request;
  const send = (scene: Scene, from: number, to: number, options?: Piece): string =>
    scene.send('site', piece(before, from, to, options)).verdict;

  test.each([
    ['in order', [0, 64, 128]],
    ['the last one second', [0, 128, 64]],
  ])('%s: each leaves with new addresses, the first with the new checksum', (_name, offsets) => {
    const scene = mixedScene();
    for (const from of offsets) {
      const to = Math.min(from + 64, LENGTH);
      const last = from === 128 ? LENGTH : to;
      expect(scene.forward('site', piece(before, from, last))).toEqual(piece(after, from, last));
    }
  });

  test.each([
    ['TCP', tcpDatagram, 64],
    ['UDP-Lite', liteDatagram, 64],
    ['SCTP', sctpDatagram, 64],
    ['GRE', greDatagram, 64],
  ])('%s is forwarded in fragments', (_name, datagram, boundary) => {
    const scene = mixedScene();
    const length = transportLengthOf(datagram(before));
    for (const [from, to] of [
      [0, boundary],
      [boundary, length],
    ] as const) {
      expect(scene.forward('site', piece(before, from, to, { datagram }))).toEqual(
        piece(after, from, to, { datagram })
      );
    }
  });

  test('a fragment is counted on the path of its first one', () => {
    const scene = mixedScene();
    const packets = [piece(before, 0, 64), piece(before, 64, LENGTH)];
    for (const packet of packets) scene.forward('site', packet);
    expect(scene.paths()).toMatchObject([
      { packets: 2, bytes: packets[0]!.length + packets[1]!.length },
    ]);
  });

  test('a later fragment before the first one, or of another datagram, is an orphan', () => {
    const scene = mixedScene();
    expect(send(scene, 64, 128)).toBe('DropFragmentOrphan');
    send(scene, 0, 64);
    expect(send(scene, 64, 128, { identification: 0x4322 })).toBe('DropFragmentOrphan');
    expect(send(scene, 64, 128)).toBe('Forward');
    expect(scene.counters('site')).toEqual({ DropFragmentOrphan: 2, Forward: 2 });
  });

  test('a later fragment to another address is an orphan', () => {
    const scene = mixedScene();
    send(scene, 0, 64);
    const other = mixedPath(version, version === 4 ? 6 : 4).request.before;
    expect(scene.send('site', piece(other, 64, 128)).verdict).toBe('DropFragmentOrphan');
    const otherSource = { ...before, source: version === 4 ? '10.0.0.6' : 'fd00::6' };
    expect(scene.send('site', piece(otherSource, 64, 128)).verdict).toBe('DropFragmentOrphan');
  });

  test('a later fragment with the same addresses from the other realm is an orphan', () => {
    const scene = mixedScene();
    send(scene, 0, 64);
    expect(scene.send('cloud', piece(before, 64, 128)).verdict).toBe('DropFragmentOrphan');
  });

  test.each<[string, Piece & { readonly firstLength?: number }, verdict: string]>([
    ['a port that is not exposed', { datagram: closed }, 'DropNotPermitted'],
    ['an incomplete TCP header', { datagram: tcpDatagram, firstLength: 16 }, 'DropFragment'],
  ])('the first refused for %s: the later ones are orphans', (_name, options, verdict) => {
    const scene = mixedScene();
    const firstLength = options.firstLength ?? 64;
    expect(send(scene, 0, firstLength, options)).toBe(verdict);
    expect(send(scene, 128, 192, options)).toBe('DropFragmentOrphan');
  });

  test('a fragmented reply needs a session', () => {
    const scene = mixedScene();
    const datagram = (ends: Ends): Uint8Array =>
      udpPacket(ends, { sourcePort: 53, destinationPort: 40_000, payload: new Uint8Array(192) });
    const answers = [
      piece(reply.before, 0, 64, { datagram }),
      piece(reply.before, 64, LENGTH, { datagram }),
    ];
    expect(scene.verdicts('cloud', ...answers)).toEqual(['DropNoSession', 'DropFragmentOrphan']);
    // The first fragment of a request opens a session.
    send(scene, 0, 64);
    expect(scene.verdicts('cloud', ...answers)).toEqual(['Forward', 'Forward']);
  });

  test('a source that the realm may not use is refused', () => {
    const foreign = { ...before, source: version === 4 ? '192.0.2.9' : '2001:db8::9' };
    expect(mixedScene().send('site', piece(foreign, 0, 64)).verdict).toBe('DropSpoofed');
  });

  describe('fragmentTimeoutMs', () => {
    const at = (scene: Scene, now: number, from: number, to: number): string => {
      scene.translator.advance(now);
      return send(scene, from, to);
    };

    test('lets later fragments pass for 15 s after the first one, whatever came meanwhile', () => {
      const scene = mixedScene();
      expect(at(scene, 1000, 0, 64)).toBe('Forward');
      expect(at(scene, 15_999, 64, 72)).toBe('Forward');
      expect(at(scene, 16_000, 72, 80)).toBe('Forward');
      expect(at(scene, 16_001, 80, 88)).toBe('DropFragmentOrphan');
      expect(at(scene, 16_002, 0, 64)).toBe('Forward');
      expect(at(scene, 31_002, 80, 88)).toBe('Forward');
      expect(at(scene, 31_003, 88, 96)).toBe('DropFragmentOrphan');
    });

    test('can be changed', () => {
      const scene = mixedScene({ fragmentTimeoutMs: 10 });
      expect([at(scene, 0, 0, 64), at(scene, 10, 64, 72)]).toEqual(['Forward', 'Forward']);
      expect(at(scene, 11, 72, 80)).toBe('DropFragmentOrphan');
    });
  });

  describe('attacks', () => {
    const F = 'Forward';
    const D = 'DropFragment';
    const O = 'DropFragmentOrphan';

    /** Rows of [from, to, verdict], and whether it says that it is the last. */
    test.each<[name: string, rows: (readonly [number, number, string, boolean?])[]]>([
      [
        'an overlap by one unit refuses the rest',
        [
          [0, 64, F],
          [56, 72, D],
          [64, 72, D],
          [128, 136, D],
        ],
      ],
      [
        'an overlap from behind refuses the rest',
        [
          [0, 64, F],
          [80, 96, F],
          [72, 88, D],
          [64, 72, D],
        ],
      ],
      [
        'a fragment around another refuses the rest',
        [
          [0, 64, F],
          [80, 88, F],
          [72, 96, D],
          [96, 104, D],
        ],
      ],
      [
        'a fragment from byte 8 within the first is harmless',
        [
          [0, 64, F],
          [8, 16, D],
          [64, 72, F],
        ],
      ],
      [
        'a duplicate is harmless',
        [
          [0, 64, F],
          [64, 72, F],
          [64, 72, D],
          [72, 80, F],
        ],
      ],
      [
        'a part of an earlier fragment is harmless',
        [
          [0, 64, F],
          [64, 96, F],
          [72, 80, D],
          [96, 104, F],
        ],
      ],
      [
        'a part of two adjacent fragments is harmless',
        [
          [0, 64, F],
          [64, 72, F],
          [72, 80, F],
          [56, 80, D],
          [80, 88, F],
        ],
      ],
      [
        'a fragment behind the last',
        [
          [0, 64, F],
          [96, 100, F, true],
          [104, 112, D],
          [64, 72, D],
        ],
      ],
      [
        'a fragment that extends over the last',
        [
          [0, 64, F],
          [96, 100, F, true],
          [88, 104, D],
          [64, 72, D],
        ],
      ],
      [
        'a last fragment before earlier ones',
        [
          [0, 64, F],
          [96, 104, F],
          [64, 70, D, true],
          [72, 80, D],
        ],
      ],
      [
        'two last fragments',
        [
          [0, 64, F],
          [96, 104, F, true],
          [64, 72, D, true],
          [72, 80, D],
        ],
      ],
      [
        'a last fragment within the last one is harmless',
        [
          [0, 64, F],
          [96, 104, F, true],
          [96, 104, D, true],
          [64, 72, F],
        ],
      ],
      [
        'the same first fragment restarts the datagram',
        [
          [0, 64, F],
          [64, 72, F],
          [0, 64, F],
          [64, 72, F],
        ],
      ],
      [
        'a second, longer first fragment',
        [
          [0, 64, F],
          [0, 72, D],
          [72, 80, D],
          [0, 64, D],
        ],
      ],
      [
        'a second, shorter first fragment',
        [
          [0, 64, F],
          [0, 56, D],
          [64, 72, D],
          [0, 64, D],
        ],
      ],
      [
        'a complete datagram ends the record',
        [
          [0, 64, F],
          [64, 72, F, true],
          [64, 72, O, true],
          [0, 64, F],
        ],
      ],
      [
        'a datagram completed out of order ends the record',
        [
          [0, 64, F],
          [72, 80, F, true],
          [64, 72, F],
          [64, 72, O],
        ],
      ],
    ])('%s', (_name, rows) => {
      const scene = mixedScene();
      const verdicts = rows.map(([from, to, , isLast]) =>
        send(scene, from, to, { isLast: isLast ?? false })
      );
      expect(verdicts).toEqual(rows.map(([, , verdict]) => verdict));
    });

    test('a fragment that leaves a ninth hole is refused, those that fill holes pass', () => {
      const scene = mixedScene();
      const rows: string[] = [send(scene, 0, 16)];
      for (let hole = 1; hole <= 8; hole++) rows.push(send(scene, 16 * hole + 8, 16 * hole + 16));
      expect(rows).toEqual(Array(9).fill('Forward'));
      expect(send(scene, 16 * 9 + 8, 16 * 9 + 16)).toBe('DropFragment');
      // A fragment that touches another one leaves no hole.
      expect(send(scene, 16 * 8 + 16, 16 * 8 + 24)).toBe('Forward');
      expect(send(scene, 16, 24)).toBe('Forward');
      expect(send(scene, 168, 176)).toBe('Forward');
    });

    test('a refused datagram may come again after its timeout', () => {
      const scene = mixedScene();
      send(scene, 0, 64);
      send(scene, 56, 72);
      scene.translator.advance(15_000);
      expect([send(scene, 0, 64), send(scene, 64, 72)]).toEqual(['DropFragment', 'DropFragment']);
      scene.translator.advance(15_001);
      expect([send(scene, 0, 64), send(scene, 64, 72)]).toEqual(['Forward', 'Forward']);
    });

    test('all fragments behind the first pass in any order, and then the record is gone', () => {
      for (const order of permutations([64, 72, 80, 192])) {
        const scene = mixedScene();
        send(scene, 0, 64);
        const to: Record<number, number> = { 64: 72, 72: 80, 80: 192, 192: LENGTH };
        expect(order.map((from) => send(scene, from, to[from]!))).toEqual(Array(4).fill('Forward'));
        expect(send(scene, 72, 80)).toBe('DropFragmentOrphan');
      }
    });
  });

  describe('a partial checksum or a super-packet', () => {
    const start = version === 4 ? 20 : 48;
    test.each([
      ['a first one, partial checksum', 0, { flags: 1, checksumStart: start, checksumOffset: 6 }],
      ['a later one, partial checksum', 64, { flags: 1, checksumStart: start, checksumOffset: 6 }],
      [
        'a first one, super-packet',
        0,
        { flags: 1, gsoType: 5, gsoSize: 32, checksumStart: start, checksumOffset: 6 },
      ],
      ['a later one with only a segment size', 64, { gsoType: 5, gsoSize: 32 }],
    ])('%s is malformed', (_name, from, header) => {
      const scene = mixedScene();
      if (from > 0) send(scene, 0, from);
      const sent = scene.send('site', piece(before, from, from + 64), header);
      expect(sent.verdict).toBe('DropMalformed');
    });

    test('a virtio-net header of zeros changes nothing', () => {
      const scene = mixedScene();
      expect(scene.forward('site', piece(before, 0, 64), {})).toEqual(piece(after, 0, 64));
      expect(scene.forward('site', piece(before, 64, LENGTH), {})).toEqual(
        piece(after, 64, LENGTH)
      );
    });
  });

  describe('a full table of datagrams', () => {
    const first = (scene: Scene, identification: number): string =>
      send(scene, 0, 64, { identification });
    const later = (scene: Scene, identification: number): string =>
      send(scene, 64, 72, { identification });

    test('replaces the oldest', () => {
      const scene = mixedScene({ maxFragments: 4 });
      for (let id = 1; id <= 10; id++) {
        scene.translator.advance(id);
        expect(first(scene, id)).toBe('Forward');
      }
      const ids = Array.from({ length: 10 }, (_, i) => i + 1);
      expect(ids.filter((id) => later(scene, id) === 'Forward')).toEqual([7, 8, 9, 10]);
    });

    test('never replaces the datagrams of another realm', () => {
      const scene = mixedScene({ maxFragments: 4 });
      for (const id of [1, 2, 3, 4]) first(scene, id);
      const query = udpPacket(before, { sourcePort: 40_000, destinationPort: 53 });
      scene.forward('site', query);
      const datagram = (ends: Ends): Uint8Array =>
        udpPacket(ends, { sourcePort: 53, destinationPort: 40_000, payload: new Uint8Array(192) });
      for (let identification = 1; identification <= 100; identification++) {
        scene.forward('cloud', piece(reply.before, 0, 64, { identification, datagram }));
      }
      expect([1, 2, 3, 4].map((id) => later(scene, id))).toEqual(Array(4).fill('Forward'));
    });

    test('has no records of refused fragments', () => {
      const scene = mixedScene({ maxFragments: 4 });
      for (const id of [1, 2, 3, 4]) first(scene, id);
      for (let id = 5; id <= 100; id++) {
        send(scene, 0, 64, { identification: id, datagram: closed });
        later(scene, id);
      }
      expect([1, 2, 3, 4].map((id) => later(scene, id))).toEqual(Array(4).fill('Forward'));
    });

    test('forwards 128 datagrams at once with room for 1024', () => {
      const scene = mixedScene();
      const ids = Array.from({ length: 128 }, (_, i) => i * 257);
      for (const id of ids) first(scene, id);
      expect(ids.filter((id) => later(scene, id) !== 'Forward')).toEqual([]);
    });

    test.each([0, 1.5, 2 ** 20 + 1, Number.NaN])('maxFragments cannot be %d', (maxFragments) => {
      expect(() => mixedScene({ maxFragments })).toThrow(
        `maxFragments must be a whole number from 1 to 1048576, not ${maxFragments}`
      );
    });

    test.each([0, 120_001])('fragmentTimeoutMs cannot be %d', (fragmentTimeoutMs) => {
      expect(() => mixedScene({ fragmentTimeoutMs })).toThrow(
        `fragmentTimeoutMs must be a whole number from 1 to 120000, not ${fragmentTimeoutMs}`
      );
    });
  });

  describe('a new plan', () => {
    test('that still has the path lets later fragments pass', () => {
      const scene = mixedScene();
      send(scene, 0, 64);
      const plan = mixedPlan();
      scene.translator.load({ ...plan, presences: plan.presences.toReversed() });
      expect(scene.forward('site', piece(before, 64, LENGTH))).toEqual(piece(after, 64, LENGTH));
    });

    test('that does not have the path makes them orphans, also when the path comes back', () => {
      const scene = mixedScene();
      send(scene, 0, 64);
      scene.translator.load({ ...mixedPlan(), permits: [] });
      expect(send(scene, 64, 72)).toBe('DropFragmentOrphan');
      scene.translator.load(mixedPlan());
      expect(send(scene, 64, 72)).toBe('DropFragmentOrphan');
    });

    test('in which the address stands for another host does not send them there', () => {
      const scene = mixedScene();
      send(scene, 0, 64);
      const { realms, presences, permits } = mixedPlan();
      const second = { realm: 'cloud', address: version === 4 ? '10.0.0.10' : 'fd00::a' };
      scene.translator.load({
        realms,
        presences: presences.map((presence) =>
          presence.address === before.destination ? { ...presence, of: second } : presence
        ),
        permits: permits.map((permit) => ({ ...permit, service: second })),
      });
      expect(send(scene, 64, 72)).toBe('DropFragmentOrphan');
    });
  });
});

test('over IPv4 the protocol distinguishes datagrams', () => {
  const { before } = mixedPath(4, 4).request;
  const scene = mixedScene();
  scene.forward('site', piece(before, 0, 64));
  const packets = [
    piece(before, 64, 72, { protocol: UDPLITE }),
    piece(before, 64, 72, { protocol: UDP }),
  ];
  expect(scene.verdicts('site', ...packets)).toEqual(['DropFragmentOrphan', 'Forward']);
});

test('over IPv6 the protocol does not distinguish datagrams: a later fragment may have another', () => {
  const { before } = mixedPath(6, 6).request;
  const scene = mixedScene();
  scene.forward('site', piece(before, 0, 64));
  expect(scene.send('site', piece(before, 64, 72, { protocol: UDPLITE })).verdict).toBe('Forward');
});

test('the identification of IPv6 has 32 bits', () => {
  const { before } = mixedPath(6, 6).request;
  const scene = mixedScene();
  scene.forward('site', piece(before, 0, 64, { identification: 0x80000001 }));
  const verdict = (identification: number): string =>
    scene.send('site', piece(before, 64, 72, { identification })).verdict;
  expect([1, 0x10001, 0x80000001].map(verdict)).toEqual([
    'DropFragmentOrphan',
    'DropFragmentOrphan',
    'Forward',
  ]);
});

test.each(MIXED_PATHS)('a datagram of 64 KiB is forwarded $name', ({ request, from }) => {
  const scene = mixedScene();
  const datagram = (ends: Ends): Uint8Array =>
    udpPacket(ends, {
      sourcePort: 40_000,
      destinationPort: 53,
      payload: new Uint8Array(65_507),
      checksum: 0x1234,
    });
  const whole = datagram(request.before).length - (from === 4 ? 20 : 40);
  for (let at = 0; at < whole; at += 1280) {
    const packet = piece(request.before, at, Math.min(at + 1280, whole), { datagram });
    expect([at, scene.send('site', packet).verdict]).toEqual([at, 'Forward']);
  }
});

test('an unfragmented packet with a fragment header is no fragment (RFC 6946)', () => {
  const { before, after } = mixedPath(6, 6).request;
  const build = (ends: Ends): Uint8Array =>
    udpPacket(ends, {
      sourcePort: 40_000,
      destinationPort: 53,
      extensions: [{ type: 44, bytes: Uint8Array.of(0, 0, 0, 0, 1, 2, 3, 4) }],
    });
  const scene = mixedScene({ maxFragments: 1 });
  expect(scene.forward('site', build(before))).toEqual(build(after));
  // It left no record.
  expect(scene.send('site', piece(before, 64, 72, { identification: 0x01020304 })).verdict).toBe(
    'DropFragmentOrphan'
  );
});

function tcpDatagram(ends: Ends): Uint8Array {
  const ports = { sourcePort: 40_000, destinationPort: 5672 };
  return tcpPacket(ends, { ...ports, payload: new Uint8Array(LENGTH).map((_, i) => i) });
}

function liteDatagram(ends: Ends): Uint8Array {
  const ports = { sourcePort: 40_000, destinationPort: 5004 };
  return udpLitePacket(ends, { ...ports, coverage: 8, payload: new Uint8Array(LENGTH) });
}

function sctpDatagram(ends: Ends): Uint8Array {
  const ports = { sourcePort: 40_000, destinationPort: 3868 };
  return sctpPacket(ends, { ...ports, payload: new Uint8Array(LENGTH) });
}

function greDatagram(ends: Ends): Uint8Array {
  return ipPacket(ends, 47, new Uint8Array(LENGTH).fill(3));
}

/** A datagram to a port that no permit names. */
function closed(ends: Ends): Uint8Array {
  const ports = { sourcePort: 40_000, destinationPort: 54 };
  return udpPacket(ends, { ...ports, payload: new Uint8Array(LENGTH - 8) });
}

function transportLengthOf(packet: Uint8Array): number {
  return packet.length - transportOf(packet).start;
}

function permutations<T>(items: readonly T[]): T[][] {
  if (items.length === 0) return [[]];
  return items.flatMap((item, i) =>
    permutations(items.toSpliced(i, 1)).map((rest) => [item, ...rest])
  );
}
