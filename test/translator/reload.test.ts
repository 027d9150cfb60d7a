import { describe, expect, test } from 'vitest';
import { type Ends, tcpPacket, udpPacket } from '../support/packets.ts';
import type { TextPlan, TextPresence } from '../support/text-of.ts';
import { mixedPath, mixedPlan, mixedScene, SERVICE } from './mixed.ts';
import { Scene } from './scene.ts';

const tcp = (ends: Ends): Uint8Array =>
  tcpPacket(ends, { sourcePort: 40_000, destinationPort: 5672 });
const udp = (ends: Ends, sourcePort: number, destinationPort: number): Uint8Array =>
  udpPacket(ends, { sourcePort, destinationPort });

describe('100,000 paths', () => {
  const CLIENTS = 50_000;
  const address = (base: string, i: number): string => `${base}.${i >>> 8}.${i & 255}`;
  const client = (i: number): string => address('10.1', i);
  const presence = (i: number): string => address('100.65', i);
  const services: TextPresence = {
    realm: 'site',
    address: '100.64.0.1',
    of: { realm: 'cloud', address: SERVICE[4] },
  };
  const plan: TextPlan = {
    realms: [
      { name: 'site', sources: ['10.0.0.0/8'], pools: ['100.64.0.0/10'] },
      { name: 'cloud', sources: ['10.0.0.0/8'], pools: ['100.64.0.0/10'] },
    ],
    presences: [
      services,
      ...Array.from({ length: CLIENTS }, (_, i) => ({
        realm: 'cloud',
        address: presence(i),
        of: { realm: 'site', address: client(i) },
      })),
    ],
    permits: [
      {
        realm: 'site',
        service: { realm: 'cloud', address: SERVICE[4] },
        ports: ['tcp/5672', 'udp/53'],
      },
    ],
  };

  /** Sends a packet, in place, without the checks of a scene. */
  function send({ translator }: Scene, realm: number, packet: Uint8Array): number {
    return translator.translate(realm, packet, 0, packet.length);
  }

  test('keep their counters and sessions over a new plan, and can all be used at once', () => {
    const scene = new Scene({ plan });
    const { translator } = scene;
    const [site, cloud] = [translator.realm('site'), translator.realm('cloud')];
    const ask = (i: number): number =>
      send(scene, site, udp({ source: client(i), destination: '100.64.0.1' }, 40_000, 53));
    const answer = (i: number): number =>
      send(scene, cloud, udp({ source: SERVICE[4], destination: presence(i) }, 53, 40_000));
    let others = 0;
    for (let i = 0; i < CLIENTS; i++) {
      if (ask(i) !== 0) others++;
      if (answer(i) !== 0) others++;
    }
    expect(others).toBe(0);
    const before = scene.paths();
    expect(before).toHaveLength(2 * CLIENTS);

    translator.load({ ...plan, presences: plan.presences.toReversed() });
    expect(scene.paths()).toEqual(before);
    expect(scene.counters('site')).toEqual({ Forward: CLIENTS });
    expect(scene.counters('cloud')).toEqual({ Forward: CLIENTS });
    // The newest sessions are still there, and packets take the fast path.
    for (let i = CLIENTS - 100; i < CLIENTS; i++) expect([i, answer(i)]).toEqual([i, 0]);

    // Half of the clients are removed; the others keep their sessions.
    const isKept = ({ of }: TextPresence): boolean =>
      of.realm === 'cloud' || Number(`${of.address}`.split('.')[3]) % 2 === 0;
    translator.load({ ...plan, presences: plan.presences.filter(isKept) });
    const after = scene.paths();
    expect(after).toHaveLength(CLIENTS);
    expect(after.reduce((sum, { packets }) => sum + packets, 0)).toBe(CLIENTS + 50);
    expect([ask(0), ask(1), ask(2)]).toEqual([0, 1, 0]);
  });
});

