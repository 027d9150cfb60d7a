/**
 * The dialling side: a tunnel that connects to one of several endpoints, and again when it breaks.
 * @module
 */
import { X509Certificate } from 'node:crypto';
import { connect, type SecureContext, type TLSSocket } from 'node:tls';
import { ApiMisuseError, PeerRefusedError } from '../errors.ts';
import { formatIdentity, type GatewayIdentity, identityOfCertificate } from '../pki/names.ts';
import type { Json } from '../store/store.ts';
import { type BackoffOptions, backoffDelayMs, DEFAULT_BACKOFF } from './backoff.ts';
import { secureContext, type TunnelCredentials } from './credentials.ts';
import { FrameType } from './frame.ts';
import {
  type CloseCause,
  type LaneLimits,
  type LaneOptions,
  resolveLimits,
  TlsLane,
} from './lane.ts';
import { ALPN_PROTOCOL, CloseCode, PROTOCOL_VERSION, printable, readWelcome } from './messages.ts';
import { SlabPool } from './slab-pool.ts';
import { systemTimers, type Timers } from './timers.ts';
import { type ConnectionInfo, connectionInfo, LaneTunnel, type TunnelState } from './tunnel.ts';

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
  readonly timers?: Timers;
  /** Numbers from 0 to below 1; default `Math.random`. */
  readonly random?: () => number;
}

export class DialledTunnel extends LaneTunnel {
  readonly #options: DialOptions;
  readonly #laneOptions: LaneOptions;
  readonly #timers: Timers;
  #context: SecureContext;
  #state: TunnelState = 'connecting';
  #info: ConnectionInfo | undefined;
  #socket: TLSSocket | undefined;
  #cancelTimer: () => void = () => {};
  #endpointIndex = 0;
  /** Failures since the tunnel was last up for long. */
  #failures = 0;
  #upSinceMs = 0;
  #isFinished = false;

  /** See `MtlsTunnel.dial`. */
  constructor(options: DialOptions) {
    super(options.expectedPeer);
    if (options.endpoints.length === 0) throw new ApiMisuseError('there is no endpoint to dial');
    this.#options = options;
    this.#timers = options.timers ?? systemTimers;
    this.#laneOptions = {
      ...resolveLimits(options),
      pool: new SlabPool(options.slabBytes),
      timers: this.#timers,
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
   * Uses other credentials from the next connection on; the one that is up stays.
   *
   * @throws {CertificateError} if they are unusable; those before are kept then.
   */
  updateCredentials(credentials: TunnelCredentials): void {
    this.#context = secureContext(credentials);
  }

  protected override finish(): void {
    this.#isFinished = true;
    this.#cancelTimer();
    // One that is up is closed when its lane is.
    if (this.#state === 'up') return;
    this.#state = 'closed';
    this.#socket?.destroy();
  }

  #connect(): void {
    const { endpoints, expectedPeer, handshakeTimeoutMs = 10_000 } = this.#options;
    const { host, port } = endpoints[this.#endpointIndex % endpoints.length]!;
    this.#state = 'connecting';
    const socket = connect({
      host,
      port,
      secureContext: this.#context,
      ALPNProtocols: [ALPN_PROTOCOL],
      // No SNI: the peer is known by its identity, and its name is not to be seen on the way.
      servername: '',
      checkServerIdentity: (_host, { raw }) => identityFault(raw, expectedPeer),
    });
    this.#socket = socket;
    const fail = (code: string, reason: string): void => {
      if (this.lane !== undefined || this.#socket !== socket) return;
      socket.destroy();
      this.#onLost({ by: 'network', code, reason: `${host} port ${port}: ${printable(reason)}` });
    };
    socket.on('error', (error) => fail(CloseCode.ConnectionLost, error.message));
    socket.on('close', () => fail(CloseCode.ConnectionLost, 'the connection was closed'));
    socket.on('secureConnect', () => {
      if (socket.alpnProtocol === ALPN_PROTOCOL) this.#greet(socket);
      else fail(CloseCode.ProtocolError, `the server does not speak ${ALPN_PROTOCOL}`);
    });
    this.#cancelTimer = this.#timers.after(handshakeTimeoutMs, () => {
      const reason = `no acknowledgement within ${handshakeTimeoutMs} ms`;
      if (this.lane === undefined) fail(CloseCode.HandshakeTimeout, reason);
      else this.lane.destroy(CloseCode.HandshakeTimeout, reason);
    });
  }

  #greet(socket: TLSSocket): void {
    const { software = 'virtual-presence' } = this.#options;
    const lane: TlsLane = new TlsLane(
      socket,
      FrameType.Welcome,
      {
        counters: this.counters,
        onPacket: (buffer, start, end) => this.onPacket(buffer, start, end),
        onBatchEnd: () => this.onBatchEnd(),
        onDrain: () => this.onDrain(),
        onHandshake: (message) => this.#onWelcome(lane, message, connectionInfo(socket)),
        onControl: (message) => this.emit('control', message),
        onLaneClosed: (cause) => this.#onLost(cause),
      },
      this.#laneOptions
    );
    this.lane = lane;
    lane.sendHandshake(FrameType.Hello, { version: PROTOCOL_VERSION, software });
  }

  #onWelcome(lane: TlsLane, message: Json, info: ConnectionInfo): string | undefined {
    const welcome = readWelcome(message);
    if (welcome === undefined) return 'the WELCOME is malformed';
    this.#cancelTimer();
    this.#state = 'up';
    this.#info = info;
    this.#upSinceMs = this.#timers.now();
    lane.becomeUp(welcome.keepaliveMs);
    this.emit('up', info);
    return undefined;
  }

  /** Both for a connection that could not be made and for one that broke. */
  #onLost(cause: CloseCause): void {
    const wasUp = this.#state === 'up';
    this.#cancelTimer();
    this.lane = undefined;
    this.#socket = undefined;
    this.#info = undefined;
    this.#state = this.#isFinished ? 'closed' : 'waiting';
    if (wasUp) this.emit('down', cause);
    if (this.#isFinished) return;

    const { backoff, random, stableAfterMs = 10_000 } = this.#options;
    if (wasUp && this.#timers.now() - this.#upSinceMs >= stableAfterMs) this.#failures = 0;
    const isRefused = cause.by === 'peer' && (!wasUp || REFUSALS.has(cause.code));
    const delayMs = isRefused
      ? (backoff?.maxMs ?? DEFAULT_BACKOFF.maxMs)
      : backoffDelayMs(this.#failures, backoff, random);
    this.#failures++;
    this.#endpointIndex++;
    // First, so that a listener that closes the tunnel finds it.
    this.#cancelTimer = this.#timers.after(delayMs, () => this.#connect());
    if (isRefused) {
      const peer = formatIdentity(this.peer);
      const text = `${peer} refuses the tunnel (${cause.code}): ${cause.reason}`;
      this.emit('refused', new PeerRefusedError(text), cause.code);
    }
    if (!this.#isFinished) this.emit('waiting', delayMs, cause);
  }
}

function identityFault(raw: Buffer, expected: GatewayIdentity): Error | undefined {
  try {
    const found = formatIdentity(identityOfCertificate(new X509Certificate(raw)));
    if (found === formatIdentity(expected)) return undefined;
    return new Error(`the server is ${found}, not ${formatIdentity(expected)}`);
  } catch (error) {
    return error as Error;
  }
}

/** Codes that a tunnel which was up is closed with when it is not to come back soon. */
const REFUSALS: ReadonlySet<string> = new Set([
  CloseCode.Revoked,
  CloseCode.UnknownSite,
  CloseCode.WrongIdentity,
]);
