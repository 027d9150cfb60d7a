import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { TcpState } from '../../src/tcp/index.ts';
import { Random } from '../support/random.ts';
import { A4, A6, B4, B6, EndpointPair, TestOwner } from './endpoint-pair.ts';

function bytesOf(length: number, seed = 7): Buffer {
  const source = new Random(seed);
  const random = (): number => source.next();
  const bytes = Buffer.alloc(length);
  for (let i = 0; i < length; i++) bytes[i] = random() * 256;
  return bytes;
}

const hash = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

describe.each([
  ['IPv4', A4, B4],
  ['IPv6', A6, B6],
] as const)('two endpoints with %s', (_family, local, remote) => {
  test.each([true, false])('exchange bytes both ways and close, offload %s', (offload) => {
    const pair = new EndpointPair({ a: { offload }, b: { offload, mtu: 1500 } });
    const server = new TestOwner();
    const client = new TestOwner();
    pair.b.listen(undefined, 80, server, 10);
    pair.a.connect(local, 0, remote, 80, client);
    const up = bytesOf(300_000);
    const down = bytesOf(200_000, 8);
    client.send(up, true);
    server.send(down, true);
    pair.run();
    expect(hash(server.bytes)).toBe(hash(up));
    expect(hash(client.bytes)).toBe(hash(down));
    expect(client.isClosed).toBe(true);
    expect(server.isClosed).toBe(true);
    expect(pair.a.counters.retransmitted + pair.b.counters.retransmitted).toBe(0);
    expect(pair.a.sizes).toEqual({ connections: 0, halfOpen: 0, timeWait: 0, timers: 0 });
    expect(pair.b.sizes).toEqual({ connections: 0, halfOpen: 0, timeWait: 0, timers: 0 });
    expect(pair.a.memory.used + pair.b.memory.used).toBe(0);
  });

  test.each([1, 2, 3, 4, 5])('transfer over a bad network, seed %i', (seed) => {
    const pair = new EndpointPair({ seed, b: { mtu: 1500 } });
    const source = new Random(seed);
    const random = (): number => source.next();
    pair.path = () => {
      if (random() < 0.05) return [];
      const delays = [5 + random() * (random() < 0.1 ? 20 : 1)];
      if (random() < 0.02) delays.push(30 * random());
      return delays;
    };
    const server = new TestOwner();
    const client = new TestOwner();
    pair.b.listen(undefined, 80, server, 10);
    pair.a.connect(local, 0, remote, 80, client);
    const up = bytesOf(2_000_000);
    client.send(up, true);
    server.send(bytesOf(500_000, 8), true);
    pair.run();
    expect(server.bytes.length).toBe(up.length);
    expect(hash(server.bytes)).toBe(hash(up));
    expect(hash(client.bytes)).toBe(hash(bytesOf(500_000, 8)));
    expect(pair.a.sizes).toEqual({ connections: 0, halfOpen: 0, timeWait: 0, timers: 0 });
    expect(pair.a.memory.used + pair.b.memory.used).toBe(0);
  });

  test('a port without a listener refuses', () => {
    const pair = new EndpointPair();
    const client = new TestOwner();
    const connection = pair.a.connect(local, 0, remote, 81, client);
    pair.run();
    expect(connection.failure).toBe('refused');
    expect(connection.state).toBe(TcpState.Closed);
  });
});

test('an endpoint that is destroyed opens nothing', () => {
  const { a } = new EndpointPair();
  a.destroy();
  const error = expect.objectContaining({ name: 'TcpOpenError', code: 'ENETDOWN' });
  expect(() => a.connect(A4, 0, B4, 80, new TestOwner())).toThrow(error);
  expect(() => a.listen(undefined, 80, new TestOwner(), 10)).toThrow(error);
  expect(a.sizes.connections).toBe(0);
});

test('a packet that the device refuses is sent later, and a refused answer takes nothing back', () => {
  const pair = new EndpointPair({ delayMs: 5 });
  const server = new TestOwner();
  const client = new TestOwner();
  pair.b.listen(undefined, 80, server, 10);
  pair.a.connect(A4, 0, B4, 80, client);
  const random = new Random(3);
  pair.isRefused = () => random.chance(0.2);
  const bytes = bytesOf(1_000_000);
  client.send(bytes, true);
  server.send(bytesOf(300_000, 8), true);
  pair.run();
  expect(hash(server.bytes)).toBe(hash(bytes));
  expect(hash(client.bytes)).toBe(hash(bytesOf(300_000, 8)));
  expect(pair.a.counters.refused).toBeGreaterThan(5);
  expect(pair.a.sizes).toEqual({ connections: 0, halfOpen: 0, timeWait: 0, timers: 0 });
  expect(pair.a.memory.used + pair.b.memory.used).toBe(0);
});

test('a packet is taken back also if another endpoint of the process has sent one since', () => {
  const owners = [new TestOwner(), new TestOwner()];
  const pairs = owners.map((owner) => {
    const pair = new EndpointPair({ delayMs: 5 });
    const server = new TestOwner();
    pair.b.listen(undefined, 80, server, 10);
    owner.connection = pair.a.connect(A4, 0, B4, 80, owner);
    pair.run(() => server.connection !== undefined);
    owner.send(Buffer.alloc(100));
    return { pair, server };
  });
  const buffer = Buffer.alloc(70_000);
  const [one, other] = pairs.map(({ pair }) => pair.a);
  expect(one!.read(buffer, 0)).toBeGreaterThan(0);
  expect(other!.read(buffer, 0)).toBeGreaterThan(0);
  one!.refused();
  for (const block of one!.host.blocks) expect(block.loss.outstanding).toBe(0);
  for (const { pair, server } of pairs) {
    pair.run(() => server.bytes.length === 100, 300_000);
    expect(server.bytes).toHaveLength(100);
  }
});

test('an outage of the link loses nothing, and ends without a back-off', () => {
  const pair = new EndpointPair({ delayMs: 5 });
  const server = new TestOwner();
  const client = new TestOwner();
  pair.b.listen(undefined, 80, server, 10);
  pair.a.connect(A4, 0, B4, 80, client);
  const bytes = bytesOf(5_000_000);
  client.send(bytes, true);
  pair.run(() => server.received.length > 20);
  pair.path = () => [];
  pair.a.linkChanged(false);
  pair.b.linkChanged(false);
  pair.run(() => false, 60_000);
  pair.now += 60_000;
  pair.path = () => [5];
  pair.a.linkChanged(true);
  pair.b.linkChanged(true);
  const up = pair.now;
  pair.run(() => server.bytes.length === bytes.length);
  expect(hash(server.bytes)).toBe(hash(bytes));
  expect(pair.a.counters.timeouts).toBe(0);
  expect(pair.now - up).toBeLessThan(3_000);
});
