/**
 * `WorkerProcess`: a worker in a process of its own, as its host sees it. If the process ends although the worker was
 * not closed, it is started again. Until then notifications are dropped, because a worker receives everything again
 * before it opens.
 * @module
 */

import { type ChildProcess, fork } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import type { HostPort } from '../base/host-port.ts';
import { VERSION } from '../base/version.ts';
import type { PresenceUse } from '../control/index.ts';
import { ApiMisuseError, ConfigError, EnvironmentError, type PresenceError } from '../errors.ts';
import { errorFields } from '../observe/index.ts';
import type { Json } from '../store/index.ts';
import type {
  CaptureBatch,
  CaptureFilter,
  Explanation,
  PathPage,
  PathQuery,
  PathStatus,
  PlanChangesInput,
  TranslationPlanInput,
} from '../translator/index.ts';
import { printChanges, printPlan } from '../translator/plan.ts';
import type { Credentials } from '../tunnel/index.ts';
import type { AccessChange } from './access.ts';
import { RevocationFeed } from './revocation-feed.ts';
import { type Remote, Rpc } from './rpc.ts';
import {
  type TerminationReport,
  type TunnelClose,
  type TunnelFilter,
  type TunnelStatus,
  WORKER_NOTIFICATIONS,
  type Worker,
  type WorkerAddresses,
  type WorkerHost,
  type WorkerOptions,
  type WorkerStatus,
} from './worker.ts';

export interface WorkerProcessOptions {
  /** The path of the program, see `findWorkerMain`. */
  readonly program: string;
  readonly host: WorkerHost;
  /** Sends a worker its credentials, its access table and its plan, before it opens. */
  readonly initialize: (worker: Worker) => void;
  /** The process has ended, and every tunnel of the worker with it. */
  readonly onEnd: () => void;
  /** The worker is open again, perhaps on another port. */
  readonly onRestart: (addresses: WorkerAddresses) => void;
}

/** One process. */
interface Child {
  readonly process: ChildProcess;
  readonly rpc: Rpc<Worker>;
  readonly ended: Promise<void>;
}

/** A worker that is called over `Rpc`. */
export class WorkerProcess implements Worker {
  readonly #options: WorkerProcessOptions;
  /** The options of `open`. */
  #opened: WorkerOptions | undefined;
  /** Where the worker listens when it is started again: on the port that it had when it was last open. */
  #tunnel: HostPort | undefined;
  #child: Child | undefined;
  /** Undefined while the worker is down. */
  #remote: Remote<Worker> | undefined;
  /** What the present process knows of the revocations. */
  #revocations = new RevocationFeed();
  /** False also while the worker is opening, which may fail. */
  #isOpen = false;
  #startedMs = 0;
  #restarting: Promise<void> = Promise.resolve();
  readonly #closing = new AbortController();

  constructor(options: WorkerProcessOptions) {
    this.#options = options;
  }

  /** The version of the process is the same, or `open` rejects. */
  version(): string {
    return VERSION;
  }

  /** Values such as addresses go to the other process as text. */
  load(plan: TranslationPlanInput): void {
    this.#remote?.load(printPlan(plan));
  }

  apply(changes: PlanChangesInput): void {
    this.#remote?.apply(printChanges(changes));
  }

