/**
 * A stack that its own program closes, while there are sockets and servers of all kinds.
 */
import { getEventListeners, once } from 'node:events';
import { PassThrough } from 'node:stream';
import { beforeEach, describe, expect, test } from 'vitest';
import type { SocketStack } from '../../../src/sockets/stack.ts';
import type { PresenceServer } from '../../../src/sockets/stream/server.ts';
import type { PresenceSocket } from '../../../src/sockets/stream/socket.ts';
import { SITE, StackNetwork } from '../stack-network.ts';
import { catchUncaught } from '../uncaught.ts';
import { settled } from '../worlds.ts';

const uncaught = catchUncaught();
let network: StackNetwork;
let near: SocketStack;
let far: SocketStack;
let server: PresenceServer;
let accepted: PresenceSocket;

beforeEach(() => {
  network = new StackNetwork();
  near = network.stack('10.1.0.1');
  far = network.stack('10.2.0.1');
  server = far.createServer({ allowHalfOpen: true }, (socket) => {
    accepted = socket;
    socket.on('error', () => {});
  });
  server.listen(80);
});

/** Connects, and waits until both ends know. */
async function connected(options: object = {}): Promise<PresenceSocket> {
  const socket = near.connect({ port: 80, host: 'server.test', ...options });
  await Promise.all([
    new Promise<void>((resolve) => socket.once('connect', resolve)),
    new Promise((resolve) => server.once('connection', resolve)),
  ]);
  return socket;
}

/** Resolves with the argument of `close`. No listener for `error` is added. */
const closeOf = (socket: PresenceSocket): Promise<boolean> =>
  new Promise((resolve) => socket.once('close', resolve));

/** Sockets without a listener for `error`, in each state. */
const states: readonly [name: string, open: () => Promise<PresenceSocket>][] = [
  ['reads', async () => (await connected()).resume()],
  ['does nothing', async () => connected()],
  ['is paused', async () => (await connected()).pause()],
  [
    'writes more than there is room for',
    async () => {
      const socket = await connected();
      accepted.pause();
      while (socket.writableLength < 100_000) socket.write(Buffer.alloc(1_000_000));
      return socket;
    },
  ],
  [
    'has ended its direction',
    async () => {
      const socket = (await connected()).resume();
      socket.end();
      await once(accepted.resume(), 'end');
      return socket;
    },
  ],
  [
    'has seen the end, and may write',
    async () => {
      const socket = (await connected({ allowHalfOpen: true })).resume();
      accepted.end();
      await new Promise((resolve) => socket.once('end', resolve));
      return socket;
    },
  ],
  ['is piped into itself', async () => connected().then((socket) => socket.pipe(socket))],
  [
    'is piped into by two streams, and no longer by a third',
    async () => {
      const socket = await connected();
      const third = new PassThrough();
      for (const source of [new PassThrough(), third, new PassThrough()]) source.pipe(socket);
      third.unpipe(socket);
      return socket.resume();
    },
  ],
  [
    'waits for an answer to its SYN',
    async () => {
      network.silent.add('10.2.0.1');
      const socket = near.connect(80, 'server.test');
      await settled();
      return socket;
    },
  ],
  ['has just been told to connect', async () => near.connect(80, 'server.test')],
  [
    'is about to look its name up',
    async () => {
      const socket = near.connect(80, 'server.test');
      for (let i = 0; i < 3; i++) await undefined;
      return socket;
    },
  ],
  [
    'waits for the lookup of the program',
    async () => {
      const socket = near.connect({ port: 80, host: 'server.test', lookup: () => {} });
      await settled();
      return socket;
    },
  ],
  [
    'waits for the tunnel',
    async () => {
      near.linkChanged(false);
      const socket = near.connect(80, 'server.test');
      socket.write('early');
      await settled();
      return socket;
    },
  ],
];

