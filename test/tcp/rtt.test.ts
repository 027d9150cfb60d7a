import { describe, expect, test } from 'vitest';
import { RttEstimator } from '../../src/tcp/rtt.ts';
import { Random } from '../support/random.ts';

describe('RttEstimator', () => {
  test('has a timeout of 1 s and no round-trip time before the first sample', () => {
    const rtt = new RttEstimator();
    expect([rtt.srttMs, rtt.minRttMs, rtt.rtoMs, rtt.backoffs]).toEqual([0, 0, 1_000, 0]);
  });

  test('takes the first sample as it is, and half of it as the variation', () => {
    const rtt = new RttEstimator();
    rtt.sample(300, 0);
    expect([rtt.srttMs, rtt.rttvarMs, rtt.rtoMs]).toEqual([300, 150, 900]);
  });

  test('follows the formulas of RFC 6298 for one sample in a round trip', () => {
    const rtt = new RttEstimator();
    const random = new Random(7);
    let now = 0;
    let srtt = 0;
    let rttvar = 0;
    for (let i = 0; i < 200; i++) {
      const sample = 400 + random.next() * 400;
      now += 800;
      rtt.sample(sample, now);
      rttvar = i === 0 ? sample / 2 : 0.75 * rttvar + 0.25 * Math.abs(srtt - sample);
      srtt = i === 0 ? sample : 0.875 * srtt + 0.125 * sample;
      expect(rtt.srttMs).toBeCloseTo(srtt, 6);
      expect(rtt.rttvarMs).toBeCloseTo(rttvar, 6);
      expect(rtt.rtoMs).toBeCloseTo(srtt + Math.max(200, 4 * rttvar), 6);
    }
  });

  test('keeps the timeout 200 ms above a constant round-trip time', () => {
    const rtt = new RttEstimator();
    for (let now = 0; now < 100_000; now += 500) rtt.sample(500, now);
    expect(rtt.rtoMs).toBeCloseTo(700, 3);
  });

  test('does not forget the variation within one round trip, however many samples come', () => {
    const rtt = new RttEstimator();
    rtt.sample(400, 0);
    for (let i = 0; i < 1_000; i++) rtt.sample(400, 0.1 * i);
    expect(rtt.rttvarMs).toBeGreaterThan(150);
    rtt.sample(2_000, 100);
    expect(rtt.rttvarMs).toBeGreaterThan(500);
  });

  test('doubles the timeout up to 120 s, and a sample ends the back-off', () => {
    const rtt = new RttEstimator();
    rtt.sample(100, 0);
    rtt.backoff();
    expect([rtt.rtoMs, rtt.backoffs]).toEqual([600, 1]);
    for (let i = 0; i < 30; i++) rtt.backoff();
    expect(rtt.rtoMs).toBe(120_000);
    rtt.sample(100, 1_000);
    expect(rtt.rtoMs).toBeLessThan(301);
    expect(rtt.backoffs).toBe(0);
  });

  test('resetBackoff gives the timeout of the samples, or the initial one', () => {
    const rtt = new RttEstimator();
    rtt.backoff();
    rtt.resetBackoff();
    expect([rtt.rtoMs, rtt.backoffs]).toEqual([1_000, 0]);
    rtt.sample(100, 0);
    rtt.backoff();
    rtt.resetBackoff();
    expect([rtt.rtoMs, rtt.backoffs]).toEqual([300, 0]);
  });

  test('a spurious timeout raises the estimates to the round trip that caused it', () => {
    const rtt = new RttEstimator();
    for (let now = 0; now < 10_000; now += 50) rtt.sample(50, now);
    rtt.backoff();
    rtt.adaptToSpurious(900, 10_000);
    expect([rtt.srttMs, rtt.rttvarMs, rtt.rtoMs]).toEqual([900, 450, 2_700]);
    rtt.backoff();
    rtt.adaptToSpurious(-1, 10_100);
    expect([rtt.srttMs, rtt.rtoMs, rtt.backoffs]).toEqual([900, 2_700, 0]);
  });

  test('starts data with a timeout of 3 s if a SYN timed out and there is no sample', () => {
    const rtt = new RttEstimator();
    rtt.backoff();
    rtt.onSynTimedOut();
    expect(rtt.rtoMs).toBe(3_000);
    rtt.sample(20, 0);
    rtt.onSynTimedOut();
    expect(rtt.rtoMs).toBe(220);
  });

  test('the minimum covers the last 150 s at least and 300 s at most', () => {
    const rtt = new RttEstimator();
    rtt.sample(10, 0);
    rtt.sample(30, 149_000);
    expect(rtt.minRttMs).toBe(10);
    rtt.sample(40, 160_000);
    expect(rtt.minRttMs).toBe(10);
    rtt.sample(50, 310_000);
    expect(rtt.minRttMs).toBe(40);
    rtt.sample(60, 1_000_000);
    expect(rtt.minRttMs).toBe(60);
  });

  test('takes 0 as a sample, and ignores what is not a duration', () => {
    const rtt = new RttEstimator();
    rtt.sample(-1, 0);
    rtt.sample(Number.NaN, 0);
    expect(rtt.srttMs).toBe(0);
    rtt.sample(0, 0);
    expect(rtt.srttMs).toBeGreaterThan(0);
    expect(rtt.rtoMs).toBeGreaterThanOrEqual(200);
  });

  test('keeps the timeout between 200 ms and 120 s for any samples (seed 11)', () => {
    const random = new Random(11);
    const rtt = new RttEstimator();
    let now = 0;
    for (let i = 0; i < 5_000; i++) {
      now += random.next() * 10 ** random.between(-2, 5);
      if (random.chance(0.1)) rtt.backoff();
      else rtt.sample(random.next() * 10 ** random.between(-4, 12), now);
      expect(rtt.rtoMs).toBeGreaterThanOrEqual(200);
      expect(rtt.rtoMs).toBeLessThanOrEqual(120_000);
    }
  });
});
