/**
 * `EdgeGateway`: the gateway of one site, as an object of the host program.
 *
 * ```
 *   enrolling --> connecting <--> online        no certificate yet / a tunnel is wanted / packets can flow
 *       |   \        |   \         |
 *       |    \-> rejected <--------+            the cloud says no, or the set-up is wrong
 *       \------------+------------> closed      from everywhere, by close()
 * ```
 *
 * `rejected` is not final: a token that is given to `enrol`, or an attempt that succeeds, leaves it.
 * @module
 */
import { EventEmitter } from 'eventemitter3';
import { CloseStack } from '../close-stack.ts';
import type { Snapshot, SnapshotHost } from '../control/index.ts';
import {
  deviceAddress,
  isPacketDevice,
  LinuxTun,
  openDevice,
  type PacketDevice,
} from '../device/index.ts';
import { DnsServer } from '../dns/index.ts';
import { ApiMisuseError, EnrolmentError, EnvironmentError, PresenceError } from '../errors.ts';
import type { HostPort } from '../host-port.ts';
import { enrol } from '../pki/index.ts';
import { backoffDelayMs } from '../tunnel/backoff.ts';
import { type Failure, failureOf } from '../tunnel/index.ts';
import {
  type EdgeGatewayOptions,
  type ResolvedEdgeOptions,
  resolveEdgeOptions,
} from './edge-options.ts';
import { EdgeSession } from './edge-session.ts';
import { SiteCredentials, type SiteCredentialsOptions } from './site-credentials.ts';
import { serveNames } from './site-names.ts';
import { type GatewayState, openState } from './state.ts';

export type EdgeState = 'enrolling' | 'connecting' | 'online' | 'rejected' | 'closed';

/** A change of the state, or of the kind of failure that keeps it. */
export interface EdgeStateChange {
  readonly state: EdgeState;
  readonly previous: EdgeState;
  /** Why packets cannot flow; undefined if they can, and where nothing has failed yet. */
  readonly failure: Failure | undefined;
}

export interface EdgeEvents {
  state: [change: EdgeStateChange];
  /** What is exposed to the site, and under which names, has changed. */
  snapshot: [snapshot: Snapshot];
  /** Something other than the connection to the cloud has failed; the gateway goes on. */
  problem: [problem: { readonly error: Error }];
}

/** Where an edge gateway listens. */
export interface EdgeAddresses {
  /** Undefined without the option `dns`. */
  readonly dns: HostPort | undefined;
  /** Where a UDP device receives; undefined for other devices. */
  readonly device?: HostPort;
}

export interface EdgeStatus {
  /** Undefined before the first enrolment. */
  readonly site: string | undefined;
  readonly state: EdgeState;
  readonly failure: Failure | undefined;
  readonly addresses: EdgeAddresses;
  /** Of the snapshot in force; undefined before the first. */
  readonly revision: number | undefined;
  /** How many names the site has. */
  readonly names: number;
  /** Undefined while there is no tunnel. */
  readonly tunnel:
    | {
        readonly remoteAddress: string;
        /** How many connections carry packets. */
        readonly connections: number;
        readonly rttMs: number | undefined;
      }
    | undefined;
  readonly counters: Readonly<Record<string, number>>;
}

/**
 * Runs from `start` to `close`. It opens nothing that an option does not name: no DNS port without `dns`, no connection
 * but those to the cloud and to its proxy.
 */
export class EdgeGateway extends EventEmitter<EdgeEvents> implements AsyncDisposable {
  readonly #options: ResolvedEdgeOptions;
  readonly #closing: CloseStack = new CloseStack();
  readonly #aborting: AbortController = new AbortController();
  #kept!: GatewayState;
  #device!: PacketDevice;
  #names: DnsServer | undefined;
  #session: EdgeSession | undefined;
  #state: EdgeState = 'connecting';
  #failure: Failure | undefined;
  /** The token that `enrol` was given last. */
  #token: string | undefined;
  #wake: () => void = () => {};
  /** Who waits for the enrolment under way. */
  #enrolment: PromiseWithResolvers | undefined;
  #routing: Promise<void> = Promise.resolve();
  /** The pools that were brought to the device last. */
  #routed = '';

