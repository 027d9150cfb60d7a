/**
 * Services that are real sockets of this machine, behind gateways whose devices are stacks of sockets: the cloud's for
 * an agent at a site, and a site's for the sockets of the cloud.
 */
import { createHash } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import {
  type AddressInfo,
  connect as connectNear,
  createServer,
  type Server,
  type Socket,
} from 'node:net';
import { buffer, text } from 'node:stream/consumers';
import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { ConfigError } from '../../src/errors.ts';
import type {
  CloudGateway,
  EdgeGateway,
  EdgeGatewayOptions,
  SocketsDeviceOptions,
} from '../../src/gateway/index.ts';
import type { DesiredInput } from '../../src/registry/index.ts';
import type { PresenceSocket } from '../../src/sockets/index.ts';
import { refusingTcpPort } from '../support/refusing-port.ts';
import { ANY_PORT, Gateways, LAN } from './scene.ts';

const PATIENCE = { signal: AbortSignal.timeout(600_000) };
const WAIT = { timeout: 60_000 };
const MIB = 1 << 20;
const LOOPBACK = '127.0.0.1';
/** The network of the clients, and the addresses of the services. */
const SOURCES = [...LAN.sources, '127.0.0.0/8'];

const gateways = new Gateways();
const servers: Server[] = [];
const accepted = new Set<Socket>();
afterEach(async () => {
  await gateways.close();
  for (const socket of accepted) socket.destroy();
  for (const server of servers.splice(0)) server.close();
});

/** Starts a server of this machine, and returns its port. */
async function listen(onSocket: (socket: Socket) => void): Promise<number> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    accepted.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => accepted.delete(socket));
    onSocket(socket);
  });
  servers.push(server);
  server.listen(0, LOOPBACK);
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

/** Starts a server, and returns its port and its next connection. */
async function listenOnce(): Promise<{ readonly port: number; readonly next: Promise<Socket> }> {
  let take = (_: Socket): void => {};
  const next = new Promise<Socket>((resolve) => {
    take = resolve;
  });
  return { port: await listen((socket) => take(socket)), next };
}

const echo = (socket: Socket): void => void socket.pipe(socket);

/** A cloud and two sites; the cloud's service `bus` is exposed to both, and `agent` of site A to the cloud and site B. */
function desiredWith(ports: {
  readonly bus?: readonly string[];
  readonly agent?: readonly string[];
}): DesiredInput {
  const { bus = ['tcp/7'], agent = ['tcp/7'] } = ports;
  return {
    sites: ['cloud', 'site-a', 'site-b'].map((name) => ({ name, ...LAN, sources: SOURCES })),
    services: [
      { name: 'bus', site: 'cloud', address: LOOPBACK, ports: bus },
      { name: 'agent', site: 'site-a', address: LOOPBACK, ports: agent },
    ],
    exposures: [
      { service: 'bus', site: 'site-a' },
      { service: 'bus', site: 'site-b' },
      { service: 'agent', site: 'cloud' },
      { service: 'agent', site: 'site-b' },
    ],
  };
}

function startCloud(
  desired: DesiredInput,
  device: Partial<SocketsDeviceOptions> = {}
): Promise<CloudGateway> {
  return gateways.cloud({ device: { type: 'sockets', ...device }, desired });
}

async function startEdge(
  cloud: CloudGateway,
  site = 'site-a',
  device: Partial<SocketsDeviceOptions> = {}
): Promise<EdgeGateway> {
  const edge = await gateways.edge({
    device: { type: 'sockets', address: '10.0.0.9', ...device },
    token: await cloud.createToken({ site }),
  });
  await edge.ready(PATIENCE);
  return edge;
}

function connectTo(edge: EdgeGateway, port: number): PresenceSocket {
  const socket = edge.sockets.connect({ host: 'bus', port, allowHalfOpen: true });
  // It may end with the gateways.
  socket.on('error', () => {});
  return socket;
}

/** Connects to a service that answers what it gets, and waits until it has answered. */
async function connected(edge: EdgeGateway, port: number): Promise<PresenceSocket> {
  const socket = connectTo(edge, port);
  socket.write('?');
  await once(socket, 'data');
  return socket;
}

