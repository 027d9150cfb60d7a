import { expect, test } from 'vitest';
import { Random } from '../support/random.ts';
import { LossyPath, type PathOptions } from './lossy-path.ts';

const quiet = {
  hasSack: true,
  hasTimestamps: true,
  hasDsack: true,
  loss: 0,
  ackLoss: 0,
  duplication: 0,
  reordering: 0,
  refusal: 0,
  delayMs: 20,
  extraDelayMs: 0,
  total: 4_000,
  mss: 10,
  packet: 10,
  window: 300,
};

function pathOf(seed: number, options: Partial<PathOptions>): LossyPath {
  const random = new Random(seed);
  // Near the wrap of int32, near that of 2^32, and anywhere.
  const isn = random.pick([0x7fff_fe00, -400, (random.next() * 2 ** 32) | 0]);
  return new LossyPath({ ...quiet, random, isn, ...options });
}

function runSeeds(count: number, optionsOf: (random: Random) => Partial<PathOptions>): LossyPath[] {
  const paths: LossyPath[] = [];
  for (let seed = 1; seed <= count; seed++) {
    const path = pathOf(seed, optionsOf(new Random(seed + 7_000)));
    try {
      path.run();
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
    expect(path.loss.isEmpty, `seed ${seed}`).toBe(true);
    expect(path.loss.inFlight, `seed ${seed}`).toBe(0);
    expect(path.loss.deadline, `seed ${seed}`).toBe(Number.POSITIVE_INFINITY);
    paths.push(path);
  }
  return paths;
}

const sum = (paths: LossyPath[], of: (path: LossyPath) => number): number =>
  paths.reduce((total, path) => total + of(path), 0);

test('everything is delivered over any path, and the records agree with a naive recomputation', () => {
  const paths = runSeeds(120, (random) => ({
    hasSack: random.chance(0.7),
    hasTimestamps: random.chance(0.6),
    hasDsack: random.chance(0.7),
    loss: random.pick([0, 0.01, 0.05, 0.2]),
    ackLoss: random.pick([0, 0.05, 0.3]),
    duplication: random.pick([0, 0.05]),
    reordering: random.pick([0, 0.1, 0.5]),
    refusal: random.pick([0, 0.05]),
    delayMs: random.pick([0, 0.25, 20, 150]),
    extraDelayMs: random.pick([0.5, 10, 400]),
    packet: random.pick([10, 10, 64, 450]),
    window: random.pick([30, 300, 2_000]),
    total: 1_500,
  }));
  expect(sum(paths, (path) => path.recoveries)).toBeGreaterThan(100);
  expect(sum(paths, (path) => path.timeouts)).toBeGreaterThan(10);
  expect(sum(paths, (path) => path.probes)).toBeGreaterThan(10);
});

test('nothing is sent again if nothing is lost', () => {
  const paths = runSeeds(20, (random) => ({
    hasSack: random.chance(0.5),
    hasTimestamps: random.chance(0.5),
    packet: random.pick([10, 64, 450]),
    delayMs: random.pick([0, 1, 50, 90]),
  }));
  expect(sum(paths, (path) => path.retransmissions)).toBe(0);
  expect(sum(paths, (path) => path.recoveries)).toBe(0);
});

test('with SACK about as much is sent again as is lost', () => {
  const paths = runSeeds(20, () => ({ loss: 0.05, total: 8_000 }));
  const sent = 20 * 800;
  // Probes and the go-back of a timeout are the rest.
  expect(sum(paths, (path) => path.retransmissions)).toBeLessThan(sent * 0.05 * 1.5);
  expect(sum(paths, (path) => path.timeouts)).toBeLessThan(20);
});

test('reordering alone soon causes no retransmissions any more', () => {
  const paths = runSeeds(10, () => ({
    reordering: 0.3,
    extraDelayMs: 8,
    delayMs: 20,
    total: 20_000,
  }));
  expect(sum(paths, (path) => path.timeouts)).toBe(0);
  // 2,000 packets a run.
  expect(sum(paths, (path) => path.retransmissions)).toBeLessThan(10 * 2_000 * 0.02);
});

test.each([
  // The original comes first in nearly all cases.
  ['timestamps', 0.9, { hasTimestamps: true, hasDsack: false }],
  // They come a round trip later, when the next recovery may have begun.
  ['DSACKs', 0.4, { hasTimestamps: false, hasDsack: true }],
])('if nothing is lost, %s show that recoveries were needless', (_, share, options) => {
  const paths = runSeeds(20, (random) => ({
    ...options,
    reordering: random.pick([0.02, 0.1]),
    extraDelayMs: 30,
    total: 3_000,
  }));
  const recoveries = sum(paths, (path) => path.recoveries);
  expect(recoveries).toBeGreaterThan(50);
  expect(sum(paths, (path) => path.spurious)).toBeGreaterThan(share * recoveries);
});
