/**
 * TCP connections of clients to real servers of this machine, through a backend.
 */
import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import { networkInterfaces } from 'node:os';
import type { Readable } from 'node:stream';
import { describe, expect, test, vi } from 'vitest';
import type { PresenceSocket } from '../../../src/sockets/stream/socket.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { refusingTcpPort } from '../../support/refusing-port.ts';
import { stream } from '../../tcp/stream.ts';
import { settled } from '../worlds.ts';
import {
  ALL_SERVICES,
  BackendScene,
  closeScenesAfterEach,
  closeServersAfterEach,
  RealServer,
  serve,
} from './backend-scene.ts';

closeScenesAfterEach();
closeServersAfterEach();

/** Resolves with the code of the error that ends the socket; undefined if there is none. */
async function endOf(socket: net.Socket | PresenceSocket): Promise<string | undefined> {
  let code: string | undefined;
  socket.on('error', (error: NodeJS.ErrnoException) => {
    code = error.code;
  });
  if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve));
  return code;
}

/** Reads to the end; other than an iteration of the stream, it leaves the other direction open. */
async function bytesOf(readable: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  readable.on('data', (chunk: Buffer) => chunks.push(chunk));
  await once(readable.resume(), 'end');
  return Buffer.concat(chunks);
}

const hasIpv6 = Object.values(networkInterfaces()).some((list) =>
  list?.some(({ address }) => address === '::1')
);

const nothing = (): void => {};