  private constructor(options: ResolvedEdgeOptions) {
    super();
    this.#options = options;
  }

  /**
   * Opens everything that is local: state, device, DNS. It does not wait for the cloud: an edge that was up before
   * answers names at once, and one that has no certificate yet enrols meanwhile (`ready` waits for it).
   *
   * @throws {ConfigError} if an option is not usable; the error names it.
   * @throws {EnvironmentError} if a device, a port or a file cannot be had.
   * @throws {CertificateError} if there is a certificate, and it is not a site's.
   * @throws {StoreError} if what is stored cannot be read.
   * @throws the reason of `options.signal`, if that is aborted. Whatever is thrown, nothing is left open.
   */
  static async start(options: EdgeGatewayOptions): Promise<EdgeGateway> {
    const gateway = new EdgeGateway(resolveEdgeOptions(options));
    try {
      await gateway.#open();
    } catch (error) {
      await gateway.close().catch(() => {});
      throw error;
    }
    return gateway;
  }

  get state(): EdgeState {
    return this.#state;
  }

  /** Why packets cannot flow, and what helps; undefined in `online` and `closed`, and where nothing has failed yet. */
  get failure(): Failure | undefined {
    return this.#failure;
  }

  /** The name of the site; undefined before the first enrolment. */
  get site(): string | undefined {
    return this.#session?.site;
  }

