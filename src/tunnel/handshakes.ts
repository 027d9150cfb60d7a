/**
 * The connections of a listener whose handshake is under way, from the accept to the answer to HELLO: how many there
 * may be, for how long, and why those that were refused were.
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
  leave: () => void = () => {};

  constructor(socket: Socket) {
    this.socket = socket;
    this.remoteAddress = socket.remoteAddress ?? '';
  }
}

export interface HandshakesEvents {
  /** Emitted once for each connection that becomes part of no tunnel. */
  refused: [refused: RefusedConnection];
}

export class Handshakes extends EventEmitter<HandshakesEvents> {
  readonly counters: ListenerCounters;
  readonly #options: ResolvedListenOptions;
  readonly #limiter: ConnectionLimiter;
  /** Keyed by addresses and ports, which the plain and the TLS socket of a connection have in common. */
  readonly #byKey = new Map<string, Handshake>();
  /** Keyed by plain socket, also for a while after it is closed. */
  readonly #bySocket = new WeakMap<object, Handshake>();

  constructor(options: ResolvedListenOptions) {
    super();
    this.#options = options;
    const { maxConnectionRate: maxRate, maxHandshakes } = options;
    this.#limiter = new ConnectionLimiter(resolveLimiterOptions({ maxRate }, maxHandshakes));
    this.counters = newListenerCounters(this.#limiter.counters);
  }

  /** How many are under way. */
  get size(): number {
    return this.#byKey.size;
  }

  /** Returns whether the connection may go on; otherwise it is destroyed. */
  admit(socket: Socket): boolean {
    const { clock, handshakeTimeoutMs } = this.#options;
    socket.on('error', () => {});
    const handshake = new Handshake(socket);
    const end = (code: string, reason: string): void => {
      this.refuse(handshake, { code, reason });
      socket.destroy();
    };
    const admission = this.#limiter.admit(handshake.remoteAddress, clock.monotonicMs(), () =>
      end(CloseCode.Evicted, 'a newer connection has taken its place')
    );
    if (admission === undefined) {
      const reason = 'its address opens too many connections';
      this.refuse(handshake, { code: CloseCode.RateLimited, reason });
      // After an orderly end, the system would keep state of it for a while.
      socket.resetAndDestroy();
      return false;
    }
    const cancelTimeout = clock.after(handshakeTimeoutMs, () =>
      end(
        CloseCode.HandshakeTimeout,
        `${handshake.isDeciding ? 'no decision about it' : 'no HELLO'} within ${handshakeTimeoutMs} ms`
      )
    );
    this.#begin(handshake, admission, cancelTimeout);
    return true;
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

  #emitRefused(refused: RefusedConnection): void {
    count(this.counters.failed, refused.code);
    this.emit('refused', refused);
  }

  #begin(handshake: Handshake, admission: Admission, cancelTimeout: () => void): void {
    const { socket } = handshake;
    const key = keyOf(socket);
    handshake.leave = () => {
      cancelTimeout();
      admission.leave();
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
