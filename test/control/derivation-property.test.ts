/**
 * What is derived by keys is what is derived of everything: after any history, a controller has the presences, plan,
 * snapshots and pools of one that starts on the same store.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { DerivationWorld, FIRST_STEPS, type Step, step } from './derivation-world.ts';
import { turn } from './scene.ts';

const SEED = Number(process.env.VP_SEED ?? 1);

async function equalsFresh(steps: readonly Step[], transit: string | undefined): Promise<void> {
  // The overlap of replaced pools may end within a history.
  const world = new DerivationWorld({ transit, overlapMs: 45_000 });
  await world.start();
  for (const each of FIRST_STEPS) await world.take(each);
  for (const [i, each] of steps.entries()) {
    await world.take(each);
    if (i % 10 === 9 || i === steps.length - 1) {
      await world.settle();
      expect(world.scene.translator.unstored).toEqual([]);
      expect(world.scene.translator.loads).toBe(1);
      const byKeys = world.derived();
      // No time passes, so that nothing else ends.
      await world.start(null);
      await turn();
      expect(byKeys).toEqual(world.derived());
    }
  }
  await world.scene.controller.close();
}

test.each([undefined, 'cloud'])(
  `after any history, all is as if derived anew, with the transit realm %s (seed ${SEED})`,
  async (transit) => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 40 }), (steps) =>
        equalsFresh(steps, transit)
      ),
      { numRuns: Number(process.env.VP_RUNS ?? 100), seed: SEED }
    );
  },
  120_000
);
