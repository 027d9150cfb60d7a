/**
 * The part of a cloud gateway that carries packets: one worker in this process, or several in a process each.
 * @module
 */
export type { HostPort } from '../base/host-port.ts';
export type { AccessChange, AccessRules } from './access.ts';
export { type LocalListening, LocalWorker } from './local-worker.ts';
export { WorkerPool, type WorkerPoolEvents } from './pool.ts';
export { PoolDiagnosis, type PoolPathPage, type PoolPathQuery } from './pool-diagnosis.ts';
export {
  type CandidateEdge,
  WORKER_POOL_DEFAULTS,
  type WorkerPoolOptions,
  workerCount,
} from './pool-options.ts';
export type { PoolStatusPart, WorkerPoolStatus } from './pool-status.ts';
export type { SiteTunnel, SiteTunnelEvents } from './site-tunnel.ts';
export type { TunnelTotals } from './tunnel-traffic.ts';
export type {
  ConnectionLimits,
  LogLevel,
  RefusedPeer,
  SiteTraffic,
  TerminationReport,
  TunnelClose,
  TunnelDetails,
  TunnelFilter,
  TunnelStatus,
  Worker,
  WorkerAddresses,
  WorkerHost,
  WorkerOptions,
  WorkerPeer,
  WorkerStatus,
} from './worker.ts';
