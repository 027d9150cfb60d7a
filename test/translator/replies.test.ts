import { describe, expect, test } from 'vitest';
import type { Reject } from '../../src/translator/index.ts';
import { verifyChecksums } from '../oracle/verify.ts';
import {
  ACK,
  type Ends,
  echoPacket,
  FIN,
  icmpError,
  ipPacket,
  SYN,
  sctpPacket,
  tcpPacket,
  udpLitePacket,
  udpPacket,
} from '../support/packets.ts';
import { framed } from '../support/vnet.ts';
import { CLIENT, mixedPath, mixedScene, UNBOUND, VERSIONS, type Version } from './mixed.ts';
import { PAYLOAD, type Scene } from './scene.ts';

const RST = 0x04;
/** Ports that no permit exposes. */
const CLOSED = { sourcePort: 40_000, destinationPort: 9 };

const udp = (ends: Ends): Uint8Array => udpPacket(ends, { ...CLOSED, payload: PAYLOAD });
const tcp = (ends: Ends, more: object = {}): Uint8Array => tcpPacket(ends, { ...CLOSED, ...more });

function rejecting(reject: Reject, options: object = {}): Scene {
  return mixedScene({ site: { reject }, ...options });
}

/** The packet goes to the service, which does not expose it; the reply comes from its presence. */
function ends(version: Version): { readonly there: Ends; readonly back: Ends } {
  const there = mixedPath(version, version).request.before;
  return { there, back: { source: there.destination, destination: there.source } };
}

/** "Administratively prohibited" and "port unreachable", by IP version. */
const PROHIBITED = { 4: { type: 3, code: 13 }, 6: { type: 1, code: 1 } } as const;
const PORT = { 4: { type: 3, code: 3 }, 6: { type: 1, code: 4 } } as const;

