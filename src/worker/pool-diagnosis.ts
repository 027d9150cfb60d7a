/**
 * What is asked of the workers of a pool for people who look for a fault: the tunnels of sites, their round-trip times,
 * captured packets, and the paths page by page.
 * @module
 */
import { ConfigError } from '../errors.ts';
import type { CaptureBatch, CaptureFilter, PathPage, PathStatus } from '../translator/index.ts';
import type { Answers } from './answers.ts';
import type { TunnelStatus, Worker } from './worker.ts';

/** Which paths of all workers to list. */
export interface PoolPathQuery {
  /** `next` of the page before. Default: the first page. */
  readonly cursor?: string | undefined;
  /** How many paths the page has at most. */
  readonly limit: number;
  /** The site that paths lead from or to. Default: all. */
  readonly site?: string | undefined;
}

export interface PoolPathPage {
  /** There may be fewer than `limit`, also none, although there is a next page. */
  readonly items: readonly PathStatus[];
  /** Absent on the last page. */
  readonly next?: string | undefined;
}

export class PoolDiagnosis {
  readonly #workers: () => readonly Worker[];
  readonly #answers: Answers;
  readonly #holderOf: (site: string) => number;

  /** @internal */
  constructor(
    workers: () => readonly Worker[],
    answers: Answers,
    holderOf: (site: string) => number
  ) {
    this.#workers = workers;
    this.#answers = answers;
    this.#holderOf = holderOf;
  }

  /** How many processes of workers were killed because they did not answer. */
  get killed(): number {
    return this.#answers.killed;
  }

  /**
   * Returns the tunnel of a site; undefined if there is none.
   *
   * @throws {EnvironmentError} if the worker that holds the site is down, or hangs.
   */
  tunnelStatus(site: string): Promise<TunnelStatus | undefined> {
    const holder = this.#workers()[this.#holderOf(site)]!;
    return this.#answers.of(holder, (worker) => worker.tunnelStatus(site));
  }

  /**
   * Measures the round-trip time on each connection of a site's tunnel, in ms; `null` for one that has not answered in
   * `timeoutMs`. Undefined if there is no tunnel.
   *
   * @throws {EnvironmentError} if the worker that holds the site is down.
   */
  measure(site: string, timeoutMs: number): Promise<readonly (number | null)[] | undefined> {
    return this.#workers()[this.#holderOf(site)]!.measure(site, timeoutMs);
  }

  /**
   * Returns one page of the paths of all workers, one worker after the other. A worker that is down, or hangs, is left out.
   *
   * @throws {ConfigError} if the cursor is not `next` of a page.
   */
  async pathPage({ cursor = '0/', limit, site }: PoolPathQuery): Promise<PoolPathPage> {
    const [, from, place] = CURSOR.exec(cursor) ?? [];
    if (from === undefined) throw new ConfigError('cursor', 'expected "next" of the page before');
    const items: PathStatus[] = [];
    let after = place === '' ? undefined : Number(place);
    const workers = this.#workers();
    for (let number = Number(from); number < workers.length; number++) {
      const query = { after, limit: limit - items.length, realm: site };
      const ask = (worker: Worker): Promise<PathPage> => worker.pathPage(query);
      const { paths, next } = await this.#answers.of(workers[number]!, ask, { value: NO_PATHS });
      items.push(...paths);
      if (next !== undefined) return { items, next: `${number}/${next}` };
      if (items.length >= limit && number + 1 < workers.length) {
        return { items, next: `${number + 1}/` };
      }
      after = undefined;
    }
    return { items };
  }

  /** Returns what a capture has got since the last call. The first call begins it; a restarted worker begins it anew. */
  async takeCapture(capture: number, filter: CaptureFilter): Promise<CaptureBatch> {
    return this.#joined((worker) => worker.takeCapture(capture, filter));
  }

  /** Ends a capture and returns what is left of it. */
  async endCapture(capture: number): Promise<CaptureBatch> {
    return this.#joined((worker) => worker.endCapture(capture));
  }

  async #joined(take: (worker: Worker) => Promise<CaptureBatch>): Promise<CaptureBatch> {
    return joined(await this.#answers.ofAll(this.#workers(), take, { value: NO_PACKETS }));
  }
}

/** Joins the batches of all workers, in the order of time. */
function joined(batches: readonly CaptureBatch[]): CaptureBatch {
  const [first] = batches;
  if (first !== undefined && batches.length === 1) return first;
  const lost: Record<string, number> = {};
  for (const batch of batches) {
    for (const [realm, count] of Object.entries(batch.lost)) {
      lost[realm] = (lost[realm] ?? 0) + count;
    }
  }
  const packets = batches.flatMap((batch) => batch.packets);
  return { packets: packets.sort((a, b) => a.timeMs - b.timeMs), lost };
}

/** What a worker that is down, or hangs, has captured. */
const NO_PACKETS: CaptureBatch = { packets: [], lost: {} };
const NO_PATHS: PathPage = { paths: [] };
/** The number of a worker, and a place among its paths. */
const CURSOR = /^([0-9]{1,2})\/([0-9]{0,16})$/;
