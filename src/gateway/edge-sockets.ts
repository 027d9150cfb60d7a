/**
 * What an edge gateway tells the stack of sockets that it has instead of a device.
 * @module
 */
import type { PacketDevice } from '../device/index.ts';
import type { Failure } from '../tunnel/index.ts';
import { GatewaySockets } from './gateway-sockets.ts';

/** A device that is not a stack is told nothing. */
export class EdgeSockets extends GatewaySockets {
  constructor(device: PacketDevice) {
    super(device);
    // The data plane says when the tunnel is up, but there is none before the enrolment.
    this.optionalStack?.linkChanged(false);
  }

  /** The state of the gateway: connections fail at once where waiting does not help. */
  follow(isRejected: boolean, failure: Failure | undefined): void {
    const isGone = failure?.kind === 'revoked' || failure?.kind === 'unknown-site';
    this.optionalStack?.setFailure(failure?.error, isRejected || isGone);
    // The site's presences go to others, so no connection of it can go on.
    if (isGone) this.optionalStack?.interrupt(failure.error);
  }
}
