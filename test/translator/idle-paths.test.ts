/**
 * Only idle paths are replaced when the table of paths, or a realm's share of it, is full.
 */
import { describe, expect, test } from 'vitest';
import type { PacketTranslatorOptions } from '../../src/translator/index.ts';
import { PathTable } from '../../src/translator/path-table.ts';
import { Verdict } from '../../src/translator/verdict.ts';
import { tcpPacket, udpPacket } from '../support/packets.ts';
import { Random } from '../support/random.ts';
import type { TextPlan } from '../support/text-of.ts';
import { Scene } from './scene.ts';

const IDLE_MS = 300_000;
const SITES = ['site-a', 'site-b'];
const PORTS = { sourcePort: 40_000, destinationPort: 5672 };

/** Sites with the given number of hosts, which all use one service of the cloud. */
function planOf(hosts: number, crowd = 0): TextPlan {
  const sites = [...SITES, ...Array.from({ length: crowd }, (_, i) => `crowd-${i}`)];
  return {
    realms: ['cloud', ...sites].map((name) => ({
      name,
      sources: ['10.0.0.0/8', 'fd00::/16'],
      pools: ['100.64.0.0/10', 'fd64::/16'],
    })),
    presences: sites.flatMap((realm, site) => [
      { realm, address: '100.64.0.1', of: { realm: 'cloud', address: '10.0.0.1' } },
      { realm, address: '100.64.0.2', of: { realm: 'cloud', address: 'fd00::1' } },
      ...Array.from({ length: hosts }, (_, i) => [
        { realm: 'cloud', address: presenceOf(site, i), of: { realm, address: hostOf(i) } },
        {
          realm: 'cloud',
          address: `fd64::${site}:${i.toString(16)}`,
          of: { realm, address: hostOf(i) },
        },
      ]).flat(),
    ]),
    permits: sites.flatMap((realm) =>
      ['10.0.0.1', 'fd00::1'].map((address) => ({
        realm,
        service: { realm: 'cloud', address },
        ports: ['tcp/5672', 'udp/53'],
      }))
    ),
  };
}

const hostOf = (i: number): string => `10.1.${i >> 8}.${i & 255}`;
const presenceOf = (site: number, i: number): string => `100.65.${4 * site + (i >> 8)}.${i & 255}`;

function sceneOf(hosts: number, options: PacketTranslatorOptions): Scene {
  const scene = new Scene({ ...options, plan: planOf(hosts) });
  scene.translator.advance(0);
  return scene;
}

function send(scene: Scene, site: string, host: number, destination = '100.64.0.1'): string {
  return scene.send(site, tcpPacket({ source: hostOf(host), destination }, PORTS)).verdict;
}

/** Advances the time in small steps, as a gateway does. */
function pass(scene: Scene, fromMs: number, toMs: number): void {
  for (let now = fromMs; now <= toMs; now += 1000) scene.translator.advance(now);
}

