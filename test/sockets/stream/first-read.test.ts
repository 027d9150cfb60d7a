/**
 * What a new connection brings at once is not delivered before the program had time to await something. Each case runs
 * on `node:net` and on presences.
 */
import { once } from 'node:events';
import type net from 'node:net';
import { describe, expect, test } from 'vitest';
import { closeAfterEach, closed, listening, logOf, settled, worlds } from '../worlds.ts';

closeAfterEach();

/** What a program awaits after it has the socket, and before it listens. */
const waits: Readonly<Record<string, () => Promise<unknown>>> = {
  'a promise': () => Promise.resolve(),
  'several promises': async () => {
    for (let i = 0; i < 10; i++) await undefined;
  },
  'a tick': () => new Promise<void>((resolve) => process.nextTick(resolve)),
  'ticks and promises in turn': async () => {
    for (let i = 0; i < 5; i++) await new Promise<void>((resolve) => process.nextTick(resolve));
  },
};

describe.each(worlds)('the first read %#', (makeWorld) => {
  const world = makeWorld();

  describe.each(Object.entries(waits))(`behind %s (${world.name})`, (_, wait) => {
    test.each([
      ['an end', '', false],
      ['data and an end', 'hello', false],
      ['data and an end, which a listener for data already takes', 'hello', true],
    ])('of an accepted socket finds %s', async (__, text, listensAtOnce) => {
      const server = world.server();
      const port = await listening(world, server);
      const accepted = new Promise<[string, string[]]>((resolve) => {
        server.on('connection', async (socket) => {
          let read = '';
          const onData = (data: Buffer): void => {
            read += data;
          };
          if (listensAtOnce) socket.on('data', onData);
          await wait();
          const log = logOf(socket);
          if (!listensAtOnce) socket.on('data', onData);
          await closed(socket);
          resolve([read, log]);
        });
      });
      world.connect({ port, host: world.address }).resume().end(text);
      expect(await accepted).toEqual([text, ['end', 'finish', 'close:false']]);
    });

    test('of a socket that has connected finds data and an end', async () => {
      const server = world.server({}, (socket) => socket.resume().end('hello'));
      const port = await listening(world, server);
      const socket = world.connect({ port, host: world.address });
      await once(socket, 'connect');
      await wait();
      const log = logOf(socket);
      let read = '';
      socket.on('data', (data) => {
        read += data;
      });
      await closed(socket);
      expect([read, log.filter((event) => event !== 'ready')]).toEqual([
        'hello',
        ['end', 'finish', 'close:false'],
      ]);
    });
  });

  test('is not made by a socket that a server hands over paused, or that is destroyed', async () => {
    for (const [options, use] of [
      [{ pauseOnConnect: true }, () => {}],
      [{}, (socket: net.Socket) => socket.destroy()],
    ] as const) {
      const server = world.server(options, use);
      const port = await listening(world, server);
      const accepted = once(server, 'connection');
      world
        .connect({ port, host: world.address })
        .on('error', () => {})
        .resume()
        .end('hello');
      const [socket] = (await accepted) as [net.Socket];
      await settled();
      expect(socket.bytesRead).toBe(0);
    }
  });

  test('notices an end although the program has paused the socket', async () => {
    const server = world.server({}, (socket) => socket.pause());
    const port = await listening(world, server);
    const accepted = once(server, 'connection');
    world.connect({ port, host: world.address }).resume().end();
    const [socket] = (await accepted) as [net.Socket];
    await once(socket, 'end');
  });
});
