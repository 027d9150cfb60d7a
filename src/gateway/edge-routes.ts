/**
 * The routes of an edge gateway: the pools of the site lead to the TUN, as far as the gateway manages that.
 * @module
 */
import type { IpPrefix } from '../base/prefix.ts';
import { isPacketDevice, LinuxTun, type PacketDevice } from '../device/index.ts';
import { errorFields, type Logger } from '../observe/index.ts';
import type { ResolvedEdgeOptions } from './edge-options.ts';
import type { HostCheck } from './host-check.ts';

export interface EdgeRoutesOptions {
  readonly device: PacketDevice;
  /** The option `device` that the device was opened with. */
  readonly option: ResolvedEdgeOptions['device'];
  /** Compares the pools with what the host has. */
  readonly hostCheck: HostCheck;
  readonly logger: Logger;
  readonly onProblem: (error: Error) => void;
}

/** Sets the routes one after the other. Other devices, and a TUN whose routes the option names, have none to set. */
export class EdgeRoutes {
  readonly #options: EdgeRoutesOptions;
  #routing: Promise<void> = Promise.resolve();
  #isClosed = false;
  /** The pools that the device routes, joined by commas. */
  #routed = '';

  constructor(options: EdgeRoutesOptions) {
    this.#options = options;
  }

  /** Routes these pools, and no others. */
  follow(pools: readonly IpPrefix[]): void {
    this.#routing = this.#routing.then(async () => {
      // An equal route of another program is gone when the route is set.
      await this.#options.hostCheck.check(pools);
      await this.#route(pools);
    });
  }

  /** Sets no further routes, and resolves when the present change is done. */
  close(): Promise<void> {
    this.#isClosed = true;
    return this.#routing;
  }

  async #route(pools: readonly IpPrefix[]): Promise<void> {
    const { device, option, logger, onProblem } = this.#options;
    const isManaged =
      !isPacketDevice(option) && option.type === 'tun' && option.routes === undefined;
    if (!isManaged || !(device instanceof LinuxTun) || this.#isClosed) return;
    // Snapshots are frequent, and each call starts programs.
    if (pools.join() === this.#routed) return;
    try {
      const problems = await device.setRoutes(pools);
      this.#routed = pools.join();
      for (const problem of problems) {
        logger.warn({ event: 'edge_routes_problem' }, `device: ${problem}`);
      }
    } catch (error) {
      const fields = { event: 'edge_routes_failed', ...errorFields(error) } as const;
      logger.error(fields, `device: ${(error as Error).message}`);
      onProblem(error as Error);
    }
  }
}
