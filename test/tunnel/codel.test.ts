import { describe, expect, test } from 'vitest';
import { CoDel } from '../../src/tunnel/codel.ts';

/** Asks every ms for so long, and returns when it said drop. */
function drops(bound: CoDel, fromMs: number, toMs: number, waitMs: number): number[] {
  const found: number[] = [];
  for (let nowMs = fromMs; nowMs < toMs; nowMs++) {
    if (bound.isTooLate(nowMs, waitMs)) found.push(nowMs - fromMs);
  }
  return found;
}

describe('CoDel', () => {
  test('drops nothing while waits are short, or long for less than an interval', () => {
    const bound = new CoDel();
    expect(drops(bound, 1, 1_000, 4.9)).toEqual([]);
    expect(drops(bound, 1_000, 1_099, 500)).toEqual([]);
    expect(drops(bound, 1_099, 1_100, 0)).toEqual([]);
    expect(drops(bound, 1_100, 1_199, 500)).toEqual([]);
  });

  test('drops one packet after an interval of long waits, then more and more often', () => {
    const found = drops(new CoDel(), 1, 700, 20);
    // RFC 8289 section 5.4: interval / sqrt(count) apart, here in whole ms.
    const expected = [100];
    let at = 100;
    for (let count = 1; at < 700; count++) {
      at += 100 / Math.sqrt(count);
      if (Math.ceil(at) < 699) expected.push(Math.ceil(at));
    }
    expect(found).toEqual(expected);
  });

  test('stops at once when the wait is short again', () => {
    const bound = new CoDel();
    expect(drops(bound, 1, 500, 20).length).toBeGreaterThan(3);
    expect(drops(bound, 500, 900, 1)).toEqual([]);
  });

  test('begins where it had got to when the waits are long again soon after', () => {
    const soon = new CoDel();
    const first = drops(soon, 1, 1_000, 20);
    drops(soon, 1_000, 1_010, 0);
    const again = drops(soon, 1_010, 2_009, 20);
    expect(again.length).toBeGreaterThan(first.length);
    expect(again[1]! - again[0]!).toBeLessThan(first[1]! - first[0]!);

    const late = new CoDel();
    drops(late, 1, 1_000, 20);
    drops(late, 1_000, 9_000, 0);
    expect(drops(late, 9_000, 9_999, 20)).toEqual(first.filter((at) => at < 999));
  });
});
