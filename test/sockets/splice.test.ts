/**
 * Two connections that are joined. Each case runs with sockets of the operating system and of presences on both sides:
 * `near` and `far` are the ends, `left` and `right` the sockets in the middle.
 */
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { getDefaultHighWaterMark } from 'node:stream';
import { describe, expect, test, vi } from 'vitest';
import { SharedReadSocket } from '../../src/sockets/host/shared-read-socket.ts';
import { onreadTo, reset, type SpliceOptions, splice } from '../../src/sockets/host/splice.ts';
import type { PresenceSocket } from '../../src/sockets/stream/socket.ts';
import { catchUncaught } from './uncaught.ts';
import {
  closeAfterEach,
  closed,
  listening,
  nodeWorld,
  ourWorld,
  pairIn,
  settled,
  until,
  type World,
} from './worlds.ts';

closeAfterEach();
catchUncaught();

/** The last column is whether the right one is read into buffers that are used again. */
const CASES: readonly [string, () => World, () => World, boolean][] = [
  ['node and node', nodeWorld, nodeWorld, false],
  ['node and presence', nodeWorld, ourWorld, false],
  ['node and presence with onread', nodeWorld, ourWorld, true],
  ['presence and node', ourWorld, nodeWorld, false],
  ['presence and presence', ourWorld, ourWorld, false],
];

interface Scene {
  readonly near: net.Socket;
  readonly left: net.Socket;
  readonly right: net.Socket;
  readonly far: net.Socket;
}

const HALF_OPEN = { allowHalfOpen: true };

