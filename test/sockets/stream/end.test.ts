/**
 * How sockets end. Each case runs on `node:net` and on presences.
 */
import { once } from 'node:events';
import type net from 'node:net';
import { describe, expect, test } from 'vitest';
import { closeAfterEach, closed, logOf, pairIn, settled, until, worlds } from '../worlds.ts';

closeAfterEach();

const errorOf = async (socket: net.Socket): Promise<NodeJS.ErrnoException> =>
  (await once(socket, 'error'))[0] as NodeJS.ErrnoException;

describe.each(worlds)('end %#', (makeWorld) => {
  const world = makeWorld();
  test(`ends both directions when one end has ended (${world.name})`, async () => {
    const { client, accepted } = await pairIn(world);
    const log = logOf(client);
    const farLog = logOf(accepted);
    client.resume();
    accepted.resume();
    client.end();
    await closed(client, accepted);
    expect(log).toEqual(['finish', 'end', 'close:false']);
    expect(farLog).toEqual(['end', 'finish', 'close:false']);
    expect([client.destroyed, client.readyState, client.pending]).toEqual([true, 'closed', true]);
  });

  test('keeps the other direction with allowHalfOpen', async () => {
    const { client, accepted } = await pairIn(world, { server: { allowHalfOpen: true } });
    const farLog = logOf(accepted);
    client.setEncoding('utf8');
    client.end('question');
    accepted.resume();
    await once(accepted, 'end');
    await settled();
    expect(accepted.readyState).toBe('writeOnly');
    expect(client.readyState).toBe('readOnly');
    accepted.write('ans');
    await once(client, 'data');
    accepted.end('wer');
    client.resume();
    await closed(client, accepted);
    expect(client.bytesRead).toBe(6);
    expect(farLog).toEqual(['end', 'finish', 'close:false']);
  });

  test('emits end although nothing reads, if nothing is left to read', async () => {
    const { client, accepted } = await pairIn(world);
    const farLog = logOf(accepted);
    client.resume();
    client.end();
    await closed(client, accepted);
    expect(farLog).toEqual(['end', 'finish', 'close:false']);
  });

  test('emits no end while something is left to read', async () => {
    const { client, accepted } = await pairIn(world);
    const farLog = logOf(accepted);
    client.end('x');
    await until(() => accepted.bytesRead === 1);
    await settled();
    expect(farLog).toEqual([]);
    accepted.resume();
    client.resume();
    await closed(accepted, client);
    expect(farLog).toEqual(['end', 'finish', 'close:false']);
  });

  test('refuses to write when the other end has ended', async () => {
    const { client, accepted } = await pairIn(world);
    const log = logOf(client);
    client.resume();
    accepted.end();
    // The writable side ends one tick after `end`.
    await once(client, 'end');
    await new Promise(process.nextTick);
    const failure = new Promise((resolve) => client.write('x', resolve));
    expect(await failure).toMatchObject({
      code: 'EPIPE',
      message: 'This socket has been ended by the other party',
    });
    await closed(client);
    expect(log.filter((event) => event !== 'finish')).toEqual(['end', 'error:EPIPE', 'close:true']);
  });

  test('refuses to write after end', async () => {
    const { client } = await pairIn(world);
    client.end();
    client.write('x');
    expect(await errorOf(client)).toMatchObject({ code: 'ERR_STREAM_WRITE_AFTER_END' });
  });

  test('calls the callback of end when all is written', async () => {
    const { client, accepted } = await pairIn(world);
    accepted.resume();
    expect(
      await new Promise((resolve) => client.end('x', () => resolve(client.bytesWritten)))
    ).toBe(1);
  });

  test('sends what was written before destroySoon, then destroys', async () => {
    const { client, accepted } = await pairIn(world);
    const log = logOf(client);
    const farLog = logOf(accepted);
    accepted.resume();
    client.write('x');
    client.destroySoon();
    expect(client.destroyed).toBe(false);
    await closed(client, accepted);
    expect(accepted.bytesRead).toBe(1);
    expect(log).toEqual(['finish', 'close:false']);
    expect(farLog).toEqual(['end', 'finish', 'close:false']);
  });

  test('sends what was written before destroy, and an end, if all was read', async () => {
    const { client, accepted } = await pairIn(world);
    const log = logOf(client);
    const farLog = logOf(accepted);
    accepted.resume();
    client.write('x');
    expect(client.destroy()).toBe(client);
    await closed(client, accepted);
    expect(accepted.bytesRead).toBe(1);
    expect(log).toEqual(['close:false']);
    expect(farLog).toEqual(['end', 'finish', 'close:false']);
  });

  test('resets on destroy if data is left unread', async () => {
    const { client, accepted } = await pairIn(world);
    const farLog = logOf(client);
    accepted.pause();
    client.write(Buffer.alloc(4 * 1_048_576));
    await until(() => accepted.readableLength >= accepted.readableHighWaterMark);
    await settled();
    accepted.destroy();
    const error = await errorOf(client);
    expect(['ECONNRESET', 'EPIPE']).toContain(error.code);
    await closed(client);
    expect(farLog.at(-1)).toBe('close:true');
  });

  test('resets on resetAndDestroy', async () => {
    const { client, accepted } = await pairIn(world);
    const log = logOf(client);
    accepted.resume();
    expect(client.resetAndDestroy()).toBe(client);
    const error = await errorOf(accepted);
    await closed(client, accepted);
    expect(log).toEqual(['close:false']);
    expect({ ...error, message: error.message }).toEqual({
      message: 'read ECONNRESET',
      code: 'ECONNRESET',
      errno: -104,
      syscall: 'read',
    });
  });

  test('notices a reset although nothing reads', async () => {
    const { client, accepted } = await pairIn(world);
    const farLog = logOf(accepted);
    client.resetAndDestroy();
    await closed(accepted);
    expect(farLog).toEqual(['error:ECONNRESET', 'close:true']);
  });

  test('delivers the data that came before a reset', async () => {
    const { client, accepted } = await pairIn(world, { server: { highWaterMark: 16_384 } });
    accepted.pause();
    client.write(Buffer.alloc(50_000));
    await until(() => accepted.readableLength >= accepted.readableHighWaterMark);
    await settled();
    client.resetAndDestroy();
    await settled();
    const farLog = logOf(accepted);
    accepted.resume();
    await closed(accepted);
    expect(accepted.bytesRead).toBe(50_000);
    // libuv reports a reset that it finds together with data as an end.
    if (world.isOurs) expect(farLog).toEqual(['error:ECONNRESET', 'close:true']);
  });

  test('holds a reset back while data is left to read, and fails what is written then', async () => {
    const { client, accepted } = await pairIn(world);
    accepted.pause();
    client.write(Buffer.alloc(4 * 1_048_576));
    await until(() => accepted.readableLength >= accepted.readableHighWaterMark);
    await settled();
    const farLog = logOf(accepted);
    client.resetAndDestroy();
    await settled();
    expect(farLog).toEqual([]);
    const failure = new Promise((resolve) => accepted.write('x', resolve));
    const error = (await failure) as NodeJS.ErrnoException;
    expect(error).toMatchObject({ code: 'ECONNRESET', syscall: 'write' });
    await closed(accepted);
    expect(farLog).toEqual(['error:ECONNRESET', 'close:true']);
  });

  test('fails with EPIPE when the other end has ended, and then resets', async () => {
    const { client, accepted } = await pairIn(world, { client: { allowHalfOpen: true } });
    const log = logOf(client);
    client.resume();
    accepted.destroy();
    await once(client, 'end');
    while (!client.destroyed) {
      client.write('x');
      await settled();
    }
    await closed(client);
    expect(log).toEqual(['end', 'error:EPIPE', 'close:true']);
    expect(client.errored).toMatchObject({ syscall: 'write' });
  });

  test('emits the error of destroy, then close', async () => {
    const { client } = await pairIn(world);
    const log = logOf(client);
    const reason = Object.assign(new Error('enough'), { code: 'ENOUGH' });
    client.destroy(reason);
    await closed(client);
    expect(log).toEqual(['error:ENOUGH', 'close:true']);
    expect(client.errored).toBe(reason);
  });

  test('fails writes that destroy has cut off', async () => {
    const { client, accepted } = await pairIn(world);
    const calls: unknown[] = [];
    accepted.pause();
    for (const size of [32 * 1_048_576, 1]) {
      client.write(Buffer.alloc(size), (error) => {
        calls.push((error as NodeJS.ErrnoException | null)?.code ?? 'none');
      });
    }
    await settled();
    client.destroy();
    await closed(client);
    await settled();
    // Node 20 reports the one that the operating system has begun to take as written.
    expect(world.isOurs ? ['ECANCELED'] : ['ECANCELED', 'none']).toContain(calls[0]);
    expect(calls.slice(1)).toEqual([calls[0] === 'none' ? 'ERR_STREAM_DESTROYED' : 'ECANCELED']);
  });

  test('knows the far end after destroy, if it was asked before', async () => {
    const { client, port } = await pairIn(world);
    expect(client.remotePort).toBe(port);
    client.destroy();
    expect([client.remoteAddress, client.remotePort]).toEqual([world.address, port]);
  });

  test('a listener that throws hurts neither the stream nor the other sockets', async () => {
    const one = await pairIn(world);
    const two = await pairIn(world);
    const thrown: unknown[] = [];
    const others = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    process.on('uncaughtException', (error) => thrown.push(error.message));
    try {
      let isFirst = true;
      one.accepted.on('data', () => {
        if (!isFirst) return;
        isFirst = false;
        throw new Error('listener');
      });
      two.accepted.resume();
      one.client.write('x');
      two.client.write('x');
      await until(() => thrown.length === 1 && two.accepted.bytesRead === 1);
      one.client.end('y');
      one.client.resume();
      await closed(one.accepted);
      expect(one.accepted.bytesRead).toBe(2);
    } finally {
      process.removeAllListeners('uncaughtException');
      for (const listener of others) process.on('uncaughtException', listener);
    }
    expect(thrown).toEqual(['listener']);
  });
});
