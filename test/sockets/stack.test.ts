/** Two stacks, each of which is a presence at the site of the other. */
import { once } from 'node:events';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ConfigError } from '../../src/errors.ts';
import { VNET_HEADER_LENGTH } from '../../src/packet/index.ts';
import {
  type PresenceSocket,
  SocketStack,
  type SocketStackOptions,
  type StackSite,
} from '../../src/sockets/index.ts';
import { turn, until } from '../device/conformance.ts';
import { type OnPacket, pump } from '../support/device-pump.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { Random } from '../support/random.ts';

const CLIENT = '10.0.0.1';
const SERVER = '10.0.1.1';

function siteOf(own: string, other: string, change: Partial<StackSite> = {}): StackSite {
  return {
    sources: [`${own}/32`],
    pools: [`${other}/32`],
    zone: 'example.test',
    hosts: [{ name: 'bus.example.test', addresses: [other], ports: ['tcp/1-65535', 'icmp'] }],
    ...change,
  };
}

let client: SocketStack;
let server: SocketStack;

function open(options: SocketStackOptions = {}, onPacket?: OnPacket): void {
  client = new SocketStack({ name: 'client', ...options });
  server = new SocketStack({ name: 'server', ...options });
  client.setSite(siteOf(CLIENT, SERVER));
  server.setSite(siteOf(SERVER, CLIENT));
  pump(client, server, onPacket);
}

beforeEach(() => open());
afterEach(async () => {
  await Promise.all([client.close(), server.close()]);
});

async function listen(): Promise<number> {
  const listener = server.createServer((socket) => {
    // A connection that a test leaves open ends with the stack.
    socket.on('error', () => {});
    socket.pipe(socket);
  });
  listener.listen(0);
  await once(listener, 'listening');
  return listener.address()!.port;
}

/** Connects to an echo server, and waits until the server knows. */
async function connectTo(port: number): Promise<PresenceSocket> {
  const socket = client.connect({ host: 'bus', port });
  await once(socket, 'connect');
  socket.write('?');
  await once(socket, 'data');
  return socket;
}

async function connected(): Promise<PresenceSocket> {
  return connectTo(await listen());
}

async function failureOf(socket: {
  once(event: 'error', listener: (error: Error) => void): unknown;
}) {
  return new Promise<NodeJS.ErrnoException>((resolve) => socket.once('error', resolve));
}

describe('a stack', () => {
  test('connects by name to a server of another one, and both see the right addresses', async () => {
    const socket = await connected();
    expect(socket.remoteAddress).toBe(SERVER);
    expect(socket.localAddress).toBe(CLIENT);
    socket.end('hello');
    let text = '';
    for await (const chunk of socket) text += chunk;
    expect(text).toBe('hello');
  });

  test('carries much data both ways, in super-packets', async () => {
    const socket = await connected();
    const sent = Buffer.alloc(8 * 1024 * 1024);
    for (let i = 0; i < sent.length; i += 4) sent.writeInt32LE(i, i);
    socket.end(sent);
    const chunks: Buffer[] = [];
    for await (const chunk of socket) chunks.push(chunk as Buffer);
    expect(Buffer.concat(chunks).equals(sent)).toBe(true);
    expect(client.counters.readPackets).toBeLessThan(1000);
    expect(client.allCounters['tcp.retransmitted']).toBe(0);
  });

  test('pings another one by name', async () => {
    expect(await client.ping('bus')).toMatchObject({ address: SERVER });
  });

  test('exchanges datagrams', async () => {
    const far = server.datagram('udp4', (message, from) => {
      far.send(`you sent ${message}`, from.port, from.address);
    });
    far.bind(7);
    await once(far, 'listening');
    const near = client.datagram('udp4');
    near.send('a question', 7, 'bus');
    const [message] = await once(near, 'message');
    expect(String(message)).toBe('you sent a question');
    near.close();
    far.close();
  });

  test.each([
    ['a name that is not in the zone', { host: 'nobody', port: 80 }, 'ENOTFOUND'],
    ['a port without a listener', { host: 'bus', port: 9 }, 'ECONNREFUSED'],
    ['an address outside the pools', { host: '192.0.2.1', port: 9 }, 'ENETUNREACH'],
    ['an address of the pools without a presence', { host: SERVER, port: 9 }, 'ECONNREFUSED'],
  ])('fails a connection to %s', async (_, target, code) => {
    expect(await failureOf(client.connect(target))).toMatchObject({ code });
  });

  test('names the option that is wrong', () => {
    const wrong: [SocketStackOptions, string][] = [
      [{ address: ['10.0.0.1', '10.0.0.2'] }, 'address'],
      [{ address: 'x' }, 'address'],
      [{ tunnelWaitMs: 0 }, 'tunnelWaitMs'],
      [{ mtu: 1279 }, 'mtu'],
      [{ limits: { connections: 0 } }, 'limits.connections'],
      [{ limits: { bufferBytes: 0 } }, 'limits.bufferBytes'],
      [{ limits: { datagramBytes: 65_535 } }, 'limits.datagramBytes'],
      [{ limits: { connectionBufferBytes: 4_194_305 } }, 'limits.connectionBufferBytes'],
      [{ nothing: 1 } as never, 'nothing'],
    ];
    for (const [options, path] of wrong) {
      let error: unknown;
      try {
        new SocketStack(options);
      } catch (caught) {
        error = caught;
      }
      expect(error).toBeInstanceOf(ConfigError);
      expect(error).toMatchObject({ path });
    }
  });

  test('leaves no entry and no timer when it is closed', async () => {
    const socket = await connected();
    const error = failureOf(socket);
    await client.close();
    expect(await error).toMatchObject({
      code: 'ECONNRESET',
      cause: { message: /client is closed/ },
    });
    expect(client.tcp.sizes).toEqual({ connections: 0, halfOpen: 0, timeWait: 0, timers: 0 });
    expect(await failureOf(client.connect({ host: 'bus', port: 1 }))).toMatchObject({
      code: 'ENETDOWN',
      cause: { message: /client is closed/ },
    });
  });
});

