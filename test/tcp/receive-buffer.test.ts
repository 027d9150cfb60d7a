import { describe, expect, test } from 'vitest';
import { BufferMemory, LARGE_SLAB, MAX_BUFFER, SMALL_SLAB } from '../../src/tcp/memory.ts';
import { ReceiveBuffer } from '../../src/tcp/receive-buffer.ts';
import { Random } from '../support/random.ts';
import { NaiveReceiver } from './naive-receiver.ts';
import { stream } from './stream.ts';

/** Inserts bytes of the stream at a position of it, given how many were received in order. */
function insertAt(buffer: ReceiveBuffer, received: number, from: number, length: number): number {
  return buffer.insert(stream(from, length), 0, length, from - received);
}

function readAll(buffer: ReceiveBuffer): Uint8Array {
  const target = new Uint8Array(buffer.available);
  expect(buffer.read(target, 0, target.length)).toBe(target.length);
  return target;
}

function blocksOf(buffer: ReceiveBuffer, rcvNxt: number, max = 4): number[] {
  const target = new Int32Array(2 * max);
  return [...target.subarray(0, 2 * buffer.sackBlocks(target, rcvNxt, max))];
}

test('an empty buffer holds no slab, before its first use and after it was read', () => {
  const memory = new BufferMemory();
  const buffer = new ReceiveBuffer(memory);
  expect(buffer.charged).toBe(0);
  expect(insertAt(buffer, 0, 0, 1_448)).toBe(1_448);
  expect(buffer.charged).toBe(SMALL_SLAB);
  expect(insertAt(buffer, 1_448, 1_448, 65_475)).toBe(65_475);
  expect(memory.used + memory.usedSmall).toBe(buffer.charged);
  expect(Buffer.compare(readAll(buffer), stream(0, 66_923))).toBe(0);
  expect(memory.used + memory.usedSmall).toBe(0);
});

test('a segment of 64 KiB into an empty buffer takes one large slab', () => {
  const buffer = new ReceiveBuffer(new BufferMemory());
  insertAt(buffer, 0, 0, 65_475);
  expect(buffer.charged).toBe(LARGE_SLAB);
});

test('the bytes that fill a hole advance RCV.NXT over all ranges behind it that they reach', () => {
  const buffer = new ReceiveBuffer(new BufferMemory());
  expect(insertAt(buffer, 0, 100, 50)).toBe(0);
  expect(insertAt(buffer, 0, 150, 50)).toBe(0);
  expect(insertAt(buffer, 0, 250, 50)).toBe(0);
  expect(buffer.available).toBe(0);
  expect(buffer.outOfOrder).toBe(150);
  expect(insertAt(buffer, 0, 0, 100)).toBe(200);
  expect(buffer.outOfOrder).toBe(50);
  expect(insertAt(buffer, 200, 200, 60)).toBe(100);
  expect(buffer.outOfOrder).toBe(0);
  expect(readAll(buffer)).toEqual(stream(0, 300));
});

test('bytes that are stored stay as they are when others arrive for the same place', () => {
  const buffer = new ReceiveBuffer(new BufferMemory());
  const wrong = new Uint8Array(100).fill(0xff);
  insertAt(buffer, 0, 20, 30);
  insertAt(buffer, 0, 60, 10);
  expect(buffer.insert(wrong, 0, 100, 0)).toBe(100);
  const expected = wrong.slice();
  expected.set(stream(20, 30), 20);
  expected.set(stream(60, 10), 60);
  expect(readAll(buffer)).toEqual(expected);
});

describe('the duplicate for a DSACK', () => {
  const cases: [string, number, number, number, number][] = [
    ['is absent when nothing was stored', 200, 300, -1, -1],
    ['is absent when the bytes only touch a range', 150, 200, -1, -1],
    ['is the whole when a range covers it', 110, 120, 110, 120],
    ['is the part that overlaps at the beginning of a range', 90, 110, 100, 110],
    ['is the part that overlaps at the end of a range', 140, 160, 140, 150],
    ['is the first range that is covered', 50, 600, 100, 150],
  ];
  test.each(cases)('%s', (_, from, to, duplicateFrom, duplicateTo) => {
    const buffer = new ReceiveBuffer(new BufferMemory());
    insertAt(buffer, 0, 100, 50);
    insertAt(buffer, 0, 400, 100);
    insertAt(buffer, 0, from, to - from);
    expect([buffer.duplicateFrom, buffer.duplicateTo]).toEqual([duplicateFrom, duplicateTo]);
    insertAt(buffer, 0, 0, 10);
    expect([buffer.duplicateFrom, buffer.duplicateTo]).toEqual([-1, -1]);
  });
});

