/**
 * What an edge gateway tells the stack of sockets that it has instead of a device.
 * @module
 */
import type { Snapshot } from '../control/index.ts';
import { isPacketDevice, type PacketDevice } from '../device/index.ts';
import type { ConfigError } from '../errors.ts';
import type { Failure } from '../tunnel/index.ts';
import type { ResolvedEdgeOptions } from './edge-options.ts';
import { GatewaySockets } from './gateway-sockets.ts';

/** A device that is not a stack is told nothing. */
export class EdgeSockets extends GatewaySockets {
  /** Why there is no snapshot any more. */
  #expiredBy: Error | undefined;

  /** @param option the option `device` that the device was opened with */
  constructor(device: PacketDevice, option: ResolvedEdgeOptions['device']) {
    super(device, backendOf(option));
    // The data plane says when the tunnel is up, but there is none before the enrolment.
    this.optionalStack?.linkChanged(false);
  }

  /** The state of the gateway: connections fail at once where waiting does not help. */
  follow(isRejected: boolean, failure: Failure | undefined): void {
    const isGone = failure?.kind === 'revoked' || failure?.kind === 'unknown-site';
    const isFinal = isRejected || isGone || this.#expiredBy !== undefined;
    this.optionalStack?.setFailure(this.#expiredBy ?? failure?.error, isFinal);
    // The site's presences go to others, so no connection of it can go on.
    if (isGone) this.optionalStack?.interrupt(failure.error);
  }

  override apply(snapshot: Snapshot): ConfigError | undefined {
    this.#expiredBy = undefined;
    return super.apply(snapshot);
  }

  /** The snapshot has expired: no connection goes on, and new ones fail at once until the next snapshot. */
  expire(error: Error): void {
    this.#expiredBy = error;
    this.optionalStack?.setFailure(error, true);
    this.optionalStack?.interrupt(error);
    this.optionalStack?.setSite({ sources: [], pools: [], zone: '', hosts: [] });
  }
}

/** An edge connects only to what its own options list: it does not trust the cloud with the hosts of its site. */
function backendOf(
  option: ResolvedEdgeOptions['device']
): ConstructorParameters<typeof GatewaySockets>[1] {
  if (isPacketDevice(option) || option.type !== 'sockets') return undefined;
  const { services, backend: { proxyProtocol, ...settings } = {} } = option;
  if (services === undefined) return undefined;
  return { ...settings, services, proxyProtocol: proxyProtocol === true };
}
