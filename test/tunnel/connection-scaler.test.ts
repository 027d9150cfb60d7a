import { describe, expect, test } from 'vitest';
import { CONNECTION_CHECK_MS, ConnectionScaler } from '../../src/tunnel/connection-scaler.ts';

const MUCH = 1_000_000;

describe('ConnectionScaler', () => {
  test('wants one connection while there is little traffic, however many busy flows there are', () => {
    const demand = new ConnectionScaler(8);
    for (let i = 1; i <= 100; i++) {
      expect(demand.update(i * CONNECTION_CHECK_MS, i * 10_000, 50)).toBe(1);
    }
  });

  test('asks for a connection for each busy flow, at once, and for no more than there may be', () => {
    const demand = new ConnectionScaler(8);
    expect(demand.update(250, MUCH, 1)).toBe(1);
    expect(demand.update(500, 2 * MUCH, 3)).toBe(3);
    expect(demand.update(750, 3 * MUCH, 100)).toBe(8);
  });

  test('keeps connections for ten seconds after they were needed last', () => {
    const demand = new ConnectionScaler(8);
    expect(demand.update(1_000, MUCH, 5)).toBe(5);
    expect(demand.update(6_000, 2 * MUCH, 5)).toBe(5);
    expect(demand.update(15_999, 2 * MUCH, 5)).toBe(5);
    expect(demand.update(16_000, 2 * MUCH, 5)).toBe(1);
  });
});
