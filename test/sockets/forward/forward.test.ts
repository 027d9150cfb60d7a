/**
 * Forwards between real clients and servers: `node:net` and curl on loopback, an HTTP server at the other stack.
 */
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import { promisify } from 'node:util';
import { afterEach, expect, test } from 'vitest';
import type { Forward } from '../../../src/sockets/forward/forward.ts';
import { SocketStack } from '../../../src/sockets/stack.ts';
import { connect } from '../../../src/sockets/stream/socket.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { SITE, StackNetwork } from '../stack-network.ts';
import { catchUncaught } from '../uncaught.ts';
import { settled, until } from '../worlds.ts';

catchUncaught();
const run = promisify(execFile);
const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

const TARGET = { host: 'server.test', port: 80 };

/** Two stacks, the far one with a server. */
async function scene(listener: (socket: net.Socket) => void, clock?: FakeClock) {
  const network = new StackNetwork(clock);
  const near = network.stack('10.1.0.1', '2001:db8:1::1');
  const far = network.stack('10.2.0.1', '2001:db8:2::1');
  closers.push(() => near.close());
  closers.push(() => far.close());
  const server = far.createServer({ allowHalfOpen: true }, (socket) => {
    // What is open at the end of a test is reset.
    socket.on('error', () => {});
    listener(socket as never);
  });
  server.listen(80);
  await once(server, 'listening');
  return { network, near, far, server };
}

const portOf = (made: Forward): number => (made.address as net.AddressInfo).port;

function client(made: Forward, options: object = {}): net.Socket {
  const socket = net.connect({ port: portOf(made), host: '127.0.0.1', ...options });
  // A forward that is closed resets it.
  socket.on('error', () => {});
  closers.push(() => socket.destroy());
  return socket;
}

async function text(socket: net.Socket): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}

const codeOf = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => undefined,
    (error: NodeJS.ErrnoException) => error.code
  );

test('a client of loopback talks to a server at a presence', async () => {
  const { near } = await scene((socket) => socket.pipe(socket));
  await using made = await near.forward(0, TARGET);
  expect(made.address).toMatchObject({ address: '127.0.0.1', family: 'IPv4' });
  const socket = client(made, { allowHalfOpen: true });
  socket.end('question');
  expect(await text(socket)).toBe('question');
  await until(() => made.counters.open === 0);
  expect(made.counters).toEqual({ open: 0, accepted: 1, refused: 0, broken: 0, failed: {} });
});

test('curl fetches over a forward, also to an IPv6 presence', async (context) => {
  const available = await codeOf(run('curl', ['--version']));
  context.skip(available !== undefined, 'needs curl');
  const handler = http.createServer((request, response) => {
    request.pipe(response);
  });
  const { near } = await scene((socket) => handler.emit('connection', socket));
  const body = 'x'.repeat(300_000);
  for (const host of ['server.test', '2001:db8:2::1']) {
    await using made = await near.forward({ host: '127.0.0.1', port: 0 }, { host, port: 80 });
    const url = `http://127.0.0.1:${portOf(made)}/`;
    const curl = run('curl', ['-sS', '--noproxy', '*', '--data-binary', '@-', url]);
    curl.child.stdin!.end(body);
    expect((await curl).stdout).toBe(body);
  }
});

test('1,000 connections at once, each with its own bytes; none is left afterwards', async () => {
  const { near, far } = await scene((socket) => socket.pipe(socket));
  await using made = await near.forward(0, TARGET);
  const sockets = Array.from({ length: 1000 }, () => client(made, { allowHalfOpen: true }));
  await until(() => made.counters.open === 1000);
  const answers = sockets.map((socket, i) => {
    socket.end(`question ${i}`);
    return text(socket);
  });
  expect(await Promise.all(answers)).toEqual(sockets.map((_, i) => `question ${i}`));
  await until(() => made.counters.open === 0);
  expect(made.counters.accepted).toBe(1000);
  // The far end hears a moment later of the end of the last one.
  await until(() => [...far.tcp.connections()].length === 0);
});

