/**
 * The targets and the tables of one process on a `FileStore`.
 * @module
 */
import { aligned, rounded, type Target, targetOf, targetTableOf } from '../gateway/report.ts';
import type { Cost } from './cost.ts';
import { exponentOf, type Growth } from './growth.ts';
import type { MeasuredFigures } from './measures.ts';
import type { RevocationsUnderLoad } from './revocations.ts';

export interface SizeFigures extends MeasuredFigures {
  /** `CloudGateway.revoke`, until it returns the receipt. */
  readonly receipt: Cost;
  readonly underLoad: RevocationsUnderLoad;
}

export interface Report {
  readonly growth: Growth;
  readonly targets: readonly Target[];
  readonly text: string;
}

/** @param sizes at least two, the largest last */
export function reportOf(sizes: readonly SizeFigures[]): Report {
  const counts = sizes.map(({ sites }) => sites);
  const growth = Object.fromEntries(
    GROWING.map(([name, of]) => [name, exponentOf(counts, sizes.map(of))])
  );
  const targets = targetsOf(sizes.at(-1)!, sizes, growth);
  return { growth, targets, text: `${tableOf(sizes, growth)}\n\n${targetTableOf(targets, '')}` };
}

function targetsOf(
  largest: SizeFigures,
  sizes: readonly SizeFigures[],
  growth: Growth
): readonly Target[] {
  const { sites, expose, apply, revoke, receipt, underLoad, selector, full } = largest;
  const at = (what: string) => `${what}, ${sites} sites`;
  const grows = (what: string, name: string, most: number) =>
    targetOf(`${what}: growth exponent`, growth[name] ?? null, undefined, most);
  const after = sizes.reduce((sum, each) => sum + each.underLoad.packetsAfter, 0);
  const lost = sizes.reduce((sum, { stream }) => sum + stream.lost, 0);
  return [
    targetOf(at('expose to snapshot, ms'), expose.ms, undefined, 20),
    targetOf(at('expose: longest slice, ms'), expose.sliceMs, undefined, 5),
    targetOf(at('expose: full derivation / it'), rounded(full.ms / expose.ms), 100, undefined),
    grows('expose', 'expose', 0.15),
    targetOf(at('apply of all: longest slice, ms'), apply.sliceMs, undefined, 5),
    targetOf(at('revoke, ms'), revoke.ms, undefined, 50),
    grows('revoke', 'revoke', 0.15),
    targetOf(at('revoke to receipt, ms'), receipt.ms, undefined, 50),
    grows('revoke to receipt', 'receipt', 0.15),
    targetOf(at('revoke under load, ms'), underLoad.ms, undefined, 50),
    targetOf('packets of a revoked site after the receipt', after, undefined, 0),
    grows('new client', 'client', 0.1),
    grows(`new client beside ${largest.clients}`, 'clientOfMany', 0.1),
    targetOf(at('selector of all: longest slice, ms'), selector?.sliceMs ?? null, undefined, 5),
    grows('selector of all', 'selector', 1.1),
    targetOf(at('start from FileStore, ms'), largest.startMs, undefined, 3000),
    targetOf(at('RSS, MiB'), largest.rssMiB, undefined, 600),
    grows('RSS', 'rss', 1),
    targetOf('packets lost meanwhile', lost, undefined, 0),
  ];
}

function tableOf(sizes: readonly SizeFigures[], growth: Growth): string {
  const rows = ROWS.map(([what, of, name]) => [
    what,
    ...sizes.map((figures) => String(of(figures) ?? '-')),
    name === undefined ? '' : String(growth[name] ?? '-'),
  ]);
  const heads = sizes.map(({ sites }) => `${sites} sites`);
  return aligned([['', ...heads, 'exponent'], ...rows]);
}

type Of = (figures: SizeFigures) => number | null;

const GROWING: readonly (readonly [name: string, of: Of])[] = [
  ['expose', ({ expose }) => expose.ms],
  ['apply', ({ apply }) => apply.ms],
  ['revoke', ({ revoke }) => revoke.ms],
  ['receipt', ({ receipt }) => receipt.ms],
  ['underLoad', ({ underLoad }) => underLoad.ms],
  ['client', ({ client }) => client.ms],
  ['clientOfMany', ({ clientOfMany }) => clientOfMany.ms],
  ['selector', ({ selector }) => selector?.ms ?? null],
  ['full', ({ full }) => full.ms],
  ['start', ({ startMs }) => startMs],
  ['rss', ({ rssMiB }) => rssMiB],
];

function costRows(
  what: string,
  name: string,
  of: (figures: SizeFigures) => Cost | null
): (readonly [what: string, of: Of, growth?: string])[] {
  return [
    [`${what}, ms`, (figures) => of(figures)?.ms ?? null, name],
    ['  longest stall of the loop', (figures) => of(figures)?.stallMs ?? null],
    ['  without collections', (figures) => of(figures)?.sliceMs ?? null],
    ['  longest collection', (figures) => of(figures)?.collectionMs ?? null],
  ];
}

const ROWS: readonly (readonly [what: string, of: Of, growth?: string])[] = [
  ...costRows('expose to snapshot', 'expose', ({ expose }) => expose),
  ...costRows('full derivation', 'full', ({ full }) => full),
  ...costRows('apply of all', 'apply', ({ apply }) => apply),
  ...costRows('revoke', 'revoke', ({ revoke }) => revoke),
  ...costRows('revoke to receipt', 'receipt', ({ receipt }) => receipt),
  ['revoke under load, ms', ({ underLoad }) => underLoad.ms, 'underLoad'],
  ['  longest', ({ underLoad }) => underLoad.mostMs],
  ['  packets after the receipt', ({ underLoad }) => underLoad.packetsAfter],
  ['  packets before it', ({ underLoad }) => underLoad.packetsBefore],
  ['  packets tried after it', ({ underLoad }) => underLoad.packetsRefused],
  ...costRows('new client', 'client', ({ client }) => client),
  ['clients loaded', ({ clients }) => clients],
  ...costRows('their admission', 'load', ({ load }) => load),
  ...costRows('new client beside them', 'clientOfMany', ({ clientOfMany }) => clientOfMany),
  ...costRows('selector of all sites', 'selector', ({ selector }) => selector),
  ['start, ms', ({ startMs }) => startMs, 'start'],
  ['RSS after it, MiB', ({ rssMiB }) => rssMiB, 'rss'],
  ['  after a collection', ({ collectedRssMiB }) => collectedRssMiB],
  ['  heap', ({ heapMiB }) => heapMiB],
  ['packets sent meanwhile', ({ stream }) => stream.sent],
  ['  lost', ({ stream }) => stream.lost],
  ['  delay p50, ms', ({ stream }) => stream.p50Ms],
  ['  delay p99, ms', ({ stream }) => stream.p99Ms],
  ['  longest delay, ms', ({ stream }) => stream.mostMs],
];