function failureOf(socket: PresenceSocket | Socket): Promise<NodeJS.ErrnoException> {
  return new Promise((resolve) => socket.once('error', resolve));
}

async function counter(cloud: CloudGateway, name: string): Promise<number | undefined> {
  return (await cloud.status()).sockets[name];
}

describe('a service of the cloud behind a stack of sockets', () => {
  test('takes datagrams, and answers them', async () => {
    const service = createSocket('udp4', (message, { port, address }) => {
      service.send(`${message} yourself`, port, address);
    });
    onTestFinished(() => void service.close());
    service.bind(0, LOOPBACK);
    await once(service, 'listening');
    const { port } = service.address();
    const edge = await startEdge(await startCloud(desiredWith({ bus: [`udp/${port}`] })));
    const near = edge.sockets.datagram('udp4');
    near.send('hello', port, 'bus');
    const [message] = await once(near, 'message');
    expect(String(message)).toBe('hello yourself');
    near.close();
  });

  test('gets 4 MiB and sends them back, with the end of each direction on its own', async () => {
    const port = await listen((socket) => {
      const hash = createHash('sha256');
      socket.on('data', (chunk) => {
        hash.update(chunk);
        if (!socket.write(chunk)) socket.pause();
      });
      socket.on('drain', () => socket.resume());
      // What follows comes when the client has ended its side.
      socket.on('end', () => socket.end(hash.digest('hex')));
    });
    const cloud = await startCloud(desiredWith({ bus: [`tcp/${port}`] }));
    const edge = await startEdge(cloud);
    const sent = Buffer.alloc(4 * MIB);
    for (let i = 0; i < sent.length; i += 4) sent.writeInt32LE(i, i);
    const socket = connectTo(edge, port);
    socket.end(sent);
    const chunks: Buffer[] = [];
    for await (const chunk of socket) chunks.push(chunk as Buffer);
    const received = Buffer.concat(chunks);
    expect(received.subarray(0, sent.length).equals(sent)).toBe(true);
    const hash = createHash('sha256').update(sent).digest('hex');
    expect(String(received.subarray(sent.length))).toBe(hash);
    await vi.waitFor(() => expect(accepted.size).toBe(0), WAIT);
  });

  test('is reached where the option hosts says that its address is', async () => {
    const port = await listen(echo);
    const { services, ...rest } = desiredWith({ bus: [`tcp/${port}`] });
    const elsewhere = services!.map((each) =>
      each.name === 'bus' ? { ...each, address: '10.0.0.5' } : each
    );
    const cloud = await gateways.cloud({
      device: { type: 'sockets', backend: { hosts: { '10.0.0.5': LOOPBACK } } },
      desired: { ...rest, services: elsewhere },
    });
    await connected(await startEdge(cloud), port);
    expect(accepted.size).toBe(1);
  });

  test('may end its side first, and still gets what the client sends', async () => {
    let got: Promise<string> | undefined;
    const port = await listen((socket) => {
      socket.end('over');
      got = text(socket);
    });
    const edge = await startEdge(await startCloud(desiredWith({ bus: [`tcp/${port}`] })));
    const socket = connectTo(edge, port).resume();
    await once(socket, 'end');
    socket.end('not yet');
    expect(await got).toBe('not yet');
  });

  test('is reached by two sites with the same addresses, and refuses at once where nobody listens', async () => {
    const port = await listen(echo);
    const refusing = await refusingTcpPort();
    onTestFinished(() => refusing.close());
    const cloud = await startCloud(desiredWith({ bus: [`tcp/${port}`, `tcp/${refusing.port}`] }));
    for (const site of ['site-a', 'site-b']) {
      const edge = await startEdge(cloud, site);
      await connected(edge, port);
      const error = await failureOf(connectTo(edge, refusing.port));
      expect(error).toMatchObject({ code: 'ECONNREFUSED', syscall: 'connect' });
    }
  });

  test('learns of a reset of the client, and the client of a reset of the service', async () => {
    const first = await listenOnce();
    const second = await listenOnce();
    const ports = [first, second].map(({ port }) => `tcp/${port}`);
    const edge = await startEdge(await startCloud(desiredWith({ bus: ports })));
    const socket = connectTo(edge, first.port);
    await once(socket, 'connect');
    const service = failureOf((await first.next).resume());
    socket.resetAndDestroy();
    expect(await service).toMatchObject({ code: 'ECONNRESET' });
    const other = connectTo(edge, second.port).resume();
    await once(other, 'connect');
    const error = failureOf(other);
    (await second.next).resetAndDestroy();
    expect(await error).toMatchObject({ code: 'ECONNRESET', syscall: 'read' });
  });

  test('may say nothing, and read nothing: the client waits, and no gateway collects what it sends', async () => {
    const { port, next } = await listenOnce();
    const echoPort = await listen(echo);
    const cloud = await startCloud(desiredWith({ bus: [`tcp/${port}`, `tcp/${echoPort}`] }));
    const edge = await startEdge(cloud);
    const other = await connected(edge, echoPort);
    const socket = connectTo(edge, port);
    const service = (await next).pause();
    const hash = createHash('sha256');
    const chunk = Buffer.alloc(MIB, 1);
    let length = 0;
    // As long as anybody takes it. It is stuck when another connection makes many round trips meanwhile.
    for (let trips = 0; trips < 200; trips++) {
      if (!socket.writableNeedDrain) {
        socket.write(chunk);
        hash.update(chunk);
        length += chunk.length;
        trips = 0;
      }
      other.write('?');
      await once(other, 'data');
    }
    expect(length).toBeLessThan(32 * MIB);
    socket.end();
    const got = createHash('sha256');
    for await (const part of service) got.update(part as Buffer);
    expect(got.digest('hex')).toBe(hash.digest('hex'));
  });

  test('sees who the client is, by a PROXY protocol header and by an address of loopback', async () => {
    const { port, next } = await listenOnce();
    const second = await listenOnce();
    const ports = [port, second.port].map((each) => `tcp/${each}`);
    const { services = [], exposures = [], ...rest } = desiredWith({ bus: ports.slice(0, 1) });
    const plain = { name: 'plain', site: 'cloud', address: LOOPBACK, ports: ports.slice(1) };
    const cloud = await startCloud(
      {
        ...rest,
        services: [...services, plain],
        exposures: [...exposures, { service: 'plain', site: 'site-a' }],
      },
      { backend: { proxyProtocol: ['bus'], loopbackSource: true } }
    );
    const edge = await startEdge(cloud);
    const socket = connectTo(edge, port);
    socket.end('hello');
    const service = await next;
    // It is known while there is a connection.
    const { remoteAddress } = service;
    const header = await buffer(service);
    const client = [...header.subarray(16, 20)].join('.');
    expect(cloud.whois('cloud', client)).toMatchObject({ site: 'site-a', address: '10.0.0.9' });
    expect(remoteAddress).toMatch(/^127\.128\./);
    const other = edge.sockets.connect({ host: 'plain', port: second.port });
    other.end('hello');
    expect(await text(await second.next)).toBe('hello');
  });

  test('may be at another address of the machine than the desired state says', async () => {
    const port = await listen(echo);
    const desired = desiredWith({ bus: [`tcp/${port}`] });
    const services = desired.services!.map((each) => ({ ...each, address: '10.0.0.5' }));
    const hosts = { '10.0.0.5': LOOPBACK, '10.0.0.6': '127.0.0.2' };
    const cloud = await startCloud({ ...desired, services }, { backend: { hosts } });
    await connected(await startEdge(cloud), port);
  });

  test('loses its connections when it is not exposed any more, and when the site is revoked', async () => {
    const port = await listen(echo);
    const cloud = await startCloud(desiredWith({ bus: [`tcp/${port}`] }));
    const a = await startEdge(cloud);
    const b = await startEdge(cloud, 'site-b');
    const socket = await connected(a, port);
    const other = await connected(b, port);
    const error = failureOf(socket);
    await cloud.unexpose({ service: 'bus', site: 'site-a' });
    // Nothing of it is left at the gateway.
    expect(remotesAt(cloud)).toEqual(['site-b']);
    expect(await error).toMatchObject({ code: 'ECONNRESET' });
    await vi.waitFor(() => expect(accepted.size).toBe(1), WAIT);
    await cloud.revoke({ site: 'site-b' });
    expect(remotesAt(cloud)).toEqual([]);
    await vi.waitFor(() => expect(accepted.size).toBe(0), WAIT);
    expect(other.destroyed || (await failureOf(other))).toBeTruthy();
  });

  test('is reached by a forward, whose counters the status has', async () => {
    const port = await listen(echo);
    const edge = await startEdge(await startCloud(desiredWith({ bus: [`tcp/${port}`] })));
    const made = await edge.sockets.forward(0, { host: 'bus', port });
    const socket = connectNear((made.address as AddressInfo).port, LOOPBACK);
    socket.end('hello');
    expect(await text(socket)).toBe('hello');
    await made.close();
    expect(edge.status().counters['sockets.forward.accepted']).toBe(1);
  });

  test('loses the connections of a client whose lease ends, before the address is free', async () => {
    const port = await listen(echo);
    const cloud = await startCloud(desiredWith({ bus: [`tcp/${port}`] }));
    const edge = await startEdge(cloud);
    const socket = await connected(edge, port);
    const error = failureOf(socket);
    const released = cloud.releaseClients('site-a');
    let leftAtRelease: number | undefined;
    await released.then(() => {
      leftAtRelease = remotesAt(cloud).length;
    });
    expect(leftAtRelease).toBe(0);
    await vi.waitFor(() => expect(accepted.size).toBe(0), WAIT);
    // The client learns of it when it sends again.
    socket.write('!');
    expect(await error).toMatchObject({ code: 'ECONNRESET' });
    await connected(edge, port);
  });

  test('is never the gateway itself', async () => {
    const cloud = await startCloud(desiredWith({}), {});
    const { tunnels, enrolment } = cloud.addresses;
    const proxy = await cloud.sockets.proxy(0);
    const { port: proxyPort } = proxy.address as AddressInfo;
    const ports = [...[tunnels[0]!, enrolment].map(({ port }) => port), proxyPort];
    await cloud.apply(desiredWith({ bus: ports.map((port) => `tcp/${port}`) }));
    const edge = await startEdge(cloud);
    for (const port of ports) {
      const error = await failureOf(connectTo(edge, port));
      expect(error).toMatchObject({ code: 'ECONNREFUSED', syscall: 'connect' });
    }
    expect(await counter(cloud, 'backend.tcp.refusedTargets')).toBe(3);
    expect(await counter(cloud, 'proxy.accepted')).toBe(0);
  });
});

