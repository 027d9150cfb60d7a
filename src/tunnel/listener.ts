/**
 * The listening side. An unauthenticated peer gets no further than OpenSSL: no byte of ours is parsed before the
 * peer's certificate is verified, its identity read from the leaf, and the host has agreed. A connection of another
 * protocol that the host serves on the same port is handed to the host when TLS is done.
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
import { type Clock, systemClock } from '../clock.ts';
import { EnvironmentError } from '../errors.ts';
import type { Credentials } from '../pki/credentials.ts';
import { formatIdentity, type GatewayIdentity, identityOfCertificate } from '../pki/names.ts';
import { checkRate, RateLimit } from '../rate-limit.ts';
import type { Json } from '../store/store.ts';
import { AcceptedTunnel } from './accepted.ts';
import { askHost, type TunnelCandidate, type TunnelRefusal } from './authorize.ts';
import { secureContext, tlsProfile } from './credentials.ts';
import { checkGrace, DEFAULT_GRACE_MS } from './expiry.ts';
import { FrameType } from './frame.ts';
import { type Handshake, Handshakes } from './handshakes.ts';
import {
  type CloseCause,
  checkLanes,
  checkWhole,
  handshakeOwner,
  type LaneOptions,
  resolveLimits,
} from './lane.ts';
import {
  checkOtherProtocols,
  type ListenerCounters,
  type ListenOptions,
  newListenerCounters,
} from './listen-options.ts';
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
import { TlsLane } from './tls-lane.ts';
import { type ConnectionInfo, connectionInfo } from './tunnel.ts';

export interface ListenerEvents {
  /** A tunnel is up. Set its `onPacket` before returning; the first packets may follow at once. */
  tunnel: [tunnel: AcceptedTunnel];
  /** `authorize` has failed, and so the peer was refused; `site` is undefined if the peer is not one. */
  problem: [problem: { readonly error: Error; readonly site: string | undefined }];
}

export class TunnelListener extends EventEmitter<ListenerEvents> {
  /** Who this side is, by its own certificate. */
  readonly identity: GatewayIdentity;
  /** Tunnels that are up. */
  readonly tunnels: ReadonlySet<AcceptedTunnel>;
  readonly counters: ListenerCounters;
  readonly #options: ListenOptions;
  readonly #clock: Clock;
  readonly #laneOptions: LaneOptions;
  readonly #tcp: Server;
  readonly #tls: TlsServer;
  readonly #otherProtocols: ReadonlyMap<string, (socket: TLSSocket) => void>;
  /** Connections of those protocols. */
  readonly #otherSockets = new Set<TLSSocket>();
  readonly #maxLanes: number;
  readonly #expiryGraceMs: number;
  readonly #tunnels = new Set<AcceptedTunnel>();
  /** By the peer's identity and what it calls the tunnel. */
  readonly #tunnelsById = new Map<string, AcceptedTunnel>();
  readonly #handshakes: Handshakes;
  /** All whose connection is there, with the peer's certificate. */
  readonly #lanes = new Map<TlsLane, X509Certificate>();
  /** Of identities. */
  readonly #rates: RateLimit;
  #port = 0;

