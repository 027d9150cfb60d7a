import { describe, expect, test } from 'vitest';
import type { PathStatus } from '../../src/translator/index.ts';
import { type Ends, ipPacket, tcpPacket, udpPacket } from '../support/packets.ts';
import type { TextPlan } from '../support/text-of.ts';
import { mixedPath, mixedScene } from './mixed.ts';
import { PAYLOAD, PLAN, pathOf, Scene, without } from './scene.ts';

describe('counters and paths', () => {
  const build = (ends: Ends): Uint8Array =>
    tcpPacket(ends, { sourcePort: 49_500, destinationPort: 5672, payload: PAYLOAD });

  test('count verdicts in the ingress realm', () => {
    const scene = new Scene();
    scene.send('site-a', build(pathOf(4, 'site-a', 'cloud').before));
    scene.send('site-a', new Uint8Array(3));
    scene.send('site-b', build(pathOf(6, 'site-b', 'cloud').before));
    expect(scene.counters('site-a')).toEqual({ Forward: 1, DropMalformed: 1 });
    expect(scene.counters('site-b')).toEqual({ Forward: 1 });
    expect(scene.counters('cloud')).toEqual({});
  });

  test('name all verdicts, and throw for an index that no realm has', () => {
    const { translator } = new Scene();
    expect(translator.counters(0)).toEqual({
      Forward: 0,
      NeedsPresence: 0,
      NeedsHeadroom: 0,
      DropMalformed: 0,
      DropUnsupported: 0,
      DropFragment: 0,
      DropFragmentOrphan: 0,
      DropNoPresence: 0,
      DropSpoofed: 0,
      DropNotPermitted: 0,
      DropNoSession: 0,
      DropTooBig: 0,
      DropTableFull: 0,
      DropTooManySegments: 0,
    });
    expect(() => translator.counters(3)).toThrow('there is no realm 3');
    expect(() => translator.realmName(-1)).toThrow('there is no realm -1');
  });

  test('list both directions of both IP versions with packets and bytes', () => {
    const scene = new Scene();
    const request = build(pathOf(4, 'site-a', 'cloud').before);
    scene.forward('site-a', request);
    scene.forward('site-a', request);
    const reply = { sourcePort: 5672, destinationPort: 49_500 };
    scene.forward('site-b', build(pathOf(6, 'site-b', 'cloud').before));
    scene.forward('cloud', tcpPacket(pathOf(6, 'cloud', 'site-b').before, reply));
    // The path does not count refused packets.
    scene.send('site-a', tcpPacket(pathOf(4, 'site-a', 'cloud').before, { ...reply }));
    expect(scene.paths()).toEqual([
      {
        ingress: 'site-a',
        source: '10.0.0.5',
        destination: '100.64.0.1',
        egress: 'cloud',
        newSource: '100.64.0.11',
        newDestination: '10.0.0.5',
        packets: 2,
        bytes: 2 * request.length,
      },
      expect.objectContaining({ ingress: 'site-b', packets: 1 }),
      {
        ingress: 'cloud',
        source: 'fd00::5',
        destination: 'fd64::b',
        egress: 'site-b',
        newSource: 'fd64::1',
        newDestination: 'fd00::5',
        packets: 1,
        bytes: 60,
      },
    ] satisfies PathStatus[]);
  });

  test('keep addresses and counters while the tables grow', () => {
    const clients = Array.from({ length: 200 }, (_, i) => `10.0.0.${i + 20}`);
    const presences = clients.map((address, i) => ({
      realm: 'cloud',
      address: `100.64.1.${i}`,
      of: { realm: 'site-a', address },
    }));
    const scene = new Scene({
      plan: { ...PLAN, presences: [...PLAN.presences, ...presences] },
    });
    for (const [i, source] of clients.entries()) {
      const packet = build({ source, destination: '100.64.0.1' });
      for (let n = 0; n <= i % 3; n++) scene.forward('site-a', packet);
    }
    expect(
      scene.paths().map(({ source, newSource, packets }) => ({ source, newSource, packets }))
    ).toEqual(
      clients.map((source, i) => ({ source, newSource: `100.64.1.${i}`, packets: (i % 3) + 1 }))
    );
  });
});

