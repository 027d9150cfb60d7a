/**
 * The driver of a tunnel on the dialling side: it connects to one of several endpoints, and again when the tunnel
 * breaks. The certificate can be renewed while packets flow.
 * @module
 */
import { randomBytes } from 'node:crypto';
import type { SecureContext } from 'node:tls';
import type { Clock } from '../base/clock.ts';
import type { HostPort } from '../base/host-port.ts';
import { PeerRefusedError } from '../errors.ts';
import type { Credentials } from '../pki/credentials.ts';
import { formatIdentity, type GatewayIdentity } from '../pki/names.ts';
import { backoffDelayMs } from './backoff.ts';
import type { TunnelConnection } from './connection.ts';
import { CONNECTION_CHECK_MS, ConnectionScaler } from './connection-scaler.ts';
import type { CloseCause, ConnectionOptions } from './connection-types.ts';
import { secureContext } from './credentials.ts';
import { type AttemptOutcome, DialAttempt } from './dial-attempt.ts';
import type { ResolvedDialOptions } from './dial-options.ts';
import { CloseCode, type Hello, PROTOCOL_VERSION, type Welcome } from './messages.ts';
import { Renewal } from './renewal.ts';
import type { ConnectionInfo, TunnelState } from './tunnel.ts';
import type { DrivenTunnel, TunnelDriver } from './tunnel-driver.ts';

export class DialDriver implements TunnelDriver {
  readonly #tunnel: DrivenTunnel;
  readonly #options: ResolvedDialOptions;
  readonly #connectionOptions: ConnectionOptions;
  readonly #clock: Clock;
  #context: SecureContext;
  #state: TunnelState = 'connecting';
  /** Of the connection that was up last. */
  #peer: GatewayIdentity | undefined;
  #info: ConnectionInfo | undefined;
  #software: string | undefined;
  #attempt: DialAttempt | undefined;
  #cancelTimer: () => void = () => {};
  /** Those of `updateCredentials` that are not done yet. */
  #renewals: Promise<unknown> = Promise.resolve();
  #renewal: Renewal | undefined;
  #endpoint: HostPort;
  #endpointIndex = 0;
  /** How often in a row the peer has said that the site is elsewhere. */
  #moves = 0;
  /** Failures since the tunnel was last up for long. */
  #failures = 0;
  #upSinceMs = 0;
  #isFinished = false;

  /** Tells the listening side which connections are connections of one tunnel. */
  #tunnelId = '';
  readonly #furtherAttempts = new Set<DialAttempt>();
  #onNoneDialled: () => void = () => {};
  #furtherFailures = 0;
  #nextFurtherMs = 0;

  constructor(
    tunnel: DrivenTunnel,
    options: ResolvedDialOptions,
    connectionOptions: ConnectionOptions
  ) {
    this.#tunnel = tunnel;
    this.#options = options;
    this.#connectionOptions = connectionOptions;
    this.#clock = options.clock;
    this.#endpoint = options.endpoints[0]!;
    this.#context = options.context;
  }

  start(): void {
    this.#connect();
  }

  get peer(): GatewayIdentity | undefined {
    return this.#peer;
  }

  get state(): TunnelState {
    return this.#state;
  }

  get info(): ConnectionInfo | undefined {
    return this.#info;
  }

  get software(): string | undefined {
    return this.#software;
  }

  updateCredentials(credentials: Credentials): Promise<void> {
    const renewal = this.#renewals.then(() => this.#renew(secureContext(credentials)));
    this.#renewals = renewal.catch(() => {});
    return renewal;
  }

