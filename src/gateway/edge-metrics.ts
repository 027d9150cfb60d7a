/**
 * The metrics of an edge gateway, read when they are asked for.
 * @module
 */
import {
  EventLoopDelay,
  type MetricFamily,
  MetricSet,
  type ReadinessSubject,
} from '../observe/index.ts';
import { addCommon, type CommonMeasured, dropsOf, snakeCase } from './common-metrics.ts';
import type { EdgeSession } from './edge-session.ts';
import type { EdgeStatus } from './edge-status.ts';

export interface EdgeMeasured
  extends CommonMeasured,
    Pick<EdgeStatus, 'site' | 'revision' | 'validUntil'> {
  /** Undefined while there is no usable certificate. */
  readonly session: EdgeSession | undefined;
  /** The tokens that were redeemed, by result. */
  readonly enrolments: Readonly<Record<string, number>>;
}

export class EdgeMetrics {
  readonly #eventLoopDelay = new EventLoopDelay();

  families(measured: EdgeMeasured): MetricFamily[] {
    const set = new MetricSet();
    const { session, enrolments, site, revision, validUntil } = measured;
    addCommon(set, measured, SUBJECTS);
    set.addEach('enrolments_total', {}, 'result', enrolments);
    set.addHistogram('event_loop_delay_seconds', this.#eventLoopDelay.sample({ worker: '0' }));
    if (site === undefined) return set.families();
    set.add('snapshot_revision', { site, state: 'acknowledged' }, revision);
    const expiry = validUntil && validUntil.getTime() / 1000;
    set.add('snapshot_expiry_timestamp_seconds', { site }, expiry);
    set.add('tunnel_up', { site }, session?.connection === undefined ? 0 : 1);
    set.add('tunnel_connections', { site }, session?.connections ?? 0);
    if (session !== undefined) addSession(set, site, session);
    return set.families();
  }

  close(): void {
    this.#eventLoopDelay.close();
  }
}

function addSession(set: MetricSet, site: string, session: EdgeSession): void {
  const { tunnel, filter, drops, handshakes, renewals, certificateNotAfter } = session.measures;
  const isUp = session.connection !== undefined;
  const { rttMs } = session;
  set.add('tunnel_rtt_seconds', { site }, isUp && rttMs !== undefined ? rttMs / 1000 : undefined);
  set.add('tunnel_bytes_total', { site, direction: 'sent' }, tunnel.sentBytes);
  set.add('tunnel_bytes_total', { site, direction: 'received' }, tunnel.receivedBytes);
  set.add('tunnel_dropped_packets_total', { site, reason: 'full' }, tunnel.droppedFull);
  set.add('tunnel_dropped_packets_total', { site, reason: 'late' }, tunnel.droppedLate);
  for (const direction of ['outbound', 'inbound'] as const) {
    for (const [verdict, count] of Object.entries(filter.counters(direction))) {
      const labels = { site, direction, verdict: snakeCase(verdict) };
      set.add('edge_packets_total', labels, count);
    }
  }
  set.addEach('dropped_packets_total', {}, 'reason', dropsOf(drops));
  set.addEach('handshakes_total', {}, 'result', handshakes);
  set.addEach('renewals_total', {}, 'result', renewals);
  const expiry = certificateNotAfter.getTime() / 1000;
  set.add('certificate_expiry_timestamp_seconds', { subject: `site/${site}` }, expiry);
}

const SUBJECTS: ReadonlySet<ReadinessSubject> = new Set([
  'store',
  'listener',
  'snapshot',
  'tunnel',
]);
