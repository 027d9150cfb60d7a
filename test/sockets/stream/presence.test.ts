/**
 * What `node:net` cannot have: names and ports of presences, the wait for the tunnel, withdrawals, and the time limits
 * of connections. Time passes only when a test says so.
 */
import { once } from 'node:events';
import { beforeEach, describe, expect, test } from 'vitest';
import type { SocketStack } from '../../../src/sockets/stack.ts';
import type { PresenceConnectOptions } from '../../../src/sockets/stream/arguments.ts';
import { createServer } from '../../../src/sockets/stream/server.ts';
import { connect, PresenceSocket } from '../../../src/sockets/stream/socket.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { SITE, StackNetwork } from '../stack-network.ts';
import { settled } from '../worlds.ts';

let clock: FakeClock;
let network: StackNetwork;
let stack: SocketStack;
let far: SocketStack;

beforeEach(() => {
  clock = new FakeClock();
  network = new StackNetwork(clock);
  stack = network.stack('10.1.0.1', '2001:db8:1::1');
  far = network.stack('10.2.0.1', '2001:db8:2::1');
});

/** Lets time pass in steps, so that timers that set others are called at their times. */
async function pass(ms: number, stepMs: number = ms / 10): Promise<void> {
  for (let passed = 0; passed < ms; passed += stepMs) {
    clock.advance(stepMs);
    await settled();
  }
}

const failed = async (socket: PresenceSocket): Promise<NodeJS.ErrnoException> => {
  const closed = new Promise((resolve) => socket.on('close', resolve));
  const [error] = await once(socket, 'error');
  expect(await closed).toBe(true);
  return error as NodeJS.ErrnoException;
};

const fieldsOf = (error: Error): Record<string, unknown> => ({
  ...error,
  message: error.message,
});

const errorOf = async (
  options: PresenceConnectOptions,
  from: SocketStack = stack
): Promise<NodeJS.ErrnoException> => failed(connect(from, options));

async function pair(
  options: object = {}
): Promise<{ client: PresenceSocket; accepted: PresenceSocket; port: number }> {
  const server = createServer(far).listen(0);
  const { port } = server.address()!;
  const client = connect(stack, { port, host: 'server.test', ...options });
  const [[accepted]] = await Promise.all([once(server, 'connection'), once(client, 'connect')]);
  // The far end is reset in tests that say nothing of it.
  accepted.on('error', () => {});
  return { client, accepted, port };
}

