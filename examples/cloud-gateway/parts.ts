/**
 * The parts of a running cloud gateway, as the admin interface and an embedding program see them.
 * @module
 */
import type { AdminTarget } from 'virtual-presence';
import type { HostPort, WorkerPool } from 'virtual-presence/worker';
import type { Listening } from '../program/listening.ts';
import type { CloudConfig } from './config.ts';

export interface CloudGateway extends AdminTarget {
  /** What carries the packets. */
  readonly workers: WorkerPool;
  readonly listening: CloudListening;
  /** Brings the desired state in force that the file has now. */
  reload(): Promise<ReloadReceipt>;
  close(): Promise<void>;
}

/** Where a cloud gateway listens. */
export interface CloudListening extends Listening {
  /** One entry for each process. */
  readonly tunnels: readonly HostPort[];
  readonly enrolment: HostPort;
}

export interface ReloadReceipt {
  /** Keys of the file that have changed too, and are in force only after a restart. */
  readonly needRestart: readonly (keyof CloudConfig)[];
}