/** The sites of the clients that the gateway has connections with. */
function remotesAt(cloud: CloudGateway): (string | undefined)[] {
  return [...cloud.sockets.tcp.connections()].map(
    ({ flow }) => cloud.whois('cloud', flow.remote)?.site
  );
}

describe('a service of a site behind a stack of sockets', () => {
  test('is reached from the cloud and from another site, if the edge lists it', async () => {
    const port = await listen(echo);
    const hidden = await listen(echo);
    const agent = [`tcp/${port}`, `tcp/${hidden}`];
    const cloud = await startCloud(desiredWith({ agent }));
    const services = [{ address: LOOPBACK, ports: [`tcp/${port}`] }];
    const edge = await startEdge(cloud, 'site-a', { services });
    const other = await startEdge(cloud, 'site-b');
    for (const { sockets } of [cloud, other]) {
      const socket = sockets.connect({ host: 'agent', port });
      socket.write('?');
      await once(socket, 'data');
      socket.destroy();
      expect(await failureOf(sockets.connect({ host: 'agent', port: hidden }))).toMatchObject({
        code: 'ECONNREFUSED',
      });
    }
    expect(edge.status().counters['sockets.backend.tcp.notAllowed']).toBe(2);
    expect(edge.status().counters['sockets.backend.tcp.connected']).toBe(2);
  });

  test('is never the resolver of the edge', async () => {
    const ports = ['tcp/1-65535', 'udp/1-65535'];
    const cloud = await startCloud(desiredWith({ agent: ports }));
    const edge = await gateways.edge({
      device: { type: 'sockets', address: '10.0.0.9', services: [{ address: LOOPBACK, ports }] },
      dns: { listen: ANY_PORT },
      token: await cloud.createToken({ site: 'site-a' }),
    });
    await edge.ready(PATIENCE);
    const { port } = edge.addresses.dns!;
    expect(await failureOf(cloud.sockets.connect({ host: 'agent', port }))).toMatchObject({
      code: 'ECONNREFUSED',
    });
    const datagrams = cloud.sockets.datagram('udp4');
    datagrams.connect(port, String(cloud.lookup('agent')[0]!.addresses[0]));
    await once(datagrams, 'connect');
    datagrams.send('a query');
    const [error] = await once(datagrams, 'error');
    expect(error).toMatchObject({ code: 'ECONNREFUSED' });
    datagrams.close();
    const { counters } = edge.status();
    expect(counters).toMatchObject({
      'sockets.backend.tcp.refusedTargets': 1,
      'sockets.backend.udp.notAllowed': 1,
    });
    expect(Object.keys(counters).filter((name) => name.startsWith('dns.'))).toEqual([]);
  });

  test('is not reached without the option', async () => {
    const port = await listen(echo);
    const cloud = await startCloud(desiredWith({ agent: [`tcp/${port}`] }));
    const edge = await startEdge(cloud);
    const socket = cloud.sockets.connect({ host: 'agent', port });
    socket.on('error', () => {});
    const dropped = (): number | undefined => edge.status().counters['sockets.dropNotOwn'];
    await vi.waitFor(() => expect(dropped()).toBeGreaterThan(0), WAIT);
    expect(accepted.size).toBe(0);
    socket.destroy();
  });
});

