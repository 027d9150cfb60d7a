/**
 * Packets that do not fit: fragments for a realm with an MTU, segments for a device without offloads.
 */
import { describe, expect, test } from 'vitest';
import { PacketSender, SendResult } from '../../src/dataplane/packet-sender.ts';
import type { PacketDevice } from '../../src/device/index.ts';
import { fragmentPacket } from '../oracle/fragment-packet.ts';
import { completed, isTransportRight, naiveSegments, reassembled } from '../packet/pieces.ts';
import { type Ends, tcpPacket, udpPacket } from '../support/packets.ts';
import { TestDevice } from '../support/test-device.ts';
import { framed } from '../support/vnet.ts';
import { bytes, FLOWS, hex, startMixedCloud, turned, unframed } from './mixed-scene.ts';

const PORTS = { sourcePort: 40_000, destinationPort: 53 };
const SEGMENTABLE = { fragment: 0, identification: 77 };
const PLAIN_DEVICE = { offload: false, mtu: 1500 };

/** A datagram of 3028 bytes without DF. */
function datagram(ends: Ends): Uint8Array {
  return udpPacket(ends, { ...PORTS, ...SEGMENTABLE, payload: bytes(3000) });
}

function superPacket(ends: Ends, length = 20_000): { packet: Uint8Array; frame: Uint8Array } {
  const isIpv6 = ends.source.includes(':');
  const packet = tcpPacket(ends, {
    sourcePort: 40_000,
    destinationPort: 443,
    checksum: 'partial',
    payload: bytes(length),
    identification: 0,
  });
  const frame = framed(packet, {
    flags: 1,
    gsoType: isIpv6 ? 4 : 1,
    gsoSize: 1400,
    checksumStart: isIpv6 ? 40 : 20,
    checksumOffset: 16,
  });
  return { packet, frame };
}

describe('a packet larger than the MTU of its realm that may be fragmented', () => {
  test('leaves in fragments, in the order of the others', () => {
    const cloud = startMixedCloud({ realms: { 'site-4': { mtu: 1400 } } });
    const [atSite, atCloud] = FLOWS['4 to cloud 4'];
    const small = (ends: Ends, n: number) =>
      tcpPacket(ends, { sourcePort: 443, destinationPort: 40_000, payload: bytes(100, n) });
    const large = (ends: Ends) =>
      tcpPacket(ends, {
        sourcePort: 443,
        destinationPort: 40_000,
        payload: bytes(3000),
        ...SEGMENTABLE,
      });
    const [to, from] = [turned(atSite), turned(atCloud)];
    // The second is read into the frame of the tunnel that it is fragmented for.
    const sent = [small(from, 1), large(from), large(from), small(from, 2)];
    cloud.sendFromLan(...sent.map((packet) => framed(packet)));
    const packets = unframed(cloud.takenAt('site-4'));
    expect(packets).toHaveLength(8);
    expect(packets.every(({ length }) => length <= 1400)).toBe(true);
    for (const first of [1, 4]) {
      const whole = reassembled(packets.slice(first, first + 3));
      expect(hex([whole])).toEqual(hex([large(to).subarray(20)]));
    }
    expect(hex([packets[0]!, packets[7]!])).toEqual(hex([small(to, 1), small(to, 2)]));
    expect(cloud.plane.counters).toMatchObject({ cut: 2, dropUncut: 0 });
  });

  test('is fragmented between sites, also when it changes its IP version', () => {
    const cloud = startMixedCloud({ realms: { 'site-6': { mtu: 1400 } } });
    const [from, to] = FLOWS['4 to site 6'];
    cloud.send('site-4', framed(datagram(from)));
    const packets = unframed(cloud.takenAt('site-6'));
    expect(packets).toHaveLength(3);
    expect(packets.every(({ length }) => length <= 1400)).toBe(true);
    expect(hex([reassembled(packets)])).toEqual(hex([datagram(to).subarray(40)]));
  });

  test('is fragmented for a device, with and without offloads', () => {
    for (const device of [{ offload: true }, { offload: false, mtu: 1200 }]) {
      const cloud = startMixedCloud({ realms: { cloud: { mtu: 1400 } }, device });
      const [from, to] = FLOWS['4 to cloud 4'];
      cloud.send('site-4', framed(datagram(from)));
      const packets = unframed(cloud.lan.taken());
      expect(packets.every(({ length }) => length <= (device.mtu ?? 1400))).toBe(true);
      expect(hex([reassembled(packets)])).toEqual(hex([datagram(to).subarray(20)]));
    }
  });

  test('is not sent further after its tunnel refuses a fragment, and is counted once', () => {
    const cloud = startMixedCloud({ realms: { 'site-6': { mtu: 1400 } }, capacity: 2 });
    cloud.send('site-4', framed(datagram(FLOWS['4 to site 6'][0])));
    expect(cloud.plane.counters).toMatchObject({ cut: 1, dropTunnelFull: 1 });
    expect(cloud.takenAt('site-6')).toHaveLength(2);
    expect(cloud.tunnels['site-6'].isHoldingSlab).toBe(false);
  });

  test('passes in the fragments that it came in', () => {
    const cloud = startMixedCloud({ device: PLAIN_DEVICE });
    const [from, to] = FLOWS['4 to cloud 4'];
    const fragments = (ends: Ends) => fragmentPacket(datagram(ends), [1400, 2800], 9);
    cloud.send('site-4', ...fragments(from).map((packet) => framed(packet)));
    expect(hex(unframed(cloud.lan.taken()))).toEqual(hex(fragments(to)));
    expect(cloud.plane.counters).toMatchObject({ cut: 0, dropDeviceFull: 0 });
  });
});

