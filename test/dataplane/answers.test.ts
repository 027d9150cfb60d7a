/**
 * The answers to packets that the cloud refuses.
 */
import { describe, expect, test } from 'vitest';
import { ACK, type Ends, icmpError, SYN, tcpPacket, udpPacket } from '../support/packets.ts';
import { framed } from '../support/vnet.ts';
import { bytes, FLOWS, hex, startMixedCloud, turned } from './mixed-scene.ts';

const RST = 0x04;
/** The fields of the translator's answers. */
const OWN = { identification: 0, fragment: 0x4000 };

/** An attempt to connect to a port that is not exposed. */
function attempt(ends: Ends): Uint8Array {
  return framed(tcpPacket(ends, { sourcePort: 40_000, destinationPort: 22, flags: SYN }));
}

/** An answer of some 80 bytes to a packet that is refused. */
function prohibited(refused: Ends, type: number, code: number): Uint8Array {
  const quoted = attempt(refused).subarray(10);
  return framed(icmpError(turned(refused), { ...OWN, type, code, quoted }));
}

describe('a refused client', () => {
  test('of a site is answered through the tunnel of that site only', () => {
    const cloud = startMixedCloud({ realms: { 'site-4': { reject: 'unreachable' } } });
    const [ends] = FLOWS['4 to cloud 6'];
    cloud.send('site-4', attempt(ends));
    expect(cloud.tunnels['site-4'].waiting).toBe(1);
    expect(hex(cloud.takenAt('site-4'))).toEqual(hex([prohibited(ends, 3, 13)]));
    expect(cloud.takenAt('site-6')).toEqual([]);
    expect(cloud.lan.taken()).toEqual([]);
    expect(cloud.plane.counters.replies).toBe(1);
  });

  test('of the cloud is answered through the device', () => {
    const cloud = startMixedCloud({ realms: { cloud: { reject: 'unreachable' } } });
    const [ends] = FLOWS['cloud 6 to site 6'];
    const good = framed(tcpPacket(ends, { sourcePort: 40_000, destinationPort: 443 }));
    // From the second on, packets are read into the frame of the tunnel to site-6.
    cloud.sendFromLan(good, attempt(ends), good);
    expect(hex(cloud.lan.taken())).toEqual(hex([prohibited(ends, 1, 1)]));
    expect(cloud.takenAt('site-6')).toHaveLength(2);
    expect(cloud.plane.counters.replies).toBe(1);
  });

  test('gets a reset if its realm rejects with a reset', () => {
    const cloud = startMixedCloud({ realms: { 'site-4': { reject: 'reset' } } });
    const [ends] = FLOWS['4 to cloud 6'];
    cloud.send('site-4', attempt(ends));
    const [answer] = cloud.takenAt('site-4');
    expect(answer![10 + 9]).toBe(6);
    expect(answer![10 + 20 + 13]).toBe(RST | ACK);
  });

  test('gets no answer by default', () => {
    const cloud = startMixedCloud();
    cloud.send('site-4', attempt(FLOWS['4 to cloud 6'][0]));
    cloud.sendFromLan(attempt(FLOWS['cloud 4 to site 6'][0]));
    expect(cloud.takenAt('site-4')).toEqual([]);
    expect(cloud.lan.taken()).toEqual([]);
    expect(cloud.plane.counters.replies).toBe(0);
  });

  test('gets no answer when its tunnel is full, which is counted as a drop', () => {
    const cloud = startMixedCloud({
      realms: { 'site-4': { reject: 'unreachable' } },
      capacity: 2,
    });
    const refused = attempt(FLOWS['4 to cloud 6'][0]);
    cloud.send('site-4', refused, refused);
    cloud.send('site-4', refused);
    expect(cloud.plane.counters).toMatchObject({ replies: 2, dropTunnelFull: 1 });
  });

  test('gets a burst of answers, and as many again a second later', () => {
    const cloud = startMixedCloud({ realms: { cloud: { reject: 'unreachable' } } });
    const refused = attempt(FLOWS['cloud 6 to site 6'][0]);
    const burst = () => {
      for (let i = 0; i < 1100; i++) {
        cloud.sendFromLan(refused);
        cloud.lan.taken();
      }
    };
    burst();
    expect(cloud.plane.counters.replies).toBe(1000);
    cloud.clock.advance(1000);
    burst();
    expect(cloud.plane.counters.replies).toBe(2000);
  });
});

describe('a packet that is too big for its egress realm', () => {
  const datagram = { sourcePort: 40_000, destinationPort: 53, payload: bytes(1400) };

  test('and must not be fragmented is answered with the size that would fit', () => {
    const cloud = startMixedCloud({ realms: { cloud: { mtu: 1400 } } });
    for (const [flow, mtu] of [
      ['4 to cloud 4', 1400],
      ['4 to cloud 6', 1380],
    ] as const) {
      const [ends] = FLOWS[flow];
      const packet = udpPacket(ends, datagram);
      cloud.send('site-4', framed(packet));
      const answered = { type: 3, code: 4, rest: mtu, quoted: packet, quoteLength: 576 - 28 };
      expect(hex(cloud.takenAt('site-4'))).toEqual(
        hex([framed(icmpError(turned(ends), { ...OWN, ...answered }))])
      );
    }
    expect(cloud.lan.taken()).toEqual([]);
    expect(cloud.plane.counters).toMatchObject({ replies: 2, cut: 0, dropUncut: 0 });
  });

  test('of the cloud is answered through the device', () => {
    const cloud = startMixedCloud({ realms: { 'site-6': { mtu: 1300 } } });
    const [ends] = FLOWS['cloud 6 to site 6'];
    const packet = udpPacket(ends, datagram);
    cloud.sendFromLan(framed(packet));
    const answered = { type: 2, code: 0, rest: 1300, quoted: packet, quoteLength: 1280 - 48 };
    expect(hex(cloud.lan.taken())).toEqual(hex([framed(icmpError(turned(ends), answered))]));
  });
});
