/**
 * The addresses and the status of an edge gateway, and whether it is ready.
 * @module
 */
import type { HostPort } from '../base/host-port.ts';
import type { DnsServer } from '../dns/index.ts';
import type { SnapshotExpiredError } from '../errors.ts';
import { type Readiness, type ReadinessReason, readinessOf } from '../observe/index.ts';
import type { Failure } from '../tunnel/index.ts';
import type { EdgeSession } from './edge-session.ts';
import type { EdgeSockets } from './edge-sockets.ts';
import type { HostConflict } from './host-check.ts';
import type { MeasuredStore } from './measured-store.ts';
import type { SnapshotInForce } from './snapshot-in-force.ts';

export type EdgeState = 'enrolling' | 'connecting' | 'online' | 'rejected' | 'closed';

/** Where an edge gateway listens. */
export interface EdgeAddresses {
  /** Undefined without the option `dns`. */
  readonly dns: HostPort | undefined;
  /** Where a UDP device receives; undefined for other devices. */
  readonly device?: HostPort;
  /** Undefined without the option `metrics`. */
  readonly metrics?: HostPort;
}

export interface EdgeStatus {
  /** Undefined before the first enrolment. */
  readonly site: string | undefined;
  readonly state: EdgeState;
  readonly failure: Failure | undefined;
  readonly addresses: EdgeAddresses;
  /** The revision of the snapshot in force; undefined before the first, and when it has expired. */
  readonly revision: number | undefined;
  /**
   * Until when the snapshot holds if there is no further contact with the cloud, or when it has expired, by the present
   * wall clock; undefined before the first.
   */
  readonly validUntil: Date | undefined;
  /** Why there is no snapshot in force any more, and what to do; undefined while there is one, and before the first. */
  readonly expired: SnapshotExpiredError | undefined;
  /** How many names the site has. */
  readonly names: number;
  /** Undefined while there is no tunnel. */
  readonly tunnel:
    | {
        readonly remoteAddress: string;
        /** How many connections carry packets. */
        readonly connections: number;
        readonly rttMs: number | undefined;
      }
    | undefined;
  readonly counters: Readonly<Record<string, number>>;
  /** What of the machine is in conflict with the pools of the site. */
  readonly warnings: readonly HostConflict[];
}

/** Returns what of a status is about the snapshot, which comes from the session or from an earlier run. */
export function inForceStatus(
  inForce: SnapshotInForce | undefined,
  client: { readonly validUntil: Date | undefined } | undefined
): Pick<EdgeStatus, 'revision' | 'validUntil' | 'expired' | 'names'> {
  const snapshot = inForce?.snapshot;
  return {
    revision: snapshot?.revision,
    validUntil: client?.validUntil,
    expired: inForce?.expired,
    names: snapshot?.hosts.length ?? 0,
  };
}

export function tunnelStatus(session: EdgeSession | undefined): EdgeStatus['tunnel'] {
  const connection = session?.connection;
  if (session === undefined || connection === undefined) return undefined;
  const { remoteAddress } = connection;
  return { remoteAddress, connections: session.connections, rttMs: session.rttMs };
}

/**
 * An edge is ready when it has a snapshot in force, be it from the cloud or from an earlier run, and is not `rejected`. As
 * CoreDNS and Envoy stay ready when what configures them is away, it stays ready while its tunnel is down: it answers
 * names, and nobody else could carry the packets of its site. The metric `tunnel_up` tells of the tunnel. In
 * `rejected` somebody has to act.
 */
export function edgeReadiness(
  store: MeasuredStore | undefined,
  {
    state,
    failure,
    expired,
    revision,
  }: Pick<EdgeStatus, 'state' | 'failure' | 'expired' | 'revision'>
): Readiness {
  if (store === undefined || state === 'closed') {
    const message = 'the gateway is starting or closing';
    return readinessOf([{ subject: 'listener', message }]);
  }
  const reasons: ReadinessReason[] = [];
  const stored = store.fault();
  if (stored !== undefined) reasons.push({ subject: 'store', message: stored });
  if (revision === undefined) {
    const cause = expired ?? failure?.error;
    const why = cause === undefined ? '' : `: ${cause.message}`;
    const message = `there is no snapshot of the cloud in force, and the edge is ${state}${why}`;
    reasons.push({ subject: 'snapshot', message });
  }
  if (state === 'rejected' && failure !== undefined) {
    reasons.push({ subject: 'tunnel', message: failure.error.message });
  }
  return readinessOf(reasons);
}

/** Returns the counters of the DNS server and of the sockets of an edge, for its status. */
export function countersOf(
  names: DnsServer | undefined,
  sockets: EdgeSockets
): Record<string, number> {
  return { ...prefixed('dns.', names?.counters ?? {}), ...prefixed('sockets.', sockets.counters) };
}

function prefixed(
  prefix: string,
  counters: Readonly<Record<string, number>>
): Record<string, number> {
  return Object.fromEntries(
    Object.entries(counters).map(([name, count]) => [`${prefix}${name}`, count])
  );
}
