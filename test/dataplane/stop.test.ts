/**
 * The end of a data plane, which leaves no callback at its device and its tunnels, and the options that it refuses.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, test } from 'vitest';
import {
  CLOUD_DATA_PLANE_DEFAULTS,
  CloudDataPlane,
  type CloudDataPlaneOptions,
  EDGE_DATA_PLANE_DEFAULTS,
  EdgeDataPlane,
  type EdgeDataPlaneOptions,
  PENDING_QUEUE_DEFAULTS,
  PendingQueue,
} from '../../src/dataplane/index.ts';
import { ApiMisuseError } from '../../src/errors.ts';
import { PacketTranslator } from '../../src/translator/index.ts';
import { FakeTunnel } from '../support/fake-tunnel.ts';
import { type Ends, udpPacket } from '../support/packets.ts';
import { TestDevice } from '../support/test-device.ts';
import { framed } from '../support/vnet.ts';

const LAN = { sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'] };
const OUT: Ends = { source: '10.0.0.5', destination: '10.0.0.129' };
const IN: Ends = { source: '10.0.0.129', destination: '10.0.0.5' };
const packet = (ends: Ends): Uint8Array =>
  framed(udpPacket(ends, { sourcePort: 1000, destinationPort: 53 }));

function startEdge() {
  const lan = new TestDevice();
  const [tunnel, cloud] = FakeTunnel.pair('site-a', 2);
  const plane = new EdgeDataPlane({ device: lan.device, tunnel });
  plane.filter.setAddresses(LAN);
  plane.start();
  return { lan, tunnel, cloud, plane };
}

/** A service of the cloud, used by a host of the site that has no presence yet. */
function startCloud() {
  const lan = new TestDevice();
  const translator = new PacketTranslator();
  translator.load({
    realms: ['cloud', 'site-a'].map((name) => ({ name, ...LAN })),
    presences: [
      { realm: 'site-a', address: '10.0.0.129', of: { realm: 'cloud', address: '10.0.0.5' } },
    ],
    permits: [
      { realm: 'site-a', service: { realm: 'cloud', address: '10.0.0.5' }, ports: ['udp/53'] },
    ],
  });
  const [edge, tunnel] = FakeTunnel.pair('site-a');
  const admitted: (() => void)[] = [];
  const plane = new CloudDataPlane({
    cloud: 'cloud',
    device: lan.device,
    translator,
    admit: (realm, address, egress) =>
      new Promise<void>((resolve) => {
        admitted.push(() => {
          translator.bind({ realm: egress, address: '10.0.0.130', of: { realm, address } });
          resolve();
        });
      }),
  });
  plane.start();
  const detach = plane.attach('site-a', tunnel);
  return { lan, translator, edge, tunnel, plane, admitted, detach };
}

function send(tunnel: FakeTunnel, frame: Uint8Array): void {
  tunnel.sendPacket(Buffer.from(frame), 0, frame.length);
  tunnel.flush();
  tunnel.deliver();
}

describe('EdgeDataPlane.stop', () => {
  test('ends both directions, and leaves no callback', () => {
    const { lan, tunnel, cloud, plane } = startEdge();
    const received: Buffer[] = [];
    cloud.onPacket = (buffer, start, end) => received.push(buffer.subarray(start, end));
    lan.send(packet(OUT));
    lan.run();
    send(cloud, packet(IN));
    tunnel.deliver();
    expect([received.length, lan.taken().length]).toEqual([1, 1]);
    plane.stop();
    plane.stop();
    expect(tunnel.listenerCount('down')).toBe(0);
    lan.send(packet(OUT));
    // The device is paused, so it does not call in each turn.
    expect(lan.run()).toBeLessThanOrEqual(1);
    send(cloud, packet(IN));
    tunnel.deliver();
    tunnel.break();
    tunnel.onDrain();
    expect([received.length, lan.taken().length]).toEqual([1, 0]);
    expect(lan.run()).toBe(0);
    expect(plane.counters.dropNoTunnel).toBe(0);
  });

  test('does not remove the callbacks of another', () => {
    const { tunnel, plane } = startEdge();
    const [onPacket, onDrain] = [() => {}, () => {}];
    Object.assign(tunnel, { onPacket, onDrain });
    plane.stop();
    expect([tunnel.onPacket, tunnel.onDrain]).toEqual([onPacket, onDrain]);
  });

  test('ends a batch in which the tunnel goes down', () => {
    const { lan, tunnel, plane } = startEdge();
    tunnel.on('down', () => plane.stop());
    lan.send(packet(OUT), packet(OUT), packet(OUT));
    const flush = tunnel.flush.bind(tunnel);
    tunnel.flush = () => {
      flush();
      tunnel.break();
    };
    lan.run();
    expect(lan.run()).toBe(0);
  });

  test('start works once, and not after stop', () => {
    const { tunnel, plane } = startEdge();
    expect(() => plane.start()).toThrow(ApiMisuseError);
    expect(tunnel.listenerCount('down')).toBe(1);
    plane.stop();
    expect(() => plane.start()).toThrow('the data plane was stopped');
  });

  test('a device that cannot be started leaves no callback at the tunnel', async () => {
    const lan = new TestDevice();
    const [tunnel] = FakeTunnel.pair('site-a');
    await lan.device.close();
    const plane = new EdgeDataPlane({ device: lan.device, tunnel });
    expect(() => plane.start()).toThrow(ApiMisuseError);
    expect(tunnel.listenerCount('down')).toBe(0);
    plane.stop();
  });
});