describe('a presence', () => {
  test('is connected by its name, whole or within the zone, in any case', async () => {
    createServer(far).listen(80);
    for (const host of ['server.test', 'server', 'SERVER.TEST', 'server.test.']) {
      const socket = connect(stack, { port: 80, host });
      const looked = once(socket, 'lookup');
      await once(socket, 'connect');
      expect(await looked).toEqual([null, '10.2.0.1', 4, host]);
      expect(socket.remoteAddress).toBe('10.2.0.1');
    }
  });

  test('has a name of the zone, else ENOTFOUND', async () => {
    const socket = connect(stack, { port: 80, host: 'nova.test' });
    const looked = once(socket, 'lookup');
    const error = await failed(socket);
    expect(fieldsOf(error)).toEqual({
      message: 'getaddrinfo ENOTFOUND nova.test',
      code: 'ENOTFOUND',
      errno: -3008,
      syscall: 'getaddrinfo',
      hostname: 'nova.test',
    });
    expect(await looked).toEqual([error, undefined, undefined, 'nova.test']);
    expect((await errorOf({ port: 80 })).message).toBe('getaddrinfo ENOTFOUND localhost');
    expect((await errorOf({ port: 80, host: 'server.test', family: 6 })).code).toBe('ENOTFOUND');
  });

  test('refuses ports that it does not have, without a packet', async () => {
    expect(fieldsOf(await errorOf({ port: 81, host: '10.2.0.3' }))).toEqual({
      message: 'connect ECONNREFUSED 10.2.0.3:81',
      code: 'ECONNREFUSED',
      errno: -111,
      syscall: 'connect',
      address: '10.2.0.3',
      port: 81,
    });
    expect((await errorOf({ port: 81, host: 'web.test' })).code).toBe('ECONNREFUSED');
    expect((await errorOf({ port: 0, host: 'web.test' })).code).toBe('ECONNREFUSED');
    expect(network.packets).toBe(0);
  });

  test('is in a pool, else ENETUNREACH, without a packet', async () => {
    const error = await errorOf({ port: 80, host: '192.0.2.1' });
    expect(error.message).toBe('connect ENETUNREACH 192.0.2.1:80');
    expect((await errorOf({ port: 80, host: '127.0.0.1' })).code).toBe('ENETUNREACH');
    expect((await errorOf({ port: 80, host: '::1' })).code).toBe('ENETUNREACH');
    expect(network.packets).toBe(0);
  });

  test('is not reached from an address that the stack does not have', async () => {
    const error = await errorOf({ port: 80, host: '10.2.0.1', localAddress: '10.1.0.9' });
    expect(fieldsOf(error)).toMatchObject({
      message: 'bind EADDRNOTAVAIL 10.1.0.9',
      code: 'EADDRNOTAVAIL',
      syscall: 'bind',
    });
    createServer(far).listen(80);
    const socket = connect(stack, { port: 80, host: 'both.test', localAddress: '10.1.0.1' });
    await once(socket, 'connect');
    expect([socket.localAddress, socket.remoteAddress]).toEqual(['10.1.0.1', '10.2.0.1']);
  });

  test('is reached by IPv6', async () => {
    const server = createServer(far, (socket) => socket.end()).listen(80);
    const socket = connect(stack, { port: 80, host: 'both.test', family: 6 });
    const [accepted] = await once(server, 'connection');
    expect([accepted.localAddress, accepted.remoteAddress, accepted.remoteFamily]).toEqual([
      '2001:db8:2::1',
      '2001:db8:1::1',
      'IPv6',
    ]);
    expect(socket.address()).toMatchObject({ address: '2001:db8:1::1', family: 'IPv6' });
  });

  test('that is withdrawn resets its connections, with the cause', async () => {
    const { client } = await pair();
    const over = failed(client);
    stack.setSite({ ...SITE, hosts: [], pools: [] });
    const error = await over;
    expect(fieldsOf(error)).toMatchObject({ message: 'read ECONNRESET', code: 'ECONNRESET' });
    expect((error.cause as Error).message).toMatch(/^10\.2\.0\.1 is not in the pools/);
    expect((await errorOf({ port: 80, host: 'server.test' })).code).toBe('ENOTFOUND');
  });
});

describe('several addresses', () => {
  test('are tried in order, each for 2 s', async () => {
    createServer(far).listen(80);
    network.silent.add('2001:db8:2::1');
    const socket = connect(stack, { port: 80, host: 'both.test' });
    const log: unknown[] = [];
    for (const event of ['connectionAttempt', 'connectionAttemptTimeout', 'connect']) {
      socket.on(event, (...args) => log.push([event, ...args]));
    }
    await settled();
    await pass(1990);
    expect(log).toEqual([['connectionAttempt', '2001:db8:2::1', 80, 6]]);
    await pass(10);
    expect(log.slice(1)).toEqual([
      ['connectionAttemptTimeout', '2001:db8:2::1', 80, 6],
      ['connectionAttempt', '10.2.0.1', 80, 4],
      ['connect'],
    ]);
    expect(socket.remoteAddress).toBe('10.2.0.1');
    // The attempt that was given up leaves nothing.
    expect(stack.tcp.sizes.connections).toBe(1);
  });

  test('fail with the errors of all', async () => {
    network.silent.add('2001:db8:2::1');
    const socket = connect(stack, {
      port: 80,
      host: 'both.test',
      autoSelectFamilyAttemptTimeout: 100,
    });
    const over = failed(socket);
    await settled();
    await pass(100);
    const error = (await over) as AggregateError & NodeJS.ErrnoException;
    expect(error.code).toBe('ETIMEDOUT');
    expect(error.errors.map(({ message }) => message)).toEqual([
      'connect ETIMEDOUT 2001:db8:2::1:80',
      'connect ECONNREFUSED 10.2.0.1:80',
    ]);
  });

  test('are not tried without autoSelectFamily', async () => {
    createServer(far).listen(80);
    network.silent.add('2001:db8:2::1');
    const socket = connect(stack, {
      port: 80,
      host: 'both.test',
      autoSelectFamily: false,
      connectTimeout: 5000,
    });
    const over = failed(socket);
    await settled();
    await pass(5000);
    expect((await over).message).toBe('connect ETIMEDOUT 2001:db8:2::1:80');
  });
});

