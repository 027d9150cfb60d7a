/**
 * The device of a cloud gateway, as its worker pool takes it: one to open, or one that the host program has passed in.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import {
  isPacketDevice,
  openDevice,
  type PacketDevice,
  type ResolvedDeviceOptions,
} from '../device/index.ts';
import type { Logger } from '../observe/index.ts';
import type { Registry } from '../registry/index.ts';
import type { WorkerPoolOptions } from '../worker/index.ts';
import type { ResolvedCloudOptions } from './cloud-options.ts';
import { cloudPools } from './cloud-pools.ts';
import { openSockets } from './gateway-sockets.ts';

/** Returns the device; a stack of sockets is opened at once, as if the host program had passed it in. */
export function stackOr(
  device: ResolvedCloudOptions['device'],
  clock: Clock
): ResolvedDeviceOptions | PacketDevice {
  return !isPacketDevice(device) && device.type === 'sockets' ? openSockets(device, clock) : device;
}

/** Returns the device for the pool. A TUN without the option `routes` routes the pools of the cloud's site. */
export function deviceOf(
  device: ResolvedDeviceOptions,
  logger: Logger,
  registry: Registry
): WorkerPoolOptions['device'] {
  if (device.type !== 'tun') {
    const event = 'cloud_device_problem';
    return () => openDevice(device, (problem) => logger.warn({ event }, `device: ${problem}`));
  }
  const { type: _, ...tun } = device;
  return { ...tun, routes: tun.routes ?? cloudPools(registry) };
}

/** A device that the host program passed in. The worker closes it once it has taken it; before that, `close` does. */
export class GivenDevice {
  readonly #device: PacketDevice;
  #isTaken = false;

  constructor(device: PacketDevice) {
    this.#device = device;
  }

  take(): PacketDevice {
    this.#isTaken = true;
    return this.#device;
  }

  async close(): Promise<void> {
    if (!this.#isTaken) await this.#device.close();
  }
}
