import { expect, test } from 'vitest';
import { BufferMemory, LARGE_SLAB, MAX_BUFFER, SMALL_SLAB } from '../../src/tcp/memory.ts';
import { SendBuffer } from '../../src/tcp/send-buffer.ts';
import { Random } from '../support/random.ts';
import { stream } from './stream.ts';

function contentOf(buffer: SendBuffer): Uint8Array {
  const target = new Uint8Array(buffer.length);
  buffer.copy(0, buffer.length, target, 0);
  return target;
}

test('an empty buffer holds no slab, before its first use and after the last acknowledgement', () => {
  const memory = new BufferMemory();
  const buffer = new SendBuffer(memory);
  expect(buffer.charged).toBe(0);
  expect(buffer.write(stream(0, 70_000), 0)).toBe(64 * 1024);
  expect(memory.used).toBe(buffer.charged);
  buffer.drop(buffer.length);
  expect(buffer.charged).toBe(0);
  expect(memory.used + memory.usedSmall).toBe(0);
});

test('a short write takes a small slab, a long one a large slab', () => {
  const buffer = new SendBuffer(new BufferMemory());
  buffer.write(stream(0, SMALL_SLAB), 0);
  expect(buffer.charged).toBe(SMALL_SLAB);
  buffer.drop(SMALL_SLAB);
  buffer.write(stream(0, SMALL_SLAB + 1), 0);
  expect(buffer.charged).toBe(LARGE_SLAB);
});

test('a connection with little unacknowledged data stays in its small slab', () => {
  const buffer = new SendBuffer(new BufferMemory());
  let sent = 0;
  for (let i = 0; i < 1_000; i++) {
    expect(buffer.write(stream(sent, 1_000), 0)).toBe(1_000);
    sent += 1_000;
    if (buffer.length > 3_000) buffer.drop(1_000);
    expect(buffer.charged).toBe(SMALL_SLAB);
  }
  expect(contentOf(buffer)).toEqual(stream(sent - buffer.length, buffer.length));
});

test('the capacity bounds the content, and lowering it keeps what is held', () => {
  const buffer = new SendBuffer(new BufferMemory());
  buffer.capacity = MAX_BUFFER + 1;
  expect(buffer.capacity).toBe(MAX_BUFFER);
  buffer.write(stream(0, 5_000), 0);
  buffer.capacity = 4_000;
  expect(buffer.room).toBe(0);
  expect(buffer.write(stream(5_000, 10), 0)).toBe(0);
  buffer.drop(1_500);
  expect(buffer.room).toBe(500);
  expect(buffer.write(stream(5_000, 1_000), 0)).toBe(500);
  expect(contentOf(buffer)).toEqual(stream(1_500, 4_000));
});

test('a connection gets on with its small slab when the memory of all is used up', () => {
  const memory = new BufferMemory(LARGE_SLAB);
  const other = memory.takeLarge()!;
  const buffer = new SendBuffer(memory);
  let sent = 0;
  for (let i = 0; i < 50; i++) {
    const taken = buffer.write(stream(sent, 10_000), 0);
    expect(taken).toBe(i === 0 ? SMALL_SLAB : 1_500);
    sent += taken;
    expect(buffer.write(stream(sent, 1), 0)).toBe(0);
    expect(Buffer.compare(contentOf(buffer), stream(sent - SMALL_SLAB, SMALL_SLAB))).toBe(0);
    buffer.drop(1_500);
  }
  memory.give(other);
  expect(buffer.write(stream(sent, 10_000), 0)).toBe(10_000);
  buffer.destroy();
  expect(memory.used + memory.usedSmall).toBe(0);
});

test('slabs whose bytes are all acknowledged go back at once', () => {
  const memory = new BufferMemory();
  const buffer = new SendBuffer(memory);
  buffer.capacity = MAX_BUFFER;
  buffer.write(stream(0, 4 * LARGE_SLAB), 0);
  expect(memory.used).toBe(4 * LARGE_SLAB);
  buffer.drop(2 * LARGE_SLAB - 1);
  expect(memory.used).toBe(3 * LARGE_SLAB);
  buffer.drop(1);
  expect(memory.used).toBe(2 * LARGE_SLAB);
});

test.each([1, 2, 3, 4])(
  'it holds what a plain array holds, with limited memory (seed %i)',
  (seed) => {
    const random = new Random(seed);
    const memory = new BufferMemory(8 * LARGE_SLAB);
    const buffers = [new SendBuffer(memory), new SendBuffer(memory), new SendBuffer(memory)];
    const models: { sent: number; acknowledged: number }[] = buffers.map(() => ({
      sent: 0,
      acknowledged: 0,
    }));
    const sizes = [1, 2, 31, 32, 33, 1_460, 4_095, 4_096, 4_097, 65_475, 65_536, 200_000];
    for (let step = 0; step < 600; step++) {
      const which = random.below(buffers.length);
      const buffer = buffers[which]!;
      const model = models[which]!;
      const size = random.chance(0.5) ? random.pick(sizes) : random.between(1, 3_000);
      if (random.chance(0.1)) buffer.capacity = random.pick([65_536, 300_000, MAX_BUFFER]);
      if (random.chance(0.5)) {
        const from = random.below(10);
        const room = buffer.room;
        const taken = buffer.write(stream(model.sent - from, from + size), from);
        expect(taken).toBeLessThanOrEqual(Math.min(room, size));
        if (memory.canTakeLarge(5)) expect(taken).toBe(Math.min(room, size));
        if (model.sent === model.acknowledged) expect(taken).toBeGreaterThan(0);
        model.sent += taken;
      } else {
        const count = Math.min(random.chance(0.2) ? buffer.length : size, buffer.length);
        buffer.drop(count);
        model.acknowledged += count;
      }
      expect(buffer.length).toBe(model.sent - model.acknowledged);
      if (buffer.length > 0) {
        const offset = random.below(buffer.length);
        const length = random.between(0, Math.min(buffer.length - offset, 70_000));
        const target = new Uint8Array(length + 2);
        buffer.copy(offset, length, target, 1);
        const expected = new Uint8Array(length + 2);
        expected.set(stream(model.acknowledged + offset, length), 1);
        expect(Buffer.compare(target, expected)).toBe(0);
      }
      expect(memory.used + memory.usedSmall).toBe(buffers.reduce((sum, b) => sum + b.charged, 0));
      expect(memory.used).toBeLessThanOrEqual(memory.limit);
      expect(buffer.charged).toBeLessThanOrEqual(buffer.length + 2 * LARGE_SLAB);
      if (buffer.length === 0) expect(buffer.charged).toBe(0);
    }
    for (const buffer of buffers) buffer.destroy();
    expect(memory.used + memory.usedSmall).toBe(0);
  }
);