describe('the tunnel', () => {
  test('is waited for', async () => {
    createServer(far).listen(80);
    stack.linkChanged(false);
    const socket = connect(stack, { port: 80, host: 'server.test' });
    await settled();
    await pass(4000);
    expect(socket.connecting).toBe(true);
    stack.linkChanged(true);
    await once(socket, 'connect');
  });

  test('that does not come up is ENETDOWN after 5 s, with the cause', async () => {
    stack.linkChanged(false);
    const cause = new Error('no route to the cloud');
    stack.setFailure(cause, false);
    const over = errorOf({ port: 80, host: 'server.test' });
    await settled();
    await pass(5000);
    const error = await over;
    expect(fieldsOf(error)).toEqual({
      message: 'connect ENETDOWN server.test:80',
      code: 'ENETDOWN',
      errno: -100,
      syscall: 'connect',
      address: 'server.test',
      port: 80,
    });
    expect(error.cause).toBe(cause);
  });

  test('of a site that is rejected is ENETDOWN at once', async () => {
    const cause = new Error('the site was revoked');
    stack.setFailure(cause, true);
    const error = await errorOf({ port: 80, host: 'server.test' });
    expect([error.code, error.cause]).toEqual(['ENETDOWN', cause]);
  });

  test('of a stack that is closed resets connections, and is ENETDOWN for new ones', async () => {
    const { client } = await pair();
    const over = failed(client);
    await stack.close();
    const error = await over;
    expect([error.code, (error.cause as Error).message]).toEqual([
      'ECONNRESET',
      'the stack sockets0 is closed',
    ]);
    const late = await errorOf({ port: 80, host: 'server.test' });
    expect([late.code, (late.cause as Error).message]).toEqual([
      'ENETDOWN',
      'the stack sockets0 is closed',
    ]);
  });

  test('aborts the wait for it by a signal', async () => {
    stack.linkChanged(false);
    const controller = new AbortController();
    const socket = connect(stack, { port: 80, host: 'server.test', signal: controller.signal });
    await settled();
    controller.abort();
    expect(await failed(socket)).toMatchObject({ name: 'AbortError' });
    await settled();
    expect(clock.delays).toEqual([]);
  });

  test('leaves nothing of sockets that were destroyed while they waited', async () => {
    stack.linkChanged(false);
    const socket = connect(stack, { port: 80, host: 'server.test', connectTimeout: 1000 });
    socket.destroy();
    await once(socket, 'close');
    stack.linkChanged(true);
    await settled();
    expect([network.packets, stack.tcp.sizes.connections]).toEqual([0, 0]);
    expect(clock.delays).toEqual([]);
  });
});