describe('a device without offloads', () => {
  test('gets a super-packet as segments with correct checksums', () => {
    const cloud = startMixedCloud({ device: PLAIN_DEVICE });
    for (const flow of ['4 to cloud 4', '4 to cloud 6'] as const) {
      const [from, to] = FLOWS[flow];
      cloud.send('site-4', superPacket(from).frame);
      const segments = unframed(cloud.lan.taken());
      expect(hex(segments)).toEqual(hex(naiveSegments(superPacket(to).packet, 1400)));
      expect(segments.every(isTransportRight)).toBe(true);
    }
    expect(cloud.plane.counters).toMatchObject({ cut: 2, dropUncut: 0, dropDeviceFull: 0 });
  });

  test('gets a packet with a partial checksum completed', () => {
    const cloud = startMixedCloud({ device: PLAIN_DEVICE });
    const [from, to] = FLOWS['4 to cloud 4'];
    const partial = { ...PORTS, checksum: 'partial' as const, payload: bytes(99) };
    const offload = { flags: 1, checksumStart: 20, checksumOffset: 6 };
    cloud.send('site-4', framed(udpPacket(from, partial), offload));
    expect(hex(unframed(cloud.lan.taken()))).toEqual(hex([completed(udpPacket(to, partial))]));
  });

  test('gets an IPv4 packet that is too long for it in fragments', () => {
    const cloud = startMixedCloud({ device: PLAIN_DEVICE });
    const [from, to] = FLOWS['4 to cloud 4'];
    cloud.send('site-4', framed(datagram(from)));
    const packets = unframed(cloud.lan.taken());
    expect(packets).toHaveLength(3);
    expect(hex([reassembled(packets)])).toEqual(hex([datagram(to).subarray(20)]));
  });

  test('gets no packet that is too long and must not be fragmented, which is counted', () => {
    const cloud = startMixedCloud({ device: PLAIN_DEVICE });
    const long = { ...PORTS, payload: bytes(1480) };
    cloud.send(
      'site-4',
      framed(udpPacket(FLOWS['4 to cloud 4'][0], long)),
      // The packet leaves as IPv6, which only its sender may fragment.
      framed(udpPacket(FLOWS['4 to cloud 6'][0], { ...long, payload: bytes(1460) })),
      superPacket(FLOWS['4 to cloud 4'][0], 100).frame
    );
    expect(cloud.lan.taken()).toHaveLength(1);
    expect(cloud.plane.counters).toMatchObject({ cut: 1, dropUncut: 2, dropDeviceFull: 0 });
  });

  test('gets no super-packet with segments of single bytes, which is counted', () => {
    const cloud = startMixedCloud({ device: PLAIN_DEVICE });
    const { frame } = superPacket(FLOWS['4 to cloud 4'][0]);
    frame.set([1, 0], 4); // gso_size
    cloud.send('site-4', frame, superPacket(FLOWS['4 to cloud 4'][0], 1400).frame);
    expect(cloud.lan.taken()).toHaveLength(1);
    expect(cloud.plane.counters).toMatchObject({ cut: 1, dropUncut: 0, dropDeviceFull: 0 });
    const { translator } = cloud;
    expect(translator.counters(translator.realm('site-4')).DropTooManySegments).toBe(1);
  });

  test('does not affect super-packets to a site', () => {
    const cloud = startMixedCloud({ device: PLAIN_DEVICE });
    const [from, to] = FLOWS['4 to site 6'];
    cloud.send('site-4', superPacket(from).frame);
    expect(hex(cloud.takenAt('site-6'))).toEqual(hex([superPacket(to).frame]));
    expect(cloud.plane.counters.cut).toBe(0);
  });

  test('that becomes full gets only the first segments, and the packet is counted once', () => {
    const cloud = startMixedCloud({ device: { ...PLAIN_DEVICE, queueLength: 5 } });
    cloud.send('site-4', superPacket(FLOWS['4 to cloud 4'][0]).frame);
    expect(cloud.lan.taken()).toHaveLength(5);
    expect(cloud.plane.counters).toMatchObject({ cut: 1, dropDeviceFull: 1 });
  });
});

