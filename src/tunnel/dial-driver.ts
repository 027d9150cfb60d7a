/**
 * The driver of a tunnel on the dialling side. It connects to one of several endpoints (`endpoint-list.ts`), and again
 * when the tunnel breaks. README.md draws its states.
 * @module
 */
import { randomBytes } from 'node:crypto';
import type { SecureContext } from 'node:tls';
import type { EventEmitter } from 'eventemitter3';
import type { HostPort } from '../base/host-port.ts';
import { PeerRefusedError } from '../errors.ts';
import type { Credentials } from '../pki/credentials.ts';
import { formatIdentity, type GatewayIdentity } from '../pki/names.ts';
import { FurtherConnections } from './connection-scaler.ts';
import type { ConnectionSet } from './connection-set.ts';
import { DialAttempt, type UpConnection } from './dial-attempt.ts';
import { DialWait } from './dial-wait.ts';
import { EndpointList } from './endpoint-list.ts';
import { LastEpoch } from './last-epoch.ts';
import { CloseCode } from './messages.ts';
import type { ResolvedDialOptions } from './options.ts';
import { Renewal } from './renewal.ts';
import { secureContext } from './tls-profile.ts';
import type {
  CloseCause,
  ConnectionInfo,
  TunnelDriver,
  TunnelEvents,
  TunnelState,
} from './tunnel.ts';

export class DialDriver implements TunnelDriver {
  readonly #set: ConnectionSet;
  readonly #further: FurtherConnections;
  /** Emits the events of the tunnel. */
  readonly #tunnel: EventEmitter<TunnelEvents>;
  readonly #options: ResolvedDialOptions;
  readonly #wait: DialWait;
  #state: TunnelState = 'connecting';
  #peer: GatewayIdentity | undefined;
  #software: string | undefined;
  #attempt: DialAttempt | undefined;
  #cancelWait: () => void = () => {};
  /** The calls of `updateCredentials` that are not done yet. */
  #renewals: Promise<unknown> = Promise.resolve();
  #renewal: Renewal | undefined;
  readonly #endpoints: EndpointList;
  readonly #lastEpoch: LastEpoch = new LastEpoch();
  /** The endpoint of the tunnel while it is up. */
  #endpoint: HostPort;
  /** Where the peer says that the site is, until that is dialled. */
  #moved: readonly HostPort[] | undefined;
  /** Whether the attempt could not connect to an endpoint, and went on with another one. */
  #othersUnreached = false;
  /** How often in a row the peer has said that the site is elsewhere. */
  #moves = 0;
  #upSinceMs = 0;
  #isFinished = false;

  constructor(
    set: ConnectionSet,
    tunnel: EventEmitter<TunnelEvents>,
    options: ResolvedDialOptions
  ) {
    this.#set = set;
    this.#tunnel = tunnel;
    this.#options = options;
    this.#wait = new DialWait(options);
    this.#further = new FurtherConnections(set, options, this.#lastEpoch);
    this.#endpoints = new EndpointList(formatIdentity(options.identity), options.endpoints);
    this.#endpoint = options.endpoints[0]!;
    set.on('lost', (cause) => this.#onLost(cause, this.#endpoint));
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
    return this.#set.info;
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
      const { expectedPeer } = this.#options;
      this.#further.isRenewing = true;
      this.#renewal = new Renewal(this.#set, this.#further, context, expectedPeer);
      try {
        await this.#renewal.run();
      } finally {
        this.#renewal = undefined;
        this.#further.isRenewing = false;
      }
    }
    this.#further.context = context;
    // Otherwise the tunnel would come up under the old ones, and keep them.
    if (this.#state === 'connecting') this.#attempt?.cancel();
    // It may have waited for these. If it was up and has just broken, it has to wait.
    else if (this.#state === 'waiting' && !wasUp) this.#cancelWait();
    else return;
    this.#connect();
  }

  finish(): void {
    this.#isFinished = true;
    this.#cancelWait();
    this.#further.stop();
    // One that is up is closed when its primary connection is.
    if (this.#state === 'up') return;
    this.#state = 'closed';
    this.#attempt?.cancel();
  }

  #connect(): void {
    this.#state = 'connecting';
    const { clock } = this.#options;
    const tunnel = randomBytes(16).toString('hex');
    const endpoints = this.#moved ?? this.#endpoints.order(clock.monotonicMs());
    this.#moved = undefined;
    this.#othersUnreached = false;
    this.#attempt = new DialAttempt(this.#options, {
      endpoints,
      context: this.#further.context,
      lastEpoch: this.#lastEpoch,
      tunnel,
      lane: 0,
      againMs: this.#wait.againMs,
      onEndpointFailed: (endpoint) => {
        this.#othersUnreached = true;
        this.#endpoints.failed(endpoint, clock.monotonicMs());
      },
    });
    this.#attempt.once('up', (up) => this.#onUp(up, tunnel));
    this.#attempt.once('failed', (cause, endpoint) => this.#onLost(cause, endpoint));
  }

