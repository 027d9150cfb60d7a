/**
 * Mutated segments between two endpoints that transfer data: nothing throws, memory is bounded, and the invariants hold
 * after each; a transfer whose forged segments a receiver must not act upon ends with the right bytes.
 *
 * `VP_SEGMENTS` sets how many segments are forged, `VP_SEED` where the seeds begin. A failure prints its seed, which
 * repeats it as the first run.
 */
import { afterAll, describe, expect, test } from 'vitest';
import { FuzzRun } from './fuzz/run.ts';

const SEED = Number(process.env.VP_SEED ?? 1);
const SEGMENTS = Number(process.env.VP_SEGMENTS ?? 100_000);
/** How many segments are forged in one run, with new endpoints. */
const EACH = 2_000;

describe.each(['anything', 'without harm'] as const)('forged segments, %s', (kind) => {
  let forged = 0;
  let completed = 0;
  const memory = process.memoryUsage().arrayBuffers;

  test('neither throw, nor break an invariant, nor leave anything behind', () => {
    for (let seed = SEED; forged < SEGMENTS / 2; seed++) {
      const run = new FuzzRun(seed, kind, EACH);
      run.all();
      forged += run.forged;
      completed += run.completed;
    }
    expect(completed).toBeGreaterThan(0);
  }, 900_000);

  afterAll(() => {
    // The slabs of all endpoints that were there would be far more.
    expect(process.memoryUsage().arrayBuffers - memory).toBeLessThan(512 * 1024 * 1024);
  });
});
