/**
 * An edge gateway whose device is a stack of sockets, against a cloud gateway whose device leads to another stack: the
 * host behind the cloud.
 */
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { type Agent, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { MemoryDevice } from '../../src/device/index.ts';
import { ApiMisuseError, ConfigError } from '../../src/errors.ts';
import type { CloudGateway, EdgeGateway, EdgeGatewayOptions } from '../../src/gateway/index.ts';
import type { DesiredInput } from '../../src/registry/index.ts';
import { type PresenceSocket, SocketStack } from '../../src/sockets/index.ts';
import { turn } from '../device/conformance.ts';
import { spawnNode } from '../support/child.ts';
import { pump } from '../support/device-pump.ts';
import { Gateways, Hosts, LAN } from './scene.ts';

const PATIENCE = { signal: AbortSignal.timeout(600_000) };
const PORTS = ['tcp/80', 'tcp/7', 'udp/7', 'icmp'];
const LAN6 = { sources: ['2001:db8::/64'], pools: ['2001:db8::1:0/112'] };
/** The cloud and one site, with the same addresses; the host 10.0.0.5 of the cloud is exposed as `bus`. */
const DESIRED: DesiredInput = {
  sites: ['cloud', 'site-a'].map((name) => ({
    name,
    zone: LAN.zone,
    sources: [...LAN.sources, ...LAN6.sources],
    pools: [...LAN.pools, ...LAN6.pools],
  })),
  services: [
    { name: 'bus', site: 'cloud', address: '10.0.0.5', ports: PORTS },
    { name: 'six', site: 'cloud', address: '2001:db8::5', ports: PORTS },
    { name: 'agent', site: 'site-a', address: '10.0.0.9', ports: ['tcp/6080'] },
  ],
  exposures: [
    { service: 'bus', site: 'site-a' },
    { service: 'six', site: 'site-a' },
    { service: 'agent', site: 'cloud' },
  ],
};

const gateways = new Gateways();
let cloud: CloudGateway;
/** The host behind the cloud. */
let host: SocketStack;

beforeEach(async () => {
  const [near, far] = MemoryDevice.pair();
  host = new SocketStack({ name: 'host' });
  // To the host, all addresses of its network but its own are presences.
  host.setSite({
    sources: ['10.0.0.5/32', '2001:db8::5/128'],
    pools: [...LAN.pools, ...LAN6.pools],
    zone: LAN.zone,
    hosts: [],
  });
  pump(host, far);
  cloud = await gateways.cloud({ device: near, desired: DESIRED });
});
afterEach(async () => {
  await gateways.close();
  await host.close();
});

async function edgeWith(options: Partial<EdgeGatewayOptions> = {}): Promise<EdgeGateway> {
  const edge = await gateways.edge({
    device: { type: 'sockets', address: '10.0.0.9' },
    token: await cloud.createToken({ site: 'site-a' }),
    ...options,
  });
  await edge.ready(PATIENCE);
  return edge;
}

/** Serves what comes back to whoever connects to the host behind the cloud. */
async function serve(port: number, onSocket: (socket: PresenceSocket) => void): Promise<void> {
  const server = host.createServer((socket) => {
    socket.on('error', () => {});
    onSocket(socket);
  });
  server.listen(port);
  await once(server, 'listening');
}

const echo = (socket: PresenceSocket): void => void socket.pipe(socket);

/** Connects to `bus`, and waits until both ends know. */
async function connected(edge: EdgeGateway): Promise<PresenceSocket> {
  const socket = edge.sockets.connect({ host: 'bus', port: 7 });
  socket.write('?');
  await once(socket, 'data');
  return socket;
}

/**
 * Returns a function that says whether the host of the child has received nothing and had no timer during the last five
 * turns of its event loop, of 20 ms at least: a delayed acknowledgement has left too then.
 */
function quiet(path: string): () => boolean {
  let since = progressIn(path);
  return () => {
    const now = progressIn(path);
    if (now[1] !== since[1] || now[2] !== 0) since = now;
    return now[0]! >= since[0]! + 5;
  };
}

/** What the child has written: how many times, the segments that its host has received, and the timers of its TCP. */
function progressIn(path: string): Float64Array {
  return new Float64Array(new Uint8Array(readFileSync(path)).buffer);
}

/** Blocks the event loop. */
function block(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

function failureOf(socket: PresenceSocket): Promise<NodeJS.ErrnoException> {
  return new Promise((resolve) => socket.once('error', resolve));
}

describe('the sockets of an edge gateway', () => {
  test('connect by name to a service behind the cloud, which sees the presence of the edge', async () => {
    const seen: (string | undefined)[] = [];
    await serve(80, (socket) => {
      seen.push(socket.remoteAddress);
      socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello'));
    });
    const edge = await edgeWith();
    const answer = await new Promise<string>((resolve, reject) => {
      const agent: Agent = edge.sockets.httpAgent();
      request('http://bus.example.test/', { agent }, (response) => resolve(text(response)))
        .on('error', reject)
        .end();
    });
    expect(answer).toBe('hello');
    expect(cloud.whois('cloud', seen[0]!)).toMatchObject({ site: 'site-a', address: '10.0.0.9' });
    const { counters } = edge.status();
    expect(counters['sockets.tcp.opened']).toBe(1);
    expect(counters['tunnel.sentPackets']).toBeGreaterThan(2);
  });

  test.each(['bus', 'six'])('carry 4 MiB to %s and back unchanged', async (name) => {
    await serve(7, echo);
    const edge = await edgeWith();
    const sent = Buffer.alloc(4 * 1024 * 1024);
    for (let i = 0; i < sent.length; i += 4) sent.writeInt32LE(i, i);
    const socket = edge.sockets.connect({ host: name, port: 7 });
    socket.end(sent);
    const chunks: Buffer[] = [];
    for await (const chunk of socket) chunks.push(chunk as Buffer);
    expect(Buffer.concat(chunks).equals(sent)).toBe(true);
  });

  test('send nothing again after the program has blocked the event loop for 300 ms, if the machine is in time', {
    timeout: 180_000,
  }, async () => {
    // In one process the other end would be blocked too, and the acknowledgements would not be there.
    const directory = mkdtempSync(join(tmpdir(), 'vp-sockets-'));
    onTestFinished(() => rmSync(directory, { recursive: true }));
    const progress = join(directory, 'progress');
    const child = spawnNode(['test/gateway/sockets-child.ts', progress]);
    const [token] = await once(child.stdout!.setEncoding('utf8'), 'data');
    const edge = await gateways.edge({ device: { type: 'sockets' }, token: token.trim() });
    await edge.ready(PATIENCE);
    const socket = edge.sockets.connect({ host: 'bus', port: 9, highWaterMark: 65_536 });
    // As much as the socket of the tunnel takes at once: on a busy machine nobody knows when the rest would be acknowledged.
    const chunk = Buffer.alloc(60_000);
    const onTheirWay = () => edge.sockets.tcp.counters.sent - progressIn(progress)[1]!;
    let length = 0;
    let again = 0;
    for (let blocks = 0; blocks < 6; ) {
      await vi.waitUntil(quiet(progress));
      const missing = onTheirWay();
      const start = performance.now();
      socket.write(chunk);
      length += chunk.length;
      for (let i = 0; i < 2; i++) await turn();
      // Packets are on their way, and the first probe is due 10 ms after one. If the machine is as late as that, a
      // probe is right.
      if (performance.now() - start > 8) continue;
      const before = edge.sockets.tcp.counters.retransmitted;
      block(300);
      const hasAcknowledged = quiet(progress);
      while (!hasAcknowledged()) block(10);
      // What the socket of the tunnel did not take could not leave while the event loop was blocked.
      if (onTheirWay() > missing) continue;
      const end = performance.now();
      for (let i = 0; i < 4; i++) await turn();
      // The acknowledgements let out what had to wait, for which the same holds.
      if (performance.now() - end > 8) continue;
      if (edge.sockets.tcp.counters.retransmitted > before) again++;
      blocks++;
    }
    socket.end();
    expect(await text(socket)).toBe(String(length));
    // A stack whose timers act at once sends again each time. A busy machine may stop this process between any two of
    // the steps above, so one or two are allowed: `sockets/deadline-timer` and `sockets/stack` allow none, by a clock.
    expect(again).toBeLessThan(3);
  });

  test('are reached by the hosts behind the cloud', async () => {
    const edge = await edgeWith();
    const server = edge.sockets.createServer((socket) => {
      socket.on('error', () => {});
      socket.end(socket.localAddress);
    });
    server.listen(6080);
    await once(server, 'listening');
    const [presence] = cloud.lookup('agent')[0]!.addresses;
    const site = {
      sources: ['10.0.0.5/32'],
      pools: LAN.pools,
      zone: LAN.zone,
      hosts: [{ name: 'agent.example.test', addresses: [presence!], ports: ['tcp/6080'] }],
    };
    host.setSite(site);
    expect(await text(host.connect({ host: 'agent', port: 6080 }))).toBe('10.0.0.9');
  });

  test('ping, and exchange datagrams', async () => {
    const far = host.datagram('udp4', (message, { port, address }) => {
      far.send(`${message} yourself`, port, address);
    });
    far.bind(7);
    await once(far, 'listening');
    const edge = await edgeWith();
    await edge.sockets.ping('bus');
    const near = edge.sockets.datagram('udp4');
    near.send('hello', 7, 'bus');
    const [message] = await once(near, 'message');
    expect(String(message)).toBe('hello yourself');
    near.close();
    far.close();
  });

  test('have an address of the site by default, and one that the site does not have is reported', async () => {
    await serve(7, (socket) => socket.end(socket.remoteAddress));
    const edge = await edgeWith({ device: { type: 'sockets' } });
    const seen = await text(edge.sockets.connect({ host: 'bus', port: 7 }));
    expect(cloud.whois('cloud', seen)).toMatchObject({ site: 'site-a', address: '10.0.0.1' });
    await edge.close();
    const problems: Error[] = [];
    const other = await gateways.edge({ device: { type: 'sockets', address: '192.0.2.1' } });
    other.on('problem', ({ error }) => problems.push(error));
    await other.enrol(await cloud.createToken({ site: 'site-a' }));
    await vi.waitFor(() => expect(problems).toHaveLength(1), WAIT);
    expect(problems[0]).toMatchObject({ path: 'device.address', message: /192\.0\.2\.1/ });
    await other.ready(PATIENCE);
    const error = await failureOf(other.sockets.connect({ host: 'bus', port: 7 }));
    expect(error).toMatchObject({ code: 'EADDRNOTAVAIL', cause: expect.any(Error) });
    expect(problems[0]!.message).toBe(`device.address: ${(error.cause as Error).message}`);
  });
});

describe('a connection of an edge gateway', () => {
  test('is reset with the reason when its presence is withdrawn, and a new one is refused', async () => {
    await serve(7, echo);
    const edge = await edgeWith();
    const socket = await connected(edge);
    const error = failureOf(socket);
    await cloud.unexpose({ service: 'bus', site: 'site-a' });
    expect(await error).toMatchObject({ code: 'ECONNRESET', cause: { message: /was withdrawn/ } });
    expect(await failureOf(edge.sockets.connect({ host: 'bus', port: 7 }))).toMatchObject({
      code: 'ENOTFOUND',
    });
  });

  test('is reset at once when the site is revoked, and new ones fail at once', async () => {
    await serve(7, echo);
    const edge = await edgeWith({ device: { type: 'sockets', tunnelWaitMs: 600_000 } });
    const socket = await connected(edge);
    const error = failureOf(socket);
    await cloud.revoke({ site: 'site-a' });
    expect(await error).toMatchObject({ code: 'ECONNRESET', cause: { message: /revoked/ } });
    await vi.waitFor(() => expect(edge.state).toBe('rejected'), WAIT);
    const next = await failureOf(edge.sockets.connect({ host: 'bus', port: 7 }));
    expect(next).toMatchObject({ code: 'ENETDOWN', cause: edge.failure!.error });
    await cloud.reinstate('site-a');
    await edge.enrol(await cloud.createToken({ site: 'site-a' }));
    await edge.ready(PATIENCE);
    (await connected(edge)).destroy();
  });

  test('ends at both ends when the gateway closes', async () => {
    const far = new Promise<Error>((resolve) => {
      void serve(7, (socket) => {
        echo(socket);
        socket.once('error', resolve);
      });
    });
    const edge = await edgeWith();
    const socket = await connected(edge);
    const error = failureOf(socket);
    await edge.close();
    expect(await error).toMatchObject({
      code: 'ECONNRESET',
      cause: { message: 'the gateway is closed' },
    });
    expect(await far).toMatchObject({ code: 'ECONNRESET' });
    expect(await failureOf(edge.sockets.connect({ host: 'bus', port: 7 }))).toMatchObject({
      code: 'ENETDOWN',
    });
  });

  test('ends without an exception when the program closes the gateway and listens for no error', async () => {
    await serve(7, echo);
    const edge = await edgeWith();
    const sockets = [await connected(edge), (await connected(edge)).pause()];
    const server = edge.sockets.createServer().listen(6080);
    const closed = sockets.map((socket) => new Promise((resolve) => socket.once('close', resolve)));
    const over = once(server, 'close');
    await edge.close();
    expect(await Promise.all(closed)).toEqual([true, true]);
    await over;
    expect(server.listening).toBe(false);
  });

  test('waits for the tunnel, and fails with the reason if that does not come up', async () => {
    const edge = await gateways.edge({ device: { type: 'sockets', tunnelWaitMs: 600_000 } });
    expect(await failureOf(edge.sockets.connect({ host: 'bus', port: 7 }))).toMatchObject({
      code: 'ENETDOWN',
      cause: edge.failure!.error,
    });
    await serve(7, echo);
    const token = await cloud.createToken({ site: 'site-a' });
    const enrolling = edge.enrol(token);
    const socket = edge.sockets.connect({ host: 'bus', port: 7 });
    await once(socket, 'connect');
    await enrolling;
    socket.destroy();
  });
});

describe('the device of the type sockets', () => {
  test('is what sockets needs', async () => {
    const edge = await gateways.edge({ device: new Hosts().device });
    expect(() => edge.sockets).toThrow(ApiMisuseError);
    expect(() => edge.sockets).toThrow("not of the type 'sockets'");
  });

  test('may be a stack of the program', async () => {
    const stack = new SocketStack({ name: 'mine' });
    const edge = await gateways.edge({ device: stack });
    expect(edge.sockets).toBe(stack);
    await edge.close();
    expect(stack.closedBy).toMatchObject({ message: 'the gateway is closed' });
  });

  test.each([
    ['device.type', { type: 'socket' }],
    ['device.address', { type: 'sockets', address: 'x' }],
    ['device.address', { type: 'sockets', address: ['10.0.0.1', '10.0.0.2'] }],
    ['device.tunnelWaitMs', { type: 'sockets', tunnelWaitMs: 0 }],
    ['device.limits.connections', { type: 'sockets', limits: { connections: -1 } }],
    ['device.mtu', { type: 'sockets', mtu: 1500 }],
  ])('refuses a wrong %s', async (path, device) => {
    const error = await gateways.edge({ device: device as never }).catch((it: unknown) => it);
    expect(error).toBeInstanceOf(ConfigError);
    expect(error).toMatchObject({ path });
  });
});

const WAIT = { timeout: 30_000 };
