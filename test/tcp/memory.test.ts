import { expect, test } from 'vitest';
import { ApiMisuseError } from '../../src/errors.ts';
import { BufferMemory, LARGE_SLAB, SMALL_SLAB } from '../../src/tcp/memory.ts';

test('the limit bounds the large slabs, and small ones are granted beyond it', () => {
  const memory = new BufferMemory(2 * LARGE_SLAB + 1);
  expect(memory.takeLarge()?.length).toBe(LARGE_SLAB);
  const last = memory.takeLarge();
  expect(memory.takeLarge()).toBeUndefined();
  expect(memory.canTakeLarge(1)).toBe(false);
  expect(memory.takeSmall().length).toBe(SMALL_SLAB);
  expect(memory.used).toBe(2 * LARGE_SLAB);
  expect(memory.usedSmall).toBe(SMALL_SLAB);
  memory.give(last!);
  expect(memory.canTakeLarge(1)).toBe(true);
  expect(memory.canTakeLarge(2)).toBe(false);
});

test('memory is tight from three quarters of the limit on', () => {
  const memory = new BufferMemory(4 * LARGE_SLAB);
  memory.takeLarge();
  memory.takeLarge();
  expect(memory.isTight).toBe(false);
  memory.takeLarge();
  expect(memory.isTight).toBe(true);
});

test('a slab is memory of its own, and the next to be taken is the last that was given back', () => {
  const memory = new BufferMemory();
  for (const take of [() => memory.takeSmall(), () => memory.takeLarge()!]) {
    const slab = take();
    expect(slab.buffer.byteLength).toBe(slab.length);
    memory.give(slab);
    expect(take()).toBe(slab);
  }
});

test('the free lists are bounded, and trim empties them', () => {
  const memory = new BufferMemory(16 * 4 * LARGE_SLAB);
  const slabs = Array.from({ length: 20 }, () => memory.takeLarge()!);
  slabs.push(...Array.from({ length: 1_000 }, () => memory.takeSmall()));
  for (const slab of slabs) memory.give(slab);
  expect(memory.used + memory.usedSmall).toBe(0);
  expect(memory.free).toBe(4 * LARGE_SLAB + 256 * SMALL_SLAB);
  memory.trim();
  expect(memory.free).toBe(0);
});

test.each([0, -1, Number.NaN])('a limit of %s bytes is misuse', (limit) => {
  expect(() => new BufferMemory(limit)).toThrow(ApiMisuseError);
});
