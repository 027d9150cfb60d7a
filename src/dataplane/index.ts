/**
 * The data planes: they move packets between a device, a translator and tunnels.
 * @module
 */
export {
  CLOUD_DATA_PLANE_DEFAULTS,
  CloudDataPlane,
  type CloudDataPlaneCounters,
  type CloudDataPlaneOptions,
} from './cloud-data-plane.ts';
export {
  EDGE_DATA_PLANE_DEFAULTS,
  EdgeDataPlane,
  type EdgeDataPlaneCounters,
  type EdgeDataPlaneOptions,
} from './edge-data-plane.ts';
export type { SegmentCounters } from './packet-sender.ts';
export { PENDING_QUEUE_DEFAULTS, PendingQueue, type PendingQueueOptions } from './pending-queue.ts';
