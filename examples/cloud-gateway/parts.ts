/**
 * The parts of a running cloud gateway, as the admin interface and an embedding program see them.
 * @module
 */
import type {
  CertificateAuthority,
  CloudDataPlane,
  ControlServer,
  PacketDevice,
  PacketTranslator,
  PresenceController,
  Registry,
} from 'virtual-presence';
import type { CloudConfig } from './config.ts';

export interface CloudGateway {
  readonly registry: Registry;
  readonly controller: PresenceController;
  readonly authority: CertificateAuthority;
  readonly control: ControlServer;
  readonly translator: PacketTranslator;
  readonly dataPlane: CloudDataPlane;
  readonly device: PacketDevice;
  readonly config: CloudConfig;
  /** Brings the desired state in force that the file has now. */
  reload(): Promise<ReloadReceipt>;
  /** Cuts a site off and says what that took. */
  revoke(site: string): Promise<RevocationReceipt>;
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
