/**
 * What a backend does not connect to, what ends its connections, and how much one client or site can take of it.
 */
import { once } from 'node:events';
import net from 'node:net';
import { networkInterfaces } from 'node:os';
import { describe, expect, test, vi } from 'vitest';
import { IpAddress } from '../../../src/base/address.ts';
import {
  type BackendService,
  BackendServices,
  type BackendTarget,
} from '../../../src/sockets/backend/backend-services.ts';
import type { Forward } from '../../../src/sockets/forward/forward.ts';
import { HostTargets } from '../../../src/sockets/host/host-targets.ts';
import { SocketBackend, type SocketProxy } from '../../../src/sockets/index.ts';
import type { SocketStack } from '../../../src/sockets/stack.ts';
import type { PresenceSocket } from '../../../src/sockets/stream/socket.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { catchUncaught } from '../uncaught.ts';
import { settled } from '../worlds.ts';
import {
  ALL_SERVICES,
  BackendScene,
  closeScenesAfterEach,
  closeServersAfterEach,
  SERVICE_SITE,
  serve,
} from './backend-scene.ts';

closeScenesAfterEach();
closeServersAfterEach();
const uncaught = catchUncaught();

function servicesOf(
  listed: readonly BackendService[],
  refused: readonly BackendTarget[]
): BackendServices {
  return new BackendServices(listed, refused, new Map(), new HostTargets());
}

/** Resolves with the error that ends the socket; undefined if there is none. */
async function endOf(socket: PresenceSocket): Promise<NodeJS.ErrnoException | undefined> {
  let failure: NodeJS.ErrnoException | undefined;
  socket.on('error', (error) => {
    failure = error;
  });
  if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve));
  return failure;
}

const codeOf = async (socket: PresenceSocket): Promise<string | undefined> =>
  (await endOf(socket))?.code;

/** Dials that connect when the test says so, and never by themselves. */
class SlowDials {
  readonly sockets: net.Socket[] = [];

  readonly dial = (): net.Socket => {
    const socket = new net.Socket({ allowHalfOpen: true });
    Object.defineProperty(socket, 'connecting', { value: true });
    this.sockets.push(socket);
    return socket;
  };

  get open(): number {
    return this.sockets.filter(({ destroyed }) => !destroyed).length;
  }
}

/** Opens connections that nobody waits for. */
function connectAll(client: SocketStack, count: number): PresenceSocket[] {
  return Array.from({ length: count }, () =>
    client.connect(80, 'service.test').on('error', () => {})
  );
}

