/**
 * When sockets emit `close`: late enough for programs that have awaited something else first. Each case runs on
 * `node:net` and on presences.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { once } from 'node:events';
import type net from 'node:net';
import { Readable, Writable } from 'node:stream';
import { finished, pipeline } from 'node:stream/promises';
import { setImmediate as nextRound } from 'node:timers/promises';
import { beforeAll, describe, expect, test } from 'vitest';
import { refusingTcpPort } from '../../support/refusing-port.ts';
import { listening, pairIn, worlds } from '../worlds.ts';

const sink = (): Writable => new Writable({ write: (_chunk, _encoding, done) => done() });

const read = async (socket: net.Socket): Promise<void> => {
  for await (const _ of socket);
};

/** What a program awaits before it awaits `close`. The server answers `reset` by a reset, all else by its end. */
const patterns: Readonly<Record<string, (socket: net.Socket) => Promise<unknown>>> = {
  'end, after its own end': (socket) => once(socket.end('q').resume(), 'end'),
  'the loop over its data, after its own end': (socket) => read(socket.end('q')),
  'the loop over its data': (socket) => {
    socket.write('q');
    return read(socket);
  },
  'the loop over its data, which fails': async (socket) => {
    socket.write('reset');
    await expect(read(socket)).rejects.toMatchObject({ code: 'ECONNRESET' });
  },
  'a pipeline out of it': (socket) => pipeline(socket.end('q'), sink()),
  'a pipeline into it': (socket) => pipeline(Readable.from(['q']), socket.resume()),
  'finished()': (socket) => finished(socket.end('q').resume()),
  'a tick after destroy()': async (socket) => {
    await once(socket, 'connect');
    socket.destroy();
    await new Promise<void>((resolve) => process.nextTick(resolve));
  },
};

describe.each(worlds)('close %#', (makeWorld) => {
  const world = makeWorld();
  let port: number;

  beforeAll(async () => {
    const server = world.server({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => {});
      socket.once('data', (data) => {
        if (String(data) === 'reset') socket.resetAndDestroy();
        else socket.end('a');
      });
    });
    port = await listening(world, server);
    return () => server.close();
  });

  test.each(Object.entries(patterns))(
    `is seen by who awaits first %s (${world.name})`,
    async (_, first) => {
      const socket = world.connect(port, world.address);
      await first(socket);
      await once(socket, 'close');
      expect(socket.destroyed).toBe(true);
    }
  );

  test('is seen by who awaits first the error of a connect', async () => {
    const dead = await refusingTcpPort();
    const socket = world.connect(dead.port, world.address);
    await new Promise((resolve) => socket.once('error', resolve));
    await once(socket, 'close');
    dead.close();
  });

  test('is seen by who awaits first the error of an abort', async () => {
    const controller = new AbortController();
    const { signal } = controller;
    const socket = world.connect({ port, host: world.address, signal });
    await once(socket, 'connect');
    await nextRound();
    controller.abort();
    await new Promise((resolve) => socket.once('error', resolve));
    await once(socket, 'close');
  });

  test('is seen by who awaits first the finish, behind the end of the other side', async () => {
    const socket = world.connect({ port, host: world.address, allowHalfOpen: true });
    socket.write('q');
    await once(socket.resume(), 'end');
    await once(socket.end('x'), 'finish');
    await once(socket, 'close');
  });

  test('comes behind that of a server whose last connection it was', async () => {
    const { client, accepted, server } = await pairIn(world);
    const log: string[] = [];
    accepted.on('close', () => log.push('socket'));
    server.close(() => log.push('server'));
    client.destroy();
    await once(accepted.resume(), 'close');
    expect(log).toEqual(['server', 'socket']);
  });

  test('has the async context of connect(), not that of destroy()', async () => {
    const context = new AsyncLocalStorage<string>();
    const socket = context.run('connect', () => world.connect(port, world.address));
    await once(socket, 'connect');
    const seen = new Promise((resolve) => socket.on('close', () => resolve(context.getStore())));
    context.run('destroy', () => socket.destroy());
    expect(await seen).toBe('connect');
  });
});