describe('the option services', () => {
  const start = (services: unknown): Promise<unknown> => {
    const device = { type: 'sockets', services } as unknown as EdgeGatewayOptions['device'];
    return gateways.edge({ device }).catch((error: unknown) => error);
  };

  test.each([
    ['device.services', 'tcp/22'],
    ['device.services[0]', ['tcp/22']],
    ['device.services[0].address', [{ address: 'x', ports: [] }]],
    ['device.services[0].ports[1]', [{ address: LOOPBACK, ports: ['tcp/22', 'tcp/0'] }]],
    ['device.services[0].name', [{ address: LOOPBACK, ports: [], name: 'x' }]],
    [
      'device.services[1].proxyProtocol',
      [
        { address: LOOPBACK, ports: ['tcp/22'], proxyProtocol: true },
        { address: `::ffff:${LOOPBACK}`, ports: ['tcp/1-99'], proxyProtocol: false },
      ],
    ],
  ])('is refused with the path %s', async (path, services) => {
    const error = await start(services);
    expect(error).toBeInstanceOf(ConfigError);
    expect(error).toMatchObject({ path });
  });

  test.each([
    ['device.backend.proxyProtocol', { proxyProtocol: ['bus'] }],
    ['device.backend.limits.dials', { limits: { dials: 0 } }],
    ['device.backend.hosts.bus', { hosts: { bus: LOOPBACK } }],
    ['device.backend.hosts["10.0.0.5"]', { hosts: { '10.0.0.5': 'bus' } }],
    ['device.backend.dial', { dial: () => {} }],
  ])('and %s are checked together', async (path, backend) => {
    const device = { type: 'sockets', services: [], backend } as SocketsDeviceOptions;
    const error = await gateways.edge({ device }).catch((it: unknown) => it);
    expect(error).toBeInstanceOf(ConfigError);
    expect(error).toMatchObject({ path });
  });

  test('is for an edge gateway', async () => {
    const error = await gateways
      .cloud({ tunnel: ANY_PORT, device: { type: 'sockets', services: [] } })
      .catch((it: unknown) => it);
    expect(error).toBeInstanceOf(ConfigError);
    expect(error).toMatchObject({ path: 'device.services', message: /desired state/ });
  });
});
