/**
 * `WorkerPool`: all workers of a cloud gateway together. One is in this process; several are each in a process of
 * their own, with the sites shared out among them. Then each has a TUN, a port and a part of the plan, and the
 * kernel's routes lead to the TUNs.
 * @module
 */
import { X509Certificate } from 'node:crypto';
import { EventEmitter } from 'eventemitter3';
import { PlanPartition, type PlanTarget, type PresenceUse } from '../control/index.ts';
import {
  configureTun,
  forgetRoutes,
  openTun,
  type PacketDevice,
  type TunDeviceOptions,
  type TunSetup,
} from '../device/index.ts';
import { lackOfLan, lanOf, TUN_DEFAULT_MTU } from '../device/open-tun.ts';
import { ConfigError } from '../errors.ts';
import type { HostPort } from '../host-port.ts';
import { CLOUD } from '../registry/index.ts';
import type { Explanation, PathStatus, Presence, TranslationPlan } from '../translator/index.ts';
import { CloseCode, type Credentials } from '../tunnel/index.ts';
import { type AccessTable, redirect } from './access.ts';
import { KernelRoutes } from './kernel-routes.ts';
import { LocalWorker } from './local-worker.ts';
import { Placement } from './placement.ts';
import {
  type ResolvedPoolOptions,
  resolvePoolOptions,
  type WorkerPoolOptions,
} from './pool-options.ts';
import { type SiteTunnel, SiteTunnels } from './site-tunnel.ts';
import type {
  RefusedPeer,
  TerminationReport,
  TunnelClose,
  TunnelFilter,
  Worker,
  WorkerAddresses,
  WorkerHost,
  WorkerOptions,
} from './worker.ts';
import { findWorkerMain } from './worker-entry.ts';
import { WorkerProcess } from './worker-process.ts';

export interface WorkerPoolEvents {
  /** A site's tunnel is up. */
  tunnel: [tunnel: SiteTunnel];
  /** A connection has led to no tunnel. */
  refused: [refusal: RefusedPeer];
}

export interface WorkerPoolStatus {
  /** Sums over all workers. */
  readonly listener: Readonly<Record<string, number>>;
  readonly dataPlane: Readonly<Record<string, number>>;
  readonly device: Readonly<Record<string, number>>;
  /** By site. */
  readonly verdicts: Readonly<Record<string, Readonly<Record<string, number>>>>;
  /** By the number of the worker; `pid` is 0 while a worker is down. */
  readonly workers: readonly { readonly pid: number; readonly sites: readonly string[] }[];
}

