/**
 * The median time of a change, and how long it holds up the event loop.
 * @module
 */
import { median } from '../gateway/median.ts';
import { rounded } from '../gateway/report.ts';
import type { LoopWatch, Stalls } from './loop-watch.ts';

/** What one kind of change costs. */
export interface Cost extends Stalls {
  /** The median of all repetitions. */
  readonly ms: number;
  readonly repetitions: number;
}

/**
 * Takes a change, and watches the loop until nothing is left to do.
 *
 * @param take returns the times of its repetitions
 */
export async function costOf(
  watch: LoopWatch,
  take: () => Promise<readonly number[]>
): Promise<Cost> {
  await watch.quiet();
  await watch.begin();
  const times = await take();
  await watch.quiet();
  const { stallMs, sliceMs, collectionMs } = await watch.end();
  return {
    ms: rounded(median(times)),
    repetitions: times.length,
    stallMs: rounded(stallMs),
    sliceMs: rounded(sliceMs),
    collectionMs: rounded(collectionMs),
  };
}

/** Takes a change again and again for some time. */
export function repeat(
  watch: LoopWatch,
  seconds: number,
  take: () => Promise<number>
): Promise<Cost> {
  return costOf(watch, async () => {
    const times: number[] = [];
    const endMs = performance.now() + 1000 * seconds;
    while (times.length < LEAST || (performance.now() < endMs && times.length < MOST_REPETITIONS)) {
      times.push(await take());
    }
    return times;
  });
}

const LEAST = 3;
/** How often a change is repeated at most. */
export const MOST_REPETITIONS = 100;