describe('CloudDataPlane.stop', () => {
  test('ends both directions, and drops packets that wait for a presence', async () => {
    const { lan, translator, edge, plane, admitted, tunnel } = startCloud();
    send(edge, packet({ source: '10.0.0.7', destination: '10.0.0.129' }));
    expect(admitted).toHaveLength(1);
    plane.stop();
    plane.stop();
    admitted[0]!();
    await Promise.resolve();
    await Promise.resolve();
    expect(lan.taken()).toEqual([]);
    // Now there is a path, but no tunnel.
    const before = translator.counters(translator.realm('site-a'));
    send(edge, packet({ source: '10.0.0.7', destination: '10.0.0.129' }));
    lan.send(packet({ source: '10.0.0.5', destination: '10.0.0.130' }));
    lan.run();
    expect(lan.run()).toBe(0);
    expect(lan.taken()).toEqual([]);
    expect(tunnel.waiting).toBe(0);
    expect(translator.counters(translator.realm('site-a'))).toEqual(before);
  });

  test('ignores tunnels afterwards, and cannot be started again', () => {
    const { plane, detach } = startCloud();
    expect(() => plane.start()).toThrow(ApiMisuseError);
    plane.stop();
    const [, tunnel] = FakeTunnel.pair('site-a');
    const { onPacket } = tunnel;
    plane.attach('site-a', tunnel)();
    expect(tunnel.onPacket).toBe(onPacket);
    detach();
    expect(() => plane.start()).toThrow('the data plane was stopped');
  });
});

test('neither the device nor the tunnel keeps a stopped data plane alive', async () => {
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc') as () => void;
  const kept: unknown[] = [];
  const make = (): WeakRef<object>[] => {
    const { lan, tunnel, plane } = startEdge();
    const cloud = startCloud();
    kept.push(lan, tunnel, cloud.lan, cloud.tunnel, cloud.edge, cloud.translator);
    plane.stop();
    cloud.plane.stop();
    return [new WeakRef(plane), new WeakRef(cloud.plane)];
  };
  const planes = make();
  for (let i = 0; i < 20 && planes.some((plane) => plane.deref() !== undefined); i++) {
    await new Promise(setImmediate);
    gc();
  }
  expect(planes.map((plane) => plane.deref())).toEqual([undefined, undefined]);
  expect(kept).toHaveLength(6);
});

describe('options', () => {
  const misuseOf = (use: () => unknown): string => {
    try {
      use();
    } catch (error) {
      expect(error).toBeInstanceOf(ApiMisuseError);
      return (error as Error).message;
    }
    return 'was accepted';
  };

  test.each<[options: object | undefined, message: RegExp]>([
    [undefined, /^options must be an object, not undefined$/],
    [{ device: {} }, /^device must be an object with the methods start, pause, /],
    [{ tunnel: undefined }, /^tunnel must be an object with the methods reserve, /],
    [{ batch: 0 }, /^batch must be a whole number from 1 to 65536, not 0$/],
  ])('EdgeDataPlane refuses %j', (options, message) => {
    const [tunnel] = FakeTunnel.pair('site-a');
    const whole = options && { device: new TestDevice().device, tunnel, ...options };
    const make = () => new EdgeDataPlane(whole as unknown as EdgeDataPlaneOptions);
    expect(misuseOf(make)).toMatch(message);
  });

  test.each<[options: object | undefined, message: RegExp]>([
    [undefined, /^options must be an object, not undefined$/],
    [{ cloud: undefined }, /^cloud must be a text, not undefined$/],
    [{ device: 'tun' }, /^device must be an object with the methods start, pause, .*, not "tun"$/],
    [{ translator: {} }, /^translator must be an object with the methods translate, /],
    [{ admit: undefined }, /^admit must be a function, not undefined$/],
    [{ batch: '128' }, /^batch must be a whole number from 1 to 65536, not "128"$/],
    [{ waiting: 5 }, /^waiting must be an object, not 5$/],
    [
      { waiting: { maxPackets: -1 } },
      /^maxPackets must be a whole number from 0 to 2147483647, not -1$/,
    ],
    [
      { waiting: { maxBytes: '1' } },
      /^maxBytes must be a whole number from 0 to 2147483647, not "1"$/,
    ],
    [{ clock: Date }, /^clock must be an object with the methods wallMs, /],
  ])('CloudDataPlane refuses %j', (options, message) => {
    const translator = new PacketTranslator();
    const admit = () => Promise.resolve();
    const { device } = new TestDevice();
    const whole = options && { cloud: 'cloud', device, translator, admit, ...options };
    const make = () => new CloudDataPlane(whole as unknown as CloudDataPlaneOptions);
    expect(misuseOf(make)).toMatch(message);
  });

  test('CloudDataPlane.attach throws for a value that is no tunnel', () => {
    const { plane } = startCloud();
    const attach = (site: unknown, tunnel: unknown) =>
      misuseOf(() => plane.attach(site as string, tunnel as FakeTunnel));
    expect(attach('site-a', {})).toMatch(/^tunnel must be an object with the methods reserve, /);
    expect(attach(5, FakeTunnel.pair('site-a')[0])).toBe('site must be a text, not 5');
  });

  test('have documented defaults', () => {
    expect(CLOUD_DATA_PLANE_DEFAULTS).toEqual({ batch: 128 });
    expect(EDGE_DATA_PLANE_DEFAULTS).toEqual({ batch: 128 });
    expect(PENDING_QUEUE_DEFAULTS).toEqual({ maxPackets: 256, maxBytes: 4 * 1024 * 1024 });
    expect(() => new PendingQueue()).not.toThrow();
  });
});
