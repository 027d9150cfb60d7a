/**
 * What is measured: which outages, how long, over which wans, and how often.
 * @module
 */
import type { WanShape } from '../wan/wan.ts';

export type Outage =
  /** The wan loses every packet in both directions. */
  | 'dropped'
  /** The edge's own interface to the wan is down. */
  | 'link-down'
  /** The gateway is killed (SIGKILL) and started again at once. Only for ours. */
  | 'cloud-killed'
  | 'edge-killed';

/** Wans that have the same outage at the same moment. */
export interface Cell {
  readonly name: string;
  readonly outage: Outage;
  /** How long it lasts; 0 where that is the start of the program. */
  readonly lastsMs: number;
  readonly wans: readonly (WanShape & { readonly name: string })[];
  readonly rounds: number;
}

/** @param rounds of each cell; by default twenty, and five of those that few depend on */
export function cells(rounds: number | undefined): Cell[] {
  const cuts = (['dropped', 'link-down'] as const).flatMap((outage) =>
    [1, 20].map((roundTripMs) => ({
      name: `${outage}-8s-${roundTripMs}ms`,
      outage,
      lastsMs: 8_000,
      wans: [wan(roundTripMs, 0), wan(roundTripMs, 0.001)],
      rounds: rounds ?? 20,
    }))
  );
  const others = [2, 30].map((seconds) => ({
    name: `dropped-${seconds}s-20ms`,
    outage: 'dropped' as const,
    lastsMs: seconds * 1_000,
    wans: [wan(20, 0)],
    rounds: rounds ?? 5,
  }));
  const kills = (['cloud-killed', 'edge-killed'] as const).map((outage) => ({
    name: `${outage}-20ms`,
    outage,
    lastsMs: 0,
    wans: [wan(20, 0)],
    rounds: rounds ?? 5,
  }));
  return [...cuts, ...others, ...kills];
}

function wan(roundTripMs: number, loss: number): WanShape & { readonly name: string } {
  const name = `${roundTripMs}ms${loss === 0 ? '' : `-${loss * 100}%`}`;
  return { name, roundTripMs, loss };
}
