import { describe, expect, test } from 'vitest';
import { HyStart } from '../../src/tcp/hystart.ts';

const UNIT = 1_460;

/** A round of `acks` ACKs for two units each, all with the same round-trip time. */
function round(hystart: HyStart, rttMs: number, acks = 8, acked = 2 * UNIT): void {
  for (let i = 0; i < acks; i++) hystart.onAck(acked, UNIT, rttMs, i === acks - 1);
}

describe('HyStart', () => {
  test('grows in full while the round-trip time stays', () => {
    const hystart = new HyStart();
    for (let i = 0; i < 50; i++) round(hystart, 20);
    expect([hystart.isConservative, hystart.isDone, hystart.divisor]).toEqual([false, false, 1]);
  });

  test.each([
    // The threshold is an eighth of the round-trip time, but at least 4 ms and at most 16 ms.
    [8, 11.9, false],
    [8, 12, true],
    [80, 89.9, false],
    [80, 90, true],
    [400, 415.9, false],
    [400, 416, true],
  ])('from %d ms to %d ms: the growth becomes a quarter: %s', (first, second, isConservative) => {
    const hystart = new HyStart();
    round(hystart, first);
    round(hystart, second);
    expect(hystart.isConservative).toBe(isConservative);
    expect(hystart.divisor).toBe(isConservative ? 4 : 1);
  });

  test('does not judge by fewer than eight samples', () => {
    const hystart = new HyStart();
    round(hystart, 20);
    for (let i = 0; i < 7; i++) hystart.onAck(2 * UNIT, UNIT, 40, false);
    expect(hystart.isConservative).toBe(false);
    hystart.onAck(2 * UNIT, UNIT, 40, false);
    expect(hystart.isConservative).toBe(true);
  });

  test('ACKs for many units count as more samples, but at least two ACKs decide', () => {
    const hystart = new HyStart();
    round(hystart, 20, 2, 65_475);
    hystart.onAck(65_475, UNIT, 40, false);
    expect(hystart.isConservative).toBe(false);
    hystart.onAck(65_475, UNIT, 40, false);
    expect(hystart.isConservative).toBe(true);
  });

  test('the minimum of a round counts: a few late ACKs do not end slow start', () => {
    const hystart = new HyStart();
    round(hystart, 20);
    for (let i = 0; i < 16; i++) hystart.onAck(2 * UNIT, UNIT, i === 0 ? 20 : 500, i === 15);
    expect(hystart.isConservative).toBe(false);
  });

  test('ends after five rounds in which the delay stays, the first of them in part', () => {
    const hystart = new HyStart();
    round(hystart, 20);
    round(hystart, 40);
    expect(hystart.isConservative).toBe(true);
    for (let i = 0; i < 3; i++) round(hystart, 40);
    expect(hystart.isDone).toBe(false);
    round(hystart, 40);
    expect(hystart.isDone).toBe(true);
  });

  test('slow start goes on in full if the delay falls again', () => {
    const hystart = new HyStart();
    round(hystart, 20);
    round(hystart, 40);
    round(hystart, 39);
    expect([hystart.isConservative, hystart.divisor]).toEqual([false, 1]);
    for (let i = 0; i < 20; i++) round(hystart, 39);
    expect(hystart.isDone).toBe(false);
  });

  test('does not judge without round-trip times', () => {
    const hystart = new HyStart();
    for (let i = 0; i < 20; i++) round(hystart, -1);
    round(hystart, 20);
    round(hystart, -1);
    round(hystart, 100);
    expect(hystart.isConservative).toBe(false);
  });
});
