/**
 * The TUNs of a pool, and what the machine is told about them: one TUN that this process opens, or one for each of
 * several workers, with the kernel's routes between them. A device that is no TUN needs nothing of this.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { IpPrefix } from '../base/prefix.ts';
import type { RouteChange } from '../control/index.ts';
import {
  configureTun,
  forgetRoutes,
  type LinuxTun,
  openTun,
  type PacketDevice,
  type TunDeviceOptions,
  type TunSetup,
} from '../device/index.ts';
import { lackOfLan, lanOf, TUN_DEFAULT_MTU } from '../device/open-tun.ts';
import { EnvironmentError } from '../errors.ts';
import type { Logger } from '../observe/index.ts';
import { KernelRoutes } from './kernel-routes.ts';
import type { WorkerPoolOptions } from './pool-options.ts';
import type { WorkerOptions } from './worker.ts';

export interface PoolTunsOptions {
  readonly device: WorkerPoolOptions['device'];
  /** How many workers there are. */
  readonly workers: number;
  readonly holderOf: (site: string) => number;
  readonly logger: Logger;
  readonly clock: Clock;
}

export class PoolTuns {
  readonly #options: PoolTunsOptions;
  /** Undefined if the device is no TUN. */
  readonly #tun: TunDeviceOptions | undefined;
  readonly #routes: KernelRoutes;
  /** Of the one worker in this process. */
  #device: LinuxTun | undefined;
  /** Of several TUNs. */
  #setup: TunSetup | undefined;
  /** What leads to the TUNs. */
  #prefixes: readonly IpPrefix[];
  /** All that have ever led to several TUNs, by their text: `close` leaves nothing of them behind. */
  readonly #everRouted = new Map<string, IpPrefix>();
  /** What is set on the machine, one after the other. */
  #work: Promise<void> = Promise.resolve();
  #isClosing = false;

  constructor(options: PoolTunsOptions) {
    const { device, holderOf, logger, clock } = options;
    this.#options = options;
    this.#tun = typeof device === 'function' ? undefined : device;
    this.#prefixes = (this.#tun?.routes ?? []).map(IpPrefix.from);
    this.#routes = new KernelRoutes({
      deviceOf: (site) => this.#nameOf(holderOf(site)),
      logger,
      clock,
    });
  }

  /** The TUN that a worker in another process is to open. */
  tunOf(worker: number): Pick<WorkerOptions, 'tun'> {
    if (this.#tun === undefined || !this.#isShared) return {};
    const { mtu = TUN_DEFAULT_MTU } = this.#tun;
    return { tun: { name: this.#nameOf(worker), mtu } };
  }

  /** Opens the device of the one worker in this process. */
  async openDevice(): Promise<PacketDevice> {
    const { device } = this.#options;
    if (typeof device === 'function') return device();
    return this.#inTurn(() => this.#openTun(device));
  }

  /** Forgets what a gateway in this place that was killed has left; to be called before several workers open. */
  async forgetFormer(): Promise<void> {
    if (this.#isShared) for (const prefix of this.#prefixes) await forgetRoutes(prefix);
  }

  /** To be called when several workers have opened their TUNs. */
  async open(): Promise<void> {
    const tun = this.#tun;
    if (tun === undefined || !this.#isShared) return;
    const problems = await this.#inTurn(() => this.#configure(tun));
    for (const problem of [...problems, ...lackOfLan(tun)]) this.#tell(problem);
    await this.#routes.open();
  }

  /** A worker is back, and its interface may have been made anew, without settings and routes. */
  restarted(worker: number): Promise<void> {
    return this.#inTurn(async () => {
      // What is set after the last close stays on the machine.
      if (this.#tun === undefined || this.#isClosing) return;
      try {
        await this.#configure(this.#tun);
      } catch (error) {
        this.#tell((error as Error).message);
      }
      this.#routes.forget(this.#nameOf(worker));
    });
  }

  /** Single presences lead to other TUNs. */
  take(changes: readonly RouteChange[]): void {
    this.#routes.take(changes);
  }

  /** Resolves when the kernel knows where single presences lead. */
  sync(): Promise<void> {
    return this.#routes.sync();
  }

  /** @throws {EnvironmentError} if the machine refuses, or this is closed; the routes before are in force then. */
  setRoutes(prefixes: readonly IpPrefix[]): Promise<void> {
    if (this.#tun === undefined) return Promise.resolve();
    return this.#inTurn(async () => {
      if (this.#isClosing) throw new EnvironmentError('the worker pool is closed');
      const problems = this.#isShared
        ? await this.#setup?.setRoutes({ routes: [], unreachable: prefixes })
        : await this.#device?.setRoutes(prefixes);
      this.#prefixes = prefixes;
      if (this.#setup !== undefined) this.#noteRouted();
      for (const problem of problems ?? []) this.#tell(problem);
    });
  }

  /** Sets nothing any more; to be called before the workers close. */
  async stop(): Promise<void> {
    this.#isClosing = true;
    await this.#work;
    await this.#routes.close();
  }

  /** Undoes what was set for several TUNs; to be called when the workers are closed. */
  async close(): Promise<void> {
    try {
      await this.#setup?.close();
    } finally {
      for (const prefix of this.#everRouted.values()) await forgetRoutes(prefix);
    }
  }

  get #isShared(): boolean {
    return this.#options.workers > 1;
  }

  async #openTun(device: TunDeviceOptions): Promise<PacketDevice> {
    // Without the option, the device waits to be told, unless there are routes by now.
    const isKnown = device.routes !== undefined || this.#prefixes.length > 0;
    const routes = isKnown ? { routes: this.#prefixes } : {};
    this.#device = await openTun({ ...device, ...routes }, (problem) => this.#tell(problem));
    return this.#device;
  }

  /** Returns what the machine lacks, one sentence each. */
  async #configure(tun: TunDeviceOptions): Promise<readonly string[]> {
    const [name, ...otherTuns] = Array.from({ length: this.#options.workers }, (_, worker) =>
      this.#nameOf(worker)
    );
    this.#noteRouted();
    this.#setup = await configureTun({
      name: name!,
      otherTuns,
      routes: [],
      unreachable: this.#prefixes,
      proxyArp: tun.proxyArp ?? [],
      ...lanOf(tun),
      onProblem: (problem) => this.#tell(problem),
    });
    return this.#setup.problems;
  }

  #noteRouted(): void {
    for (const prefix of this.#prefixes) this.#everRouted.set(prefix.toString(), prefix);
  }

  /** The name given for worker 0; the number at its end counted up for the others. */
  #nameOf(worker: number): string {
    const [, stem, first] = /^(.*?)(\d*)$/.exec(this.#tun?.name ?? '')!;
    return worker === 0 ? `${stem}${first}` : `${stem}${Number(first) + worker}`;
  }

  /** Does something when all that was begun before is done, also if that failed. */
  #inTurn<T>(step: () => Promise<T>): Promise<T> {
    const done = this.#work.then(step);
    this.#work = done.then(ignore, ignore);
    return done;
  }

  #tell(problem: string): void {
    this.#options.logger.warn({}, `device: ${problem}`);
  }
}

function ignore(): void {}
