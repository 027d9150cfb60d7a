/**
 * Medians of the rounds, ratios between contenders, and the table.
 * @module
 */
import type { Figures } from './measures.ts';
import { median } from './median.ts';

export type Ratios = Readonly<Record<string, Partial<Record<keyof Figures, number>>>>;

export interface Result extends Figures {
  readonly name: string;
  readonly rounds: number;
  /** The figure divided by that of the rival, for each rival and each figure that both have. */
  readonly ratios: Ratios;
}

/** A target of the gateways. */
export interface Target {
  readonly what: string;
  /** Null where a figure is missing. */
  readonly value: number | null;
  readonly limit: number;
  readonly isLeast: boolean;
  readonly isMet: boolean | null;
}

export function resultsOf(rounds: ReadonlyMap<string, readonly Figures[]>): Result[] {
  const medians = [...rounds]
    .filter(([, figures]) => figures.length > 0)
    .map(([name, figures]) => ({ name, rounds: figures.length, ...mediansOf(figures) }));
  return medians.map((each) => ({ ...each, ratios: ratiosOf(each, medians) }));
}

/** None without the gateways' own result. */
export function targetsOf(results: readonly Result[]): Target[] {
  const ours = results.find(({ name }) => name === 'ours');
  if (ours === undefined) return [];
  return TARGETS.map(({ what, field, rival, least, most }) => {
    const exact =
      rival === undefined ? ours[field] : ratio(ours, findResult(results, rival), field);
    const value = exact == null ? null : rounded(exact);
    return targetOf(what, value, least, most);
  });
}

export function tableOf(results: readonly Result[]): string {
  const heads = ['', ...COLUMNS.map(({ head }) => head)];
  const rows = results.map((result) => [
    result.name,
    ...COLUMNS.map(({ field, digits }) => result[field]?.toFixed(digits) ?? '-'),
  ]);
  return aligned([heads, ...rows]);
}

/** Compares a figure with what it should be at least, or at most. */
export function targetOf(
  what: string,
  value: number | null,
  least: number | undefined,
  most: number | undefined
): Target {
  const limit = (least ?? most)!;
  const isLeast = least !== undefined;
  const isMet = value === null ? null : isLeast ? value >= limit : value <= limit;
  return { what, value, limit, isLeast, isMet };
}

/** @param of whose targets these are */
export function targetTableOf(targets: readonly Target[], of: string = 'ours'): string {
  const rows = targets.map(({ what, value, limit, isLeast, isMet }) => [
    what,
    value === null ? '-' : String(value),
    `${isLeast ? 'at least' : 'at most'} ${limit}`,
    isMet === null ? 'not measured' : isMet ? 'met' : 'NOT MET',
  ]);
  return aligned([[of, 'is', 'target', ''], ...rows]);
}

/** Rounds to four digits, which are more than the machine reproduces. */
export function rounded(value: number): number {
  return Number(value.toPrecision(4));
}

function mediansOf(rounds: readonly Figures[]): Figures {
  const fields = COLUMNS.map(({ field }) => {
    const values = rounds.map((figures) => figures[field]).filter((value) => value !== null);
    return [field, values.length === 0 ? null : rounded(median(values))] as const;
  });
  return Object.fromEntries(fields) as Record<keyof Figures, number | null>;
}

type Named = Figures & { readonly name: string };

function ratiosOf(own: Named, all: readonly Named[]): Ratios {
  const rivals = RIVALS.filter((name) => name !== own.name && all.some((r) => r.name === name));
  return Object.fromEntries(
    rivals.map((rival) => {
      const ratios = COLUMNS.map(
        ({ field }) => [field, ratio(own, findResult(all, rival), field)] as const
      );
      const known = ratios.filter(([, value]) => value !== undefined);
      return [rival, Object.fromEntries(known.map(([field, value]) => [field, rounded(value!)]))];
    })
  );
}

function ratio(own: Figures, rival: Figures | undefined, field: keyof Figures): number | undefined {
  const [above, below] = [own[field], rival?.[field]];
  return above == null || below == null || below === 0 ? undefined : above / below;
}

function findResult<T extends Named>(all: readonly T[], rival: string): T | undefined {
  return all.find(({ name }) => name === rival);
}

/** Returns a table of which the first column is a text, and the others are numbers. */
export function aligned(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  const line = (row: readonly string[]) =>
    row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)));
  return rows.map((row) => line(row).join('  ').trimEnd()).join('\n');
}

/** The rivals for which ratios are reported. */
const RIVALS = ['plain', 'openvpn', 'wireguardGo', 'nginxMtls', 'haproxyMtls'] as const;

const COLUMNS: readonly { field: keyof Figures; head: string; digits: number }[] = [
  { field: 'tcp1Gbps', head: 'tcp1 Gb/s', digits: 2 },
  { field: 'tcp8Gbps', head: 'tcp8', digits: 2 },
  { field: 'reverseGbps', head: 'reverse', digits: 2 },
  { field: 'cpuSecondsPerGiB', head: 'CPU s/GiB', digits: 2 },
  { field: 'p50Us', head: 'p50 us', digits: 0 },
  { field: 'p99Us', head: 'p99', digits: 0 },
  { field: 'loadedP99Us', head: 'loaded p99', digits: 0 },
  { field: 'connectP50Us', head: 'connect', digits: 0 },
  { field: 'udpPps', head: 'udp pps', digits: 0 },
  { field: 'udpCleanPps', head: 'clean', digits: 0 },
  { field: 'rssMiB', head: 'RSS MiB', digits: 0 },
];

const TARGETS: readonly {
  readonly what: string;
  readonly field: keyof Figures;
  /** The rival by whose figure it is divided; without it, the figure itself counts. */
  readonly rival?: (typeof RIVALS)[number];
  readonly least?: number;
  readonly most?: number;
}[] = [
  { what: 'one TCP stream / openvpn', field: 'tcp1Gbps', rival: 'openvpn', least: 10 },
  { what: 'one TCP stream / nginxMtls', field: 'tcp1Gbps', rival: 'nginxMtls', least: 0.7 },
  { what: 'CPU per GiB / openvpn', field: 'cpuSecondsPerGiB', rival: 'openvpn', most: 0.11 },
  { what: 'connection / openvpn', field: 'connectP50Us', rival: 'openvpn', most: 1.3 },
  { what: 'connection / nginxMtls', field: 'connectP50Us', rival: 'nginxMtls', most: 0.4 },
  { what: 'connection / haproxyMtls', field: 'connectP50Us', rival: 'haproxyMtls', most: 0.4 },
  { what: 'small UDP / openvpn', field: 'udpPps', rival: 'openvpn', least: 1.7 },
  { what: 'small UDP, loss < 1 % / openvpn', field: 'udpCleanPps', rival: 'openvpn', least: 1 },
  { what: 'ping-pong p50 / openvpn', field: 'p50Us', rival: 'openvpn', most: 1.2 },
  { what: 'p99 beside a bulk stream, us', field: 'loadedP99Us', most: 10_000 },
];