describe('what is not connected to', () => {
  test('is every address and port that no service has', async () => {
    const server = await serve(() => {});
    const services = [{ address: '127.0.0.1', ports: [`udp/${server.port}`, 'icmp', 'tcp/1-9'] }];
    const scene = new BackendScene({ services });
    expect(await codeOf(scene.client.connect(server.port, 'service.test'))).toBe('ECONNREFUSED');
    expect(await codeOf(scene.client.connect(80, 'far.test'))).toBe('ECONNREFUSED');
    expect(scene.backend.counters['tcp.notAllowed']).toBe(2);
    expect(server.sockets).toEqual([]);
    expect(scene.backend.sizes).toEqual({ connections: 0, dials: 0, flows: 0 });
  });

  test('is the gateway itself, at the address that it listens at', async () => {
    const server = await serve(() => {});
    const scene = new BackendScene();
    scene.backend.setRefusedTargets([{ address: '127.0.0.1', port: server.port }]);
    expect(await codeOf(scene.client.connect(server.port, 'service.test'))).toBe('ECONNREFUSED');
    expect(scene.backend.counters['tcp.refusedTargets']).toBe(1);
    // Others may have the port at their addresses.
    const other = scene.client.connect(server.port, 'other.test');
    expect(await codeOf(other)).toBe('ECONNREFUSED');
    expect(scene.backend.counters).toMatchObject({
      'tcp.refusedTargets': 1,
      'tcp.dialsRefused': 1,
    });
  });

  test('is where a forward, a published service or a proxy of the stack listens, as long as it does', async () => {
    const scene = new BackendScene();
    const { stack, client, backend } = scene;
    const target = { host: '10.1.0.2', port: 80 };
    const hosts = [{ name: 'site.test', addresses: [target.host], ports: ['tcp/80'] }];
    stack.setSite({ ...SERVICE_SITE, hosts });
    const forward = await stack.forward({ host: '::ffff:127.0.0.1', port: 0 }, target);
    const proxy = await stack.proxy({ host: '0.0.0.0', port: 0 });
    const portOf = ({ address }: Forward | SocketProxy): number =>
      (address as net.AddressInfo).port;
    // The port is free at other addresses of loopback, since the system has just chosen it.
    const port = portOf(forward);
    stack.setSite({ ...SERVICE_SITE, hosts: [{ ...hosts[0]!, ports: ['tcp/80', `tcp/${port}`] }] });
    const publication = await stack.publish({ loopback: '127.0.0.128/25' });
    const { loopback, ports } = publication.entries()[0]!;
    expect(ports).toContain(port);
    backend.setServices([...ALL_SERVICES, { address: loopback!, ports: [`tcp/${port}`] }]);
    // The path between the stacks translates the addresses of loopback.
    const published = loopback!.replace('127.0.0.', '10.2.0.');
    client.setSite({
      ...SERVICE_SITE,
      sources: ['10.1.0.0/16'],
      pools: ['10.2.0.0/16'],
      hosts: ['10.2.0.1', '10.2.0.2', published].map((address) => ({
        name: `${address}.test`,
        addresses: [address],
        ports: ['tcp/1-65535'],
      })),
    });
    const listeners: [string, number, AsyncDisposable][] = [
      ['10.2.0.1', port, forward],
      ['10.2.0.2', portOf(proxy), proxy],
      [published, port, publication],
    ];
    for (const [i, [host, port, listener]] of listeners.entries()) {
      expect(await codeOf(client.connect({ host, port }))).toBe('ECONNREFUSED');
      expect(backend.counters).toMatchObject({
        'tcp.refusedTargets': i + 1,
        'tcp.dialsRefused': i,
      });
      await listener[Symbol.asyncDispose]();
      // Nobody listens there any more, and the dial says so.
      expect(await codeOf(client.connect({ host, port }))).toBe('ECONNREFUSED');
      expect(backend.counters['tcp.dialsRefused']).toBe(i + 1);
    }
  });

  const ownAddresses = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  test.each(['127.0.0.2', '::1', '0.0.0.0', ...ownAddresses.map(({ address }) => address)])(
    'is the gateway at %s, when it listens at all addresses',
    (text) => {
      const address = IpAddress.parse(text);
      const listed = [{ address, ports: ['tcp/80-81', 'udp/80'] }];
      for (const everywhere of ['0.0.0.0', '::']) {
        const services = servicesOf(listed, [{ address: everywhere, port: 80 }]);
        expect(services.allows('tcp', address, 80)).toBe(false);
        expect(services.allows('udp', address, 80)).toBe(false);
        expect(services.allows('tcp', address, 81)).toBe(true);
      }
    }
  );

  test('is not another host, whose ports are its own', () => {
    const address = IpAddress.parse('192.0.2.1');
    const listed = [{ address, ports: ['tcp/80'] }];
    const services = servicesOf(listed, [{ address: '0.0.0.0', port: 80 }]);
    expect(services.allows('tcp', address, 80)).toBe(true);
  });

  test('is a listener of the program on the stack, which comes first', async () => {
    const address = '10.3.0.1';
    const dials = new SlowDials();
    const scene = new BackendScene({
      dial: dials.dial,
      services: [...ALL_SERVICES, { address, ports: ['tcp/80'] }],
    });
    const server = scene.stack.createServer((socket) => socket.end('program')).listen(80);
    const client = scene.client.connect(80, 'stack.test');
    const [data] = (await once(client, 'data')) as [Buffer];
    expect(data.toString()).toBe('program');
    // The same port of a service is not the program's.
    connectAll(scene.client, 1);
    await vi.waitUntil(() => dials.open === 1);
    server.close();
    scene.client.connect(80, 'stack.test').on('error', () => {});
    await vi.waitUntil(() => dials.open === 2);
  });
});

