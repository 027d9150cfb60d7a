import { afterEach, describe, expect, test, vi } from 'vitest';
import { RecencyTable } from '../../src/translator/recency-table.ts';
import { Random } from '../support/random.ts';

afterEach(() => vi.restoreAllMocks());

const TIMEOUT = 100;
/** The number of slots that a record may be in. */
const REACH = 4;

function claim(table: RecencyTable, key: readonly number[], now: number): number {
  table.key.set(key);
  return table.claim(now, TIMEOUT);
}

function find(table: RecencyTable, key: readonly number[]): number {
  table.key.set(key);
  return table.find();
}

function keysOf(table: RecencyTable): string[] {
  return [...table.records()]
    .map((at) => table.words.slice(at + 1, at + 1 + table.key.length).join())
    .toSorted();
}

test('a record is its time, its key, and a value of zeros', () => {
  const table = new RecencyTable(2, 3, 64, REACH);
  const at = claim(table, [7, 8], 1234);
  expect([...table.words.subarray(at, at + table.stride)]).toEqual([1234, 7, 8, 0, 0, 0]);
  expect(find(table, [7, 8])).toBe(at);
  expect(table.find2(7, 8)).toBe(at);
  expect([find(table, [7, 9]), find(table, [8, 8]), table.find2(8, 7)]).toEqual([-1, -1, -1]);
});

test('claiming a key again gives the same record with its value, and sets its time', () => {
  const table = new RecencyTable(1, 2, 64, REACH);
  const at = claim(table, [5], 10);
  table.words.set([1, 2], at + 2);
  expect(claim(table, [5], 99)).toBe(at);
  expect([...table.words.subarray(at, at + 4)]).toEqual([99, 5, 1, 2]);
});

test('finds every key with its value after it has grown', () => {
  // Far fewer than the maximum, so that none is replaced.
  const table = new RecencyTable(2, 1, 2 ** 22, REACH);
  const random = new Random(1);
  const keys = Array.from(
    { length: 20_000 },
    (_, i) => [i + 1, random.below(2 ** 32) | 0] as const
  );
  for (const [i, key] of keys.entries()) {
    const at = claim(table, key, i >>> 8);
    table.words[at + 3] = i;
  }
  const wrong = keys.filter((key, i) => table.words[find(table, key) + 3] !== i);
  expect(wrong).toEqual([]);
  expect(keys.filter(([a, b], i) => table.words[table.find2(a, b) + 3] !== i)).toEqual([]);
});

test('a removed record is not found, and its slot is used again', () => {
  const table = new RecencyTable(1, 1, 4, REACH);
  for (const key of [1, 2, 3, 4]) claim(table, [key], 0);
  table.remove(find(table, [2]));
  expect(find(table, [2])).toBe(-1);
  claim(table, [9], 0);
  expect(keysOf(table)).toEqual(['1', '3', '4', '9']);
});

test('records may be removed while they are listed', () => {
  const table = new RecencyTable(1, 1, 2 ** 16, REACH);
  for (let key = 1; key <= 100; key++) claim(table, [key], 0);
  for (const at of table.records()) if (table.words[at + 1]! % 2 === 0) table.remove(at);
  expect(keysOf(table)).toHaveLength(50);
});

describe('a full table', () => {
  test('replaces the oldest record', () => {
    const table = new RecencyTable(1, 1, 4, REACH);
    for (const [key, now] of [
      [2, 10],
      [3, 20],
      [1, 30],
      [4, 40],
    ] as const) {
      claim(table, [key], now);
    }
    claim(table, [5], 50);
    expect(keysOf(table)).toEqual(['1', '3', '4', '5']);
    claim(table, [3], 51);
    claim(table, [6], 52);
    expect(keysOf(table)).toEqual(['3', '4', '5', '6']);
  });

  test('gives a new record a value of zeros', () => {
    const table = new RecencyTable(1, 2, 4, REACH);
    for (let key = 1; key <= 4; key++) {
      const at = claim(table, [key], key);
      table.words.fill(-1, at + 2, at + 4);
    }
    const at = claim(table, [5], 5);
    expect([...table.words.subarray(at, at + 4)]).toEqual([5, 5, 0, 0]);
  });

  test.each([
    [1, 1],
    [2, 2],
    [3, 4],
    [5, 8],
    [1000, 1024],
    [1024, 1024],
  ])('of %i records at most keeps no more than %i, however many come', (most, kept) => {
    const table = new RecencyTable(1, 1, most, REACH);
    for (let key = 1; key <= 20 * kept; key++) {
      claim(table, [key], key);
      expect(find(table, [key])).toBeGreaterThanOrEqual(0);
    }
    expect(keysOf(table).length).toBeLessThanOrEqual(kept);
    expect(keysOf(table).length).toBeGreaterThan(kept / 2);
  });
});

test('with more probes, fewer recent records are replaced', () => {
  const lost = [1, 4, 16].map((reach) => {
    const table = new RecencyTable(1, 1, 4096, reach);
    for (let key = 1; key <= 2048; key++) claim(table, [key], 0);
    return 2048 - keysOf(table).length;
  });
  expect(lost).toEqual(lost.toSorted((a, b) => b - a));
  expect(lost[2]).toBeLessThan(20);
});

test('an expired record is replaced before the table grows', () => {
  const table = new RecencyTable(1, 1, 2 ** 16, REACH);
  const before = table.words.length;
  for (let key = 1; key <= 10_000; key++) claim(table, [key], key * (TIMEOUT + 1));
  expect(table.words.length).toBe(before);
});

test('recent records make it grow, up to its largest size', () => {
  const table = new RecencyTable(1, 1, 512, REACH);
  for (let key = 1; key <= 5000; key++) claim(table, [key], 0);
  expect(table.words.length).toBe(512 * table.stride);
});

describe('age', () => {
  test.each([
    ['at once', 0, 0, true],
    ['at the timeout', 0, TIMEOUT, true],
    ['behind the timeout', 0, TIMEOUT + 1, false],
    ['over the end of 31 bits', 2 ** 31 - 5, -(2 ** 31) + 5, true],
    ['over the end of 32 bits', -5, 5, true],
    ['over the end of 32 bits, behind the timeout', -5, TIMEOUT, false],
  ])('%s', (_name, since, now, isRecent) => {
    const table = new RecencyTable(1, 1, 4, REACH);
    const at = claim(table, [1], since);
    expect(table.isRecent(at, now, TIMEOUT)).toBe(isRecent);
  });
});

test('two tables put the same keys in different slots, so nobody can choose keys that collide', () => {
  const seeds = [0.1, 0.7];
  vi.spyOn(Math, 'random').mockImplementation(() => seeds.shift()!);
  const [a, b] = [new RecencyTable(1, 1, 4096, REACH), new RecencyTable(1, 1, 4096, REACH)];
  const places = [a, b].map((table) =>
    Array.from({ length: 16 }, (_, key) => claim(table, [key + 1], 0))
  );
  expect(places[0]).not.toEqual(places[1]);
});
