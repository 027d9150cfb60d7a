/**
 * A cloud gateway and an edge gateway whose devices are stacks of sockets: a server of the agent at the site is reached
 * by the sockets of the cloud.
 */
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { IpAddress } from '../../src/base/address.ts';
import { ApiMisuseError, ConfigError } from '../../src/errors.ts';
import type {
  CloudGateway,
  CloudGatewayOptions,
  EdgeGateway,
  EdgeGatewayOptions,
} from '../../src/gateway/index.ts';
import type { DesiredInput } from '../../src/registry/index.ts';
import { type PresenceServer, type PresenceSocket, SocketStack } from '../../src/sockets/index.ts';
import { Relay } from '../support/relay.ts';
import { Gateways, Hosts, LAN } from './scene.ts';

const PATIENCE = { signal: AbortSignal.timeout(600_000) };
const WAIT = { timeout: 30_000 };
/** Two sites with the same addresses; the agent of each is exposed to the cloud. */
const DESIRED: DesiredInput = {
  sites: ['cloud', 'site-a', 'site-b'].map((name) => ({ name, ...LAN })),
  services: ['a', 'b'].map((it) => ({
    name: `agent-${it}`,
    site: `site-${it}`,
    address: '10.0.0.9',
    ports: ['tcp/6080', 'udp/6080', 'icmp'],
  })),
  exposures: ['a', 'b'].map((it) => ({ service: `agent-${it}`, site: 'cloud' })),
};

const gateways = new Gateways();
afterEach(() => gateways.close());

function startCloud(
  device: CloudGatewayOptions['device'] = { type: 'sockets', tunnelWaitMs: 600_000 }
): Promise<CloudGateway> {
  return gateways.cloud({ device, desired: DESIRED });
}

async function startAgent(
  cloud: CloudGateway,
  site = 'site-a',
  options: Partial<EdgeGatewayOptions> = {}
): Promise<EdgeGateway> {
  const edge = await gateways.edge({
    device: { type: 'sockets', address: '10.0.0.9' },
    token: await cloud.createToken({ site }),
    ...options,
  });
  await edge.ready(PATIENCE);
  return edge;
}

/** Serves what comes back to whoever connects. */
async function serveEcho(edge: EdgeGateway): Promise<PresenceServer> {
  const server = edge.sockets.createServer((socket) => {
    socket.on('error', () => {});
    socket.pipe(socket);
  });
  server.listen(6080);
  await once(server, 'listening');
  return server;
}

/** Connects to an agent, and waits until both ends know. */
async function connected(cloud: CloudGateway, host = 'agent-a'): Promise<PresenceSocket> {
  const socket = cloud.sockets.connect({ host, port: 6080 });
  // It may end with the gateways.
  socket.on('error', () => {});
  socket.write('?');
  await once(socket, 'data');
  return socket;
}

function failureOf(socket: PresenceSocket): Promise<NodeJS.ErrnoException> {
  return new Promise((resolve) => socket.once('error', resolve));
}

/** Resolves when the tunnel of a site has come up or gone down. */
function stateOf(cloud: CloudGateway, state: 'up' | 'down'): Promise<void> {
  return new Promise((resolve) => {
    cloud.on('edge', (change) => change.state === state && resolve());
  });
}