describe.each(VERSIONS)('IPv%i', (version) => {
  const { there, back } = ends(version);
  const headers = version === 4 ? 20 : 40;
  const most = version === 4 ? 576 : 1280;

  const error = (kind: { type: number; code: number }, quoted: Uint8Array): Uint8Array =>
    icmpError(back, {
      ...kind,
      quoted,
      quoteLength: Math.min(quoted.length, most - headers - 8),
      identification: 0,
    });

  const others: [string, (ends: Ends) => Uint8Array][] = [
    ['UDP', udp],
    ['UDP-Lite', (ends) => udpLitePacket(ends, { ...CLOSED, payload: PAYLOAD })],
    ['SCTP', (ends) => sctpPacket(ends, { ...CLOSED, payload: Uint8Array.of(1, 0, 0, 4) })],
    ['SCTP without a chunk', (ends) => sctpPacket(ends, CLOSED)],
    ['ip/50', (ends) => ipPacket(ends, 50, PAYLOAD)],
    ['ip/50 of no byte', (ends) => ipPacket(ends, 50, new Uint8Array(0))],
    ['an echo reply', (ends) => echoPacket(ends, { reply: true })],
    ['a first fragment', (ends) => firstFragment(ends)],
    [
      'a long datagram',
      (ends) => udpPacket(ends, { ...CLOSED, payload: new Uint8Array(1400).fill(7) }),
    ],
  ];

  test.each([...others, ['TCP', tcp] as const])('drop: %s is not answered', (_name, build) => {
    const scene = rejecting('drop');
    expect(scene.send('site', build(there)).verdict).toBe('DropNotPermitted');
    expect(scene.reply).toBeUndefined();
  });

  test.each([...others, ['TCP', tcp] as const])(
    'unreachable: %s is answered with an ICMP error',
    (_name, build) => {
      const scene = rejecting('unreachable');
      expect(scene.send('site', build(there)).verdict).toBe('DropNotPermitted');
      expect(scene.reply).toEqual(error(PROHIBITED[version], build(there)));
      expect(verifyChecksums(framed(scene.reply!))).toEqual([]);
    }
  );

  test.each(others)('reset: %s is answered with "port unreachable"', (_name, build) => {
    const scene = rejecting('reset');
    expect(scene.send('site', build(there)).verdict).toBe('DropNotPermitted');
    expect(scene.reply).toEqual(error(PORT[version], build(there)));
  });

  test('an echo request is answered where echo is not exposed', () => {
    const packet = echoPacket(there, {});
    const scene = rejecting('reset', { ports: ['tcp/5672'] });
    expect(scene.send('site', packet).verdict).toBe('DropNotPermitted');
    expect(scene.reply).toEqual(error(PORT[version], packet));
  });

  describe('reset of TCP (RFC 9293 section 3.5.2)', () => {
    const answer = (segment: object): Uint8Array =>
      tcpPacket(back, {
        sourcePort: CLOSED.destinationPort,
        destinationPort: CLOSED.sourcePort,
        window: 0,
        identification: 0,
        ...segment,
      });
    const withoutAck = (acknowledgment: number): object => ({
      flags: RST | ACK,
      sequence: 0,
      acknowledgment,
    });

    test.each<[name: string, segment: object, reply: object]>([
      ['SYN', { flags: SYN, sequence: 100 }, withoutAck(101)],
      ['SYN with data', { flags: SYN, sequence: 100, payload: PAYLOAD }, withoutAck(101 + 19)],
      [
        'SYN with options',
        { flags: SYN, sequence: 100, tcpOptions: new Uint8Array(8) },
        withoutAck(101),
      ],
      ['SYN and FIN', { flags: SYN | FIN, sequence: 100 }, withoutAck(102)],
      ['the last sequence number', { flags: SYN, sequence: 0xffffffff }, withoutAck(0)],
      ['no flag', { flags: 0, sequence: 100, payload: PAYLOAD }, withoutAck(119)],
      [
        'ACK',
        { flags: ACK, sequence: 100, acknowledgment: 200 },
        { flags: RST, sequence: 200, acknowledgment: 0 },
      ],
      [
        'SYN and ACK',
        { flags: SYN | ACK, acknowledgment: 0xffffffff },
        { flags: RST, sequence: 0xffffffff, acknowledgment: 0 },
      ],
      [
        'FIN and ACK',
        { flags: FIN | ACK, acknowledgment: 7 },
        { flags: RST, sequence: 7, acknowledgment: 0 },
      ],
    ])('%s', (_name, segment, reply) => {
      const scene = rejecting('reset');
      expect(scene.send('site', tcp(there, segment)).verdict).toBe('DropNotPermitted');
      expect(scene.reply).toEqual(answer(reply));
      expect(verifyChecksums(framed(scene.reply!))).toEqual([]);
    });

    test('acknowledges all of a super-packet', () => {
      const scene = rejecting('reset');
      const packet = tcp(there, {
        flags: 0,
        sequence: 0,
        payload: new Uint8Array(60_000),
        checksum: 'partial',
      });
      scene.send('site', packet, {
        flags: 1,
        gsoType: version === 4 ? 1 : 4,
        gsoSize: 1400,
        checksumStart: headers,
        checksumOffset: 16,
      });
      expect(scene.reply).toEqual(answer(withoutAck(60_000)));
    });
  });

  describe('never answers', () => {
    const { reply, request } = mixedPath(version, version);
    const chunk = (type: number): Uint8Array =>
      sctpPacket(there, { ...CLOSED, payload: Uint8Array.of(type, 0, 0, 4) });
    const foreign = version === 4 ? '192.0.2.9' : '2001:db8::9';

    test.each<[name: string, verdict: string, packet: Uint8Array]>([
      ['a RST', 'DropNotPermitted', tcp(there, { flags: RST })],
      ['a RST with ACK', 'DropNotPermitted', tcp(there, { flags: RST | ACK })],
      ['an SCTP ABORT', 'DropNotPermitted', chunk(6)],
      [
        'an ICMP error about what is not permitted',
        'DropNotPermitted',
        icmpError(there, { ...PORT[version], quoted: udp(back) }),
      ],
      [
        'an ICMP error to an unused address',
        'DropNoPresence',
        icmpError(
          { ...there, destination: UNBOUND[version] },
          { ...PORT[version], quoted: udp({ source: UNBOUND[version], destination: there.source }) }
        ),
      ],
      ['a later fragment', 'DropFragmentOrphan', laterFragment(there)],
      ['a source that the realm may not use', 'DropSpoofed', udp({ ...there, source: foreign })],
      ['a source out of the pools', 'DropSpoofed', udp({ ...there, source: UNBOUND[version] })],
      [
        'a foreign source to an unused address',
        'DropNoPresence',
        udp({ source: foreign, destination: UNBOUND[version] }),
      ],
      [
        'a source in the pools to an unused address',
        'DropNoPresence',
        udp({ source: there.destination, destination: UNBOUND[version] }),
      ],
      [
        'a destination that is in no pool',
        'DropNoPresence',
        udp({ ...there, destination: foreign }),
      ],
      [
        'a destination that is a host of the realm',
        'DropNoPresence',
        udp({ ...there, destination: CLIENT[version] }),
      ],
      ['a truncated packet', 'DropMalformed', udp(there).slice(0, -1)],
      ['DCCP', 'DropUnsupported', ipPacket(there, 33, PAYLOAD)],
    ])('%s', (_name, verdict, packet) => {
      for (const reject of ['unreachable', 'reset'] as const) {
        const scene = rejecting(reject);
        expect(scene.send('site', packet).verdict).toBe(verdict);
        expect(scene.reply).toBeUndefined();
      }
    });

    test('a reply without a request', () => {
      const scene = mixedScene({ cloud: { reject: 'reset' } });
      const packet = udpPacket(reply.before, { sourcePort: 53, destinationPort: 40_000 });
      expect(scene.send('cloud', packet).verdict).toBe('DropNoSession');
      expect(scene.reply).toBeUndefined();
    });

    test('a packet that is forwarded or not dropped', () => {
      const scene = rejecting('reset');
      scene.send('site', udp(there));
      const open = { sourcePort: 40_000, destinationPort: 5672 };
      const otherSource = { ...request.before, source: version === 4 ? '10.0.0.6' : 'fd00::6' };
      expect(scene.send('site', tcpPacket(otherSource, open)).verdict).toBe('NeedsPresence');
      expect(scene.send('site', udp({ ...there, destination: CLIENT[version] })).verdict).toBe(
        'DropNoPresence'
      );
      expect(scene.reply).toBeUndefined();
    });
  });

  test('a packet to an unused address of a pool is answered like one that is not permitted', () => {
    for (const [reject, kind] of [
      ['unreachable', PROHIBITED[version]],
      ['reset', PORT[version]],
    ] as const) {
      const scene = rejecting(reject);
      const packet = udp({ ...there, destination: UNBOUND[version] });
      expect(scene.send('site', packet).verdict).toBe('DropNoPresence');
      const back = { source: UNBOUND[version], destination: there.source };
      expect(scene.reply).toEqual(icmpError(back, { ...kind, quoted: packet, identification: 0 }));
    }
  });

  test('only the ingress realm decides', () => {
    const scene = mixedScene({ site: { reject: 'reset' } });
    scene.send('cloud', udp({ source: CLIENT[version], destination: UNBOUND[version] }));
    expect(scene.reply).toBeUndefined();
    scene.translator.load({
      realms: [
        {
          name: 'site',
          sources: ['10.0.0.0/8', 'fd00::/8'],
          pools: ['100.64.0.0/24', 'fd64::/64'],
        },
      ],
      presences: [],
      permits: [],
    });
    scene.send('site', udp({ ...there, destination: UNBOUND[version] }));
    expect(scene.reply).toBeUndefined();
  });
});

