/**
 * The dialling side: a tunnel that connects to one of several endpoints, and again when it breaks.
 * @module
 */
import { randomBytes } from 'node:crypto';
import type { SecureContext } from 'node:tls';
import { ApiMisuseError, PeerRefusedError } from '../errors.ts';
import { formatIdentity, type GatewayIdentity } from '../pki/names.ts';
import { type BackoffOptions, backoffDelayMs, DEFAULT_BACKOFF } from './backoff.ts';
import { secureContext, type TunnelCredentials } from './credentials.ts';
import { type AttemptOutcome, DialAttempt } from './dial-attempt.ts';
import {
  type CloseCause,
  checkLanes,
  type LaneLimits,
  type LaneOptions,
  resolveLimits,
  type UnsentLimit,
} from './lane.ts';
import { LANE_CHECK_MS, LaneDemand } from './lane-demand.ts';
import { LaneTunnel } from './lane-tunnel.ts';
import { CloseCode, PROTOCOL_VERSION, type Welcome } from './messages.ts';
import { SlabPool } from './slab-pool.ts';
import { systemTimers, type Timers } from './timers.ts';
import type { TlsLane } from './tls-lane.ts';
import type { ConnectionInfo, TunnelState } from './tunnel.ts';

export interface TunnelEndpoint {
  /** Name or address. */
  readonly host: string;
  readonly port: number;
}

export interface DialOptions extends TunnelCredentials, LaneLimits {
  /** Tried in turn. */
  readonly endpoints: readonly TunnelEndpoint[];
  /** Whom the listening side's certificate must name. Host names are not looked at. */
  readonly expectedPeer: GatewayIdentity;
  readonly backoff?: BackoffOptions;
  /** A tunnel that was up so long starts again with the shortest wait, in ms; default 10,000. */
  readonly stableAfterMs?: number;
  /** From the first packet of TCP to WELCOME, in ms; default 10,000. */
  readonly handshakeTimeoutMs?: number;
  /** Told to the peer; default `virtual-presence`. */
  readonly software?: string;
  /** Size of the buffers in which packets are collected, in bytes; default 256 KiB. */
  readonly slabBytes?: number;
  /** Connections that may carry packets at a time, as far as the listening side agrees; default 8. */
  readonly lanes?: number;
  /** Where there is one, the system's own queues are kept as short as the tunnel's. */
  readonly limitUnsent?: UnsentLimit;
  readonly timers?: Timers;
  /** Numbers from 0 to below 1; default `Math.random`. */
  readonly random?: () => number;
}

export class DialledTunnel extends LaneTunnel {
  readonly #options: DialOptions;
  readonly #laneOptions: LaneOptions;
  readonly #timers: Timers;
  readonly #maxLanes: number;
  #context: SecureContext;
  #state: TunnelState = 'connecting';
  #info: ConnectionInfo | undefined;
  #attempt: DialAttempt | undefined;
  #cancelTimer: () => void = () => {};
  #endpoint: TunnelEndpoint;
  #endpointIndex = 0;
  /** How often in a row the peer has said that the site is elsewhere. */
  #moves = 0;
  /** Failures since the tunnel was last up for long. */
  #failures = 0;
  #upSinceMs = 0;
  #isFinished = false;

  /** Tells the listening side which connections are lanes of one tunnel. */
  #tunnelId = '';
  readonly #furtherAttempts = new Set<DialAttempt>();
  #furtherFailures = 0;
  #nextFurtherMs = 0;

