/**
 * The connections of a listener whose handshake is under way, from the accept to HELLO: how many there
 * may be, for how long, and what became of those that led to nothing.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Clock } from '../base/clock.ts';
import type { Admission, ConnectionLimiter } from '../base/connection-limiter.ts';
import type { GatewayIdentity } from '../pki/names.ts';
import type { TunnelConnection } from './connection.ts';
import { type Close, CloseCode, printable } from './messages.ts';

/** A connection that led to no tunnel and no connection. */
export interface RefusedConnection {
  readonly remoteAddress: string;
  /** As `ListenerCounters.failed` counts it. */
  readonly code: string;
  readonly reason: string;
  /** Of the peer, if its certificate was verified. */
  readonly identity?: GatewayIdentity;
  /** Of the certificate, in hexadecimal digits, if it was verified. */
  readonly serial?: string;
}

export interface HandshakeLimits {
  /**
   * Connections whose handshake is under way, at most; default 128. For one more, the oldest of the
   * address that has most of them is cut.
   */
  readonly maxHandshakes?: number;
  /**
   * New connections a second of one IPv4 address or IPv6 /64, averaged; default 50. Four times as many
   * may come at once. Each connection is a connection; raise it where many sites share an address.
   */
  readonly maxConnectionRate?: number;
  /** From the accept to HELLO, and to the host's decision, in ms; default 10,000. */
  readonly handshakeTimeoutMs?: number;
}

export interface HandshakesOptions {
  readonly gate: ConnectionLimiter;
  readonly handshakeTimeoutMs: number;
  readonly clock: Clock;
  /** Called once for each connection that does not become a connection. */
  readonly onRefused: (refused: RefusedConnection) => void;
}

export class Handshake {
  readonly socket: Socket;
  readonly remoteAddress: string;
  /** When they are known. */
  identity: GatewayIdentity | undefined;
  certificate: X509Certificate | undefined;
  connection: TunnelConnection | undefined;
  /** Why it fails if it ends now; undefined while TLS is at work, whose error says more. */
  failure: Close | undefined;
  /** Its host is asked whether it may come in, and has not answered. */
  isDeciding = false;
  /** It became a connection, or has been told of. */
  isSettled = false;
  leave: () => void = () => {};

  constructor(socket: Socket) {
    this.socket = socket;
    this.remoteAddress = socket.remoteAddress ?? '';
  }
}

export class Handshakes {
  readonly #options: HandshakesOptions;
  /** The plain and the TLS socket of a connection have the same addresses and ports. */
  readonly #byKey = new Map<string, Handshake>();
  /** By plain socket, also for a while after it is closed. */
  readonly #bySocket = new WeakMap<object, Handshake>();

  constructor(options: HandshakesOptions) {
    this.#options = options;
  }

  /** How many are under way. */
  get size(): number {
    return this.#byKey.size;
  }

  /** Returns whether the connection may go on; else it is destroyed. */
  admit(socket: Socket): boolean {
    const { clock, gate, handshakeTimeoutMs } = this.#options;
    socket.on('error', () => {});
    const handshake = new Handshake(socket);
    const cut = (code: string, reason: string): void => {
      this.refuse(handshake, { code, reason });
      socket.destroy();
    };
    const admission = gate.admit(handshake.remoteAddress, clock.monotonicMs(), () =>
      cut(CloseCode.Evicted, 'it made way for a newer connection')
    );
    if (admission === undefined) {
      const reason = 'its address brings too many connections';
      this.refuse(handshake, { code: CloseCode.RateLimited, reason });
      // No state is kept of it in the system either, as there is after an orderly end.
      socket.resetAndDestroy();
      return false;
    }
    const cancelTimeout = clock.after(handshakeTimeoutMs, () =>
      cut(
        CloseCode.HandshakeTimeout,
        `${handshake.isDeciding ? 'no decision about it' : 'no HELLO'} within ${handshakeTimeoutMs} ms`
      )
    );
    this.#begin(handshake, admission, cancelTimeout);
    return true;
  }

  /** Of a connection that is under way; undefined if it is not any more. */
  of(socket: TLSSocket): Handshake | undefined {
    return this.#byKey.get(keyOf(socket));
  }

  /** It is a connection now. */
  done(handshake: Handshake): void {
    handshake.isSettled = true;
    handshake.leave();
  }

  /** Says that it leads to nothing. It counts as under way until its connection is gone. */
  refuse(handshake: Handshake, { code, reason }: Close): void {
    if (handshake.isSettled) return;
    handshake.isSettled = true;
    const { remoteAddress, identity, certificate } = handshake;
    this.#options.onRefused({
      remoteAddress,
      code,
      reason,
      ...(identity === undefined ? {} : { identity }),
      ...(certificate === undefined ? {} : { serial: certificate.serialNumber }),
    });
  }

  /** TLS has failed. `socket` may have forgotten by now whose it was. */
  onTlsError(error: NodeJS.ErrnoException, socket: TLSSocket): void {
    const code = String(error.code);
    const reason = printable(error.message);
    const handshake = this.#bySocket.get(plainSocketOf(socket) ?? socket) ?? this.of(socket);
    if (handshake === undefined) this.#options.onRefused({ remoteAddress: '', code, reason });
    else this.refuse(handshake, handshake.failure ?? { code, reason });
  }

  /** Destroys those whose certificate is one of these. */
  cut(isMeant: (certificate: X509Certificate) => boolean, close: Close): void {
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

function keyOf({ remoteAddress, remotePort, localAddress }: Socket): string {
  return `${remoteAddress} ${remotePort} ${localAddress}`;
}

/**
 * What a TLS socket was made of. Node does not tell, and has no address of a socket that is closed; where
 * this is not found, such an error is told of without one.
 */
function plainSocketOf(socket: TLSSocket): object | undefined {
  const parent = (socket as { _parent?: unknown })._parent;
  return typeof parent === 'object' && parent !== null ? parent : undefined;
}
