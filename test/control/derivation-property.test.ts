/**
 * What is derived by keys is what is derived of everything: after any history, a controller has the presences, plan,
 * routes, snapshots and pools of one that starts on the same store. Packets get the verdicts and explanations of a
 * translator that loads each plan whole, and the paths that survive keep their counters.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { runsOf, timeoutOf } from '../support/property-runs.ts';
import { expectSame } from './compared-translator.ts';
import { DerivationWorld, FIRST_STEPS, type Step, step } from './derivation-world.ts';
import { turn } from './scene.ts';

const RUNS = runsOf(40);

let forwarded = 0;

/** @param every after how many steps the controller is compared with a fresh one, which then goes on */
async function equalsFresh(
  steps: readonly Step[],
  every: number,
  transit: string | undefined
): Promise<void> {
  // The overlap of replaced pools may end within a history.
  const world = new DerivationWorld({ transit, overlapMs: 45_000 });
  await world.start();
  for (const each of FIRST_STEPS) await world.take(each);
  for (const [i, each] of steps.entries()) {
    await world.take(each);
    if (i % every === every - 1 || i === steps.length - 1) {
      await world.settle();
      expect(world.translator.unstored).toEqual([]);
      // The audit has compared each site in the meantime, and has found nothing.
      expect(world.scene.problems.filter((each) => each.includes('in force'))).toEqual([]);
      const { checkedSites, ...found } = world.scene.controller.audited;
      expect(found).toEqual({ differences: 0, repairs: 0 });
      expect(checkedSites).toBeGreaterThan(0);
      expect(world.translator.loads).toBe(1);
      const byKeys = world.derived();
      // At the same instant, because overlaps and quarantines end and time boxes begin.
      await world.start(null);
      await turn();
      expectSame(byKeys, world.derived());
    }
  }
  await world.scene.controller.close();
  forwarded += world.forwarded;
}

test.each([undefined, 'cloud'])(
  `after any history, all is as if derived anew, with the transit realm %s (VP_SEED=${RUNS.seed}, ${RUNS.numRuns} histories)`,
  async (transit) => {
    forwarded = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { minLength: 1, maxLength: 40, size: 'max' }),
        fc.constantFrom(5, 10, 20, 40),
        (steps, every) => equalsFresh(steps, every, transit)
      ),
      RUNS
    );
    // With fewer, paths would not have been tested.
    expect(forwarded).toBeGreaterThan(RUNS.numRuns / 2);
  },
  timeoutOf(RUNS)
);
