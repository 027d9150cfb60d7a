/**
 * The part of an edge gateway that runs once there is a certificate: it keeps a tunnel to the cloud, moves packets,
 * applies snapshots, and renews the certificate. It decides what a failure of the tunnel means:
 *
 * 1. The tunnel dials again by itself, whatever the failure is.
 * 2. A failure that time alone may resolve is reported as `connecting`, like a failure at one of several
 *    endpoints, because another endpoint may work.
 * 3. If a new certificate would help, the current token is tried.
 * 4. Every other failure is reported as `rejected`.
 * @module
 */
import { X509Certificate } from 'node:crypto';
import type { Clock } from '../base/clock.ts';
import { CloseStack } from '../base/close-stack.ts';
import type { RankedHostPort } from '../base/host-port.ts';
import type { ProxyOption } from '../base/proxy.ts';
import { ControlClient, type Snapshot, type SnapshotExpiry } from '../control/index.ts';
import { EdgeDataPlane } from '../dataplane/index.ts';
import { loadTcpControl, type PacketDevice } from '../device/index.ts';
import { ConfigError, type PresenceError } from '../errors.ts';
import { errorFields, type Logger } from '../observe/index.ts';
import type { Store } from '../store/index.ts';
import {
  type CloseCause,
  type ConnectionInfo,
  type Failure,
  failureOf,
  MtlsTunnel,
} from '../tunnel/index.ts';
import { CredentialKeeper } from './credential-keeper.ts';
import { EdgeBars } from './edge-bars.ts';
import type { SiteCredentials } from './site-credentials.ts';

export interface EdgeSessionOptions {
  readonly credentials: SiteCredentials;
  readonly store: Store;
  readonly device: PacketDevice;
  /** The endpoints that the operator has set; by default those that the cloud sent at the enrolment. */
  readonly cloud: readonly RankedHostPort[] | undefined;
  readonly proxy: ProxyOption | undefined;
  /** How long a snapshot holds without contact with the cloud, in ms. */
  readonly snapshotValidMs: number;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Counters of the gateway that are sent to the cloud with those of the session. */
  readonly counters: () => Readonly<Record<string, number>>;
  /** A snapshot is in force; `open` calls this with the snapshot of an earlier run. */
  readonly onSnapshot: (snapshot: Snapshot) => void;
  /** The snapshot has expired; `open` calls this if that was in an earlier run. */
  readonly onExpired: (expiry: SnapshotExpiry) => void;
  /** Whether packets can flow, and if not, why. */
  readonly onState: (state: 'connecting' | 'online' | 'rejected', failure?: Failure) => void;
  readonly onProblem: (error: Error) => void;
}

/** What is measured of a session. */
export interface SessionMeasures {
  readonly tunnel: MtlsTunnel['counters'];
  readonly filter: EdgeDataPlane['filter'];
  /** Counters of the data plane, see `EdgeDataPlaneCounters`, and `dropBarred`, see `EdgeBars`. */
  readonly drops: Readonly<Record<string, number>>;
  /** Attempts to connect by result. */
  readonly handshakes: Readonly<Record<'accepted' | 'refused' | 'failed', number>>;
  readonly renewals: CredentialKeeper['renewals'];
  readonly certificateNotAfter: Date;
}

/** A tunnel, a data plane, a control client and a credential keeper, wired together. */
export class EdgeSession {
  readonly site: string;
  readonly #options: EdgeSessionOptions;
  readonly #tunnel: MtlsTunnel;
  readonly #dataPlane: EdgeDataPlane;
  readonly #control: ControlClient;
  readonly #keeper: CredentialKeeper;
  readonly #bars: EdgeBars;
  readonly #endpoints: number;
  readonly #closing: CloseStack;
  /** The snapshot from which names were answered last, also if it has expired. */
  #answered: Snapshot | undefined;
  /** For how long there was no contact with the cloud before the tunnel came up; 0 since a snapshot has come. */
  #awayMs = 0;
  /** Consecutive failures that another endpoint may not have, modulo the number of endpoints. */
  #endpointFailures = 0;
  readonly #handshakes = { accepted: 0, refused: 0, failed: 0 };
  /** Whether the tunnel was lost since it was last waiting: that is no failed attempt. */
  #isLost = false;
  /** Why the tunnel was lost or did not come up, the last time. */
  #lastCause: CloseCause | undefined;
  /** The peer's refusal, until the failure is reported. */
  #refusal: PresenceError | undefined;

  private constructor(
    options: EdgeSessionOptions,
    endpoints: number,
    parts: {
      readonly tunnel: MtlsTunnel;
      readonly dataPlane: EdgeDataPlane;
      readonly control: ControlClient;
    },
    closing: CloseStack
  ) {
    const { credentials, clock, logger } = options;
    this.site = credentials.identity.site;
    this.#options = options;
    this.#endpoints = endpoints;
    this.#tunnel = parts.tunnel;
    this.#dataPlane = parts.dataPlane;
    this.#control = parts.control;
    this.#closing = closing;
    const { tunnel, control, dataPlane } = parts;
    this.#bars = new EdgeBars(clock, (addresses) => dataPlane.filter.setBarred(addresses));
    this.#keeper = new CredentialKeeper({ credentials, control, tunnel, clock, logger });
  }

