/**
 * Packets that change their IP version in the cloud, mixed with others that do not.
 */
import { describe, expect, test } from 'vitest';
import { turn } from '../control/scene.ts';
import { fragmentPacket } from '../oracle/fragment-packet.ts';
import { isTransportRight, naiveSegments } from '../packet/pieces.ts';
import { type Ends, echoPacket, icmpError, tcpPacket, udpPacket } from '../support/packets.ts';
import { framed } from '../support/vnet.ts';
import { type Asked, bytes, FLOWS, hex, startMixedCloud, turned, unframed } from './mixed-scene.ts';

const LONG = 1300; // an IPv6 packet with such a payload becomes one of IPv4 with DF

/** A TCP segment to or from the service, with a number that identifies it. */
function segment(ends: Ends, direction: 'to' | 'from', number: number, length = LONG): Uint8Array {
  const ports =
    direction === 'to'
      ? { sourcePort: 40_000, destinationPort: 443 }
      : { sourcePort: 443, destinationPort: 40_000 };
  return framed(tcpPacket(ends, { ...ports, payload: bytes(length, number), identification: 0 }));
}

describe('an IPv4 site and an IPv6 service of the cloud', () => {
  const [atSite, atCloud] = FLOWS['4 to cloud 6'];

  test('requests arrive as IPv6, and replies as IPv4', () => {
    const cloud = startMixedCloud();
    cloud.send('site-4', ...[1, 2, 3].map((n) => segment(atSite, 'to', n)));
    expect(hex(cloud.lan.taken())).toEqual(hex([1, 2, 3].map((n) => segment(atCloud, 'to', n))));
    cloud.sendFromLan(...[1, 2, 3].map((n) => segment(turned(atCloud), 'from', n)));
    expect(hex(cloud.takenAt('site-4'))).toEqual(
      hex([1, 2, 3].map((n) => segment(turned(atSite), 'from', n)))
    );
  });

  test('a super-packet stays one, in both directions', () => {
    const cloud = startMixedCloud();
    const offload = { flags: 1, gsoSize: 1400, checksumOffset: 16 };
    const v4 = { ...offload, gsoType: 1, checksumStart: 20 };
    const v6 = { ...offload, gsoType: 4, checksumStart: 40 };
    const stream = {
      sourcePort: 40_000,
      destinationPort: 443,
      checksum: 'partial' as const,
      payload: bytes(60_000),
      identification: 0,
    };
    cloud.send('site-4', framed(tcpPacket(atSite, stream), v4));
    expect(hex(cloud.lan.taken())).toEqual(hex([framed(tcpPacket(atCloud, stream), v6)]));
    const back = { ...stream, sourcePort: 443, destinationPort: 40_000 };
    cloud.sendFromLan(
      segment(turned(atCloud), 'from', 1),
      framed(tcpPacket(turned(atCloud), back), v6)
    );
    expect(hex(cloud.takenAt('site-4'))).toEqual(
      hex([segment(turned(atSite), 'from', 1), framed(tcpPacket(turned(atSite), back), v4)])
    );
  });

  test('a super-packet that grows beyond the longest packet leaves in segments', () => {
    const cloud = startMixedCloud();
    const stream = {
      sourcePort: 40_000,
      destinationPort: 443,
      checksum: 'partial' as const,
      payload: bytes(65_535 - 40),
      identification: 0,
    };
    const offload = {
      flags: 1,
      gsoType: 1,
      gsoSize: 1400,
      checksumStart: 20,
      checksumOffset: 16,
    };
    for (const flow of ['4 to cloud 6', '4 to site 6'] as const) {
      const [from, to] = FLOWS[flow];
      cloud.send('site-4', framed(tcpPacket(from, stream), offload));
      const arrived = flow === '4 to cloud 6' ? cloud.lan.taken() : cloud.takenAt('site-6');
      expect(hex(unframed(arrived))).toEqual(hex(naiveSegments(tcpPacket(to, stream), 1400)));
    }
    expect(cloud.plane.counters).toMatchObject({ cut: 2, dropUncut: 0 });
  });

  test('a UDP datagram in fragments passes in fragments', () => {
    const cloud = startMixedCloud();
    const datagram = { sourcePort: 40_000, destinationPort: 53, payload: bytes(3000) };
    const fragments = (ends: Ends) => fragmentPacket(udpPacket(ends, datagram), [1200, 2400], 7);
    cloud.send('site-4', ...fragments(atSite).map((packet) => framed(packet)));
    expect(hex(unframed(cloud.lan.taken()))).toEqual(hex(fragments(atCloud)));
  });

  test('a UDP datagram without a checksum gets one', () => {
    const cloud = startMixedCloud();
    const datagram = { sourcePort: 1, destinationPort: 53, payload: bytes(9) };
    cloud.send('site-4', framed(udpPacket(atSite, { ...datagram, checksum: 'none' })));
    const [packet] = unframed(cloud.lan.taken());
    expect(isTransportRight(packet!)).toBe(true);
  });

  test('an echo is answered', () => {
    const cloud = startMixedCloud();
    cloud.send('site-4', framed(echoPacket(atSite, { payload: bytes(56) })));
    expect(hex(cloud.lan.taken())).toEqual(
      hex([framed(echoPacket(atCloud, { payload: bytes(56) }))])
    );
    cloud.sendFromLan(framed(echoPacket(turned(atCloud), { reply: true, payload: bytes(56) })));
    const small = { fragment: 0, identification: 0 };
    expect(hex(cloud.takenAt('site-4'))).toEqual(
      hex([framed(echoPacket(turned(atSite), { reply: true, payload: bytes(56), ...small }))])
    );
  });

  test('a truncated ICMP error leaves with its new length', () => {
    const cloud = startMixedCloud();
    const quoted = segment(atCloud, 'to', 1, 1000).subarray(10);
    const error = icmpError(turned(atCloud), { type: 1, code: 4, quoted });
    cloud.sendFromLan(segment(turned(atCloud), 'from', 1), framed(error), framed(error));
    const [, ...errors] = unframed(cloud.takenAt('site-4'));
    expect(errors.map(({ length }) => length)).toEqual([576, 576]);
    for (const packet of errors) expect(isTransportRight(packet)).toBe(true);
  });
});