describe('connections and dials end at once', () => {
  /** A connection that is open, and one whose service is still being connected to. */
  async function both(): Promise<{
    scene: BackendScene;
    open: PresenceSocket;
    waiting: PresenceSocket;
    host: net.Socket;
    dialled: net.Socket;
    far: net.Socket;
  }> {
    const server = await serve((socket) => socket.resume());
    const slow = new SlowDials();
    const sockets: net.Socket[] = [];
    const scene = new BackendScene({
      dial: (target) => {
        const socket =
          target.port === 80
            ? slow.dial()
            : net.connect({ host: target.address, port: target.port, allowHalfOpen: true });
        sockets.push(socket);
        return socket;
      },
    });
    const open = scene.client.connect(server.port, 'service.test');
    await once(open, 'connect');
    const far = await server.socket();
    await vi.waitUntil(() => scene.backend.counters['tcp.connected'] === 1);
    const [waiting] = connectAll(scene.client, 1);
    await vi.waitUntil(() => sockets.length === 2);
    const [host, dialled] = sockets;
    return { scene, open, far, waiting: waiting!, host: host!, dialled: dialled! };
  }

  const causes: readonly [name: string, (scene: BackendScene) => void][] = [
    ['when their service is withdrawn', ({ backend }) => backend.setServices([])],
    [
      'when the presence of their client is withdrawn',
      ({ backend }) => backend.withdraw(['10.1.0.1']),
    ],
    [
      'when the pool of their client is withdrawn',
      ({ stack }) => stack.setSite({ ...SERVICE_SITE, pools: ['10.9.0.0/16'] }),
    ],
    ['when the stack interrupts all', ({ stack }) => stack.interrupt(new Error('of the test'))],
    ['when the backend is closed', ({ backend }) => void backend.close()],
    ['when the stack is closed', ({ stack }) => void stack.finish(new Error('of the test'))],
    [
      'when the gateway listens there',
      ({ backend }) =>
        backend.setRefusedTargets(
          Array.from({ length: 65_535 }, (_, i) => ({ address: '0.0.0.0', port: i + 1 }))
        ),
    ],
  ];

  test.each(causes)('%s', async (_, act) => {
    const { scene, open, waiting, host, dialled, far } = await both();
    const ends = [codeOf(open), codeOf(waiting)];
    const reset = new Promise<NodeJS.ErrnoException>((resolve) => far.once('error', resolve));
    act(scene);
    // Before it returns.
    expect([host.destroyed, dialled.destroyed]).toEqual([true, true]);
    expect(scene.stack.tcp.sizes).toMatchObject({ connections: 0, halfOpen: 0 });
    expect(scene.backend.sizes.dials).toBe(0);
    expect(await Promise.all(ends)).toEqual(['ECONNRESET', 'ECONNREFUSED']);
    expect((await reset).code).toBe('ECONNRESET');
    await vi.waitUntil(() => scene.backend.sizes.connections === 0);
  });

  test('and those of others go on', async () => {
    const { scene, open, waiting, host, dialled } = await both();
    scene.backend.setServices(ALL_SERVICES);
    scene.backend.withdraw(['10.1.0.2', '2001:db8:1::1']);
    scene.backend.setRefusedTargets([{ address: '0.0.0.0', port: 79 }]);
    scene.stack.setSite({ ...SERVICE_SITE, hosts: [] });
    await settled();
    expect([host.destroyed, dialled.destroyed]).toEqual([false, false]);
    expect([open.readyState, waiting.readyState]).toEqual(['open', 'opening']);
    expect(scene.backend.counters['tcp.withdrawn']).toBe(0);
  });

  test('in any state, also before the backend knows of the handshake', async () => {
    const slow = new SlowDials();
    const scene = new BackendScene({ dial: slow.dial });
    const { write } = scene.stack;
    let packets = 0;
    // Behind each packet, before its events are delivered.
    scene.stack.write = (...args) => {
      const taken = write.apply(scene.stack, args);
      packets++;
      scene.backend.withdraw(['10.1.0.1']);
      return taken;
    };
    const [client] = connectAll(scene.client, 1);
    expect(await codeOf(client!)).toBe('ECONNREFUSED');
    expect(packets).toBe(1);
    expect(slow.sockets).toEqual([]);
    expect(scene.backend.sizes).toEqual({ connections: 0, dials: 0, flows: 0 });
  });

  test('what a client has not acknowledged yet ends too when it is withdrawn', async () => {
    const server = await serve((socket) => {
      socket.resume().on('end', () => socket.end('the last bytes'));
    });
    const scene = new BackendScene();
    const client = scene.client.connect(server.port, 'service.test');
    await vi.waitUntil(() => scene.backend.counters['tcp.connected'] === 1);
    scene.isSilent = true;
    client.on('error', () => {}).end();
    await vi.waitUntil(() => scene.backend.sizes.connections === 0);
    expect(scene.stack.tcp.sizes.connections).toBe(1);
    scene.stack.setSite(SERVICE_SITE);
    expect(scene.stack.tcp.sizes.connections).toBe(1);
    scene.backend.withdraw(['10.1.0.1']);
    expect(scene.stack.tcp.sizes.connections).toBe(0);
  });

  test('when the client has gone, and when it has waited for too long', async () => {
    const clock = new FakeClock();
    const slow = new SlowDials();
    const scene = new BackendScene({ dial: slow.dial }, { clock });
    const [client] = connectAll(scene.client, 1);
    await vi.waitUntil(() => slow.open === 1);
    client!.destroy();
    for (let second = 0; second < 130; second++) {
      clock.advance(1_000);
      await settled();
    }
    expect(slow.open).toBe(0);
    expect(scene.backend.counters['tcp.dialsAbandoned']).toBe(1);
    expect(scene.backend.sizes).toEqual({ connections: 0, dials: 0, flows: 0 });
  });
});

