/**
 * The parts of a running cloud gateway, as the admin interface and an embedding program see them.
 * @module
 */
import type {
  AuditTrail,
  AuthorityKeeper,
  CaMaterial,
  CertificateAuthority,
  ControlServer,
  EnrolmentServer,
  PresenceController,
  Registry,
  RevocationReason,
  RevocationReceipt,
  RevocationScope,
} from 'virtual-presence';
import type { HostPort, WorkerPool } from 'virtual-presence/worker';
import type { Listening } from '../program/listening.ts';
import type { CloudConfig } from './config.ts';

export interface CloudGateway {
  readonly registry: Registry;
  readonly controller: PresenceController;
  readonly authority: CertificateAuthority;
  readonly control: ControlServer;
  /** What carries the packets. */
  readonly workers: WorkerPool;
  /** The counters of the resolver and the listener for the cloud's own clients. */
  dnsCounters(): Readonly<Record<string, number>>;
  readonly config: CloudConfig;
  readonly listening: CloudListening;
  /** For tokens: `enrolment.endpoints` of the file, with the port that was taken where the file says 0. */
  readonly enrolmentEndpoints: readonly string[];
  /** Brings the desired state in force that the file has now. */
  reload(): Promise<ReloadReceipt>;
  readonly enrolment: EnrolmentServer;
  readonly audit: AuditTrail;
  readonly trust: AuthorityKeeper;
  /** Cuts a site, a certificate or a key off and says what that took. */
  revoke(scope: RevocationScope, reason?: RevocationReason): Promise<RevocationReceipt>;
  /** Lets a revoked site enrol again. */
  reinstate(site: string): Promise<void>;
  /**
   * Does one step of a change of CA. With `prepare`, `ca` is the operator's own; `force` has `retire` cut off
   * edges that are connected and have not renewed.
   */
  changeCa(
    step: 'prepare' | 'activate' | 'retire',
    options?: { readonly ca?: CaMaterial | undefined; readonly force?: boolean | undefined }
  ): Promise<void>;
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
