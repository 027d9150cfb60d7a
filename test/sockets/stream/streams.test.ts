/**
 * Node's tools for streams over sockets. Each case runs on `node:net` and on presences.
 */
import { once } from 'node:events';
import type net from 'node:net';
import { Duplex, finished, Readable, Transform } from 'node:stream';
import { text } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { describe, expect, test } from 'vitest';
import { closeAfterEach, closed, pairIn, settled, worlds } from '../worlds.ts';

closeAfterEach();

const upper = (): Transform =>
  new Transform({
    transform: (chunk, _, done) => done(null, String(chunk).toUpperCase()),
  });

const outcome = (socket: net.Socket): Promise<string | undefined> =>
  new Promise((resolve) => {
    finished(socket, (error) => resolve(error?.code ?? undefined));
  });

describe.each(worlds)('streams %#', (makeWorld) => {
  const world = makeWorld();

  test(`Readable.from is piped into a socket, with its end (${world.name})`, async () => {
    const { client, accepted } = await pairIn(world);
    const parts = Array.from({ length: 500 }, (_, i) => `part ${i},`);
    Readable.from(parts).pipe(client);
    expect(await text(accepted)).toBe(parts.join(''));
    client.resume();
    await closed(client, accepted);
  });

  test('pipeline through a transform and back ends all of its streams', async () => {
    const { client, accepted } = await pairIn(world, { server: { allowHalfOpen: true } });
    const echo = pipeline(accepted, upper(), accepted);
    client.end('a little text');
    expect(await text(client)).toBe('A LITTLE TEXT');
    await echo;
    await closed(client, accepted);
  });

  test('pipeline fails when the far end resets, and destroys its streams', async () => {
    const { client, accepted } = await pairIn(world);
    const source = new Readable({ read() {} });
    const done = pipeline(source, client).then(
      () => 'done',
      (error) => error.code
    );
    source.push('x');
    await once(accepted, 'data');
    accepted.resetAndDestroy();
    expect(await done).toBe('ECONNRESET');
    expect([source.destroyed, client.destroyed]).toEqual([true, true]);
  });

  test('iteration ends with the far end, and leaving it destroys the socket', async () => {
    const one = await pairIn(world);
    one.accepted.end('abc');
    let all = '';
    for await (const chunk of one.client) all += chunk;
    expect(all).toBe('abc');
    await closed(one.client);
    const other = await pairIn(world);
    other.accepted.on('error', () => {});
    other.accepted.write('abc');
    for await (const _ of other.client) break;
    expect(other.client.destroyed).toBe(true);
    await closed(other.client);
  });

  test('iteration that must not destroy leaves a socket that works', async () => {
    const { client, accepted } = await pairIn(world);
    accepted.pipe(accepted);
    client.write('one');
    for await (const chunk of client.iterator({ destroyOnReturn: false })) {
      expect(String(chunk)).toBe('one');
      break;
    }
    expect(client.destroyed).toBe(false);
    client.end('two');
    expect(await text(client)).toBe('two');
  });

  test('iteration throws the error of the socket', async () => {
    const { client, accepted } = await pairIn(world);
    accepted.write('abc');
    const seen: unknown[] = [];
    try {
      for await (const chunk of client) {
        seen.push(String(chunk));
        accepted.resetAndDestroy();
      }
    } catch (error) {
      seen.push((error as NodeJS.ErrnoException).code);
    }
    expect(seen).toEqual(['abc', 'ECONNRESET']);
  });

  test('finished tells of an end, of an early close and of an error', async () => {
    const whole = await pairIn(world);
    const ended = [outcome(whole.client), outcome(whole.accepted)];
    whole.client.resume().end();
    whole.accepted.resume();
    expect(await Promise.all(ended)).toEqual([undefined, undefined]);
    const early = await pairIn(world);
    const closedEarly = outcome(early.client);
    early.client.destroy();
    expect(await closedEarly).toBe('ERR_STREAM_PREMATURE_CLOSE');
    const failed = await pairIn(world);
    const reset = outcome(failed.client);
    failed.accepted.resetAndDestroy();
    expect(await reset).toBe('ECONNRESET');
  });

  test('a socket becomes a pair of web streams', async () => {
    const { client, accepted } = await pairIn(world);
    accepted.pipe(accepted);
    const { readable, writable } = Duplex.toWeb(client);
    const writer = writable.getWriter();
    await writer.write(Buffer.from('over the web'));
    await writer.close();
    let all = '';
    for await (const chunk of readable) all += Buffer.from(chunk as Uint8Array).toString();
    expect(all).toBe('over the web');
  });

  test('operators of Readable take the bytes of a socket', async () => {
    const { client, accepted } = await pairIn(world);
    accepted.end('abc');
    const parts = await client.map((chunk: Buffer) => chunk.length).toArray();
    expect(parts.reduce((sum: number, length: number) => sum + length, 0)).toBe(3);
  });

  test('corked writes go out together, and strings keep their encodings', async () => {
    const { client, accepted } = await pairIn(world);
    client.cork();
    client.write('61', 'hex');
    client.write('Yg==', 'base64');
    client.setDefaultEncoding('latin1');
    client.write('\u00e9');
    client.uncork();
    client.end(new Uint8Array([0x64]));
    expect(await text(accepted.setEncoding('latin1'))).toBe('ab\u00e9d');
  });

  test('unshift puts bytes back in front', async () => {
    const { client, accepted } = await pairIn(world);
    accepted.end('abcdef');
    await once(client, 'readable');
    const first = client.read(4) as Buffer;
    client.unshift(first.subarray(2));
    expect(String(first) + (await text(client))).toBe('abcdcdef');
    await settled();
  });
});
