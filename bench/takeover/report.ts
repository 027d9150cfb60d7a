/**
 * Medians and worst values of takeovers, and their targets.
 * @module
 */
import { median } from '../gateway/median.ts';
import { aligned, type Target, targetOf } from '../gateway/report.ts';
import type { Gaps } from './client.ts';
import type { Fault, Takeovers } from './rounds.ts';

/** The gaps of one kind of connection in all rounds. */
export interface TakeoverRow {
  readonly fault: Fault;
  readonly of: keyof Gaps;
  readonly rounds: number;
  readonly median: number;
  readonly worst: number;
}

export function takeoverRowsOf({ gaps }: Takeovers): TakeoverRow[] {
  return (Object.keys(gaps) as Fault[]).flatMap((fault) =>
    (['tcpMs', 'udpMs'] as const).map((of) => {
      const values = gaps[fault].map((each) => each[of]);
      return {
        ...{ fault, of, rounds: values.length },
        ...{ median: median(values), worst: Math.max(...values) },
      };
    })
  );
}

export function takeoverTableOf(takeovers: Takeovers): string {
  const rows = takeoverRowsOf(takeovers).map(({ fault, of, rounds, median, worst }) =>
    [`${fault}, ${KINDS[of]}`, rounds, median, worst].map(String)
  );
  const head = `longest gap at the timing "${takeovers.timing}"`;
  return aligned([[head, 'rounds', 'median, ms', 'worst, ms'], ...rows]);
}

/** The worst takeover of each kind. */
export function takeoverTargetsOf(takeovers: Takeovers): Target[] {
  return takeoverRowsOf(takeovers)
    .filter(({ fault }) => fault !== 'none')
    .map(({ fault, of, worst }) => {
      const what = `${fault}, ${takeovers.timing} timing: longest gap of ${KINDS[of]}, ms`;
      return targetOf(what, worst, undefined, MOST_MS);
    });
}

const KINDS = { tcpMs: 'TCP', udpMs: 'UDP' };
const MOST_MS = 3000;
