/** What the edge's data plane tells a device that makes its packets itself. */
import { expect, test } from 'vitest';
import { EdgeDataPlane } from '../../src/dataplane/index.ts';
import type { PacketDevice } from '../../src/device/index.ts';
import { FakeTunnel } from '../support/fake-tunnel.ts';
import { type Ends, udpPacket } from '../support/packets.ts';
import { TestDevice } from '../support/test-device.ts';
import { framed } from '../support/vnet.ts';

const SITE = { sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'] };
const OUT: Ends = { source: '10.0.0.5', destination: '10.0.0.129' };

function packet(number: number, ends: Ends = OUT): Uint8Array {
  return framed(udpPacket(ends, { sourcePort: 1000 + number, destinationPort: 53 }));
}

/** A device in memory that also records what it is told, in order. */
function startEdge({ isUp = true, capacity = 1000 } = {}) {
  const lan = new TestDevice();
  const told: string[] = [];
  const device: PacketDevice = Object.assign(lan.device, {
    refused: () => void told.push(`refused ${lan.device.counters.readPackets}`),
    linkChanged: (up: boolean) => void told.push(up ? 'up' : 'down'),
  });
  const [tunnel, cloud] = FakeTunnel.pair('site-a', capacity);
  if (!isUp) tunnel.break();
  const plane = new EdgeDataPlane({ device, tunnel });
  plane.filter.setAddresses(SITE);
  plane.start();
  return { lan, told, tunnel, cloud, plane };
}

test('a device that follows the link is told its state before it starts, and each change', () => {
  expect(startEdge().told).toEqual(['up']);
  const { told, tunnel, plane } = startEdge({ isUp: false });
  expect(told).toEqual(['down']);
  tunnel.comeUp();
  tunnel.break();
  tunnel.comeUp();
  expect(told).toEqual(['down', 'up', 'down', 'up']);
  plane.stop();
  tunnel.break();
  expect(told).toHaveLength(4);
});

test.each([true, false])(
  'it keeps its packets while the tunnel is down (up at first: %s)',
  (isUp) => {
    const { lan, tunnel, plane } = startEdge({ isUp });
    if (isUp) tunnel.break();
    lan.send(packet(1), packet(2));
    lan.run();
    expect(lan.device.counters.readPackets).toBe(0);
    tunnel.comeUp();
    lan.run();
    expect(tunnel.deliver()).toBe(2);
    expect(plane.counters.dropNoTunnel).toBe(0);
  }
);

test('it keeps them also when the tunnel goes down during a batch, or while it is full', () => {
  const { lan, tunnel, told } = startEdge({ capacity: 2 });
  lan.send(...[1, 2, 3, 4, 5].map((number) => packet(number)));
  lan.run();
  tunnel.break();
  lan.run();
  expect(lan.device.counters.readPackets).toBe(2);
  const commit = tunnel.commit.bind(tunnel);
  tunnel.commit = (...frame) => {
    commit(...frame);
    tunnel.break();
    return false;
  };
  tunnel.comeUp();
  lan.run();
  expect(lan.device.counters.readPackets).toBe(3);
  expect(told).toEqual(['up', 'down', 'up', 'down', 'refused 3']);
  tunnel.commit = commit;
  tunnel.comeUp();
  lan.run();
  expect(tunnel.deliver()).toBe(2);
});

test('it is told of each packet that the tunnel does not take, before it is read again', () => {
  const { lan, told, tunnel } = startEdge();
  const commit = tunnel.commit.bind(tunnel);
  let count = 0;
  tunnel.commit = (...frame) => ++count % 2 === 1 && commit(...frame);
  lan.send(...[1, 2, 3, 4, 5].map((number) => packet(number)));
  lan.run();
  expect(told).toEqual(['up', 'refused 2', 'refused 4']);
});

test('it is not told of packets that the filter refuses', () => {
  const { lan, told, plane } = startEdge();
  lan.send(
    packet(1, { ...OUT, destination: '192.0.2.1' }),
    packet(2, { ...OUT, source: '192.0.2.1' })
  );
  lan.run();
  expect(plane.filter.counters('outbound')).toMatchObject({ DropNoPresence: 1, DropSpoofed: 1 });
  expect(told).toEqual(['up']);
});