describe('time limits', () => {
  test('no answer is ETIMEDOUT after 127 s', async () => {
    network.silent.add('10.2.0.1');
    const socket = connect(stack, { port: 80, host: 'server.test' });
    const over = failed(socket);
    await settled();
    await pass(126_000, 500);
    expect(socket.connecting).toBe(true);
    await pass(2000, 500);
    expect(fieldsOf(await over)).toMatchObject({
      message: 'connect ETIMEDOUT 10.2.0.1:80',
      code: 'ETIMEDOUT',
      syscall: 'connect',
    });
  });

  test('connectTimeout holds for all of connecting', async () => {
    stack.linkChanged(false);
    network.silent.add('10.2.0.1');
    const socket = connect(stack, { port: 80, host: 'server.test', connectTimeout: 3000 });
    const over = failed(socket);
    await settled();
    await pass(2000);
    stack.linkChanged(true);
    await settled();
    await pass(990);
    expect(socket.connecting).toBe(true);
    await pass(10);
    expect((await over).message).toBe('connect ETIMEDOUT 10.2.0.1:80');
    expect(stack.tcp.sizes.connections).toBe(0);
  });

  test('connectTimeout ends when it is connected', async () => {
    const { client } = await pair({ connectTimeout: 3000, userTimeout: 10_000 });
    await pass(10_000);
    expect(client.destroyed).toBe(false);
  });

  test('userTimeout ends a connection whose data is not acknowledged', async () => {
    const { client } = await pair({ userTimeout: 10_000 });
    const over = failed(client);
    network.silent.add('10.2.0.1');
    client.write('x');
    await settled();
    await pass(12_000, 100);
    expect(fieldsOf(await over)).toMatchObject({ message: 'read ETIMEDOUT', code: 'ETIMEDOUT' });
  });

  test('keepalive ends a connection whose peer is silent, after the delay and 10 probes', async () => {
    const { client } = await pair({ keepAlive: true, keepAliveInitialDelay: 5999 });
    const over = failed(client);
    await settled();
    network.silent.add('10.2.0.1');
    const before = network.packets;
    await pass(4000, 100);
    expect(network.packets).toBe(before);
    await pass(13_000, 100);
    expect((await over).code).toBe('ETIMEDOUT');
    expect(network.packets - before).toBeGreaterThanOrEqual(10);
  });

  test('timeout is emitted once for each idle time', async () => {
    const { client, accepted } = await pair({ timeout: 1000 });
    let count = 0;
    client.on('timeout', () => count++);
    client.resume();
    await pass(990);
    accepted.write('x');
    await settled();
    await pass(990);
    expect(count).toBe(0);
    await pass(3000, 10);
    expect(count).toBe(1);
    client.write('x');
    await pass(1000, 10);
    expect(count).toBe(2);
    expect(client.destroyed).toBe(false);
  });

  test('timeout is emitted while it connects too', async () => {
    network.silent.add('10.2.0.1');
    const socket = connect(stack, { port: 80, host: 'server.test', timeout: 1000 });
    const timedOut = once(socket, 'timeout');
    await settled();
    await pass(1000);
    await timedOut;
    expect(socket.connecting).toBe(true);
  });
});

describe('many sockets', () => {
  test('end with ENOBUFS at the bound of connections', async () => {
    const small = network.stackWith({ address: ['10.1.0.2'], limits: { connections: 1 } });
    createServer(far).listen(80);
    await once(connect(small, { port: 80, host: 'server.test' }), 'connect');
    const error = await errorOf({ port: 80, host: 'server.test' }, small);
    expect(fieldsOf(error)).toMatchObject({
      message: 'connect ENOBUFS 10.2.0.1:80 - Local (10.1.0.2:0)',
      code: 'ENOBUFS',
    });
  });

  test('that close at the same time send no packet to each other afterwards', async () => {
    const { client, accepted } = await pair();
    const over = [client, accepted].map((socket) => once(socket.resume(), 'close'));
    client.write('x');
    client.end();
    accepted.end('y');
    await Promise.all(over);
    await pass(1000);
    expect([stack.tcp.sizes.timeWait, far.tcp.sizes.timeWait]).toEqual([1, 1]);
    const { packets } = network;
    await settled();
    await pass(1000);
    expect(network.packets).toBe(packets);
  });

  test('leave nothing behind', async () => {
    const server = createServer(far, (socket) => socket.end('bye').resume()).listen(80);
    const sockets = Array.from({ length: 200 }, () => connect(stack, { port: 80, host: 'server' }));
    const over = Promise.all(sockets.map((socket) => once(socket.resume(), 'close')));
    // One client may open 128 at once; the SYNs of the others are sent again.
    await settled();
    await pass(4000, 500);
    await over;
    const closed = once(server, 'close');
    server.close();
    await closed;
    await pass(61_000, 1000);
    for (const { tcp } of [stack, far]) {
      expect(tcp.sizes).toEqual({ connections: 0, halfOpen: 0, timeWait: 0, timers: 0 });
      expect(tcp.memory.used).toBe(0);
    }
    expect(clock.delays).toEqual([]);
  });
});

test('a socket is made by hand for programs that call connect themselves, such as pg', async () => {
  createServer(far, (socket) => socket.pipe(socket)).listen(5432);
  const socket = new PresenceSocket(stack);
  socket.connect(5432, 'server.test');
  socket.setNoDelay(true);
  await once(socket, 'connect');
  socket.write('x');
  expect(String((await once(socket, 'data'))[0])).toBe('x');
});
