/**
 * Wrong options and types, on `node:net` and on presences. Neither an exception that nobody can catch, nor a socket
 * that waits for ever, may come of them.
 */
import { once } from 'node:events';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { StackNetwork } from './stack-network.ts';
import { closeAfterEach, listening, nodeWorld, ourWorld, settled, type World } from './worlds.ts';

closeAfterEach();

/** What is thrown by no call of the test. */
const uncaught: Error[] = [];
const onUncaught = (error: Error): void => void uncaught.push(error);
let others: ((error: Error) => void)[] = [];
beforeEach(() => {
  others = process.listeners('uncaughtException') as typeof others;
  process.removeAllListeners('uncaughtException');
  process.on('uncaughtException', onUncaught);
});
afterEach(() => {
  process.removeListener('uncaughtException', onUncaught);
  for (const listener of others) process.on('uncaughtException', listener);
  expect(uncaught.splice(0)).toEqual([]);
});

/** What a call does: `throws TypeError ERR_...`, or the first event of what it returns. */
async function outcomeOf(call: () => NodeJS.EventEmitter): Promise<string> {
  try {
    const emitter = call();
    return await new Promise((resolve) => {
      emitter.on('error', ({ name, code }) => resolve(`${name} ${code}`));
      for (const event of ['connect', 'listening']) emitter.on(event, () => resolve(event));
    });
  } catch (error) {
    return `throws ${(error as Error).name} ${(error as NodeJS.ErrnoException).code}`;
  }
}

/** Values of all types, none of which is a name. */
const VALUES = [-1, 1.5, 1e12, true, {}, [], () => {}, 1n];

describe.each([nodeWorld, ourWorld])('%o', (makeWorld) => {
  const world: World = makeWorld();
  const connectWith = async (options: object): Promise<string> => {
    const port = await listening(
      world,
      world.server({}, (socket) => socket.resume())
    );
    return outcomeOf(() => world.connect({ port, host: world.address, ...options }));
  };
  const listenWith = (options: object): Promise<string> =>
    outcomeOf(() => world.server().listen({ port: 0, host: world.address, ...options }));

  test('a host that is no text is refused at once', async () => {
    for (const host of VALUES) {
      expect(await connectWith({ host })).toBe('throws TypeError ERR_INVALID_ARG_TYPE');
      expect(await listenWith({ host })).toBe('throws TypeError ERR_INVALID_ARG_TYPE');
    }
  });

  test('no local port is none', async () => {
    for (const localPort of [undefined, null, 0, '', Number.NaN]) {
      expect(await connectWith({ localPort })).toBe('connect');
    }
  });

  test('a signal that is none is refused at once', async () => {
    for (const signal of [null, 0, 'x', true, {}, () => {}]) {
      const code = 'throws TypeError ERR_INVALID_ARG_TYPE';
      expect(await connectWith({ signal })).toBe(
        signal === null || signal === 0 ? 'connect' : code
      );
      expect(await listenWith({ signal })).toBe(code);
    }
  });

  test('a keepalive delay that is no number is refused at once', async () => {
    for (const keepAliveInitialDelay of [null, '', 'x', true, {}]) {
      const options = { keepAlive: true, keepAliveInitialDelay };
      expect(await connectWith(options)).toBe('throws TypeError ERR_INVALID_ARG_TYPE');
      expect(() => world.server(options)).toThrow('keepAliveInitialDelay');
    }
  });

  test('null stands for no options of a socket, and what is no listener is ignored', async () => {
    const port = await listening(world, world.server({}, null as never));
    const socket = world.socket(null as never);
    socket.connect(port, world.address);
    await once(socket, 'connect');
  });
});

describe('presences', () => {
  test('times that no timer can count are the longest ones, and fractions are rounded up', async () => {
    const world = ourWorld();
    const port = await listening(
      world,
      world.server({}, (socket) => socket.resume())
    );
    for (const name of ['connectTimeout', 'userTimeout', 'autoSelectFamilyAttemptTimeout']) {
      for (const ms of [0, 1_000.5, 1e12]) {
        const socket = world.connect({ port, host: world.address, [name]: ms });
        await once(socket, 'connect');
      }
      for (const ms of [-1, Number.NaN, Number.POSITIVE_INFINITY]) {
        expect(() => world.socket().connect({ port, [name]: ms } as never)).toThrow(RangeError);
      }
    }
  });

  test('a server refuses options with which it could not accept, and not its first connection', () => {
    const stack = new StackNetwork().stack('10.2.0.1');
    for (const highWaterMark of [-1, 1.5, Number.NaN, 'x']) {
      expect(() => stack.createServer({ highWaterMark } as never)).toThrow('highWaterMark');
    }
  });

  test('calls in any order and number on a socket throw nothing', async () => {
    const world = ourWorld();
    const server = world.server({}, (socket) => socket.on('error', () => {}).resume());
    const port = await listening(world, server);
    const calls: ((socket: import('node:net').Socket) => unknown)[] = [
      (socket) => socket.destroy(),
      (socket) => socket.destroy(),
      (socket) => socket.end(),
      (socket) => socket.destroySoon(),
      (socket) => socket.resetAndDestroy(),
      (socket) => socket.pause(),
      (socket) => socket.resume(),
      (socket) => socket.setNoDelay(),
      (socket) => socket.setKeepAlive(true, 1),
      (socket) => socket.setTimeout(1),
      (socket) => socket.setTimeout(0),
      (socket) => socket.address(),
      (socket) => socket.ref().unref(),
      (socket) => socket.write('x', () => {}),
      (socket) => socket.read(),
      (socket) => socket.cork(),
      (socket) => socket.uncork(),
      (socket) => socket.connect(port, world.address),
    ];
    for (const [i, first] of calls.entries()) {
      for (const [j, second] of calls.entries()) {
        const socket = (i + j) % 2 === 0 ? world.socket() : world.connect(port, world.address);
        socket.on('error', () => {});
        first(socket);
        second(socket);
        if ((i + j) % 3 === 0) await settled();
        first(socket);
      }
    }
    await settled();
  });
});
