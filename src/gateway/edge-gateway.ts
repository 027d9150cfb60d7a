/**
 * `EdgeGateway`: the gateway of one site, as an object of the host program.
 * @module
 */
import { EDGE_OPERATIONS, type EdgeTarget, edgeHandlers } from '../admin/index.ts';
import { CloseStack } from '../base/close-stack.ts';
import { Emitter } from '../base/emitter.ts';
import { checkText } from '../base/option-check.ts';
import {
  ControlClient,
  type Snapshot,
  type SnapshotExpiry,
  type SnapshotHost,
} from '../control/index.ts';
import { deviceAddress, isPacketDevice } from '../device/index.ts';
import {
  type EdgeExplainQuery,
  type EdgeExplanation,
  explainAtEdge,
  type PingOptions,
  type PingReport,
  ping,
} from '../diagnosis/index.ts';
import {
  errorFields,
  type LogEvent,
  type MetricFamily,
  type MetricsServer,
  type Readiness,
} from '../observe/index.ts';
import type { SocketStack } from '../sockets/index.ts';
import type { Failure } from '../tunnel/index.ts';
import { serveAdmin } from './common-admin.ts';
import { serveMetrics } from './common-metrics.ts';
import { closeGivenDevice } from './common-options.ts';
import { EdgeMetrics } from './edge-metrics.ts';
import {
  type EdgeGatewayOptions,
  type ResolvedEdgeOptions,
  resolveEdgeOptions,
} from './edge-options.ts';
import { type EdgeParts, openEdgeParts } from './edge-parts.ts';
import { EdgeSession } from './edge-session.ts';
import {
  countersOf,
  type EdgeAddresses,
  type EdgeState,
  type EdgeStatus,
  edgeReadiness,
  inForceStatus,
  tunnelStatus,
} from './edge-status.ts';
import { FirstEnrolment } from './first-enrolment.ts';
import { HostCheck } from './host-check.ts';
import { SiteCredentials, type SiteCredentialsOptions } from './site-credentials.ts';
import { hostsNamed } from './site-names.ts';
import { type GatewayState, openState } from './state.ts';
import { type GivenToken, TokenSource } from './token-source.ts';
import { closedError, type ReadyOptions, resultOrAbort, whenReady } from './when-ready.ts';

/** A change of the state, or of the kind of failure within a state. */
export interface EdgeStateChange {
  readonly state: EdgeState;
  readonly previous: EdgeState;
  /** Why packets cannot flow; undefined in `online` and `closed`, and before the first failure. */
  readonly failure: Failure | undefined;
}

export interface EdgeEvents {
  state: [change: EdgeStateChange];
  /** The names, addresses or pools of the site have changed. */
  snapshot: [snapshot: Snapshot];
  /** Something other than the connection to the cloud failed; the gateway continues. */
  problem: [problem: { readonly error: Error }];
}

/**
 * The gateway of one site: it keeps a tunnel to the cloud, moves packets between the tunnel and the site's device, and
 * answers the site's names. It runs from `start` to `close`, and opens only what an option names: no DNS port without
 * `dns`, and no connections except to the cloud, or to the proxy that leads there.
 *
 * ```
 *   start without a             start with a
 *  usable certificate         usable certificate
 *          |                          |
 *          v      certificate         v      tunnel up, snapshot in force
 *      enrolling -------------> connecting ------------------------------> online
 *        |   ^                    |   ^   <-------------------------------
 *      A |   | B                A |   | B            tunnel down
 *        v   |                    v   |
 *      +--------------------------------+
 *      |            rejected            |       any state -- close() --> closed
 *      +--------------------------------+
 *
 *   A  the cloud refuses the token or the certificate, or the set-up is wrong; `failure` says which
 *   B  enrol(token), or a later attempt that is not refused
 * ```
 *
 * The gateway keeps trying in every state but `closed`. A failure that time alone may resolve, such as a cloud that does
 * not answer, does not lead to `rejected`. An attempt that succeeds leads from `rejected` straight to `connecting` or
 * `online`.
 */
