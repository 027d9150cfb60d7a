/**
 * Medians of the rounds, ratios to plain TCP, targets, and the tables.
 * @module
 */
import { median } from '../gateway/median.ts';
import type { Figures } from './measures.ts';

export interface Result extends Figures {
  readonly wan: string;
  readonly contender: string;
  readonly rounds: number;
  /** `loadedP50Ms - idleP50Ms`: all queues on the path, including that of the wan. */
  readonly queueP50Ms: number | null;
  readonly queueP99Ms: number | null;
  /** The ratios to the contender `plain` over the same wan; null without it. */
  readonly vsPlain: {
    readonly one: number;
    readonly eight: number;
    /** How much longer the queues are than those of plain TCP. */
    readonly addedQueueP50Ms: number | null;
    readonly addedQueueP99Ms: number | null;
  } | null;
}

export interface Target {
  readonly what: string;
  /** Null where it was not measured. */
  readonly value: number | null;
  readonly limit: number;
  readonly isMet: boolean | null;
}

/** The rounds of one contender over one wan. */
export interface Rounds {
  readonly wan: string;
  readonly contender: string;
  readonly figures: readonly Figures[];
}

export function resultsOf(all: readonly Rounds[]): Result[] {
  const medians = all
    .filter(({ figures }) => figures.length > 0)
    .map(({ wan, contender, figures }) => {
      const median = mediansOf(figures);
      const { idleP50Ms, loadedP50Ms, loadedP99Ms } = median;
      const queueP50Ms = difference(loadedP50Ms, idleP50Ms);
      const queueP99Ms = difference(loadedP99Ms, idleP50Ms);
      return { wan, contender, rounds: figures.length, ...median, queueP50Ms, queueP99Ms };
    });
  return medians.map((each) => {
    const plain = medians.find(({ wan, contender }) => wan === each.wan && contender === 'plain');
    const vsPlain = plain && {
      one: each.oneMbps / plain.oneMbps,
      eight: each.eightMbps / plain.eightMbps,
      addedQueueP50Ms: difference(each.queueP50Ms, plain.queueP50Ms),
      addedQueueP99Ms: difference(each.queueP99Ms, plain.queueP99Ms),
    };
    return { ...each, vsPlain: vsPlain ?? null };
  });
}

export function targetsOf(results: readonly Result[]): Target[] {
  return TARGETS.map(({ wan, what, of, least, most }) => {
    const result = results.find((each) => each.wan === wan && each.contender === 'ours');
    const value = result?.vsPlain?.[of] ?? null;
    const isMet = value === null ? null : least === undefined ? value <= most : value >= least;
    return { what: `${wan}: ${what}`, value, limit: least ?? most, isMet };
  });
}

export function tableOf(results: readonly Result[]): string {
  const heads = ['wan', '', 'one', 'eight Mbit/s', 'of plain', '', 'idle ms', 'loaded p50', 'p99'];
  const rows = results.map((each) => [
    ...[each.wan, each.contender, each.oneMbps.toFixed(0), each.eightMbps.toFixed(0)],
    ...[decimal(each.vsPlain?.one, 2), decimal(each.vsPlain?.eight, 2)],
    ...[decimal(each.idleP50Ms), decimal(each.loadedP50Ms), decimal(each.loadedP99Ms)],
    ...[`${(each.lost * 100).toFixed(2)} %`, decimal(each.lateMs)],
  ]);
  return aligned([[...heads, 'lost', 'late ms'], ...rows]);
}

export function targetTableOf(targets: readonly Target[]): string {
  const rows = targets.map(({ what, value, limit, isMet }) => [
    what,
    decimal(value, 2),
    String(limit),
    isMet === null ? 'not measured' : isMet ? 'met' : 'NOT MET',
  ]);
  return aligned([['ours', 'is', 'target', ''], ...rows]);
}

function mediansOf(rounds: readonly Figures[]): Figures {
  const of = (field: keyof Figures): number | null => {
    const values = rounds.map((figures) => figures[field]).filter((value) => value !== null);
    return values.length === 0 ? null : median(values);
  };
  return {
    oneMbps: of('oneMbps')!,
    eightMbps: of('eightMbps')!,
    idleP50Ms: of('idleP50Ms'),
    loadedP50Ms: of('loadedP50Ms'),
    loadedP99Ms: of('loadedP99Ms'),
    lost: of('lost')!,
    lateMs: of('lateMs')!,
  };
}

function difference(a: number | null, b: number | null): number | null {
  return a === null || b === null ? null : a - b;
}

function decimal(value: number | null | undefined, digits: number = 1): string {
  return value === null || value === undefined ? '-' : value.toFixed(digits);
}

function aligned(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  const line = (row: readonly string[]) =>
    row.map((cell, i) => (i < 2 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join('  ');
  return rows.map((row) => line(row).trimEnd()).join('\n');
}

interface TargetRule {
  readonly wan: string;
  readonly what: string;
  readonly of: keyof NonNullable<Result['vsPlain']>;
}

const TARGETS: readonly (TargetRule &
  ({ least: number; most?: never } | { most: number; least?: never }))[] = [
  { wan: '20ms-0.1%', what: 'eight streams, of plain', of: 'eight', least: 0.8 },
  { wan: '20ms-1%', what: 'one stream, of plain', of: 'one', least: 0.7 },
  { wan: '20ms-1%', what: 'eight streams, of plain', of: 'eight', least: 0.7 },
  { wan: '20ms-200M', what: 'added queueing, median, ms', of: 'addedQueueP50Ms', most: 50 },
  { wan: '20ms-200M', what: 'added queueing, p99, ms', of: 'addedQueueP99Ms', most: 50 },
];