describe('a full table', () => {
  test.each([
    ['the table', { maxPaths: 100 }],
    ["a realm's share", { maxPathsOfRealm: 100 }],
  ])('%s: an idle path makes room, one in use does not', (_, options) => {
    const scene = sceneOf(300, options);
    for (let host = 0; host < 100; host++) expect(send(scene, 'site-a', host)).toBe('Forward');
    expect(send(scene, 'site-a', 100)).toBe('DropTableFull');

    pass(scene, 0, IDLE_MS);
    // Half of them are in use; the others have been idle for as long as they may.
    for (let host = 0; host < 50; host++) expect(send(scene, 'site-a', host)).toBe('Forward');
    pass(scene, IDLE_MS, 1.5 * IDLE_MS);
    for (let host = 100; host < 150; host++) expect(send(scene, 'site-a', host)).toBe('Forward');
    expect(send(scene, 'site-a', 150)).toBe('DropTableFull');
    const sources = scene.paths().map(({ source }) => source);
    const kept = [...Array(50).keys(), ...Array.from({ length: 50 }, (_, i) => 100 + i)];
    expect(sources.sort()).toEqual(kept.map(hostOf).sort());
    expect(scene.translator.pathsOf('site-a')).toBe(100);
    // Ended paths are opened again when others have been idle.
    pass(scene, 1.5 * IDLE_MS, 4 * IDLE_MS);
    for (let host = 50; host < 150; host++) expect(send(scene, 'site-a', host)).toBe('Forward');
  });

  test('no path ends while there is room, however long it is idle', () => {
    const scene = sceneOf(300, { maxPaths: 100 });
    for (let host = 0; host < 99; host++) send(scene, 'site-a', host);
    pass(scene, 0, 20 * IDLE_MS);
    expect(send(scene, 'site-a', 99)).toBe('Forward');
    expect(scene.paths()).toHaveLength(100);
  });

  test('a full share of one realm never ends a path of another realm', () => {
    const scene = sceneOf(300, { maxPathsOfRealm: 100 });
    for (let host = 0; host < 100; host++) send(scene, 'site-b', host);
    pass(scene, 0, IDLE_MS);
    for (let host = 0; host < 100; host++) send(scene, 'site-a', host);
    pass(scene, IDLE_MS, 1.5 * IDLE_MS);
    expect(send(scene, 'site-a', 100)).toBe('DropTableFull');
    expect(scene.translator.pathsOf('site-b')).toBe(100);
    expect(send(scene, 'site-b', 100)).toBe('Forward');
  });

  test('the path that has been idle longest ends first', () => {
    const scene = sceneOf(300, { maxPaths: 50 });
    for (let host = 0; host < 50; host++) {
      send(scene, 'site-a', host);
      pass(scene, host * IDLE_MS, (host + 1) * IDLE_MS);
    }
    for (let host = 50; host < 60; host++) send(scene, 'site-a', host);
    const sources = new Set(scene.paths().map(({ source }) => source));
    expect([...Array(10).keys()].filter((host) => sources.has(hostOf(host)))).toEqual([]);
    expect(sources.size).toBe(50);
  });

  test('a new plan does not make idle paths look used', () => {
    const scene = sceneOf(300, { maxPaths: 100 });
    for (let host = 0; host < 100; host++) send(scene, 'site-a', host);
    pass(scene, 0, 2 * IDLE_MS);
    scene.translator.load(planOf(300));
    expect(send(scene, 'site-a', 100)).toBe('Forward');
  });

  test('explain changes nothing for a path that needs room', () => {
    const scene = sceneOf(300, { maxPaths: 10 });
    const packet = tcpPacket({ source: hostOf(10), destination: '100.64.0.1' }, PORTS);
    for (let host = 0; host < 10; host++) send(scene, 'site-a', host);
    expect(scene.translator.explain(packet, 'site-a').verdict).toBe('DropTableFull');
    pass(scene, 0, 2 * IDLE_MS);
    const before = scene.paths();
    expect(scene.translator.explain(packet, 'site-a').verdict).toBe('Forward');
    expect(scene.paths()).toEqual(before);
  });

  test('paths that change the IP version free their addresses', () => {
    const scene = sceneOf(300, { maxPaths: 20 });
    for (let round = 0; round < 10; round++) {
      for (let host = 0; host < 20; host++) {
        const destination = (host + round) % 2 === 0 ? '100.64.0.1' : '100.64.0.2';
        expect(send(scene, 'site-a', 20 * round + host, destination)).toBe('Forward');
      }
      pass(scene, 2 * round * IDLE_MS, 2 * (round + 1) * IDLE_MS);
    }
    for (const { source, egress, newSource, newDestination } of scene.paths()) {
      const host = Array.from({ length: 300 }, (_, i) => i).find((i) => hostOf(i) === source)!;
      expect(egress).toBe('cloud');
      expect([presenceOf(0, host), `fd64::${host.toString(16)}`]).toContain(newSource);
      expect(['10.0.0.1', 'fd00::1']).toContain(newDestination);
    }
  });

  test('a realm with few of very many paths replaces its own, wherever they are', () => {
    // One search checks 256 paths; the other realms have many more.
    const scene = sceneOf(300, { maxPathsOfRealm: 20 });
    for (const site of SITES) for (let host = 0; host < 20; host++) send(scene, site, host);
    scene.translator.load(planOf(300, 40));
    for (let site = 0; site < 40; site++) {
      for (let host = 0; host < 20; host++) send(scene, `crowd-${site}`, host);
    }
    pass(scene, 0, 2 * IDLE_MS);
    const verdicts = Array.from({ length: 20 }, (_, i) => send(scene, 'site-a', 200 + i));
    expect(verdicts.filter((verdict) => verdict !== 'Forward')).toEqual([]);
    expect(scene.translator.pathsOf('site-b')).toBe(20);
  });

  test('a full table never ends a path of a realm with less than an even share', () => {
    const scene = sceneOf(300, { maxPaths: 90 });
    for (let host = 0; host < 5; host++) send(scene, 'site-b', host);
    for (let host = 0; host < 85; host++) send(scene, 'site-a', host);
    pass(scene, 0, 2 * IDLE_MS);
    for (let host = 100; host < 200; host++) send(scene, 'site-a', host);
    expect(scene.translator.pathsOf('site-b')).toBe(5);
    // The realm replaces its own older paths, then those of the others.
    pass(scene, 2 * IDLE_MS, 4 * IDLE_MS);
    for (let host = 5; host < 15; host++) expect(send(scene, 'site-b', host)).toBe('Forward');
    expect(scene.translator.pathsOf('site-b')).toBe(10);
    expect(scene.translator.pathsOf('site-a')).toBe(80);
  });

  test('both directions between two hosts keep one pair number and their sessions', () => {
    const random = new Random(3);
    const scene = sceneOf(300, { maxPathsOfRealm: 100 });
    const asked = new Map<number, number>();
    const ports = { sourcePort: 40_000, destinationPort: 53 };
    let refused = 0;
    for (let now = 0, step = 0; step < 20_000; step++, now += random.below(200)) {
      scene.translator.advance(now);
      // A part of the hosts is in use at a time, and another one later.
      const host = (random.below(60) + Math.floor(now / IDLE_MS) * 25) % 300;
      const request = udpPacket({ source: hostOf(host), destination: '100.64.0.1' }, ports);
      const verdict = scene.send('site-a', request).verdict;
      expect(['Forward', 'DropTableFull']).toContain(verdict);
      if (verdict === 'Forward') asked.set(host, now);
      const other = random.chance(0.5) ? host : random.below(300);
      const askedAt = asked.get(other);
      const reply = udpPacket(
        { source: '10.0.0.1', destination: presenceOf(0, other) },
        { sourcePort: 53, destinationPort: 40_000 }
      );
      const answer = scene.send('cloud', reply).verdict;
      const isAsked = askedAt !== undefined && now - askedAt <= IDLE_MS;
      if (isAsked) expect(['Forward', 'DropTableFull']).toContain(answer);
      else expect(['DropNoSession', 'DropTableFull']).toContain(answer);
      if (answer === 'DropNoSession') refused++;
    }
    expect(refused).toBeGreaterThan(100);
  });

  test.each([999, 86_400_001, Number.NaN])('pathIdleMs cannot be %d', (pathIdleMs) => {
    expect(() => new Scene({ pathIdleMs })).toThrow(/^pathIdleMs must be/);
  });
});

