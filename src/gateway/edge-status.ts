/**
 * What an edge gateway tells of itself.
 * @module
 */
import type { HostPort } from '../base/host-port.ts';
import type { SnapshotExpiredError } from '../errors.ts';
import type { Failure } from '../tunnel/index.ts';
import type { HostConflict } from './host-check.ts';

export type EdgeState = 'enrolling' | 'connecting' | 'online' | 'rejected' | 'closed';

/** Where an edge gateway listens. */
export interface EdgeAddresses {
  /** Undefined without the option `dns`. */
  readonly dns: HostPort | undefined;
  /** Where a UDP device receives; undefined for other devices. */
  readonly device?: HostPort;
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
