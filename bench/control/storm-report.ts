/**
 * The targets and the table of a reconnect storm.
 * @module
 */
import { aligned, type Target, targetOf } from '../gateway/report.ts';
import type { StormFigures } from './storm.ts';

export interface StormReport {
  readonly targets: readonly Target[];
  readonly table: string;
}

export function stormReportOf(figures: StormFigures): StormReport {
  const targets = [
    targetOf('last back / (tunnels / handshake rate)', figures.ratio, undefined, 1.3),
    targetOf('highest RSS in the storm / before', figures.rssRatio, undefined, 1.2),
  ];
  const { tunnels, failed } = figures;
  const rows = ROWS.map(([what, name]) => [what, String(figures[name])]);
  const ends = Object.entries(failed).map(([code, count]) => [`ended: ${code}`, String(count)]);
  const table = aligned([['reconnect storm', `${tunnels} tunnels`], ...rows, ...ends]);
  return { targets, table };
}

const ROWS: readonly (readonly [what: string, name: keyof StormFigures])[] = [
  ['handshakes a second before', 'handshakesPerSecond'],
  ['  CPU of one, listener, ms', 'listenerCpuMs'],
  ['  CPU of one, edge, ms', 'edgeCpuMs'],
  ['last tunnel back, ms', 'lastBackMs'],
  ['outage p50, ms', 'p50Ms'],
  ['outage p99, ms', 'p99Ms'],
  ['CPU for each, listener, ms', 'stormListenerCpuMs'],
  ['CPU for each, edge, ms', 'stormEdgeCpuMs'],
  ['longest slice, ms', 'sliceMs'],
];
