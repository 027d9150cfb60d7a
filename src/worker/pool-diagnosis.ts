/**
 * What is asked of the workers of a pool for people who look for a fault: the tunnels of sites, their round-trip times,
 * and captured packets.
 * @module
 */
import type { CaptureBatch, CaptureFilter } from '../translator/index.ts';
import type { TunnelStatus, Worker } from './worker.ts';

export class PoolDiagnosis {
  readonly #workers: () => readonly Worker[];
  readonly #holderOf: (site: string) => number;

  constructor(workers: () => readonly Worker[], holderOf: (site: string) => number) {
    this.#workers = workers;
    this.#holderOf = holderOf;
  }

  /**
   * Returns the tunnel of a site; undefined if there is none.
   *
   * @throws {EnvironmentError} if the worker that holds the site is down.
   */
  tunnelStatus(site: string): Promise<TunnelStatus | undefined> {
    return this.#workers()[this.#holderOf(site)]!.tunnelStatus(site);
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

  /** Returns what a capture has got since the last call. The first call begins it; a restarted worker begins it anew. */
  async takeCapture(capture: number, filter: CaptureFilter): Promise<CaptureBatch> {
    return joined(
      await Promise.all(this.#workers().map((worker) => worker.takeCapture(capture, filter)))
    );
  }

  /** Ends a capture and returns what is left of it. */
  async endCapture(capture: number): Promise<CaptureBatch> {
    return joined(await Promise.all(this.#workers().map((worker) => worker.endCapture(capture))));
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