describe.each(CASES)('splice: %s', (_, makeLeft, makeRight, isRecycled) => {
  const leftWorld = makeLeft();
  const rightWorld = makeRight();

  /** Two connections that are not joined yet. Only the outer ends have `allowHalfOpen`, unless `server` says so. */
  async function scene(server: object = {}): Promise<Scene> {
    const one = await pairIn(leftWorld, { client: HALF_OPEN, server });
    const client = isRecycled ? { ...HALF_OPEN, onread: onreadTo(one.accepted) } : {};
    const other = await pairIn(rightWorld, { client, server: HALF_OPEN });
    return { near: one.client, left: one.accepted, right: other.client, far: other.accepted };
  }

  async function joined(options?: SpliceOptions): Promise<Scene> {
    const ends = await scene();
    splice(ends.left, ends.right, options);
    return ends;
  }

  test('carries bytes both ways, and closes when both directions have ended', async () => {
    const onClosed = vi.fn();
    const { near, left, right, far } = await joined({ onClosed });
    const [question, answer] = [randomBytes(3_000_001), randomBytes(2_000_003)];
    near.end(question);
    far.end(answer);
    expect(await Promise.all([digest(near), digest(far)])).toEqual([sum(answer), sum(question)]);
    await closed(near, left, right, far);
    await until(() => onClosed.mock.calls.length > 0);
    expect(onClosed.mock.calls).toEqual([[undefined]]);
  });

  test.each(['near', 'far'] as const)('passes a half-close on from %s', async (side) => {
    const ends = await joined();
    const [first, second] = side === 'near' ? [ends.near, ends.far] : [ends.far, ends.near];
    first.end('question');
    expect(await text(second)).toBe('question');
    await settled();
    expect(first.destroyed).toBe(false);
    second.write('ans');
    await once(first, 'readable');
    second.end('wer');
    expect(await text(first)).toBe('answer');
    await closed(ends.left, ends.right);
  });

  test.each(['near', 'far'] as const)('passes a reset on from %s', async (side) => {
    const onClosed = vi.fn();
    const ends = await joined({ onClosed });
    const [first, second] = side === 'near' ? [ends.near, ends.far] : [ends.far, ends.near];
    first.write('some');
    expect((await once(second, 'data')).toString()).toBe('some');
    const error = once(second, 'error');
    first.resetAndDestroy();
    expect(await error).toMatchObject([{ code: 'ECONNRESET' }]);
    await until(() => onClosed.mock.calls.length > 0);
    expect(onClosed.mock.calls).toMatchObject([[{ code: 'ECONNRESET' }]]);
  });

  test('passes a reset on behind a half-close', async () => {
    const { near, far } = await joined();
    near.end('question');
    expect(await text(far)).toBe('question');
    const error = once(near, 'error');
    far.resetAndDestroy();
    expect(await error).toMatchObject([{ code: 'ECONNRESET' }]);
  });

  test('resets the other end when the program destroys a socket', async () => {
    const onClosed = vi.fn();
    const { left, far } = await joined({ onClosed });
    const error = once(far.resume(), 'error');
    left.destroy();
    expect(await error).toMatchObject([{ code: 'ECONNRESET' }]);
    await until(() => onClosed.mock.calls.length > 0);
    expect(onClosed.mock.calls).toEqual([[undefined]]);
  });

  test('passes on an end that was read before, and what has arrived meanwhile', async () => {
    const { near, left, right, far } = await scene(HALF_OPEN);
    near.end('question');
    far.end('answer');
    expect(await text(left)).toBe('question');
    right.write('question');
    splice(left, right);
    expect(await Promise.all([text(near), text(far)])).toEqual(['answer', 'question']);
    await closed(near, left, right, far);
  });

  test('carries what was put back and what a paused socket has', async () => {
    const { near, left, right, far } = await scene({ ...HALF_OPEN, pauseOnConnect: true });
    near.end('question');
    left.unshift(Buffer.from('the '));
    splice(left, right);
    expect(await text(far)).toBe('the question');
    far.end();
    await closed(near, left, right, far);
  });

  test('resets the other side when one is gone before', async () => {
    const { near, left, right, far } = await scene();
    near.on('error', () => {});
    const error = once(far, 'error');
    left.destroy();
    await once(left, 'close');
    const onClosed = vi.fn();
    splice(left, right, { onClosed });
    far.resume();
    expect(await error).toMatchObject([{ code: 'ECONNRESET' }]);
    await until(() => onClosed.mock.calls.length > 0);
  });

  test('joins a socket that still connects', async () => {
    const server = rightWorld.server(HALF_OPEN, (socket) => socket.end('answer'));
    const port = await listening(rightWorld, server);
    const { client: near, accepted: left } = await pairIn(leftWorld, { client: HALF_OPEN });
    splice(left, rightWorld.connect({ port, host: rightWorld.address }));
    expect(await text(near)).toBe('answer');
  });

  test('resets the near end when the connection to the far one fails', async () => {
    const { client: near, accepted: left } = await pairIn(leftWorld);
    const gone = rightWorld.server();
    const port = await listening(rightWorld, gone);
    gone.close();
    await once(gone, 'close');
    const onClosed = vi.fn();
    const error = once(near, 'error');
    near.resume();
    splice(left, rightWorld.connect({ port, host: rightWorld.address }), { onClosed });
    expect(await error).toMatchObject([{ code: 'ECONNRESET' }]);
    await until(() => onClosed.mock.calls.length > 0);
    expect(onClosed.mock.calls).toMatchObject([[{ code: 'ECONNREFUSED' }]]);
  });

  test('ends an attempt to connect when the near end is reset', async () => {
    const { client: near, accepted: left } = await pairIn(leftWorld);
    const server = rightWorld.server();
    const port = await listening(rightWorld, server);
    // The address is asked for, and the answer does not come.
    const lookup = (): void => {};
    const right = rightWorld.connect({ port, host: 'nova.test', lookup });
    splice(left, right);
    near.resetAndDestroy();
    await closed(left, right);
    expect(right.connecting).toBe(false);
  });

  test.each(['near', 'far'] as const)(
    'holds little while the other end of %s does not read, and delivers all of it later',
    async (side) => {
      const { near, left, right, far } = await joined();
      const [first, from, to, second] =
        side === 'near' ? [near, left, right, far] : [far, right, left, near];
      const chunk = randomBytes(1_048_576);
      const sent = createHash('sha256');
      // Until the buffers of the kernel and of the stack are full, whose sizes are their own affair.
      let count = 0;
      for (let before = -1; count < 256 && before < from.bytesRead; count++) {
        before = from.bytesRead;
        first.write(chunk);
        sent.update(chunk);
        await settled();
      }
      expect(count).toBeLessThan(256);
      first.end();
      let waiting = from.readableLength + to.writableLength;
      expect(waiting).toBeLessThanOrEqual(LARGEST_WAIT_BYTES);
      const received = digest(second);
      second.on('data', () => {
        waiting = Math.max(waiting, from.readableLength + to.writableLength);
      });
      expect(await received).toBe(sent.digest('hex'));
      expect(waiting).toBeLessThanOrEqual(LARGEST_WAIT_BYTES);
    }
  );

  test.each([
    [undefined, [[true, 60_000]]],
    [5000, [[true, 5000]]],
    [0, []],
  ] as const)('probes both sides when keepAliveMs is %s', async (keepAliveMs, calls) => {
    const { left, right } = await scene();
    const spies = [left, right].map((socket) => vi.spyOn(socket, 'setKeepAlive'));
    splice(left, right, { keepAliveMs });
    for (const spy of spies) expect(spy.mock.calls).toEqual(calls);
  });
});