describe('SACK blocks', () => {
  test('begin with the range of the last insertion, and follow by age', () => {
    const buffer = new ReceiveBuffer(new BufferMemory());
    for (const from of [500, 100, 300, 700, 900]) insertAt(buffer, 0, from, 50);
    expect(blocksOf(buffer, 0, 3)).toEqual([900, 950, 700, 750, 300, 350]);
    insertAt(buffer, 0, 550, 50);
    expect(blocksOf(buffer, 0, 3)).toEqual([500, 600, 900, 950, 700, 750]);
    expect(blocksOf(buffer, 0, 8)).toHaveLength(10);
  });

  test('begin with the range that a duplicate belongs to', () => {
    const buffer = new ReceiveBuffer(new BufferMemory());
    for (const from of [100, 300]) insertAt(buffer, 0, from, 50);
    insertAt(buffer, 0, 110, 5);
    expect(blocksOf(buffer, 0)).toEqual([100, 150, 300, 350]);
  });

  test('are sequence numbers modulo 2^32', () => {
    const buffer = new ReceiveBuffer(new BufferMemory());
    insertAt(buffer, 0, 0, 10);
    insertAt(buffer, 10, 110, 50);
    expect(blocksOf(buffer, 2 ** 31 - 120)).toEqual([2 ** 31 - 20, -(2 ** 31) + 30]);
  });

  test('are none when nothing is out of order', () => {
    const buffer = new ReceiveBuffer(new BufferMemory());
    expect(blocksOf(buffer, 5)).toEqual([]);
    insertAt(buffer, 0, 10, 10);
    insertAt(buffer, 0, 0, 10);
    expect(blocksOf(buffer, 20)).toEqual([]);
  });
});

test('256 ranges are kept; one more is refused unless it touches another', () => {
  const buffer = new ReceiveBuffer(new BufferMemory());
  for (let i = 1; i <= 300; i++) insertAt(buffer, 0, 2 * i, 1);
  expect(buffer.outOfOrder).toBe(256);
  expect(insertAt(buffer, 0, 2_000, 1)).toBe(0);
  expect(buffer.outOfOrder).toBe(256);
  insertAt(buffer, 0, 1, 1);
  expect(buffer.outOfOrder).toBe(257);
  expect(insertAt(buffer, 0, 3, 1)).toBe(0);
  expect(buffer.outOfOrder).toBe(258);
  expect(insertAt(buffer, 0, 2_000, 1)).toBe(0);
  expect(buffer.outOfOrder).toBe(259);
  expect(insertAt(buffer, 0, 0, 514)).toBe(514);
  expect(readAll(buffer)).toEqual(stream(0, 514));
});

test('single bytes far apart cost at most the window in whole slabs', () => {
  const memory = new BufferMemory();
  const buffer = new ReceiveBuffer(memory);
  for (let i = 255; i >= 0; i--) insertAt(buffer, 0, 1 + i * 16_384, 1);
  expect(buffer.outOfOrder).toBe(256);
  expect(buffer.charged).toBe(MAX_BUFFER);
  expect(insertAt(buffer, 0, MAX_BUFFER, 1)).toBe(0);
  expect(insertAt(buffer, 0, 2 ** 30, 1)).toBe(0);
  expect(buffer.outOfOrder).toBe(256);
  expect(buffer.discardOutOfOrder()).toBe(MAX_BUFFER);
  expect(memory.used).toBe(0);
});

test('no more than 4 MiB are held', () => {
  const buffer = new ReceiveBuffer(new BufferMemory());
  const chunk = new Uint8Array(100_000);
  let received = 0;
  for (let i = 0; i < 50; i++) received += buffer.insert(chunk, 0, chunk.length, 0);
  expect(received).toBe(MAX_BUFFER);
  expect(buffer.available).toBe(MAX_BUFFER);
});

