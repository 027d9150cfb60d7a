/**
 * How servers listen and accept. Each case runs on `node:net` and on presences.
 */
import { once } from 'node:events';
import type net from 'node:net';
import { describe, expect, test } from 'vitest';
import {
  closeAfterEach,
  closed,
  listening,
  logOf,
  pairIn,
  settled,
  shapeOf,
  until,
  worlds,
} from '../worlds.ts';

closeAfterEach();

describe.each(worlds)('server %#', (makeWorld) => {
  const world = makeWorld();
  test(`listens in the next tick, on a free port (${world.name})`, async () => {
    const server = world.server();
    expect([server.listening, server.address()]).toEqual([false, null]);
    let isEmitted = false;
    expect(server.listen(0, world.address, () => (isEmitted = true))).toBe(server);
    expect(isEmitted).toBe(false);
    await once(server, 'listening');
    expect([isEmitted, server.listening]).toEqual([true, true]);
    const { address, family, port } = server.address() as net.AddressInfo;
    expect([address, family]).toEqual([world.address, 'IPv4']);
    expect(port).toBeGreaterThan(0);
  });

  test('listens at all addresses if it is given none', async () => {
    const server = world.server();
    server.listen();
    await once(server, 'listening');
    const { address, family } = server.address() as net.AddressInfo;
    expect([address, family]).toEqual(['::', 'IPv6']);
  });

  test('takes the arguments in all forms', async () => {
    const host = world.address;
    const ports: number[] = [];
    for (const listen of [
      (server: net.Server) => server.listen(),
      (server: net.Server) => server.listen(0),
      (server: net.Server) => server.listen(0, host),
      (server: net.Server) => server.listen(0, host, 5),
      (server: net.Server) => server.listen(0, 5),
      (server: net.Server) => server.listen({ port: 0 }),
      (server: net.Server) => server.listen({ port: '0' as never, host, backlog: 5 }),
      (server: net.Server) => server.listen(null as never),
      (server: net.Server) => server.listen({ port: undefined as never }),
    ]) {
      const server = world.server();
      listen(server);
      await once(server, 'listening');
      ports.push((server.address() as net.AddressInfo).port);
      await new Promise<void>((resolve) => server.close(() => resolve()));
    }
    expect(ports.every((port) => port > 0)).toBe(true);
    const server = world.server();
    await new Promise<void>((resolve) => server.listen(resolve));
  });

  test('throws for wrong arguments', () => {
    const codes = [[{}], [{ host: 'x' }], [70_000], [-1], [{ port: 'x' }]].map((args) => {
      try {
        world.server().listen(...(args as [never]));
        return undefined;
      } catch (error) {
        return `${(error as Error).name} ${(error as NodeJS.ErrnoException).code}`;
      }
    });
    expect(codes).toEqual([
      'TypeError ERR_INVALID_ARG_VALUE',
      'TypeError ERR_INVALID_ARG_VALUE',
      'RangeError ERR_SOCKET_BAD_PORT',
      'RangeError ERR_SOCKET_BAD_PORT',
      'RangeError ERR_SOCKET_BAD_PORT',
    ]);
    expect(() => world.server(5 as never)).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' })
    );
  });

  test('fails with EADDRINUSE where another listens', async () => {
    const port = await listening(world, world.server());
    const server = world.server();
    server.listen(port, world.address);
    expect(server.listening).toBe(false);
    const [error] = await once(server, 'error');
    expect(shapeOf(world, error, port)).toEqual({
      message: 'listen EADDRINUSE: address already in use <address>:<port>',
      code: 'EADDRINUSE',
      errno: -98,
      syscall: 'listen',
      address: '<address>',
      port: '<port>',
    });
    // It may listen elsewhere then.
    await listening(world, server);
  });

  test('fails with EADDRNOTAVAIL at an address of another host', async () => {
    const server = world.server();
    server.listen(0, '203.0.113.1');
    const [error] = await once(server, 'error');
    expect(error).toMatchObject({
      message: 'listen EADDRNOTAVAIL: address not available 203.0.113.1',
      code: 'EADDRNOTAVAIL',
      syscall: 'listen',
      address: '203.0.113.1',
    });
  });

  test('throws when it listens already', async () => {
    const server = world.server();
    await listening(world, server);
    expect(() => server.listen(0)).toThrow(
      expect.objectContaining({ code: 'ERR_SERVER_ALREADY_LISTEN' })
    );
  });

  test('hands over each connection, which knows its server', async () => {
    const { client, accepted, server } = await pairIn(world);
    expect((accepted as unknown as { server: unknown }).server).toBe(server);
    expect([accepted.connecting, accepted.pending, accepted.readyState]).toEqual([
      false,
      false,
      'open',
    ]);
    expect(await countOf(server)).toBe(1);
    client.destroy();
    accepted.resume();
    await closed(accepted);
    expect(await countOf(server)).toBe(0);
  });

  const countOf = (server: net.Server): Promise<number> =>
    new Promise((resolve) => server.getConnections((_, count) => resolve(count)));

  test('closes when the last connection is gone', async () => {
    const { client, accepted, server, port } = await pairIn(world);
    const log: string[] = [];
    server.on('close', () => log.push('close'));
    expect(server.close((error) => log.push(`callback ${error}`))).toBe(server);
    expect([server.listening, server.address()]).toEqual([false, null]);
    await settled();
    expect(log).toEqual([]);
    const late = world.connect(port, world.address);
    const [error] = await once(late, 'error');
    expect(error.code).toBe('ECONNREFUSED');
    client.end();
    client.resume();
    accepted.resume();
    await closed(accepted);
    await settled();
    expect(log.sort()).toEqual(['callback undefined', 'close']);
  });

  test('reports a close without listening to the callback', async () => {
    const server = world.server();
    const error = await new Promise((resolve) => server.close(resolve));
    expect(error).toMatchObject({
      code: 'ERR_SERVER_NOT_RUNNING',
      message: 'Server is not running.',
    });
  });

  test('is disposed of by await using', async () => {
    const server = world.server();
    await server[Symbol.asyncDispose]();
    await listening(world, server);
    await server[Symbol.asyncDispose]();
    expect(server.listening).toBe(false);
    const port = await listening(world, server);
    await once(world.connect(port, world.address), 'connect');
  });

  test('closes when its signal is aborted', async () => {
    const controller = new AbortController();
    const server = world.server();
    server.listen({ port: 0, host: world.address, signal: controller.signal });
    await once(server, 'listening');
    controller.abort();
    await once(server, 'close');
    expect(server.listening).toBe(false);
    const second = world.server();
    second.listen({ port: 0, host: world.address, signal: AbortSignal.abort() });
    await once(second, 'close');
  });

  test('drops connections beyond maxConnections', async () => {
    const { client, accepted, server, port } = await pairIn(world);
    server.maxConnections = 1;
    const dropped = once(server, 'drop');
    const second = world.connect(port, world.address);
    const log = logOf(second);
    second.resume();
    const [data] = await dropped;
    await closed(second);
    expect({ ...data }).toEqual({
      localAddress: world.address,
      localPort: port,
      localFamily: 'IPv4',
      remoteAddress: expect.any(String),
      remotePort: expect.any(Number),
      remoteFamily: 'IPv4',
    });
    expect(log.filter((event) => event !== 'finish')).toEqual([
      'connect',
      'ready',
      'end',
      'close:false',
    ]);
    client.destroy();
    accepted.resume();
    await closed(accepted);
    await once(world.connect(port, world.address), 'connect');
    await until(() => (server as unknown as { maxConnections: number }).maxConnections === 1);
  });

  test('reads nothing from connections until they are resumed, with pauseOnConnect', async () => {
    const { client, accepted } = await pairIn(world, { server: { pauseOnConnect: true } });
    accepted.on('data', () => {});
    client.write('x');
    await settled();
    expect([accepted.isPaused(), accepted.bytesRead]).toEqual([true, 0]);
    accepted.resume();
    await until(() => accepted.bytesRead === 1);
  });

  test('keeps its options for the accepted connections', async () => {
    const { accepted } = await pairIn(world, {
      server: { allowHalfOpen: true, highWaterMark: 1234, noDelay: true, keepAlive: true },
    });
    expect([
      accepted.allowHalfOpen,
      accepted.readableHighWaterMark,
      accepted.writableHighWaterMark,
    ]).toEqual([true, 1234, 1234]);
  });

  test('goes on when a listener throws', async () => {
    const thrown: unknown[] = [];
    const others = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    process.on('uncaughtException', (error) => thrown.push(error.message));
    try {
      let count = 0;
      const server = world.server({}, (far) => {
        far.resume();
        if (++count === 1) throw new Error('listener');
      });
      const port = await listening(world, server);
      const sockets = [1, 2].map(() => world.connect(port, world.address));
      await until(() => count === 2 && thrown.length === 1);
      for (const socket of sockets) socket.end();
      for (const socket of sockets) socket.resume();
      await closed(...sockets);
    } finally {
      process.removeAllListeners('uncaughtException');
      for (const listener of others) process.on('uncaughtException', listener);
    }
    expect(thrown).toEqual(['listener']);
  });

  test('refuses what only an operating system has', () => {
    if (!world.isOurs) return;
    for (const options of [{ path: '/tmp/x' }, { fd: 3 }, { handle: {} }]) {
      expect(() => world.server().listen(options)).toThrow(
        expect.objectContaining({ code: 'ERR_INVALID_ARG_VALUE' })
      );
      expect(() =>
        world.socket().connect({ port: 1, ...options } as net.TcpNetConnectOpts)
      ).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG_VALUE' }));
    }
    expect(() => world.socket().connect('/tmp/x')).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARG_VALUE' })
    );
  });
});
