/**
 * What both gateways measure in the same way, and the server that shows it.
 * @module
 */
import type { CloseStack } from '../base/close-stack.ts';
import { VERSION } from '../base/version.ts';
import type { DnsServer } from '../dns/index.ts';
import {
  type MetricSet,
  MetricsServer,
  type MetricsServerOptions,
  READINESS_SUBJECTS,
  type Readiness,
  type ReadinessSubject,
} from '../observe/index.ts';
import type { MeasuredStore } from './measured-store.ts';
import type { ResolvedMetricsOptions } from './metrics-options.ts';

/** What every gateway has. A part that is not open yet is undefined. */
export interface CommonMeasured {
  readonly readiness: Readiness;
  readonly store: MeasuredStore | undefined;
  readonly dns: DnsServer | undefined;
}

export function addCommon(
  set: MetricSet,
  { readiness, store, dns }: CommonMeasured,
  subjects: ReadonlySet<ReadinessSubject>
): void {
  set.add('build_info', { version: VERSION, node: process.versions.node }, 1);
  const failing = new Set(readiness.reasons.map(({ subject }) => subject));
  for (const subject of READINESS_SUBJECTS) {
    if (subjects.has(subject)) set.add('ready', { subject }, failing.has(subject) ? 0 : 1);
  }
  if (dns !== undefined) {
    set.addEach('dns_queries_total', {}, 'rcode', dns.responses);
    set.addHistogram('dns_forward_duration_seconds', dns.forwardTimes);
  }
  if (store !== undefined) set.addHistogram('store_commit_duration_seconds', store.durations);
}

/**
 * Opens the server, if the option is there. It is opened first and closed last, so that it tells of the start and of
 * the end too.
 *
 * @throws {EnvironmentError} if the port cannot be opened.
 */
export async function serveMetrics(
  options: ResolvedMetricsOptions | undefined,
  closing: CloseStack,
  gateway: Omit<MetricsServerOptions, 'listen'>
): Promise<MetricsServer | undefined> {
  if (options === undefined) return undefined;
  const server = await MetricsServer.listen({ ...gateway, ...options });
  closing.add(() => server.close());
  return server;
}

/** `DropNoPresence` becomes `drop_no_presence`. */
export function snakeCase(name: string): string {
  return name.replace(/(?!^)[A-Z]/g, '_$&').toLowerCase();
}

/** Returns the named counters under the names of labels: `dropNoTunnel` becomes `no_tunnel`. */
export function dropsOf(counters: Readonly<Record<string, number>>): Record<string, number> {
  const drops: Record<string, number> = {};
  for (const [name, count] of Object.entries(counters)) {
    if (name.startsWith('drop')) drops[snakeCase(name.slice('drop'.length))] = count;
  }
  return drops;
}
