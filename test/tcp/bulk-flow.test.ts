import { expect, test } from 'vitest';
import { Congestion } from '../../src/tcp/congestion.ts';
import { Random } from '../support/random.ts';
import { type Path, runBulkFlow } from './bulk-flow.ts';

const UNIT = 1_460;
const UNLIMITED = { packetMs: 0.005, queue: Number.POSITIVE_INFINITY };

const run = (path: Path, durationMs: number, seed: number) =>
  runBulkFlow(new Congestion(UNIT), path, UNIT, durationMs, new Random(seed));

test('with 1 % loss at 20 ms a flow gets what the Reno-friendly formula says, and no less (seed 1)', () => {
  const outcome = run({ rttMs: 20, loss: 0.01, ...UNLIMITED }, 200_000, 1);
  const formula = Math.sqrt(1.5 / 0.01);
  expect(outcome.meanWindow / formula).toBeGreaterThan(0.95);
  expect(outcome.meanWindow / formula).toBeLessThan(1.2);
});

test('with 0.01 % loss at 100 ms a flow gets what the formula of CUBIC says (seed 2)', () => {
  const outcome = run({ rttMs: 100, loss: 1e-4, ...UNLIMITED }, 500_000, 2);
  // RFC 9438, section 5.1: C is 0.4, beta is 0.7.
  const formula = ((0.4 * 3.7) / 1.2) ** 0.25 * (0.1 / 1e-4) ** 0.75;
  expect(outcome.meanWindow / formula).toBeGreaterThan(0.85);
  expect(outcome.meanWindow / formula).toBeLessThan(1.35);
});

test('recovery ends with nearly ssthresh in flight (seed 3)', () => {
  const { atExit } = run({ rttMs: 20, loss: 1e-3, ...UNLIMITED }, 60_000, 3);
  expect(atExit.length).toBeGreaterThan(50);
  const sorted = [...atExit].sort((a, b) => a - b);
  expect(sorted[0]).toBeGreaterThan(0.7);
  expect(sorted[Math.floor(atExit.length / 2)]).toBeGreaterThan(0.93);
  expect(sorted.at(-1)).toBeLessThanOrEqual(1.01);
});

test('with heavy loss a flow goes on (seed 4)', () => {
  const outcome = run({ rttMs: 20, loss: 0.2, ...UNLIMITED }, 60_000, 4);
  expect(outcome.meanWindow).toBeGreaterThan(0.5);
});

test('a bottleneck with a queue is used to the full', () => {
  // 100 Mbit/s, 20 ms: 171 packets fill the path, as many are queued.
  const path = { rttMs: 20, loss: 0, packetMs: 0.117, queue: 171 };
  const outcome = run(path, 30_000, 5);
  expect(outcome.episodes).toBeGreaterThan(1);
  expect((outcome.meanWindow * path.packetMs) / path.rttMs).toBeGreaterThan(0.97);
});