describe.each(states)('a socket that %s', (_, open) => {
  test('emits close alone if nobody listens for error', async () => {
    const socket = await open();
    const closed = closeOf(socket);
    await near.close();
    expect(await closed).toBe(true);
    expect(socket.errored).toMatchObject({ cause: near.closedBy });
    expect(uncaught).toEqual([]);
  });

  test('emits error first if somebody listens', async () => {
    const socket = await open();
    const log: unknown[] = [];
    socket
      .on('error', (error) => log.push(error))
      .on('close', (hadError: boolean) => log.push(hadError));
    await near.close();
    await settled();
    const code = expect.stringMatching(/ECONNRESET|ENETDOWN/);
    expect(log).toEqual([expect.objectContaining({ code, cause: near.closedBy }), true]);
  });
});

describe('a stack that is closed', () => {
  test('fails what begins later, which ends the process if nobody listens', async () => {
    await near.close();
    const socket = near.connect(80, 'server.test');
    expect(await closeOf(socket)).toBe(true);
    expect(uncaught.splice(0)).toMatchObject([{ code: 'ENETDOWN', cause: near.closedBy }]);
  });

  test('fails the writes that are under way', async () => {
    const socket = await connected();
    accepted.pause();
    const errors: unknown[] = [];
    for (let i = 0; i < 8; i++) {
      socket.write(Buffer.alloc(1_000_000), (error) => error && errors.push(error));
    }
    const closed = closeOf(socket);
    await near.close();
    await closed;
    expect(errors[0]).toMatchObject({ code: 'ECONNRESET', cause: near.closedBy });
    expect(near.tcp.memory.used).toBe(0);
  });

  test('leaves what has arrived to be read, and then fails', async () => {
    const socket = (await connected()).pause();
    accepted.write(Buffer.alloc(200_000));
    while (socket.readableLength === 0 || near.tcp.memory.used === 0) await settled();
    await near.close();
    await settled();
    let length = 0;
    const reading = (async () => {
      for await (const chunk of socket) length += chunk.length;
    })();
    await expect(reading).rejects.toMatchObject({ code: 'ECONNRESET', cause: near.closedBy });
    expect(length).toBeGreaterThan(16_384);
  });

  test.each(['lookup', 'connectionAttempt'])(
    'ends all sockets that connect, also when it is closed in a listener of %s',
    async (event) => {
      const log: unknown[] = [];
      const sockets = Array.from({ length: 5 }, () => near.connect(80, 'server.test'));
      for (const socket of sockets) socket.on('close', () => log.push('close'));
      sockets[2]!.once(event, () => void near.close());
      await once(sockets[2]!, event);
      await settled();
      expect(log).toEqual(Array(5).fill('close'));
      expect(near.tcp.sizes.connections).toBe(0);
    }
  );

  test('ends a socket whose name is found too late', async () => {
    let answer: (...args: unknown[]) => void = () => {};
    const lookup = (_: string, __: object, done: (...args: unknown[]) => void): void => {
      answer = done;
    };
    const socket = near.connect({ port: 80, host: 'server.test', lookup: lookup as never });
    const log: unknown[] = [];
    socket.on('error', ({ code, cause }: NodeJS.ErrnoException) => log.push(code, cause));
    socket.on('lookup', () => log.push('lookup')).on('close', () => log.push('close'));
    await settled();
    await near.close();
    answer(null, [{ address: '10.2.0.1', family: 4 }]);
    await settled();
    expect(log).toEqual(['ENETDOWN', near.closedBy, 'close']);
    expect(near.tcp.sizes.connections).toBe(0);
  });

  test.each([0, 1, 2, 3])('fails a ping of %i microtasks ago', async (microtasks) => {
    near.setSite({ ...SITE, hosts: [{ ...SITE.hosts[0]!, ports: ['icmp'] }] });
    network.silent.add('10.2.0.1');
    const error = near.ping('10.2.0.1', { timeout: 1e9 }).catch((reason: unknown) => reason);
    for (let i = 0; i < microtasks; i++) await undefined;
    await near.close();
    expect(await error).toMatchObject({ code: 'ENETDOWN', cause: near.closedBy });
  });

  test('closes a datagram socket that is not bound, with an error only if somebody listens', async () => {
    const log: unknown[] = [];
    const [silent, listens, isClosed] = [1, 2, 3].map(() => near.datagram('udp4'));
    silent!.on('close', () => log.push('close'));
    listens!.on('close', () => log.push('close'));
    listens!.on('error', ({ code, cause }: NodeJS.ErrnoException) => log.push(code, cause));
    isClosed!.close();
    expect(near.servers.size).toBe(2);
    await near.close();
    await settled();
    expect(log).toEqual(['ENETDOWN', near.closedBy, 'close', 'close']);
    expect(near.servers.size).toBe(0);
    expect(() => silent!.send('x', 7, '10.2.0.1')).toThrow('Not running');
  });

  test('closes its servers, when their last connection is gone', async () => {
    await connected().then((socket) => socket.on('error', () => {}));
    const idle = far.createServer().listen(81);
    const log: string[] = [];
    accepted.on('close', () => log.push('socket'));
    server.on('close', () => log.push('server'));
    const closed = [once(server, 'close'), once(idle, 'close'), closeOf(accepted)];
    const closing = far.close();
    expect([server.listening, server.address(), idle.listening]).toEqual([false, null, false]);
    await Promise.all([closing, ...closed]);
    expect(log).toEqual(['server', 'socket']);
    expect(far.servers.size).toBe(0);
    await server[Symbol.asyncDispose]();
  });

  test('takes no connection while it finishes, and tells it to the other ends', async () => {
    const socket = await connected();
    const failed = once(socket, 'error');
    await far.finish(new Error('the gateway is closed'));
    expect([(await failed)[0].code, server.listening]).toEqual(['ECONNRESET', false]);
    const [error] = await once(near.connect(80, 'server.test'), 'error');
    expect(error.code).toBe('ECONNREFUSED');
    const again = far.createServer().listen(80);
    expect(await once(again, 'error')).toMatchObject([{ code: 'ENETDOWN', cause: far.closedBy }]);
  });
});