  #onUp({ connection, welcome, info, endpoint }: UpConnection, tunnelId: string): void {
    this.#attempt = undefined;
    this.#state = 'up';
    this.#endpoint = endpoint;
    if (welcome.endpoints !== undefined) this.#endpoints.learn(welcome.endpoints);
    this.#peer = info.peer;
    this.#moves = 0;
    this.#upSinceMs = this.#options.clock.monotonicMs();
    this.#software = welcome.software;
    this.#wait.onUp(welcome.reconnectSpreadMs ?? 0);
    const max = Math.min(this.#options.connections, welcome.lanes ?? 1);
    this.#set.begin(connection, info, max > 1);
    this.#further.start(tunnelId, max);
    this.#tunnel.emit('up', info);
  }

  /** Follows both a connection that could not be opened and one that broke. */
  #onLost(cause: CloseCause, endpoint: HostPort): void {
    const { clock, stableAfterMs, expectedPeer } = this.#options;
    const wasUp = this.#state === 'up';
    this.#further.stop();
    this.#attempt = undefined;
    this.#state = this.#isFinished ? 'closed' : 'waiting';
    // The renewal is abandoned before the event, so that it does not hang if a listener throws.
    this.#renewal?.abandon();
    if (wasUp) this.#tunnel.emit('down', cause);
    if (this.#isFinished) return;

    if (wasUp && clock.monotonicMs() - this.#upSinceMs >= stableAfterMs) this.#wait.onStable();
    const isRefused =
      cause.by === 'peer' && (wasUp ? REFUSALS.has(cause.code) : !PASSING.has(cause.code));
    const isMoved = this.#follow(cause, endpoint);
    if (!isMoved) this.#endpoints.failed(endpoint, clock.monotonicMs());
    const delayMs = isMoved ? 0 : this.#wait.nextMs(cause, wasUp, isRefused);
    // The wait begins before the events, so that a listener that closes the tunnel ends it.
    this.#cancelWait = clock.after(delayMs, () => this.#connect());
    if (isRefused && delayMs > 0) {
      const peer = formatIdentity(expectedPeer);
      const text = `${peer} refuses the tunnel (${cause.code}): ${cause.reason}`;
      this.#tunnel.emit('refused', { error: new PeerRefusedError(text), code: cause.code });
    }
    if (this.#isFinished) return;
    const othersUnreached = !wasUp && this.#othersUnreached;
    this.#tunnel.emit('waiting', { delayMs, cause, othersUnreached });
  }

  /** Turns to the endpoints where the peer says that the site is. Returns false if it does not say that. */
  #follow({ by, code, endpoint, endpoints }: CloseCause, from: HostPort): boolean {
    const named = endpoint && { host: endpoint.host ?? from.host, port: endpoint.port };
    const moved = endpoints ?? (named === undefined ? [] : [named]);
    const isMoved = by === 'peer' && code === CloseCode.Moved && moved.length > 0;
    // Gateways that do not agree could redirect it to each other for ever, so it waits now and then.
    if (!isMoved || ++this.#moves > MAX_MOVES) {
      this.#moves = 0;
      return false;
    }
    this.#moved = moved;
    return true;
  }
}

/** Codes with which the peer ends a tunnel that was up, and that is not to come back soon. */
const REFUSALS: ReadonlySet<string> = new Set([
  CloseCode.Revoked,
  CloseCode.Untrusted,
  CloseCode.UnknownSite,
  CloseCode.WrongIdentity,
]);
/** Codes with which a listening side refuses a tunnel for a short time. The tunnel is tried as after any failure. */
const PASSING: ReadonlySet<string> = new Set([
  CloseCode.Busy,
  CloseCode.TooMany,
  CloseCode.Shutdown,
]);
const MAX_MOVES = 4;
