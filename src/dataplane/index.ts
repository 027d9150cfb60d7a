/**
 * The loops that move packets between a device, a translator and tunnels.
 * @module
 */
export {
  CloudDataPlane,
  type CloudDataPlaneCounters,
  type CloudDataPlaneOptions,
} from './cloud-data-plane.ts';
export {
  EdgeDataPlane,
  type EdgeDataPlaneCounters,
  type EdgeDataPlaneOptions,
} from './edge-data-plane.ts';
export type { CutCounters } from './packet-sender.ts';
export { WaitingRoom, type WaitingRoomOptions } from './waiting-room.ts';
