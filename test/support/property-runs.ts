/**
 * How many random cases the property tests of random histories run. `npm run test:properties` runs 10,000 of each.
 *
 * `VP_RUNS` sets how many, `VP_SEED` the seed. A failure prints the seed, and the shrunken steps.
 */

export const SEED: number = Number(process.env.VP_SEED ?? 1);

export interface PropertyRuns {
  readonly numRuns: number;
  readonly seed: number;
}

/** @param short how many in `npm test` */
export function runsOf(short: number): PropertyRuns {
  return { numRuns: Number(process.env.VP_RUNS ?? short), seed: SEED };
}

/** Returns how long a test may take, in ms, also on a busy machine. */
export function timeoutOf({ numRuns }: PropertyRuns): number {
  return 60_000 + 2000 * numRuns;
}
