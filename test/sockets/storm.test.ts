/**
 * Storms of connections over two stacks. Afterwards nothing may be left of them: no entry, no timer, no slab and no
 * object. With VP_FULL=1 the numbers are larger.
 */
import { once } from 'node:events';
import { setImmediate as nextRound } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import type { SocketStack } from '../../src/sockets/stack.ts';
import type { SocketStackOptions } from '../../src/sockets/stack-options.ts';
import { PresenceSocket } from '../../src/sockets/stream/socket.ts';
import { SYN, tcpPacket } from '../support/packets.ts';
import { Random } from '../support/random.ts';
import { framed, VNET } from '../support/vnet.ts';
import { StackNetwork, siteOf } from './stack-network.ts';
import { AT_REST, FULL, Remains, RoundClock, restOf } from './storm-kit.ts';

const SERVER = '10.2.0.1';
const REQUEST = Buffer.alloc(100, 'q');

interface Storm {
  readonly clock: RoundClock;
  readonly client: SocketStack;
  readonly server: SocketStack;
  readonly remains: Remains;
  readonly port: number;
  /** Sends a request by a new connection and reads the answer. */
  request(): Promise<void>;
  /** Ends the server; resolves when TIME-WAIT is over. */
  end(): Promise<void>;
}

async function begin(options: SocketStackOptions = {}): Promise<Storm> {
  const clock = new RoundClock();
  const network = new StackNetwork(clock);
  const client = network.stack('10.1.0.1');
  const server = network.stackWith({ ...options, address: [SERVER] });
  const remains = new Remains();
  const listener = server.createServer((socket: PresenceSocket) => {
    remains.add(socket);
    let length = 0;
    socket.on('data', (chunk: Buffer) => {
      length += chunk.length;
      if (length === REQUEST.length) socket.end(REQUEST);
    });
  });
  listener.listen({ port: 80, backlog: 4_096 });
  await once(listener, 'listening');
  const request = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const socket = remains.add(client.connect({ port: 80, host: SERVER }));
      let length = 0;
      socket.on('data', (chunk: Buffer) => {
        length += chunk.length;
      });
      socket.on('error', reject);
      socket.on('close', () => {
        if (length === REQUEST.length) resolve();
        else reject(new Error(`${length} bytes were answered`));
      });
      socket.write(REQUEST);
    });
  const end = async (): Promise<void> => {
    listener.close();
    await clock.during(once(listener, 'close'));
    await clock.pass(62_000, 2_000);
  };
  return { clock, client, server, remains, port: 80, request, end };
}

async function expectNothingLeft({ client, server, remains }: Storm): Promise<void> {
  expect(restOf(client)).toEqual(AT_REST);
  expect(restOf(server)).toEqual(AT_REST);
  // The last one may be on a stack frame or in a register.
  expect(await remains.count()).toBeLessThanOrEqual(2);
}

test('nothing is left of thousands of short connections, one after another and in bunches', async () => {
  const storm = await begin();
  const { clock, client, server, request } = storm;
  const total = FULL ? 20_000 : 10_000;
  const work = async (): Promise<void> => {
    for (let done = 0; done < total / 2; done++) await request();
    for (let done = 0; done < total / 2; done += 50) {
      await Promise.all(Array.from({ length: 50 }, request));
    }
  };
  await clock.during(work());
  const counters = client.tcp.counters;
  expect(counters.opened).toBe(total);
  expect(server.tcp.counters.accepted).toBe(total);
  for (const { tcp } of [client, server]) {
    const { failed, retransmitted, resets, timeouts } = tcp.counters;
    expect({ failed, retransmitted, resets, timeouts }).toEqual({
      failed: 0,
      retransmitted: 0,
      resets: 0,
      timeouts: 0,
    });
  }
  await storm.end();
  await expectNothingLeft(storm);
});

test('nothing is left of 1,000 connections at once', async () => {
  const storm = await begin();
  const { clock, client, server, request } = storm;
  const sinceMs = clock.monotonicMs();
  await clock.during(Promise.all(Array.from({ length: 1_000 }, request)));
  // The SYNs beyond half of the table are repeated after 1 s.
  expect(clock.monotonicMs() - sinceMs).toBeLessThan(3_500);
  expect(client.tcp.counters.failed).toBe(0);
  expect(server.tcp.counters.accepted).toBe(1_000);
  await storm.end();
  await expectNothingLeft(storm);
});

test('nothing is left of thousands of sockets that never connect', async () => {
  const clock = new RoundClock();
  const stack = new StackNetwork(clock).stack('10.1.0.1');
  const remains = new Remains();
  const total = FULL ? 20_000 : 2_000;
  for (let i = 0; i < total; i++) {
    const socket = remains.add(new PresenceSocket(stack));
    if (i % 2 === 0) socket.setTimeout(1_000).setKeepAlive(true).setNoDelay();
    if (i % 4 === 0) socket.destroy();
  }
  stack.linkChanged(false);
  let failures = 0;
  for (let i = 0; i < total; i++) {
    const socket = remains.add(stack.connect({ port: 80, host: SERVER, connectTimeout: 60_000 }));
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENETDOWN') failures++;
    });
    if (i % 2 === 0) socket.write(REQUEST);
  }
  await clock.pass(6_000, 1_000);
  expect(failures).toBe(total);
  expect(restOf(stack)).toEqual(AT_REST);
  expect(clock.delays).toEqual([]);
  expect(await remains.count()).toBeLessThanOrEqual(2);
});