  private constructor(options: ListenOptions) {
    super();
    secureContext(options);
    this.identity = identityOfCertificate(new X509Certificate(options.cert));
    this.tunnels = this.#tunnels;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#maxLanes = checkLanes(options.lanes ?? DEFAULT_LANES);
    this.#otherProtocols = checkOtherProtocols(options.otherProtocols ?? {});
    this.#expiryGraceMs = checkGrace(options.expiryGraceMs ?? DEFAULT_GRACE_MS);
    this.#laneOptions = {
      ...resolveLimits({
        maxReceivedControlBytes: Math.min(options.maxControlBytes ?? Infinity, FROM_PEERS_BYTES),
        ...options,
      }),
      pool: new SlabPool(options.slabBytes),
      clock: this.#clock,
      limitUnsent: options.limitUnsent,
    };
    const { maxTunnelRate = 2, maxTunnelBurst = 20 } = options;
    checkWhole('maxTunnelBurst', maxTunnelBurst);
    this.#rates = new RateLimit(checkRate('maxTunnelRate', maxTunnelRate), maxTunnelBurst);
    this.#handshakes = new Handshakes({
      ...options,
      clock: this.#clock,
      onRefused: (refused) => {
        count(this.counters.failed, refused.code);
        options.onRefused?.(refused);
      },
    });
    this.counters = newListenerCounters(this.#handshakes.gate.counters);
    // Two servers, so that a connection can be counted and cut before TLS spends anything on it.
    this.#tcp = createTcpServer({ noDelay: true }, (socket) => this.#onConnection(socket));
    this.#tls = createTlsServer({
      ...tlsProfile(options),
      requestCert: true,
      // `#onSecure` does, with a word to the peer: an edge that was away too long is to know why.
      rejectUnauthorized: false,
      ALPNProtocols: [ALPN_PROTOCOL, ...this.#otherProtocols.keys()],
    });
    this.#tls.on('secureConnection', (socket) => this.#onSecure(socket));
    this.#tls.on('tlsClientError', (error, socket) => this.#handshakes.onTlsError(error, socket));
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
   * Uses other credentials for the connections to come; those that are up stay. `ca` may hold several
   * certificates: while an authority is followed by another one, peers of both are let in.
   *
   * @throws {CertificateError} if they are unusable; those before are kept then.
   */
  updateCredentials(credentials: Credentials): void {
    secureContext(credentials);
    this.#tls.setSecureContext(tlsProfile(credentials));
  }

  /**
   * Ends every tunnel that has a lane with one of these certificates, and every connection whose handshake
   * is under way with one. Nothing of them passes any more when it returns. A connection of which no
   * certificate is known yet is left to `authorize`, which ought to refuse it by then.
   *
   * @returns how many tunnels it has ended
   */
  cut(isRevoked: (certificate: X509Certificate) => boolean, code: string, reason: string): number {
    const tunnels = [...this.#tunnels].filter(({ certificates }) => certificates.some(isRevoked));
    // Of a tunnel that is being closed, what waits may still be under way to the peer.
    for (const [lane, certificate] of this.#lanes) {
      if (lane.isClosing && isRevoked(certificate)) lane.destroy(code, reason);
    }
    for (const tunnel of tunnels) void tunnel.abort(code, reason);
    this.#handshakes.cut(isRevoked, { code, reason });
    return tunnels.length;
  }

  /** Takes no more connections, sends what the tunnels hold, and ends them. */
  async close(code: string = CloseCode.Shutdown, reason: string = ''): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#tcp.close(() => resolve()));
    this.#handshakes.close({ code: CloseCode.Shutdown, reason: 'the listener is closed' });
    for (const socket of this.#otherSockets) socket.destroy();
    await Promise.all([...this.#tunnels].map((tunnel) => tunnel.close(code, reason)));
    await closed;
  }

  #onConnection(socket: Socket): void {
    if (this.#handshakes.admit(socket)) this.#tls.emit('connection', socket);
  }

  #onSecure(socket: TLSSocket): void {
    socket.on('error', () => {});
    const handshake = this.#handshakes.of(socket);
    if (handshake === undefined) {
      socket.destroy();
      return;
    }
    const serveOther = this.#otherProtocols.get(String(socket.alpnProtocol));
    if (serveOther !== undefined) {
      this.#handOver(handshake, socket, serveOther);
      return;
    }
    const certificate = socket.getPeerX509Certificate();
    if (!socket.authorized || certificate === undefined) {
      this.#distrust(handshake, socket, certificate !== undefined);
      return;
    }
    handshake.failure = { code: CloseCode.ConnectionLost, reason: 'it ended before HELLO' };
    handshake.certificate = certificate;
    if (socket.alpnProtocol !== ALPN_PROTOCOL) {
      // TLS lets a client that names no protocol through.
      this.#handshakes.refuse(handshake, { code: 'no-alpn', reason: 'it names no protocol' });
      socket.destroy();
      return;
    }
    const candidate = this.#identify(handshake, certificate);
    if ('code' in candidate) {
      this.#turnAway(handshake, socket, candidate);
      return;
    }
    this.#decide(handshake, candidate, (refused) => {
      const refusal = refused ?? this.#rateFault(candidate);
      if (refusal === undefined) this.#awaitHello({ handshake, socket, candidate });
      else this.#turnAway(handshake, socket, refusal);
    });
  }

  #awaitHello(peer: Peer): void {
    const { handshake, socket } = peer;
    const lane: TlsLane = new TlsLane(
      socket,
      FrameType.Hello,
      handshakeOwner({
        onHandshake: (message) => this.#onHello(lane, message, peer),
        onLaneClosed: (cause) => this.#handshakes.refuse(handshake, withoutCode(cause)),
      }),
      this.#laneOptions
    );
    handshake.lane = lane;
  }

  #handOver(handshake: Handshake, socket: TLSSocket, serve: (socket: TLSSocket) => void): void {
    this.counters.otherProtocols++;
    this.#handshakes.done(handshake);
    this.#otherSockets.add(socket);
    socket.once('close', () => this.#otherSockets.delete(socket));
    serve(socket);
  }

  #distrust(handshake: Handshake, socket: TLSSocket, hasCertificate: boolean): void {
    const code = hasCertificate ? String(socket.authorizationError) : 'no-certificate';
    this.#handshakes.refuse(handshake, { code, reason: 'the certificate is not trusted here' });
    const reason = `the certificate is not trusted here: ${code}`;
    this.#farewell(socket, { code: CloseCode.Untrusted, reason });
  }

  #turnAway(handshake: Handshake, socket: TLSSocket, refusal: TunnelRefusal): void {
    this.#refuse(handshake, refusal);
    this.#farewell(socket, refusal);
  }

  /** Ends a connection with a word. */
  #farewell(socket: TLSSocket, close: Close): void {
    socket.end(closeFrame(close));
    // What the peer has sent would, unread, make the system take the CLOSE back.
    socket.resume();
    const cancel = this.#clock.after(FAREWELL_MS, () => socket.destroy());
    socket.once('close', cancel);
  }

  #onHello(lane: TlsLane, message: Json, peer: Peer): string | undefined {
    const hello = readHello(message);
    if (hello === undefined) return 'the HELLO is malformed';
    const { handshake, candidate } = peer;
    lane.awaitAnswer();
    this.#decide(handshake, { ...candidate, step: 'hello' }, (refused) => {
      const name = formatIdentity(candidate.identity);
      const id = hello.tunnel === undefined ? undefined : `${name} ${hello.tunnel}`;
      // It may have come or gone while the host decided.
      const tunnel = id === undefined ? undefined : this.#tunnelsById.get(id);
      const refusal = refused ?? this.#placeFault(hello, tunnel);
      if (refusal === undefined) {
        this.#accept(lane, hello, peer, id, tunnel);
        return;
      }
      this.#refuse(handshake, refusal);
      lane.abort(refusal);
    });
    return undefined;
  }

  #accept(
    lane: TlsLane,
    hello: Hello,
    { handshake, socket, candidate }: Peer,
    id: string | undefined,
    tunnel: AcceptedTunnel | undefined
  ): void {
    const { software = 'virtual-presence', keepaliveMs = 10_000 } = this.#options;
    const { identity, certificate } = candidate;
    lane.sendHandshake(FrameType.Welcome, {
      version: PROTOCOL_VERSION,
      software,
      peer: formatIdentity(identity),
      keepaliveMs,
      lanes: this.#maxLanes,
    });
    lane.becomeUp(keepaliveMs);
    this.#handshakes.done(handshake);
    this.#lanes.set(lane, certificate);
    void lane.gone.then(() => this.#lanes.delete(lane));
    const info = connectionInfo(socket, identity, certificate, hello.keyExchange);
    if (tunnel === undefined) this.#welcome(lane, hello, id, info);
    else if (isFirst(hello)) tunnel.succeed(lane, info);
    else tunnel.join(lane, info);
  }

  /** Why there is no place for a lane that is not the first of a new tunnel. */
  #placeFault(hello: Hello, tunnel: AcceptedTunnel | undefined): TunnelRefusal | undefined {
    const isNew = tunnel === undefined && isFirst(hello) && hello.renews !== true;
    if (isNew || tunnel?.takesLane(isFirst(hello), this.#maxLanes) === true) return undefined;
    return { code: CloseCode.NoTunnel, reason: 'there is no tunnel that takes the lane' };
  }

  #welcome(lane: TlsLane, hello: Hello, id: string | undefined, info: ConnectionInfo): void {
    const tunnel: AcceptedTunnel = new AcceptedTunnel(lane, {
      info,
      hello,
      lane: this.#laneOptions,
      expiryGraceMs: this.#expiryGraceMs,
      onExpired: () => {
        this.counters.expired++;
      },
      onRenewed: () => {
        this.counters.renewed++;
      },
      onLaneEnded: (cause) => this.#onLaneEnded(cause),
      onClosed: (cause) => this.#onClosed(tunnel, id, cause),
    });
    this.#tunnels.add(tunnel);
    if (id !== undefined) this.#tunnelsById.set(id, tunnel);
    this.counters.accepted++;
    this.emit('tunnel', tunnel);
  }

  /**
   * Asks the host. `onAnswer` is called in this turn of the event loop if the host answers in it, and never if the
   * handshake has come to its end meanwhile.
   */
  #decide(
    handshake: Handshake,
    candidate: TunnelCandidate,
    onAnswer: (refusal: TunnelRefusal | undefined) => void
  ): void {
    const { authorize } = this.#options;
    if (authorize === undefined) {
      onAnswer(undefined);
      return;
    }
    handshake.isDeciding = true;
    askHost(
      authorize,
      candidate,
      (refusal) => {
        handshake.isDeciding = false;
        if (!handshake.isSettled) onAnswer(refusal);
      },
      (error) => this.emit('problem', { error, site: siteOf(candidate.identity) })
    );
  }

  #identify(handshake: Handshake, certificate: X509Certificate): TunnelCandidate | TunnelRefusal {
    const { peerRole = 'site' } = this.#options;
    let identity: GatewayIdentity;
    try {
      identity = identityOfCertificate(certificate);
    } catch (error) {
      return { code: CloseCode.WrongIdentity, reason: printable((error as Error).message) };
    }
    handshake.identity = identity;
    // Without a purpose, OpenSSL lets a certificate pass for any (RFC 5280 section 4.2.1.12).
    if (certificate.keyUsage?.includes(CLIENT_AUTH) !== true) {
      return { code: CloseCode.WrongIdentity, reason: 'the certificate is not for clients' };
    }
    if (identity.role !== peerRole || identity.trustDomain !== this.identity.trustDomain) {
      const reason = `peers here are of role ${peerRole} in ${this.identity.trustDomain}`;
      return { code: CloseCode.WrongIdentity, reason };
    }
    const { remoteAddress } = handshake;
    return { identity, certificate, remoteAddress, step: 'certificate' };
  }

  #rateFault({ identity }: TunnelCandidate): TunnelRefusal | undefined {
    if (this.#rates.take(formatIdentity(identity), this.#clock.monotonicMs())) return undefined;
    return { code: CloseCode.TooMany, reason: 'too many connections of this identity' };
  }

  #refuse(handshake: Handshake, refusal: TunnelRefusal): void {
    count(this.counters.refused, refusal.code);
    this.#handshakes.refuse(handshake, refusal);
  }

  #onLaneEnded({ by, code }: CloseCause): void {
    if (by === 'us' && code === CloseCode.ProtocolError) this.counters.protocolErrors++;
  }

  #onClosed(tunnel: AcceptedTunnel, id: string | undefined, { by, code }: CloseCause): void {
    if (by === 'us' && code === CloseCode.ControlRate) this.counters.controlFloods++;
    this.#tunnels.delete(tunnel);
    if (id !== undefined && this.#tunnelsById.get(id) === tunnel) this.#tunnelsById.delete(id);
  }
}

/** A peer that is known, and that is to say HELLO. */
interface Peer {
  readonly handshake: Handshake;
  readonly socket: TLSSocket;
  readonly candidate: TunnelCandidate;
}

function siteOf(identity: GatewayIdentity): string | undefined {
  return identity.role === 'site' ? identity.site : undefined;
}

function isFirst({ lane = 0 }: Hello): boolean {
  return lane === 0;
}

/** Codes are counted, and a peer can make up any number of its own. */
function withoutCode({ by, code, reason }: CloseCause): Close {
  return by === 'peer' ? { code: 'peer-closed', reason: `${code}: ${reason}` } : { code, reason };
}

function count(counters: Map<string, number>, reason: string): void {
  counters.set(reason, (counters.get(reason) ?? 0) + 1);
}

/** id-kp-clientAuth. */
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2';
const DEFAULT_LANES = 8;
/** How long a peer that is refused may take to hear why, in ms. */
const FAREWELL_MS = 1_000;
/** Longest control message of a peer: a signing request is 64 KiB at most. */
const FROM_PEERS_BYTES: number = 128 * 1024;
