/**
 * The status of the workers of a pool. Workers are asked for a number of sites at a time, so that none of them is held
 * up while it carries packets.
 * @module
 */
import type { Slices } from '../base/slices.ts';
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

type StatusWorker = Pick<Worker, 'status'>;

/** Asks the workers for sites, part by part, and gives way between the parts. The first part has no site. */
export async function* statusParts(
  workers: readonly StatusWorker[],
  sites: readonly string[],
  slices: Pick<Slices, 'next'>
): AsyncGenerator<PoolStatusPart> {
  yield { sites: [], statuses: await statusesOf(workers, []) };
  for (let at = 0; at < sites.length; at += SITES_PER_CALL) {
    const some = sites.slice(at, at + SITES_PER_CALL);
    await slices.next();
    yield { sites: some, statuses: await statusesOf(workers, some) };
  }
}

/**
 * Returns the status of a pool from its parts.
 *
 * @param held the sites that each worker holds, by number
 */
export async function poolStatusOf(
  parts: AsyncIterable<PoolStatusPart>,
  held: readonly (readonly string[])[]
): Promise<WorkerPoolStatus> {
  const verdicts = new Map<string, Readonly<Record<string, number>>>();
  let all: readonly WorkerStatus[] = [];
  for await (const { sites, statuses } of parts) {
    all = statuses;
    for (const site of sites) {
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

function statusesOf(
  workers: readonly StatusWorker[],
  sites: readonly string[]
): Promise<readonly WorkerStatus[]> {
  return Promise.all(workers.map((worker) => worker.status(sites)));
}

function sum(counters: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const each of counters) {
    for (const [name, count] of Object.entries(each)) sums[name] = (sums[name] ?? 0) + count;
  }
  return sums;
}

/** A worker answers for so many sites in less than 1 ms. */
const SITES_PER_CALL = 16;