describe.each([
  ['IPv4', SERVER, '10.1.9.0'],
  ['IPv6', '2001:db8:2::1', '2001:db8:1:9::'],
] as const)('SYNs from all addresses of a site (%s)', (_, target, base) => {
  test('hold back nobody who is connected, nor who is connected to, and leave nothing', async () => {
    const clock = new RoundClock();
    const network = new StackNetwork(clock);
    const client = network.stack('10.1.0.1', '2001:db8:1::1');
    const server = network.stack(SERVER, '2001:db8:2::1');
    const addresses = ['10.1.0.1', '2001:db8:1::1'];
    const hosts = [{ name: 'far.test', addresses, ports: ['tcp/80'] }];
    server.setSite({ ...siteOf(SERVER, '2001:db8:2::1'), hosts });
    const remains = new Remains();
    const listener = server.createServer((socket) => {
      remains.add(socket).on('data', (chunk: Buffer) => socket.write(chunk));
    });
    listener.listen({ port: 80, backlog: 4_096 });
    const other = client.createServer((socket) => {
      remains.add(socket).on('data', (chunk: Buffer) => socket.end(chunk));
    });
    other.listen(80);
    const talker = remains.add(client.connect({ port: 80, host: target }));
    await clock.during(once(talker, 'connect'));

    const delays = { answer: 0, connect: 0, arrive: 0 };
    const timed = async (
      name: keyof typeof delays,
      work: () => Promise<unknown>
    ): Promise<void> => {
      const sinceMs = clock.monotonicMs();
      await work();
      delays[name] = Math.max(delays[name], clock.monotonicMs() - sinceMs);
    };
    let isFlooding = true;
    let rounds = 0;
    const talk = async (): Promise<void> => {
      while (isFlooding) {
        await timed('answer', () => {
          talker.write(REQUEST);
          return once(talker, 'data');
        });
        await timed('connect', async () => {
          const host = target === SERVER ? '10.1.0.1' : '2001:db8:1::1';
          const socket = remains.add(server.connect({ port: 80, host }));
          socket.end(REQUEST);
          await once(socket.resume(), 'close');
        });
        await timed('arrive', async () => {
          const socket = remains.add(client.connect({ port: 80, host: target }));
          socket.write(REQUEST);
          await once(socket, 'data');
          socket.end();
          await once(socket, 'close');
        });
        rounds++;
      }
    };
    const flood = synFlood(base, target, 80, 7);
    const talking = talk();
    let mostHalfOpen = 0;
    const total = FULL ? 1_000_000 : 100_000;
    for (let sent = 0; sent < total; ) {
      for (let i = 0; i < 50; i++, sent++) {
        const frame = flood();
        server.write(frame, 0, frame.length);
      }
      mostHalfOpen = Math.max(mostHalfOpen, server.tcp.sizes.halfOpen);
      clock.advance(1);
      await nextRound();
    }
    isFlooding = false;
    await clock.during(talking);
    expect(mostHalfOpen).toBe(server.tcp.limits.halfOpen);
    expect(server.tcp.counters.dropSyn).toBeGreaterThan(total / 2);
    expect(rounds).toBeGreaterThan(100);
    expect(delays.answer).toBeLessThan(20);
    expect(delays.connect).toBeLessThan(50);
    expect(delays.arrive).toBeLessThan(50);

    // The table is full, and whoever comes takes the place of the oldest.
    const late = remains.add(client.connect({ port: 80, host: target }));
    const sinceMs = clock.monotonicMs();
    late.write(REQUEST);
    await clock.during(once(late, 'data'));
    expect(clock.monotonicMs() - sinceMs).toBeLessThan(50);

    for (const socket of [late, talker]) socket.end();
    listener.close();
    other.close();
    await clock.during(Promise.all([once(listener, 'close'), once(other, 'close')]));
    await clock.pass(70_000, 2_000);
    expect(restOf(client)).toEqual(AT_REST);
    expect(restOf(server)).toEqual(AT_REST);
    expect(await remains.count()).toBeLessThanOrEqual(4);
  });
});

/** Makes frames with SYNs from random addresses and ports of a prefix: a /24, or a /64 of IPv6. */
function synFlood(base: string, target: string, port: number, seed: number): () => Buffer {
  const random = new Random(seed);
  const isIPv4 = base.includes('.');
  const frames: Buffer[] = [];
  for (let i = 0; i < 256; i++) {
    const source = isIPv4 ? base.replace(/0$/, String(i)) : `${base}${i.toString(16)}`;
    const packet = tcpPacket(
      { source, destination: target },
      {
        sourcePort: 1,
        destinationPort: port,
        flags: SYN,
        window: 65_535,
        tcpOptions: u8s(2, 4, 5, 180, 4, 2, 1, 3, 3, 7),
      }
    );
    // The checksum need not be verified (virtio 1.2 section 5.1.6.4.2).
    frames.push(Buffer.from(framed(packet, { flags: DATA_VALID })));
  }
  const tcp = VNET + (isIPv4 ? 20 : 40);
  return () => {
    const frame = random.pick(frames);
    if (!isIPv4) frame.writeUInt32BE(random.below(2 ** 32), VNET + 8 + 8);
    frame.writeUInt16BE(random.between(1_024, 65_535), tcp);
    frame.writeUInt32BE(random.below(2 ** 32), tcp + 4);
    return frame;
  };
}

const u8s = (...values: number[]): Uint8Array => Uint8Array.from(values);
const DATA_VALID = 2;