describe('the bounds', () => {
  test('so many sockets connect at once, and the others have their turn later', async () => {
    const clock = new FakeClock();
    const slow = new SlowDials();
    const scene = new BackendScene({ dial: slow.dial, limits: { dials: 3 } }, { clock });
    connectAll(scene.client, 2);
    await vi.waitUntil(() => slow.open === 2);
    connectAll(scene.clientAt('10.1.0.2'), 1);
    await vi.waitUntil(() => slow.open === 3);
    connectAll(scene.clientAt('10.1.0.3'), 1);
    await vi.waitUntil(() => scene.backend.counters['tcp.limited'] === 1);
    expect(scene.backend.sizes).toEqual({ connections: 3, dials: 3, flows: 0 });
    expect(scene.stack.tcp.sizes.halfOpen).toBe(3);
    slow.sockets[0]!.destroy();
    await vi.waitUntil(() => slow.open === 2);
    await vi.waitUntil(() => {
      clock.advance(500);
      return slow.open === 3;
    });
  });

  test('one client leaves room for others', async () => {
    const slow = new SlowDials();
    const scene = new BackendScene({ dial: slow.dial, limits: { dials: 16 } });
    connectAll(scene.client, 20);
    await vi.waitUntil(() => scene.backend.counters['tcp.limited'] === 12);
    expect(slow.open).toBe(8);
    connectAll(scene.clientAt('10.1.0.2'), 20);
    await vi.waitUntil(() => slow.open === 10);
  });

  test('one site has a quarter, however many clients it has', async () => {
    const slow = new SlowDials();
    const scene = new BackendScene({
      dial: slow.dial,
      limits: { dials: 16 },
      siteOf: (client) => (client.words[0]! & 0xff00 ? 'b' : 'a'),
    });
    const clients = ['10.1.0.2', '10.1.0.3', '10.1.1.1'].map((each) => scene.clientAt(each));
    connectAll(clients[2]!, 1);
    await vi.waitUntil(() => slow.open === 1);
    for (const client of clients.slice(0, 2)) connectAll(client, 4);
    await vi.waitUntil(() => scene.backend.counters['tcp.limited'] === 4);
    expect(slow.open).toBe(5);
    connectAll(clients[2]!, 3);
    await vi.waitUntil(() => slow.open === 8);
  });

  test('one site has a quarter of the connections', async () => {
    const server = await serve((socket) => socket.resume());
    const siteOf = (client: IpAddress) => (client.toString() === '10.1.0.2' ? 'b' : 'a');
    const scene = new BackendScene({ siteOf }, { limits: { connections: 16 } });
    const other = scene.clientAt('10.1.0.2').connect(server.port, 'service.test');
    await once(other, 'connect');
    const sockets = Array.from({ length: 6 }, () =>
      scene.client.connect(server.port, 'service.test')
    );
    await vi.waitUntil(() => scene.backend.counters['tcp.connected'] === 5);
    await settled();
    expect(sockets.filter(({ connecting }) => connecting)).toHaveLength(2);
    expect(scene.backend.sizes.connections).toBe(5);
    for (const socket of [...sockets, other]) socket.on('error', () => {}).destroy();
  });

  test('a function siteOf that throws hurts no packet', async () => {
    const fault = new Error('of the program');
    const server = await serve((socket) => socket.end('here'));
    const scene = new BackendScene({
      siteOf: () => {
        throw fault;
      },
    });
    const client = scene.client.connect(server.port, 'service.test');
    const [data] = (await once(client, 'data')) as [Buffer];
    expect(data.toString()).toBe('here');
    expect(uncaught.splice(0)).toContain(fault);
  });

  test('handshakes that newer ones push out end their dials', async () => {
    const slow = new SlowDials();
    const scene = new BackendScene({ dial: slow.dial }, { limits: { halfOpen: 4 } });
    connectAll(scene.client, 6);
    await vi.waitUntil(() => scene.backend.counters['tcp.dialsAbandoned']! >= 2);
    expect(slow.open).toBe(4);
    expect(scene.backend.sizes).toEqual({ connections: 4, dials: 4, flows: 0 });
  });
});