  get addresses(): EdgeAddresses {
    return { dns: this.#names?.address, ...deviceAddress(this.#device) };
  }

  /**
   * Redeems a token, for the first certificate or for another one. It is tried at once, in place of the option
   * `token`. Until it resolves the state may still be `rejected`, so await it before `ready`.
   *
   * @throws {EnrolmentError} if the token is refused.
   * @throws {EnvironmentError} if no enrolment endpoint answers; a first enrolment goes on to try.
   * @throws {ApiMisuseError} if the gateway is closed, or the token is no text.
   */
  async enrol(token: string): Promise<void> {
    this.#assertOpen();
    if (typeof token !== 'string')
      throw new ApiMisuseError(`a token is a text, not ${typeof token}`);
    if (this.#session !== undefined) return this.#session.enrol(token);
    this.#token = token;
    this.#enrolment ??= promiseWithResolvers();
    this.#wake();
    return this.#enrolment.promise;
  }

  /**
   * Returns the hosts that a name stands for at the site: a full domain name, or one within the site's zone. There are
   * none if the name is not known. It answers by the last snapshot, also while the cloud is away; a change at the cloud
   * is known here when the event `snapshot` tells it.
   */
  lookup(name: string): readonly SnapshotHost[] {
    const snapshot = this.#session?.snapshot;
    if (snapshot === undefined) return [];
    const wanted = String(name).toLowerCase().replace(/\.$/, '');
    return snapshot.hosts.filter(
      (host) => host.name === wanted || host.name === `${wanted}.${snapshot.zone}`
    );
  }

  status(): EdgeStatus {
    const session = this.#session;
    const connection = session?.connection;
    return {
      site: this.site,
      state: this.#state,
      failure: this.#failure,
      addresses: this.addresses,
      revision: session?.snapshot?.revision,
      names: session?.snapshot?.hosts.length ?? 0,
      tunnel: connection && {
        remoteAddress: connection.remoteAddress,
        connections: session!.connections,
        rttMs: session!.rttMs,
      },
      counters: session?.counters ?? {},
    };
  }

  /**
   * Resolves when packets can flow: the tunnel is up, and a snapshot is in force. It resolves at once in `online`, and
   * waits in `enrolling` and `connecting`, without an end unless `signal` gives it one.
   *
   * @throws the error of `failure` in `rejected`.
   * @throws the reason of `signal`, if that is aborted before.
   * @throws {ApiMisuseError} if the gateway is closed, or gets closed.
   */
  ready({ signal }: { readonly signal?: AbortSignal } = {}): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        if (signal?.aborted) reject(signal.reason);
        else if (this.#state === 'online') resolve();
        else if (this.#state === 'rejected') reject(this.#failure!.error);
        else if (this.#state === 'closed') reject(new ApiMisuseError('the gateway is closed'));
        else return;
        signal?.removeEventListener('abort', settle);
        this.off('state', settle);
      };
      signal?.addEventListener('abort', settle);
      this.on('state', settle);
      settle();
    });
  }

  /**
   * Ends everything: the cloud is told, the device and the ports are closed. A store that was given stays open. Safe to
   * call at any time, and twice.
   */
  close(): Promise<void> {
    if (!this.#closing.isClosed) {
      const closed = new ApiMisuseError('the gateway is closed');
      this.#aborting.abort(closed);
      this.#wake();
      this.#enrolment?.reject(closed);
      this.#set('closed', undefined);
      this.removeAllListeners();
    }
    return this.#closing.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #open(): Promise<void> {
    const { device, dns, logger, clock, signal } = this.#options;
    const given = isPacketDevice(device);
    if (given) {
      this.#device = device;
      this.#closing.add(() => device.close());
    }
    signal?.throwIfAborted();
    this.#kept = await openState(this.#options, this.#closing);
    signal?.throwIfAborted();
    // Before a token is spent: everything that what comes of it needs.
    const credentials = await SiteCredentials.read(this.#credentialsOptions());
    if (!given) {
      this.#device = await openDevice(device, (problem) => logger.warn({}, `device: ${problem}`));
      this.#closing.add(() => this.#device.close());
      signal?.throwIfAborted();
    }
    if (dns !== undefined) {
      const names = await DnsServer.listen({ ...dns, clock });
      this.#names = names;
      this.#closing.add(() => names.close());
      signal?.throwIfAborted();
    }
    if (credentials !== undefined && credentials.fault === undefined) {
      await this.#begin(credentials);
      signal?.throwIfAborted();
      return;
    }
    this.#set('enrolling', undefined);
    const enrolling = this.#enrol();
    this.#closing.add(() => enrolling);
  }

  /** Tries until there is a certificate. Never rejects. */
  async #enrol(): Promise<void> {
    const { signal } = this.#aborting;
    const { clock, logger } = this.#options;
    for (let attempt = 0; !signal.aborted; attempt++) {
      const waiting = this.#enrolment;
      try {
        const credentials = await SiteCredentials.open(this.#credentialsOptions());
        if (signal.aborted) return;
        await this.#begin(credentials);
        this.#enrolment?.resolve();
        this.#enrolment = undefined;
        return;
      } catch (error) {
        if (signal.aborted) return;
        const failure = failureOf(asPresenceError(error));
        logger.warn({ err: error }, `not enrolled: ${failure.error.message}`);
        const isPassing = failure.remedy === 'wait';
        this.#set(isPassing ? 'enrolling' : 'rejected', failure);
        if (waiting !== undefined) {
          waiting.reject(failure.error);
          if (this.#enrolment === waiting) this.#enrolment = undefined;
        }
        // A token that has come meanwhile is tried at once.
        if (this.#enrolment !== undefined) continue;
        await new Promise<void>((resolve) => {
          const cancel = isPassing ? clock.after(backoffDelayMs(attempt), resolve) : () => {};
          this.#wake = () => {
            cancel();
            resolve();
          };
        });
        this.#wake = () => {};
        if (this.#enrolment !== undefined) attempt = -1;
      }
    }
  }

  async #begin(credentials: SiteCredentials): Promise<void> {
    const { cloud, proxy, clock, logger } = this.#options;
    const session = await EdgeSession.open({
      credentials,
      store: this.#kept.store,
      device: this.#device,
      cloud,
      proxy,
      clock,
      logger,
      counters: () => prefixed('dns.', this.#names?.counters ?? {}),
      onSnapshot: (snapshot) => this.#onSnapshot(snapshot),
      onState: (state, failure) => this.#set(state, failure),
      onProblem: (error) => void this.emit('problem', { error }),
    });
    this.#session = session;
    this.#closing.add(() => session.close());
    if (this.#state === 'enrolling' || this.#state === 'rejected')
      this.#set('connecting', undefined);
  }

  #onSnapshot(snapshot: Snapshot): void {
    if (this.#names !== undefined) serveNames(this.#names, snapshot);
    this.#routing = this.#routing.then(() => this.#route(snapshot.pools));
    this.emit('snapshot', snapshot);
  }

  /** Brings the pools of the site to the device, unless the operator has said what is to be routed. */
  async #route(pools: readonly string[]): Promise<void> {
    const { device, logger } = this.#options;
    const isOurs = !isPacketDevice(device) && device.type === 'tun' && device.routes === undefined;
    if (!isOurs || !(this.#device instanceof LinuxTun) || this.#closing.isClosed) return;
    // Snapshots are many, and each call runs programs.
    if (pools.join() === this.#routed) return;
    try {
      const problems = await this.#device.setRoutes(pools);
      this.#routed = pools.join();
      for (const problem of problems) logger.warn({}, `device: ${problem}`);
    } catch (error) {
      logger.error({ err: error }, `device: ${(error as Error).message}`);
      this.emit('problem', { error: error as Error });
    }
  }

  #credentialsOptions(): SiteCredentialsOptions {
    const { proxy, clock } = this.#options;
    return {
      secrets: this.#kept.secrets,
      // The host may never answer, and a gateway can be closed all the same.
      token: () => unlessAborted(this.#currentToken(), this.#aborting.signal),
      enrol: (token) => enrol(token, { proxy, clock, signal: this.#aborting.signal }),
      clock,
    };
  }

  async #currentToken(): Promise<string> {
    const token = this.#token ?? (await this.#options.token?.());
    if (token !== undefined) return token;
    throw new EnrolmentError('missing', 'there is no enrolment token: give one to enrol()');
  }

  #set(state: EdgeState, failure: Failure | undefined): void {
    const previous = this.#state;
    const isNews = state !== previous || failure?.kind !== this.#failure?.kind;
    if (previous === 'closed') return;
    this.#state = state;
    this.#failure = failure;
    if (isNews) this.emit('state', { state, previous, failure });
  }

  #assertOpen(): void {
    if (this.#closing.isClosed) throw new ApiMisuseError('the gateway is closed');
  }
}

interface PromiseWithResolvers {
  readonly promise: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

function promiseWithResolvers(): PromiseWithResolvers {
  let resolve!: () => void;
  let reject!: (error: Error) => void;
  const promise = new Promise<void>((onResolve, onReject) => {
    resolve = onResolve;
    reject = onReject;
  });
  return { promise, resolve, reject };
}

/** What the promise resolves with, unless the signal is aborted before. */
function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason);
    signal.addEventListener('abort', abort);
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
    if (signal.aborted) abort();
  });
}

/** What a host's function throws, for example the one that is asked for a token, may be anything. */
function asPresenceError(error: unknown): PresenceError {
  if (error instanceof PresenceError) return error;
  const { message } = error instanceof Error ? error : new Error(String(error));
  return new EnvironmentError(message, { cause: error });
}

function prefixed(
  prefix: string,
  counters: Readonly<Record<string, number>>
): Record<string, number> {
  return Object.fromEntries(
    Object.entries(counters).map(([name, count]) => [`${prefix}${name}`, count])
  );
}
