/**
 * The host's side of a backend: sockets that are connected to themselves, which services begin with a header, and what
 * the program's functions `dial` and `dialUdp` do wrong.
 */
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import net from 'node:net';
import { describe, expect, test, vi } from 'vitest';
import { IpAddress } from '../../../src/base/address.ts';
import { ConfigError } from '../../../src/errors.ts';
import { BackendServices } from '../../../src/sockets/backend/backend-services.ts';
import { HostTargets, OwnAddresses } from '../../../src/sockets/host/host-targets.ts';
import type { PresenceSocket } from '../../../src/sockets/stream/socket.ts';
import { catchUncaught } from '../uncaught.ts';
import {
  ALL_SERVICES,
  BackendScene,
  closeScenesAfterEach,
  closeServersAfterEach,
  serve,
} from './backend-scene.ts';

closeScenesAfterEach();
closeServersAfterEach();
const uncaught = catchUncaught();

async function codeOf(socket: PresenceSocket): Promise<string | undefined> {
  const [error] = (await once(socket, 'error')) as [NodeJS.ErrnoException];
  return error.code;
}

function thrownBy(act: () => unknown): unknown {
  try {
    return act();
  } catch (error) {
    return error;
  }
}

// The system chooses the port of a service for the near end too, if the service does not run.
const LINUX = process.platform === 'linux';
/** An address of loopback at which nothing but these tests has ports. */
const LONELY = '127.83.61.7';

test.skipIf(!LINUX)('a TCP socket that is connected to itself is no service', async () => {
  const server = net.createServer().listen(0, LONELY);
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  server.close();
  await once(server, 'close');
  const hosts: net.Socket[] = [];
  const scene = new BackendScene({
    dial: () => {
      const ends = { host: LONELY, port, localAddress: LONELY, localPort: port };
      const host = net.connect({ ...ends, allowHalfOpen: true });
      hosts.push(host);
      return host;
    },
  });
  const client = scene.client.connect(80, 'service.test');
  expect(await codeOf(client)).toBe('ECONNREFUSED');
  expect(hosts.map(({ destroyed }) => destroyed)).toEqual([true]);
  expect(scene.backend.counters).toMatchObject({ 'tcp.connected': 0, 'tcp.dialsRefused': 1 });
  expect(scene.backend.sizes).toEqual({ connections: 0, dials: 0, flows: 0 });
  // The service has its port again.
  const service = net.createServer().listen(port, LONELY);
  await once(service, 'listening');
  service.close();
});

test.skipIf(!LINUX)('a UDP socket that is connected to itself is no service', async () => {
  const hosts: UdpSocket[] = [];
  const scene = new BackendScene({
    dialUdp: () => {
      const host = createSocket('udp4');
      host.bind(0, LONELY, () => host.connect(host.address().port, LONELY));
      hosts.push(host);
      return host;
    },
  });
  const client = scene.client.datagram('udp4');
  client.connect(80, '10.2.0.1');
  await once(client, 'connect');
  const heard: string[] = [];
  client.on('message', (payload) => heard.push(String(payload)));
  client.send('a secret');
  await vi.waitUntil(
    () => scene.backend.counters['udp.opened'] === 1 && scene.backend.sizes.flows === 0
  );
  expect(heard).toEqual([]);
  expect(() => hosts[0]!.address()).toThrow();
  expect(scene.backend.counters).toMatchObject({ 'udp.refused': 1, 'udp.toServices': 0 });
  client.close();
});

test('a header that the service expects meanwhile is sent, though the SYN came before', async () => {
  const server = await serve((socket) => socket.pause());
  const withHeader = { address: '127.0.0.1', ports: ['tcp/80'], proxyProtocol: true };
  const scene = new BackendScene({
    dial: () => {
      scene.backend.setServices([withHeader]);
      return net.connect({ port: server.port, host: '127.0.0.1', allowHalfOpen: true });
    },
  });
  scene.client.connect(80, 'service.test').end('data');
  const [first] = (await once((await server.socket()).resume(), 'data')) as [Buffer];
  expect(first.subarray(0, 12).toString('hex')).toBe('0d0a0d0a000d0a515549540a');
});