test('a reset passes both ways, and is counted', async () => {
  const accepted: net.Socket[] = [];
  const { near } = await scene((socket) => accepted.push(socket.on('error', () => {}).resume()));
  await using made = await near.forward(0, TARGET);
  const one = client(made);
  await until(() => accepted.length === 1);
  const error = once(one.resume(), 'error');
  accepted[0]!.resetAndDestroy();
  expect(await error).toMatchObject([{ code: 'ECONNRESET' }]);
  const other = client(made);
  await until(() => accepted.length === 2);
  const farError = once(accepted[1]!, 'error');
  other.resetAndDestroy();
  expect(await farError).toMatchObject([{ code: 'ECONNRESET' }]);
  await until(() => made.counters.open === 0);
  expect(made.counters).toMatchObject({ broken: 2, failed: {} });
});

test('a service that refuses gives its client a reset, and is counted', async () => {
  const { near } = await scene(() => {});
  await using made = await near.forward(0, { host: 'server.test', port: 81 });
  const error = once(client(made).resume(), 'error');
  expect(await error).toMatchObject([{ code: 'ECONNRESET' }]);
  await until(() => made.counters.open === 0);
  expect(made.counters.failed).toEqual({ ECONNREFUSED: 1 });
});

test('a client waits for the tunnel, and gets a reset when that takes too long', async () => {
  const clock = new FakeClock();
  const { near } = await scene((socket) => socket.end('hello'), clock);
  near.linkChanged(false);
  await using made = await near.forward(0, TARGET);
  const late = once(client(made).resume(), 'error');
  await until(() => made.counters.open === 1);
  await settled();
  clock.advance(5000);
  expect(await late).toMatchObject([{ code: 'ECONNRESET' }]);
  await until(() => made.counters.open === 0);
  expect(made.counters.failed).toEqual({ ENETDOWN: 1 });
  const patient = client(made);
  await until(() => made.counters.open === 1);
  near.linkChanged(true);
  expect(await text(patient)).toBe('hello');
});

test('a client that gives up ends the attempt to connect', async () => {
  const { near, network } = await scene(() => {});
  network.silent.add('10.2.0.2');
  await using made = await near.forward(0, { host: 'other.test', port: 80 });
  const socket = client(made);
  await until(() => [...near.tcp.connections()].length === 1);
  socket.resetAndDestroy();
  await until(() => made.counters.open === 0);
  expect([...near.tcp.connections()]).toEqual([]);
});

test('a presence that is withdrawn ends its connections', async () => {
  const { near } = await scene((socket) => socket.on('error', () => {}).write('hello'));
  await using made = await near.forward(0, TARGET);
  const socket = client(made);
  await once(socket, 'data');
  const error = once(socket, 'error');
  near.setSite({ ...SITE, hosts: [] });
  expect(await error).toMatchObject([{ code: 'ECONNRESET' }]);
  await until(() => made.counters.open === 0);
  const next = once(client(made).resume(), 'error');
  expect(await next).toMatchObject([{ code: 'ECONNRESET' }]);
  await until(() => made.counters.open === 0);
  expect(made.counters.failed).toEqual({ ENOTFOUND: 1 });
});

test('connections beyond the bound are reset at once, and counted', async () => {
  const { near } = await scene((socket) => socket.on('error', () => {}).write('hello'));
  await using made = await near.forward(0, TARGET, { maxConnections: 1 });
  const first = client(made);
  await once(first, 'data');
  const error = once(client(made).resume(), 'error');
  expect(await error).toMatchObject([{ code: 'ECONNRESET' }]);
  expect(made.counters).toMatchObject({ open: 1, accepted: 1, refused: 1 });
  first.resetAndDestroy();
  await until(() => made.counters.open === 0);
  await once(client(made), 'data');
});

test('close resets all connections and frees the port', async () => {
  const { near } = await scene((socket) => socket.on('error', () => {}).write('hello'));
  const made = await near.forward(0, TARGET);
  const socket = client(made);
  await once(socket, 'data');
  const error = once(socket, 'error');
  await Promise.all([made.close(), made.close()]);
  expect(await error).toMatchObject([{ code: 'ECONNRESET' }]);
  await using again = await near.forward(portOf(made), TARGET);
  expect(portOf(again)).toBe(portOf(made));
});

test('closing the stack closes its forwards', async () => {
  const { near } = await scene((socket) => socket.on('error', () => {}).write('hello'));
  const made = await near.forward(0, TARGET);
  const socket = client(made);
  await once(socket, 'data');
  const error = once(socket, 'error');
  await near.close();
  expect(await error).toMatchObject([{ code: 'ECONNRESET' }]);
  expect(await codeOf(once(client(made), 'connect'))).toBe('ECONNREFUSED');
  await made.close();
  expect(await codeOf(near.forward(0, TARGET))).toBe('ENETDOWN');
});