export class EdgeGateway extends Emitter<EdgeEvents> implements EdgeTarget, AsyncDisposable {
  readonly #options: ResolvedEdgeOptions;
  readonly #closing: CloseStack = new CloseStack();
  readonly #aborting: AbortController = new AbortController();
  readonly #tokens: TokenSource;
  readonly #hostCheck: HostCheck;
  readonly #metrics = new EdgeMetrics();
  #metricsServer: MetricsServer | undefined;
  /** Present once it is open. */
  #persistent: GatewayState | undefined;
  /** Present once it is open. */
  #parts: EdgeParts | undefined;
  #site: string | undefined;
  #session: EdgeSession | undefined;
  /** Keeps the snapshot of an earlier run while there is no session. */
  #kept: ControlClient | undefined;
  #state: EdgeState = 'connecting';
  #failure: Failure | undefined;
  /** Present while there is no usable certificate. */
  #enrolment: FirstEnrolment | undefined;

  private constructor(options: ResolvedEdgeOptions) {
    super();
    this.#options = options;
    this.#hostCheck = new HostCheck(options);
    const { token, proxy, clock } = options;
    this.#tokens = new TokenSource({ token, proxy, clock, signal: this.#aborting.signal });
  }

  /**
   * Opens everything that is local: state, device, DNS. It does not wait for the cloud; `ready` does. An edge that was
   * online in an earlier run answers names at once. If this rejects, nothing is left open, and a device that was passed
   * in is closed.
   *
   * @throws {ConfigError} if an option is not usable; the error names it.
   * @throws {EnvironmentError} if a device, a port or a file cannot be opened.
   * @throws {CertificateError} if the stored certificate does not belong to a site.
   * @throws {StoreError} if the store cannot be read.
   * @throws the reason of `options.signal`, if that is aborted.
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

  /** Why packets cannot flow, and the remedy; undefined in `online` and `closed`, and before the first failure. */
  get failure(): Failure | undefined {
    return this.#failure;
  }

  /** The name of the site; undefined before the first enrolment. */
  get site(): string | undefined {
    return this.#site;
  }

  /**
   * The sockets of this process at the site: connections to presences, and servers for them.
   *
   * @throws {ApiMisuseError} if the device is not of the type `sockets`.
   */
  get sockets(): SocketStack {
    return this.#parts!.sockets.stack;
  }

  get addresses(): EdgeAddresses {
    const metrics = this.#metricsServer?.address;
    const { names, device } = this.#parts!;
    return { dns: names?.address, ...deviceAddress(device), ...(metrics && { metrics }) };
  }