describe('a transfer', () => {
  /** Sends so many bytes to an echo server and back, and compares them. */
  async function transfer(length: number): Promise<void> {
    const socket = await connected();
    const sent = Buffer.alloc(length);
    for (let i = 0; i < sent.length; i += 4) sent.writeInt32LE(i, i);
    socket.end(sent);
    const chunks: Buffer[] = [];
    for await (const chunk of socket) chunks.push(chunk as Buffer);
    expect(Buffer.concat(chunks).equals(sent)).toBe(true);
  }

  async function reopen(options: SocketStackOptions, onPacket?: OnPacket): Promise<void> {
    await Promise.all([client.close(), server.close()]);
    open(options, onPacket);
  }

  test('counts packets that the tunnel did not take as unsent, and waits for no timer', async () => {
    const random = new Random(15);
    await reopen({ mtu: 1500 }, () => (random.chance(0.02) ? 'refuse' : 'deliver'));
    await transfer(1024 * 1024);
    const { counters, allCounters } = client;
    expect(counters.refused).toBeGreaterThan(0);
    expect(allCounters['tcp.refused']).toBe(counters.refused);
    expect(allCounters['tcp.timeouts']).toBe(0);
  });

  test('arrives whole over a path that loses packets', async () => {
    const random = new Random(14);
    await reopen({ mtu: 1500 }, () => (random.chance(0.02) ? 'lose' : 'deliver'));
    await transfer(1024 * 1024);
    expect(client.allCounters['tcp.retransmitted']).toBeGreaterThan(0);
  });

  test('arrives whole without offload, in packets of the MTU', async () => {
    let longest = 0;
    await reopen({ mtu: 1500, offload: false }, (frame) => {
      longest = Math.max(longest, frame.length);
      return 'deliver';
    });
    await transfer(1024 * 1024);
    expect(longest).toBe(VNET_HEADER_LENGTH + 1500);
  });

  test('sends nothing again after the event loop was blocked', async () => {
    const socket = await connected();
    let received = 0;
    socket.on('data', (chunk: Buffer) => {
      const before = received;
      received += chunk.length;
      if (before < 1_000_000 && received >= 1_000_000) block(300);
    });
    socket.end(Buffer.alloc(2_000_000));
    await once(socket, 'end');
    expect(received).toBe(2_000_000);
    for (const stack of [client, server]) {
      expect(stack.allCounters).toMatchObject({ 'tcp.retransmitted': 0, 'tcp.timeouts': 0 });
    }
  });

  test('probes an idle connection also if nothing else happens', async () => {
    const clock = new FakeClock();
    await reopen({ clock });
    const socket = await connected();
    for (let i = 0; i < 5; i++) await turn();
    clock.advance(100);
    for (let i = 0; i < 5; i++) await turn();
    const before = client.counters.readPackets;
    socket.setKeepAlive(true, 10_000);
    await turn();
    clock.advance(10_001);
    await until(() => client.counters.readPackets > before);
    socket.destroy();
  });
});

