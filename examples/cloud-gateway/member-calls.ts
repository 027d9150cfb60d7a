/**
 * What the controller and a member in another process call of each other.
 * @module
 */
import type {
  CloseEndpoint,
  Json,
  Presence,
  TranslationPlan,
  TunnelCredentials,
} from 'virtual-presence';
import type { HostPort } from '../program/fields.ts';
import type { AccessTable } from './access.ts';
import type { ConnectionLimits } from './config.ts';
import type { Member, MemberAddresses, MemberHooks, SiteTunnel } from './member.ts';

/** All that a member needs to begin with. */
export interface MemberStart {
  readonly number: number;
  readonly device: { readonly name: string; readonly mtu: number };
  readonly tunnel: HostPort;
  readonly limits: ConnectionLimits;
  readonly credentials: TunnelCredentials;
  readonly access: AccessTable;
  readonly plan: TranslationPlan;
}

/** What the controller may call. */
export type MemberCalls = {
  open(start: MemberStart): Promise<MemberAddresses>;
  load(plan: TranslationPlan): void;
  bind(presence: Presence): void;
  access(table: AccessTable): void;
  control(tunnel: number, message: Json): void;
  closeTunnel(tunnel: number, code: string, reason: string): void;
  credentials(credentials: TunnelCredentials): void;
  cut: Member['cut'];
  cutRevoked: Member['cutRevoked'];
  handOver(site: string, code: string, reason: string, endpoint: CloseEndpoint): Promise<void>;
  settled(): void;
  gone(): Promise<void>;
  status: Member['status'];
  paths: Member['paths'];
  presenceUses: Member['presenceUses'];
  explain: Member['explain'];
  close(): Promise<void>;
};

export interface TunnelDetails
  extends Pick<SiteTunnel, 'site' | 'remoteAddress' | 'cipher' | 'keyExchange'> {
  /** DER. */
  readonly certificate: Uint8Array;
}

/** What a member may call. */
export type ControllerCalls = {
  admit: MemberHooks['admit'];
  log(line: string): void;
  refusedPeer: MemberHooks['onRefused'];
  up(tunnel: number, of: TunnelDetails): void;
  control(tunnel: number, message: Json): void;
  /** It shows another certificate, DER. */
  renewed(tunnel: number, certificate: Uint8Array): void;
  /** It could not take a control message of this type now. */
  refused(tunnel: number, type: string): void;
  down(tunnel: number, code: string, reason: string): void;
};