describe('the rate', () => {
  const { there } = ends(4);
  /** Returns how many of `count` refused packets get an answer. */
  const answered = (scene: Scene, packets: number, realm = 'site'): number => {
    let answers = 0;
    for (let i = 0; i < packets; i++) {
      scene.send(realm, udp(there));
      if (scene.reply !== undefined) answers++;
    }
    return answers;
  };

  test('is 1000 per second, with a burst of 1000', () => {
    const scene = rejecting('reset');
    expect(answered(scene, 1100)).toBe(1000);
    scene.translator.advance(1);
    expect(answered(scene, 10)).toBe(1);
    scene.translator.advance(101);
    expect(answered(scene, 110)).toBe(100);
    scene.translator.advance(60_000);
    expect(answered(scene, 1100)).toBe(1000);
  });

  test('can be changed', () => {
    const scene = rejecting('reset', { maxRepliesPerSecond: 2 });
    expect(answered(scene, 5)).toBe(2);
    scene.translator.advance(499);
    expect(answered(scene, 5)).toBe(0);
    scene.translator.advance(500);
    expect(answered(scene, 5)).toBe(1);
    scene.translator.advance(10_000);
    expect(answered(scene, 5)).toBe(2);
  });

  test('adds up fractions of a reply', () => {
    const scene = rejecting('reset', { maxRepliesPerSecond: 10 });
    answered(scene, 20);
    let answers = 0;
    for (let now = 1; now <= 1000; now++) {
      scene.translator.advance(now);
      answers += answered(scene, 1);
    }
    expect(answers).toBeGreaterThanOrEqual(9);
    expect(answers).toBeLessThanOrEqual(10);
  });

  test('allows no replies if it is 0', () => {
    const scene = rejecting('reset', { maxRepliesPerSecond: 0 });
    expect(answered(scene, 3)).toBe(0);
    scene.translator.advance(100_000);
    expect(answered(scene, 3)).toBe(0);
  });

  test('is separate for each realm', () => {
    const scene = mixedScene({
      site: { reject: 'reset' },
      cloud: { reject: 'reset' },
      maxRepliesPerSecond: 3,
    });
    expect(answered(scene, 5)).toBe(3);
    const toNobody = udp({ source: CLIENT[4], destination: UNBOUND[4] });
    const answers = [1, 2, 3, 4].map(() => {
      scene.send('cloud', toNobody);
      return scene.reply !== undefined;
    });
    expect(answers).toEqual([true, true, true, false]);
  });

  test('applies to packets that are too big as well', () => {
    const scene = mixedScene({ cloud: { mtu: 1280 }, maxRepliesPerSecond: 2 });
    const large = udpPacket(there, {
      sourcePort: 1,
      destinationPort: 53,
      payload: new Uint8Array(1400),
    });
    const answers = [1, 2, 3].map(() => {
      expect(scene.send('site', large).verdict).toBe('DropTooBig');
      return scene.reply !== undefined;
    });
    expect(answers).toEqual([true, true, false]);
  });

  test('does not count packets that get no answer', () => {
    const scene = rejecting('reset', { maxRepliesPerSecond: 1 });
    for (let i = 0; i < 10; i++) scene.send('site', tcp(there, { flags: RST }));
    expect(answered(scene, 2)).toBe(1);
  });

  test.each([-1, 0.5, Number.NaN, 2 ** 30 + 1])('cannot be %d', (maxRepliesPerSecond) => {
    expect(() => rejecting('reset', { maxRepliesPerSecond })).toThrow(
      `maxRepliesPerSecond must be a whole number from 0 to 1073741824, not ${maxRepliesPerSecond}`
    );
  });
});