test('a buffer is used again only when nothing needs its bytes', async () => {
  const [left, right] = [nodeWorld(), ourWorld()];
  const transfers = Array.from({ length: 6 }, async () => {
    const { client: near, accepted } = await pairIn(left);
    const onread = onreadTo(accepted);
    const { client, accepted: far } = await pairIn(right, { client: { ...HALF_OPEN, onread } });
    splice(accepted, client);
    const bytes = randomBytes(8_000_000);
    far.end(bytes);
    // Its writes wait for some time, while those of the others go on.
    await until(() => accepted.writableLength > 0);
    expect(await digest(near)).toBe(sum(bytes));
  });
  await Promise.all(transfers);
});

test('a socket is reset although it is just ending', async () => {
  const { accepted } = await pairIn(nodeWorld(), { server: HALF_OPEN });
  accepted.end('some');
  reset(accepted);
  await once(accepted, 'close');
  expect(accepted.errored).toBe(null);
});

test('sockets that share a buffer do not mix up their bytes', async () => {
  const world = ourWorld();
  const server = net.createServer(HALF_OPEN);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  const transfers: Promise<void>[] = [];
  for (let i = 0; i < 6; i++) {
    const options = { host: '127.0.0.1', port, ...HALF_OPEN };
    const left = new SharedReadSocket(options).connect(options);
    const [near] = (await once(server, 'connection')) as [net.Socket];
    const bytes = randomBytes(8_000_000);
    near.end(bytes);
    const { client: right, accepted: far } = await pairIn(world, { client: HALF_OPEN });
    splice(left, right as unknown as PresenceSocket);
    const isCarried = async (): Promise<void> => {
      // The presence has no room for some time, while the others go on.
      await until(() => right.writableLength > 0);
      expect(await digest(far)).toBe(sum(bytes));
      far.end();
      await closed(left, right);
    };
    transfers.push(isCarried());
  }
  await Promise.all(transfers);
  server.close();
});

test('an end that cannot be reset, as a unix socket, is closed', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'vp-splice-'));
  const path = join(directory, 'socket');
  const server = net.createServer();
  server.listen(path);
  await once(server, 'listening');
  const near = net.connect(path);
  const [left] = (await once(server, 'connection')) as [net.Socket];
  const { client: right, accepted: far } = await pairIn(ourWorld());
  splice(left, right);
  near.write('some');
  await once(far, 'data');
  const ended = once(near.resume(), 'end');
  far.resetAndDestroy();
  await ended;
  server.close();
  await once(server, 'close');
  await rm(directory, { recursive: true });
});

test('a socket whose end is just being sent is reset and closed', async () => {
  const { client: near, accepted: far } = await pairIn(nodeWorld(), {
    client: HALF_OPEN,
    server: HALF_OPEN,
  });
  const onError = vi.fn();
  near.on('error', onError);
  near.end();
  reset(near);
  await Promise.race([closed(near), until(() => onError.mock.calls.length > 0)]);
  expect(onError.mock.calls).toEqual([]);
  const failed = once(far, 'error');
  far.write('answer');
  expect(await failed).toMatchObject([{ code: expect.stringMatching(/^(EPIPE|ECONNRESET)$/) }]);
});

/** One chunk that was read, one that was written, and what the two sockets hold of themselves: Node 22 changed that. */
const LARGEST_WAIT_BYTES = 2 * 65_536 + 2 * getDefaultHighWaterMark(false);

const sum = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

async function digest(socket: net.Socket): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) hash.update(chunk);
  return hash.digest('hex');
}

async function text(socket: net.Socket): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}
