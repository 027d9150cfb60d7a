/**
 * How connections between the stack and Linux begin, rest and end.
 * @module
 */
import { once } from 'node:events';
import { connect } from 'node:net';
import { afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { type Clock, systemClock } from '../../src/base/clock.ts';
import { titled, useNamespace } from '../support/namespace.ts';
import { type Digest, exchange, receive, send } from './exchange.ts';
import { type End, Link, type LinkOptions, otherEnd, prepareNamespace, sysctl } from './link.ts';
import { connected, ending, listening, open, type Pair, portOf } from './pair.ts';
import { segmentOf } from './tcp-header.ts';

const skipReason = await useNamespace();

const ENDS: readonly End[] = ['stack', 'linux'];
/** Each end as the one that acts, with both IP versions. */
const CELLS = ENDS.flatMap((end) => ([4, 6] as const).map((family) => [end, family] as const));
const MIB = 1_048_576;

const links: Link[] = [];
async function openLink(options: LinkOptions = {}): Promise<Link> {
  const link = await Link.open(options);
  links.push(link);
  return link;
}
afterEach(async () => {
  for (const link of links.splice(0)) await link.close();
});

describe.skipIf(skipReason !== undefined)(titled('the stack and Linux', skipReason), () => {
  beforeAll(prepareNamespace);

  test.each(CELLS)('%s is refused by a closed port over IPv%i', async (end, family) => {
    const link = await openLink();
    await expect(open(link, end, 9, family)).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    expect(link.stack.tcp.sizes).toMatchObject({ connections: 0, timers: 0 });
  });

  test.each(CELLS)(
    '%s closes its half first over IPv%i, and still reads all',
    async (end, family) => {
      const link = await openLink();
      const pair = await connected(link, end, family);
      const first = pair[end];
      const second = pair[otherEnd(end)];
      const endings = [ending(first), ending(second)];
      const got = receive(first);
      const asked = receive(second);
      first.end('request');
      await once(second, 'end');
      expect(asked().bytes).toBe(7);
      const sent = await send(second, { bytes: 2 * MIB, seed: 5 });
      expect(await Promise.all(endings)).toEqual([undefined, undefined]);
      expect(got()).toEqual(sent);
      await vi.waitFor(() => expect(link.stack.tcp.sizes.connections).toBe(0));
      expect(link.stack.tcp.memory.used).toBe(0);
    }
  );

  test.each(CELLS)('%s resets, and the other end learns of it over IPv%i', async (end, family) => {
    const link = await openLink();
    const pair = await connected(link, end, family);
    const reset = ending(pair[otherEnd(end)]);
    pair[otherEnd(end)].resume();
    pair[end].resetAndDestroy();
    expect(await reset).toBe('ECONNRESET');
    await vi.waitFor(() => expect(link.stack.tcp.sizes.connections).toBe(0));
    expect(link.stack.tcp.sizes).toMatchObject({ timeWait: 0, timers: 0 });
  });

  test.each(ENDS)('%s is reset when it writes to an end that has left', async (end) => {
    const link = await openLink();
    const pair = await connected(link, end);
    const writer = pair[end];
    const failed = ending(writer);
    pair[otherEnd(end)].destroy();
    await once(writer.resume(), 'end');
    const write = (): void =>
      void (writer.writable && writer.write('more', () => setImmediate(write)));
    write();
    expect(['ECONNRESET', 'EPIPE']).toContain(await failed);
  });

  test.each(ENDS)('%s leaves with data unread, which resets the other end', async (end) => {
    const link = await openLink();
    const pair = await connected(link, end);
    pair[otherEnd(end)].write(Buffer.alloc(100_000));
    const reset = ending(pair[otherEnd(end)]);
    await vi.waitFor(() => expect(link.packetsOf(otherEnd(end)).delivered).toBeGreaterThan(2));
    pair[end].destroy();
    expect(await reset).toBe('ECONNRESET');
  });

  test.each(ENDS)('both ends close at once, after %s connected', async (end) => {
    const link = await openLink({ faults: { delayMs: 20 } });
    const pair = await connected(link, end);
    const finished: End[] = [];
    link.onPacket = (from, packet) => {
      if (!segmentOf(packet)!.isFin) return;
      // Each sends its FIN before it has seen the other one.
      if (finished.length === 1) {
        const { sent, delivered } = link.packetsOf(finished[0]!);
        expect(delivered).toBeLessThan(sent);
      }
      finished.push(from);
    };
    const endings = [ending(pair.stack.resume()), ending(pair.linux.resume())];
    pair.stack.end();
    pair.linux.end();
    expect(await Promise.all(endings)).toEqual([undefined, undefined]);
    expect(finished.sort()).toEqual(['linux', 'stack']);
    await vi.waitFor(() => expect(link.stack.tcp.sizes.connections).toBe(0));
  });

  test('both ends connect at once to each other', async () => {
    const link = await openLink({ faults: { delayMs: 20 } });
    const { stack, linux } = link.addresses(4);
    const theirs = connect({ host: stack, port: 7001, localAddress: linux, localPort: 7002 });
    const ours = link.stack.connect({ host: linux, port: 7002, localPort: 7001 });
    await Promise.all([once(ours, 'connect'), once(theirs, 'connect')]);
    const [got, sent] = [receive(ours), receive(theirs)];
    const endings = [ending(ours), ending(theirs)];
    theirs.end('from linux');
    ours.end('from the stack');
    expect(await Promise.all(endings)).toEqual([undefined, undefined]);
    expect([got().bytes, sent().bytes]).toEqual([10, 14]);
  });

  test.each(ENDS)('%s stops reading: the other end only probes, and goes on later', async (end) => {
    const link = await openLink();
    const pair = await connected(link, end);
    const reader = pair[end];
    const writer = pair[otherEnd(end)];
    const { memory } = link.stack.tcp;
    let window = -1;
    let probes = 0;
    let probedBytes = 0;
    link.onPacket = (from, packet) => {
      const segment = segmentOf(packet)!;
      if (from === end) window = segment.window;
      else if (window === 0 && segment.payload <= 1) probes++;
      else if (window === 0) probedBytes += segment.payload;
    };
    let sent: Digest | undefined;
    const sending = send(writer, { bytes: 24 * MIB, seed: 6 }).then((digest) => {
      sent = digest;
    });
    await vi.waitFor(() => expect(probes).toBeGreaterThanOrEqual(2));
    expect(window).toBe(0);
    expect(sent).toBeUndefined();
    // One slab at least: the buffer grows only as far as the program has read.
    expect(memory.used).toBeGreaterThanOrEqual(65_536);
    // A buffer of 4 MiB, in slabs of 64 KiB.
    expect(memory.used).toBeLessThanOrEqual(4 * MIB + 2 * 65_536);
    expect(probedBytes).toBeLessThan(MIB);
    const got = receive(reader);
    await sending;
    await bothEnd(pair);
    expect(got()).toEqual(sent);
  });

  test("the stack's sequence numbers pass 2^32 in the middle of a transfer", async () => {
    let aheadMs = 0;
    const monotonicMs = (): number => systemClock.monotonicMs() + aheadMs;
    const link = await openLink({ clock: { ...systemClock, monotonicMs } });
    const server = await listening(link, 'linux');
    const first: number[] = [];
    link.onPacket = (from, packet) => {
      const { isSyn, sequence } = segmentOf(packet)!;
      if (from === 'stack' && isSyn) first.push(sequence);
    };
    // With the same addresses and ports, the first number depends on the time alone, which it follows in steps of 4 us.
    const target = { host: link.addresses(4).linux, port: portOf(server), localPort: 5000 };
    const opener = link.stack.connect(target);
    const [[before]] = await Promise.all([once(server, 'connection'), once(opener, 'connect')]);
    const reset = ending(before.resume());
    opener.resetAndDestroy();
    await reset;
    const wanted = 2 ** 32 - MIB;
    aheadMs = ((wanted - first[0]! + 2 ** 32) % 2 ** 32) / 250;
    const accepted = once(server, 'connection');
    const stack = link.stack.connect({ ...target, allowHalfOpen: true });
    const [linux] = await accepted;
    const reports = [
      exchange(stack, { bytes: 4 * MIB, seed: 1 }),
      exchange(linux, { bytes: 4 * MIB, seed: 2 }),
    ];
    const [ours, theirs] = await Promise.all(reports);
    expect(theirs!.received).toEqual(ours!.sent);
    expect(ours!.received).toEqual(theirs!.sent);
    expect(first[1]! + 4 * MIB).toBeGreaterThan(2 ** 32);
    server.close();
  });

  test.each(ENDS)('1,000 short connections from %s', async (end) => {
    const link = await openLink();
    const server = await listening(link, otherEnd(end));
    server.on('connection', (socket) => socket.pipe(socket));
    const port = portOf(server);
    let left = 1_000;
    const client = async (): Promise<void> => {
      while (left-- > 0) {
        const request = `request ${left}`;
        const socket = await open(link, end, port);
        const got = receive(socket);
        const ended = ending(socket);
        socket.end(request);
        expect(await ended).toBeUndefined();
        expect(got().bytes).toBe(request.length);
      }
    };
    await Promise.all(Array.from({ length: 50 }, client));
    server.close();
    await vi.waitFor(() =>
      expect(link.stack.tcp.sizes).toMatchObject({ connections: 0, halfOpen: 0 })
    );
    expect(link.stack.tcp.memory.used).toBe(0);
  });

  test.each(ENDS)('1,000 requests of %s take few packets more than one each way', async (end) => {
    const link = await openLink();
    const pair = await connected(link, end);
    const server = pair[otherEnd(end)];
    server.on('data', (chunk) => server.write(chunk));
    for (let i = 0; i < 1_000; i++) {
      pair[end].write(`request ${i}`);
      await once(pair[end], 'data');
    }
    for (const from of ENDS) {
      // On a busy machine an acknowledgement may leave before the answer is ready.
      expect(link.packetsOf(from).sent).toBeLessThan(1_500);
      expect(link.packetsOf(from).sent).toBeGreaterThan(1_000);
    }
    await bothEnd(pair);
  });

  test.each(ENDS)('100 connections of %s transfer at once over a bad link', async (end) => {
    const faults = { loss: 0.01, duplicate: 0.01, reorder: 0.02, delayMs: 1, seed: 9 };
    const link = await openLink({ faults });
    const server = await listening(link, otherEnd(end));
    server.on('connection', (socket) => socket.pipe(socket));
    const transfers = Array.from({ length: 100 }, async (_, seed) => {
      const socket = await open(link, end, portOf(server));
      const report = await exchange(socket, { bytes: 100_000, seed });
      expect(report.received).toEqual(report.sent);
    });
    await Promise.all(transfers);
    server.close();
    await vi.waitFor(() =>
      expect(link.stack.tcp.sizes).toMatchObject({ connections: 0, halfOpen: 0 })
    );
    expect(link.stack.tcp.memory.used).toBe(0);
  });

  test('Linux answers our keepalive probes, and the connection lives', async () => {
    // By default Linux answers no more than one such probe in 500 ms.
    sysctl('net.ipv4.tcp_invalid_ratelimit=0');
    const link = await openLink({ clock: fastClock(20) });
    const { stack, linux } = await connected(link, 'stack');
    stack.setKeepAlive(true, 1_000);
    const from = link.packetsOf('linux').delivered;
    // More than may stay without an answer.
    await vi.waitFor(() => expect(link.packetsOf('linux').delivered - from).toBeGreaterThan(12));
    expect(link.packetsOf('stack').sent).toBeGreaterThan(12);
    const got = receive(stack);
    linux.end('still there');
    await bothEnd({ stack, linux });
    expect(got().bytes).toBe(11);
  });

  test("the stack answers Linux's keepalive probes", async () => {
    const link = await openLink();
    const { stack, linux } = await connected(link, 'linux');
    const probed: number[] = [];
    link.onPacket = (from, packet) => {
      if (from === 'linux') probed.push(segmentOf(packet)!.payload);
    };
    const before = link.packetsOf('stack').delivered;
    linux.setKeepAlive(true, 1_000);
    await vi.waitFor(() => expect(probed).toEqual([0, 0]));
    await vi.waitFor(() => expect(link.packetsOf('stack').delivered - before).toBe(2));
    await bothEnd({ stack, linux });
  });

  test.each([
    ['by keepalive', { keepAlive: true, keepAliveInitialDelay: 1_000 }, ''],
    ['by the user timeout', { userTimeout: 3_000 }, 'data that nobody acknowledges'],
  ])('a peer that has vanished is noticed %s', async (_, options, data) => {
    const link = await openLink({ clock: fastClock(20) });
    const server = await listening(link, 'linux');
    const host = link.addresses(4).linux;
    const socket = link.stack.connect({ host, port: portOf(server), ...options });
    await once(socket, 'connect');
    link.isCut = true;
    const failed = ending(socket);
    if (data !== '') socket.write(data);
    expect(await failed).toBe('ETIMEDOUT');
    expect(link.stack.tcp.sizes).toMatchObject({ connections: 0, timers: 0 });
    server.close();
  });

  test('a link that is down for a while costs no timeout', async () => {
    const link = await openLink({ clock: fastClock(5) });
    const { stack, linux } = await connected(link, 'stack');
    const got = receive(linux);
    const sending = send(stack, { bytes: 16 * MIB, seed: 7 });
    await vi.waitFor(() => expect(got().bytes).toBeGreaterThan(MIB));
    link.isCut = true;
    link.stack.linkChanged(false);
    const { retransmitted } = link.stack.tcp.counters;
    await new Promise((resolve) => setTimeout(resolve, 400));
    expect(link.stack.tcp.counters).toMatchObject({ timeouts: 0, retransmitted });
    link.isCut = false;
    link.stack.linkChanged(true);
    const sent = await sending;
    await bothEnd({ stack, linux });
    expect(got()).toEqual(sent);
  });

  test('an event loop that is blocked for 300 ms causes no retransmission', async () => {
    const link = await openLink();
    const { stack, linux } = await connected(link, 'stack');
    const got = receive(linux);
    const sending = send(stack, { bytes: 16 * MIB, seed: 8 });
    const { counters } = link.stack.tcp;
    for (const share of [1, 5, 9]) {
      await vi.waitFor(() => expect(got().bytes).toBeGreaterThan(share * MIB), { interval: 1 });
      const { retransmitted, tailProbes, timeouts } = counters;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300);
      // The timers that are due act, and what has arrived is read.
      for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve));
      expect(counters).toMatchObject({ retransmitted, tailProbes, timeouts });
    }
    const sent = await sending;
    await bothEnd({ stack, linux });
    expect(got()).toEqual(sent);
  });
});

/** Ends both directions in order. */
async function bothEnd({ stack, linux }: Pair): Promise<void> {
  const endings = [ending(stack.resume()), ending(linux.resume())];
  stack.end();
  linux.end();
  expect(await Promise.all(endings)).toEqual([undefined, undefined]);
}

/** A clock whose time passes faster, so that a test need not wait for long timers. */
function fastClock(factor: number): Clock {
  return {
    ...systemClock,
    monotonicMs: () => systemClock.monotonicMs() * factor,
    after: (delayMs, callback, background) =>
      systemClock.after(delayMs / factor, callback, background),
  };
}
