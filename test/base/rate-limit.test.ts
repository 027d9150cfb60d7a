import { describe, expect, test } from 'vitest';
import { RateLimit } from '../../src/base/rate-limit.ts';

const name = (index: number) => `192.0.2.${index}`;

describe('a rate limit', () => {
  test('remembers 4096, and forgets first the one that was seen longest ago', () => {
    const rates = new RateLimit(1, 1);
    for (let i = 0; i < 4096; i++) expect(rates.take(name(i), i)).toBe(true);
    expect(rates.take(name(0), 100)).toBe(false);
    rates.take(name(4096), 101);
    expect(rates.size).toBe(4096);
    expect(rates.take(name(0), 102)).toBe(false);
    expect(rates.take(name(1), 103)).toBe(true);
  });

  test('allows no more than a burst at once, however long the pause before', () => {
    const rates = new RateLimit(2, 3);
    const taken = (nowMs: number) => [1, 2, 3, 4, 5].filter(() => rates.take('x', nowMs)).length;
    expect([taken(0), taken(500), taken(1_000), taken(1e9)]).toEqual([3, 1, 1, 3]);
  });
});