describe('a new plan between two packets', () => {
  const { request, reply } = mixedPath(4, 4);

  test('applies to the next packet, which takes the fast path', () => {
    const scene = mixedScene();
    scene.forward('site', tcp(request.before));
    const { presences, ...plan } = mixedPlan();
    scene.translator.load({
      ...plan,
      presences: presences.map((presence) =>
        presence.address === request.after.source
          ? { ...presence, address: '100.64.0.99' }
          : presence
      ),
    });
    const after = { ...request.after, source: '100.64.0.99' };
    expect(scene.forward('site', tcp(request.before))).toEqual(tcp(after));
    // This is another path, whose counters begin at 0.
    expect(scene.paths()).toMatchObject([{ newSource: '100.64.0.99', packets: 1 }]);
  });

  test('changes what may pass, the sizes, and the IP version', () => {
    const scene = mixedScene();
    const packet = udp(request.before, 40_000, 53);
    scene.forward('site', packet);
    scene.translator.load(mixedPlan({ ports: ['tcp/5672'] }));
    expect(scene.send('site', packet).verdict).toBe('DropNotPermitted');
    scene.translator.load(mixedPlan({ cloud: { mtu: 576 } }));
    const large = udpPacket(request.before, {
      sourcePort: 40_000,
      destinationPort: 53,
      payload: new Uint8Array(600),
    });
    expect(scene.verdicts('site', large, packet)).toEqual(['DropTooBig', 'Forward']);
    const { presences, ...plan } = mixedPlan();
    // The presences of the service's IPv4 and IPv6 addresses are exchanged.
    const turned = presences.map((presence): TextPresence => {
      const { realm, address } = presence.of;
      if (realm !== 'cloud') return presence;
      const other = address === SERVICE[4] ? SERVICE[6] : SERVICE[4];
      return { ...presence, of: { realm, address: other } };
    });
    scene.translator.load({ ...plan, presences: turned });
    const left = scene.forward('site', tcp(request.before));
    expect(left).toEqual(tcp(mixedPath(4, 6).request.after));
  });

  test('neither loses nor doubles the counters', () => {
    const scene = mixedScene();
    for (let i = 0; i < 10; i++) {
      scene.forward('site', tcp(request.before));
      scene.forward(
        'cloud',
        tcpPacket(reply.before, { sourcePort: 5672, destinationPort: 40_000 })
      );
      scene.translator.load(mixedPlan());
    }
    expect(scene.paths().map(({ packets, bytes }) => [packets, bytes])).toEqual([
      [10, 400],
      [10, 400],
    ]);
    expect(scene.counters('site')).toEqual({ Forward: 10 });
  });

  test('with one more realm changes nothing for the others', () => {
    const scene = mixedScene();
    scene.forward('site', udp(request.before, 40_000, 53));
    const plan = mixedPlan();
    scene.translator.load({
      ...plan,
      realms: [{ name: 'a new one', sources: ['10.0.0.0/8'] }, ...plan.realms],
    });
    expect(scene.send('cloud', udp(reply.before, 53, 40_000)).verdict).toBe('Forward');
    expect(scene.counters('site')).toEqual({ Forward: 1 });
  });

  test('removes a bound presence that it does not have', () => {
    const presences = mixedPlan().presences.filter(({ of }) => of.realm === 'cloud');
    const scene = mixedScene({ presences });
    expect(scene.send('site', tcp(request.before)).verdict).toBe('NeedsPresence');
    scene.translator.bind({
      realm: 'cloud',
      address: request.after.source,
      of: { realm: 'site', address: request.before.source },
    });
    expect(scene.send('site', tcp(request.before)).verdict).toBe('Forward');
    scene.translator.load(mixedPlan({ presences }));
    expect(scene.send('site', tcp(request.before)).verdict).toBe('NeedsPresence');
  });

  test('changes nothing if it is invalid: paths, sessions, fragments, sizes', () => {
    const scene = mixedScene({ cloud: { mtu: 1400 } });
    scene.forward('site', udp(request.before, 40_000, 53));
    const before = scene.paths();
    const plan = mixedPlan({ cloud: { mtu: 600 } });
    const wrong = { ...plan, permits: [...plan.permits, { ...plan.permits[0]!, realm: 'moon' }] };
    expect(() => scene.translator.load(wrong)).toThrow('permits[2].realm');
    expect(scene.paths()).toEqual(before);
    expect(scene.send('cloud', udp(reply.before, 53, 40_000)).verdict).toBe('Forward');
    const packet = udpPacket(request.before, {
      sourcePort: 40_000,
      destinationPort: 53,
      payload: new Uint8Array(1372),
    });
    expect(scene.send('site', packet).verdict).toBe('Forward');
  });
});
