/**
 * What the workers of a pool count, and which of them do not answer. A worker whose process hangs counts as down, and
 * holds nobody up (`answers.ts`). Workers are asked for a number of sites at a time, so that none of them is held up while
 * it carries packets.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { type Slices, slicesOf } from '../base/slices.ts';
import type { Answers } from './answers.ts';
import type { Worker, WorkerStatus } from './worker.ts';

export interface WorkerPoolStatus {
  /** Sums over all workers. */
  readonly listener: Readonly<Record<string, number>>;
  readonly dataPlane: Readonly<Record<string, number>>;
  readonly device: Readonly<Record<string, number>>;
  /** The verdict counters by site. */
  readonly verdicts: Readonly<Record<string, Readonly<Record<string, number>>>>;
  /** The workers by number; `pid` is 0 while a worker is down. */
  readonly workers: readonly { readonly pid: number; readonly sites: readonly string[] }[];
}

/** What the workers answer for some of the sites. */
export interface PoolStatusPart {
  readonly sites: readonly string[];
  /** By the number of the worker. A worker that is down has the `pid` 0 and no counters. */
  readonly statuses: readonly WorkerStatus[];
}

export class PoolStatus {
  readonly #workers: () => readonly Worker[];
  readonly #answers: Answers;
  /** The last process of each worker that has answered. */
  readonly #pids = new Map<Worker, number>();
  readonly #slices: Slices;
  #isAsking = false;

  constructor(workers: () => readonly Worker[], answers: Answers, clock: Clock) {
    this.#workers = workers;
    this.#answers = answers;
    this.#slices = slicesOf(clock);
  }

  /** Returns the status of each worker, by number. */
  each(sites: readonly string[]): Promise<readonly WorkerStatus[]> {
    return Promise.all(this.#workers().map((worker) => this.#statusOf(worker, sites)));
  }

  /** @param held the sites that each worker holds */
  async total(
    sites: readonly string[],
    held: readonly (readonly string[])[]
  ): Promise<WorkerPoolStatus> {
    const verdicts = new Map<string, Readonly<Record<string, number>>>();
    let all: readonly WorkerStatus[] = [];
    for await (const { sites: some, statuses } of this.parts(sites)) {
      all = statuses;
      for (const site of some) {
        verdicts.set(site, sum(statuses.map((status) => status.verdicts[site] ?? {})));
      }
    }
    return {
      listener: sum(all.map(({ listener }) => listener)),
      dataPlane: sum(all.map(({ dataPlane }) => dataPlane)),
      device: sum(all.map(({ device }) => device)),
      verdicts: Object.fromEntries(verdicts),
      workers: all.map(({ pid }, i) => ({ pid, sites: held[i]! })),
    };
  }

  /** As `WorkerPool.statusParts`. */
  async *parts(sites: readonly string[]): AsyncGenerator<PoolStatusPart> {
    yield { sites: [], statuses: await this.each([]) };
    for (let at = 0; at < sites.length; at += SITES_PER_CALL) {
      const some = sites.slice(at, at + SITES_PER_CALL);
      await this.#slices.next();
      yield { sites: some, statuses: await this.each(some) };
    }
  }

  /** As `WorkerPool.fault`. It asks the workers anew in the background, so that a later call knows. */
  fault(): string | undefined {
    const workers = this.#workers();
    // A single worker is in this process.
    if (workers.length > 1 && !this.#isAsking) this.#ask();
    const silent = workers.flatMap((worker, number) => {
      if (!this.#answers.isLate(worker)) return [];
      const pid = this.#pids.get(worker);
      const which = pid === undefined ? `${number}` : `${number} (process ${pid})`;
      return [
        `worker ${which} does not answer: if it does not soon, it is killed and started again`,
      ];
    });
    return silent.length === 0 ? undefined : silent.join('; ');
  }

  #ask(): void {
    this.#isAsking = true;
    void this.each([])
      // The caller of `each` learns of an error; here only time counts.
      .catch(() => {})
      .finally(() => {
        this.#isAsking = false;
      });
  }

  async #statusOf(worker: Worker, sites: readonly string[]): Promise<WorkerStatus> {
    return this.#answers.of(
      worker,
      async () => {
        const status = await worker.status(sites);
        if (status.pid !== 0) this.#pids.set(worker, status.pid);
        return status;
      },
      { value: DOWN }
    );
  }
}

function sum(counters: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const each of counters) {
    for (const [name, count] of Object.entries(each)) sums[name] = (sums[name] ?? 0) + count;
  }
  return sums;
}

/** The status of a worker that is down. */
const DOWN: WorkerStatus = Object.freeze({
  pid: 0,
  listener: {},
  dataPlane: {},
  device: {},
  verdicts: {},
  traffic: {},
});
/** A worker answers for so many sites in less than 1 ms. */
const SITES_PER_CALL = 16;