describe('the sockets of a cloud gateway', () => {
  test('connect by name to a server of an agent, which sees the presence of the cloud', async () => {
    const cloud = await startCloud();
    const edge = await startAgent(cloud);
    const server = edge.sockets.createServer((socket) => {
      socket.on('error', () => {});
      socket.end(socket.remoteAddress);
    });
    server.listen(6080);
    await once(server, 'listening');
    const seen = await text(cloud.sockets.connect({ host: 'agent-a', port: 6080 }));
    expect(cloud.whois('site-a', seen)).toMatchObject({ site: 'cloud', address: '10.0.0.1' });
    const found = await promisify(cloud.sockets.lookup)('agent-a.example.test');
    expect(found).toHaveProperty('address', String(cloud.lookup('agent-a')[0]!.addresses[0]));
    const { sockets } = await cloud.status();
    expect(sockets['tcp.opened']).toBe(1);
  });

  test('carry 4 MiB to an agent and back unchanged', async () => {
    const cloud = await startCloud();
    await serveEcho(await startAgent(cloud));
    const sent = Buffer.alloc(4 * 1024 * 1024);
    for (let i = 0; i < sent.length; i += 4) sent.writeInt32LE(i, i);
    const socket = cloud.sockets.connect({ host: 'agent-a', port: 6080 });
    socket.end(sent);
    const chunks: Buffer[] = [];
    for await (const chunk of socket) chunks.push(chunk as Buffer);
    expect(Buffer.concat(chunks).equals(sent)).toBe(true);
  });

  test('ping, and exchange datagrams', async () => {
    const cloud = await startCloud();
    const edge = await startAgent(cloud);
    const far = edge.sockets.datagram('udp4', (message, { port, address }) => {
      far.send(`${message} yourself`, port, address);
    });
    far.bind(6080);
    await once(far, 'listening');
    await cloud.sockets.ping('agent-a');
    const near = cloud.sockets.datagram('udp4');
    near.send('hello', 6080, 'agent-a');
    const [message] = await once(near, 'message');
    expect(String(message)).toBe('hello yourself');
    near.close();
    far.close();
  });

  test('are reset with the reason when a presence is withdrawn, and the others go on', async () => {
    const cloud = await startCloud();
    for (const site of ['site-a', 'site-b']) await serveEcho(await startAgent(cloud, site));
    const socket = await connected(cloud);
    const other = await connected(cloud, 'agent-b');
    const error = failureOf(socket);
    await cloud.unexpose({ service: 'agent-a', site: 'cloud' });
    expect(await error).toMatchObject({
      code: 'ECONNRESET',
      cause: { message: /^10\.0\.0\.\d+ no longer stands for 10\.0\.0\.9 of site-a$/ },
    });
    expect(cloud.lookup('agent-a')).toEqual([]);
    // The stack learns it with the next snapshot.
    await vi.waitFor(async () => {
      const refused = failureOf(cloud.sockets.connect({ host: 'agent-a', port: 6080 }));
      expect(await refused).toMatchObject({ code: 'ENOTFOUND' });
    }, WAIT);
    other.write('!');
    expect(String((await once(other, 'data'))[0])).toBe('!');
  });

  test('are reset before a revocation resolves', async () => {
    const cloud = await startCloud();
    await serveEcho(await startAgent(cloud));
    const error = failureOf(await connected(cloud));
    await cloud.revoke({ site: 'site-a' });
    expect([...cloud.sockets.tcp.connections()]).toEqual([]);
    expect(await error).toMatchObject({ code: 'ECONNRESET', cause: { message: /of site-a$/ } });
  });

  test('wait while the tunnel of a site is down, and go on when it is up again', async () => {
    const cloud = await startCloud();
    const waiting = cloud.sockets.connect({ host: 'agent-a', port: 6080 });
    waiting.on('error', () => {});
    // Nobody listens yet when the tunnel comes up.
    const refused = failureOf(waiting);
    const { port } = cloud.addresses.tunnels[0]!;
    const relay = await Relay.open(port);
    onTestFinished(() => relay.close());
    const edge = await startAgent(cloud, 'site-a', { cloud: [`127.0.0.1:${relay.port}`] });
    expect(await refused).toMatchObject({ code: 'ECONNREFUSED' });
    await serveEcho(edge);
    await serveEcho(await startAgent(cloud, 'site-b'));
    const socket = await connected(cloud);
    const isDown = stateOf(cloud, 'down');
    relay.cut();
    await isDown;
    socket.write('!');
    const next = cloud.sockets.connect({ host: 'agent-a', port: 6080 });
    // Another site is not concerned.
    await connected(cloud, 'agent-b');
    expect(next.connecting).toBe(true);
    relay.target = port;
    const [[data]] = await Promise.all([once(socket, 'data'), once(next, 'connect')]);
    expect(String(data)).toBe('!');
    next.destroy();
  });

  test('fail with the reason if the tunnel of a site does not come up', async () => {
    const cloud = await startCloud({ type: 'sockets', tunnelWaitMs: 1 });
    expect(await failureOf(cloud.sockets.connect({ host: 'agent-a', port: 6080 }))).toMatchObject({
      code: 'ENETDOWN',
      syscall: 'connect',
      cause: { message: 'the tunnel of site-a is down' },
    });
  });

  test('fail with the reason if the tunnel of a site goes down behind the SYN', async () => {
    const cloud = await startCloud({ type: 'sockets', tunnelWaitMs: 100 });
    // Nobody behind it answers.
    const edge = await startAgent(cloud, 'site-a', { device: new Hosts().device });
    const socket = cloud.sockets.connect({ host: 'agent-a', port: 6080 });
    const error = failureOf(socket);
    await vi.waitUntil(() => cloud.sockets.tcp.counters.sent > 0, WAIT);
    await edge.close();
    expect(await error).toMatchObject({
      code: 'ENETDOWN',
      cause: { message: 'the tunnel of site-a is down' },
    });
  });

  test('end at both ends when the gateway closes', async () => {
    const cloud = await startCloud();
    const server = await serveEcho(await startAgent(cloud));
    const far = new Promise<Error>((resolve) => {
      server.once('connection', (socket) => socket.once('error', resolve));
    });
    const socket = await connected(cloud);
    const { sockets } = cloud;
    const error = failureOf(socket);
    await cloud.close();
    expect(await error).toMatchObject({
      code: 'ECONNRESET',
      cause: { message: 'the gateway is closed' },
    });
    expect(await far).toMatchObject({ code: 'ECONNRESET' });
    expect(await failureOf(sockets.connect({ host: 'agent-a', port: 6080 }))).toMatchObject({
      code: 'ENETDOWN',
    });
    expect(() => cloud.sockets).toThrow(ApiMisuseError);
  });
});