  /** See `MtlsTunnel.dial`. */
  constructor(options: DialOptions) {
    const limits = resolveLimits(options);
    const timers = options.timers ?? systemTimers;
    super(options.expectedPeer, limits.maxSlabs, timers);
    const [first] = options.endpoints;
    if (first === undefined) throw new ApiMisuseError('there is no endpoint to dial');
    this.#endpoint = first;
    this.#options = options;
    this.#timers = timers;
    this.#maxLanes = checkLanes(options.lanes ?? DEFAULT_LANES);
    this.#laneOptions = {
      ...limits,
      pool: new SlabPool(options.slabBytes),
      timers,
      limitUnsent: options.limitUnsent,
    };
    this.#context = secureContext(options);
    this.#connect();
  }

  get state(): TunnelState {
    return this.#state;
  }

  get info(): ConnectionInfo | undefined {
    return this.#info;
  }

  /**
   * Uses other credentials from the next connection on; the ones that are up stay.
   *
   * @throws {CertificateError} if they are unusable; those before are kept then.
   */
  updateCredentials(credentials: TunnelCredentials): void {
    this.#context = secureContext(credentials);
  }

  protected override finish(): void {
    this.#isFinished = true;
    this.#cancelTimer();
    this.#cancelFurther();
    // One that is up is closed when its first lane is.
    if (this.#state === 'up') return;
    this.#state = 'closed';
    this.#attempt?.cancel();
  }

  #connect(): void {
    this.#state = 'connecting';
    this.#tunnelId = randomBytes(16).toString('hex');
    this.#attempt = this.#dial(this.#endpoint, 0, {
      onUp: (lane, welcome, info) => this.#onUp(lane, welcome, info),
      onFailed: (cause) => this.onLost(cause),
    });
  }

  #dial({ host, port }: TunnelEndpoint, lane: number, outcome: AttemptOutcome): DialAttempt {
    const { software = 'virtual-presence', handshakeTimeoutMs = 10_000 } = this.#options;
    const options = {
      host,
      port,
      context: this.#context,
      expectedPeer: this.peer,
      hello: { version: PROTOCOL_VERSION, software, tunnel: this.#tunnelId, lane },
      timeoutMs: handshakeTimeoutMs,
      lane: this.#laneOptions,
    };
    return new DialAttempt(options, outcome);
  }

  #onUp(lane: TlsLane, welcome: Welcome, info: ConnectionInfo): void {
    this.#attempt = undefined;
    this.#state = 'up';
    this.#info = info;
    this.#moves = 0;
    this.#upSinceMs = this.#timers.now();
    const lanes = Math.min(this.#maxLanes, welcome.lanes ?? 1);
    this.mayGrow = lanes > 1;
    this.begin(lane);
    if (this.mayGrow) this.#watch(new LaneDemand(lanes));
    this.emit('up', info);
  }

  /** Opens further lanes, and ends them, as they are needed. */
  #watch(demand: LaneDemand): void {
    this.#cancelTimer = this.#timers.after(LANE_CHECK_MS, () => {
      this.#watch(demand);
      const nowMs = this.#timers.now();
      const { sentBytes, receivedBytes } = this.counters;
      const flows = this.spread.active(nowMs);
      const wanted = demand.update(nowMs, sentBytes + receivedBytes, flows);
      if (wanted < this.lanes) this.shrink(wanted);
      const missing = wanted - this.lanes - this.#furtherAttempts.size;
      if (nowMs < this.#nextFurtherMs) return;
      for (let i = 0; i < missing; i++) this.#dialFurther(this.lanes + i);
    });
  }

  /** To where the first lane has led, whatever the endpoint's name stands for by now. */
  #dialFurther(lane: number): void {
    const { remoteAddress: host, remotePort: port } = this.#info!;
    const attempt: DialAttempt = this.#dial({ host, port }, lane, {
      onUp: (further) => {
        this.#furtherAttempts.delete(attempt);
        this.#furtherFailures = 0;
        this.join(further);
      },
      onFailed: () => {
        this.#furtherAttempts.delete(attempt);
        const { backoff, random } = this.#options;
        const delayMs = backoffDelayMs(this.#furtherFailures++, backoff, random);
        this.#nextFurtherMs = this.#timers.now() + delayMs;
      },
    });
    this.#furtherAttempts.add(attempt);
  }

  #cancelFurther(): void {
    for (const attempt of this.#furtherAttempts) attempt.cancel();
    this.#furtherAttempts.clear();
  }

  /** Both for a connection that could not be made and for one that broke. */
  protected override onLost(cause: CloseCause): void {
    const wasUp = this.#state === 'up';
    this.#cancelTimer();
    this.#cancelFurther();
    this.#attempt = undefined;
    this.#info = undefined;
    this.#state = this.#isFinished ? 'closed' : 'waiting';
    if (wasUp) this.emit('down', cause);
    if (this.#isFinished) return;

    const { stableAfterMs = 10_000 } = this.#options;
    if (wasUp && this.#timers.now() - this.#upSinceMs >= stableAfterMs) this.#failures = 0;
    const isRefused = cause.by === 'peer' && (!wasUp || REFUSALS.has(cause.code));
    const delayMs = this.#follow(cause) ? 0 : this.#nextDelayMs(isRefused);
    // First, so that a listener that closes the tunnel finds it.
    this.#cancelTimer = this.#timers.after(delayMs, () => this.#connect());
    if (isRefused && delayMs > 0) {
      const peer = formatIdentity(this.peer);
      const text = `${peer} refuses the tunnel (${cause.code}): ${cause.reason}`;
      this.emit('refused', new PeerRefusedError(text), cause.code);
    }
    if (!this.#isFinished) this.emit('waiting', delayMs, cause);
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
    const delayMs = isRefused
      ? (backoff?.maxMs ?? DEFAULT_BACKOFF.maxMs)
      : backoffDelayMs(this.#failures, backoff, random);
    this.#failures++;
    this.#endpointIndex = (this.#endpointIndex + 1) % endpoints.length;
    this.#endpoint = endpoints[this.#endpointIndex]!;
    return delayMs;
  }
}

/** Codes that a tunnel which was up is closed with when it is not to come back soon. */
const REFUSALS: ReadonlySet<string> = new Set([
  CloseCode.Revoked,
  CloseCode.UnknownSite,
  CloseCode.WrongIdentity,
]);
const DEFAULT_LANES = 8;
const MAX_MOVES = 4;
