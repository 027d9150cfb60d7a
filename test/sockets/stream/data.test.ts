/**
 * How sockets carry data. Each case runs on `node:net` and on presences.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { once } from 'node:events';
import type net from 'node:net';
import { finished, pipeline } from 'node:stream/promises';
import { describe, expect, test } from 'vitest';
import { Random } from '../../support/random.ts';
import {
  closeAfterEach,
  closed,
  listening,
  logOf,
  pairIn,
  settled,
  until,
  worlds,
} from '../worlds.ts';

closeAfterEach();

const MIB = 1_048_576;

const textOf = async (socket: net.Socket): Promise<string> => {
  let text = '';
  for await (const part of socket.setEncoding('utf8')) text += part;
  return text;
};

describe.each(worlds)('data %#', (makeWorld) => {
  const world = makeWorld();
  test(`counts the bytes of both directions (${world.name})`, async () => {
    const { client, accepted } = await pairIn(world);
    client.write('grüße', 'utf8');
    client.write('6869', 'hex');
    client.write(Buffer.from('!'));
    client.end();
    expect(client.bytesWritten).toBe(10);
    accepted.end('ok');
    const texts = await Promise.all([textOf(accepted), textOf(client)]);
    expect(texts).toEqual(['grüßehi!', 'ok']);
    await closed(client, accepted);
    expect([client.bytesRead, client.bytesWritten]).toEqual([2, 10]);
    expect([accepted.bytesRead, accepted.bytesWritten]).toEqual([10, 2]);
  });

  test('delivers a buffer of its own with each data event', async () => {
    const { client, accepted } = await pairIn(world);
    const chunks: Buffer[] = [];
    accepted.on('data', (chunk) => chunks.push(chunk));
    for (const text of ['one', 'two', 'three']) {
      const arrived = once(accepted, 'data');
      client.write(text);
      await arrived;
    }
    expect(chunks.every((chunk) => Buffer.isBuffer(chunk))).toBe(true);
    expect(chunks.map(String)).toEqual(['one', 'two', 'three']);
  });

  test('carries megabytes both ways at once, by pipe', async () => {
    const seed = Math.trunc(Math.random() * 2 ** 31);
    const sent = Buffer.from(new Random(seed).bytes(4096));
    const { client, accepted } = await pairIn(world, { server: { allowHalfOpen: true } });
    const echoed = pipeline(accepted, accepted);
    const chunks: Buffer[] = [];
    client.on('data', (chunk) => chunks.push(chunk));
    for (let i = 0; i < (2 * MIB) / sent.length; i++) {
      if (!client.write(sent)) await once(client, 'drain');
    }
    client.end();
    await Promise.all([echoed, closed(client)]);
    const received = Buffer.concat(chunks);
    expect(received.length).toBe(2 * MIB);
    for (let at = 0; at < received.length; at += sent.length) {
      if (!received.subarray(at, at + sent.length).equals(sent)) {
        expect.fail(`byte ${at}, seed ${seed}`);
      }
    }
  });

  test('returns false from write beyond the high-water mark, and emits drain', async () => {
    const port = await listening(
      world,
      world.server({}, (far) => far.resume())
    );
    const client = world.connect({ port, host: world.address, writableHighWaterMark: 1000 });
    expect(client.write(Buffer.alloc(999))).toBe(true);
    expect(client.write(Buffer.alloc(1))).toBe(false);
    expect([client.writableLength, client.writableNeedDrain]).toEqual([1000, true]);
    await once(client, 'drain');
    expect([client.writableLength, client.connecting]).toEqual([0, false]);
  });

  test('stops the sender when the receiver does not read', async () => {
    const { client, accepted } = await pairIn(world);
    const log = logOf(client);
    accepted.pause();
    // The kernel has more room than our buffers.
    const size = world.isOurs ? 16 : 64;
    let written = 0;
    let isDone = false;
    for (let i = 0; i < size; i++) client.write(Buffer.alloc(MIB), () => written++);
    client.end(() => {
      isDone = true;
    });
    await settled();
    expect(isDone).toBe(false);
    expect(client.writableLength).toBeGreaterThan(0);
    expect(client.bytesWritten).toBe(size * MIB);
    expect(accepted.readableLength).toBeLessThanOrEqual(
      2 * accepted.readableHighWaterMark + 65_536
    );
    let received = 0;
    accepted.on('data', (chunk) => {
      received += chunk.length;
    });
    accepted.resume();
    await closed(client, accepted);
    expect(received).toBe(size * MIB);
    expect(written).toBe(size);
    expect(log.filter((event) => event !== 'end')).toEqual(['finish', 'close:false']);
  });

  test('calls the callbacks of writes in order, also for nothing', async () => {
    const { client, accepted } = await pairIn(world);
    const calls: string[] = [];
    const text = textOf(accepted);
    client.cork();
    client.write('a', () => calls.push('a'));
    client.write('', () => calls.push('nothing'));
    client.write('b', () => calls.push('b'));
    expect(calls).toEqual([]);
    client.uncork();
    client.write('c', () => calls.push('c'));
    client.end('d', () => calls.push('end'));
    expect(calls).toEqual([]);
    expect(await text).toBe('abcd');
    await closed(client);
    expect(calls).toEqual(['a', 'nothing', 'b', 'c', 'end']);
  });

  test('is read by readable and read', async () => {
    const { client, accepted } = await pairIn(world);
    client.end('abcdef');
    const parts: string[] = [];
    accepted.on('readable', () => {
      for (let part = accepted.read(4); part !== null; part = accepted.read(4)) {
        parts.push(String(part));
      }
    });
    await once(accepted, 'end');
    expect(parts).toEqual(['abcd', 'ef']);
  });

  test('keeps what arrives until it is read', async () => {
    const { client, accepted } = await pairIn(world);
    client.write('x');
    client.end('y');
    await until(() => accepted.bytesRead === 2);
    await settled();
    expect([accepted.readableEnded, accepted.readableLength]).toEqual([false, 2]);
    expect(await textOf(accepted)).toBe('xy');
  });

  test('fills the buffer of onread, and pauses when its callback returns false', async () => {
    const calls: string[] = [];
    const buffer = Buffer.alloc(4);
    let answer = true;
    const { client, accepted } = await pairIn(world, {
      client: {
        onread: {
          buffer,
          callback: (count: number, given: Buffer) => {
            calls.push(`${given === buffer} ${given.subarray(0, count)}`);
            return answer;
          },
        },
      },
    });
    const log = logOf(client);
    client.on('data', () => log.push('data'));
    accepted.write('abcdef');
    await until(() => calls.length === 2);
    answer = false;
    accepted.end('ghijkl');
    await until(() => calls.length === 3);
    await settled();
    expect(calls).toEqual(['true abcd', 'true ef', 'true ghij']);
    expect(log).toEqual([]);
    answer = true;
    client.resume();
    await closed(client);
    expect(calls.at(-1)).toBe('true kl');
    expect(log.filter((event) => event !== 'finish')).toEqual(['end', 'close:false']);
    expect([client.bytesRead, client.readableLength]).toEqual([12, 0]);
  });

  test('asks for the next buffer of onread if it is a function', async () => {
    const calls: string[] = [];
    const buffers = ['a', 'b', 'c', 'd', 'e', 'f'].map((fill) => Buffer.alloc(2, fill));
    let next = 0;
    const { accepted, client } = await pairIn(world, {
      client: {
        onread: {
          buffer: () => buffers[next++]!,
          callback: (count: number, given: Uint8Array) => {
            calls.push(
              `${buffers.indexOf(given as Buffer<ArrayBuffer>)} ${given.subarray(0, count)}`
            );
            return true;
          },
        },
      },
    });
    accepted.end('1234');
    await once(client, 'end');
    expect(calls).toEqual(['0 12', '1 34']);
  });

  test('pause and resume stop and start onread', async () => {
    let count = 0;
    const { client, accepted } = await pairIn(world, {
      client: {
        onread: {
          buffer: Buffer.alloc(100),
          callback: (bytes: number) => {
            count += bytes;
            return true;
          },
        },
      },
    });
    client.pause();
    accepted.write('x');
    await settled();
    expect(count).toBe(0);
    client.resume();
    await until(() => count === 1);
  });

  test('works with pipeline and finished', async () => {
    const { client, accepted } = await pairIn(world);
    accepted.resume();
    const over = finished(client);
    client.resume();
    await pipeline(async function* () {
      yield Buffer.from('a');
      yield Buffer.from('b');
    }, client);
    await over;
    await closed(accepted);
    expect(accepted.bytesRead).toBe(2);
  });

  test('calls back in the async context of the call, or of connect while it connects', async () => {
    const storage = new AsyncLocalStorage<string>();
    const seen: [string, unknown][] = [];
    const note = (name: string) => () => seen.push([name, storage.getStore()]);
    const during = <T>(name: string, call: () => T): T => storage.run(name, call);
    const server = world.server({}, (far) => far.resume());
    const port = await listening(world, server);
    const client = during('connect', () => world.connect(port, world.address));
    during('early', () => client.write('x', note('early')));
    await once(client, 'connect');
    during('idle', () => client.setTimeout(20, note('idle')));
    await once(client, 'timeout');
    client.setTimeout(0);
    during('small', () => client.write('x', note('small')));
    // More than there is room for; the writes behind it wait for it.
    during('big', () => client.write(Buffer.alloc(9_000_000), note('big')));
    during('second', () => client.write(Buffer.alloc(9_000_000), note('second')));
    during('end', () => client.end(note('end')));
    await closed(client);
    during('close', () => server.close(note('close')));
    await once(server, 'close');
    expect(seen).toEqual([
      ['early', 'connect'],
      ['idle', 'idle'],
      ['small', 'small'],
      ['big', 'big'],
      ['second', 'big'],
      ['end', 'big'],
      ['close', 'close'],
    ]);
  });

  test('runs listeners in the async context of who connected, and of who listened', async () => {
    const storage = new AsyncLocalStorage<string>();
    const seen = new Map<string, Set<unknown>>();
    const note = (event: string) => () => {
      seen.set(event, (seen.get(event) ?? new Set()).add(storage.getStore()));
    };
    const server = storage.run('server', () => world.server({}));
    server.on('connection', (far: net.Socket) => {
      note('connection')();
      for (const event of ['data', 'end', 'close']) far.on(event, note(`far ${event}`));
      far.on('data', () => far.write('y'));
    });
    const port = await storage.run('server', () => listening(world, server));
    const client = world.socket();
    for (const event of ['connect', 'data', 'end', 'close', 'drain']) client.on(event, note(event));
    client.on('data', () => client.end());
    storage.run('client', () => client.connect(port, world.address));
    await once(client, 'connect');
    client.write('x');
    await closed(client);
    await settled();
    const contexts = Object.fromEntries([...seen].map(([event, stores]) => [event, [...stores]]));
    // Node loses the context of an accepted socket.
    const far = world.isOurs ? ['server'] : contexts['far data'];
    expect(contexts).toEqual({
      connection: ['server'],
      'far data': far,
      'far end': far,
      'far close': far,
      connect: ['client'],
      data: ['client'],
      end: ['client'],
      close: ['client'],
    });
  });

  test('emits timeout after idle time, and does no more', async () => {
    const { client, accepted } = await pairIn(world);
    const log = logOf(client);
    expect(client.timeout).toBe(undefined);
    let calls = 0;
    expect(client.setTimeout(5, () => calls++)).toBe(client);
    expect(client.timeout).toBe(5);
    const timedOut = once(client, 'timeout');
    await timedOut;
    expect(log).toEqual(['timeout']);
    expect(client.destroyed).toBe(false);
    // It starts anew with the next activity.
    const again = once(client, 'timeout');
    accepted.write('x');
    client.resume();
    await once(client, 'data');
    await again;
    expect(calls).toBe(1);
    const listener = () => {};
    client.on('timeout', listener);
    client.setTimeout(0, listener);
    expect(client.listeners('timeout')).not.toContain(listener);
    expect(client.timeout).toBe(0);
  });

  test('checks the time of setTimeout', () => {
    const socket = world.socket();
    expect(() => socket.setTimeout(-1)).toThrow(
      expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' })
    );
    expect(() => socket.setTimeout('x' as never)).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' })
    );
    expect(() => socket.setTimeout(1, 'x' as never)).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' })
    );
  });

  test('returns itself from its setters', () => {
    const socket = world.socket({ noDelay: true, keepAlive: true, keepAliveInitialDelay: 1000 });
    expect(socket.setNoDelay()).toBe(socket);
    expect(socket.setKeepAlive(true, 1000)).toBe(socket);
    expect(socket.ref()).toBe(socket);
    expect(socket.unref()).toBe(socket);
    expect(socket.pause()).toBe(socket);
    expect(socket.resume()).toBe(socket);
  });
});
