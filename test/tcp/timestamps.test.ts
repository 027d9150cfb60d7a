import { expect, test } from 'vitest';
import { Timestamps, timestampAt } from '../../src/tcp/timestamps.ts';

function used(offset: number): Timestamps {
  const timestamps = new Timestamps();
  timestamps.isUsed = true;
  timestamps.offset = offset;
  return timestamps;
}

test('a timestamp is the clock in whole ms plus the offset, modulo 2^32', () => {
  expect([1000, 1000.9, 1001].map((now) => timestampAt(now, 7) - timestampAt(1000, 7))).toEqual([
    0, 0, 1,
  ]);
  expect(timestampAt(0, 7)).toBe(7);
  expect(timestampAt(2 ** 32 + 5, 7)).toBe(12);
  expect(timestampAt(1, 0x7fffffff)).toBe(-(2 ** 31));
});

test.each([0, 7, 0x7fffff00, -5])(
  'an echo says when the timestamp was sent, with the offset %i',
  (offset) => {
    const timestamps = used(offset);
    for (const sent of [10_000, 10_250, 2 ** 32 + 3]) {
      expect(timestamps.sentAt(timestamps.at(sent), sent + 317.5, 10_000)).toBe(sent);
    }
  }
);

test('an echo of what was never sent says nothing', () => {
  const timestamps = used(500);
  expect(timestamps.sentAt(timestamps.at(9_999), 12_000, 10_000)).toBe(-1);
  expect(timestamps.sentAt(timestamps.at(12_001), 12_000, 10_000)).toBe(-1);
  timestamps.isUsed = false;
  expect(timestamps.sentAt(timestamps.at(11_000), 12_000, 10_000)).toBe(-1);
});

test('an older timestamp is an old duplicate, for 24 days', () => {
  const timestamps = used(0);
  timestamps.begin(0x7fffffff, 1000);
  expect(timestamps.isOld(0x7ffffffe, 1000)).toBe(true);
  expect(timestamps.isOld(0x7fffffff, 1000)).toBe(false);
  expect(timestamps.isOld(-(2 ** 31), 1000)).toBe(false);
  const days = 24 * 24 * 3_600_000;
  expect(timestamps.isOld(0x7ffffffe, 1000 + days)).toBe(true);
  expect(timestamps.isOld(0x7ffffffe, 1001 + days)).toBe(false);
});