describe('PacketSender', () => {
  const ends = { source: '2001:db8::1', destination: '2001:db8::2' };
  const MTU = 1400;

  function sendOf(frame: Uint8Array, segmentTo: number, device: PacketDevice) {
    const counters = { cut: 0, dropUncut: 0 };
    const buffer = Buffer.concat([Buffer.alloc(7, 0xee), frame, Buffer.alloc(5, 0xee)]);
    const sender = new PacketSender(counters);
    const result = sender.toDevice(device, buffer, 7, 7 + frame.length, segmentTo);
    return { result, counters };
  }

  test('fragments IPv6 only with a `segmentTo`', () => {
    const lan = new TestDevice({ offload: false, mtu: MTU });
    const frame = framed(udpPacket(ends, { ...PORTS, payload: bytes(1400) }));
    expect(sendOf(frame, 0, lan.device)).toEqual({
      result: SendResult.NotSegmented,
      counters: { cut: 0, dropUncut: 1 },
    });
    expect(lan.taken()).toEqual([]);
    expect(sendOf(frame, 1420, lan.device)).toEqual({
      result: SendResult.Sent,
      counters: { cut: 1, dropUncut: 0 },
    });
    expect(lan.taken()).toHaveLength(2);
  });

  test('counts a packet whose virtio-net header contradicts it as one that cannot be split', () => {
    const lan = new TestDevice({ offload: false, mtu: MTU });
    const packet = udpPacket(ends, { ...PORTS, payload: bytes(100) });
    const offload = { flags: 1, gsoType: 1, gsoSize: 100, checksumStart: 40, checksumOffset: 16 };
    expect(sendOf(framed(packet, offload), 0, lan.device).result).toBe(SendResult.NotSegmented);
  });

  test('clears the virtio-net header of a plain packet for a device that takes only zeros', () => {
    const lan = new TestDevice({ offload: false, mtu: MTU });
    const packet = udpPacket(ends, { ...PORTS, payload: bytes(100) });
    expect(sendOf(framed(packet, { flags: 2 }), 0, lan.device).result).toBe(SendResult.Sent);
    expect(hex(unframed(lan.taken()))).toEqual(hex([packet]));
  });

  test('sends a packet of exactly the largest size unchanged', () => {
    const lan = new TestDevice({ offload: false, mtu: MTU });
    const packet = (length: number) =>
      framed(udpPacket(ends, { ...PORTS, payload: bytes(length - 48) }));
    expect(sendOf(packet(MTU), 0, lan.device).result).toBe(SendResult.Sent);
    expect(sendOf(packet(MTU + 1), 0, lan.device).result).toBe(SendResult.NotSegmented);
  });
});
