/**
 * The parts of a running cloud gateway, as the admin interface and an embedding program see them.
 * @module
 */
import type {
  CertificateAuthority,
  ControlServer,
  PresenceController,
  Registry,
} from 'virtual-presence';
import type { CloudConfig } from './config.ts';
import type { Members } from './members.ts';
import type { Placement } from './placement.ts';

export interface CloudGateway {
  readonly registry: Registry;
  readonly controller: PresenceController;
  readonly authority: CertificateAuthority;
  readonly control: ControlServer;
  /** What carries the packets. */
  readonly members: Members;
  /** Which of them holds which site. */
  readonly placement: Placement;
  readonly config: CloudConfig;
  /** Brings the desired state in force that the file has now. */
  reload(): Promise<ReloadReceipt>;
  /** Cuts a site off and says what that took. */
  revoke(site: string): Promise<RevocationReceipt>;
  /** Lets a revoked site enrol again. */
  reinstate(site: string): Promise<void>;
  close(): Promise<void>;
}

export interface RevocationReceipt {
  readonly site: string;
  readonly certificates: number;
  readonly tunnelsClosed: number;
  readonly elapsedMs: number;
}

export interface ReloadReceipt {
  /** Keys of the file that have changed too, and are in force only after a restart. */
  readonly needRestart: readonly (keyof CloudConfig)[];
}