describe('when memory is tight', () => {
  test('bytes out of order take no new large slab, but go to slabs that are held', () => {
    const memory = new BufferMemory(4 * LARGE_SLAB);
    for (let i = 0; i < 3; i++) memory.takeLarge();
    const buffer = new ReceiveBuffer(memory);
    insertAt(buffer, 0, 5_000, 10);
    expect(buffer.charged).toBe(0);
    insertAt(buffer, 0, 4_000, 96);
    expect(buffer.charged).toBe(SMALL_SLAB);
    insertAt(buffer, 0, 4_000, 97);
    expect(buffer.outOfOrder).toBe(96);
  });

  test('bytes out of order also go to the place that was read in the small slab', () => {
    const memory = new BufferMemory(4 * LARGE_SLAB);
    for (let i = 0; i < 3; i++) memory.takeLarge();
    const buffer = new ReceiveBuffer(memory);
    insertAt(buffer, 0, 0, 3_000);
    buffer.read(new Uint8Array(2_500), 0, 2_500);
    insertAt(buffer, 3_000, 4_000, 1_000);
    expect(buffer.outOfOrder).toBe(1_000);
    expect(insertAt(buffer, 3_000, 3_000, 1_000)).toBe(2_000);
    expect(readAll(buffer)).toEqual(stream(2_500, 2_500));
  });

  test('discarding gives every slab back that holds no bytes in order', () => {
    const memory = new BufferMemory();
    const buffer = new ReceiveBuffer(memory);
    insertAt(buffer, 0, 0, LARGE_SLAB);
    insertAt(buffer, LARGE_SLAB, LARGE_SLAB + 10, 10);
    expect(buffer.discardOutOfOrder()).toBe(LARGE_SLAB);
    expect(buffer.charged).toBe(LARGE_SLAB);
    expect(insertAt(buffer, LARGE_SLAB, LARGE_SLAB, 20)).toBe(20);
    expect(Buffer.compare(readAll(buffer), stream(0, LARGE_SLAB + 20))).toBe(0);
  });

  test('`spare` tells how much there is a place for without another large slab', () => {
    const memory = new BufferMemory(4 * LARGE_SLAB);
    const buffer = new ReceiveBuffer(memory);
    expect(buffer.spare).toBe(SMALL_SLAB);
    insertAt(buffer, 0, 0, 1_000);
    expect(buffer.spare).toBe(SMALL_SLAB - 1_000);
    insertAt(buffer, 1_000, 1_000, 4_000);
    expect(buffer.spare).toBe(SMALL_SLAB + LARGE_SLAB - 5_000);
    buffer.read(new Uint8Array(4_500), 0, 4_500);
    expect(buffer.spare).toBe(SMALL_SLAB + LARGE_SLAB - 5_000);
    readAll(buffer);
    insertAt(buffer, 5_000, 5_000 + LARGE_SLAB, 10);
    expect(buffer.spare).toBe(0);
  });
});

describe('when the memory is used up', () => {
  test('a connection that is read gets on with its small slab', () => {
    const memory = new BufferMemory(LARGE_SLAB);
    memory.takeLarge();
    const buffer = new ReceiveBuffer(memory);
    let received = 0;
    let read = 0;
    for (let i = 0; i < 50; i++) {
      const { spare } = buffer;
      const advance = insertAt(buffer, received, received, 10_000);
      expect(advance).toBe(spare);
      received += advance;
      const target = new Uint8Array(1_500);
      expect(buffer.read(target, 0, 1_500)).toBe(1_500);
      expect(target).toEqual(stream(read, 1_500));
      read += 1_500;
    }
    expect(buffer.charged).toBe(SMALL_SLAB);
  });

  test('bytes in order take the place of those out of order', () => {
    const memory = new BufferMemory(2 * LARGE_SLAB);
    const buffer = new ReceiveBuffer(memory);
    insertAt(buffer, 0, 2 * LARGE_SLAB, 10);
    memory.takeLarge();
    expect(insertAt(buffer, 0, 0, 5_000)).toBe(5_000);
    expect(buffer.outOfOrder).toBe(0);
    expect(buffer.charged).toBe(LARGE_SLAB);
    expect(readAll(buffer)).toEqual(stream(0, 5_000));
  });

  test('bytes in order are stored as far as there is memory', () => {
    const memory = new BufferMemory(LARGE_SLAB);
    const buffer = new ReceiveBuffer(memory);
    expect(insertAt(buffer, 0, 0, 60_000)).toBe(60_000);
    expect(insertAt(buffer, 60_000, 60_000, 60_000)).toBe(5_536);
    expect(insertAt(buffer, 65_536, 65_536, 1)).toBe(0);
    expect(Buffer.compare(readAll(buffer), stream(0, 65_536))).toBe(0);
    expect(insertAt(buffer, 65_536, 65_536, 1)).toBe(1);
  });
});

