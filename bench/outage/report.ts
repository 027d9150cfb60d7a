/**
 * Medians, worst values, targets and the table.
 * @module
 */
import { median } from '../gateway/median.ts';
import type { Cell } from './cells.ts';
import type { Contest, Gaps } from './contest.ts';

export interface Result {
  readonly cell: string;
  readonly wan: string;
  readonly roundTripMs: number;
  readonly contender: string;
  readonly rounds: number;
  readonly pong: Summary;
  readonly bulk: Summary;
}

/** In ms. A flow that did not move while it was watched counts as that time. */
interface Summary {
  readonly medianMs: number;
  readonly worstMs: number;
  readonly notBack: number;
}

export interface Target {
  readonly what: string;
  readonly value: number;
  readonly limit: number;
  readonly isMet: boolean;
}

export function resultOf(
  cell: Cell,
  { name, wanName, roundTripMs }: Contest,
  gaps: readonly Gaps[],
  watchMs: number
): Result {
  const summaryOf = (times: readonly (number | undefined)[]): Summary => {
    const values = times.map((ms) => ms ?? watchMs);
    if (values.length === 0) return { medianMs: watchMs, worstMs: watchMs, notBack: 0 };
    return {
      medianMs: Math.round(median(values)),
      worstMs: Math.round(Math.max(...values)),
      notBack: times.filter((ms) => ms === undefined).length,
    };
  };
  return {
    cell: cell.name,
    wan: wanName,
    roundTripMs,
    contender: name,
    rounds: gaps.length,
    pong: summaryOf(gaps.map(({ pongMs }) => pongMs)),
    bulk: summaryOf(gaps.map(({ bulkMs }) => bulkMs)),
  };
}

/** The targets of ours: two round trips plus 300 ms at the median, and 2 s at worst. */
export function targetsOf(results: readonly Result[]): Target[] {
  return results
    .filter(({ contender }) => contender === 'ours')
    .flatMap(({ cell, wan, roundTripMs, pong, bulk }) =>
      [pong, bulk].flatMap(({ medianMs, worstMs }, at) => {
        const what = `${cell}, ${wan}, ${at === 0 ? 'request and response' : 'bulk'}`;
        return [
          target(`${what}, median`, medianMs, 2 * roundTripMs + 300),
          target(`${what}, worst`, worstMs, 2_000),
        ];
      })
    );
}

export function tableOf(results: readonly Result[]): string {
  const lines = results.map(({ cell, wan, contender, rounds, pong, bulk }) =>
    [cell, wan, contender, rounds, ...[pong, bulk].flatMap((s) => [s.medianMs, s.worstMs])].join(
      ' | '
    )
  );
  const head = 'outage | wan | contender | rounds | pong ms | worst | bulk ms | worst';
  return [head, head.replace(/[^|]+/g, ' --- '), ...lines].map((line) => `| ${line} |`).join('\n');
}

function target(what: string, value: number, limit: number): Target {
  return { what, value, limit, isMet: value <= limit };
}