describe('packets from the device', () => {
  test('arrive in order, byte for byte, with both versions and to both sites', () => {
    const cloud = startMixedCloud();
    const kinds = [
      { site: 'site-6', direction: 'to', from: FLOWS['cloud 6 to site 6'] },
      { site: 'site-6', direction: 'to', from: FLOWS['cloud 4 to site 6'] },
      { site: 'site-4', direction: 'from', from: FLOWS['4 to cloud 6'] },
      { site: 'site-4', direction: 'from', from: FLOWS['4 to cloud 4'] },
    ] as const;
    const expected: Record<string, Uint8Array[]> = { 'site-4': [], 'site-6': [] };
    for (let n = 0; n < 400; n++) {
      // Runs of one kind, and changes from each kind to each.
      const { site, direction, from } = kinds[((n * n) >> 5) % 4]!;
      const length = LONG + ((n * 997) % 3000);
      const [near, far] = from;
      // The source of a reply is the service.
      const [there, here] = direction === 'to' ? [near, far] : [turned(far), turned(near)];
      cloud.lan.send(segment(there, direction, n, length));
      expected[site]!.push(segment(here, direction, n, length));
    }
    cloud.lan.run();
    expect(hex(cloud.takenAt('site-4'))).toEqual(hex(expected['site-4']!));
    expect(hex(cloud.takenAt('site-6'))).toEqual(hex(expected['site-6']!));
    expect(expected['site-4']!.length).toBeGreaterThan(100);
    expect(expected['site-6']!.length).toBeGreaterThan(100);
    for (const tunnel of Object.values(cloud.tunnels)) expect(tunnel.isHoldingSlab).toBe(false);
  });

  test('are read into a buffer with headroom after one has needed it', () => {
    const cloud = startMixedCloud();
    const [native, grows] = [FLOWS['cloud 6 to site 6'][0], FLOWS['cloud 4 to site 6'][0]];
    cloud.sendFromLan(...[native, ...Array(50).fill(grows)].map((ends) => segment(ends, 'to', 1)));
    const realm = cloud.translator.realm('cloud');
    expect(cloud.translator.counters(realm)).toMatchObject({ Forward: 51, NeedsHeadroom: 1 });
    expect(cloud.takenAt('site-6')).toHaveLength(51);
  });
});

describe('between sites', () => {
  test('with different IP versions a request gets its reply', () => {
    const cloud = startMixedCloud();
    const [at4, at6] = FLOWS['4 to site 6'];
    cloud.send('site-4', ...[1, 2].map((n) => segment(at4, 'to', n)));
    expect(hex(cloud.takenAt('site-6'))).toEqual(hex([1, 2].map((n) => segment(at6, 'to', n))));
    cloud.send('site-6', ...[1, 2].map((n) => segment(turned(at6), 'from', n)));
    expect(hex(cloud.takenAt('site-4'))).toEqual(
      hex([1, 2].map((n) => segment(turned(at4), 'from', n)))
    );
    expect(cloud.lan.taken()).toEqual([]);
  });
});

