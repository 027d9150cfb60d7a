/**
 * Answers that are bytes, piece by piece: to their end, to a client that goes away, to one that is slow, and at the end of
 * the server.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { AdminClient, AdminServer, type Operation, PCAPNG_TYPE } from '../../src/admin/index.ts';
import { ConflictError } from '../../src/errors.ts';

interface StreamCall {
  readonly stream: AsyncIterable<Uint8Array>;
}

const OPERATIONS: { readonly capture: Operation<StreamCall> } = {
  capture: {
    method: 'POST',
    path: '/v1/captures',
    summary: 'A test',
    role: 'operator',
    streamType: PCAPNG_TYPE,
  },
};

let directory: string;
let socketPath: string;
let server: AdminServer | undefined;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'vp-stream-'));
  socketPath = join(directory, 'admin.sock');
});
afterEach(async () => {
  await server?.close();
  rmSync(directory, { recursive: true });
});

async function serve(
  capture: (signal: AbortSignal) => AsyncIterable<Uint8Array> | Promise<AsyncIterable<Uint8Array>>,
  timeoutMs = 10_000
): Promise<AdminClient<typeof OPERATIONS>> {
  server = await AdminServer.listen({
    socketPath,
    timeoutMs,
    operations: OPERATIONS,
    handlers: { capture: ({ signal }) => capture(signal) },
  });
  return new AdminClient({ socketPath, operations: OPERATIONS });
}

/** Yields pieces without an end, and notes how it ended. */
async function* endless(ended: () => void, piece: Uint8Array): AsyncGenerator<Uint8Array> {
  try {
    for (;;) {
      await turn();
      yield piece;
    }
  } finally {
    ended();
  }
}

test('come whole and in order', async () => {
  const client = await serve(async function* () {
    for (let i = 0; i < 100; i++) yield Buffer.alloc(10_000, i);
  });
  const received: Uint8Array[] = [];
  for await (const piece of await client.stream('capture', {})) received.push(piece);
  const expected = Buffer.concat(Array.from({ length: 100 }, (_, i) => Buffer.alloc(10_000, i)));
  expect(Buffer.concat(received).equals(expected)).toBe(true);
});

test('end when the client leaves its loop', async () => {
  let end!: () => void;
  const ended = new Promise<void>((resolve) => {
    end = resolve;
  });
  const client = await serve(() => endless(end, Buffer.alloc(1_000)));
  for await (const piece of await client.stream('capture', {})) {
    expect(piece.length).toBeGreaterThan(0);
    break;
  }
  await ended;
});

test('are not read ahead of a client that is slow', async () => {
  let read = 0;
  const client = await serve(async function* () {
    for (; ; read++) yield Buffer.alloc(100_000);
  });
  const stream = (await client.stream('capture', {}))[Symbol.asyncIterator]();
  await stream.next();
  const seen = read;
  for (let i = 0; i < 100; i++) await turn();
  expect(read - seen).toBeLessThan(50);
  await stream.return?.();
});

test('that begin with an error are refused', async () => {
  const client = await serve(() => Promise.reject(new ConflictError('two captures run')));
  await expect(client.stream('capture', {})).rejects.toMatchObject({ problem: { status: 409 } });
});

test('that fail on the way are not complete for the client', async () => {
  const client = await serve(async function* () {
    yield Buffer.alloc(1_000);
    throw new Error('a fault');
  });
  const read = async () => {
    for await (const _ of await client.stream('capture', {}));
  };
  await expect(read()).rejects.toMatchObject({ code: 'ERR_PRESENCE_ENVIRONMENT' });
});

test('end with the server, whose signal they follow', async () => {
  const client = await serve(async function* (signal) {
    for (; !signal.aborted; await turn()) yield Buffer.alloc(10);
    yield Buffer.from('the end');
  });
  const stream = await client.stream('capture', {});
  const iterator = stream[Symbol.asyncIterator]();
  await iterator.next();
  const closing = server!.close();
  let last = '';
  for (let next = await iterator.next(); next.done !== true; next = await iterator.next()) {
    last = Buffer.from(next.value).toString();
  }
  expect(last).toMatch(/the end$/);
  await closing;
});

test('do not hold up the end of the server if nobody reads them', async () => {
  let end!: () => void;
  const ended = new Promise<void>((resolve) => {
    end = resolve;
  });
  const client = await serve(() => endless(end, Buffer.alloc(1_000_000)), 50);
  const stream = (await client.stream('capture', {}))[Symbol.asyncIterator]();
  await stream.next();
  await server!.close();
  await ended;
  await stream.return?.();
});
