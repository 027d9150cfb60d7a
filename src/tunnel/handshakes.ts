/**
 * The connections of a listener whose handshake is under way, from the accept to the answer to HELLO: how many there
 * may be, for how long, and why those that were refused were. The TLS of a connection begins when the work of those
 * before it is done (`start-queue.ts`).
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { EventEmitter } from 'eventemitter3';
import {
  type Admission,
  ConnectionLimiter,
  resolveLimiterOptions,
} from '../base/connection-limiter.ts';
import type { GatewayIdentity } from '../pki/names.ts';
import type { TunnelConnection } from './connection.ts';
import { type Close, CloseCode, printable } from './messages.ts';
import type { ResolvedListenOptions } from './options.ts';
import { StartQueue } from './start-queue.ts';

/** A connection that became part of no tunnel. */
export interface RefusedConnection {
  readonly remoteAddress: string;
  /** The code under which `ListenerCounters.failed` counts it. */
  readonly code: string;
  readonly reason: string;
  /** The identity of the peer, if its certificate was verified. */
  readonly identity?: GatewayIdentity;
  /** The serial number of the certificate in hexadecimal digits, if it was verified. */
  readonly serial?: string;
}

/** Cumulative. */
export interface ListenerCounters {
  /** Tunnels that came up. */
  accepted: number;
  /** Tunnels whose primary connection was replaced by one under a newer certificate. */
  renewed: number;
  /** Connections that were given to a function of `otherProtocols`. */
  otherProtocols: number;
  /** Connections ended because `maxHandshakes` were under way. */
  readonly evicted: number;
  /** Connections ended because their address opened more than `maxConnectionRate`. */
  readonly rateLimited: number;
  /**
   * Connections that became part of no tunnel, by reason: a code of Node, of OpenSSL or of a CLOSE of this side,
   * `no-alpn` or `peer-closed`.
   */
  readonly failed: Map<string, number>;
  /** The part of `failed` whose peer was verified but refused, by code. */
  readonly refused: Map<string, number>;
  /** Connections that were up and were closed because the peer broke the protocol. */
  protocolErrors: number;
  /** Tunnels that were closed because the peer sent more control messages than `maxControlRate`. */
  controlFloods: number;
  /** Tunnels that were closed because the certificate of their primary connection had expired. */
  expired: number;
}

export class Handshake {
  readonly socket: Socket;
  readonly remoteAddress: string;
  /** When it was accepted, by the monotonic clock. */
  readonly sinceMs: number;
  /** These three are set when they are known. */
  identity: GatewayIdentity | undefined;
  certificate: X509Certificate | undefined;
  connection: TunnelConnection | undefined;
  /** Why it fails if it ends now; undefined during the TLS handshake, whose error says more. */
  failure: Close | undefined;
  /** Whether the host is asked about the peer, and has not answered. */
  isDeciding = false;
  /** Whether it is accepted, or refused. */
  isSettled = false;
  /** Since its TLS has begun, it counts as pending. */
  admission: Admission | undefined;
  leave: () => void = () => {};

  constructor(socket: Socket, sinceMs: number) {
    this.socket = socket;
    this.sinceMs = sinceMs;
    this.remoteAddress = socket.remoteAddress ?? '';
  }
}

export interface HandshakesEvents {
  /** The TLS of a connection is to begin. */
  begin: [socket: Socket];
  /** Emitted once for each connection that becomes part of no tunnel. */
  refused: [refused: RefusedConnection];
}

export class Handshakes extends EventEmitter<HandshakesEvents> {
  readonly counters: ListenerCounters;
  readonly #options: ResolvedListenOptions;
  readonly #limiter: ConnectionLimiter;
  readonly #queue: StartQueue<Handshake>;
  /** Keyed by addresses and ports, which the plain and the TLS socket of a connection have in common. */
  readonly #byKey = new Map<string, Handshake>();
  /** Keyed by plain socket, also for a while after it is closed. */
  readonly #bySocket = new WeakMap<object, Handshake>();

  constructor(options: ResolvedListenOptions) {
    super();
    this.#options = options;
    const { maxConnectionRate: maxRate, maxHandshakes } = options;
    this.#limiter = new ConnectionLimiter(resolveLimiterOptions({ maxRate }, maxHandshakes));
    this.#queue = new StartQueue(
      WAITING_FACTOR * maxHandshakes,
      (handshake) => this.#begin(handshake),
      () => this.#limiter.pending < maxHandshakes
    );
    this.counters = newListenerCounters(this.#limiter.counters);
  }

  /** How many are under way. */
  get size(): number {
    return this.#byKey.size;
  }

  /**
   * Takes a connection that was accepted. Its TLS begins in this turn of the event loop or in one of the next ones. The
   * connection is destroyed if its address opens too many, or if too many wait.
   */
  accept(socket: Socket): void {
    const { clock, handshakeTimeoutMs } = this.#options;
    socket.on('error', () => {});
    const nowMs = clock.monotonicMs();
    const handshake = new Handshake(socket, nowMs);
    if (!this.#limiter.allows(handshake.remoteAddress, nowMs)) {
      const reason = 'its address opens too many connections';
      this.#reset(handshake, { code: CloseCode.RateLimited, reason });
      return;
    }
    if (this.#queue.isFull) {
      // Nothing can be said before TLS, so the peer is told to wait longer by its own backoff only.
      this.#reset(handshake, { code: CloseCode.Busy, reason: 'too many connections wait for TLS' });
      return;
    }
    const cancelTimeout = clock.after(handshakeTimeoutMs, () => {
      const missing = handshake.isDeciding ? 'no decision about it' : 'no HELLO';
      const reason = `${missing} within ${handshakeTimeoutMs} ms`;
      this.refuse(handshake, { code: CloseCode.HandshakeTimeout, reason });
      socket.destroy();
    });
    this.#enter(handshake, cancelTimeout);
    this.#queue.add(handshake);
  }

