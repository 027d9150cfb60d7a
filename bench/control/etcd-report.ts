/**
 * The targets and the tables of one machine of a cloud of several.
 * @module
 */
import { aligned, rounded, type Target, targetOf, targetTableOf } from '../gateway/report.ts';
import {
  type TakeoverRow,
  takeoverRowsOf,
  takeoverTableOf,
  takeoverTargetsOf,
} from '../takeover/report.ts';
import type { EtcdFigures, EtcdSize } from './etcd.ts';
import { exponentOf, type Growth } from './growth.ts';
import type { MeasuredFigures } from './measures.ts';
import { stormReportOf } from './storm-report.ts';

export interface EtcdReport {
  /** The growth of the figures on etcd. */
  readonly growth: Growth;
  /** The medians and the worst gaps of each timing. */
  readonly gaps: Readonly<Record<string, readonly TakeoverRow[]>>;
  readonly targets: readonly Target[];
  readonly text: string;
}

export function etcdReportOf({ sizes, storm, takeovers }: EtcdFigures): EtcdReport {
  const sites = sizes.map(({ etcd }) => etcd.sites);
  const growth = Object.fromEntries(
    ROWS.flatMap(([, of, name]) =>
      name === undefined
        ? []
        : [
            [
              name,
              exponentOf(
                sites,
                sizes.map(({ etcd }) => of(etcd))
              ),
            ],
          ]
    )
  );
  const stormReport = stormReportOf(storm);
  const targets = [
    ...targetsOf(sizes.at(-1)!, growth),
    ...stormReport.targets,
    ...takeovers.flatMap(takeoverTargetsOf),
  ];
  const text = [
    tableOf(sizes, growth),
    commitTableOf(sizes),
    stormReport.table,
    ...takeovers.map(takeoverTableOf),
    targetTableOf(targets, ''),
  ].join('\n\n');
  const gaps = Object.fromEntries(takeovers.map((each) => [each.timing, takeoverRowsOf(each)]));
  return { growth, gaps, targets, text };
}

function targetsOf({ memory, etcd }: EtcdSize, growth: Growth): Target[] {
  const at = (what: string) => `${what}, ${etcd.sites} sites`;
  const grows = (what: string, name: string, most: number) =>
    targetOf(`${what}: growth exponent`, growth[name] ?? null, undefined, most);
  return [
    targetOf(
      at('expose on etcd, ms'),
      etcd.expose.ms,
      undefined,
      rounded(2 * memory.expose.ms + 3)
    ),
    targetOf(at('expose: longest slice, ms'), etcd.expose.sliceMs, undefined, 5),
    grows('expose', 'expose', 0.15),
    grows('new client', 'client', 0.1),
    grows(`new client beside ${etcd.clients}`, 'clientOfMany', 0.1),
    targetOf(at('start from etcd, ms'), etcd.startMs, undefined, 8000),
  ];
}

/** Two columns for each size: in memory, and on etcd. */
function tableOf(sizes: readonly EtcdSize[], growth: Growth): string {
  const rows = ROWS.map(([what, of, name]) => [
    what,
    ...sizes.flatMap(({ memory, etcd }) => [of(memory), of(etcd)].map((each) => `${each ?? '-'}`)),
    name === undefined ? '' : `${growth[name] ?? '-'}`,
  ]);
  const heads = sizes.flatMap(({ etcd }) => [`${etcd.sites} in memory`, 'on etcd']);
  return aligned([['sites', ...heads, 'exponent'], ...rows]);
}

function commitTableOf(sizes: readonly EtcdSize[]): string {
  const rows = sizes.map(({ etcd, commit }) => {
    const { p50Ms, p99Ms, mostMs, perSecond } = commit;
    return [`${etcd.sites} sites`, ...[p50Ms, p99Ms, mostMs, perSecond].map(String)];
  });
  const heads = ['p50, ms', 'p99, ms', 'longest, ms', 'a second, 64 at once'];
  return aligned([['a commit of one entry to etcd', ...heads], ...rows]);
}

type Of = (figures: MeasuredFigures) => number | null;

const ROWS: readonly (readonly [what: string, of: Of, growth?: string])[] = [
  ['expose to snapshot, ms', ({ expose }) => expose.ms, 'expose'],
  ['  longest stall of the loop', ({ expose }) => expose.stallMs],
  ['  without collections', ({ expose }) => expose.sliceMs],
  ['apply of all, ms', ({ apply }) => apply.ms, 'apply'],
  ['revoke, ms', ({ revoke }) => revoke.ms, 'revoke'],
  ['new client, ms', ({ client }) => client.ms, 'client'],
  ['clients loaded', ({ clients }) => clients],
  ['their admission, ms', ({ load }) => load.ms],
  ['  longest stall of the loop', ({ load }) => load.stallMs],
  ['new client beside them, ms', ({ clientOfMany }) => clientOfMany.ms, 'clientOfMany'],
  ['selector of all sites, ms', ({ selector }) => selector?.ms ?? null, 'selector'],
  ['  without collections', ({ selector }) => selector?.sliceMs ?? null],
  ['start, ms', ({ startMs }) => startMs, 'start'],
  ['RSS after it, MiB', ({ rssMiB }) => rssMiB],
  ['  after a collection', ({ collectedRssMiB }) => collectedRssMiB],
  ['packets sent meanwhile', ({ stream }) => stream.sent],
  ['  lost', ({ stream }) => stream.lost],
];
