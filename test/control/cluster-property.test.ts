/**
 * Random histories of several machines on one store, of which one allocates and which change.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { runsOf, timeoutOf } from '../support/property-runs.ts';
import { type ClusterStep, ClusterWorld, clusterStep } from './cluster-world.ts';

const RUNS = runsOf(12);

let admitted = 0;

async function agree(steps: readonly ClusterStep[], transit: string | undefined): Promise<void> {
  const world = new ClusterWorld(transit);
  await world.start();
  for (const each of steps) {
    await world.take(each);
    expect(world.faults).toEqual([]);
  }
  await world.settle();
  expect(world.faults).toEqual([]);
  expect(world.requests).toEqual([]);
  for (const { problems, loads } of world.machines) {
    expect(problems.filter((each) => each.includes('in force'))).toEqual([]);
    // The plan was never replaced: what is there goes on while the role changes.
    expect(loads).toBe(1);
  }
  const [one, ...others] = await world.derived();
  for (const other of others) expect(other).toEqual(one);
  admitted += world.admitted;
  await world.close();
}

test.each([undefined, 'cloud'])(
  `after any history, all machines have what a fresh one derives, with the transit realm %s (VP_SEED=${RUNS.seed}, ${RUNS.numRuns} histories)`,
  async (transit) => {
    admitted = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(clusterStep, { minLength: 1, maxLength: 40, size: 'max' }),
        (steps) => agree(steps, transit)
      ),
      RUNS
    );
    expect(admitted).toBeGreaterThan(RUNS.numRuns / 2);
  },
  timeoutOf(RUNS)
);
