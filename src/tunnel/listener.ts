/**
 * The listening side. A stranger gets no further than OpenSSL: no byte of ours is parsed before the
 * peer's certificate is verified, its identity read from the leaf, and the host has agreed.
 * @module
 */
import { X509Certificate } from 'node:crypto';
import {
  type AddressInfo,
  createServer as createTcpServer,
  type Server,
  type Socket,
} from 'node:net';
import {
  createServer as createTlsServer,
  type TLSSocket,
  type Server as TlsServer,
} from 'node:tls';
import { EventEmitter } from 'eventemitter3';
import { EnvironmentError } from '../errors.ts';
import { formatIdentity, type GatewayIdentity, identityOfCertificate } from '../pki/names.ts';
import type { Json } from '../store/store.ts';
import { AcceptedTunnel } from './accepted.ts';
import { secureContext, type TunnelCredentials, tlsProfile } from './credentials.ts';
import { FrameType } from './frame.ts';
import {
  type CloseCause,
  checkLanes,
  handshakeOwner,
  type LaneLimits,
  type LaneOptions,
  resolveLimits,
  type UnsentLimit,
} from './lane.ts';
import {
  ALPN_PROTOCOL,
  type Close,
  CloseCode,
  closeFrame,
  type Hello,
  PROTOCOL_VERSION,
  printable,
  readHello,
} from './messages.ts';
import { SlabPool } from './slab-pool.ts';
import { systemTimers, type Timers } from './timers.ts';
import { TlsLane } from './tls-lane.ts';
import { connectionInfo } from './tunnel.ts';

/** A peer whose certificate is verified, at the moment when the host decides about it. */
export interface TunnelCandidate {
  readonly identity: GatewayIdentity;
  readonly certificate: X509Certificate;
  readonly remoteAddress: string;
}

/**
 * Why the host does not want a peer, as it is told: `code` is one of `CloseCode`, or one of the host's
 * own of lower-case letters, digits and hyphens; `endpoint`, with `CloseCode.Moved`, where to dial.
 */
export type TunnelRefusal = Close;

export interface ListenOptions extends TunnelCredentials, LaneLimits {
  /** Address to listen on; default all. */
  readonly host?: string;
  /** 0: any free one, see `TunnelListener.port`. */
  readonly port: number;
  /**
   * Decides about a verified peer: undefined lets it in. Asked when TLS is done, and again at HELLO,
   * just before the tunnel is up: what was true then need not be true any more. Default: lets all in.
   */
  readonly authorize?: (candidate: TunnelCandidate) => TunnelRefusal | undefined;
  /** Role that peers must have; default `site`. */
  readonly peerRole?: GatewayIdentity['role'];
  /** Connections whose handshake is under way, at most; further ones are cut. Default 128. */
  readonly maxHandshakes?: number;
  /** From the accept to HELLO, in ms; default 10,000. */
  readonly handshakeTimeoutMs?: number;
  /** Interval of PING of both sides, in ms; default 10,000. */
  readonly keepaliveMs?: number;
  /** Told to peers; default `virtual-presence`. */
  readonly software?: string;
  /** Size of the buffers in which packets are collected, in bytes; default 256 KiB. */
  readonly slabBytes?: number;
  /** Connections that may carry the packets of one tunnel; default 8. */
  readonly lanes?: number;
  /** Where there is one, the system's own queues are kept as short as the tunnel's. */
  readonly limitUnsent?: UnsentLimit;
  readonly timers?: Timers;
}

/** Cumulative. */
export interface ListenerCounters {
  /** Tunnels that came up. */
  accepted: number;
  /** Connections cut because `maxHandshakes` were under way. */
  overflowed: number;
  /** Connections that led to no tunnel, by reason: a code of Node, OpenSSL or a CLOSE, `no-alpn`. */
  readonly failed: Map<string, number>;
  /** Those of `failed` whose peer was verified but not wanted, by code. */
  readonly refused: Map<string, number>;
  /** Tunnels that were up and were closed because the peer broke the protocol. */
  protocolErrors: number;
}

export interface ListenerEvents {
  /** A tunnel is up. Set its `onPacket` before returning; the first packets may follow at once. */
  tunnel: (tunnel: AcceptedTunnel) => void;
}

interface Handshake {
  readonly socket: Socket;
  readonly cancelTimeout: () => void;
  /** What to count when it ends without a tunnel; while TLS is at work, `tlsClientError` tells. */
  failure: string | undefined;
}

