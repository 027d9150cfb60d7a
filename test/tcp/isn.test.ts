import { createHmac } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { IpAddress } from '../../src/base/address.ts';
import type { Flow } from '../../src/tcp/flow.ts';
import { SequenceNumbers } from '../../src/tcp/isn.ts';
import { seqDistance } from '../../src/tcp/sequence.ts';
import { Random } from '../support/random.ts';

const secret = new Random(1).bytes(32);

const flow = (local: string, localPort: number, remote: string, remotePort: number): Flow => {
  const from = IpAddress.parse(local);
  const to = IpAddress.parse(remote);
  return { family: from.family, local: from, localPort, remote: to, remotePort, hash: 0 };
};

const A = flow('10.0.0.1', 40_000, '10.0.0.2', 80);
const V6 = flow('2001:db8::1', 40_000, '2001:db8::2', 80);

describe('SequenceNumbers', () => {
  test('the sequence number of a flow goes up by one in 4 µs, across its wrap', () => {
    const numbers = new SequenceNumbers(secret);
    for (const now of [0, 1e6, 17_179_869.18, 1e12]) {
      expect(seqDistance(numbers.isn(A, now), numbers.isn(A, now + 1_000))).toBe(250_000);
    }
    expect(seqDistance(numbers.isn(A, 5), numbers.isn(A, 5.004))).toBe(1);
  });

  test('each part of the flow, and the secret, changes the sequence number', () => {
    const numbers = new SequenceNumbers(secret);
    const all = [
      A,
      flow('10.0.0.3', 40_000, '10.0.0.2', 80),
      flow('10.0.0.1', 40_001, '10.0.0.2', 80),
      flow('10.0.0.1', 40_000, '10.0.0.4', 80),
      flow('10.0.0.1', 40_000, '10.0.0.2', 81),
      flow('10.0.0.2', 80, '10.0.0.1', 40_000),
      V6,
      flow('2001:db8::1', 40_000, '2001:db8::3', 80),
    ].map((each) => numbers.isn(each, 0));
    all.push(new SequenceNumbers(new Random(2).bytes(32)).isn(A, 0));
    expect(new Set(all).size).toBe(all.length);
    for (const each of all) expect(each).toBe(each | 0);
  });

  test('all connections between two addresses have the same timestamp offset, others another', () => {
    const numbers = new SequenceNumbers(secret);
    const offset = numbers.timestampOffset(A);
    expect(numbers.timestampOffset(flow('10.0.0.1', 1, '10.0.0.2', 2))).toBe(offset);
    expect(numbers.timestampOffset(flow('10.0.0.1', 40_000, '10.0.0.3', 80))).not.toBe(offset);
    expect(numbers.timestampOffset(V6)).not.toBe(offset);
    expect(numbers.isn(A, 0)).not.toBe(offset);
  });

  test('refuses a secret of another length, and does not follow changes of its bytes', () => {
    expect(() => new SequenceNumbers(new Uint8Array(31))).toThrow(/32 bytes, not 31/);
    const own = Uint8Array.from(secret);
    const numbers = new SequenceNumbers(own);
    own.fill(0);
    expect(numbers.isn(A, 0)).toBe(new SequenceNumbers(secret).isn(A, 0));
  });

  test('the reference that the table hash is compared with gives the published values', () => {
    const key = Uint8Array.from({ length: 8 }, (_, i) => i);
    const message = (length: number) => Uint8Array.from({ length }, (_, i) => i);
    const hashes = [0, 1, 2, 3, 4, 5].map((length) => halfSipHash(2, 4, key, message(length)));
    expect(hashes).toEqual([
      0x5b9f35a9, 0xb85a4727, 0x03a662fa, 0x04e7fe8a, 0x89466e2a, 0x69b6fac5,
    ]);
  });

  test('the table hash is HalfSipHash-1-3 of the words, 30 bits of it (seed 5)', () => {
    const random = new Random(5);
    const numbers = new SequenceNumbers(secret);
    const label = new Uint8Array(40);
    label[0] = 1;
    const key = createHmac('sha256', secret).update(label).digest().subarray(0, 8);
    for (let i = 0; i < 500; i++) {
      const length = random.pick([1, 4]);
      const words = Array.from({ length: 2 * length }, () => random.below(2 ** 32) | 0);
      const ports = [random.below(65_536), random.below(65_536)] as const;
      const message = new DataView(new ArrayBuffer(8 * length + 4));
      for (const [at, word] of words.entries()) message.setInt32(4 * at, word, true);
      message.setInt32(8 * length, (ports[0] << 16) | ports[1], true);
      const hash = numbers.flowHash(
        words.slice(0, length),
        ports[0],
        words.slice(length),
        ports[1]
      );
      expect(hash).toBe(halfSipHash(1, 3, key, new Uint8Array(message.buffer)) >>> 2);
      expect(hash).toBeLessThan(2 ** 30);
    }
  });

  test('the table hash takes words from any kind of list', () => {
    const numbers = new SequenceNumbers(secret);
    const { words: local } = A.local;
    const { words: remote } = A.remote;
    expect(numbers.flowHash(Int32Array.from(local), 1, Int32Array.from(remote), 2)).toBe(
      numbers.flowHash(local, 1, remote, 2)
    );
  });

  test('the low bits of the table hash spread flows that differ in one port', () => {
    const numbers = new SequenceNumbers(secret);
    const places = new Array<number>(256).fill(0);
    for (let port = 0; port < 65_536; port++) {
      places[numbers.flowHash(A.local.words, port, A.remote.words, 80) & 255]!++;
    }
    for (const count of places) expect(Math.abs(count - 256)).toBeLessThan(100);
  });
});

/** HalfSipHash with `c` rounds for each word and `d` at the end, as its authors describe it, byte by byte. */
function halfSipHash(c: number, d: number, key: Uint8Array, message: Uint8Array): number {
  const word = (bytes: ArrayLike<number>, at: number): number =>
    bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
  const rotate = (value: number, by: number): number => (value << by) | (value >>> (32 - by));
  const v = [word(key, 0), word(key, 4), word(key, 0) ^ 0x6c796765, word(key, 4) ^ 0x74656462];
  const add = (to: number, from: number, by: number): void => {
    v[to] = (v[to]! + v[from]!) | 0;
    v[from] = rotate(v[from]!, by) ^ v[to]!;
  };
  const round = (): void => {
    add(0, 1, 5);
    v[0] = rotate(v[0]!, 16);
    add(2, 3, 8);
    add(0, 3, 7);
    add(2, 1, 13);
    v[2] = rotate(v[2]!, 16);
  };
  const padded = [...message];
  while (padded.length % 4 !== 3) padded.push(0);
  padded.push(message.length & 255);
  for (let at = 0; at < padded.length; at += 4) {
    v[3]! ^= word(padded, at);
    for (let i = 0; i < c; i++) round();
    v[0]! ^= word(padded, at);
  }
  v[2]! ^= 0xff;
  for (let i = 0; i < d; i++) round();
  return (v[1]! ^ v[3]!) >>> 0;
}
