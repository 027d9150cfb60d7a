/**
 * `WorkerPool`: all workers of a cloud gateway. One worker runs in this process. Several run in a process each, with
 * the sites distributed among them: each has a TUN, a port and a part of the plan, and the kernel's routes lead to the
 * TUNs.
 * @module
 */

import { X509Certificate } from 'node:crypto';
import { EventEmitter } from 'eventemitter3';
import type { HostPort } from '../base/host-port.ts';
import type { PrefixInput } from '../base/prefix.ts';
import type { PlanTarget, PresenceUse } from '../control/index.ts';
import { ConfigError, EnvironmentError } from '../errors.ts';
import { errorFields } from '../observe/index.ts';
import { CLOUD } from '../registry/index.ts';
import type {
  Explanation,
  PathStatus,
  PlanChanges,
  PlannedRealm,
  TranslationPlanInput,
} from '../translator/index.ts';
import { CloseCode, type Credentials } from '../tunnel/index.ts';
import { Answers } from './answers.ts';
import { HeldSites } from './held-sites.ts';
import { LocalWorker } from './local-worker.ts';
import { PoolAccess } from './pool-access.ts';
import { PoolDiagnosis } from './pool-diagnosis.ts';
import {
  checkRoutes,
  type ResolvedPoolOptions,
  resolvePoolOptions,
  type WorkerPoolOptions,
} from './pool-options.ts';
import { PoolStatus, type PoolStatusPart, type WorkerPoolStatus } from './pool-status.ts';
import { PoolTuns } from './pool-tuns.ts';
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
  /** A connection was refused. */
  refused: [refusal: RefusedPeer];
  /** The process of a worker has ended, or was restarted; `total` is the number of workers of the pool. */
  workers: [workers: { readonly running: number; readonly total: number }];
}