test('the frame is the same buffer for every reply', () => {
  const scene = rejecting('reset');
  const { reply } = scene.translator;
  scene.send('site', udp(ends(6).there));
  scene.send('site', tcp(ends(4).there));
  expect(scene.translator.reply).toBe(reply);
});

test('a realm that no plan has is not answered', () => {
  const scene = rejecting('reset');
  scene.send('site', udp(ends(4).there));
  const packet = udp(ends(4).there);
  scene.translator.translate(99, packet, 0, packet.length);
  expect(scene.translator.replyLength).toBe(0);
});

function firstFragment(ends: Ends): Uint8Array {
  const whole = udpPacket(ends, { ...CLOSED, payload: new Uint8Array(64) });
  if (!ends.source.includes(':')) {
    return ipPacket(ends, 17, whole.subarray(20, 52), { fragment: 0x2000 });
  }
  const extensions = [{ type: 44, bytes: Uint8Array.of(0, 0, 0, 1, 0, 0, 0, 9) }];
  return ipPacket(ends, 17, whole.subarray(40, 72), { extensions });
}

function laterFragment(ends: Ends): Uint8Array {
  const extensions = [{ type: 44, bytes: Uint8Array.of(0, 0, 0, 33, 0, 0, 0, 9) }];
  return ipPacket(ends, 17, new Uint8Array(32), { fragment: 0x2004, extensions });
}
