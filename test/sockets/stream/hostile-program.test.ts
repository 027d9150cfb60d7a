/**
 * Programs that throw, destroy and close wherever they are called. Only they may be hurt: other sockets go on, and
 * nothing of theirs is left.
 */
import { getEventListeners, once } from 'node:events';
import { setImmediate as nextRound } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { SocketStack } from '../../../src/sockets/stack.ts';
import type { PresenceServer } from '../../../src/sockets/stream/server.ts';
import type { PresenceSocket } from '../../../src/sockets/stream/socket.ts';
import { StackNetwork } from '../stack-network.ts';
import { catchUncaught } from '../uncaught.ts';

const uncaught = catchUncaught();

const SERVER = '10.2.0.1';
let client: SocketStack;
let far: SocketStack;
let server: PresenceServer;
/** All that was accepted: what a program that throws has left open. */
let accepted: PresenceSocket[];
let opened: PresenceSocket[];
/** The listener of the next accepted sockets. */
let onConnection: (socket: PresenceSocket) => void;

beforeEach(async () => {
  const network = new StackNetwork();
  client = network.stack('10.1.0.1');
  far = network.stack(SERVER);
  onConnection = (socket) => socket.pipe(socket);
  accepted = [];
  opened = [];
  server = far.createServer((socket) => {
    accepted.push(socket);
    socket.on('error', () => {});
    onConnection(socket);
  });
  server.listen(80);
  await once(server, 'listening');
});

afterEach(async () => {
  await Promise.all([client.close(), far.close()]);
});

const open = (options: object = {}): PresenceSocket => {
  const socket = client.connect({ port: 80, host: SERVER, ...options });
  opened.push(socket);
  return socket.on('error', () => {});
};

/** Whether a new connection carries bytes there and back. */
async function works(): Promise<boolean> {
  onConnection = (socket) => socket.pipe(socket);
  const socket = open();
  socket.end('still here');
  let text = '';
  for await (const chunk of socket) text += chunk;
  return text === 'still here';
}

/** Waits until only connections in TIME-WAIT are left on both sides. */
async function untilGone(): Promise<void> {
  for (let round = 0; round < 2_000; round++) {
    if (client.tcp.sizes.connections + far.tcp.sizes.connections === 0) break;
    await nextRound();
  }
  for (const { tcp } of [client, far]) {
    const { connections, halfOpen, timers } = tcp.sizes;
    const { used, usedSmall } = tcp.memory;
    expect({ connections, halfOpen, timers, used, usedSmall }).toEqual({
      connections: 0,
      halfOpen: 0,
      timers: 0,
      used: 0,
      usedSmall: 0,
    });
  }
}

const rounds = async (count = 30): Promise<void> => {
  for (let i = 0; i < count; i++) await nextRound();
};

const EVENTS = [
  'lookup',
  'connectionAttempt',
  'connect',
  'ready',
  'data',
  'readable',
  'drain',
  'end',
  'finish',
  'close',
  'prefinish',
  'resume',
];

/** What a program does in a listener. */
const DEEDS: Record<string, (socket: PresenceSocket) => void> = {
  throws: () => {
    throw new Error('deed');
  },
  destroys: (socket) => void socket.destroy(),
  'destroys with an error': (socket) => void socket.destroy(new Error('mine')),
  resets: (socket) => void socket.resetAndDestroy(),
  ends: (socket) => void socket.end('last'),
  'connects again': (socket) => void socket.connect(80, SERVER),
};

describe.each(Object.entries(DEEDS))('a listener that %s', (name, deed) => {
  test.each(EVENTS)('in `%s` hurts nobody else', async (event) => {
    const socket = open();
    socket.on('error', () => {});
    socket.once(event, () => deed(socket));
    if (event !== 'readable') socket.on('data', () => {});
    // More than the high-water mark, so that `drain` follows.
    socket.write(Buffer.alloc(200_000));
    await rounds();
    socket.end();
    await rounds();
    expect(uncaught.splice(0).every(({ message }) => name === 'throws' && message === 'deed')).toBe(
      true
    );
    expect(await works()).toBe(true);
    socket.destroy();
    await untilGone();
  });

  test.each(['data', 'end', 'close', 'finish', 'connection'])(
    'in `%s` of an accepted socket hurts nobody else',
    async (event) => {
      onConnection = (socket) => {
        if (event === 'connection') deed(socket);
        socket.once(event, () => deed(socket));
        socket.pipe(socket);
      };
      const socket = open();
      socket.on('error', () => {});
      socket.resume();
      socket.end(Buffer.alloc(200_000));
      await rounds();
      expect(
        uncaught.splice(0).every(({ message }) => name === 'throws' && message === 'deed')
      ).toBe(true);
      expect(await works()).toBe(true);
      for (const each of [socket, ...accepted]) each.destroy();
      server.close();
      await untilGone();
    }
  );
});