test('a signal holds for each connection of a socket that connects again', async () => {
  const controller = new AbortController();
  const { signal } = controller;
  const socket = await connected({ signal });
  const log: unknown[] = [];
  socket.on('connect', () => log.push('connect')).on('close', () => log.push('close'));
  socket.on('error', (error: NodeJS.ErrnoException) => log.push(error.code));
  socket.destroy();
  await settled();
  socket.connect({ port: 80, host: 'server.test', signal });
  await settled();
  controller.abort();
  await settled();
  expect(log).toEqual(['close', 'connect', 'ABORT_ERR', 'close']);
  expect(getEventListeners(signal, 'abort')).toEqual([]);
});

describe('what others do to a connection', () => {
  test('ends one that is not there yet, at once if the site is rejected', async () => {
    near.setSite({ ...SITE, hosts: [{ ...SITE.hosts[0]!, ports: ['tcp/80', 'icmp'] }] });
    network.silent.add('10.2.0.1');
    const unanswered = once(near.connect(80, 'server.test'), 'error');
    const waiting = once(near.connect({ port: 80, host: 'x', lookup: () => {} }), 'error');
    const ping = near.ping('10.2.0.1', { timeout: 1e9 }).catch((reason: unknown) => [reason]);
    await settled();
    const cause = new Error('the site is rejected');
    near.setFailure(cause, true);
    for (const error of [unanswered, waiting, ping]) {
      expect(await error).toMatchObject([{ code: 'ENETDOWN', cause }]);
    }
    expect([near.tcp.sizes.connections, near.icmp.waiting]).toEqual([0, 0]);
  });

  test('ends the process if nobody listens for error: a withdrawal, a revocation', async () => {
    for (const end of [
      () => near.setSite({ ...SITE, pools: [] }),
      () => near.interrupt(new Error('the site is revoked')),
    ]) {
      near.setSite(SITE);
      const socket = (await connected()).resume();
      const closed = closeOf(socket);
      end();
      expect(await closed).toBe(true);
      expect(uncaught.splice(0)).toMatchObject([{ code: 'ECONNRESET' }]);
    }
  });
});