/** A controller's plan goes to the pool, and from there to the workers; packets never come here. */
export class WorkerPool
  extends EventEmitter<WorkerPoolEvents>
  implements PlanTarget, AsyncDisposable
{
  readonly #options: ResolvedPoolOptions;
  readonly #workers: readonly Worker[];
  readonly #placement: Placement;
  /** Absent if there is one worker, which has the whole plan. */
  readonly #partition: PlanPartition | undefined;
  readonly #routes: KernelRoutes;
  #setup: TunSetup | undefined;
  /** Where each worker listens. The entry of a worker is absent until it is open. */
  readonly #addresses: WorkerAddresses[] = [];
  /** The sites that had an edge when the workers were told last. */
  #sites: ReadonlySet<string> = new Set();
  /** What workers have said while others could not, by realm and address. */
  readonly #uses = new Map<string, PresenceUse>();
  #moves: Promise<void> = Promise.resolve();
  /** The restarts that are being dealt with. */
  #restarts: Promise<void> = Promise.resolve();
  #closing: Promise<void> | undefined;

  /** @throws {ConfigError} if an option is not usable. */
  constructor(options: WorkerPoolOptions) {
    super();
    this.#options = resolvePoolOptions(options);
    const { workers, log, workerMain } = this.#options;
    this.#placement = new Placement(workers);
    this.#routes = new KernelRoutes({
      deviceOf: (site) => this.#deviceName(this.holderOf(site)),
      log,
    });
    if (workers === 1) {
      const { admit, otherProtocols } = options;
      const host = this.#hostOf(0, admit);
      this.#workers = [new LocalWorker(host, () => this.#openDevice(), otherProtocols)];
      return;
    }
    const program = findWorkerMain(workerMain);
    const admit: WorkerHost['admit'] = async (...client) => {
      await options.admit(...client);
      await this.#routes.sync();
    };
    this.#workers = Array.from({ length: workers }, (_, number) => {
      const host = this.#hostOf(number, admit);
      return new WorkerProcess({
        program,
        host,
        brief: (worker) => this.#brief(number, worker),
        onEnd: () => host.endAll(CloseCode.ConnectionLost, 'its process has ended'),
        onRestart: (addresses) => {
          this.#restarts = this.#restarts.then(() => this.#restarted(number, addresses));
        },
      });
    });
    this.#partition = new PlanPartition({
      shared: CLOUD,
      targets: this.#workers,
      holderOf: (site) => this.holderOf(site),
      onRoutes: (changes) => this.#routes.take(changes),
    });
  }

  /** The realm that packets between sites may cross, for `PresenceController`. */
  get transit(): string | undefined {
    return this.#partition && CLOUD;
  }

  /** How many workers there are. */
  get size(): number {
    return this.#workers.length;
  }

  load(plan: TranslationPlan): void {
    (this.#partition ?? this.#workers[0]!).load(plan);
  }

  bind(presence: Presence): void {
    (this.#partition ?? this.#workers[0]!).bind(presence);
  }

  /** Where each worker listens; without those that are not open yet. */
  get addresses(): readonly WorkerAddresses[] {
    return this.#addresses;
  }

  /** The port where a worker listens for tunnels; undefined while it is yet to take a free one. */
  portOf(worker: number): number | undefined {
    const { port } = this.#addresses[worker]?.tunnel ?? this.#tunnelAddress(worker);
    return port === 0 ? undefined : port;
  }

  /** The number of the worker that holds a site. A site that is asked for the first time is placed. */
  holderOf(site: string): number {
    return this.#placement.holderOf(site);
  }

  /**
   * Opens devices and ports, and begins to move packets.
   *
   * @throws {PresenceError} if a device or a port cannot be had; then nothing is left open.
   */
  async open(): Promise<void> {
    try {
      await this.#open();
    } catch (error) {
      await this.close().catch(() => {});
      throw error;
    }
  }

  /**
   * To be called when what the option `access` returns has changed: tells the workers, and ends the tunnels of sites
   * that there are no more.
   */
  refreshAccess(): void {
    const { table, sites } = this.#access();
    for (const worker of this.#workers) worker.setAccess(table);
    const gone = [...this.#sites].filter((site) => !sites.has(site));
    this.#sites = sites;
    for (const site of gone) {
      this.#placement.forget(site);
      const reason = `there is no site "${site}" here any more`;
      this.terminate({ site }, { code: CloseCode.UnknownSite, reason }).catch((error: Error) =>
        this.#options.log(`${site}: ${error.message}`)
      );
    }
  }

  /** All workers show another certificate, and trust others, from the next connection on. */
  setCredentials(credentials: Credentials): void {
    for (const worker of this.#workers) worker.setCredentials(credentials);
  }

  /**
   * Ends tunnels, wherever they are; nothing of them passes any more when it resolves. With the filter `unwanted` the
   * workers first learn what is revoked by now.
   */
  async terminate(
    filter: Exclude<TunnelFilter, { readonly tunnel: number }>,
    close: TunnelClose
  ): Promise<TerminationReport> {
    if ('unwanted' in filter) this.refreshAccess();
    const all = await Promise.all(this.#workers.map((worker) => worker.terminate(filter, close)));
    return {
      tunnelsClosed: all.reduce((total, { tunnelsClosed }) => total + tunnelsClosed, 0),
      pathsRemoved: all.reduce((total, { pathsRemoved }) => total + pathsRemoved, 0),
    };
  }

  /**
   * Gives a site to another worker. Its addresses stay, so its connections go on.
   *
   * @throws {ConfigError} if there is no such worker.
   */
  move(site: string, to: number): Promise<void> {
    if (this.#workers[to] === undefined) {
      const message = `there are ${this.#workers.length}, numbered from 0`;
      return Promise.reject(new ConfigError('worker', message));
    }
    const moving = this.#moves.then(() => this.#move(site, to));
    this.#moves = moving.catch(() => {});
    return moving;
  }

  /** Resolves when every worker has done what it was told so far. */
  async settled(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.settled()));
  }

  async status(sites: readonly string[]): Promise<WorkerPoolStatus> {
    const held = this.#placement.sites();
    const all = await Promise.all(this.#workers.map((worker) => worker.status(sites)));
    return {
      listener: sum(all.map(({ listener }) => listener)),
      dataPlane: sum(all.map(({ dataPlane }) => dataPlane)),
      device: sum(all.map(({ device }) => device)),
      verdicts: Object.fromEntries(
        sites.map((site) => [site, sum(all.map(({ verdicts }) => verdicts[site] ?? {}))])
      ),
      workers: all.map(({ pid }, i) => ({ pid, sites: held[i]! })),
    };
  }

  async paths(): Promise<readonly PathStatus[]> {
    return (await Promise.all(this.#workers.map((worker) => worker.paths()))).flat();
  }

  /**
   * Returns which presences have carried packets since this was last answered.
   *
   * @throws {EnvironmentError} if a worker is down; what the others have said comes with the next answer.
   */
  async presenceUses(): Promise<readonly PresenceUse[]> {
    const answers = await Promise.allSettled(this.#workers.map((worker) => worker.presenceUses()));
    for (const answer of answers) {
      if (answer.status === 'rejected') continue;
      for (const use of answer.value) this.#uses.set(`${use.realm} ${use.address}`, use);
    }
    throwFirst(answers);
    const uses = [...this.#uses.values()];
    this.#uses.clear();
    return uses;
  }

  /**
   * Asks the worker that a packet of this realm comes to.
   *
   * @throws {EnvironmentError} if that worker is down.
   */
  async explain(packet: Uint8Array, realm: string): Promise<Explanation> {
    if (realm !== CLOUD) return this.#workers[this.holderOf(realm)]!.explain(packet, realm);
    const all = await Promise.all(this.#workers.map((worker) => worker.explain(packet, realm)));
    return all.find(({ step }) => step !== 'destination') ?? all[0]!;
  }

  /** Ends all tunnels, closes devices and processes, and undoes what was set on the machine. Safe to call twice. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #open(): Promise<void> {
    if (this.#partition === undefined) this.#brief(0, this.#workers[0]!);
    const { device } = this.#options;
    const tun = this.#partition === undefined || typeof device === 'function' ? undefined : device;
    // A gateway in this place that was killed may have left routes.
    for (const prefix of tun?.routes ?? []) await forgetRoutes(prefix);
    const openings = await Promise.allSettled(
      this.#workers.map(async (worker, number) => {
        this.#addresses[number] = await worker.open(this.#optionsOf(number));
      })
    );
    throwFirst(openings);
    // Where each of them listens is news to the others if they took free ports.
    this.refreshAccess();
    if (tun === undefined) return;
    for (const problem of [...(await this.#configure(tun)), ...lackOfLan(tun)]) {
      this.#options.log(`device: ${problem}`);
    }
    await this.#routes.open();
  }

  async #close(): Promise<void> {
    await this.#moves;
    await this.#restarts;
    await this.#routes.close();
    const closings = await Promise.allSettled(this.#workers.map((worker) => worker.close()));
    const { device } = this.#options;
    if (this.#partition !== undefined && typeof device !== 'function') {
      try {
        await this.#setup?.close();
      } finally {
        for (const prefix of device.routes ?? []) await forgetRoutes(prefix);
      }
    }
    throwFirst(closings);
  }

  /**
   * A worker is back. It may listen elsewhere, which the others must know, and its interface may have been made
   * anew, without settings and routes.
   */
  async #restarted(number: number, addresses: WorkerAddresses): Promise<void> {
    // What is set after the last close stays on the machine.
    if (this.#closing !== undefined) return;
    this.#addresses[number] = addresses;
    this.refreshAccess();
    const { device, log } = this.#options;
    try {
      if (typeof device !== 'function') await this.#configure(device);
    } catch (error) {
      log(`device: ${(error as Error).message}`);
    }
    this.#routes.forget(this.#deviceName(number));
  }

  /** Returns what the machine lacks, one sentence each. */
  async #configure(tun: TunDeviceOptions): Promise<readonly string[]> {
    const [name, ...otherTuns] = this.#workers.map((_, number) => this.#deviceName(number));
    this.#setup = await configureTun({
      name: name!,
      otherTuns,
      routes: [],
      unreachable: tun.routes ?? [],
      proxyArp: tun.proxyArp ?? [],
      ...lanOf(tun),
      onProblem: (problem) => this.#options.log(`device: ${problem}`),
    });
    return this.#setup.problems;
  }

  /** For the one worker of this process. */
  #openDevice(): Promise<PacketDevice> {
    const { device, log } = this.#options;
    if (typeof device === 'function') return device();
    return openTun(device, (problem) => log(`device: ${problem}`));
  }

  /** What a worker asks and tells this pool. */
  #hostOf(
    number: number,
    admit: WorkerHost['admit']
  ): WorkerHost & { endAll: SiteTunnels['endAll'] } {
    const { authorize, log } = this.#options;
    const tunnels = new SiteTunnels(
      () => this.#workers[number]!,
      (tunnel) => this.emit('tunnel', tunnel),
      log
    );
    return {
      admit,
      authorize: ({ certificate, ...peer }) =>
        authorize?.({ ...peer, certificate: new X509Certificate(certificate) }),
      log,
      onTunnel: (...tunnel) => tunnels.onTunnel(...tunnel),
      onControl: (...message) => tunnels.onControl(...message),
      onRenewed: (...renewal) => tunnels.onRenewed(...renewal),
      onDown: (...down) => tunnels.onDown(...down),
      onRefused: (refusal) => this.emit('refused', refusal),
      endAll: (...cause) => tunnels.endAll(...cause),
    };
  }

  /** Tells a worker that is about to open all that it is to know. */
  #brief(number: number, worker: Worker): void {
    worker.setCredentials(this.#options.credentials());
    worker.setAccess(this.#access().table);
    if (this.#partition !== undefined) worker.load(this.#partition.part(number));
  }

  #access(): { readonly table: AccessTable; readonly sites: ReadonlySet<string> } {
    const { sites: names, revocations, retired } = this.#options.access();
    const sites = new Set(names);
    const holders = new Map([...sites].map((site) => [site, this.holderOf(site)]));
    const ports = new Map<number, number>();
    for (const worker of this.#workers.keys()) {
      const port = this.portOf(worker);
      if (port !== undefined) ports.set(worker, port);
    }
    return { table: { holders, ports, revocations, retired }, sites };
  }

  #optionsOf(number: number): WorkerOptions {
    const { device, limits } = this.#options;
    const asksHost = this.#options.authorize !== undefined;
    const options = { number, tunnel: this.#tunnelAddress(number), limits, authorize: asksHost };
    if (this.#partition === undefined || typeof device === 'function') return options;
    const { mtu = TUN_DEFAULT_MTU } = device;
    return { ...options, tun: { name: this.#deviceName(number), mtu } };
  }

  /** Where a worker is to listen: on the port given plus its number, or on a free port if that is 0. */
  #tunnelAddress(worker: number): HostPort {
    const { host, port } = this.#options.tunnel;
    return { host, port: port === 0 ? 0 : port + worker };
  }

  /** The name given for worker 0; the number at its end counted up for the others. */
  #deviceName(worker: number): string {
    const { device } = this.#options;
    const [, stem, first] = /^(.*?)(\d*)$/.exec(typeof device === 'function' ? '' : device.name)!;
    return worker === 0 ? `${stem}${first}` : `${stem}${Number(first) + worker}`;
  }

  /**
   * In this order, so that no packet of the site ever comes to a worker that would answer it with a refusal: the new
   * worker knows the site, the kernel brings its packets there, its edge dials there, the others learn of it. What
   * is on the way meanwhile is dropped silently.
   */
  async #move(site: string, to: number): Promise<void> {
    const from = this.holderOf(site);
    if (from === to || this.#partition === undefined) return;
    this.#placement.move(site, to);
    this.#partition.reload(to);
    this.refreshAccess();
    await this.#workers[to]!.settled();
    await this.#routes.sync();
    const close = { ...redirect(site, to, this.portOf(to)), drain: true };
    await this.#workers[from]!.terminate({ site }, close);
    for (const other of this.#workers.keys()) {
      if (other !== to) this.#partition.reload(other);
    }
  }
}

function sum(counters: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const each of counters) {
    for (const [name, count] of Object.entries(each)) sums[name] = (sums[name] ?? 0) + count;
  }
  return sums;
}

function throwFirst(results: readonly PromiseSettledResult<unknown>[]): void {
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}