describe('a site that changes', () => {
  test('resets connections to what was withdrawn, and no others', async () => {
    const port = await listen();
    const sockets = [await connectTo(port), await connectTo(port)];
    const other = await connected();
    const errors = sockets.map(failureOf);
    const hosts = [
      { name: 'bus.example.test', addresses: [SERVER], ports: [`tcp/${other.remotePort}`] },
    ];
    client.setSite(siteOf(CLIENT, SERVER, { hosts }));
    for (const error of await Promise.all(errors)) {
      expect(error).toMatchObject({
        code: 'ECONNRESET',
        cause: { message: `tcp/${port} of bus.example.test was withdrawn` },
      });
    }
    other.write('still here');
    expect(String(await once(other, 'data'))).toBe('still here');
    expect(await failureOf(client.connect({ host: 'bus', port }))).toMatchObject({
      code: 'ECONNREFUSED',
    });
    other.destroy();
  });

  test('resets what came from a presence whose pool is gone', async () => {
    const socket = await connected();
    const error = failureOf(socket);
    server.setSite(siteOf(SERVER, CLIENT, { pools: [], hosts: [] }));
    expect(await error).toMatchObject({ code: 'ECONNRESET' });
    expect(server.tcp.sizes.connections).toBe(0);
  });
});

test('a server listens at an address of the option before there is a site', async () => {
  const early = new SocketStack({ address: [SERVER, 'fd00::1'] });
  for (const address of [SERVER, 'fd00::1']) {
    const listener = early.createServer().listen(80, address);
    await once(listener, 'listening');
    expect(listener.address()).toMatchObject({ address, port: 80 });
  }
  const other = early.createServer().listen(80, CLIENT);
  expect(await once(other, 'error')).toMatchObject([{ code: 'EADDRNOTAVAIL', address: CLIENT }]);
  const near = new SocketStack();
  near.setSite(siteOf(CLIENT, SERVER));
  early.setSite(siteOf(SERVER, CLIENT));
  pump(near, early);
  await once(near.connect(80, 'bus'), 'connect');
  await Promise.all([near.close(), early.close()]);
});

test('a port that is taken has nothing to do with a site that is rejected', async () => {
  client.setFailure(new Error('rejected'), true);
  client.createServer().listen(80);
  const [error] = await once(client.createServer().listen(80), 'error');
  expect([error.code, error.cause]).toEqual(['EADDRINUSE', undefined]);
});

describe('a tunnel that is down', () => {
  test('makes a connection wait until it is up', async () => {
    const port = await listen();
    client.linkChanged(false);
    const socket = client.connect({ host: 'bus', port });
    await turn();
    expect(socket.connecting).toBe(true);
    client.linkChanged(true);
    await once(socket, 'connect');
    socket.destroy();
  });

  test('fails new connections at once if the site is rejected, and ends others when it is interrupted', async () => {
    const socket = await connected();
    const error = failureOf(socket);
    const reason = new Error('the site is revoked');
    client.linkChanged(false);
    client.setFailure(reason, true);
    client.interrupt(reason);
    expect(await error).toMatchObject({ code: 'ECONNRESET', cause: reason });
    expect(await failureOf(client.connect({ host: 'bus', port: 1 }))).toMatchObject({
      code: 'ENETDOWN',
      cause: reason,
    });
    client.setFailure(undefined, false);
    client.linkChanged(true);
    const again = await connected();
    again.destroy();
  });

  test('is told to the other ends by a reset, when a stack finishes', async () => {
    const accepted = new Promise<NodeJS.ErrnoException>((resolve) => {
      const listener = server.createServer((socket) => {
        socket.once('error', resolve);
        socket.write('here');
      });
      listener.listen(4000);
    });
    const socket = client.connect({ host: 'bus', port: 4000 });
    socket.on('error', () => {});
    await once(socket, 'data');
    await client.finish(new Error('the gateway is closed'));
    expect(await accepted).toMatchObject({ code: 'ECONNRESET' });
  });
});

/** Keeps the process from everything else for so many ms. */
function block(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}