  /**
   * Redeems a token, for the first certificate or for another one. The token is tried at once, before the option
   * `token`; several tokens are tried in order. The state leaves `rejected` at once, so that `ready` waits for the
   * outcome.
   *
   * @throws {EnrolmentError} if the token is refused.
   * @throws {EnvironmentError} if no enrolment endpoint answers; a first enrolment keeps trying.
   * @throws {ApiMisuseError} if the token is not a string, or the gateway is closed, before the call or during it.
   */
  async enrol(token: string): Promise<void> {
    if (this.#isClosed) throw closedError();
    checkText('token', token);
    const { state, failure } = this;
    if (state === 'rejected') this.#set(this.#session ? 'connecting' : 'enrolling', failure);
    const enrolling = new Promise<void>((resolve, reject) => {
      const given = { token, resolve, reject };
      if (this.#session === undefined) this.#enrolment!.give(given);
      else this.#redeemInSession(given);
    });
    try {
      await resultOrAbort(enrolling, this.#aborting.signal);
    } catch (error) {
      // The failure from before the call still holds, unless another one has replaced it.
      const isUnchanged = this.#failure === failure && this.#state !== 'online';
      if (state === 'rejected' && isUnchanged) this.#set('rejected', failure);
      throw error;
    }
  }

  /**
   * Returns the hosts that a name resolves to at the site; none if the name is not known. It answers from the last
   * snapshot, also while the cloud cannot be reached, until the snapshot expires (`snapshotValidMs`); the event
   * `snapshot` announces a change.
   *
   * @param name a full domain name, or a name within the site's zone
   */
  lookup(name: string): readonly SnapshotHost[] {
    return hostsNamed(this.#parts?.inForce.snapshot, checkText('name', name));
  }

  /**
   * Explains whether a packet of a host of the site gets to the cloud: the name or address, the filter, and the tunnel.
   * `CloudGateway.explain` knows the rest.
   *
   * @throws {ConfigError} if a part of the query is wrong.
   */
  explain(query: EdgeExplainQuery): EdgeExplanation {
    const session = this.#session;
    const isUp = session?.connection !== undefined;
    return explainAtEdge(
      {
        site: this.site,
        snapshot: this.#parts?.inForce.snapshot,
        expired: this.#parts?.inForce.expired?.message,
        tunnel: isUp ? session : undefined,
        failure: this.#failure?.error.message,
      },
      query
    );
  }

  /**
   * Measures the round-trip time of the tunnel to the cloud now, on each of its connections.
   *
   * @throws {ConfigError} if an option is wrong.
   * @throws {EnvironmentError} if there is no tunnel.
   */
  async ping(options: PingOptions = {}): Promise<PingReport> {
    const measure = (timeoutMs: number) => this.#session?.measure(timeoutMs) ?? NO_TUNNEL;
    return ping(this.site ?? 'this gateway', measure, options, this.#options.clock);
  }

  status(): EdgeStatus {
    const session = this.#session;
    return {
      site: this.site,
      state: this.#state,
      failure: this.#failure,
      addresses: this.addresses,
      ...inForceStatus(this.#parts?.inForce, session ?? this.#kept),
      tunnel: tunnelStatus(session),
      counters: session?.counters ?? {},
      warnings: this.#hostCheck.conflicts,
    };
  }

  /** Returns what is measured now. `encodeMetrics` writes it as text; the option `metrics` serves that. */
  async metrics(): Promise<readonly MetricFamily[]> {
    if (this.#isClosed) throw closedError();
    return this.#measure();
  }

  /**
   * Whether the gateway can do its work now, and if not, why. It may be called in every state. An edge that answers from
   * the snapshot of an earlier run is ready, also while its tunnel is down, unless its state is `rejected`.
   */
  readiness(): Readiness {
    const { state, failure } = this;
    const { expired, revision } = inForceStatus(this.#parts?.inForce, undefined);
    return edgeReadiness(this.#persistent?.store, { state, failure, expired, revision });
  }

  /**
   * Resolves when packets can flow: the tunnel is up, and a snapshot is in force. In `enrolling` and `connecting` it
   * waits, without limit unless `signal` ends it.
   *
   * @throws the error of `failure` in `rejected`.
   * @throws the reason of `signal`, if that is aborted first.
   * @throws {ApiMisuseError} if the gateway is closed, before the call or during it.
   */
  ready(options: ReadyOptions = {}): Promise<void> {
    return whenReady(this, options, () => {
      if (this.#state === 'closed') return closedError();
      if (this.#state === 'rejected') return this.#failure!.error;
      return this.#state === 'online' ? 'ready' : 'not yet';
    });
  }

  /**
   * Closes everything: the tunnel (the cloud receives the reason), the device and the ports. A store that was passed in
   * stays open. Safe to call at any time, and twice.
   */
  close(): Promise<void> {
    if (!this.#isClosed) {
      // This comes first, so that nothing below is reported as a failure.
      this.#set('closed', undefined);
      this.#aborting.abort(closedError());
      this.removeAllListeners();
      this.#closing.add(() => this.#parts?.sockets.finish());
    }
    return this.#closing.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #open(): Promise<void> {
    const { device, clock, signal } = this.#options;
    if (isPacketDevice(device)) this.#closing.add(() => device.close());
    signal?.throwIfAborted();
    this.#closing.add(() => this.#metrics.close());
    this.#metricsServer = await serveMetrics(this.#options.metrics, this.#closing, {
      metrics: async () => this.#measure(),
      readiness: () => this.readiness(),
      clock,
    });
    const persistent = await openState(this.#options, this.#closing);
    this.#persistent = persistent;
    signal?.throwIfAborted();
    const options: SiteCredentialsOptions = {
      secrets: persistent.secrets,
      token: () => this.#tokens.current(),
      enrol: (token) => this.#tokens.redeem(token),
      clock,
    };
    const credentials = await SiteCredentials.read(options);
    // Device and DNS open before a token is redeemed: a start that fails must not use up the token.
    this.#parts = await openEdgeParts(this.#options, this.#closing, this.#hostCheck, (error) => {
      this.emit('problem', { error });
    });
    const isUsable = credentials !== undefined && credentials.fault === undefined;
    if (isUsable) await this.#begin(credentials);
    else if (credentials !== undefined) await this.#serveLastSnapshot(credentials.identity.site);
    signal?.throwIfAborted();
    // Its handlers need the session, or the enrolment that begins in this turn.
    await serveAdmin(this.#options, this.#closing, EDGE_OPERATIONS, edgeHandlers(this));
    signal?.throwIfAborted();
    if (isUsable) return;
    this.#set('enrolling', undefined);
    const enrolling = this.#enrol(options, credentials);
    this.#closing.add(() => enrolling);
  }

  /** Enrols, and begins the session. Never rejects. */
  async #enrol(
    options: SiteCredentialsOptions,
    credentials: SiteCredentials | undefined
  ): Promise<void> {
    const { clock, logger } = this.#options;
    this.#enrolment = new FirstEnrolment({
      credentials: options,
      tokens: this.#tokens,
      begin: (enrolled) => this.#begin(enrolled),
      onFailure: (failure) => {
        this.#set(failure.remedy === 'wait' ? 'enrolling' : 'rejected', failure);
      },
      clock,
      logger,
      signal: this.#aborting.signal,
    });
    await this.#enrolment.run(credentials);
    if (this.#session === undefined) return;
    while (this.#tokens.hasOffer) this.#redeemInSession(this.#tokens.take()!);
    this.#tokens.drop();
  }

  #redeemInSession({ token, resolve, reject }: GivenToken): void {
    this.#tokens.interrupt();
    this.#session!.enrol(token).then(resolve, reject);
  }

  /** Answers names from the snapshot of an earlier run, while there is no usable certificate. */
  async #serveLastSnapshot(site: string): Promise<void> {
    const { clock, snapshotValidMs } = this.#options;
    const { store } = this.#persistent!;
    this.#site = site;
    const kept = await ControlClient.open({ site, store, clock, snapshotValidMs });
    this.#kept = kept;
    this.#closing.add(() => kept.close());
    if (kept.snapshot !== undefined) this.#onSnapshot(kept.snapshot);
    if (kept.expiry !== undefined) this.#onExpired(kept.expiry);
    kept.on('expired', (expiry) => this.#onExpired(expiry));
    kept.on('problem', (problem) => void this.emit('problem', problem));
  }

  async #begin(credentials: SiteCredentials): Promise<void> {
    const { cloud, proxy, clock, logger, snapshotValidMs } = this.#options;
    const { device, names, sockets } = this.#parts!;
    this.#site = credentials.identity.site;
    await this.#kept?.close();
    const session = await EdgeSession.open({
      credentials,
      store: this.#persistent!.store,
      device,
      cloud,
      proxy,
      snapshotValidMs,
      clock,
      logger,
      counters: () => countersOf(names, sockets),
      onSnapshot: (snapshot) => this.#onSnapshot(snapshot),
      onExpired: (expiry) => this.#onExpired(expiry),
      onState: (state, failure) => this.#set(state, failure),
      onProblem: (error) => void this.emit('problem', { error }),
    });
    this.#closing.add(() => session.close());
    this.#session = session;
    if (this.#state === 'enrolling' || this.#state === 'rejected')
      this.#set('connecting', undefined);
  }

  #onSnapshot(snapshot: Snapshot): void {
    const error = this.#parts!.inForce.follow(snapshot);
    if (error !== undefined) this.#report('edge_sockets_failed', error);
    this.emit('snapshot', snapshot);
  }

  #onExpired(expiry: SnapshotExpiry): void {
    if (this.#parts!.inForce.expire(expiry)) this.#report('snapshot_expired', expiry.error);
  }

  #report(event: LogEvent, error: Error): void {
    this.#options.logger.error({ event, site: this.#site, ...errorFields(error) }, error.message);
    this.emit('problem', { error });
  }

  #measure(): readonly MetricFamily[] {
    return this.#metrics.families({
      readiness: this.readiness(),
      store: this.#persistent?.store,
      dns: this.#parts?.names,
      session: this.#session,
      site: this.#site,
      ...inForceStatus(this.#parts?.inForce, this.#session ?? this.#kept),
      enrolments: this.#tokens.redemptions,
    });
  }

  get #isClosed(): boolean {
    return this.#state === 'closed';
  }

  #set(state: EdgeState, failure: Failure | undefined): void {
    const previous = this.#state;
    const hasChanged = state !== previous || failure?.kind !== this.#failure?.kind;
    if (previous === 'closed') return;
    this.#state = state;
    this.#failure = failure;
    this.#parts?.sockets.follow(state === 'rejected', failure);
    if (hasChanged) this.emit('state', { state, previous, failure });
  }
}

const NO_TUNNEL: Promise<undefined> = Promise.resolve(undefined);
