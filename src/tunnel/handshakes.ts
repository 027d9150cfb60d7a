/**
 * The connections of a listener whose handshake is under way, from the accept to the answer to HELLO: how many there
 * may be, for how long, and why those that were refused were. The TLS of a connection begins when the work of those
 * before it is done (`start-queue.ts`): it waits for half of `handshakeTimeoutMs` at most, and has the other half.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { EventEmitter } from 'eventemitter3';
import {
  type Admission,
  addressKey,
  ConnectionLimiter,
  resolveLimiterOptions,
} from '../base/connection-limiter.ts';
import type { GatewayIdentity } from '../pki/names.ts';
import type { TunnelConnection } from './connection.ts';
import { HandshakeRate } from './handshake-rate.ts';
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
  /** The key of its address. */
  readonly address: string;
  /** These three are set when they are known. */
  identity: GatewayIdentity | undefined;
  certificate: X509Certificate | undefined;
  connection: TunnelConnection | undefined;
  /** Why it fails if it ends now; undefined during the TLS handshake, whose error says more. */
  failure: Close | undefined = { code: CloseCode.ConnectionLost, reason: 'it ended before TLS' };
  /** Whether the host is asked about the peer, and has not answered. */
  isDeciding = false;
  /** Whether it is accepted, or refused. */
  isSettled = false;
  /** Undefined until its TLS begins. */
  admission: Admission | undefined;
  leave: () => void = () => {};

  constructor(socket: Socket) {
    this.socket = socket;
    this.remoteAddress = socket.remoteAddress ?? '';
    this.address = addressKey(this.remoteAddress);
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
  readonly rate: HandshakeRate;
  readonly #options: ResolvedListenOptions;
  readonly #limiter: ConnectionLimiter;
  readonly #queue: StartQueue<Handshake>;
  /** Keyed by addresses and ports, which the plain and the TLS socket of a connection have in common. */
  readonly #byKey = new Map<string, Handshake>();
  /** Keyed by plain socket, also for a while after it is closed. */
  readonly #bySocket = new WeakMap<object, Handshake>();
  /** When a connection was accepted last. */
  #doneMs = Number.NEGATIVE_INFINITY;

  constructor(options: ResolvedListenOptions) {
    super();
    this.#options = options;
    this.rate = new HandshakeRate(options.clock);
    const { maxConnectionRate: maxRate, maxHandshakes } = options;
    this.#limiter = new ConnectionLimiter(resolveLimiterOptions({ maxRate }, maxHandshakes));
    const { clock } = options;
    this.#queue = new StartQueue({
      max: WAITING_FACTOR * maxHandshakes,
      clock,
      hasRoom: (address) => this.#limiter.hasRoom(address, clock.monotonicMs()),
      begin: (handshake) => this.#begin(handshake),
    });
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
    socket.on('error', () => {});
    const handshake = new Handshake(socket);
    if (!this.#limiter.allows(handshake.address, this.#options.clock.monotonicMs())) {
      const reason = 'its address opens too many connections';
      this.#reset(handshake, { code: CloseCode.RateLimited, reason });
      return;
    }
    this.#track(handshake);
    const excess = this.#queue.add(handshake);
    if (excess === undefined) return;
    // Nothing can be said before TLS, so the peer waits as its own backoff says.
    this.#reset(excess, { code: CloseCode.Busy, reason: 'too many connections wait for TLS' });
  }

  /** Returns the handshake of a connection; undefined if it is not under way any more. */
  of(socket: TLSSocket): Handshake | undefined {
    return this.#byKey.get(keyOf(socket));
  }

  /** The connection is accepted. */
  done(handshake: Handshake): void {
    handshake.isSettled = true;
    this.#doneMs = this.#options.clock.monotonicMs();
    this.rate.onDone();
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
    handshake.leave();
    // After an orderly end, the system would keep state of it for a while.
    handshake.socket.resetAndDestroy();
  }

  #begin(handshake: Handshake): void {
    // It leaves when its socket has said so.
    if (handshake.socket.destroyed) return;
    handshake.failure = undefined;
    const nowMs = this.#options.clock.monotonicMs();
    handshake.admission = this.#limiter.enter(
      handshake.address,
      nowMs,
      () => this.#evict(handshake),
      (atMs) => this.#isLate(handshake, atMs - nowMs, atMs)
    );
    this.emit('begin', handshake.socket);
  }

  /** Whether a connection may be ended for another one of its address. `ageMs` is the time since its TLS has begun. */
  #isLate({ socket }: Handshake, ageMs: number, nowMs: number): boolean {
    if (ageMs >= this.#halfTimeMs) return true;
    // While peers come in, the ClientHello of a busy one may still be on its way.
    return socket.bytesRead < MIN_CLIENT_HELLO && nowMs - this.#doneMs > STORM_MS;
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

  #track(handshake: Handshake): void {
    const { socket } = handshake;
    const key = keyOf(socket);
    let cancelTimer = this.#options.clock.after(this.#halfTimeMs, () => {
      if (handshake.admission === undefined) {
        // The work of TLS would be in vain: the peer gives up before a handshake that begins now is done.
        this.#reset(handshake, { code: CloseCode.Busy, reason: 'it has waited too long for TLS' });
        return;
      }
      cancelTimer = this.#options.clock.after(this.#halfTimeMs, () => this.#onTimeout(handshake));
    });
    handshake.leave = () => {
      cancelTimer();
      if (this.#byKey.get(key) === handshake) this.#byKey.delete(key);
      this.#queue.delete(handshake);
      handshake.admission?.leave();
      this.#queue.check();
    };
    this.#byKey.set(key, handshake);
    this.#bySocket.set(socket, handshake);
    socket.once('close', () => {
      handshake.leave();
      if (handshake.failure !== undefined) this.refuse(handshake, handshake.failure);
    });
  }

  #onTimeout(handshake: Handshake): void {
    const missing = handshake.isDeciding ? 'no decision about it' : 'no HELLO';
    const reason = `${missing} within ${this.#options.handshakeTimeoutMs} ms`;
    this.refuse(handshake, { code: CloseCode.HandshakeTimeout, reason });
    handshake.socket.destroy();
  }

  /** How long a connection may wait until its TLS begins, and for how long none of its address takes its place then. */
  get #halfTimeMs(): number {
    return this.#options.handshakeTimeoutMs / 2;
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
/** Bytes that a ClientHello of TLS 1.3 with a key share has at least. */
const MIN_CLIENT_HELLO = 100;
/** For how long after a connection was accepted more are expected, in ms. */
const STORM_MS = 1_000;
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