test('the counters of all forwards are added up at the stack, also of closed ones', async () => {
  const { near } = await scene((socket) => socket.pipe(socket));
  const one = await near.forward(0, TARGET);
  const other = await near.forward(0, { host: 'server.test', port: 81 });
  await once(client(one), 'connect');
  await once(client(other).resume(), 'error');
  await until(() => one.counters.open === 1 && other.counters.open === 0);
  const sums = { 'forward.accepted': 2, 'forward.failed.ECONNREFUSED': 1, 'forward.broken': 0 };
  expect(near.allCounters).toMatchObject({ ...sums, 'forward.open': 1 });
  closers.push(() => one.close());
  const made = await near.forward(0, TARGET);
  await Promise.all([other.close(), made.close()]);
  expect(near.allCounters).toMatchObject({ ...sums, 'forward.open': 1 });
  await one.close();
  expect(near.allCounters).toMatchObject({ ...sums, 'forward.open': 0 });
});

test.each([
  ['a name that is not in the zone', { host: 'nova.test', port: 80 }, 'ENOTFOUND'],
  ['the own address', { host: '10.1.0.1', port: 80 }, 'ENETUNREACH'],
  ['an address outside the pools', { host: '192.0.2.1', port: 80 }, 'ENETUNREACH'],
  ['a port that the presence does not have', { host: 'web.test', port: 81 }, 'ECONNREFUSED'],
])('refuses %s at once', async (_, target, code) => {
  const { near } = await scene(() => {});
  expect(await codeOf(near.forward(0, target))).toBe(code);
});

test('without a snapshot nothing is known of a target, and its connections fail', async () => {
  await using stack = new SocketStack();
  await using made = await stack.forward(0, { host: '10.0.0.1', port: 80 });
  const socket = client(made);
  await until(() => made.counters.open === 1);
  const error = once(socket.resume(), 'error');
  stack.setFailure(new Error('revoked'), true);
  expect(await error).toMatchObject([{ code: 'ECONNRESET' }]);
  await until(() => made.counters.open === 0);
  expect(made.counters.failed).toEqual({ ENETDOWN: 1 });
});

test.each([
  ['listen', [-1, TARGET], 'listen: expected a whole number from 0 to 65535, got -1'],
  ['listen', ['80', TARGET], 'listen: expected a number, got "80"'],
  ['listen', [{ port: 65_536 }, TARGET], 'listen.port: '],
  ['listen', [{ path: '' }, TARGET], 'listen.path: expected a path without null bytes, got ""'],
  ['listen', [{ path: '\0abstract' }, TARGET], 'listen.path: '],
  ['listen', [{ path: 'x', mode: 0o1777 }, TARGET], 'listen.mode: '],
  ['listen', [{ path: 'x', port: 1 }, TARGET], 'listen.port: is not a known key'],
  ['target', [0, { host: '', port: 80 }], 'target.host: expected a name of the zone'],
  ['target', [0, { host: 'server.test', port: 0 }], 'target.port: '],
  ['target', [0, 'server.test:80'], 'target: '],
  ['options', [0, TARGET, { maxConnections: 0 }], 'maxConnections: '],
  ['options', [0, TARGET, { keepAliveMs: -1 }], 'keepAliveMs: '],
])('a wrong %s is refused: %j', async (_, args, message) => {
  const { near } = await scene(() => {});
  const made = near.forward(...(args as [never, never]));
  await expect(made).rejects.toMatchObject({ code: 'ERR_PRESENCE_CONFIG' });
  await expect(made).rejects.toThrow(message);
});

test('a port that is taken gives EADDRINUSE', async () => {
  const { near } = await scene(() => {});
  await using made = await near.forward(0, TARGET);
  await expect(near.forward(portOf(made), TARGET)).rejects.toMatchObject({
    code: 'EADDRINUSE',
    syscall: 'listen',
    port: portOf(made),
  });
});

test('a program may use a forward and the sockets of the stack side by side', async () => {
  const { near } = await scene((socket) => socket.end(`hello ${socket.remoteAddress}`));
  await using made = await near.forward(0, TARGET);
  const direct = connect(near, { ...TARGET }) as unknown as net.Socket;
  expect(await Promise.all([text(direct), text(client(made))])).toEqual([
    'hello 10.1.0.1',
    'hello 10.1.0.1',
  ]);
});