  /** Returns the handshake of a connection; undefined if it is not under way any more. */
  of(socket: TLSSocket): Handshake | undefined {
    return this.#byKey.get(keyOf(socket));
  }

  /** The connection is accepted. */
  done(handshake: Handshake): void {
    handshake.isSettled = true;
    handshake.leave();
  }

  /** The connection is refused. It counts as under way until its socket is closed. */
  refuse(handshake: Handshake, { code, reason }: Close): void {
    if (handshake.isSettled) return;
    handshake.isSettled = true;
    const { remoteAddress, identity, certificate } = handshake;
    this.#emitRefused({
      remoteAddress,
      code,
      reason,
      ...(identity === undefined ? {} : { identity }),
      ...(certificate === undefined ? {} : { serial: certificate.serialNumber }),
    });
  }

  /** The TLS handshake has failed. `socket` may have lost its address by now. */
  onTlsError(error: NodeJS.ErrnoException, socket: TLSSocket): void {
    const code = String(error.code);
    const reason = printable(error.message);
    const handshake = this.#bySocket.get(plainSocketOf(socket) ?? socket) ?? this.of(socket);
    if (handshake === undefined) this.#emitRefused({ remoteAddress: '', code, reason });
    else this.refuse(handshake, handshake.failure ?? { code, reason });
  }

  /** Destroys the connections whose certificate is one of these. */
  terminate(isMeant: (certificate: X509Certificate) => boolean, close: Close): void {
    for (const handshake of [...this.#byKey.values()]) {
      const { certificate, connection, socket } = handshake;
      if (certificate === undefined || !isMeant(certificate)) continue;
      this.refuse(handshake, close);
      connection?.destroy(close.code, close.reason);
      socket.destroy();
    }
  }

  /** Destroys all. */
  close(close: Close): void {
    for (const handshake of [...this.#byKey.values()]) {
      this.refuse(handshake, close);
      handshake.socket.destroy();
    }
  }

  /** Ends a connection without an answer. */
  #reset(handshake: Handshake, close: Close): void {
    this.refuse(handshake, close);
    // After an orderly end, the system would keep state of it for a while.
    handshake.socket.resetAndDestroy();
  }

  #begin(handshake: Handshake): void {
    const { clock, handshakeTimeoutMs } = this.#options;
    const nowMs = clock.monotonicMs();
    if (nowMs - handshake.sinceMs > handshakeTimeoutMs / 2) {
      // The peer is about to give up, or has done so, and the work of TLS would be in vain.
      this.#reset(handshake, { code: CloseCode.Busy, reason: 'it has waited too long for TLS' });
      return;
    }
    handshake.admission = this.#limiter.enter(handshake.remoteAddress, nowMs, () =>
      this.#evict(handshake)
    );
    this.emit('begin', handshake.socket);
  }

  /** Ends a connection for a newer one. A verified peer that waits for the host's decision learns when to come again. */
  #evict(handshake: Handshake): void {
    const reason = 'a newer connection has taken its place';
    this.refuse(handshake, { code: CloseCode.Evicted, reason });
    const { connection, isDeciding, socket } = handshake;
    if (connection === undefined || !isDeciding) {
      socket.destroy();
      return;
    }
    handshake.leave();
    const text = 'too many peers wait for a decision';
    connection.abort({ code: CloseCode.Busy, reason: text, retryAfterMs: RETRY_AFTER_MS });
  }

  #emitRefused(refused: RefusedConnection): void {
    count(this.counters.failed, refused.code);
    this.emit('refused', refused);
  }

  #enter(handshake: Handshake, cancelTimeout: () => void): void {
    const { socket } = handshake;
    const key = keyOf(socket);
    handshake.leave = () => {
      cancelTimeout();
      handshake.admission?.leave();
      if (this.#byKey.get(key) === handshake) this.#byKey.delete(key);
    };
    this.#byKey.set(key, handshake);
    this.#bySocket.set(socket, handshake);
    socket.once('close', () => {
      handshake.leave();
      if (handshake.failure !== undefined) this.refuse(handshake, handshake.failure);
    });
  }
}

/** Adds one to the counter of a reason. */
export function count(counters: Map<string, number>, reason: string): void {
  counters.set(reason, (counters.get(reason) ?? 0) + 1);
}

function newListenerCounters(limiter: ConnectionLimiter['counters']): ListenerCounters {
  return {
    accepted: 0,
    renewed: 0,
    otherProtocols: 0,
    get evicted() {
      return limiter.evicted;
    },
    get rateLimited() {
      return limiter.rateLimited;
    },
    failed: new Map(),
    refused: new Map(),
    protocolErrors: 0,
    controlFloods: 0,
    expired: 0,
  };
}

/** How many connections may wait for their TLS to begin, for each one that may be in its handshake. */
const WAITING_FACTOR = 8;
/** When a peer that is ended while it waits for the host's decision is to dial again, in ms. */
const RETRY_AFTER_MS = 2_000;

function keyOf({ remoteAddress, remotePort, localAddress }: Socket): string {
  return `${remoteAddress} ${remotePort} ${localAddress}`;
}

/**
 * Returns the socket below a TLS socket. Node has no public name for it, and a closed socket has no address; where it
 * is not found, the error is reported without an address.
 */
function plainSocketOf(socket: TLSSocket): object | undefined {
  const parent = (socket as { _parent?: unknown })._parent;
  return typeof parent === 'object' && parent !== null ? parent : undefined;
}