describe('a lookup function', () => {
  type Answer = (error: Error | null, found?: unknown, family?: number) => void;
  const lookUp = (
    lookup: (host: string, options: object, answer: Answer) => void
  ): PresenceSocket => open({ host: 'server.test', lookup });
  const outcomeOf = (socket: PresenceSocket): Promise<string> =>
    new Promise((resolve) => {
      socket.on('connect', () => resolve('connect'));
      socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    });

  test('that throws fails its connection', async () => {
    const socket = lookUp(() => {
      throw new Error('deed');
    });
    expect(await outcomeOf(socket)).toBe('deed');
  });

  test('that answers twice makes one connection', async () => {
    const found = [{ address: SERVER, family: 4 }];
    const socket = lookUp((_, __, answer) => {
      answer(null, found);
      answer(null, found);
      setImmediate(answer, null, found);
    });
    expect(await outcomeOf(socket)).toBe('connect');
    await rounds();
    expect(client.tcp.counters.opened).toBe(1);
    socket.destroy();
    await untilGone();
  });

  test('that answers after the end of the socket makes none', async () => {
    let answerLater: Answer | undefined;
    const socket = lookUp((_, __, answer) => {
      answerLater = answer;
    });
    await rounds();
    socket.destroy();
    answerLater!(null, SERVER, 4);
    await rounds();
    expect(client.tcp.counters.opened).toBe(0);
  });

  test.each([
    [undefined],
    [null],
    [''],
    ['x'],
    [5],
    [{}],
    [[null]],
    [[5]],
    [[{}]],
    [[{ address: 5, family: 4 }]],
    [[{ address: 'x', family: 4 }]],
    [[[]]],
  ])('that answers with %j fails its connection', async (found) => {
    const socket = lookUp((_, __, answer) => process.nextTick(answer, null, found, 4));
    expect(await outcomeOf(socket)).toMatch(/^(ENOTFOUND|EINVAL|ERR_INVALID_IP_ADDRESS)$/);
    await untilGone();
  });
});

describe('an abort signal', () => {
  const moments: Record<string, (socket: PresenceSocket, abort: () => void) => void> = {
    'in the same tick': (_, abort) => abort(),
    'in the next tick': (_, abort) => process.nextTick(abort),
    'in a microtask': (_, abort) => queueMicrotask(abort),
    'in a later round': (_, abort) => setImmediate(abort),
    ...Object.fromEntries(
      ['lookup', 'connectionAttempt', 'connect', 'ready', 'data', 'end', 'finish', 'close'].map(
        (event) => [`in \`${event}\``, (socket, abort) => socket.once(event, abort)]
      )
    ),
  };
  test.each(Object.entries(moments))(
    '%s ends the socket, and nothing listens to it',
    async (_, at) => {
      const controller = new AbortController();
      const { signal } = controller;
      const socket = open({ signal });
      const errors: string[] = [];
      socket.on('error', ({ name }) => errors.push(name));
      at(socket, () => controller.abort());
      const closed = new Promise((resolve) => socket.once('close', resolve));
      socket.resume().end('x');
      await closed;
      await rounds();
      expect(errors.every((name) => name === 'AbortError')).toBe(true);
      expect(getEventListeners(signal, 'abort')).toHaveLength(0);
      expect(await works()).toBe(true);
      await untilGone();
    }
  );

  test('of many sockets keeps none of them', async () => {
    const { signal } = new AbortController();
    for (let i = 0; i < 30; i++) {
      const socket = open({ signal });
      socket.resume().end('x');
      await once(socket, 'close');
    }
    await rounds();
    expect(getEventListeners(signal, 'abort')).toHaveLength(0);
  });

  test('that is aborted while the tunnel is down ends the wait at once', async () => {
    client.linkChanged(false);
    const controller = new AbortController();
    const socket = open({ signal: controller.signal });
    await rounds(3);
    controller.abort();
    const [error] = await once(socket, 'error');
    expect(error.name).toBe('AbortError');
    expect(getEventListeners(controller.signal, 'abort')).toHaveLength(0);
  });
});

