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
import { CloseStack } from '../base/close-stack.ts';
import { Emitter } from '../base/emitter.ts';
import type { HostPort } from '../base/host-port.ts';
import { checkText } from '../base/option-check.ts';
import type { IpPrefix } from '../base/prefix.ts';
import { ControlClient, type Snapshot, type SnapshotHost } from '../control/index.ts';
import {
  deviceAddress,
  isPacketDevice,
  LinuxTun,
  openDevice,
  type PacketDevice,
} from '../device/index.ts';
import { DnsServer } from '../dns/index.ts';
import type { Failure } from '../tunnel/index.ts';
import { closeGivenDevice } from './common-options.ts';
import {
  type EdgeGatewayOptions,
  type ResolvedEdgeOptions,
  resolveEdgeOptions,
} from './edge-options.ts';
import { EdgeSession } from './edge-session.ts';
import { FirstEnrolment } from './first-enrolment.ts';
import { SiteCredentials, type SiteCredentialsOptions } from './site-credentials.ts';
import { hostsNamed, serveNames } from './site-names.ts';
import { type GatewayState, openState } from './state.ts';
import { type GivenToken, TokenSource } from './token-source.ts';
import { closedError, type ReadyOptions, whenReady } from './when-ready.ts';

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
export class EdgeGateway extends Emitter<EdgeEvents> implements AsyncDisposable {
  readonly #options: ResolvedEdgeOptions;
  readonly #closing: CloseStack = new CloseStack();
  readonly #aborting: AbortController = new AbortController();
  #kept!: GatewayState;
  #device!: PacketDevice;
  #names: DnsServer | undefined;
  #site: string | undefined;
  #session: EdgeSession | undefined;
  /** The one in force. */
  #snapshot: Snapshot | undefined;
  #state: EdgeState = 'connecting';
  #failure: Failure | undefined;
  #tokens!: TokenSource;
  /** Under way until there is a session. */
  #enrolment: FirstEnrolment | undefined;
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
   * @throws the reason of `options.signal`, if that is aborted. Whatever is thrown, nothing is left open: a device that
   *   was given is closed.
   */
  static async start(options: EdgeGatewayOptions): Promise<EdgeGateway> {
    const gateway = new EdgeGateway(await closeGivenDevice(options, resolveEdgeOptions));
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
    return this.#site;
  }

