/**
 * Wrong options and types, on `node:net` and on presences. Neither an exception that nobody can catch, nor a socket
 * that waits for ever, may come of them.
 */
import { once } from 'node:events';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { SITE, StackNetwork } from '../stack-network.ts';
import { catchUncaught } from '../uncaught.ts';
import { closeAfterEach, listening, nodeWorld, ourWorld, settled, type World } from '../worlds.ts';

closeAfterEach();

catchUncaught();

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

  test('a name that is no text is refused at once, and nothing is none', async () => {
    const stack = new StackNetwork().stack('10.1.0.1');
    const wrong = { code: 'ERR_INVALID_ARG_TYPE', name: 'TypeError' };
    for (const name of VALUES) {
      await expect(stack.ping(name as never)).rejects.toMatchObject(wrong);
      expect(() => stack.lookup(name as never, () => {})).toThrow(TypeError);
      await expect(promisify(stack.lookup)(name as never)).rejects.toMatchObject(wrong);
    }
    for (const name of [undefined, null, '', 0]) {
      const found = await promisify(stack.lookup)(name as never);
      expect(found).toEqual({ address: null, family: 4 });
    }
  });

  test('a signal of ping that is none is refused, and does no harm when the reply comes', async () => {
    const network = new StackNetwork();
    const stack = network.stack('10.1.0.1');
    network.stack('10.2.0.1');
    const hosts = [{ name: 'far.test', addresses: ['10.2.0.1'], ports: ['icmp'] }];
    stack.setSite({ ...SITE, hosts });
    for (const signal of [null, 0, 'x', {}, () => {}]) {
      await expect(stack.ping('far', { signal, timeout: 1 } as never)).rejects.toMatchObject({
        code: 'ERR_INVALID_ARG_TYPE',
      });
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(stack.icmp.waiting).toBe(0);
  });

  test('nothing can be done with a stack that is closed, and that is said at once', async () => {
    const stack = new StackNetwork().stack('10.1.0.1');
    await Promise.all([stack.close(), stack.close()]);
    await stack.close();
    const failure = (emitter: NodeJS.EventEmitter): Promise<Error> =>
      new Promise((resolve) => emitter.once('error', resolve));
    const down = { code: 'ENETDOWN', cause: stack.closedBy };
    expect(await failure(stack.connect(80, '10.2.0.1'))).toMatchObject(down);
    expect(await failure(stack.createServer().listen(80))).toMatchObject(down);
    expect(await failure(stack.createServer().listen(80, '10.1.0.1'))).toMatchObject(down);
    const datagrams = stack.datagram('udp4');
    expect(await failure(datagrams.bind(80))).toMatchObject(down);
    await expect(stack.ping('10.2.0.1')).rejects.toMatchObject(down);
    const looked = new Promise((resolve) => stack.lookup('server.test', resolve));
    expect(await looked).toMatchObject(down);
    stack.setSite(SITE);
    stack.setFailure(undefined, false);
    stack.linkChanged(false);
    stack.linkChanged(true);
    stack.interrupt(new Error('again'));
    await stack.finish(new Error('again'));
    expect(await failure(stack.connect(80, '10.2.0.1'))).toMatchObject(down);
    expect(stack.tcp.sizes).toEqual({ connections: 0, halfOpen: 0, timeWait: 0, timers: 0 });
  });
});