/** Distributes the controller's plan to the workers, and their tunnels to the host. Packets never pass through it. */
export class WorkerPool
  extends EventEmitter<WorkerPoolEvents>
  implements PlanTarget, AsyncDisposable
{
  readonly diagnosis: PoolDiagnosis;
  readonly #options: ResolvedPoolOptions;
  readonly #workers: readonly Worker[];
  readonly #held: HeldSites;
  readonly #tuns: PoolTuns;
  readonly #access: PoolAccess;
  readonly #answers: Answers;
  readonly #status: PoolStatus;
  /** The workers that are open, by number. */
  readonly #running = new Set<number>();
  /** Where each worker listens. The entry of a worker is absent until it is open. */
  readonly #addresses: WorkerAddresses[] = [];
  /** The uses that some workers reported while another one was down, by realm and address. */
  readonly #uses = new Map<string, PresenceUse>();
  #closing: Promise<void> | undefined;

  /** @throws {ConfigError} if an option is not usable. */
  constructor(options: WorkerPoolOptions) {
    super();
    this.#options = resolvePoolOptions(options);
    const { workers, logger, clock } = this.#options;
    const all = (): readonly Worker[] => this.#workers;
    this.#answers = new Answers(clock);
    this.#status = new PoolStatus(all, this.#answers, clock);
    this.diagnosis = new PoolDiagnosis(all, this.#answers, (site) => this.holderOf(site));
    this.#tuns = new PoolTuns({
      device: options.device,
      workers,
      holderOf: (site) => this.holderOf(site),
      isOneOfSeveral: options.sites === 'taken',
      logger,
      clock,
    });
    this.#access = new PoolAccess({
      rules: this.#options.access,
      workers: () => this.#workers,
      holderOf: (site) => this.holderOf(site),
      portOf: (worker) => this.portOf(worker),
      onGone: (site) => this.#onGone(site),
    });
    this.#workers = workers === 1 ? [this.#localWorker()] : this.#workerProcesses();
    this.#held = new HeldSites({
      sites: options.sites ?? 'all',
      workers: this.#workers,
      tuns: this.#tuns,
      access: this.#access,
      answers: this.#answers,
      portOf: (worker) => this.portOf(worker),
    });
  }

  /** The realm through which packets between sites pass, for `PresenceController`. */
  get transit(): string | undefined {
    return this.#held.isDivided ? CLOUD : undefined;
  }

  /** How many workers are open now. */
  get running(): number {
    return this.#running.size;
  }

  /** The number of workers. */
  get size(): number {
    return this.#workers.length;
  }

  load(plan: TranslationPlanInput): void {
    this.#held.plan.load(plan);
  }

  apply(changes: PlanChanges): void {
    this.#held.plan.apply(changes);
  }

  /** With several workers, this is the plan that they have got. */
  planned(realm: string): PlannedRealm | undefined {
    return this.#held.plan.planned?.(realm);
  }

  /** Where each worker listens; workers that are not open yet are missing. */
  get addresses(): readonly WorkerAddresses[] {
    return this.#addresses;
  }

  /** Returns the port where a worker listens for tunnels; undefined until it has taken a free one. */
  portOf(worker: number): number | undefined {
    const { port } = this.#addresses[worker]?.tunnel ?? this.#tunnelAddress(worker);
    return port === 0 ? undefined : port;
  }

  /** Returns the number of the worker that holds a site. The first call for a site places it. */
  holderOf(site: string): number {
    return this.#held.holderOf(site);
  }

  /**
   * Opens devices and ports, and begins to move packets.
   *
   * @throws {PresenceError} if a device or a port cannot be opened; then nothing is left open.
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
   * Sends the workers what has changed in the result of the option `access`, and ends the tunnels of removed sites. Must
   * be called when that has changed. It reads all sites; `setSite` changes one.
   */
  refreshAccess(): void {
    this.#access.refresh();
  }

  /**
   * Admits a site from now on, or ends its tunnels and admits it no more. The option `access` must say the same.
   */
  setSite(site: string, isAdmitted: boolean): void {
    this.#access.setSite(site, isAdmitted);
  }

  /** Sends the workers the revocations and the retired CAs that the option `access` returns now. */
  refreshRevocations(): void {
    this.#access.refreshRevocations();
  }

  /** Replaces the certificate and the trust bundle of all workers, from the next connection on. */
  setCredentials(credentials: Credentials): void {
    for (const worker of this.#workers) worker.setCredentials(credentials);
  }

  /**
   * Ends tunnels of all workers. When it resolves, none of their packets passes. With the filter `unwanted` the workers
   * first receive the present revocations. A worker that does not answer for 5000 ms is killed: all its tunnels end, and it
   * is started again with the present revocations.
   */
  async terminate(
    filter: Exclude<TunnelFilter, { readonly tunnel: number }>,
    close: TunnelClose
  ): Promise<TerminationReport> {
    if ('unwanted' in filter) this.refreshRevocations();
    const terminate = (worker: Worker) => worker.terminate(filter, close);
    const all = await Promise.all(
      this.#workers.map((worker) => this.#answers.orKill(worker, terminate))
    );
    return {
      tunnelsClosed: all.reduce((total, { tunnelsClosed }) => total + tunnelsClosed, 0),
      pathsRemoved: all.reduce((total, { pathsRemoved }) => total + pathsRemoved, 0),
    };
  }

  /**
   * Asks the edge of a site for an answer, as `MtlsTunnel.isAlive` does. False if the site has no tunnel here, or its
   * worker does not answer within 1500 ms; a tunnel that does not answer ends.
   */
  isAlive(site: string): Promise<boolean> {
    const { clock } = this.#options;
    return new Promise((resolve, reject) => {
      // Three PINGs take less.
      const cancel = clock.after(1500, () => resolve(false), true);
      this.#workers[this.holderOf(site)]!.isAlive(site).finally(cancel).then(resolve, reject);
    });
  }

  /**
   * Moves a site to another worker. Its addresses stay the same, so its connections survive.
   *
   * @throws {ConfigError} if there is no such worker.
   */
  move(site: string, to: number): Promise<void> {
    if (this.#workers[to] === undefined) {
      const message = `there are ${this.#workers.length}, numbered from 0`;
      return Promise.reject(new ConfigError('worker', message));
    }
    return this.#held.move(site, to);
  }

  /**
   * Holds a site from now on, with the option `sites: 'taken'`. When it resolves, the worker has the site's part of the
   * plan, and the kernel routes its presences here.
   *
   * @param epoch when this machine has claimed the site, from 1 on: the routes of a later one win
   */
  take(site: string, epoch: number): Promise<void> {
    return this.#held.take(site, epoch);
  }

  /**
   * Does not hold a site any more: ends its tunnel, and takes its routes and its part of the plan away. When it resolves,
   * no packet of the site passes here.
   */
  giveUp(site: string, close: TunnelClose): Promise<void> {
    return this.#held.giveUp(site, close);
  }

  /**
   * Routes these prefixes to the TUNs, instead of those of the option `device.routes` or of an earlier call, until
   * `close`. Resolves when the machine has the routes. Before `open`, the prefixes are kept for `open`. Does nothing if
   * the device is not a TUN.
   *
   * @throws {ConfigError} if one of them is not a prefix.
   * @throws {EnvironmentError} if the machine refuses, or the pool is closed; then the previous routes stay in force.
   */
  async setRoutes(prefixes: readonly PrefixInput[]): Promise<void> {
    const checked = checkRoutes('routes', prefixes);
    if (this.#closing !== undefined) throw new EnvironmentError('the worker pool is closed');
    await this.#tuns.setRoutes(checked);
  }

  /** Resolves when every worker has processed all earlier notifications. One that is down, or hangs, is not waited for. */
  async settled(): Promise<void> {
    await this.#answers.ofAll(this.#workers, (worker) => worker.settled(), { value: undefined });
  }

  /** A worker that is down, or has not answered for 5000 ms, has the `pid` 0 and no counters. */
  status(sites: readonly string[]): Promise<WorkerPoolStatus> {
    return this.#status.total(sites, this.#held.sites());
  }

  /** Asks the workers for sites, some at a time, and gives way between. The first part has no site. */
  statusParts(sites: readonly string[]): AsyncIterable<PoolStatusPart> {
    return this.#status.parts(sites);
  }

  /** Returns which workers hang, and what to do; undefined if none does. */
  fault(): string | undefined {
    return this.#status.fault();
  }

  /** A worker that is down, or hangs, is left out. */
  async paths(): Promise<readonly PathStatus[]> {
    const all = await this.#answers.ofAll(this.#workers, (each) => each.paths(), { value: [] });
    return all.flat();
  }

  /**
   * Returns the presences that have carried packets since the last successful call.
   *
   * @throws {EnvironmentError} if a worker is down; the next call returns what the other workers have reported.
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
   * Calls `explain` of the worker that receives packets of this realm.
   *
   * @throws {EnvironmentError} if that worker is down, or hangs.
   */
  async explain(packet: Uint8Array, realm: string): Promise<Explanation> {
    const explain = (worker: Worker): Promise<Explanation> => worker.explain(packet, realm);
    if (realm !== CLOUD) return this.#answers.of(this.#workers[this.holderOf(realm)]!, explain);
    const all = await this.#answers.ofAll(this.#workers, explain);
    return all.find(({ step }) => step !== 'destination') ?? all[0]!;
  }

  /** Ends all tunnels, closes devices and processes, and removes the settings on the machine. Safe to call twice. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #open(): Promise<void> {
    this.refreshAccess();
    if (this.#options.workers === 1) this.#initialize(0, this.#workers[0]!);
    await this.#tuns.removeStaleRoutes();
    const openings = await Promise.allSettled(
      this.#workers.map(async (worker, number) => {
        this.#addresses[number] = await worker.open(this.#optionsOf(number));
        this.#running.add(number);
      })
    );
    throwFirst(openings);
    // Each one must learn the free ports that the others took.
    this.refreshAccess();
    this.#access.refreshPorts();
    await this.#tuns.open();
    if (this.#options.workers > 1) this.#answers.watch(this.#workers);
  }

  #emitWorkers(): void {
    if (this.#closing !== undefined) return;
    this.emit('workers', { running: this.#running.size, total: this.#workers.length });
  }

  async #close(): Promise<void> {
    this.#answers.close();
    await this.#held.settled();
    await this.#tuns.stop();
    const closings = await Promise.allSettled(this.#workers.map((worker) => worker.close()));
    await this.#tuns.close();
    throwFirst(closings);
  }

  /** Called when a worker was restarted. The other workers must know where it listens now. */
  async #restarted(number: number, addresses: WorkerAddresses): Promise<void> {
    if (this.#closing !== undefined) return;
    this.#running.add(number);
    this.#addresses[number] = addresses;
    this.#access.refreshPorts();
    await this.#tuns.restarted(number);
    // The worker may have ended again in the meantime.
    if (this.#running.has(number)) this.#emitWorkers();
  }

  #localWorker(): Worker {
    const { otherProtocols, clock } = this.#options;
    const openDevice = () => this.#tuns.openDevice();
    return new LocalWorker(this.#hostOf(0), openDevice, { otherProtocols, clock });
  }

  #workerProcesses(): Worker[] {
    const { workers, logger, workerMain } = this.#options;
    const program = findWorkerMain(workerMain);
    return Array.from({ length: workers }, (_, number) => {
      const host = this.#hostOf(number);
      return new WorkerProcess({
        program,
        host,
        initialize: (worker) => this.#initialize(number, worker),
        onEnd: () => {
          host.endAll(CloseCode.ConnectionLost, 'its process has ended');
          if (this.#running.delete(number)) this.#emitWorkers();
        },
        onRestart: (addresses) => {
          this.#restarted(number, addresses).catch((error: Error) => {
            const fields = {
              event: 'worker_setup_failed',
              worker: number,
              ...errorFields(error),
            } as const;
            logger.error(fields, `process ${number}: ${error.message}`);
          });
        },
      });
    });
  }

  /** Returns the host of a worker, which connects it to this pool. */
  #hostOf(number: number): WorkerHost & { endAll: SiteTunnels['endAll'] } {
    const { admit, authorize, logger, clock } = this.#options;
    const tunnels = new SiteTunnels(
      () => this.#workers[number]!,
      (tunnel) => this.emit('tunnel', tunnel),
      { logger, clock }
    );
    return {
      admit: async (...client) => {
        await admit(...client);
        if (this.#held.isDivided) await this.#tuns.sync();
      },
      authorize: ({ certificate, ...peer }) =>
        authorize?.({ ...peer, certificate: new X509Certificate(certificate) }),
      log: (level, fields, message) => logger[level](fields, message),
      onTunnel: (...tunnel) => tunnels.onTunnel(...tunnel),
      onControl: (...message) => tunnels.onControl(...message),
      onRenewed: (...renewal) => tunnels.onRenewed(...renewal),
      onDown: (...down) => tunnels.onDown(...down),
      onRefused: (refusal) => this.emit('refused', refusal),
      endAll: (...cause) => tunnels.endAll(...cause),
    };
  }

  /** Sends a worker its credentials, its access table and its plan, before it opens. */
  #initialize(number: number, worker: Worker): void {
    worker.setCredentials(this.#options.credentials());
    worker.updateAccess(this.#access.all());
    const part = this.#held.part(number);
    if (part) worker.load(part);
  }

  #onGone(site: string): void {
    this.#held.forget(site);
    const reason = `there is no site "${site}" here any more`;
    this.terminate({ site }, { code: CloseCode.UnknownSite, reason }).catch((error: Error) => {
      const fields = { event: 'site_end_failed', site, ...errorFields(error) } as const;
      this.#options.logger.warn(fields, `${site}: ${error.message}`);
    });
  }

  #optionsOf(number: number): WorkerOptions {
    const { authorize, limits } = this.#options;
    return {
      number,
      tunnel: this.#tunnelAddress(number),
      limits,
      authorize: authorize !== undefined,
      ...this.#tuns.tunOf(number),
    };
  }

  /** Returns where a worker listens: the port given plus its number, or port 0. */
  #tunnelAddress(worker: number): HostPort {
    const { host, port } = this.#options.tunnel;
    return { host, port: port === 0 ? 0 : port + worker };
  }
}

function throwFirst(results: readonly PromiseSettledResult<unknown>[]): void {
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}