describe('time', () => {
  const [atSite, atCloud] = FLOWS['4 to cloud 4'];
  const request = framed(udpPacket(atSite, { sourcePort: 40_000, destinationPort: 53 }));
  const reply = framed(udpPacket(turned(atCloud), { sourcePort: 53, destinationPort: 40_000 }));

  test('a UDP reply passes until its session has timed out', () => {
    const cloud = startMixedCloud();
    cloud.sendFromLan(reply);
    expect(cloud.takenAt('site-4')).toHaveLength(0);
    cloud.send('site-4', request);
    cloud.clock.advance(300_000);
    cloud.sendFromLan(reply);
    expect(cloud.takenAt('site-4')).toHaveLength(1);
    cloud.clock.advance(1);
    cloud.sendFromLan(reply);
    expect(cloud.takenAt('site-4')).toHaveLength(0);
  });

  test('is set at the first packet of each batch of a tunnel', () => {
    const cloud = startMixedCloud();
    cloud.send('site-4', request);
    cloud.clock.advance(200_000);
    cloud.send('site-4', request);
    cloud.clock.advance(200_000);
    cloud.sendFromLan(reply);
    expect(cloud.takenAt('site-4')).toHaveLength(1);
  });

  test('is set again when a packet has waited', async () => {
    let open = () => {};
    const cloud = startMixedCloud({
      admit: async (translator, realm, address, egress) => {
        await new Promise<void>((resolve) => {
          open = resolve;
        });
        translator.bind({ realm: egress, address: '100.64.0.70', of: { realm, address } });
      },
    });
    const ports = { sourcePort: 40_000, destinationPort: 53 };
    cloud.send('site-4', framed(udpPacket({ ...atSite, source: '10.0.0.9' }, ports)));
    cloud.clock.advance(200_000);
    open();
    await turn();
    cloud.clock.advance(200_000);
    const back = { ...turned(atCloud), destination: '100.64.0.70' };
    cloud.sendFromLan(framed(udpPacket(back, { sourcePort: 53, destinationPort: 40_000 })));
    expect(cloud.takenAt('site-4')).toHaveLength(1);
  });
});

describe('a new client of services of both versions', () => {
  const NEW = '10.0.0.9';
  const at4 = { ...FLOWS['4 to cloud 4'][0], source: NEW };
  const at6 = { ...FLOWS['4 to cloud 6'][0], source: NEW };
  const PRESENCE = { 4: '100.64.0.70', 6: 'fd00::70' } as const;

  test('waits for each of its presences separately', async () => {
    const waits: { readonly asked: Asked; readonly open: () => void }[] = [];
    const cloud = startMixedCloud({
      admit: (translator, ...asked) =>
        new Promise((resolve) => {
          const [realm, address, egress, family] = asked;
          const of = { realm, address };
          const open = () => {
            translator.bind({ realm: egress, address: PRESENCE[family], of });
            resolve();
          };
          waits.push({ asked, open });
        }),
    });
    cloud.send(
      'site-4',
      segment(at6, 'to', 1),
      segment(at4, 'to', 2),
      segment(at6, 'to', 3),
      segment(at4, 'to', 4)
    );
    expect(waits.map(({ asked }) => asked)).toEqual([
      ['site-4', NEW, 'cloud', 6],
      ['site-4', NEW, 'cloud', 4],
    ]);
    expect(cloud.lan.taken()).toEqual([]);
    waits[0]!.open();
    await turn();
    const cloud6 = { source: PRESENCE[6], destination: FLOWS['4 to cloud 6'][1].destination };
    expect(hex(cloud.lan.taken())).toEqual(hex([1, 3].map((n) => segment(cloud6, 'to', n))));
    waits[1]!.open();
    await turn();
    const cloud4 = { source: PRESENCE[4], destination: FLOWS['4 to cloud 4'][1].destination };
    expect(hex(cloud.lan.taken())).toEqual(hex([2, 4].map((n) => segment(cloud4, 'to', n))));
    expect(waits).toHaveLength(2);
  });

  test('keeps one presence if the other is refused', async () => {
    const cloud = startMixedCloud({
      admit: async (translator, realm, address, egress, family) => {
        if (family === 6) throw new Error('not that one');
        translator.bind({ realm: egress, address: PRESENCE[family], of: { realm, address } });
      },
    });
    cloud.send('site-4', segment(at6, 'to', 1), segment(at4, 'to', 2));
    await turn();
    expect(cloud.lan.taken()).toHaveLength(1);
    expect(cloud.plane.counters.dropNotAdmitted).toBe(1);
  });
});