describe('a backend', () => {
  test('is the only one of its stack, until it is closed', async () => {
    const scene = new BackendScene();
    expect(() => new SocketBackend({ stack: scene.stack })).toThrow('has a backend already');
    await scene.backend.close();
    await using other = new SocketBackend({ stack: scene.stack });
    expect(other.sizes.connections).toBe(0);
  });

  test('leaves the stack as it was', async () => {
    const scene = new BackendScene();
    await scene.backend.close();
    connectAll(scene.client, 1);
    await vi.waitUntil(() => scene.stack.counters.dropNotOwn === 1);
    expect(scene.sent.from).toEqual([]);
    expect(scene.backend.close()).toBe(scene.backend.close());
  });

  test.each<[object, string]>([
    [{ services: 'x' }, 'services: expected a list'],
    [{ services: [{ address: '10.0.0.300', ports: [] }] }, '10.0.0.300'],
    [{ services: [{ address: '10.0.0.3', ports: ['tcp/0'] }] }, 'tcp/0'],
    [{ dial: 1 }, 'dial: expected a function'],
    [{ siteOf: 1 }, 'siteOf: expected a function'],
    [{ limits: { dials: 0 } }, 'limits.dials: expected a whole number'],
    [{ keepAliveMs: -1 }, 'keepAliveMs: expected a whole number'],
    [{ proxyProtocol: 'v1' }, 'proxyProtocol: expected true or false'],
    [{ unknown: 1 }, 'unknown: is not a known key'],
    [{ stack: {} }, 'stack must be a SocketStack'],
  ])('refuses the options %j', async (options, message) => {
    const scene = new BackendScene();
    await scene.backend.close();
    expect(() => new SocketBackend({ stack: scene.stack, ...options })).toThrow(message);
    // Nothing was changed.
    await using backend = new SocketBackend({ stack: scene.stack });
    expect(backend.sizes.connections).toBe(0);
  });

  test('keeps its services when the new ones are wrong', async () => {
    const server = await serve((socket) => socket.end('here'));
    const scene = new BackendScene();
    expect(() => scene.backend.setServices([{ address: 'x', ports: [] }])).toThrow('x');
    expect(() => scene.backend.setRefusedTargets([{ address: 'x', port: 80 }])).toThrow('x');
    expect(() => scene.backend.withdraw(['x'])).toThrow('x');
    const flags = [true, false].map((proxyProtocol) => ({ ...ALL_SERVICES[0]!, proxyProtocol }));
    expect(() => scene.backend.setServices(flags)).toThrow('services[1].proxyProtocol');
    const client = scene.client.connect(server.port, 'service.test');
    const [data] = (await once(client, 'data')) as [Buffer];
    expect(data.toString()).toBe('here');
  });
});
