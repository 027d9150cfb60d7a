/** A worker whose process hangs: it counts as down, holds nobody up, and is named. No process is started. */
import { expect, test } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { Answers } from '../../src/worker/answers.ts';
import { PoolStatus } from '../../src/worker/pool-status.ts';
import type { Worker, WorkerStatus } from '../../src/worker/worker.ts';
import { FakeClock } from '../support/fake-clock.ts';

/** A worker that answers when the test says so, while it hangs. */
class SlowWorker {
  hangs = false;
  calls = 0;
  readonly #waiting: (() => void)[] = [];
  readonly #pid: number;

  constructor(pid: number) {
    this.#pid = pid;
  }

  async status(): Promise<WorkerStatus> {
    this.calls++;
    if (this.hangs) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    const counters = { listener: {}, dataPlane: {}, device: {}, verdicts: {}, traffic: {} };
    return { pid: this.#pid, ...counters };
  }

  goOn(): void {
    this.hangs = false;
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function pool(): { clock: FakeClock; slow: SlowWorker; status: PoolStatus } {
  const clock = new FakeClock();
  const slow = new SlowWorker(12);
  const workers = [new SlowWorker(11), slow] as unknown as readonly Worker[];
  return { clock, slow, status: new PoolStatus(() => workers, new Answers(clock), clock) };
}

const pidsOf = async (statuses: Promise<readonly WorkerStatus[]>): Promise<number[]> =>
  (await statuses).map(({ pid }) => pid);

test('a worker that hangs counts as down after 5000 ms, and is not waited for again until it answers', async () => {
  const { clock, slow, status } = pool();
  expect(await pidsOf(status.each([]))).toEqual([11, 12]);
  expect(clock.delays).toEqual([]);
  slow.hangs = true;
  const asked = Promise.all([pidsOf(status.each([])), pidsOf(status.each(['site-a']))]);
  await turn();
  clock.advance(5000);
  expect(await asked).toEqual([
    [11, 0],
    [11, 0],
  ]);
  const { calls } = slow;
  expect(await pidsOf(status.each([]))).toEqual([11, 0]);
  expect((await status.total([], [[], ['site-a']])).workers).toEqual([
    { pid: 11, sites: [] },
    { pid: 0, sites: ['site-a'] },
  ]);
  expect(slow.calls).toBe(calls);
  slow.goOn();
  await turn();
  expect(await pidsOf(status.each([]))).toEqual([11, 12]);
  expect(clock.delays).toEqual([]);
});

test('the fault names the process, also if nobody else asks the workers', async () => {
  const { clock, slow, status } = pool();
  expect(status.fault()).toBeUndefined();
  await turn();
  slow.hangs = true;
  expect(status.fault()).toBeUndefined();
  expect(status.fault()).toBeUndefined();
  expect(slow.calls).toBe(2);
  await turn();
  clock.advance(4999);
  expect(status.fault()).toBeUndefined();
  clock.advance(1);
  expect(status.fault()).toBe(
    'worker 1 (process 12) does not answer: if it does not soon, it is killed and started again'
  );
  slow.goOn();
  await turn();
  expect(status.fault()).toBeUndefined();
});

test('no call has many sites', async () => {
  const sites = Array.from({ length: 40 }, (_, i) => `site-${i}`);
  const calls: number[] = [];
  const worker = {
    status: async (some: readonly string[]): Promise<WorkerStatus> => {
      calls.push(some.length);
      const verdicts = Object.fromEntries(some.map((site) => [site, { Forward: 2 }])) as never;
      return { pid: 1, listener: {}, dataPlane: {}, device: {}, verdicts, traffic: {} };
    },
  } as unknown as Worker;
  const status = new PoolStatus(() => [worker, worker], new Answers(systemClock), systemClock);
  const { verdicts } = await status.total(sites, [sites, []]);
  expect(calls).toEqual([0, 0, 16, 16, 16, 16, 8, 8]);
  expect(verdicts).toEqual(Object.fromEntries(sites.map((site) => [site, { Forward: 4 }])));
});