  /**
   * Begins to connect.
   *
   * @throws {ConfigError} if the endpoints of the cloud are not known, or `cloud.json` is damaged.
   * @throws {StoreError} if the store cannot be read.
   */
  static async open(options: EdgeSessionOptions): Promise<EdgeSession> {
    const { credentials, store, device, proxy, snapshotValidMs, clock } = options;
    const { site, trustDomain } = credentials.identity;
    const endpoints = options.cloud ?? credentials.tunnels;
    if (endpoints.length === 0) {
      const reason = 'is missing, and the cloud sent no tunnel endpoints at the enrolment';
      throw new ConfigError('cloud', `${reason}: name them by this option`);
    }
    const closing = new CloseStack();
    try {
      const tcp = await loadTcpControl();
      let session: EdgeSession | undefined;
      // This is called last: a renewal in progress ends with the tunnel and the control channel.
      closing.add(async () => {
        if (session !== undefined) await session.#keeper.close();
      });
      const control = await ControlClient.open({
        site,
        store,
        snapshotValidMs,
        clock,
        counters: () => session?.counters ?? {},
      });
      closing.add(() => control.close());
      const tunnel = MtlsTunnel.dial({
        endpoints,
        proxy,
        clock,
        ...credentials.credentials,
        tcp,
        expectedPeer: { trustDomain, role: 'cloud' },
      });
      closing.add(() => tunnel.close());
      const dataPlane = new EdgeDataPlane({ device, tunnel, clock });
      session = new EdgeSession(options, endpoints.length, { tunnel, dataPlane, control }, closing);
      session.#begin();
      return session;
    } catch (error) {
      await closing.close().catch(() => {});
      throw error;
    }
  }

