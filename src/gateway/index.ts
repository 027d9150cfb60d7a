/**
 * The two gateways as objects of a host program, and their keys and certificates.
 * @module
 */

export { parseSchema, type Schema } from '../base/schema.ts';
export type {
  ConfirmationReport,
  DrainReport,
  MemberState,
  UnconfirmedMachine,
} from '../cluster/index.ts';
export {
  AUTHORITY_KEEPER_DEFAULTS,
  AuthorityKeeper,
  type AuthorityKeeperEvents,
  type AuthorityKeeperOptions,
} from './authority-keeper.ts';
export type { CloudState, CloudStateChange } from './cloud-faults.ts';
export { type CloudEvents, CloudGateway } from './cloud-gateway.ts';
export type {
  CloudMachine,
  CloudMachineList,
  MoveDestination,
  OwnMachine,
} from './cloud-machines.ts';
export {
  type AuthorizeRequest,
  CLOUD_GATEWAY_DEFAULTS,
  type CloudGatewayOptions,
  type CloudTrustOptions,
  type ClusterOptions,
  type EnrolmentOptions,
  type LeaseOptions,
  type ResolvedCloudOptions,
  type ResolvedClusterOptions,
  type ResolvedTrust,
  resolveCloudOptions,
} from './cloud-options.ts';
export type { CloudAddresses, CloudSiteStatus, CloudStatus } from './cloud-status.ts';
export type { CloudRevocation } from './cloud-trust.ts';
export type { CommonOptions, ResolvedCommonOptions } from './common-options.ts';
export { CredentialKeeper, type CredentialKeeperOptions } from './credential-keeper.ts';
export { type EdgeEvents, EdgeGateway, type EdgeStateChange } from './edge-gateway.ts';
export { EDGE_GATEWAY_DEFAULTS, type EdgeGatewayOptions } from './edge-options.ts';
export type { EdgeAddresses, EdgeState, EdgeStatus } from './edge-status.ts';
export type { EdgeChange } from './edge-tunnels.ts';
export type { HostConflict } from './host-check.ts';
export type { MetricsOptions, ResolvedMetricsOptions } from './metrics-options.ts';
export {
  SiteCredentials,
  type SiteCredentialsOptions,
  type SiteIdentity,
} from './site-credentials.ts';
export type { ServiceSettings, SocketsDeviceOptions } from './sockets-options.ts';
export type { StateOptions } from './state.ts';
export type { ReadyOptions } from './when-ready.ts';
