import fc from 'fast-check';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { IntTable } from '../../src/translator/int-table.ts';
import { Random } from '../support/random.ts';

afterEach(() => vi.restoreAllMocks());

const VALUE_WORDS = 2;

/** Finds the key; -1 if it is not there. */
function find(table: IntTable, key: readonly number[]): number {
  table.key.set(key);
  return table.find();
}

/** Inserts the key and writes a unique value. */
function insert(table: IntTable, key: readonly number[]): number {
  table.key.set(key);
  const record = table.insert();
  if (record >= 0) table.words.set([record, ~record], record * table.stride + table.keyWords);
  return record;
}

/** Expects every key of the map to have its record, with its key and its value. */
function expectAll(table: IntTable, records: ReadonlyMap<string, number>): void {
  expect(table.size).toBe(records.size);
  for (const [text, record] of records) {
    const key = text.split(',').map(Number);
    const at = record * table.stride;
    const found = [find(table, key), ...table.words.subarray(at, at + table.stride)];
    const expected = [record, ...key, record, ~record];
    if (found.join() !== expected.join()) expect(found).toEqual(expected);
  }
}

const word = (): fc.Arbitrary<number> =>
  fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom(0, 1, -1, 2 ** 31 - 1, -(2 ** 31), 0x0a000005) },
    { weight: 1, arbitrary: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }) }
  );

test.each([1, 3, 9])(
  'agrees with a Map for any finds and inserts, with %i words of key',
  (keyWords) => {
    fc.assert(
      fc.property(
        fc.array(fc.array(word(), { minLength: keyWords, maxLength: keyWords }), {
          maxLength: 200,
        }),
        (keys) => {
          const table = new IntTable(keyWords, VALUE_WORDS, 1_000);
          const records = new Map<string, number>();
          for (const key of keys) {
            const known = records.get(key.join());
            expect(find(table, key)).toBe(known ?? -1);
            if (known === undefined) {
              expect(insert(table, key)).toBe(records.size);
              records.set(key.join(), records.size);
            }
          }
          expectAll(table, records);
        }
      ),
      { numRuns: 300, seed: 1 }
    );
  }
);

test.each([1, 2, 5])(
  'agrees with a Map for any inserts and releases, with %i words of key',
  (keyWords) => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat({ max: 60 }), fc.boolean()), { maxLength: 400 }),
        (steps) => {
          const table = new IntTable(keyWords, VALUE_WORDS, 1_000);
          const records = new Map<string, number>();
          let mostRecords = 0;
          for (const [n, isRelease] of steps) {
            const key = Array.from({ length: keyWords }, (_, i) => n << (7 * i));
            const known = records.get(key.join());
            expect(find(table, key)).toBe(known ?? -1);
            if (known === undefined) {
              const record = insert(table, key);
              // A number is used again before a new one is.
              mostRecords = Math.max(mostRecords, records.size + 1);
              expect(record).toBeLessThan(mostRecords);
              expect([...records.values()]).not.toContain(record);
              records.set(key.join(), record);
            } else if (isRelease) {
              table.release(known);
              records.delete(key.join());
            }
          }
          expectAll(table, records);
        }
      ),
      { numRuns: 200, seed: 1 }
    );
  }
);

test('a record that is added after a release has a value of zeros', () => {
  const table = new IntTable(1, VALUE_WORDS, 100);
  for (const n of [1, 2, 3]) insert(table, [n]);
  table.release(1);
  table.release(0);
  for (const record of [0, 1]) {
    table.key[0] = 9 + record;
    expect(table.insert()).toBe(record);
    expect([...table.words.subarray(3 * record, 3 * record + 3)]).toEqual([9 + record, 0, 0]);
  }
});

test('keeps every record while it grows to 50,000', () => {
  const table = new IntTable(3, VALUE_WORDS, 50_000);
  const records = new Map<string, number>();
  const random = new Random(1);
  const newKey = (): number[] => [random.below(4), (10 << 24) | random.below(2 ** 24), 0x64400001];
  while (records.size < 50_000) {
    const key = newKey();
    const known = records.get(key.join());
    expect(find(table, key)).toBe(known ?? -1);
    if (known === undefined) records.set(key.join(), insert(table, key));
  }
  expectAll(table, records);
});

describe('a full table', () => {
  test('refuses more records, and still finds all it has', () => {
    const table = new IntTable(1, VALUE_WORDS, 20);
    const records = new Map<string, number>();
    for (let i = 0; i < 20; i++) records.set(`${i}`, insert(table, [i]));
    for (let i = 20; i < 40; i++) {
      expect(find(table, [i])).toBe(-1);
      expect(insert(table, [i])).toBe(-1);
      expect(find(table, [i])).toBe(-1);
    }
    expectAll(table, records);
  });

  test('takes one record if its size is one', () => {
    const table = new IntTable(1, VALUE_WORDS, 1);
    expect([insert(table, [7]), insert(table, [8]), find(table, [7])]).toEqual([0, -1, 0]);
  });
});

test('distinguishes keys that all collide', () => {
  vi.spyOn(Math, 'imul').mockReturnValue(0);
  const table = new IntTable(2, VALUE_WORDS, 500);
  const records = new Map<string, number>();
  for (let i = 0; i < 500; i++) records.set(`${i},${-i}`, insert(table, [i, -i]));
  expectAll(table, records);
  expect(find(table, [1, 1])).toBe(-1);
});

test('distinguishes keys that differ in any single bit', () => {
  const table = new IntTable(9, VALUE_WORDS, 1_000);
  const records = new Map<string, number>();
  for (let bit = 0; bit < 9 * 32; bit++) {
    const key = Array<number>(9).fill(0);
    key[bit >>> 5] = 1 << (bit & 31);
    expect(find(table, key)).toBe(-1);
    records.set(key.join(), insert(table, key));
  }
  expectAll(table, records);
});

test('each table has another seed, so that nobody can know which keys collide', () => {
  const random = vi.spyOn(Math, 'random');
  new IntTable(1, 1, 1);
  const each = random.mock.calls.length;
  new IntTable(1, 1, 1);
  expect(each).toBeGreaterThan(0);
  expect(random).toHaveBeenCalledTimes(2 * each);
});

test('find3 and find9 find what find does', () => {
  const random = new Random(5);
  const word = (): number => random.pick([0, 1, -1, random.below(2 ** 32) | 0]);
  for (const keyWords of [3, 9] as const) {
    const table = new IntTable(keyWords, 1, 1000);
    const findShort = (key: readonly number[]): number => {
      if (keyWords === 3) return table.find3(key[0]!, key[1]!, key[2]!);
      const view = new DataView(new ArrayBuffer(40));
      for (let i = 1; i < 9; i++) view.setInt32(8 + 4 * (i - 1), key[i]!);
      return table.find9(key[0]!, view, 8);
    };
    const keys = Array.from({ length: 500 }, () => Array.from({ length: keyWords }, word));
    for (const [i, key] of keys.entries()) {
      table.key.set(key);
      const known = table.find();
      expect([keyWords, findShort(key)]).toEqual([keyWords, known]);
      table.key.set(key);
      if (i % 2 === 1 || known >= 0) continue;
      const record = table.insert();
      expect([keyWords, findShort(key)]).toEqual([keyWords, record]);
    }
    expect(table.size).toBeGreaterThan(200 / keyWords);
  }
});