  /** The counters of this gateway. Verdicts and the counters of the options are left out while they are zero. */
  get counters(): Readonly<Record<string, number>> {
    const { filter, counters } = this.#dataPlane;
    const named: Record<string, number> = { ...counters, dropBarred: filter.barredPackets };
    for (const [name, count] of Object.entries(this.#tunnel.counters)) {
      named[`tunnel.${name}`] = count;
    }
    for (const [name, count] of Object.entries(this.#options.counters())) {
      if (count > 0) named[name] = count;
    }
    for (const direction of ['outbound', 'inbound'] as const) {
      for (const [verdict, count] of Object.entries(filter.counters(direction))) {
        if (count > 0) named[`${direction}${verdict}`] = count;
      }
    }
    return named;
  }

  get snapshot(): Snapshot | undefined {
    return this.#control.snapshot;
  }

  /** Until when the snapshot holds, see `ControlClient.validUntil`. */
  get validUntil(): Date | undefined {
    return this.#control.validUntil;
  }

  /** The connection that carries the tunnel; undefined while it is down. */
  get connection(): ConnectionInfo | undefined {
    return this.#tunnel.info;
  }

  /** How many connections carry packets. */
  get connections(): number {
    return this.#tunnel.connections;
  }

  /** The round-trip time that was measured last, in ms. */
  get rttMs(): number | undefined {
    return this.#tunnel.rttMs;
  }

  get measures(): SessionMeasures {
    return {
      tunnel: this.#tunnel.counters,
      filter: this.#dataPlane.filter,
      drops: {
        ...this.#dataPlane.counters,
        dropBarred: this.#dataPlane.filter.barredPackets,
      },
      handshakes: this.#handshakes,
      renewals: this.#keeper.renewals,
      certificateNotAfter: this.#keeper.notAfter,
    };
  }

  /** Measures the round-trip time on each connection, in ms; `null` for one that has not answered in `timeoutMs`. */
  async measure(timeoutMs: number): Promise<readonly (number | null)[]> {
    return (await this.#tunnel.measure(timeoutMs)).map((rttMs) => rttMs ?? null);
  }

  /** Redeems a token for another certificate. @throws what `CredentialKeeper.enrol` throws. */
  async enrol(token: string): Promise<void> {
    await this.#keeper.enrol(token);
    this.#onEnrolled();
  }

  /** Closes the tunnel with a reason for the cloud, and everything else. */
  close(): Promise<void> {
    return this.#closing.close();
  }

  #begin(): void {
    const { onSnapshot, onExpired, onProblem, logger } = this.#options;
    const { site } = this;
    const control = this.#control;
    const apply = (snapshot: Snapshot): void => {
      this.#dataPlane.filter.setAddresses(snapshot);
      this.#bars.follow(this.#answered, snapshot, this.#awayMs);
      this.#answered = snapshot;
      this.#awayMs = 0;
      onSnapshot(snapshot);
      const { revision, hosts } = snapshot;
      logger.info(
        { event: 'snapshot_applied', site, revision },
        `${site}: revision ${revision}, ${hosts.length} names`
      );
      this.#reportOnline();
    };
    const expire = (expiry: SnapshotExpiry): void => {
      this.#dataPlane.filter.setAddresses({ sources: [], pools: [] });
      this.#answered = expiry.snapshot;
      onExpired(expiry);
    };
    control.on('snapshot', apply);
    control.on('expired', expire);
    control.on('problem', ({ error }) => {
      logger.warn(
        { event: 'control_failed', site, ...errorFields(error) },
        `control: ${error.message}`
      );
      onProblem(error);
    });
    if (control.snapshot !== undefined) apply(control.snapshot);
    if (control.expiry !== undefined) expire(control.expiry);
    control.attach(this.#tunnel);
    this.#follow();
    this.#dataPlane.start();
    this.#closing.add(() => this.#dataPlane.stop());
    this.#closing.add(() => this.#bars.close());
  }

  #follow(): void {
    const { logger } = this.#options;
    const { site } = this;
    const tunnel = this.#tunnel;
    tunnel.on('up', (info) => {
      logger.info({ event: 'tunnel_up', site }, `${site}: up to ${describe(info)}`);
      this.#handshakes.accepted++;
      this.#endpointFailures = 0;
      this.#awayMs = Math.max(this.#awayMs, this.#control.awayMs);
      this.#control.linkChanged(true);
      this.#reportOnline();
    });
    tunnel.on('connections', ({ count }) => {
      const noun = count === 1 ? 'connection' : 'connections';
      logger.info({ event: 'tunnel_connections', site, count }, `${site}: ${count} ${noun}`);
    });
    tunnel.on('down', (cause) => {
      const { code, reason } = cause;
      const text = `${site}: down, ${code} ${reason}`.trimEnd();
      logger.warn({ event: 'tunnel_down', site, code }, text);
      this.#isLost = true;
      this.#control.linkChanged(false);
      this.#options.onState('connecting', this.#failureOf(cause));
    });
    tunnel.on('refused', ({ error, code }) => {
      logger.warn(
        { event: 'tunnel_refused', site, err: error, code },
        `${site}: refused, ${error.message}`
      );
      this.#refusal = error;
    });
    tunnel.on('waiting', ({ delayMs, cause, othersUnreached }) => {
      const waitMs = Math.round(delayMs);
      const { code, reason } = cause;
      const text = `${site}: trying again in ${waitMs} ms, ${reason}`;
      logger.info({ event: 'tunnel_retry', site, code }, text);
      if (!this.#isLost) this.#handshakes[cause.by === 'peer' ? 'refused' : 'failed']++;
      this.#isLost = false;
      void this.#onFailed(cause, othersUnreached);
    });
  }

  /** Called when there is a new certificate. A tunnel that is not up dials again with it. */
  #onEnrolled(): void {
    this.#endpointFailures = 0;
    if (this.#tunnel.state === 'up') this.#reportOnline();
    else if (!this.#closing.isClosed) this.#options.onState('connecting');
  }

  /** Reports `online` if packets can flow. */
  #reportOnline(): void {
    if (this.#tunnel.state === 'up' && this.#control.snapshot !== undefined) {
      this.#options.onState('online');
    }
  }

  async #onFailed(cause: CloseCause, othersUnreached: boolean): Promise<void> {
    this.#lastCause = cause;
    const failure = this.#failureOf(cause);
    const othersMayWork = this.#othersMayWork(cause, failure, othersUnreached);
    const mayResolve = othersMayWork || failure.remedy === 'wait';
    if (mayResolve) {
      this.#options.onState('connecting', failure);
      return;
    }
    if (failure.remedy === 'token' && (await this.#keeper.enrolAnew())) {
      this.#onEnrolled();
      return;
    }
    // The tunnel may have dialled again in the meantime.
    const isStale = this.#lastCause !== cause || this.#tunnel.state === 'up';
    if (!isStale && !this.#closing.isClosed) this.#options.onState('rejected', failure);
  }

  /** Whether an endpoint is left that was not tried since the first failure of this kind, or could not be reached. */
  #othersMayWork({ by }: CloseCause, { remedy }: Failure, othersUnreached: boolean): boolean {
    if (by === 'peer' || remedy === 'wait' || othersUnreached) {
      this.#endpointFailures = 0;
      return by !== 'peer' && othersUnreached;
    }
    this.#endpointFailures = (this.#endpointFailures + 1) % this.#endpoints;
    return this.#endpointFailures !== 0;
  }

  #failureOf(cause: CloseCause): Failure {
    const { credentials, clock } = this.#options;
    const { validTo } = new X509Certificate(credentials.credentials.cert);
    const isExpired = Date.parse(validTo) <= clock.wallMs();
    const failure = failureOf(cause, { isExpired });
    const error = this.#refusal ?? failure.error;
    this.#refusal = undefined;
    return { ...failure, error };
  }
}

function describe(info: ConnectionInfo): string {
  const { remoteAddress, proxiedEndpoint, cipher, keyExchange } = info;
  const exchange = keyExchange === undefined ? '' : `, ${keyExchange}`;
  const remote =
    proxiedEndpoint === undefined
      ? remoteAddress
      : `${proxiedEndpoint.host} through the proxy ${remoteAddress}`;
  return `${remote}, ${cipher}${exchange}`;
}
