/**
 * The status of a pool: workers are asked for a number of sites at a time, and the event loop turns between the calls.
 */
import { expect, test } from 'vitest';
import { Slices } from '../../src/base/slices.ts';
import { poolStatusOf, statusParts } from '../../src/worker/pool-status.ts';
import type { WorkerStatus } from '../../src/worker/worker.ts';

const SITES = Array.from({ length: 40 }, (_, i) => `site-${i}`);

test('no call has many sites, and other work is done between', async () => {
  /** What was deferred until the event loop turns. */
  const deferred: (() => void)[] = [];
  const slices = new Slices(
    () => 0,
    (callback) => deferred.push(callback)
  );
  const calls: (readonly string[])[] = [];
  const workers = [1, 2].map((pid) => ({
    status: async (sites: readonly string[]): Promise<WorkerStatus> => {
      calls.push(sites);
      const verdicts = Object.fromEntries(sites.map((site) => [site, { Forward: pid }]));
      const counters = { listener: { accepted: pid }, dataPlane: {}, device: {} };
      return { pid, ...counters, verdicts: verdicts as never, traffic: {} };
    },
  }));
  const held = [SITES.slice(0, 20), SITES.slice(20)];
  const status = poolStatusOf(statusParts(workers, SITES, slices), held);
  const turn = async () => {
    await new Promise(setImmediate);
    for (const callback of deferred.splice(0)) callback();
    await new Promise(setImmediate);
    return calls.splice(0).map(({ length }) => length);
  };
  expect(await turn()).toEqual([0, 0, 16, 16]);
  expect(await turn()).toEqual([16, 16]);
  expect(await turn()).toEqual([8, 8]);

  const { verdicts, workers: processes, listener } = await status;
  expect(verdicts).toEqual(Object.fromEntries(SITES.map((site) => [site, { Forward: 3 }])));
  expect(processes).toEqual([1, 2].map((pid, i) => ({ pid, sites: held[i] })));
  expect(listener).toEqual({ accepted: 3 });
});