  get addresses(): EdgeAddresses {
    return { dns: this.#names?.address, ...deviceAddress(this.#device) };
  }

  /**
   * Redeems a token, for the first certificate or for another one. It is tried at once, in place of the option
   * `token`; several are tried one after the other. It leaves `rejected` at once, so that `ready` waits for what comes
   * of it.
   *
   * @throws {EnrolmentError} if the token is refused.
   * @throws {EnvironmentError} if no enrolment endpoint answers; a first enrolment goes on to try.
   * @throws {ApiMisuseError} if the token is no text, or the gateway is closed, also meanwhile.
   */
  async enrol(token: string): Promise<void> {
    if (this.#isClosed) throw closedError();
    checkText('token', token);
    const { state, failure } = this;
    if (state === 'rejected') this.#set(this.#session ? 'connecting' : 'enrolling', failure);
    const enrolling = new Promise<void>((resolve, reject) => {
      const given = { token, resolve, reject };
      if (this.#session === undefined) this.#enrolment!.give(given);
      else this.#passOn(given);
    });
    try {
      await unlessAborted(enrolling, this.#aborting.signal);
    } catch (error) {
      // What was the matter before still is, if nothing else has become of it meanwhile.
      const isAsBefore = this.#failure === failure && this.#state !== 'online';
      if (state === 'rejected' && isAsBefore) this.#set('rejected', failure);
      throw error;
    }
  }

  /**
   * Returns the hosts that a name stands for at the site: a full domain name, or one within the site's zone. There are
   * none if the name is not known. It answers by the last snapshot, also while the cloud is away; a change at the cloud
   * is known here when the event `snapshot` tells it.
   */
  lookup(name: string): readonly SnapshotHost[] {
    return hostsNamed(this.#snapshot, checkText('name', name));
  }

  status(): EdgeStatus {
    const session = this.#session;
    const connection = session?.connection;
    return {
      site: this.site,
      state: this.#state,
      failure: this.#failure,
      addresses: this.addresses,
      revision: this.#snapshot?.revision,
      names: this.#snapshot?.hosts.length ?? 0,
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
  ready(options: ReadyOptions = {}): Promise<void> {
    return whenReady(this, options, () => {
      if (this.#state === 'closed') return closedError();
      if (this.#state === 'rejected') return this.#failure!.error;
      return this.#state === 'online' ? 'ready' : 'not yet';
    });
  }

  /**
   * Ends everything: the cloud is told, the device and the ports are closed. A store that was given stays open. Safe to
   * call at any time, and twice.
   */
  close(): Promise<void> {
    if (!this.#isClosed) {
      // First, so that nothing of what ends below is told as a failure.
      this.#set('closed', undefined);
      this.#aborting.abort(closedError());
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
    const options = this.#credentialsOptions();
    const credentials = await SiteCredentials.read(options);
    if (!given) {
      this.#device = await openDevice(device, (problem) => logger.warn({}, `device: ${problem}`));
      this.#closing.add(() => this.#device.close());
      signal?.throwIfAborted();
    }
    // Before the device is closed.
    this.#closing.add(() => this.#routing);
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
    if (credentials !== undefined) await this.#serveKept(credentials.identity.site);
    signal?.throwIfAborted();
    this.#set('enrolling', undefined);
    const enrolling = this.#enrol(options, credentials);
    this.#closing.add(() => enrolling);
  }

  /** Never rejects. */
  async #enrol(
    options: SiteCredentialsOptions,
    credentials: SiteCredentials | undefined
  ): Promise<void> {
    const { clock, logger } = this.#options;
    this.#enrolment = new FirstEnrolment({
      credentials: options,
      tokens: this.#tokens,
      begin: (brought) => this.#begin(brought),
      onFailure: (failure) => {
        this.#set(failure.remedy === 'wait' ? 'enrolling' : 'rejected', failure);
      },
      clock,
      logger,
      signal: this.#aborting.signal,
    });
    await this.#enrolment.run(credentials);
    if (this.#session === undefined) return;
    while (this.#tokens.hasOffer) this.#passOn(this.#tokens.take()!);
    this.#tokens.drop();
  }

  #passOn({ token, resolve, reject }: GivenToken): void {
    this.#tokens.interrupt();
    this.#session!.enrol(token).then(resolve, reject);
  }

  /** Answers by the snapshot of an earlier run, also while there is no certificate that serves. */
  async #serveKept(site: string): Promise<void> {
    const { clock } = this.#options;
    this.#site = site;
    const control = await ControlClient.open({ site, store: this.#kept.store, clock });
    if (control.snapshot !== undefined) this.#onSnapshot(control.snapshot);
    await control.close();
  }

  async #begin(credentials: SiteCredentials): Promise<void> {
    const { cloud, proxy, clock, logger } = this.#options;
    this.#site = credentials.identity.site;
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
    this.#closing.add(() => session.close());
    this.#session = session;
    if (this.#state === 'enrolling' || this.#state === 'rejected')
      this.#set('connecting', undefined);
  }

  #onSnapshot(snapshot: Snapshot): void {
    this.#snapshot = snapshot;
    if (this.#names !== undefined) serveNames(this.#names, snapshot);
    this.#routing = this.#routing.then(() => this.#route(snapshot.pools));
    this.emit('snapshot', snapshot);
  }

  /** Brings the pools of the site to the device, unless the operator has said what is to be routed. */
  async #route(pools: readonly IpPrefix[]): Promise<void> {
    const { device, logger } = this.#options;
    const isOurs = !isPacketDevice(device) && device.type === 'tun' && device.routes === undefined;
    if (!isOurs || !(this.#device instanceof LinuxTun) || this.#isClosed) return;
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
    const { token, proxy, clock } = this.#options;
    const { signal } = this.#aborting;
    const tokens = new TokenSource({ token, proxy, clock, signal });
    this.#tokens = tokens;
    return {
      secrets: this.#kept.secrets,
      token: () => tokens.ask(),
      enrol: (text) => tokens.redeem(text),
      clock,
    };
  }

  get #isClosed(): boolean {
    return this.#state === 'closed';
  }

  #set(state: EdgeState, failure: Failure | undefined): void {
    const previous = this.#state;
    const isNews = state !== previous || failure?.kind !== this.#failure?.kind;
    if (previous === 'closed') return;
    this.#state = state;
    this.#failure = failure;
    if (isNews) this.emit('state', { state, previous, failure });
  }
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

function prefixed(
  prefix: string,
  counters: Readonly<Record<string, number>>
): Record<string, number> {
  return Object.fromEntries(
    Object.entries(counters).map(([name, count]) => [`${prefix}${name}`, count])
  );
}