export class TunnelListener extends EventEmitter<ListenerEvents> {
  /** Who this side is, by its own certificate. */
  readonly identity: GatewayIdentity;
  /** Tunnels that are up. */
  readonly tunnels: ReadonlySet<AcceptedTunnel>;
  readonly counters: ListenerCounters = {
    accepted: 0,
    overflowed: 0,
    failed: new Map(),
    refused: new Map(),
    protocolErrors: 0,
  };
  readonly #options: ListenOptions;
  readonly #timers: Timers;
  readonly #laneOptions: LaneOptions;
  readonly #tcp: Server;
  readonly #tls: TlsServer;
  readonly #maxLanes: number;
  readonly #tunnels = new Set<AcceptedTunnel>();
  /** By the peer's identity and what it calls the tunnel. */
  readonly #tunnelsById = new Map<string, AcceptedTunnel>();
  /** By remote address and port, which the plain and the TLS socket of a connection share. */
  readonly #handshakes = new Map<string, Handshake>();
  /** Connections that were cut during TLS, and that `tlsClientError` has not told of yet. */
  #cut = 0;
  #port = 0;

  private constructor(options: ListenOptions) {
    super();
    secureContext(options);
    this.identity = identityOfCertificate(new X509Certificate(options.cert));
    this.tunnels = this.#tunnels;
    this.#options = options;
    this.#timers = options.timers ?? systemTimers;
    this.#maxLanes = checkLanes(options.lanes ?? DEFAULT_LANES);
    this.#laneOptions = {
      ...resolveLimits(options),
      pool: new SlabPool(options.slabBytes),
      timers: this.#timers,
      limitUnsent: options.limitUnsent,
    };
    // Two servers, so that a connection can be counted and cut before TLS spends anything on it.
    this.#tcp = createTcpServer({ noDelay: true }, (socket) => this.#onConnection(socket));
    this.#tls = createTlsServer({
      ...tlsProfile(options),
      requestCert: true,
      rejectUnauthorized: true,
      ALPNProtocols: [ALPN_PROTOCOL],
    });
    this.#tls.on('secureConnection', (socket) => this.#onSecure(socket));
    this.#tls.on('tlsClientError', (error: NodeJS.ErrnoException, socket) => {
      const reason = String(socket.authorizationError ?? error.code);
      // Emitted for those that we have cut ourselves too; then it does not tell which one it was.
      if (reason === 'ECONNRESET' && this.#cut > 0) this.#cut--;
      else count(this.counters.failed, reason);
    });
  }

  /** See `MtlsTunnel.listen`. */
  static async listen(options: ListenOptions): Promise<TunnelListener> {
    const listener = new TunnelListener(options);
    const { host, port } = options;
    await new Promise<void>((resolve, reject) => {
      const tcp = listener.#tcp;
      tcp.once('error', (error: NodeJS.ErrnoException) => {
        const where = `port ${port} of ${host ?? 'any address'}`;
        const why = error.code === 'EADDRINUSE' ? 'it is in use' : error.message;
        reject(new EnvironmentError(`cannot listen on ${where}: ${why}`, { cause: error }));
      });
      tcp.listen(port, host, () => {
        tcp.removeAllListeners('error');
        // Out of file descriptors, for example: those who are there are served on.
        tcp.on('error', (error: NodeJS.ErrnoException) => {
          count(listener.counters.failed, error.code ?? error.name);
        });
        listener.#port = (tcp.address() as AddressInfo).port;
        resolve();
      });
    });
    return listener;
  }

  /** The port that it listens on, also after `close`. */
  get port(): number {
    return this.#port;
  }

  /** Connections whose handshake is under way. */
  get handshakes(): number {
    return this.#handshakes.size;
  }

  /**
   * Uses other credentials for the connections to come; those that are up stay.
   *
   * @throws {CertificateError} if they are unusable; those before are kept then.
   */
  updateCredentials(credentials: TunnelCredentials): void {
    secureContext(credentials);
    this.#tls.setSecureContext(tlsProfile(credentials));
  }

  /** Takes no more connections, sends what the tunnels hold, and ends them. */
  async close(code: string = CloseCode.Shutdown, reason: string = ''): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#tcp.close(() => resolve()));
    for (const { socket } of this.#handshakes.values()) socket.destroy();
    await Promise.all([...this.#tunnels].map((tunnel) => tunnel.close(code, reason)));
    await closed;
  }

  #onConnection(socket: Socket): void {
    const { maxHandshakes = 128, handshakeTimeoutMs = 10_000 } = this.#options;
    socket.on('error', () => {});
    if (this.#handshakes.size >= maxHandshakes) {
      this.counters.overflowed++;
      socket.destroy();
      return;
    }
    const key = keyOf(socket);
    const handshake: Handshake = {
      socket,
      failure: undefined,
      cancelTimeout: this.#timers.after(handshakeTimeoutMs, () => {
        if (handshake.failure === undefined) this.#cut++;
        handshake.failure = CloseCode.HandshakeTimeout;
        socket.destroy();
      }),
    };
    this.#handshakes.set(key, handshake);
    socket.once('close', () => {
      if (!this.#endHandshake(key)) return;
      if (handshake.failure !== undefined) count(this.counters.failed, handshake.failure);
    });
    this.#tls.emit('connection', socket);
  }

  #endHandshake(key: string): boolean {
    this.#handshakes.get(key)?.cancelTimeout();
    return this.#handshakes.delete(key);
  }

  /** Says what to count if a handshake fails from here on. */
  #explain(socket: Socket, failure: string): void {
    const handshake = this.#handshakes.get(keyOf(socket));
    if (handshake !== undefined) handshake.failure = failure;
  }

  #onSecure(socket: TLSSocket): void {
    socket.on('error', () => {});
    this.#explain(socket, CloseCode.ConnectionLost);
    if (socket.alpnProtocol !== ALPN_PROTOCOL) {
      // TLS lets a client that names no protocol through.
      this.#explain(socket, 'no-alpn');
      socket.destroy();
      return;
    }
    const certificate = socket.getPeerX509Certificate();
    if (!socket.authorized || certificate === undefined) {
      socket.destroy();
      return;
    }
    const decision = this.#decide(certificate, socket.remoteAddress ?? '');
    if ('code' in decision) {
      count(this.counters.refused, decision.code);
      this.#explain(socket, decision.code);
      socket.end(closeFrame(decision));
      return;
    }
    const lane: TlsLane = new TlsLane(
      socket,
      FrameType.Hello,
      handshakeOwner({
        onHandshake: (message) => this.#onHello(lane, message, decision, socket),
        onLaneClosed: ({ code }) => this.#explain(socket, code),
      }),
      this.#laneOptions
    );
  }

  #onHello(
    lane: TlsLane,
    message: Json,
    candidate: TunnelCandidate,
    socket: TLSSocket
  ): string | undefined {
    const hello = readHello(message);
    if (hello === undefined) return 'the HELLO is malformed';
    const { authorize, software = 'virtual-presence', keepaliveMs = 10_000 } = this.#options;
    const peer = formatIdentity(candidate.identity);
    const id = hello.tunnel === undefined ? undefined : `${peer} ${hello.tunnel}`;
    const isFurther = (hello.lane ?? 0) > 0;
    const tunnel = isFurther && id !== undefined ? this.#tunnelsById.get(id) : undefined;
    const refusal =
      authorize?.(candidate) ??
      (isFurther && (tunnel === undefined || tunnel.lanes >= this.#maxLanes)
        ? { code: CloseCode.NoTunnel, reason: 'there is no tunnel that takes the lane' }
        : undefined);
    if (refusal !== undefined) {
      count(this.counters.refused, refusal.code);
      lane.abort(refusal);
      return undefined;
    }
    lane.sendHandshake(FrameType.Welcome, {
      version: PROTOCOL_VERSION,
      software,
      peer,
      keepaliveMs,
      lanes: this.#maxLanes,
    });
    lane.becomeUp(keepaliveMs);
    this.#endHandshake(keyOf(socket));
    if (tunnel !== undefined) tunnel.join(lane);
    else this.#welcome(lane, candidate.identity, hello, id, socket);
    return undefined;
  }

  #welcome(
    lane: TlsLane,
    peer: GatewayIdentity,
    hello: Hello,
    id: string | undefined,
    socket: TLSSocket
  ): void {
    const { maxSlabs, timers } = this.#laneOptions;
    const tunnel: AcceptedTunnel = new AcceptedTunnel(lane, {
      peer,
      info: connectionInfo(socket),
      hello,
      maxSlabs,
      timers,
      onClosed: (cause) => this.#onClosed(tunnel, id, cause),
    });
    this.#tunnels.add(tunnel);
    if (id !== undefined) this.#tunnelsById.set(id, tunnel);
    this.counters.accepted++;
    this.emit('tunnel', tunnel);
  }

  #decide(certificate: X509Certificate, remoteAddress: string): TunnelCandidate | TunnelRefusal {
    const { authorize, peerRole = 'site' } = this.#options;
    let identity: GatewayIdentity;
    try {
      identity = identityOfCertificate(certificate);
    } catch (error) {
      return { code: CloseCode.WrongIdentity, reason: printable((error as Error).message) };
    }
    if (identity.role !== peerRole || identity.trustDomain !== this.identity.trustDomain) {
      const reason = `peers here are of role ${peerRole} in ${this.identity.trustDomain}`;
      return { code: CloseCode.WrongIdentity, reason };
    }
    const candidate = { identity, certificate, remoteAddress };
    return authorize?.(candidate) ?? candidate;
  }

  #onClosed(tunnel: AcceptedTunnel, id: string | undefined, { by, code }: CloseCause): void {
    this.#tunnels.delete(tunnel);
    if (id !== undefined && this.#tunnelsById.get(id) === tunnel) this.#tunnelsById.delete(id);
    if (by === 'us' && code === CloseCode.ProtocolError) this.counters.protocolErrors++;
  }
}

function keyOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}

function count(counters: Map<string, number>, reason: string): void {
  counters.set(reason, (counters.get(reason) ?? 0) + 1);
}

const DEFAULT_LANES = 8;
