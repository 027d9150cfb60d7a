import { describe, expect, test } from 'vitest';
import { FIRST_EPHEMERAL_PORT, LAST_EPHEMERAL_PORT, pickPort } from '../../src/tcp/ports.ts';
import { Random } from '../support/random.ts';

const COUNT = LAST_EPHEMERAL_PORT - FIRST_EPHEMERAL_PORT + 1;

describe('pickPort', () => {
  test('returns ports of the whole range, spread evenly (seed 3)', () => {
    const random = new Random(3);
    const eighths = new Array<number>(8).fill(0);
    for (let i = 0; i < 8_000; i++) {
      const port = pickPort(
        () => random.below(2 ** 32),
        () => false
      );
      expect(port).toBeGreaterThanOrEqual(32_768);
      expect(port).toBeLessThanOrEqual(60_999);
      eighths[Math.floor(((port - FIRST_EPHEMERAL_PORT) * 8) / COUNT)]!++;
    }
    for (const count of eighths) expect(Math.abs(count - 1_000)).toBeLessThan(150);
  });

  test('takes the next free port, also from the end of the range to its start', () => {
    const used = new Set([60_999, 32_768, 32_769]);
    expect(
      pickPort(
        () => COUNT - 1,
        (port) => used.has(port)
      )
    ).toBe(32_770);
  });

  test('finds the only free port from anywhere', () => {
    for (const start of [0, 1, 20_000, COUNT - 1, 2 ** 32 - 1, -1]) {
      expect(
        pickPort(
          () => start,
          (port) => port !== 40_000
        )
      ).toBe(40_000);
    }
  });

  test('returns -1 after it asked for each port once, if all are used', () => {
    let asked = 0;
    const isUsed = (): boolean => {
      asked++;
      return true;
    };
    expect(pickPort(() => 12_345, isUsed)).toBe(-1);
    expect(asked).toBe(COUNT);
  });
});