describe('a connection to a service', () => {
  test('carries requests of HTTP, and the server sees an address of this host', async () => {
    const server = http.createServer((request, response) => {
      response.end(`${request.method} ${request.url} ${request.socket.remoteAddress}`);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as net.AddressInfo;
    const scene = new BackendScene();
    const agent = scene.client.httpAgent({ keepAlive: true });
    for (let i = 0; i < 3; i++) {
      const request = http.get({ host: 'service.test', port, path: `/${i}`, agent });
      const [response] = (await once(request, 'response')) as [http.IncomingMessage];
      expect((await bytesOf(response)).toString()).toBe(`GET /${i} 127.0.0.1`);
    }
    expect(scene.backend.counters['tcp.connected']).toBe(1);
    agent.destroy();
    server.close();
    await vi.waitUntil(() => scene.backend.sizes.connections === 0);
  });

  test('carries bytes both ways at once, in super-segments', async () => {
    const length = 8 * 1024 * 1024;
    const server = await serve((socket) => socket.pipe(socket));
    const scene = new BackendScene();
    const socket = scene.client.connect(server.port, 'service.test');
    socket.end(stream(0, length));
    const echoed = await bytesOf(socket);
    expect(echoed.equals(stream(0, length))).toBe(true);
    expect(Math.max(...scene.sent.to)).toBeGreaterThan(20_000);
    expect(Math.max(...scene.sent.from)).toBeGreaterThan(20_000);
    await vi.waitUntil(() => scene.backend.sizes.connections === 0);
    // The last acknowledgement may be on its way.
    await vi.waitFor(() => expect(scene.stack.tcp.memory.used).toBe(0));
  });

  test.skipIf(!hasIpv6)('goes by IPv6', async () => {
    const server = await new RealServer({}, (socket) => {
      socket.end(`${socket.remoteFamily}`);
    }).listen('::1');
    const scene = new BackendScene();
    const socket = scene.client.connect(server.port, 'six.test');
    expect((await bytesOf(socket)).toString()).toBe('IPv6');
  });

  test('is not answered before the service is connected', async () => {
    const server = await serve(nothing);
    const host = new net.Socket({ allowHalfOpen: true });
    let asked = 0;
    const dial = (): net.Socket => {
      asked++;
      return Object.defineProperty(host, 'connecting', { value: true, configurable: true });
    };
    const scene = new BackendScene({ dial });
    const socket = scene.client.connect(server.port, 'service.test');
    await vi.waitUntil(() => asked === 1);
    await settled();
    expect(scene.sent.from).toEqual([]);
    expect(socket.connecting).toBe(true);
    expect(scene.backend.sizes).toEqual({ connections: 1, dials: 1, flows: 0 });
    Reflect.deleteProperty(host, 'connecting');
    host.connect(server.port, '127.0.0.1');
    await once(socket, 'connect');
    expect(scene.backend.sizes).toEqual({ connections: 1, dials: 0, flows: 0 });
    expect(host.remotePort).toBe(server.port);
  });

  test('ends in one direction, then in the other, begun by the client', async () => {
    const server = await serve(nothing);
    const scene = new BackendScene();
    const client = scene.client.connect({
      port: server.port,
      host: 'service.test',
      allowHalfOpen: true,
    });
    client.end('question');
    const far = await server.socket();
    expect((await bytesOf(far)).toString()).toBe('question');
    far.end('answer');
    expect((await bytesOf(client)).toString()).toBe('answer');
    await vi.waitUntil(() => scene.backend.sizes.connections === 0);
  });

  test('ends in one direction, then in the other, begun by the service', async () => {
    const server = await serve((socket) => socket.end('banner'));
    const scene = new BackendScene();
    const client = scene.client.connect({
      port: server.port,
      host: 'service.test',
      allowHalfOpen: true,
    });
    expect((await bytesOf(client)).toString()).toBe('banner');
    client.end('late');
    expect((await bytesOf(await server.socket())).toString()).toBe('late');
    await vi.waitUntil(() => scene.backend.sizes.connections === 0);
  });

  test('that the service resets is reset at the client', async () => {
    const server = await serve((socket) => socket.once('data', () => socket.resetAndDestroy()));
    const scene = new BackendScene();
    const client = scene.client.connect(server.port, 'service.test');
    client.write('x');
    expect(await endOf(client)).toBe('ECONNRESET');
    await vi.waitUntil(() => scene.backend.sizes.connections === 0);
  });

  test('that the client resets is reset at the service', async () => {
    const server = await serve((socket) => socket.resume());
    const scene = new BackendScene();
    const client = scene.client.connect(server.port, 'service.test');
    const far = await server.socket();
    const ended = endOf(far);
    await vi.waitUntil(() => !client.connecting);
    client.resetAndDestroy();
    expect(await ended).toBe('ECONNRESET');
    await vi.waitUntil(() => scene.backend.sizes.connections === 0);
  });

  test('that was closed between its SYN-ACK and the last ACK leaves nothing', async () => {
    const server = await serve((socket) => socket.resetAndDestroy());
    const scene = new BackendScene();
    scene.isSilent = true;
    const client = scene.client.connect(server.port, 'service.test');
    await vi.waitUntil(() => scene.backend.counters['tcp.dialsRefused'] === 1);
    expect(scene.backend.sizes).toEqual({ connections: 0, dials: 0, flows: 0 });
    expect(scene.stack.tcp.sizes.halfOpen).toBe(0);
    client.destroy();
  });
});

describe('a service', () => {
  test('that refuses is ECONNREFUSED at the client at once', async () => {
    const refusing = await refusingTcpPort();
    const scene = new BackendScene();
    const client = scene.client.connect(refusing.port, 'service.test');
    expect(await endOf(client)).toBe('ECONNREFUSED');
    expect(scene.backend.counters['tcp.dialsRefused']).toBe(1);
    expect(scene.sent.from).toHaveLength(1);
    refusing.close();
  });

  test.each([
    ['EHOSTUNREACH', 'EHOSTUNREACH'],
    ['ETIMEDOUT', 'EHOSTUNREACH'],
    ['ENETUNREACH', 'ENETUNREACH'],
    ['EACCES', 'EHOSTUNREACH'],
    ['ESOMETHING', 'ECONNREFUSED'],
  ])('that cannot be reached, %s, is %s at the client', async (code, expected) => {
    const scene = new BackendScene({ dial: () => failing(code) });
    const client = scene.client.connect(80, 'far.test');
    expect(await endOf(client)).toBe(expected);
    expect(scene.stack.tcp.sizes.halfOpen).toBe(0);
    expect(scene.backend.sizes).toEqual({ connections: 0, dials: 0, flows: 0 });
  });

  test.each(['EMFILE', 'EADDRNOTAVAIL'])(
    'is tried again when the host has no room, %s, and then answers',
    async (code) => {
      const clock = new FakeClock();
      const server = await serve((socket) => socket.end('here'));
      let tries = 0;
      const dial = (): net.Socket => {
        tries++;
        return tries === 1 ? failing(code) : net.connect(server.port, '127.0.0.1');
      };
      const scene = new BackendScene({ dial }, { clock });
      const client = scene.client.connect(server.port, 'service.test');
      await vi.waitUntil(() => scene.backend.counters['tcp.dialsPostponed'] === 1);
      expect(scene.backend.counters['tcp.portsExhausted']).toBe(code === 'EADDRNOTAVAIL' ? 1 : 0);
      expect(scene.sent.from).toEqual([]);
      await vi.waitUntil(() => {
        clock.advance(500);
        return tries === 2;
      });
      expect((await bytesOf(client)).toString()).toBe('here');
    }
  );

  test('for which the function dial throws is refused', async () => {
    const dial = (): never => {
      throw new Error('of the program');
    };
    const scene = new BackendScene({ dial });
    expect(await endOf(scene.client.connect(80, 'service.test'))).toBe('ECONNREFUSED');
    expect(scene.backend.sizes).toEqual({ connections: 0, dials: 0, flows: 0 });
  });

  test('whose socket was destroyed, or is connected already', async () => {
    const server = await serve((socket) => socket.end('here'));
    const connected = net.connect({ port: server.port, allowHalfOpen: true });
    await once(connected, 'connect');
    const sockets = [new net.Socket().destroy(), connected];
    const scene = new BackendScene({ dial: () => sockets.shift()! });
    expect(await endOf(scene.client.connect(80, 'service.test'))).toBe('ECONNREFUSED');
    const client = scene.client.connect(80, 'service.test');
    expect((await bytesOf(client)).toString()).toBe('here');
  });

  test('that accepts and says nothing keeps its connection open', async () => {
    const server = await serve(nothing);
    const scene = new BackendScene();
    const client = scene.client.connect(server.port, 'service.test');
    await once(client, 'connect');
    await server.socket();
    await settled();
    expect(client.readyState).toBe('open');
    client.destroy();
    await vi.waitUntil(() => scene.backend.sizes.connections === 1);
  });

  test('that stops reading is not sent more than the buffers hold, and gets all of it later', async () => {
    const server = await serve((socket) => socket.pause());
    const scene = new BackendScene();
    const client = scene.client.connect(server.port, 'service.test');
    const length = 64 * 1024 * 1024;
    const text = Buffer.alloc(length, 'all of it');
    client.end(text);
    const far = await server.socket();
    // It rests when the client's buffer is full and nothing moves any more.
    let before = -1;
    await vi.waitUntil(
      () => {
        const packets = scene.sent.to.length;
        const rests = packets === before && packets > 10;
        before = packets;
        return rests;
      },
      { interval: 200 }
    );
    expect(scene.stack.tcp.memory.used).toBeLessThan(6 * 1024 * 1024);
    const written = [...scene.sent.to].reduce((sum, each) => sum + each, 0);
    expect(written).toBeLessThan(length / 2);
    expect((await bytesOf(far)).equals(text)).toBe(true);
  });

  test('whose client resets while it reads nothing is reset too', async () => {
    const server = await serve((socket) => socket.pause());
    const scene = new BackendScene();
    const client = scene.client.connect(server.port, 'service.test');
    client.on('error', nothing);
    client.write(Buffer.alloc(64 * 1024 * 1024));
    await server.socket();
    await vi.waitUntil(() => scene.stack.tcp.memory.used > 64 * 1024);
    client.resetAndDestroy();
    await vi.waitUntil(() => scene.backend.sizes.connections === 0);
    await vi.waitFor(() => expect(scene.stack.tcp.sizes.connections).toBe(0));
    await vi.waitFor(() => expect(scene.stack.tcp.memory.used).toBe(0));
  });

  test('is not read while the client does not read', async () => {
    const text = Buffer.alloc(64 * 1024 * 1024, 'x');
    const server = await serve((socket) => socket.end(text));
    const scene = new BackendScene();
    const client = scene.client.connect(server.port, 'service.test');
    client.pause();
    const far = await server.socket();
    await vi.waitUntil(() => scene.client.tcp.memory.used > 32 * 1024);
    await settled();
    expect(far.writableLength).toBeGreaterThan(text.length / 2);
    expect((await bytesOf(client)).length).toBe(text.length);
  });
});

describe('what the service learns of the client', () => {
  test('is the header of the PROXY protocol, if it expects it', async () => {
    const server = await serve((socket) => socket.pause());
    const [first, ...others] = ALL_SERVICES;
    const scene = new BackendScene({ services: [{ ...first!, proxyProtocol: true }, ...others] });
    const client = scene.client.connect({
      port: server.port,
      host: 'service.test',
      localPort: 40_001,
    });
    client.end('behind it');
    const bytes = await bytesOf(await server.socket());
    expect(bytes.subarray(0, 12).toString('hex')).toBe('0d0a0d0a000d0a515549540a');
    expect([...bytes.subarray(12, 16)]).toEqual([0x21, 0x11, 0, 12]);
    expect([...bytes.subarray(16, 24)]).toEqual([10, 1, 0, 1, 127, 0, 0, 1]);
    expect([bytes.readUInt16BE(24), bytes.readUInt16BE(26)]).toEqual([40_001, server.port]);
    expect(bytes.subarray(28).toString()).toBe('behind it');
  });

  test.skipIf(!hasIpv6)('is that header with IPv6 addresses, for all services', async () => {
    const server = await new RealServer({}, (socket) => socket.pause()).listen('::1');
    const scene = new BackendScene({ proxyProtocol: true });
    scene.client.connect(server.port, 'six.test').end();
    const bytes = await bytesOf(await server.socket());
    expect(bytes).toHaveLength(16 + 36);
    expect([...bytes.subarray(12, 16)]).toEqual([0x21, 0x21, 0, 36]);
    expect(bytes.subarray(16, 32).toString('hex')).toBe('20010db8000100000000000000000001');
    expect(bytes.subarray(32, 48).toString('hex')).toBe('00000000000000000000000000000001');
  });

  test.skipIf(process.platform !== 'linux')('is an address of its own on loopback', async () => {
    const server = await serve((socket) => socket.end(`${socket.remoteAddress}`));
    const scene = new BackendScene({ loopbackSource: true });
    const other = scene.clientAt('10.1.2.3');
    const seen = async (client: typeof other): Promise<string> =>
      (await bytesOf(client.connect(server.port, 'service.test'))).toString();
    expect(await seen(scene.client)).toBe('127.129.0.1');
    expect(await seen(other)).toBe('127.129.2.3');
    expect(await seen(other)).toBe('127.129.2.3');
  });
});

test('both sides are probed when they were idle for a minute', async () => {
  const clock = new FakeClock();
  const server = await serve(nothing);
  const set: unknown[][] = [];
  const dial = (): net.Socket => {
    const socket = net.connect({ port: server.port, allowHalfOpen: true });
    const { setKeepAlive } = socket;
    socket.setKeepAlive = (...args) => {
      set.push(args);
      return setKeepAlive.apply(socket, args);
    };
    return socket;
  };
  const scene = new BackendScene({ dial }, { clock });
  const client = scene.client.connect(server.port, 'service.test');
  await once(client, 'connect');
  await vi.waitUntil(() => scene.backend.counters['tcp.connected'] === 1);
  expect(set).toEqual([[true, 60_000]]);
  await settled();
  const before = scene.sent.from.length;
  clock.advance(59_000);
  await settled();
  expect(scene.sent.from.length).toBe(before);
  clock.advance(2_000);
  await settled();
  expect(scene.sent.from.length).toBe(before + 1);
  expect(client.readyState).toBe('open');
});

/** A socket that fails. */
function failing(code: string): net.Socket {
  const socket = new net.Socket();
  Object.defineProperty(socket, 'connecting', { value: true });
  socket.destroy(Object.assign(new Error(code), { code }));
  return socket;
}

test('a thousand idle connections last for an hour, and work then', async () => {
  const clock = new FakeClock();
  const server = await serve((socket) => socket.pipe(socket));
  const scene = new BackendScene({ limits: { dials: 65_536 } }, { clock });
  const clients = Array.from({ length: IDLE }, () =>
    scene.client.connect(server.port, 'service.test')
  );
  // One client may not have so many handshakes at once: SYNs that were dropped are sent again.
  await vi.waitUntil(() => {
    clock.advance(100);
    return scene.backend.counters['tcp.connected'] === IDLE;
  });
  await vi.waitUntil(() => clients.every(({ connecting }) => !connecting));
  for (let minute = 0; minute < 60; minute++) {
    clock.advance(60_000);
    await settled();
  }
  expect(scene.backend.sizes).toEqual({ connections: IDLE, dials: 0, flows: 0 });
  const answers = clients.map((client, i) => {
    client.end(`${i}`);
    return bytesOf(client);
  });
  const texts = (await Promise.all(answers)).map(String);
  expect(texts).toEqual(clients.map((_, i) => `${i}`));
  await vi.waitUntil(() => scene.backend.sizes.connections === 0);
  expect(scene.stack.tcp.memory.used + scene.stack.tcp.memory.usedSmall).toBe(0);
});

const IDLE = 1_000;