describe('a packet that is permitted but not forwarded has taken no path', () => {
  const { request, reply } = mixedPath(4, 6);
  const udp = (ends: Ends, sourcePort: number, destinationPort: number, length = 0): Uint8Array =>
    udpPacket(ends, { sourcePort, destinationPort, payload: new Uint8Array(length) });

  test.each<[verdict: string, realm: string, packet: Uint8Array]>([
    ['DropNoSession', 'cloud', udp(reply.before, 53, 40_000)],
    ['DropTooBig', 'site', udp(request.before, 40_000, 53, 1400)],
    ['DropUnsupported', 'site', ipPacket(request.before, 51, new Uint8Array(24))],
    ['NeedsHeadroom', 'site', udp(request.before, 40_000, 53)],
  ])('%s', (verdict, realm, packet) => {
    const scene = mixedScene({ cloud: { mtu: 1280 } });
    const headroom = verdict === 'NeedsHeadroom' ? 19 : 20;
    expect(scene.send(realm, packet, {}, headroom).verdict).toBe(verdict);
    expect(scene.paths()).toEqual([]);
  });
});

describe('a full table of paths', () => {
  const packet = (family: 4 | 6, realm: 'site-a' | 'site-b', destinationPort = 5672): Uint8Array =>
    tcpPacket(pathOf(family, realm, 'cloud').before, { sourcePort: 49_500, destinationPort });

  test('drops a packet that would open one more path, and still forwards on the open ones', () => {
    const scene = new Scene({ maxPaths: 1 });
    const verdicts = [
      scene.send('site-a', packet(4, 'site-a')).verdict,
      scene.send('site-b', packet(4, 'site-b')).verdict,
      scene.send('site-a', packet(4, 'site-a')).verdict,
      // This packet is not permitted, so the full table is not the reason.
      scene.send('site-b', packet(4, 'site-b', 1)).verdict,
      // The other IP version has its own table.
      scene.send('site-b', packet(6, 'site-b')).verdict,
    ];
    expect(verdicts).toEqual([
      'Forward',
      'DropTableFull',
      'Forward',
      'DropNotPermitted',
      'Forward',
    ]);
    expect(scene.paths()).toHaveLength(2);
  });

  test('has room again when a new plan has fewer paths', () => {
    const scene = new Scene({ maxPaths: 1 });
    scene.forward('site-a', packet(4, 'site-a'));
    scene.translator.load(without('site-a'));
    expect(scene.send('site-b', packet(4, 'site-b')).verdict).toBe('Forward');
  });

  test('is full for a realm that has reached its share, and not for others', () => {
    // Only sites are clients.
    const oneWay = (plan: TextPlan): TextPlan => ({
      ...plan,
      permits: plan.permits.filter(({ service }) => service.realm === 'cloud'),
    });
    const scene = new Scene({ maxPathsOfRealm: 2, plan: oneWay(PLAN) });
    const reply = { sourcePort: 5672, destinationPort: 49_500 };
    scene.translator.explain(packet(4, 'site-a'), 'site-a'); // keeps nothing
    scene.forward('site-a', packet(4, 'site-a'));
    // The path back counts against the client's realm too.
    scene.forward('cloud', tcpPacket(pathOf(4, 'cloud', 'site-a').before, reply));
    expect(scene.translator.pathsOf('site-a')).toBe(2);
    expect(scene.send('site-a', packet(6, 'site-a')).verdict).toBe('DropTableFull');
    expect(scene.send('site-a', packet(4, 'site-a')).verdict).toBe('Forward');
    scene.forward('site-b', packet(4, 'site-b'));
    scene.forward('cloud', tcpPacket(pathOf(4, 'cloud', 'site-b').before, reply));
    expect(scene.translator.pathsOf('cloud')).toBe(4);

    expect(scene.translator.load(oneWay(PLAN))).toBe(0);
    expect(scene.send('site-a', packet(6, 'site-a')).verdict).toBe('DropTableFull');
    expect(scene.translator.load(oneWay(without('site-a')))).toBe(2);
    expect(scene.translator.pathsOf('site-a')).toBe(0);
    scene.translator.load(oneWay(PLAN));
    scene.forward('site-a', packet(6, 'site-a'));
  });

  test.each([0, -1, 1.5, Number.NaN, 2 ** 25 + 1])('maxPathsOfRealm cannot be %d', (limit) => {
    expect(() => new Scene({ maxPathsOfRealm: limit })).toThrow(/^maxPathsOfRealm must be/);
  });

  test.each([0, -1, 1.5, Number.NaN, 2 ** 24 + 1])('maxPaths cannot be %d', (maxPaths) => {
    expect(() => new Scene({ maxPaths })).toThrow(
      `maxPaths must be a whole number from 1 to 16777216, not ${maxPaths}`
    );
  });
});