  /** Sends the changes; a table of revocations is sent as what has changed in it. */
  updateAccess({ revocations, ...change }: AccessChange): void {
    if (this.#remote === undefined) return;
    const news = revocations === undefined ? {} : this.#revocations.next(revocations);
    const all = { ...change, ...news };
    if (Object.keys(all).length > 0) this.#remote.updateAccess(all);
  }

  setCredentials(credentials: Credentials): void {
    this.#remote?.setCredentials(credentials);
  }

  /**
   * @throws {EnvironmentError} if the process cannot be started, or ends.
   * @throws {ConfigError} if its program is of another version of the library.
   */
  async open(options: WorkerOptions): Promise<WorkerAddresses> {
    this.#opened = options;
    return this.#start(options);
  }

  async sendControl(tunnel: number, message: Json): Promise<boolean> {
    return (await this.#call((worker) => worker.sendControl(tunnel, message))) ?? false;
  }

  async terminate(filter: TunnelFilter, close: TunnelClose): Promise<TerminationReport> {
    const report = await this.#call((worker) => worker.terminate(filter, close));
    return report ?? { tunnelsClosed: 0, pathsRemoved: 0 };
  }

  async settled(): Promise<void> {
    await this.#call((worker) => worker.settled());
  }

  async status(sites: readonly string[]): Promise<WorkerStatus> {
    const status = await this.#call((worker) => worker.status(sites));
    const none = { listener: {}, dataPlane: {}, device: {}, verdicts: {}, traffic: {} };
    return status ?? { pid: 0, ...none };
  }

  async paths(): Promise<readonly PathStatus[]> {
    return (await this.#call((worker) => worker.paths())) ?? [];
  }

  async pathPage(query: PathQuery): Promise<PathPage> {
    return (await this.#call((worker) => worker.pathPage(query))) ?? { paths: [] };
  }

  /** @throws {EnvironmentError} while the worker is down. */
  async presenceUses(): Promise<readonly PresenceUse[]> {
    if (!this.#isOpen) this.#throwDown();
    return (await this.#call((worker) => worker.presenceUses())) ?? this.#throwDown();
  }

  /** @throws {EnvironmentError} while the worker is down. */
  async explain(packet: Uint8Array, realm: string): Promise<Explanation> {
    if (!this.#isOpen) this.#throwDown();
    return (await this.#call((worker) => worker.explain(packet, realm))) ?? this.#throwDown();
  }

  /** @throws {EnvironmentError} while the worker is down. */
  tunnelStatus(site: string): Promise<TunnelStatus | undefined> {
    return this.#answer((worker) => worker.tunnelStatus(site));
  }

  /** @throws {EnvironmentError} while the worker is down. */
  measure(site: string, timeoutMs: number): Promise<readonly (number | null)[] | undefined> {
    return this.#answer((worker) => worker.measure(site, timeoutMs));
  }

  /** Resolves with false also while the worker is down. */
  async isAlive(site: string): Promise<boolean> {
    return (await this.#call((worker) => worker.isAlive(site))) ?? false;
  }

  async takeCapture(capture: number, filter: CaptureFilter): Promise<CaptureBatch> {
    return (await this.#call((worker) => worker.takeCapture(capture, filter))) ?? NO_PACKETS;
  }

  async endCapture(capture: number): Promise<CaptureBatch> {
    return (await this.#call((worker) => worker.endCapture(capture))) ?? NO_PACKETS;
  }

  /** Resolves when the process has ended, also if it is being started again. */
  async close(): Promise<void> {
    this.#closing.abort();
    if (this.#child !== undefined)
      await end(
        this.#child,
        this.#call((worker) => worker.close())
      );
    await this.#restarting;
  }

  /** Ends the process at once; calls under way are answered as those to a worker that is down. */
  kill(): boolean {
    const child = this.#child?.process;
    if (child === undefined || child.killed || child.exitCode !== null) return false;
    const { number: worker } = this.#opened!;
    const message = `process ${worker} (${child.pid}) does not answer, and is killed`;
    this.#options.host.log('error', { event: 'worker_killed', worker }, message);
    child.kill('SIGKILL');
    return true;
  }

  async #start(options: WorkerOptions): Promise<WorkerAddresses> {
    this.#startedMs = performance.now();
    const child = this.#fork(options);
    this.#child = child;
    const { remote } = child.rpc;
    try {
      await this.#checkVersion(remote);
      // From here on the worker receives notifications.
      this.#remote = remote;
      this.#revocations = new RevocationFeed();
      this.#options.initialize(this);
      const addresses = await remote.open(options);
      this.#tunnel = addresses.tunnel;
      this.#isOpen = true;
      child.process.once('exit', (code, signal) => {
        if (this.#closing.signal.aborted) return;
        this.#restarting = this.#startAgain(`${signal ?? code}`);
      });
      return addresses;
    } catch (error) {
      if (this.#remote === remote) this.#remote = undefined;
      await end(child, Promise.resolve());
      throw error;
    }
  }

  /** @throws {ConfigError} if the program is of another version of the library. */
  async #checkVersion(remote: Remote<Worker>): Promise<void> {
    let version: string;
    try {
      version = await remote.version();
    } catch (error) {
      // A program from before this check does not have the method `version`.
      if ((error as PresenceError).code !== new ApiMisuseError('').code) throw error;
      version = 'an older one';
    }
    if (version === VERSION) return;
    const message = `${this.#options.program} is of another version of the library: ${version}, not ${VERSION}`;
    throw new ConfigError('workerMain', message);
  }

  #fork({ number }: WorkerOptions): Child {
    const process = fork(this.#options.program, [], { serialization: 'advanced' });
    const rpc = new Rpc<Worker>(process, WORKER_NOTIFICATIONS);
    rpc.serve(this.#options.host);
    const ended = new Promise<void>((resolve) => {
      const onEnd = (how: string): void => {
        rpc.close(how);
        if (this.#remote === rpc.remote) {
          this.#remote = undefined;
          this.#isOpen = false;
        }
        this.#options.onEnd();
        resolve();
      };
      process.once('exit', (code, signal) => {
        onEnd(`process ${number} has ended (${signal ?? code})`);
      });
      process.on('error', ({ message }) => {
        // Other errors concern signals and messages to a process that runs, or is just ending.
        if (process.pid === undefined) onEnd(`process ${number} cannot be started: ${message}`);
      });
    });
    return { process, rpc, ended };
  }

  /**
   * Starts the process again: at once, but at most once in `RESTART_INTERVAL_MS`. The worker listens on its previous
   * port. If an attempt fails, another program may have taken that port: then the worker listens as `open` said, which
   * is a free port for port 0.
   */
  async #startAgain(how: string): Promise<void> {
    const { host, onRestart } = this.#options;
    const opened = this.#opened!;
    const { signal } = this.#closing;
    const name = `process ${opened.number}`;
    const worker = opened.number;
    const ended = `${name} has ended (${how}), starting it again`;
    host.log('warn', { event: 'worker_ended', worker }, ended);
    while (!signal.aborted) {
      const waitMs = this.#startedMs + RESTART_INTERVAL_MS - performance.now();
      await delay(Math.max(0, waitMs), undefined, { signal }).catch(() => {});
      if (signal.aborted) return;
      try {
        const addresses = await this.#start({ ...opened, tunnel: this.#tunnel! });
        host.log('info', { event: 'worker_back', worker }, `${name} is back`);
        onRestart(addresses);
        return;
      } catch (error) {
        this.#tunnel = opened.tunnel;
        if (signal.aborted) return;
        const fields = { event: 'worker_start_failed', worker, ...errorFields(error) } as const;
        host.log('error', fields, `${name}: ${(error as Error).message}`);
      }
    }
  }

  /** Calls the worker. Resolves with undefined if the worker is down, or ends before it answers. */
  async #call<R>(call: (worker: Remote<Worker>) => Promise<R>): Promise<R | undefined> {
    const remote = this.#remote;
    if (remote === undefined) return undefined;
    try {
      return await call(remote);
    } catch (error) {
      if (remote !== this.#remote) return undefined;
      throw error;
    }
  }

  /** Calls the worker, whose answer may be undefined. */
  async #answer<R>(call: (worker: Remote<Worker>) => Promise<R>): Promise<R> {
    const answer = await this.#call(async (worker) => ({ value: await call(worker) }));
    return (answer ?? this.#throwDown()).value;
  }

  #throwDown(): never {
    throw new EnvironmentError(`process ${this.#opened?.number} is being started again`);
  }
}

/**
 * Ends a process after `ready`; a process that does not end in time is killed.
 *
 * @param ready resolves when the process has done its last work, or has ended
 */
async function end({ process, ended }: Child, ready: Promise<unknown>): Promise<void> {
  const timer = setTimeout(() => process.kill('SIGKILL'), END_TIMEOUT_MS);
  try {
    await ready;
    if (process.connected) process.disconnect();
    await ended;
  } finally {
    clearTimeout(timer);
  }
}

const NO_PACKETS: CaptureBatch = { packets: [], lost: {} };
const RESTART_INTERVAL_MS = 1000;
const END_TIMEOUT_MS = 5000;