describe('the device of a cloud gateway', () => {
  test('is what sockets needs', async () => {
    const cloud = await startCloud(new Hosts().device);
    expect(() => cloud.sockets).toThrow(ApiMisuseError);
    expect(() => cloud.sockets).toThrow("not of the type 'sockets'");
    expect((await cloud.status()).sockets).toEqual({});
  });

  test('may be a stack of the program, which the gateway closes', async () => {
    const stack = new SocketStack({ name: 'mine' });
    const cloud = await startCloud(stack);
    expect(cloud.sockets).toBe(stack);
    await cloud.close();
    expect(stack.closedBy).toMatchObject({ message: 'the gateway is closed' });
  });

  test('is reported if its address is not one of the site', async () => {
    const problems: Error[] = [];
    const cloud = await startCloud({ type: 'sockets', address: '192.0.2.1' });
    cloud.on('problem', ({ error }) => problems.push(error));
    expect(gateways.log.join('\n')).toMatch(/device\.address: 192\.0\.2\.1 cannot be used/);
    await cloud.apply({ ...DESIRED, exposures: [] });
    expect(problems).toEqual([]);
  });

  test.each([
    ['device.type', {}, { type: 'socket' }],
    ['device.address', {}, { type: 'sockets', address: 'x' }],
    ['device.tunnelWaitMs', {}, { type: 'sockets', tunnelWaitMs: 0 }],
    ['workers', { workers: 2 }, { type: 'sockets' }],
    ['workers', { workers: 2 }, new SocketStack()],
  ])('refuses a wrong %s', async (path, options, device) => {
    const error = await gateways
      .cloud({ ...options, device: device as never })
      .catch((it: unknown) => it);
    expect(error).toBeInstanceOf(ConfigError);
    expect(error).toMatchObject({ path });
  });
});

test('a client counts for its site only while there are several sites', async () => {
  const cloud = await startCloud();
  const presence = cloud.lookup('agent-a')[0]!.addresses[0]!;
  const { icmp } = cloud.sockets;
  expect(icmp.siteOf(IpAddress.parse(`${presence}`))).toBe('site-a');
  const { sites, services, exposures } = DESIRED;
  await cloud.apply({
    sites: sites!.slice(0, 2),
    services: services!.slice(0, 1),
    exposures: exposures!.slice(0, 1),
  });
  expect(icmp.siteOf(IpAddress.parse(`${presence}`))).toBe(undefined);
});
