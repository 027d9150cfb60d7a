/**
 * Derives presences from the desired state, and exchanges messages with the edges.
 * @module
 */

export type { AdmissionCounters } from './admissions.ts';
export { NotAdmittedError } from './admissions.ts';
export { type Allocation, AllocatorUnavailableError } from './allocation.ts';
export {
  CONTROL_CLIENT_DEFAULTS,
  ControlClient,
  type ControlClientEvents,
  type ControlClientOptions,
  type SnapshotExpiry,
} from './control-client.ts';
export {
  CONTROL_SERVER_DEFAULTS,
  type ConnectedEdgeStatus,
  ControlServer,
  type ControlServerEvents,
  type ControlServerOptions,
  type EdgeChannel,
} from './control-server.ts';
export type { PresenceControllerEvents, Whois } from './controller-events.ts';
export {
  type PlanTarget,
  PRESENCE_CONTROLLER_DEFAULTS,
  type PresenceControllerOptions,
} from './controller-options.ts';
export { type DerivationAuditCounters, DerivationError } from './derivation-audit.ts';
export type { ExposedService } from './exposed-service.ts';
export type {
  AckMessage,
  CertificateMessage,
  CloudMessage,
  ControlChannel,
  EdgeMessage,
  RefusalMessage,
  RenewMessage,
  SnapshotMessage,
  StatusMessage,
  TrustMessage,
} from './messages.ts';
export { nameChangesBetween } from './name-changes.ts';
export { type ChangedNames, NameIndex, type NameIndexOptions } from './name-index.ts';
export { ELSEWHERE, PlanPartition, type PlanPartitionOptions } from './plan-partition.ts';
export type { PoolStatus, PoolVersionStatus, PoolWarning } from './pool-watch.ts';
export { PresenceController } from './presence-controller.ts';
export { PresenceLookup, type VisibleService } from './presence-lookup.ts';
export { type PresenceUse, PresenceUses } from './presence-uses.ts';
export type { RenewalCounters, TrustProvider } from './renewal-service.ts';
export type { ControlMeasures, PoolMeasures, SiteMeasures } from './site-measures.ts';
export { type RouteChange, type SiteRoute, SiteRoutes } from './site-routes.ts';
export {
  type NameChanges,
  type Snapshot,
  type SnapshotBinding,
  type SnapshotHost,
  type SnapshotPointer,
  zoneDataOf,
  zonePatchOf,
} from './snapshot.ts';
