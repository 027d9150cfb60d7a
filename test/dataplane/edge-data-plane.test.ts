import { describe, expect, test } from 'vitest';
import { EdgeDataPlane } from '../../src/dataplane/index.ts';
import { fragmentPacket } from '../oracle/fragment-packet.ts';
import { naiveSegments } from '../packet/pieces.ts';
import { FakeTunnel } from '../support/fake-tunnel.ts';
import { type Ends, tcpPacket, udpPacket } from '../support/packets.ts';
import { TestDevice } from '../support/test-device.ts';
import { framed } from '../support/vnet.ts';

const SITE = { sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'] };
const OUT: Ends = { source: '10.0.0.5', destination: '10.0.0.129' };
const IN: Ends = { source: '10.0.0.129', destination: '10.0.0.5' };

/** A packet with a number that identifies it. */
function packet(ends: Ends, number: number, length = 100): Uint8Array {
  const payload = new Uint8Array(length).map((_, i) => (i * 7 + number) & 255);
  return framed(udpPacket(ends, { sourcePort: 1000 + number, destinationPort: 53, payload }));
}

const packets = (ends: Ends, count: number) =>
  Array.from({ length: count }, (_, i) => packet(ends, i));

interface Edge {
  readonly lan: TestDevice;
  readonly tunnel: FakeTunnel;
  readonly cloud: FakeTunnel;
  readonly plane: EdgeDataPlane;
  /** The packets that the cloud received. */
  readonly received: Buffer[];
}

function startEdge(
  options: { capacity?: number; batch?: number; queueLength?: number; offload?: boolean } = {}
): Edge {
  const { capacity = 1000, batch, queueLength = 1024, offload = true } = options;
  const lan = new TestDevice({ queueLength, offload });
  const [tunnel, cloud] = FakeTunnel.pair('site-a', capacity);
  const plane = new EdgeDataPlane({
    device: lan.device,
    tunnel,
    ...(batch === undefined ? {} : { batch }),
  });
  plane.filter.setAddresses(SITE);
  plane.start();
  const received: Buffer[] = [];
  cloud.onPacket = (buffer, start, end) => {
    received.push(Buffer.from(buffer.subarray(start, end)));
  };
  return { lan, tunnel, cloud, plane, received };
}

const hex = (frames: readonly Uint8Array[]) =>
  frames.map((frame) => Buffer.from(frame).toString('hex'));

describe('outbound', () => {
  test('carries packets unchanged and in order, and flushes when the device has no more', () => {
    const { lan, tunnel, received } = startEdge();
    const sent = [
      ...packets(OUT, 3),
      framed(
        tcpPacket(OUT, {
          sourcePort: 1,
          destinationPort: 2,
          checksum: 'partial',
          payload: new Uint8Array(60_000).fill(7),
        }),
        { flags: 1, gsoType: 1, gsoSize: 1400, checksumStart: 20, checksumOffset: 16 }
      ),
      packet(OUT, 4),
    ];
    lan.send(...sent);
    expect(lan.run()).toBe(1);
    expect(tunnel.deliver()).toBe(5);
    expect(hex(received)).toEqual(hex(sent));
    expect(tunnel.isHoldingSlab).toBe(false);
  });

  test('commits no packet that the filter refuses', () => {
    const { lan, tunnel, received, plane } = startEdge();
    const good = packets(OUT, 2);
    lan.send(
      good[0]!,
      packet({ ...OUT, destination: '192.0.2.1' }, 7),
      packet({ ...OUT, source: '192.0.2.1' }, 8),
      framed(new Uint8Array(20)),
      good[1]!
    );
    lan.run();
    tunnel.deliver();
    expect(hex(received)).toEqual(hex(good));
    expect(plane.filter.counters('outbound')).toMatchObject({
      Forward: 2,
      DropNoPresence: 1,
      DropSpoofed: 1,
      DropMalformed: 1,
    });
  });

  test('bounds the segments of a super-packet in both directions, before a kernel has to make them', () => {
    const { lan, tunnel, cloud, received, plane } = startEdge();
    const header = { flags: 1, gsoType: 1, gsoSize: 1, checksumStart: 20, checksumOffset: 16 };
    const superPacket = (ends: Ends, length: number): Uint8Array => {
      const payload = new Uint8Array(length);
      const tcp = { sourcePort: 1, destinationPort: 2, checksum: 'partial', payload } as const;
      return framed(tcpPacket(ends, tcp), header);
    };
    const out = [superPacket(OUT, 128), superPacket(OUT, 129), superPacket(OUT, 65_495)];
    lan.send(...out);
    lan.run();
    tunnel.deliver();
    expect(hex(received)).toEqual(hex(out.slice(0, 1)));
    expect(plane.filter.counters('outbound')).toMatchObject({ Forward: 1, DropTooManySegments: 2 });

    const into = [superPacket(IN, 128), superPacket(IN, 129), superPacket(IN, 65_495)];
    for (const frame of into) cloud.sendPacket(Buffer.from(frame), 0, frame.length);
    cloud.flush();
    cloud.deliver();
    expect(hex(lan.taken())).toEqual(hex(into.slice(0, 1)));
    expect(plane.filter.counters('inbound')).toMatchObject({ Forward: 1, DropTooManySegments: 2 });
  });

  test('lets no packet through before the addresses of the site are known', () => {
    const lan = new TestDevice();
    const [tunnel] = FakeTunnel.pair('site-a');
    new EdgeDataPlane({ device: lan.device, tunnel }).start();
    lan.send(...packets(OUT, 3));
    lan.run();
    expect(tunnel.waiting).toBe(0);
  });

  test('reads at most a batch in a turn, and flushes each', () => {
    const { lan, tunnel } = startEdge({ batch: 4 });
    lan.send(...packets(OUT, 10));
    const carried: number[] = [];
    for (let i = 0; i < 3; i++) {
      lan.turn();
      carried.push(tunnel.deliver());
    }
    expect(carried).toEqual([4, 4, 2]);
    expect(lan.turn()).toBe(false);
  });

  test('stops reading while the tunnel is full, and loses nothing', () => {
    const { lan, tunnel, received, plane } = startEdge({ capacity: 5 });
    const sent = packets(OUT, 50);
    lan.send(...sent);
    lan.run();
    expect(tunnel.waiting).toBe(5);
    expect(lan.device.counters.readPackets).toBe(5);
    while (tunnel.deliver(2) > 0) lan.run();
    expect(hex(received)).toEqual(hex(sent));
    expect(plane.counters).toMatchObject({
      cut: 0,
      dropUncut: 0,
      dropNoTunnel: 0,
      dropDeviceFull: 0,
    });
  });

  test('leaves the queue in the device when the tunnel is full, where packets are dropped', () => {
    const { lan, tunnel, plane } = startEdge({ capacity: 1, queueLength: 4 });
    lan.send(packet(OUT, 0));
    lan.run();
    lan.send(packet(OUT, 1));
    lan.run();
    lan.send(...[2, 3, 4].map((number) => packet(OUT, number)));
    expect(() => lan.send(packet(OUT, 5))).toThrow('not taken');
    lan.run();
    expect(tunnel.waiting).toBe(1);
    expect(plane.counters.dropNoTunnel).toBe(0);
  });

  test('drops and counts packets while there is no tunnel, at most a batch in a turn', () => {
    const { lan, tunnel, plane, received } = startEdge({ batch: 4 });
    tunnel.break();
    lan.send(...packets(OUT, 10));
    lan.turn();
    expect(plane.counters.dropNoTunnel).toBe(4);
    lan.run();
    expect(plane.counters.dropNoTunnel).toBe(10);
    tunnel.comeUp();
    lan.send(packet(OUT, 11));
    lan.run();
    tunnel.deliver();
    expect(hex(received)).toEqual(hex([packet(OUT, 11)]));
  });

  test('sends the newest packet of a TCP flow when the tunnel is up again', () => {
    const { lan, tunnel, plane, received } = startEdge();
    tunnel.break();
    const segments = [1, 2, 3].map((number) => {
      const payload = new Uint8Array(100).fill(number);
      return framed(tcpPacket(OUT, { sourcePort: 1000, destinationPort: 80, payload }));
    });
    lan.send(...segments, packet(OUT, 1));
    lan.run();
    expect(plane.counters.dropNoTunnel).toBe(3);
    tunnel.comeUp();
    tunnel.deliver();
    expect(hex(received)).toEqual(hex([segments[2]!]));
    expect(plane.counters.sentLate).toBe(1);
  });

  test('continues after a full tunnel has gone down and come up again', () => {
    const { lan, tunnel, received, plane } = startEdge({ capacity: 2 });
    lan.send(...packets(OUT, 10));
    lan.run();
    tunnel.break();
    lan.run();
    expect(plane.counters.dropNoTunnel).toBe(8);
    tunnel.comeUp();
    lan.send(packet(OUT, 11));
    lan.run();
    tunnel.deliver();
    expect(hex(received)).toEqual(hex([packet(OUT, 11)]));
  });

  test('continues after the tunnel has gone down during a batch', () => {
    const { lan, tunnel, received, plane } = startEdge();
    // A write to a connection that the peer has reset ends the tunnel before `commit` returns.
    const commit = tunnel.commit.bind(tunnel);
    tunnel.commit = (...frame) => {
      const isTaken = commit(...frame);
      tunnel.break();
      return isTaken;
    };
    lan.send(...packets(OUT, 10));
    lan.run();
    expect(plane.counters.dropNoTunnel).toBe(9);
    tunnel.commit = commit;
    tunnel.comeUp();
    lan.send(packet(OUT, 11));
    lan.run();
    tunnel.deliver();
    expect(hex(received)).toEqual(hex([packet(OUT, 11)]));
  });

  test('continues when the tunnel goes down and comes up before the event loop has run', () => {
    const { lan, tunnel, received } = startEdge({ capacity: 2 });
    const sent = packets(OUT, 10);
    lan.send(...sent);
    lan.run();
    tunnel.break();
    tunnel.comeUp();
    lan.run();
    while (tunnel.deliver() > 0) lan.run();
    expect(hex(received)).toEqual(hex(sent.slice(2)));
  });
});

describe('inbound', () => {
  test('carries packets unchanged and in order', () => {
    const { lan, cloud } = startEdge();
    const sent = packets(IN, 5).map((frame) => Buffer.from(frame));
    for (const frame of sent) cloud.sendPacket(frame, 0, frame.length);
    cloud.flush();
    cloud.deliver();
    expect(hex(lan.taken())).toEqual(hex(sent));
  });

  test('writes no packet that the filter refuses, however short', () => {
    const { lan, cloud, plane } = startEdge();
    const refused = [
      packet({ source: '192.0.2.1', destination: '10.0.0.5' }, 1),
      packet({ source: '10.0.0.129', destination: '192.0.2.1' }, 2),
      packet({ source: '10.0.0.129', destination: '10.0.0.130' }, 3),
      new Uint8Array(0),
      new Uint8Array(5),
      new Uint8Array(10),
      new Uint8Array(11),
      packet(IN, 4).subarray(0, 37),
    ];
    for (const frame of refused) cloud.sendPacket(Buffer.from(frame), 0, frame.length);
    cloud.flush();
    cloud.deliver();
    expect(lan.taken()).toEqual([]);
    expect(plane.filter.counters('inbound')).toMatchObject({
      Forward: 0,
      DropSpoofed: 1,
      DropNoPresence: 2,
      DropMalformed: 5,
    });
  });

  test('counts packets that the device refuses', () => {
    const { lan, cloud, plane } = startEdge({ queueLength: 3 });
    const sent = packets(IN, 5).map((frame) => Buffer.from(frame));
    for (const frame of sent) cloud.sendPacket(frame, 0, frame.length);
    cloud.flush();
    cloud.deliver();
    expect(hex(lan.taken())).toEqual(hex(sent.slice(0, 3)));
    expect(plane.counters.dropDeviceFull).toBe(2);
  });

  describe('for a device without offloads', () => {
    const deliver = (cloud: FakeTunnel, ...frames: Uint8Array[]) => {
      for (const frame of frames) cloud.sendPacket(Buffer.from(frame), 0, frame.length);
      cloud.flush();
      cloud.deliver();
    };
    const offload = { flags: 1, gsoType: 1, gsoSize: 1400, checksumStart: 20, checksumOffset: 16 };
    const stream = tcpPacket(IN, {
      sourcePort: 1,
      destinationPort: 2,
      checksum: 'partial',
      payload: new Uint8Array(60_000).map((_, i) => i & 255),
    });

    test('splits a super-packet into segments with correct checksums, in the order of the others', () => {
      const { lan, cloud, plane } = startEdge({ offload: false });
      deliver(cloud, packet(IN, 1), framed(stream, offload), packet(IN, 2));
      const segments = naiveSegments(stream, 1400).map((segment) => framed(segment));
      expect(segments).toHaveLength(43);
      expect(hex(lan.taken())).toEqual(hex([packet(IN, 1), ...segments, packet(IN, 2)]));
      expect(plane.counters).toMatchObject({ cut: 1, dropUncut: 0, dropDeviceFull: 0 });
    });

    test('drops and counts packets that are too long and must not be fragmented, or contradict themselves', () => {
      const { lan, cloud, plane } = startEdge({ offload: false });
      deliver(cloud, packet(IN, 1, 1473), framed(stream, { ...offload, gsoSize: 0 }));
      expect(lan.taken()).toEqual([]);
      expect(plane.counters).toMatchObject({ cut: 0, dropUncut: 1, dropDeviceFull: 0 });
      expect(plane.filter.counters('inbound')).toMatchObject({ Forward: 1, DropMalformed: 1 });
    });

    test('passes fragments unchanged', () => {
      const { lan, cloud } = startEdge({ offload: false });
      const whole = udpPacket(IN, {
        sourcePort: 1,
        destinationPort: 2,
        payload: new Uint8Array(3000).fill(3),
      });
      const fragments = fragmentPacket(whole, [1400, 2800], 5).map((fragment) => framed(fragment));
      deliver(cloud, ...fragments);
      expect(hex(lan.taken())).toEqual(hex(fragments));
    });
  });
});
