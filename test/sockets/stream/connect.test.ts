/**
 * How sockets connect. Each case runs on `node:net` and on presences.
 */
import type { LookupOptions } from 'node:dns';
import { once } from 'node:events';
import type net from 'node:net';
import { describe, expect, onTestFinished, test } from 'vitest';
import { refusingTcpPort } from '../../support/refusing-port.ts';
import {
  closeAfterEach,
  closed,
  listening,
  logOf,
  pairIn,
  settled,
  shapeOf,
  type World,
  worlds,
} from '../worlds.ts';

closeAfterEach();

/** A port at which nothing listens, and which stays so. */
async function deadPort(world: World): Promise<number> {
  if (world.isOurs) return 9;
  const { port, close } = await refusingTcpPort();
  onTestFinished(close);
  return port;
}

const failed = async (socket: net.Socket): Promise<NodeJS.ErrnoException> => {
  const [[error]] = await Promise.all([once(socket, 'error'), closed(socket)]);
  return error as NodeJS.ErrnoException;
};

const codeOf = (call: () => unknown): unknown => {
  try {
    call();
    return undefined;
  } catch (error) {
    return `${(error as Error).name} ${(error as NodeJS.ErrnoException).code}`;
  }
};

describe.each(worlds)('connect %#', (makeWorld) => {
  const world = makeWorld();
  test(`returns at once, and emits connect, then ready (${world.name})`, async () => {
    const port = await listening(world, world.server());
    const socket = world.connect({ port, host: world.address });
    const log = logOf(socket);
    expect([socket.connecting, socket.pending, socket.readyState]).toEqual([true, true, 'opening']);
    expect([socket.remoteAddress, socket.bytesRead, socket.bytesWritten]).toEqual([
      undefined,
      0,
      0,
    ]);
    await once(socket, 'ready');
    expect([socket.connecting, socket.pending, socket.readyState]).toEqual([false, false, 'open']);
    expect(log).toEqual(['connect', 'ready']);
  });

  test('knows both ends while it is connected', async () => {
    const { client, accepted, port } = await pairIn(world);
    expect([client.remoteAddress, client.remotePort, client.remoteFamily]).toEqual([
      world.address,
      port,
      'IPv4',
    ]);
    expect([accepted.remoteAddress, accepted.remotePort]).toEqual([
      client.localAddress,
      client.localPort,
    ]);
    expect(accepted.address()).toEqual({ address: world.address, family: 'IPv4', port });
    expect([accepted.localAddress, accepted.localPort, accepted.localFamily]).toEqual([
      world.address,
      port,
      'IPv4',
    ]);
  });

  test('takes the arguments in all forms', async () => {
    const port = await listening(world, world.server());
    const host = world.address;
    for (const connectBy of [
      (done: () => void) => world.connect({ port, host }, done),
      (done: () => void) => world.connect(port, host, done),
      (done: () => void) => world.connect(String(port), host, done),
      (done: () => void) => world.socket().connect(port, host, done),
      (done: () => void) => world.socket().connect({ port, host }, done),
      (done: () => void) => world.socket().connect({ port: String(port) as never, host }, done),
    ]) {
      await new Promise<void>((resolve) => connectBy(resolve));
    }
  });

  test('takes an IPv4 address that is written as an IPv6 one', async () => {
    const port = await listening(world, world.server());
    const socket = world.connect({ port, host: `::ffff:${world.address}` });
    await once(socket, 'connect');
    const prefix = world.isOurs ? '' : '::ffff:';
    expect(socket.remoteAddress).toBe(`${prefix}${world.address}`);
  });

  test('throws for wrong arguments', () => {
    const codes = [
      {},
      { port: -1 },
      { port: 65_536 },
      { port: 'x' },
      { port: true },
      { port: 1, localAddress: 'x' },
      { port: 1, localPort: 'x' },
      { port: 1, host: 'a.test', lookup: 'x' },
    ].map((options) => codeOf(() => world.socket().connect(options as never)));
    expect(codes).toEqual([
      'TypeError ERR_MISSING_ARGS',
      'RangeError ERR_SOCKET_BAD_PORT',
      'RangeError ERR_SOCKET_BAD_PORT',
      'RangeError ERR_SOCKET_BAD_PORT',
      'TypeError ERR_INVALID_ARG_TYPE',
      'TypeError ERR_INVALID_IP_ADDRESS',
      'TypeError ERR_INVALID_ARG_TYPE',
      'TypeError ERR_INVALID_ARG_TYPE',
    ]);
  });

  test('fails with ECONNREFUSED where nothing listens', async () => {
    const port = await deadPort(world);
    const socket = world.connect({ port, host: world.address });
    const log = logOf(socket);
    const attempts: unknown[] = [];
    socket.on('connectionAttempt', (...args) => attempts.push(args));
    socket.on('connectionAttemptFailed', (...args) => attempts.push(args));
    const error = await failed(socket);
    expect(shapeOf(world, error, port)).toEqual({
      message: 'connect ECONNREFUSED <address>:<port>',
      code: 'ECONNREFUSED',
      errno: -111,
      syscall: 'connect',
      address: '<address>',
      port: '<port>',
    });
    expect(log).toEqual(['error:ECONNREFUSED', 'close:true']);
    expect(attempts).toEqual([
      [world.address, port, 4],
      [world.address, port, 4, error],
    ]);
    expect([socket.connecting, socket.destroyed, socket.readyState]).toEqual([
      false,
      true,
      'closed',
    ]);
  });

  test('sends what was written before it was connected, and its end', async () => {
    const server = world.server();
    const port = await listening(world, server);
    const accepted = once(server, 'connection');
    const socket = world.socket();
    const written: string[] = [];
    socket.connect(port, world.address, () => written.push('connect'));
    expect(socket.write('one,', () => written.push('one'))).toBe(true);
    socket.end('two', () => written.push('end'));
    expect(socket.bytesWritten).toBe(7);
    const [far] = (await accepted) as [net.Socket];
    far.setEncoding('utf8');
    let text = '';
    for await (const part of far) text += part;
    await closed(socket);
    expect(text).toBe('one,two');
    expect(written).toEqual(['connect', 'one', 'end']);
    expect(socket.bytesWritten).toBe(7);
  });

  test('ends after it is connected when end was called before connect', async () => {
    // Node 22 and later forget it.
    if (!world.isOurs && Number.parseInt(process.versions.node, 10) >= 22) return;
    const server = world.server({}, (far) => far.resume());
    const port = await listening(world, server);
    const socket = world.socket();
    const log = logOf(socket);
    socket.end();
    socket.resume();
    socket.connect(port, world.address);
    await closed(socket);
    // When `finish` comes depends on the operating system.
    expect(log.filter((event) => event !== 'finish')).toEqual([
      'connect',
      'ready',
      'end',
      'close:false',
    ]);
    expect(socket.writableFinished).toBe(true);
  });

  test('is never connected after destroy', async () => {
    const port = await listening(world, world.server());
    const socket = world.connect({ port, host: world.address });
    const log = logOf(socket);
    const errors: unknown[] = [];
    socket.write('x', (error) => errors.push((error as NodeJS.ErrnoException)?.code));
    socket.write('y', (error) => errors.push((error as NodeJS.ErrnoException)?.code));
    socket.destroy();
    expect(socket.connecting).toBe(false);
    await closed(socket);
    await settled();
    expect(log).toEqual(['close:false']);
    expect(errors).toEqual([
      'ERR_SOCKET_CLOSED_BEFORE_CONNECTION',
      'ERR_SOCKET_CLOSED_BEFORE_CONNECTION',
    ]);
  });

  test('refuses to write without a connection', async () => {
    const socket = world.socket();
    expect([socket.pending, socket.readyState, socket.address()]).toEqual([true, 'open', {}]);
    const log = logOf(socket);
    const failure = new Promise((resolve) => socket.write('x', resolve));
    expect(await failure).toMatchObject({ code: 'ERR_SOCKET_CLOSED', message: 'Socket is closed' });
    await closed(socket);
    expect(log).toEqual(['error:ERR_SOCKET_CLOSED', `close:${world.isOurs || undefined}`]);
  });

  test('cannot reset without a connection', async () => {
    const socket = world.socket();
    const log = logOf(socket);
    expect(socket.resetAndDestroy()).toBe(socket);
    await closed(socket);
    expect(log).toEqual(['error:ERR_SOCKET_CLOSED', `close:${world.isOurs || undefined}`]);
  });

  test('connects again after it was closed', async () => {
    const server = world.server({}, (far) => far.end('x'));
    const port = await listening(world, server);
    const socket = world.connect({ port, host: world.address });
    const log = logOf(socket);
    socket.resume();
    await closed(socket);
    expect(socket.bytesRead).toBe(1);
    socket.connect({ port, host: world.address });
    await new Promise((resolve) => socket.once('close', resolve));
    const once = ['connect', 'ready', 'end', 'finish', 'close:false'];
    expect(log).toEqual([...once, ...once]);
  });

  test('fails when it is told to connect while it connects', async () => {
    const port = await listening(world, world.server());
    const socket = world.connect({ port, host: world.address });
    socket.connect(port, world.address);
    expect((await failed(socket)).code).toBe('EALREADY');
  });

  test('does not connect a second time', async () => {
    const { client, port } = await pairIn(world);
    const log = logOf(client);
    const over = once(client, world.isOurs ? 'close' : 'connect').catch(() => {});
    client.connect(port, world.address);
    await over;
    expect(log.slice(0, 1)).toEqual([world.isOurs ? 'error:EISCONN' : 'connect']);
  });

  test('emits what a lookup function of the program finds', async () => {
    const port = await listening(world, world.server());
    const asked: unknown[] = [];
    const seen: unknown[] = [];
    const socket = world.connect({
      port,
      host: 'server.test',
      lookup: (host: string, { all }: { all: boolean }, done: (...args: unknown[]) => void) => {
        asked.push([host, all]);
        process.nextTick(done, null, [{ address: world.address, family: 4 }]);
      },
    });
    socket.on('lookup', (...args) => seen.push(args));
    await once(socket, 'connect');
    expect(asked).toEqual([['server.test', true]]);
    expect(seen).toEqual([[null, world.address, 4, 'server.test']]);
  });

  test('asks a lookup function for one address if a family is given', async () => {
    const port = await listening(world, world.server());
    const asked: unknown[] = [];
    for (const family of [4, 'IPv4']) {
      const socket = world.connect({
        port,
        host: 'server.test',
        family,
        lookup: (_: string, options: LookupOptions, done: (...args: unknown[]) => void) => {
          asked.push([options.family, Boolean(options.all)]);
          process.nextTick(done, null, world.address, 4);
        },
      });
      await once(socket, 'connect');
    }
    expect(asked).toEqual([
      [4, false],
      [4, false],
    ]);
  });

  test('fails with the error of a lookup function', async () => {
    const reason = Object.assign(new Error('no'), { code: 'ENOTFOUND' });
    const socket = world.connect({
      port: 1,
      host: 'server.test',
      lookup: (_: string, __: object, done: (error: Error) => void) => {
        process.nextTick(done, reason);
      },
    });
    const seen: unknown[] = [];
    socket.on('lookup', (...args) => seen.push(args));
    expect(await failed(socket)).toBe(reason);
    expect(seen).toEqual([[reason, undefined, undefined, 'server.test']]);
  });

  const both = (...addresses: string[]) => ({
    host: 'server.test',
    lookup: (_: string, __: object, done: (...args: unknown[]) => void) =>
      process.nextTick(
        done,
        null,
        addresses.map((address) => ({ address, family: 4 }))
      ),
  });

  test('tries the addresses in order', async () => {
    const port = await listening(world, world.server());
    const socket = world.connect({ port, ...both(world.otherAddress, world.address) });
    const seen: unknown[] = [];
    for (const event of ['connectionAttempt', 'connectionAttemptFailed', 'connect']) {
      socket.on(event, (address) => seen.push([event, address]));
    }
    await once(socket, 'connect');
    expect(seen).toEqual([
      ['connectionAttempt', world.otherAddress],
      ['connectionAttemptFailed', world.otherAddress],
      ['connectionAttempt', world.address],
      ['connect', undefined],
    ]);
    expect(socket.autoSelectFamilyAttemptedAddresses).toEqual([
      `${world.otherAddress}:${port}`,
      `${world.address}:${port}`,
    ]);
  });

  test('fails with the errors of all addresses', async () => {
    const port = await deadPort(world);
    const socket = world.connect({ port, ...both(world.otherAddress, world.address) });
    const error = (await failed(socket)) as AggregateError & NodeJS.ErrnoException;
    expect(error).toBeInstanceOf(AggregateError);
    expect(error.code).toBe('ECONNREFUSED');
    expect(error.errors.map((each) => shapeOf(world, each, port).message)).toEqual([
      'connect ECONNREFUSED <other>:<port>',
      'connect ECONNREFUSED <address>:<port>',
    ]);
  });

  test('fails with AbortError when its signal is aborted, before, while and after it connects', async () => {
    const port = await listening(world, world.server());
    const host = world.address;
    const early = world.connect({ port, host, signal: AbortSignal.abort() });
    expect(await failed(early)).toMatchObject({ name: 'AbortError', code: 'ABORT_ERR' });
    const controller = new AbortController();
    const { signal } = controller;
    const connecting = world.connect({ port, host, signal });
    const log = logOf(connecting);
    controller.abort();
    expect(await failed(connecting)).toMatchObject({ name: 'AbortError', code: 'ABORT_ERR' });
    expect(log).toEqual(['error:ABORT_ERR', 'close:true']);
    const later = new AbortController();
    const { client } = await pairIn(world, { client: { signal: later.signal } });
    later.abort(new Error('enough'));
    expect(await failed(client)).toMatchObject({
      name: 'AbortError',
      cause: expect.objectContaining({ message: 'enough' }),
    });
  });

  test('resets once it is connected if that was asked for earlier', async () => {
    const server = world.server();
    const port = await listening(world, server);
    const logs: string[][] = [];
    server.on('connection', (far) => logs.push(logOf(far)));
    const socket = world.connect({ port, host: world.address });
    const log = logOf(socket);
    socket.resetAndDestroy();
    await closed(socket);
    await settled();
    expect(log).toEqual(['connect', 'ready', 'close:false']);
    // Our server is not told of a connection that is reset before it learns of it.
    expect(logs).toEqual(world.isOurs ? [] : [['error:ECONNRESET', 'close:true']]);
  });

  test('takes the local port that it is given', async () => {
    // A port of the host that is free now may be taken by another program in the next moment.
    if (!world.isOurs) return;
    const port = await listening(world, world.server());
    const socket = world.connect({ port, host: world.address, localPort: 1234 });
    await once(socket, 'connect');
    expect(socket.localPort).toBe(1234);
    const second = world.connect({ port, host: world.address, localPort: 1234 });
    expect(await failed(second)).toMatchObject({
      code: 'EADDRINUSE',
      message: `connect EADDRINUSE ${world.address}:${port} - Local (10.1.0.1:1234)`,
    });
  });
});