  async #renew(context: SecureContext): Promise<void> {
    const wasUp = this.#state === 'up';
    if (wasUp) {
      this.#renewal = new Renewal({
        peer: this.#options.expectedPeer,
        set: this.#tunnel.set,
        // Connections that the other side may have taken already are not to be cut.
        ready: this.#whenNoneIsDialled(),
        connections: () => this.#tunnel.connections(),
        dial: (number, outcome) => this.#dialBeside(number, context, outcome),
      });
      try {
        await this.#renewal.run();
      } finally {
        this.#renewal = undefined;
      }
    }
    this.#context = context;
    // Else the tunnel would come up under the old ones, and stay so.
    if (this.#state === 'connecting') this.#attempt?.cancel();
    // What it waits for may have been these; if it has just broken, the wait is due.
    else if (this.#state === 'waiting' && !wasUp) this.#cancelTimer();
    else return;
    this.#connect();
  }

  finish(): void {
    this.#isFinished = true;
    this.#cancelTimer();
    this.#cancelFurther();
    // One that is up is closed when its first connection is.
    if (this.#state === 'up') return;
    this.#state = 'closed';
    this.#attempt?.cancel();
  }

  #connect(): void {
    this.#state = 'connecting';
    this.#tunnelId = randomBytes(16).toString('hex');
    this.#attempt = this.#dial(
      this.#endpoint,
      this.#context,
      { lane: 0 },
      {
        onUp: (connection, welcome, info) => this.#onUp(connection, welcome, info),
        onFailed: (cause) => this.onLost(cause),
      }
    );
  }

  #dial(
    { host, port }: HostPort,
    context: SecureContext,
    connection: Pick<Hello, 'lane' | 'renews'>,
    outcome: AttemptOutcome
  ): DialAttempt {
    const { software, handshakeTimeoutMs, proxy } = this.#options;
    const options = {
      host,
      port,
      proxy,
      context,
      expectedPeer: this.#options.expectedPeer,
      hello: { version: PROTOCOL_VERSION, software, tunnel: this.#tunnelId, ...connection },
      timeoutMs: handshakeTimeoutMs,
      connection: this.#connectionOptions,
    };
    return new DialAttempt(options, outcome);
  }

  #onUp(connection: TunnelConnection, welcome: Welcome, info: ConnectionInfo): void {
    this.#attempt = undefined;
    this.#state = 'up';
    this.#peer = info.peer;
    this.#info = info;
    this.#moves = 0;
    this.#upSinceMs = this.#clock.monotonicMs();
    this.#software = welcome.software;
    const connections = Math.min(this.#options.connections, welcome.lanes ?? 1);
    const mayGrow = connections > 1;
    this.#tunnel.begin(connection, info, mayGrow);
    if (mayGrow) this.#watch(new ConnectionScaler(connections));
    this.#tunnel.emit('up', info);
  }

  /** Opens further connections, and ends them, as they are needed. */
  #watch(demand: ConnectionScaler): void {
    this.#cancelTimer = this.#clock.after(CONNECTION_CHECK_MS, () => {
      this.#watch(demand);
      // Then connections are counted that are about to go.
      if (this.#renewal !== undefined) return;
      const nowMs = this.#clock.monotonicMs();
      const { sentBytes, receivedBytes } = this.#tunnel.counters;
      const flows = this.#tunnel.activeFlows(nowMs);
      const wanted = demand.update(nowMs, sentBytes + receivedBytes, flows);
      if (wanted < this.#tunnel.connections()) this.#tunnel.shrink(wanted);
      const connections = this.#tunnel.connections();
      const missing = wanted - connections - this.#furtherAttempts.size;
      if (nowMs < this.#nextFurtherMs) return;
      for (let i = 0; i < missing; i++) this.#dialFurther(connections + i);
    });
  }

  #dialFurther(number: number): void {
    this.#dialBeside(number, this.#context, {
      onUp: (connection, _welcome, info) => {
        this.#furtherFailures = 0;
        this.#tunnel.set.join(connection, info);
      },
      onFailed: () => {
        const { backoff, random } = this.#options;
        const delayMs = backoffDelayMs(this.#furtherFailures++, backoff, random);
        this.#nextFurtherMs = this.#clock.monotonicMs() + delayMs;
      },
    });
  }

  /**
   * Dials the address to which the first connection has led, whatever the endpoint's name stands for by now. A proxy is
   * asked for the endpoint again: it alone knows the address. One that leads elsewhere then brings no connection
   * (`no-tunnel`), and the tunnel goes on with those that it has.
   */
  #dialBeside(number: number, context: SecureContext, outcome: AttemptOutcome): void {
    const { remoteAddress: host, remotePort: port, proxiedEndpoint } = this.#info!;
    const endpoint = proxiedEndpoint ?? { host, port };
    const connection = number === 0 ? { lane: 0, renews: true } : { lane: number };
    const attempt: DialAttempt = this.#dial(endpoint, context, connection, {
      onUp: (...up) => {
        outcome.onUp(...up);
        this.#onDialled(attempt);
      },
      onFailed: (cause) => {
        outcome.onFailed(cause);
        this.#onDialled(attempt);
      },
    });
    this.#furtherAttempts.add(attempt);
  }

  #whenNoneIsDialled(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#furtherAttempts.size === 0) resolve();
      else this.#onNoneDialled = resolve;
    });
  }

  #onDialled(attempt: DialAttempt): void {
    this.#furtherAttempts.delete(attempt);
    if (this.#furtherAttempts.size === 0) this.#onNoneDialled();
  }

  #cancelFurther(): void {
    for (const attempt of this.#furtherAttempts) attempt.cancel();
    this.#furtherAttempts.clear();
  }

  onRenewed(info: ConnectionInfo): void {
    this.#peer = info.peer;
    this.#info = info;
  }

  onConnectionEnded(): void {}

  /** Both for a connection that could not be made and for one that broke. */
  onLost(cause: CloseCause): void {
    const wasUp = this.#state === 'up';
    this.#cancelTimer();
    this.#cancelFurther();
    this.#attempt = undefined;
    this.#info = undefined;
    this.#state = this.#isFinished ? 'closed' : 'waiting';
    this.#renewal?.cut();
    if (wasUp) this.#tunnel.emit('down', cause);
    if (this.#isFinished) return;

    const { stableAfterMs } = this.#options;
    if (wasUp && this.#clock.monotonicMs() - this.#upSinceMs >= stableAfterMs) this.#failures = 0;
    const isRefused =
      cause.by === 'peer' && (wasUp ? REFUSALS.has(cause.code) : !PASSING.has(cause.code));
    const delayMs = this.#follow(cause) ? 0 : this.#nextDelayMs(isRefused);
    // First, so that a listener that closes the tunnel finds it.
    this.#cancelTimer = this.#clock.after(delayMs, () => this.#connect());
    if (isRefused && delayMs > 0) {
      const peer = formatIdentity(this.#options.expectedPeer);
      const text = `${peer} refuses the tunnel (${cause.code}): ${cause.reason}`;
      this.#tunnel.emit('refused', { error: new PeerRefusedError(text), code: cause.code });
    }
    if (!this.#isFinished) this.#tunnel.emit('waiting', { delayMs, cause });
  }

  /** Turns to where the peer says that the site is; returns whether it has said so. */
  #follow({ by, code, endpoint }: CloseCause): boolean {
    const isMoved = by === 'peer' && code === CloseCode.Moved && endpoint !== undefined;
    // Gateways that do not agree would send us to and fro: then a wait is due, as after any failure.
    if (!isMoved || ++this.#moves > MAX_MOVES) {
      this.#moves = 0;
      return false;
    }
    const { host = this.#endpoint.host, port } = endpoint;
    this.#endpoint = { host, port };
    return true;
  }

  /** Turns to the next endpoint of its own. */
  #nextDelayMs(isRefused: boolean): number {
    const { backoff, random, endpoints } = this.#options;
    const delayMs = isRefused ? backoff.maxMs : backoffDelayMs(this.#failures, backoff, random);
    this.#failures++;
    this.#endpointIndex = (this.#endpointIndex + 1) % endpoints.length;
    this.#endpoint = endpoints[this.#endpointIndex]!;
    return delayMs;
  }
}

/** Codes that a tunnel which was up is closed with when it is not to come back soon. */
const REFUSALS: ReadonlySet<string> = new Set([
  CloseCode.Revoked,
  CloseCode.Untrusted,
  CloseCode.UnknownSite,
  CloseCode.WrongIdentity,
]);
/** Codes by which a listening side says no, but not for long: to be tried again as after any failure. */
const PASSING: ReadonlySet<string> = new Set([CloseCode.TooMany, CloseCode.Shutdown]);
const MAX_MOVES = 4;