describe('a callback that throws', () => {
  const deed = (): never => {
    throw new Error('deed');
  };
  const callbacks: Record<string, () => void> = {
    'of write': () => void open().write('x', deed),
    'of end': () => void open().end('x', deed),
    'of a connection': () => void open().once('connect', deed),
    'of setTimeout': () => void open({ timeout: 1 }).setTimeout(1, deed),
    'of the error': () => void client.connect(81, SERVER).on('error', deed),
    'of onread': () =>
      void open({ onread: { buffer: Buffer.alloc(10), callback: deed } }).write('x'),
    'of the buffer of onread': () =>
      void open({ onread: { buffer: deed, callback: () => true } }).write('x'),
    'of a server that listens': () => void far.createServer().listen(90, deed),
    'of a server that closes': () => void far.createServer().listen(91).close(deed),
    'of getConnections': () => void server.getConnections(deed),
    'of a connector': () =>
      client.connector()({ hostname: SERVER, protocol: 'http:', port: '80' }, (_, socket) => {
        socket?.destroy();
        deed();
      }),
    'of a lookup': () => client.lookup('server.test', deed),
    'of a datagram': () => client.datagram('udp4').send('x', 5, SERVER, deed),
    'of a datagram socket that is bound': () => void client.datagram('udp4').bind(5, deed),
    'of a datagram socket that is closed': () => void client.datagram('udp4').bind(6).close(deed),
  };
  test.each(Object.entries(callbacks))(
    '%s is an uncaught exception, and no more',
    async (_, act) => {
      act();
      for (let round = 0; round < 5_000 && uncaught.length === 0; round++) await nextRound();
      for (const socket of opened) socket.destroy();
      const messages = new Set(uncaught.splice(0).map(({ message }) => message));
      expect([...messages]).toEqual(['deed']);
      expect(await works()).toBe(true);
      await rounds();
      expect(uncaught).toEqual([]);
    }
  );
});

describe('a listener that closes', () => {
  test.each(['connect', 'data', 'end', 'close'])(
    'the stack in `%s` ends all of its sockets',
    async (event) => {
      const sockets = Array.from({ length: 20 }, () => open());
      let ends = 0;
      for (const socket of sockets) {
        socket.on('error', () => {});
        socket.on('close', () => ends++);
        socket.resume().write('x');
        if (event === 'end' || event === 'close') socket.end();
      }
      const closing = new Promise<void>((resolve) => {
        sockets[7]!.once(event, () => client.close().then(resolve));
      });
      await closing;
      await rounds();
      expect(ends).toBe(20);
      const { connections, halfOpen, timers } = client.tcp.sizes;
      expect([connections, halfOpen, timers]).toEqual([0, 0, 0]);
      expect(client.tcp.memory.used + client.tcp.memory.usedSmall).toBe(0);
    }
  );

  test('the server in its first connection drops those that wait', async () => {
    onConnection = () => server.close();
    const sockets = Array.from({ length: 10 }, () => open());
    const events = sockets.map(
      (socket) =>
        new Promise((resolve) => {
          socket.on('error', () => {});
          socket.on('close', resolve);
        })
    );
    await rounds();
    expect(accepted).toHaveLength(1);
    accepted[0]!.destroy();
    await Promise.all(events);
    await untilGone();
  });

  test('all other sockets, in the middle of their events', async () => {
    const sockets = Array.from({ length: 20 }, () => open());
    await Promise.all(sockets.map((socket) => once(socket, 'connect')));
    let calls = 0;
    for (const socket of sockets) {
      socket.on('error', () => {});
      socket.on('data', () => {
        calls++;
        for (const other of sockets) other.destroy();
      });
      socket.write('x');
    }
    await rounds();
    expect(calls).toBe(1);
    expect(await works()).toBe(true);
    await untilGone();
  });
});

test('a listener that blocks for the time of a retransmission causes none', async () => {
  onConnection = (socket) => socket.pipe(socket);
  const socket = open();
  socket.once('data', () => {
    const until = performance.now() + 300;
    while (performance.now() < until);
  });
  let length = 0;
  socket.on('data', (chunk: Buffer) => {
    length += chunk.length;
  });
  socket.end(Buffer.alloc(3_000_000));
  await once(socket, 'close');
  expect(length).toBe(3_000_000);
  expect(client.tcp.counters.retransmitted + far.tcp.counters.retransmitted).toBe(0);
});

test('a program that changes what it has written, and what it has read, harms nobody', async () => {
  const sent = Buffer.alloc(300_000, 'a');
  const one = open();
  const other = open();
  const texts: string[] = ['', ''];
  for (const [i, socket] of [one, other].entries()) {
    socket.on('data', (chunk: Buffer) => {
      texts[i] += chunk.toString('latin1');
      chunk.fill(0);
    });
  }
  one.end(sent, () => sent.fill('b'));
  other.end(Buffer.alloc(300_000, 'c'));
  await Promise.all([once(one, 'close'), once(other, 'close')]);
  expect(texts).toEqual(['a'.repeat(300_000), 'c'.repeat(300_000)]);
});