test('a table of paths finds exactly its paths after any opening and closing', () => {
  const random = new Random(7);
  const table = new PathTable(4, 4096);
  const held = new Map<number, string>();
  const resolution = {
    verdict: Verdict.Forward,
    egress: 1,
    family: 4 as const,
    policy: 1,
    source: new Int32Array(4),
    destination: new Int32Array(4),
    isOverlapping: false,
  };
  const keyOf = (n: number): number[] => [n % 3, n * 7919, n >> 2];
  for (let step = 0; step < 50_000; step++) {
    const n = random.below(3000);
    table.key.set(keyOf(n));
    const path = table.find();
    expect(path >= 0).toBe(held.has(n));
    if (path < 0 && (held.size < 500 || random.chance(0.3))) {
      resolution.source[0] = n;
      table.open(resolution, 0, 2 * n, step);
      held.set(n, String(n));
    } else if (path >= 0 && random.chance(0.7)) {
      expect(table.newAddresses(path, 4).words[table.newAddresses(path, 4).at]).toBe(n);
      table.close(path, 4);
      held.delete(n);
    }
    expect(table.size).toBe(held.size);
  }
  for (let n = 0; n < 3000; n++) {
    const [realm, source, destination] = keyOf(n) as [number, number, number];
    expect(table.find3(realm, source | 0, destination) >= 0).toBe(held.has(n));
  }
});
