/**
 * Where a gateway listens, with the ports that it has: the file may say 0, which takes a free one. The line
 * that says that a gateway is ready ends with it as JSON, for programs that start gateways.
 * @module
 */
import type { HostPort } from 'virtual-presence';

/** What both gateways listen at. */
export interface Listening {
  readonly dns: HostPort;
  /** Where a UDP device receives; absent for other devices. */
  readonly device?: HostPort;
}

/** Returns the log line that says that a gateway is ready. */
export function readyLine(gateway: string, listening: Listening): string {
  return `${gateway} ready, listening on ${JSON.stringify(listening)}`;
}
