/**
 * Unsolicited replies of TCP and SCTP, and ICMP errors, from a service: they open no path, and pass only for
 * a while after a start.
 */
import { describe, expect, test } from 'vitest';
import type { PacketTranslatorOptions } from '../../src/translator/index.ts';
import { icmpError, sctpPacket, tcpPacket, udpPacket } from '../support/packets.ts';
import { FAMILIES, PLAN, pathOf, Scene, without } from './scene.ts';

const GRACE_MS = 120_000;
const ACK = 0x10;
const RST = 0x04;

/** Sites are clients, the cloud has the service. */
const PLAN_ONE_WAY = {
  ...PLAN,
  permits: PLAN.permits
    .filter(({ service }) => service.realm === 'cloud')
    .map((permit) => ({ ...permit, ports: [...permit.ports, 'sctp/5672'] })),
};

function sceneAt(nowMs: number, options: PacketTranslatorOptions = {}): Scene {
  const scene = new Scene({ ...options, plan: PLAN_ONE_WAY });
  scene.translator.advance(nowMs);
  return scene;
}

describe.each(FAMILIES)('over IPv%i', (family) => {
  const toCloud = pathOf(family, 'site-a', 'cloud');
  const back = pathOf(family, 'cloud', 'site-a', 'reply');
  const other = pathOf(family, 'site-b', 'cloud');
  const ports = { sourcePort: 40_000, destinationPort: 5672 };
  const turned = { sourcePort: 5672, destinationPort: 40_000 };
  const request = tcpPacket(toCloud.before, { ...ports, flags: ACK });
  const reset = (destinationPort: number): Uint8Array =>
    tcpPacket(back.before, { sourcePort: 5672, destinationPort, flags: RST });
  const error = icmpError(back.before, {
    type: family === 4 ? 3 : 1,
    code: 3,
    quoted: udpPacket(toCloud.after, { sourcePort: 40_000, destinationPort: 53 }),
  });
  const unasked = [
    ['TCP segment', reset(40_000)],
    ['SCTP packet', sctpPacket(back.before, { ...turned, payload: Uint8Array.of(0, 0, 0, 4) })],
    ['ICMP error', error],
  ] as const;

  /** The cloud and site-b have sent packets; site-a has sent none since it was added. */
  function settled(): Scene {
    const scene = sceneAt(1000);
    scene.forward('site-b', tcpPacket(other.before, { ...ports, flags: ACK }));
    scene.forward('cloud', tcpPacket(pathOf(family, 'cloud', 'site-b', 'reply').before, turned));
    scene.forward('site-a', request);
    // Its paths have ended, and the grace of both realms starts again.
    scene.translator.load(without('site-a'));
    scene.translator.load(PLAN_ONE_WAY);
    return scene;
  }

  test.each(unasked)(
    'an unsolicited %s passes until each realm has sent a packet, and opens no path',
    (_, packet) => {
      const scene = sceneAt(1000);
      for (let i = 0; i < 3; i++) expect(scene.send('cloud', packet).verdict).toBe('Forward');
      expect(scene.paths()).toEqual([]);
      expect(scene.translator.pathsOf('cloud')).toBe(0);
    }
  );

  test.each(unasked)(
    'an unsolicited %s is refused when the grace of both realms is over',
    (_, packet) => {
      const scene = settled();
      const { translator } = scene;
      // Another host of the site sends a packet.
      const presence = family === 4 ? '100.64.0.77' : 'fd64::77';
      const host = family === 4 ? '10.0.0.77' : 'fd00::77';
      translator.bind({
        realm: 'cloud',
        address: presence,
        of: { realm: 'site-a', address: host },
      });
      const ends = { ...toCloud.before, source: host };
      scene.forward('site-a', tcpPacket(ends, { ...ports, flags: ACK }));
      translator.advance(1000 + GRACE_MS - 1);
      expect(scene.send('cloud', packet).verdict).toBe('Forward');
      translator.advance(1000 + GRACE_MS);
      expect(scene.send('cloud', packet).verdict).toBe('DropNoSession');
      expect(translator.explain(packet, 'cloud')).toMatchObject({
        verdict: 'DropNoSession',
        step: 'session',
      });
      // The client sends, so replies are no longer unsolicited.
      scene.forward('site-a', request);
      expect(scene.send('cloud', packet).verdict).toBe('Forward');
      expect(scene.paths().filter(({ ingress }) => ingress === 'cloud').length).toBe(2);
    }
  );

  test('a service that resets very many ports uses no paths of the client', () => {
    const scene = sceneAt(1000, { maxPathsOfRealm: 4 });
    for (let port = 1; port <= 2000; port++) scene.forward('cloud', reset(port));
    expect(scene.translator.pathsOf('site-a')).toBe(0);
    scene.forward('site-a', request);
    expect(scene.send('cloud', reset(1)).verdict).toBe('Forward');
    expect(scene.translator.pathsOf('site-a')).toBe(2);
  });

  test('a connection from before the start continues, whoever sends first in the grace', () => {
    const scene = sceneAt(5_000_000);
    const data = tcpPacket(back.before, { ...turned, flags: ACK, payload: new Uint8Array(9) });
    scene.forward('cloud', data);
    scene.translator.advance(5_000_000 + GRACE_MS / 2);
    scene.forward('site-a', request);
    scene.translator.advance(5_000_000 + 10 * GRACE_MS);
    scene.forward('cloud', data);
  });

  test('a realm that was removed and comes back gets a new grace', () => {
    const scene = settled();
    scene.forward('site-a', request);
    scene.translator.advance(1000 + 2 * GRACE_MS);
    scene.translator.load(without('site-a'));
    scene.translator.load(PLAN_ONE_WAY);
    expect(scene.send('cloud', reset(40_000)).verdict).toBe('Forward');
  });

  test('a realm whose clients were reached through a removed realm gets a new grace', () => {
    const scene = settled();
    scene.forward('site-a', request);
    scene.translator.advance(1000 + 2 * GRACE_MS);
    // Another plan takes a client from site-b, which says nothing of site-a.
    const presences = PLAN_ONE_WAY.presences.filter(({ of }) => of.realm !== 'site-b');
    const other = { ...PLAN_ONE_WAY, presences };
    const unknown = { realm: 'cloud', address: family === 4 ? '100.64.0.77' : 'fd64::77' };
    const host = { realm: 'site-a', address: family === 4 ? '10.0.0.77' : 'fd00::77' };
    const toUnknown = tcpPacket(
      { source: back.before.source, destination: unknown.address },
      { ...turned, flags: ACK }
    );
    scene.translator.load(other);
    scene.translator.bind({ ...unknown, of: host });
    expect(scene.send('cloud', toUnknown).verdict).toBe('DropNoSession');
    // site-a was removed; its clients come through the cloud now, which had a path to it.
    scene.translator.load(without('site-a'));
    scene.translator.load(PLAN_ONE_WAY);
    scene.translator.bind({ ...unknown, of: host });
    expect(scene.send('cloud', toUnknown).verdict).toBe('Forward');
  });

  test('a realm that sends only unsolicited resets does not stay new', () => {
    const scene = sceneAt(1000);
    scene.forward('site-a', request);
    scene.forward('cloud', reset(1));
    scene.translator.advance(1000 + GRACE_MS);
    const presence = family === 4 ? '100.64.0.77' : 'fd64::77';
    const address = family === 4 ? '10.0.0.77' : 'fd00::77';
    scene.translator.bind({ realm: 'cloud', address: presence, of: { realm: 'site-a', address } });
    const ends = { source: back.before.source, destination: presence };
    const verdict = scene.send('cloud', tcpPacket(ends, { ...turned, flags: RST })).verdict;
    expect(verdict).toBe('DropNoSession');
  });

  test('a capture that throws leaves no path behind', () => {
    const scene = sceneAt(1000);
    scene.translator.capture({
      wants: () => {
        throw new Error('not today');
      },
      packet: () => {},
    });
    for (let i = 0; i < 3; i++) expect(() => scene.send('cloud', reset(1))).toThrow('not today');
    scene.translator.capture(undefined);
    expect(scene.translator.pathsOf('cloud')).toBe(0);
    scene.forward('site-a', request);
    expect(scene.translator.pathsOf('site-a')).toBe(1);
  });

  test('without a grace no unsolicited reply passes', () => {
    const scene = sceneAt(1000, { replyGraceMs: 0 });
    scene.forward('site-b', tcpPacket(other.before, { ...ports, flags: ACK }));
    scene.forward('site-a', request);
    scene.translator.load(PLAN_ONE_WAY);
    expect(scene.send('cloud', reset(40_000)).verdict).toBe('Forward');
    expect(
      scene.send('cloud', tcpPacket(pathOf(family, 'cloud', 'site-b', 'reply').before, turned))
        .verdict
    ).toBe('Forward');
  });
});

test.each([-1, 1.5, 86_400_001])('replyGraceMs cannot be %d', (replyGraceMs) => {
  expect(() => new Scene({ replyGraceMs })).toThrow(/^replyGraceMs must be/);
});
