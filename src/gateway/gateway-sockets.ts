/**
 * What both gateways tell the stack of sockets that they have instead of a device.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import type { Snapshot } from '../control/index.ts';
import type { PacketDevice } from '../device/index.ts';
import { ApiMisuseError, ConfigError } from '../errors.ts';
import { SocketStack } from '../sockets/index.ts';
import type { SocketsDeviceOptions } from './sockets-options.ts';
import { closedError } from './when-ready.ts';

/** Opens what the option `device` of the type `sockets` means. */
export function openSockets(
  { type: _, ...settings }: SocketsDeviceOptions,
  clock: Clock
): SocketStack {
  return new SocketStack({ ...settings, clock });
}

/** A device that is not a stack is told nothing. */
export class GatewaySockets {
  /** Undefined if the device is not a stack. */
  protected readonly optionalStack: SocketStack | undefined;
  /** The addresses of the stack that were reported as wrong, joined by commas. */
  #reported = '';

  constructor(device: PacketDevice | undefined) {
    if (device instanceof SocketStack) this.optionalStack = device;
  }

  /** @throws {ApiMisuseError} if the device is not a stack. */
  get stack(): SocketStack {
    if (this.optionalStack !== undefined) return this.optionalStack;
    throw new ApiMisuseError(
      "the gateway has no sockets: its option device is not of the type 'sockets'"
    );
  }

  get counters(): Readonly<Record<string, number>> {
    return this.optionalStack?.allCounters ?? {};
  }

  /** A snapshot is in force. Returns an error if the stack's address is not one of the site, and that is news. */
  apply(snapshot: Snapshot): ConfigError | undefined {
    if (this.optionalStack === undefined) return undefined;
    this.optionalStack.setSite(snapshot);
    const refused = this.optionalStack.refusedAddresses.join();
    if (refused === this.#reported) return undefined;
    this.#reported = refused;
    if (refused === '') return undefined;
    const expected = `one of the site's sources ${snapshot.sources.join()} outside its pools`;
    return new ConfigError('device.address', `${refused} cannot be used, expected ${expected}`);
  }

  /** The gateway closes: the other ends of all connections learn of it while there is a tunnel. */
  async finish(): Promise<void> {
    await this.optionalStack?.finish(closedError());
  }
}
