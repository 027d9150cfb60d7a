/**
 * What both gateways tell the stack of sockets that they have instead of a device, and the backend that reaches services
 * by the sockets of this machine.
 * @module
 */
import { IpAddress } from '../base/address.ts';
import type { Clock } from '../base/clock.ts';
import type { HostPort } from '../base/host-port.ts';
import type { Snapshot } from '../control/index.ts';
import type { PacketDevice } from '../device/index.ts';
import { ApiMisuseError, ConfigError } from '../errors.ts';
import { SocketBackend, type SocketBackendOptions, SocketStack } from '../sockets/index.ts';
import type { SocketsDeviceOptions } from './sockets-options.ts';
import { closedError } from './when-ready.ts';

/** Opens what the option `device` of the type `sockets` means. */
export function openSockets(
  { type: _, services: __, backend: ___, ...settings }: SocketsDeviceOptions,
  clock: Clock
): SocketStack {
  return new SocketStack({ ...settings, clock });
}

/** A device that is not a stack is told nothing. */
export class GatewaySockets {
  /** Undefined if the device is not a stack. */
  protected readonly optionalStack: SocketStack | undefined;
  /** Undefined if no services are connected to. */
  protected readonly backend: SocketBackend | undefined;
  /** The addresses of the stack that were reported as wrong, joined by commas. */
  #reported = '';

  /** @param backend how services are connected to; undefined if none are */
  constructor(
    device: PacketDevice | undefined,
    backend: Omit<SocketBackendOptions, 'stack'> | undefined
  ) {
    if (!(device instanceof SocketStack)) return;
    this.optionalStack = device;
    if (backend !== undefined) this.backend = new SocketBackend({ ...backend, stack: device });
  }

  /** @throws {ApiMisuseError} if the device is not a stack. */
  get stack(): SocketStack {
    if (this.optionalStack !== undefined) return this.optionalStack;
    throw new ApiMisuseError(
      "the gateway has no sockets: its option device is not of the type 'sockets'"
    );
  }

  /** Whether the device is a stack. */
  get hasStack(): boolean {
    return this.optionalStack !== undefined;
  }

  get counters(): Readonly<Record<string, number>> {
    return this.optionalStack?.allCounters ?? {};
  }

  /** Says where the gateway itself listens: no client of a service reaches it. */
  setOwnListeners(listeners: readonly (HostPort | undefined)[]): void {
    const open = listeners.filter((each) => each !== undefined);
    this.backend?.setRefusedTargets(
      open.map(({ host, port }) => ({ address: addressOf(host), port }))
    );
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

  /** The gateway closes: the other ends of all connections learn of it while there is a tunnel. Safe to call twice. */
  async finish(): Promise<void> {
    await this.optionalStack?.finish(closedError());
    await this.backend?.close();
  }
}

/** Returns the unspecified address for a name, and for an address with a zone index: it may be any of this machine. */
function addressOf(host: string): IpAddress {
  try {
    return IpAddress.parse(host);
  } catch {
    return IpAddress.parse('0.0.0.0');
  }
}
