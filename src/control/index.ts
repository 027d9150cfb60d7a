/**
 * From the desired state to presences, and to the edges.
 * @module
 */
export {
  ControlClient,
  type ControlClientEvents,
  type ControlClientOptions,
} from './control-client.ts';
export {
  ControlServer,
  type ControlServerEvents,
  type ControlServerOptions,
  type EdgeChannel,
  type EdgeStatus,
} from './control-server.ts';
export type { PlanTarget, PresenceControllerOptions } from './controller-options.ts';
export type { CloudMessage, ControlChannel, EdgeMessage, TrustMessage } from './messages.ts';
export { PlanPartition, type PlanPartitionOptions } from './plan-partition.ts';
export type { PoolStatus, PoolVersionStatus, PoolWarning } from './pool-watch.ts';
export {
  NotAdmittedError,
  PresenceController,
  type PresenceControllerEvents,
  type Whois,
} from './presence-controller.ts';
export { type PresenceUse, PresenceUses } from './presence-uses.ts';
export type { RenewalCounters, TrustProvider } from './renewal-desk.ts';
export { type RouteChange, SiteRoutes } from './site-routes.ts';
export { type Snapshot, type SnapshotHost, zoneDataOf } from './snapshot.ts';
