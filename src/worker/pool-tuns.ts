/**
 * The TUNs of a pool and their settings on the machine: one TUN that this process opens, or one for each of several
 * workers, with the kernel's routes to them. A device that is not a TUN needs none of this.
 *
 * The routes of a pool lead to its one TUN as a whole, or they are *divided*: with several workers, each site's presences
 * lead to the TUN of its worker; on a machine of several, a site has routes only while this machine holds it.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { IpPrefix } from '../base/prefix.ts';
import type { RouteChange } from '../control/index.ts';
import {
  configureTun,
  forgetRoutes,
  LinuxTun,
  openTun,
  type PacketDevice,
  type TunDeviceOptions,
  type TunRoutes,
  type TunSetup,
} from '../device/index.ts';
import { NeighbourAnnouncer } from '../device/neighbour-announcer.ts';
import { lackOfLan, lanOf, TUN_DEFAULT_MTU } from '../device/open-tun.ts';
import { EnvironmentError } from '../errors.ts';
import type { Logger } from '../observe/index.ts';
import { KernelRoutes, metricOf, type RouteTarget } from './kernel-routes.ts';
import type { WorkerPoolOptions } from './pool-options.ts';
import type { WorkerOptions } from './worker.ts';

export interface PoolTunsOptions {
  readonly device: WorkerPoolOptions['device'];
  /** The number of workers. */
  readonly workers: number;
  readonly holderOf: (site: string) => number;
  /** Whether other machines hold sites too: a site has routes from `hold` to `release`. Default false. */
  readonly isOneOfSeveral?: boolean;
  readonly logger: Logger;
  readonly clock: Clock;
}

export class PoolTuns {
  readonly #options: PoolTunsOptions;
  /** Undefined if the device is not a TUN. */
  readonly #tun: TunDeviceOptions | undefined;
  readonly #routes: KernelRoutes;
  /** Absent on the only machine. */
  readonly #announcer: NeighbourAnnouncer | undefined;
  /** The epochs in which this machine, one of several, has claimed the sites that it holds. */
  readonly #epochs = new Map<string, number>();
  /** The TUN of the one worker in this process, whose routes are not divided. */
  #device: LinuxTun | undefined;
  /** The settings for divided routes. */
  #setup: TunSetup | undefined;
  /** The prefixes that are routed to the TUNs. */
  #prefixes: readonly IpPrefix[];
  /** All prefixes with divided routes so far, by their text; `close` removes their routes. */
  readonly #allRouted = new Map<string, IpPrefix>();
  /** The changes on the machine, one after the other. */
  #work: Promise<void> = Promise.resolve();
  #isClosing = false;

