/**
 * What the tunnels of each site have carried, also those that are down by now.
 * @module
 */
import type { MtlsTunnel } from '../tunnel/index.ts';

/** Cumulative counters of the tunnels of one site, see `ConnectionCounters`. */
export interface TunnelTotals {
  readonly sentBytes: number;
  readonly receivedBytes: number;
  readonly droppedFull: number;
  readonly droppedLate: number;
}

export class TunnelTraffic {
  /** The sums of tunnels that are down, by site. */
  readonly #ended = new Map<string, TunnelTotals>();

  /** A tunnel of the site is down for good. */
  end(site: string, { counters }: Pick<MtlsTunnel, 'counters'>): void {
    this.#ended.set(site, sum(this.#ended.get(site) ?? NONE, counters));
  }

  /** The site is gone. */
  forget(site: string): void {
    this.#ended.delete(site);
  }

  /** @param tunnels those that are up */
  of(site: string, tunnels: Iterable<Pick<MtlsTunnel, 'counters'>>): TunnelTotals {
    let totals = this.#ended.get(site) ?? NONE;
    for (const { counters } of tunnels) totals = sum(totals, counters);
    return totals;
  }
}

function sum(a: TunnelTotals, b: TunnelTotals): TunnelTotals {
  return {
    sentBytes: a.sentBytes + b.sentBytes,
    receivedBytes: a.receivedBytes + b.receivedBytes,
    droppedFull: a.droppedFull + b.droppedFull,
    droppedLate: a.droppedLate + b.droppedLate,
  };
}

const NONE: TunnelTotals = { sentBytes: 0, receivedBytes: 0, droppedFull: 0, droppedLate: 0 };
