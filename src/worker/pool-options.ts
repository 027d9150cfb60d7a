/**
 * The options of a worker pool, their defaults and their checks.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { type Clock, systemClock } from '../base/clock.ts';
import type { HostPort, HostPortInput } from '../base/host-port.ts';
import { ListenSchema } from '../base/host-port-schema.ts';
import type { IpPrefix } from '../base/prefix.ts';
import { PrefixText, parseSchema } from '../base/schema.ts';
import type { CloudDataPlaneOptions } from '../dataplane/index.ts';
import type { PacketDevice, TunDeviceOptions } from '../device/index.ts';
import { ConfigError } from '../errors.ts';
import { type Logger, silentLogger } from '../observe/index.ts';
import type { AuthorizeAnswer, Credentials, ListenOptions } from '../tunnel/index.ts';
import type { AccessRules } from './access.ts';
import type { ConnectionLimits, WorkerPeer } from './worker.ts';

/** The edge of a site that is about to connect. */
export interface CandidateEdge extends Omit<WorkerPeer, 'certificate'> {
  /** Verified, and not revoked. */
  readonly certificate: X509Certificate;
}

export interface WorkerPoolOptions {
  /**
   * How many workers carry packets: a whole number from 1 to 64, or `auto` for one less than the number of cores. One
   * worker runs in this process; several run in a process each, and this process carries no packets. Default 1.
   */
  readonly workers?: number | 'auto';
  /**
   * A TUN that is opened and set up, or a function that opens another device. Several workers need a TUN each, whose
   * names count up from the one given: `vp0`, `vp1`.
   */
  readonly device: TunDeviceOptions | (() => Promise<PacketDevice>);
  /**
   * Where edges connect, a `HostPort` or a text such as `198.51.100.1:7443`. Worker n listens on this port plus n; with
   * port 0 each worker takes a free port.
   */
  readonly tunnel: HostPortInput;
  /** Handlers of other protocols on the tunnel port, by ALPN; only with one worker. Default: none. */
  readonly otherProtocols?: ListenOptions['otherProtocols'];
  /** The limits of connections to each worker's port; default: the limits of `MtlsTunnel.listen`. */
  readonly limits?: ConnectionLimits;
  /** Returns the key, certificate and trust bundle of all workers. Call `setCredentials` after a change. */
  readonly credentials: () => Credentials;
  /** Returns the sites that may connect now. Call `refreshAccess` after a change. */
  readonly access: () => AccessRules;
  /** Gives a client a presence, for example `PresenceController.admit`. */
  readonly admit: CloudDataPlaneOptions['admit'];
  /**
   * Decides about an edge that is about to connect, after every other check has passed. It is called for each
   * connection of a tunnel, and returns undefined to admit the edge, a refusal, an epoch with further endpoints, or where
   * the edge is to dial instead, as `ListenOptions.authorize` does; also as a promise, within the 10,000 ms that a
   * handshake may take. If it throws, rejects or returns anything else, the edge is refused with
   * `not-authorized`, and the error is logged. Default: every edge is admitted.
   */
  readonly authorize?: (peer: CandidateEdge) => AuthorizeAnswer;
  /**
   * Which sites the pool holds: `all` of them, or those that `take` has given to it, where other machines hold the others.
   * Default `all`.
   */
  readonly sites?: 'all' | 'taken' | undefined;
  /** Receives log lines about the workers, devices and routes; default `silentLogger`. */
  readonly logger?: Logger;
  /**
   * The clock of this pool and of a worker in this process; default `systemClock`. Workers in other processes use the
   * system's clock.
   */
  readonly clock?: Clock;
  /**
   * The program that a worker's process runs, a path or a `file:` URL. By default it is found beside this library. That
   * fails where a bundler has included the library in the host program: then build a second bundle of the entry
   * `virtual-presence/worker-main`, and pass its path.
   */
  readonly workerMain?: string | URL;
}

export interface ResolvedPoolOptions extends WorkerPoolOptions {
  readonly workers: number;
  readonly tunnel: HostPort;
  readonly limits: ConnectionLimits;
  readonly logger: Logger;
  readonly clock: Clock;
}

/** The values of options that are left out. */
export const WORKER_POOL_DEFAULTS: Readonly<{
  workers: number;
  limits: ConnectionLimits;
  logger: Logger;
  clock: Clock;
}> = Object.freeze({
  workers: 1,
  limits: Object.freeze({}),
  logger: silentLogger,
  clock: systemClock,
});

