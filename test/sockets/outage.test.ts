/**
 * A tunnel that goes down in the middle of something. The clock is the test's, so that minutes pass at once.
 */
import { once } from 'node:events';
import { beforeEach, describe, expect, test } from 'vitest';
import type { SocketStack } from '../../src/sockets/stack.ts';
import type { PresenceSocket } from '../../src/sockets/stream/socket.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { StackNetwork } from './stack-network.ts';
import { settled } from './worlds.ts';

let clock: FakeClock;
let network: StackNetwork;
let near: SocketStack;

beforeEach(() => {
  clock = new FakeClock();
  network = new StackNetwork(clock);
  near = network.stack('10.1.0.1');
  network
    .stack('10.2.0.1')
    .createServer((socket) => socket.on('error', () => {}).resume())
    .listen(80);
});

/** Lets time pass, in steps that are short for every timer. */
async function pass(ms: number): Promise<void> {
  for (let end = clock.monotonicMs() + ms; clock.monotonicMs() < end; ) {
    clock.advance(Math.min(1_000, end - clock.monotonicMs()));
    await settled();
  }
}

/** Writes down what the socket emits, and after how many seconds of the test's clock. */
function logOf(socket: PresenceSocket): string[] {
  const log: string[] = [];
  const startMs = clock.monotonicMs();
  const note = (text: string): void => {
    log.push(`${text} ${(clock.monotonicMs() - startMs) / 1000}`);
  };
  socket.on('connect', () => note('connect'));
  socket.on('error', ({ code }: NodeJS.ErrnoException) => note(code!));
  socket.on('close', () => note('close'));
  return log;
}

describe('a connect fails after the wait for the tunnel, if the tunnel goes down', () => {
  const toServer = { port: 80, host: '10.2.0.1' };
  const silent = (): void => void network.silent.add('10.2.0.1');
  test.each([
    ['behind its SYN', toServer, silent],
    ['behind its SYN, with a longer limit', { ...toServer, connectTimeout: 60_000 }, silent],
    ['during the lookup', { ...toServer, host: 'x', lookup: () => {} }, () => {}],
  ])('%s', async (_, options, prepare) => {
    prepare();
    const socket = near.connect(options);
    const log = logOf(socket);
    await settled();
    near.linkChanged(false);
    await pass(4_000);
    expect(log).toEqual([]);
    await pass(3_600_000);
    expect(log).toEqual(['ENETDOWN 5', 'close 5']);
    expect(near.tcp.sizes).toMatchObject({ connections: 0, timers: 0 });
  });

  test('also if the lookup answers meanwhile', async () => {
    let answer: (...args: unknown[]) => void = () => {};
    const lookup = (_: string, __: object, done: (...args: unknown[]) => void): void => {
      answer = done;
    };
    const log = logOf(near.connect({ port: 80, host: 'x', lookup: lookup as never }));
    await settled();
    near.linkChanged(false);
    await pass(1_000);
    answer(null, [{ address: '10.2.0.1', family: 4 }]);
    await pass(10_000);
    expect(log).toEqual(['ENETDOWN 5', 'close 5']);
  });

  test('also if only the tunnel of its site goes down, behind the SYN to the last address', async () => {
    network.silent.add('10.2.0.1');
    const isDown = new Set<string>();
    near.setFailureTo((remote) => (isDown.has(`${remote}`) ? new Error('no tunnel') : undefined));
    const addresses = ['10.2.0.2', '10.2.0.1'].map((address) => ({ address, family: 4 }));
    const lookup = (_: string, __: object, done: (...args: unknown[]) => void): void => {
      done(null, addresses);
    };
    const socket = near.connect({ port: 80, host: 'x', lookup: lookup as never });
    const log = logOf(socket);
    // Nobody has the first address, which has 2 s.
    await pass(3_000);
    isDown.add('10.2.0.1');
    near.setFailureTo((remote) => (isDown.has(`${remote}`) ? new Error('no tunnel') : undefined));
    await pass(3_600_000);
    expect(log).toEqual(['ENETDOWN 8', 'close 8']);
    expect(near.tcp.sizes).toMatchObject({ connections: 0, timers: 0 });
  });

  test('and not if it comes up in time', async () => {
    silent();
    const socket = near.connect(toServer);
    const log = logOf(socket);
    await settled();
    for (let i = 0; i < 3; i++) {
      near.linkChanged(false);
      await pass(4_000);
      expect(log).toEqual([]);
      if (i === 2) network.silent.clear();
      near.linkChanged(true);
    }
    await pass(2_000);
    expect(log).toEqual([expect.stringMatching('connect')]);
    socket.destroy();
    await once(socket, 'close');
  });
});

describe('a socket whose tunnel is down', () => {
  const connected = async (options: object): Promise<[PresenceSocket, string[]]> => {
    const socket = near.connect({ port: 80, host: '10.2.0.1', ...options });
    await once(socket, 'connect');
    // Nothing happens for long, so that no clock is looked at.
    clock.advance(3_600_000);
    near.linkChanged(false);
    return [socket, logOf(socket)];
  };

  test.each([
    ['what is written', (socket: PresenceSocket) => void socket.write('x')],
    ['its end', (socket: PresenceSocket) => void socket.end()],
  ])('fails with ETIMEDOUT when %s has waited for the user timeout', async (_, act) => {
    const [socket, log] = await connected({ userTimeout: 30_000 });
    act(socket.resume());
    await pass(3_600_000);
    expect(log).toEqual(['ETIMEDOUT 30', 'close 30']);
    expect(near.tcp.sizes).toMatchObject({ connections: 0, timers: 0 });
  });

  test('leaves nothing behind when it is destroyed, though there is no user timeout', async () => {
    const [socket] = await connected({});
    socket.write(Buffer.alloc(100_000));
    socket.destroy();
    expect(near.tcp.sizes.connections).toBe(1);
    await pass(120_000);
    expect(near.tcp.sizes).toMatchObject({ connections: 0, timers: 0 });
    expect(near.tcp.memory.used + near.tcp.memory.usedSmall).toBe(0);
  });
});