describe('the header of services that are reached at one host and port', () => {
  /** Two names of one host. */
  const hosts = new Map(
    ['10.0.0.5', '10.0.0.6'].map((address, i) => [
      address,
      IpAddress.parse(i === 0 ? '127.0.0.1' : '::ffff:127.0.0.1'),
    ])
  );
  const servicesOf = (...listed: [address: string, ports: string, header?: boolean][]) =>
    new BackendServices(
      listed.map(([address, ports, proxyProtocol]) => ({
        address,
        ports: [ports, 'udp/80'],
        proxyProtocol,
      })),
      [],
      hosts,
      new HostTargets()
    );
  const NAMES = ['127.0.0.1', '::ffff:127.0.0.1', '10.0.0.5', '10.0.0.6'];

  test.each([true, false])('is %s for all if one of them says so', (header) => {
    for (const said of NAMES) {
      const others = NAMES.map((name): [string, string] => [name, 'tcp/1-90']);
      const services = servicesOf(...others, [said, 'tcp/80', header], ...others);
      for (const name of NAMES) {
        expect(services.hasHeader(IpAddress.parse(name), 80)).toBe(header);
        expect(services.hasHeader(IpAddress.parse(name), 81)).toBe(undefined);
      }
      expect(services.hasHeader(IpAddress.parse('127.0.0.2'), 80)).toBe(undefined);
    }
  });

  test.each(NAMES.flatMap((one) => NAMES.map((other) => [one, other])))(
    'is refused if %s and %s contradict each other',
    (one, other) => {
      const listed = servicesOf.bind(
        undefined,
        [one, 'tcp/1-79', true],
        [one, 'tcp/80-90', true],
        [one, 'tcp/81', true]
      );
      listed([other, 'tcp/91', false], [other, 'udp/80', false]);
      for (const ports of ['tcp/90', 'tcp/80-90', 'tcp/1-65535']) {
        const error = thrownBy(() => listed([other, ports, false]));
        expect(error).toBeInstanceOf(ConfigError);
        expect(error).toMatchObject({
          path: 'services[3].proxyProtocol',
          message: expect.stringMatching(/contradicts services\[[01]\], .* 127\.0\.0\.1 and tcp\//),
        });
      }
    }
  );
});

test('the addresses of this host are asked for once a second, whatever clients send', () => {
  let nowMs = 0;
  let asked = 0;
  const own = new OwnAddresses(
    () => nowMs,
    () => {
      asked++;
      return { eth: [{ address: nowMs < 1_000 ? '10.0.0.5' : '10.0.0.6' }] } as never;
    }
  );
  const targets = new HostTargets(own);
  targets.add('0.0.0.0', 443);
  const isOwn = (address: string): boolean => targets.has(IpAddress.parse(address), 443);
  for (nowMs = 0; nowMs < 1_000; nowMs++) {
    expect([isOwn('10.0.0.5'), isOwn('10.0.0.6'), isOwn('127.0.0.9')]).toEqual([true, false, true]);
  }
  expect(asked).toBe(1);
  expect([isOwn('10.0.0.5'), isOwn('10.0.0.6')]).toEqual([false, true]);
  expect(asked).toBe(2);
});

test('services that are the same as before touch no connection', () => {
  const scene = new BackendScene();
  const withdrawWhere = vi.spyOn(scene.backend, 'withdrawWhere');
  scene.backend.setServices([...ALL_SERVICES]);
  expect(withdrawWhere).not.toHaveBeenCalled();
  const [first, ...others] = ALL_SERVICES;
  scene.backend.setServices([{ ...first!, proxyProtocol: true }, ...others]);
  scene.backend.setRefusedTargets([{ address: '127.0.0.1', port: 80 }]);
  expect(withdrawWhere).toHaveBeenCalledTimes(2);
});

test.each([
  ['0.0.0.0', '127.0.0.1'],
  ['::ffff:0.0.0.0', '127.0.0.1'],
  ['::ffff:127.0.0.1', '127.0.0.1'],
  ['127.0.0.1', '::ffff:127.0.0.1'],
  ['::', '::1'],
  ['127.0.0.1', '::ffff:0.0.0.0'],
])('%s is the gateway that listens at %s', (text, listener) => {
  const address = IpAddress.parse(text);
  const refused = [{ address: listener, port: 80 }];
  const listed = [{ address, ports: ['tcp/80-81'] }];
  const services = new BackendServices(listed, refused, new Map(), new HostTargets());
  expect(services.allows('tcp', address, 80)).toBe(false);
  expect(services.allows('tcp', address, 81)).toBe(true);
});

test.each(['0.0.0.0', '127.0.0.1'])(
  'a socket that has reached the gateway at %s unexpectedly is no service',
  async (address) => {
    const server = await serve((socket) => socket.resume());
    const scene = new BackendScene({
      dial: () => net.connect({ port: server.port, host: '127.0.0.1', allowHalfOpen: true }),
    });
    scene.backend.setRefusedTargets([{ address, port: server.port }]);
    expect(await codeOf(scene.client.connect(80, 'service.test'))).toBe('ECONNREFUSED');
    expect(scene.backend.counters).toMatchObject({ 'tcp.connected': 0, 'tcp.dialsRefused': 1 });
  }
);

test.each([
  ['services', (scene: BackendScene) => scene.backend.setServices([])],
  ['withdrawn clients', (scene: BackendScene) => scene.backend.withdraw(['10.1.0.1'])],
  ['a closed backend', (scene: BackendScene) => void scene.backend.close()],
])('the function dial may end its own connection by %s', async (_, act) => {
  const server = await serve((socket) => socket.resume());
  const hosts: net.Socket[] = [];
  const scene = new BackendScene({
    dial: () => {
      act(scene);
      const host = net.connect({ port: server.port, host: '127.0.0.1', allowHalfOpen: true });
      hosts.push(host);
      return host;
    },
  });
  expect(await codeOf(scene.client.connect(80, 'service.test'))).toBe('ECONNREFUSED');
  expect(hosts.map(({ destroyed }) => destroyed)).toEqual([true]);
  expect(scene.backend.sizes).toEqual({ connections: 0, dials: 0, flows: 0 });
});

test.each([undefined, {}, Promise.resolve()])(
  'the functions dial and dialUdp return no socket: %o',
  async (result) => {
    const scene = new BackendScene({
      dial: () => result as never,
      dialUdp: () => result as never,
      limits: { dials: 1 },
    });
    for (const times of [1, 2]) {
      expect(await codeOf(scene.client.connect(80, 'service.test'))).toBe('ECONNREFUSED');
      expect(scene.backend.counters['tcp.dialsRefused']).toBe(times);
    }
    const client = scene.client.datagram('udp4');
    client.send('x', 80, '10.2.0.1');
    await vi.waitUntil(() => scene.backend.counters['udp.failed'] === 1);
    client.close();
    expect(scene.backend.sizes).toEqual({ connections: 0, dials: 0, flows: 0 });
    expect(uncaught.splice(0).map(({ message }) => message)).toEqual([
      expect.stringContaining('the function dial must return a socket'),
      expect.stringContaining('the function dial must return a socket'),
      expect.stringContaining('the function dialUdp must return a datagram socket'),
    ]);
  }
);
