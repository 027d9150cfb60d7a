import { describe, expect, test } from 'vitest';
import { LANE_CHECK_MS, LaneDemand } from '../../src/tunnel/lane-demand.ts';

const MUCH = 1_000_000;

describe('LaneDemand', () => {
  test('one lane is enough while little moves, however many flows there are', () => {
    const demand = new LaneDemand(8);
    for (let i = 1; i <= 100; i++) {
      expect(demand.update(i * LANE_CHECK_MS, i * 10_000, 50)).toBe(1);
    }
  });

  test('asks for a lane for each flow, at once, and for no more than there may be', () => {
    const demand = new LaneDemand(8);
    expect(demand.update(250, MUCH, 1)).toBe(1);
    expect(demand.update(500, 2 * MUCH, 3)).toBe(3);
    expect(demand.update(750, 3 * MUCH, 100)).toBe(8);
  });

  test('keeps lanes for half a minute after they were needed last', () => {
    const demand = new LaneDemand(8);
    expect(demand.update(1_000, MUCH, 5)).toBe(5);
    expect(demand.update(20_000, 2 * MUCH, 5)).toBe(5);
    expect(demand.update(49_999, 2 * MUCH, 5)).toBe(5);
    expect(demand.update(50_000, 2 * MUCH, 5)).toBe(1);
  });
});