/** Checks the options and fills in the defaults. @throws {ConfigError} naming the option that is not usable. */
export function resolvePoolOptions(options: WorkerPoolOptions): ResolvedPoolOptions {
  if (typeof options !== 'object' || options === null) {
    throw new ConfigError('', `expected the options of a worker pool, got ${options}`);
  }
  const { limits = WORKER_POOL_DEFAULTS.limits, logger = WORKER_POOL_DEFAULTS.logger } = options;
  const { device, clock = WORKER_POOL_DEFAULTS.clock } = options;
  const workers = workerCount(options.workers ?? WORKER_POOL_DEFAULTS.workers);
  checkDevice(device);
  const tunnel = tunnelOf(options.tunnel);
  for (const name of ['credentials', 'access', 'admit'] as const) {
    checkFunction(name, options[name]);
  }
  if (options.authorize !== undefined) checkFunction('authorize', options.authorize);
  checkMethods('logger', logger, ['debug', 'info', 'warn', 'error']);
  checkMethods('clock', clock, ['wallMs', 'monotonicMs', 'after']);
  checkLimits(limits);
  if (workers > 1) {
    if (typeof device === 'function') {
      throw new ConfigError('workers', `${workers} need a device of type tun, one for each`);
    }
    if (options.otherProtocols !== undefined) {
      const message = `with ${workers} workers the tunnel port serves tunnels only: use another port for other protocols`;
      throw new ConfigError('otherProtocols', message);
    }
    const last = tunnel.port + workers - 1;
    if (tunnel.port !== 0 && last > MAX_PORT) {
      throw new ConfigError('tunnel', `${workers} workers need as many ports, up to ${last}`);
    }
  }
  return { ...options, workers, tunnel, limits, logger, clock };
}

/**
 * Checks the prefixes of a TUN and returns them.
 *
 * @throws {ConfigError} if this is not a list of prefixes.
 */
export function checkRoutes(path: string, prefixes: unknown): readonly IpPrefix[] {
  if (!Array.isArray(prefixes)) {
    throw new ConfigError(path, `expected a list of prefixes, got ${JSON.stringify(prefixes)}`);
  }
  return prefixes.map((prefix, i) => parseSchema(PrefixText, prefix, `${path}[${i}]`));
}

/**
 * Returns the number of workers. `auto` leaves one core to the host process and to the kernel.
 *
 * @throws {ConfigError} if it is neither a whole number from 1 to 64 nor `auto`.
 */
export function workerCount(workers: number | 'auto'): number {
  if (workers === 'auto') return Math.min(MAX_WORKERS, Math.max(1, availableParallelism() - 1));
  if (Number.isInteger(workers) && workers >= 1 && workers <= MAX_WORKERS) return workers;
  const expected = `expected a whole number from 1 to ${MAX_WORKERS}, or auto`;
  throw new ConfigError('workers', `${expected}, got ${JSON.stringify(workers)}`);
}

function checkDevice(device: unknown): void {
  if (typeof device === 'function') return;
  const { name, routes } = (device ?? {}) as Readonly<Record<string, unknown>>;
  if (typeof name !== 'string') {
    const message = 'expected a TUN with a name, or a function that opens a device';
    throw new ConfigError('device', `${message}, got ${JSON.stringify(device)}`);
  }
  if (routes !== undefined) checkRoutes('device.routes', routes);
}

function tunnelOf(tunnel: HostPortInput): HostPort {
  const { port } = (tunnel ?? {}) as { readonly port?: unknown };
  if (typeof port === 'number' && !(Number.isInteger(port) && port >= 0 && port <= MAX_PORT)) {
    throw new ConfigError('tunnel', `expected a port from 0 to ${MAX_PORT}, got ${port}`);
  }
  return parseSchema(ListenSchema, tunnel, 'tunnel');
}

function checkFunction(path: string, value: unknown): void {
  if (typeof value === 'function') return;
  throw new ConfigError(path, `expected a function, got ${JSON.stringify(value)}`);
}

function checkMethods(path: string, value: object, names: readonly string[]): void {
  for (const name of names) {
    const method = (value as Readonly<Record<string, unknown>> | null)?.[name];
    if (typeof method !== 'function') throw new ConfigError(path, `has no method ${name}`);
  }
}

function checkLimits(limits: ConnectionLimits): void {
  if (typeof limits !== 'object' || limits === null) {
    throw new ConfigError('limits', `expected limits by name, got ${limits}`);
  }
  for (const name of LIMITS) {
    const value: unknown = limits[name];
    if (value === undefined) continue;
    const isWhole = !name.endsWith('Rate');
    if (typeof value === 'number' && value > 0 && Number.isFinite(value)) {
      if (!isWhole || Number.isInteger(value)) continue;
    }
    const expected = isWhole ? 'a positive whole number' : 'a number above 0';
    throw new ConfigError(`limits.${name}`, `expected ${expected}, got ${JSON.stringify(value)}`);
  }
}

const LIMITS: readonly (keyof ConnectionLimits)[] = [
  'maxHandshakes',
  'maxConnectionRate',
  'maxTunnelRate',
  'maxTunnelBurst',
];
const MAX_WORKERS = 64;
const MAX_PORT = 65_535;