/** Shapes of hostile and of ordinary arrivals: the offset from RCV.NXT and the length. */
const shapes: Record<string, (random: Random) => [offset: number, length: number]> = {
  'segments in any order': (random) => [1_448 * random.below(40), 1_448],
  'single bytes': (random) => [random.below(600), 1],
  'overlaps of any size': (random) => [random.below(30_000), random.between(1, 20_000)],
  'super-segments': (random) => [random.pick([0, 0, 65_475, 130_950]), 65_475],
  'bytes around slab edges': (random) => [
    Math.max(0, random.pick([4_096, 65_536, 69_632, 131_072]) + random.between(-3, 3)),
    random.pick([1, 2, 5, 70_000]),
  ],
  mixed: (random) => [
    random.chance(0.3) ? 0 : random.below(200_000),
    random.pick([1, 100, 1_448, 9_000, 65_475]),
  ],
};

describe.each(Object.keys(shapes))('with %s', (name) => {
  test.each([1, 2])('it does what a naive receiver does (seed %i)', (seed) => {
    const random = new Random(seed);
    const memory = new BufferMemory();
    const buffer = new ReceiveBuffer(memory);
    const naive = new NaiveReceiver();
    const rcvNxtAtZero = random.below(2 ** 32) | 0;
    for (let step = 0; step < 200; step++) {
      const [offset, length] = shapes[name]!(random);
      const bytes = random.chance(0.5)
        ? stream(naive.received + offset, length)
        : new Uint8Array(length).fill(random.below(256));
      const advance = buffer.insert(Buffer.concat([Buffer.of(1, 2), bytes]), 2, 2 + length, offset);
      expect(advance).toBe(naive.insert(bytes, offset));
      expect([buffer.duplicateFrom, buffer.duplicateTo]).toEqual(naive.duplicate);
      if (random.chance(0.3)) {
        const target = new Uint8Array(random.pick([1, 1_000, 70_000, 300_000]));
        const count = buffer.read(target, 0, target.length);
        const expected = naive.read(target.length);
        expect(count).toBe(expected.length);
        expect(Buffer.compare(target.subarray(0, count), expected)).toBe(0);
      }
      if (random.chance(0.02)) {
        buffer.discardOutOfOrder();
        naive.discardOutOfOrder();
      }
      expect(buffer.available).toBe(naive.available);
      expect(buffer.outOfOrder).toBe(naive.outOfOrder);
      const rcvNxt = (rcvNxtAtZero + naive.received) | 0;
      expect(blocksOf(buffer, rcvNxt)).toEqual(
        naive.blocks(4).map((offset) => (rcvNxt + offset) | 0)
      );
      expect(memory.used + memory.usedSmall).toBe(buffer.charged);
      if (buffer.available + buffer.outOfOrder === 0) expect(buffer.charged).toBe(0);
    }
    buffer.destroy();
    expect(memory.used + memory.usedSmall).toBe(0);
  });

  test.each([1, 2])('the stream stays whole when memory is short (seed %i)', (seed) => {
    const random = new Random(seed);
    const memory = new BufferMemory(6 * LARGE_SLAB);
    const buffers = Array.from({ length: 4 }, () => new ReceiveBuffer(memory));
    const received = buffers.map(() => 0);
    const read = buffers.map(() => 0);
    for (let step = 0; step < 400; step++) {
      const which = random.below(buffers.length);
      const buffer = buffers[which]!;
      const [offset, length] = shapes[name]!(random);
      const { spare } = buffer;
      const advance = insertAt(buffer, received[which]!, received[which]! + offset, length);
      if (offset === 0) expect(advance).toBeGreaterThanOrEqual(Math.min(spare, length));
      received[which]! += advance;
      if (random.chance(0.3)) {
        const target = new Uint8Array(random.pick([1, 1_000, 300_000]));
        const count = buffer.read(target, 0, target.length);
        expect(Buffer.compare(target.subarray(0, count), stream(read[which]!, count))).toBe(0);
        read[which]! += count;
      }
      expect(buffer.available).toBe(received[which]! - read[which]!);
      expect(memory.used + memory.usedSmall).toBe(buffers.reduce((sum, b) => sum + b.charged, 0));
      expect(memory.used).toBeLessThanOrEqual(memory.limit);
    }
    for (const buffer of buffers) buffer.destroy();
    expect(memory.used + memory.usedSmall).toBe(0);
  });
});