  constructor(options: PoolTunsOptions) {
    const { device, isOneOfSeveral, logger, clock } = options;
    this.#options = options;
    this.#tun = typeof device === 'function' ? undefined : device;
    this.#prefixes = (this.#tun?.routes ?? []).map(IpPrefix.from);
    const announcer = isOneOfSeveral
      ? new NeighbourAnnouncer({
          interfaces: this.#tun?.proxyArp ?? [],
          onProblem: (problem) => this.#warn(problem),
          clock,
        })
      : undefined;
    this.#announcer = announcer;
    this.#routes = new KernelRoutes({
      targetOf: (site) => this.#targetOf(site),
      ...(announcer && {
        onChanged: ({ added, removed }) => announcer.change(added, removed),
      }),
      logger,
      clock,
    });
  }

  /** Returns the TUN that a worker in another process opens. */
  tunOf(worker: number): Pick<WorkerOptions, 'tun'> {
    if (this.#tun === undefined || this.#options.workers === 1) return {};
    const { mtu = TUN_DEFAULT_MTU } = this.#tun;
    return { tun: { name: this.#nameOf(worker), mtu } };
  }

  /** Opens the device of the one worker in this process. */
  async openDevice(): Promise<PacketDevice> {
    const { device } = this.#options;
    if (typeof device === 'function') return device();
    if (this.#isDivided) {
      const { name, mtu = TUN_DEFAULT_MTU } = device;
      return LinuxTun.open({ name, mtu });
    }
    return this.#inTurn(() => this.#openTun(device));
  }

  /** Removes divided routes that a killed gateway has left. Must be called before the workers open. */
  async removeStaleRoutes(): Promise<void> {
    if (this.#tun === undefined || !this.#isDivided) return;
    for (const prefix of this.#prefixes) await forgetRoutes(prefix);
    await this.#announcer?.forget(this.#prefixes);
  }

  /** Configures TUNs with divided routes. Must be called when the workers have opened them. */
  async open(): Promise<void> {
    const tun = this.#tun;
    if (tun === undefined || !this.#isDivided) return;
    const problems = await this.#inTurn(() => this.#configure(tun));
    for (const problem of [...problems, ...lackOfLan(tun)]) this.#warn(problem);
    await this.#routes.open();
  }

  /** Configures the TUNs again after a restart of a worker, whose interface may have been created again. */
  restarted(worker: number): Promise<void> {
    return this.#inTurn(async () => {
      // Settings that are made after `close` would stay on the machine.
      if (this.#tun === undefined || this.#isClosing) return;
      try {
        await this.#configure(this.#tun);
      } catch (error) {
        this.#warn((error as Error).message);
      }
      this.#routes.forget(this.#nameOf(worker));
    });
  }

  /** Routes single presences to other TUNs. */
  update(changes: readonly RouteChange[]): void {
    this.#routes.update(changes);
  }

  /** Routes the presences of a site to the TUN of the worker that holds it now. Resolves as `sync` does. */
  moved(site: string): Promise<void> {
    return this.#routes.moved(site);
  }

  /**
   * Routes the presences of a site to this machine, one of several, until `release`. It must be called when the site's
   * tunnel is up, and again when the site was claimed anew. Resolves as `sync` does: then packets come.
   *
   * @param epoch the revision of the store at which the site was claimed, from 1 on
   */
  hold(site: string, epoch: number): Promise<void> {
    this.#epochs.set(site, epoch);
    return this.#routes.moved(site);
  }

  /**
   * Removes the routes of a site. Resolves as `sync` does: only then another machine may get the site. Another call
   * changes nothing.
   */
  release(site: string): Promise<void> {
    if (!this.#epochs.delete(site)) return this.#routes.sync();
    return this.#routes.moved(site);
  }

  /** Resolves when the kernel has the routes of single presences. */
  sync(): Promise<void> {
    return this.#routes.sync();
  }

  /**
   * Routes other prefixes to the TUNs.
   *
   * @throws {EnvironmentError} if the machine refuses, or this is closed; then the previous routes stay in force.
   */
  setRoutes(prefixes: readonly IpPrefix[]): Promise<void> {
    if (this.#tun === undefined) return Promise.resolve();
    return this.#inTurn(async () => {
      if (this.#isClosing) throw new EnvironmentError('the worker pool is closed');
      const problems = this.#isDivided
        ? await this.#setup?.setRoutes(this.#dividedRoutes(prefixes))
        : await this.#device?.setRoutes(prefixes);
      this.#prefixes = prefixes;
      if (this.#setup !== undefined) this.#noteRouted();
      for (const problem of problems ?? []) this.#warn(problem);
    });
  }

  /** Stops all changes. Must be called before the workers close. */
  async stop(): Promise<void> {
    this.#isClosing = true;
    await this.#work;
    await this.#routes.close();
    this.#announcer?.close();
  }

  /** Removes the settings for divided routes. Must be called when the workers are closed. */
  async close(): Promise<void> {
    const all = [...this.#allRouted.values()];
    try {
      await this.#setup?.close();
    } finally {
      for (const prefix of all) await forgetRoutes(prefix);
      await this.#announcer?.forget(all);
    }
  }

  get #isDivided(): boolean {
    return this.#options.workers > 1 || this.#options.isOneOfSeveral === true;
  }

  #targetOf(site: string): RouteTarget | undefined {
    const { holderOf, isOneOfSeveral } = this.#options;
    if (isOneOfSeveral !== true) return { device: this.#nameOf(holderOf(site)) };
    const epoch = this.#epochs.get(site);
    if (epoch === undefined) return undefined;
    return { device: this.#nameOf(holderOf(site)), metric: metricOf(epoch) };
  }

  /** Returns the routes of the prefixes besides those of single presences. */
  #dividedRoutes(prefixes: readonly IpPrefix[]): TunRoutes {
    return this.#options.isOneOfSeveral === true
      ? { routes: [], blackhole: prefixes }
      : { routes: [], unreachable: prefixes };
  }

  async #openTun(device: TunDeviceOptions): Promise<PacketDevice> {
    // Without the option `routes` and a call of `setRoutes`, the TUN opens without routes and waits for that call.
    const isKnown = device.routes !== undefined || this.#prefixes.length > 0;
    const routes = isKnown ? { routes: this.#prefixes } : {};
    this.#device = await openTun({ ...device, ...routes }, (problem) => this.#warn(problem));
    return this.#device;
  }

  /** Returns what is missing on the machine, one sentence each. */
  async #configure(tun: TunDeviceOptions): Promise<readonly string[]> {
    const [name, ...otherTuns] = Array.from({ length: this.#options.workers }, (_, worker) =>
      this.#nameOf(worker)
    );
    this.#noteRouted();
    this.#setup = await configureTun({
      name: name!,
      otherTuns,
      ...this.#dividedRoutes(this.#prefixes),
      proxyArp: tun.proxyArp ?? [],
      proxyNdp: this.#announcer === undefined ? [] : (tun.proxyArp ?? []),
      transit: tun.transit ?? [],
      ...lanOf(tun),
      onProblem: (problem) => this.#warn(problem),
    });
    return this.#setup.problems;
  }

  #noteRouted(): void {
    for (const prefix of this.#prefixes) this.#allRouted.set(prefix.toString(), prefix);
  }

  /** Returns the name of a worker's TUN: the name given for worker 0, with the number at its end counted up. */
  #nameOf(worker: number): string {
    const [, stem, first] = /^(.*?)(\d*)$/.exec(this.#tun?.name ?? '')!;
    return worker === 0 ? `${stem}${first}` : `${stem}${Number(first) + worker}`;
  }

  /** Calls `step` when all earlier steps have ended, also if they failed. */
  #inTurn<T>(step: () => Promise<T>): Promise<T> {
    const done = this.#work.then(step);
    this.#work = done.then(ignore, ignore);
    return done;
  }

  #warn(problem: string): void {
    this.#options.logger.warn({ event: 'tun_problem' }, `device: ${problem}`);
  }
}

function ignore(): void {}
