/**
 * The port of the listening side, and every connection from the accept to the answer to its HELLO. An unauthenticated peer gets no further than OpenSSL: no byte of ours is parsed before the
 * peer's certificate is verified, its identity read from the leaf, and the host has agreed. A connection of another
 * protocol that the host serves on the same port is handed to the host when TLS is done.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
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
import type { ConnectionLimiter } from '../base/connection-limiter.ts';
import { RateLimit } from '../base/rate-limit.ts';
import { EnvironmentError } from '../errors.ts';
import type { Credentials } from '../pki/credentials.ts';
import { formatIdentity, type GatewayIdentity, identityOfCertificate } from '../pki/names.ts';
import type { Json } from '../store/store.ts';
import { askHost, type TunnelCandidate, type TunnelRefusal } from './authorize.ts';
import { TunnelConnection } from './connection.ts';
import { type CloseCause, handshakeOwner } from './connection-types.ts';
import { secureContext, tlsProfile } from './credentials.ts';
import { FrameType } from './frame.ts';
import { type Handshake, Handshakes, type RefusedConnection } from './handshakes.ts';
import type { ListenerCounters, ResolvedListenOptions } from './listen-options.ts';
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
import { type ConnectionInfo, connectionInfo } from './tunnel.ts';

/** What the listener does with a peer that has come so far. */
export interface AcceptorHooks {
  readonly counters: Pick<ListenerCounters, 'failed' | 'refused' | 'otherProtocols'>;
  /** Why there is no place for the connection; `id` says which tunnel it is of, if the peer has said so. */
  placeFault(hello: Hello, id: string | undefined): TunnelRefusal | undefined;
  /** The connection is up. To be taken over in this turn of the event loop. */
  onConnection(
    connection: TunnelConnection,
    hello: Hello,
    id: string | undefined,
    info: ConnectionInfo
  ): void;
  /** A connection has led to no tunnel and no connection. */
  onRefused(refused: RefusedConnection): void;
  /** `authorize` has failed. */
  onProblem(error: Error, identity: GatewayIdentity): void;
}

export class Acceptor {
  readonly #options: ResolvedListenOptions;
  readonly #hooks: AcceptorHooks;
  readonly #tcp: Server;
  readonly #tls: TlsServer;
  /** Connections of the other protocols on this port. */
  readonly #otherSockets = new Set<TLSSocket>();
  readonly #handshakes: Handshakes;
  /** Of identities. */
  readonly #rates: RateLimit;
  #port = 0;

  constructor(options: ResolvedListenOptions, gate: ConnectionLimiter, hooks: AcceptorHooks) {
    this.#options = options;
    this.#hooks = hooks;
    const { clock, handshakeTimeoutMs, maxTunnelRate, maxTunnelBurst } = options;
    this.#rates = new RateLimit(maxTunnelRate, maxTunnelBurst);
    this.#handshakes = new Handshakes({
      gate,
      handshakeTimeoutMs,
      clock,
      onRefused: (refused) => {
        count(hooks.counters.failed, refused.code);
        hooks.onRefused(refused);
      },
    });
    // Two servers, so that a connection can be counted and cut before TLS spends anything on it.
    this.#tcp = createTcpServer({ noDelay: true }, (socket) => this.#onConnection(socket));
    this.#tls = createTlsServer({
      ...tlsProfile(options.credentials),
      requestCert: true,
      // `#onSecure` does, with a word to the peer: an edge that was away too long is to know why.
      rejectUnauthorized: false,
      ALPNProtocols: [ALPN_PROTOCOL, ...options.otherProtocols.keys()],
    });
    this.#tls.on('secureConnection', (socket) => this.#onSecure(socket));
    this.#tls.on('tlsClientError', (error, socket) => this.#handshakes.onTlsError(error, socket));
  }

  /** @throws {EnvironmentError} if the port cannot be had. */
  open(): Promise<void> {
    const { host, port } = this.#options;
    const tcp = this.#tcp;
    return new Promise((resolve, reject) => {
      tcp.once('error', (error: NodeJS.ErrnoException) => {
        const where = `port ${port} of ${host ?? 'any address'}`;
        const why = error.code === 'EADDRINUSE' ? 'it is in use' : error.message;
        reject(new EnvironmentError(`cannot listen on ${where}: ${why}`, { cause: error }));
      });
      tcp.listen(port, host, () => {
        tcp.removeAllListeners('error');
        // Out of file descriptors, for example: those who are there are served on.
        tcp.on('error', (error: NodeJS.ErrnoException) => {
          count(this.#hooks.counters.failed, error.code ?? error.name);
        });
        this.#port = (tcp.address() as AddressInfo).port;
        resolve();
      });
    });
  }

  /** The port that it listens on, also after `close`. */
  get port(): number {
    return this.#port;
  }

  /** Connections whose handshake is under way. */
  get handshakes(): number {
    return this.#handshakes.size;
  }

  /** @throws {CertificateError} if they are unusable; those before are kept then. */
  updateCredentials(credentials: Credentials): void {
    secureContext(credentials);
    this.#tls.setSecureContext(tlsProfile(credentials));
  }

  /** Ends the connections whose handshake is under way with one of these certificates. */
  cut(isMeant: (certificate: X509Certificate) => boolean, close: Close): void {
    this.#handshakes.cut(isMeant, close);
  }

  /** Takes no more connections, and ends those that are no connections. Resolves when there is none left at all. */
  close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#tcp.close(() => resolve()));
    this.#handshakes.close({ code: CloseCode.Shutdown, reason: 'the listener is closed' });
    for (const socket of this.#otherSockets) socket.destroy();
    return closed;
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
    const serveOther = this.#options.otherProtocols.get(String(socket.alpnProtocol));
    if (serveOther !== undefined) {
      this.#redirect(handshake, socket, serveOther);
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
    const connection: TunnelConnection = new TunnelConnection(
      socket,
      FrameType.Hello,
      handshakeOwner({
        onHandshake: (message) => this.#onHello(connection, message, peer),
        onConnectionClosed: (cause) => this.#handshakes.refuse(handshake, withoutCode(cause)),
      }),
      this.#options.connection
    );
    handshake.connection = connection;
  }

  #redirect(handshake: Handshake, socket: TLSSocket, serve: (socket: TLSSocket) => void): void {
    this.#hooks.counters.otherProtocols++;
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
    const cancel = this.#options.clock.after(FAREWELL_MS, () => socket.destroy());
    socket.once('close', cancel);
  }

  #onHello(connection: TunnelConnection, message: Json, peer: Peer): string | undefined {
    const hello = readHello(message);
    if (hello === undefined) return 'the HELLO is malformed';
    const { handshake, candidate } = peer;
    connection.awaitAnswer();
    this.#decide(handshake, { ...candidate, step: 'hello' }, (refused) => {
      const name = formatIdentity(candidate.identity);
      const id = hello.tunnel === undefined ? undefined : `${name} ${hello.tunnel}`;
      // The tunnel may have come or gone while the host decided.
      const refusal = refused ?? this.#hooks.placeFault(hello, id);
      if (refusal === undefined) {
        this.#accept(connection, hello, peer, id);
        return;
      }
      this.#refuse(handshake, refusal);
      connection.abort(refusal);
    });
    return undefined;
  }

  #accept(
    connection: TunnelConnection,
    hello: Hello,
    { handshake, socket, candidate }: Peer,
    id: string | undefined
  ): void {
    const { software, keepaliveMs, connections } = this.#options;
    const { identity, certificate } = candidate;
    connection.sendHandshake(FrameType.Welcome, {
      version: PROTOCOL_VERSION,
      software,
      peer: formatIdentity(identity),
      keepaliveMs,
      lanes: connections,
    });
    connection.becomeUp(keepaliveMs);
    this.#handshakes.done(handshake);
    const info = connectionInfo(socket, identity, certificate, hello.keyExchange);
    this.#hooks.onConnection(connection, hello, id, info);
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
      (error) => this.#hooks.onProblem(error, candidate.identity)
    );
  }

  #identify(handshake: Handshake, certificate: X509Certificate): TunnelCandidate | TunnelRefusal {
    const { peerRole, identity: own } = this.#options;
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
    if (identity.role !== peerRole || identity.trustDomain !== own.trustDomain) {
      const reason = `peers here are of role ${peerRole} in ${own.trustDomain}`;
      return { code: CloseCode.WrongIdentity, reason };
    }
    const { remoteAddress } = handshake;
    return { identity, certificate, remoteAddress, step: 'certificate' };
  }

  #rateFault({ identity }: TunnelCandidate): TunnelRefusal | undefined {
    if (this.#rates.take(formatIdentity(identity), this.#options.clock.monotonicMs()))
      return undefined;
    return { code: CloseCode.TooMany, reason: 'too many connections of this identity' };
  }

  #refuse(handshake: Handshake, refusal: TunnelRefusal): void {
    count(this.#hooks.counters.refused, refusal.code);
    this.#handshakes.refuse(handshake, refusal);
  }
}

/** A peer that is known, and that is to say HELLO. */
interface Peer {
  readonly handshake: Handshake;
  readonly socket: TLSSocket;
  readonly candidate: TunnelCandidate;
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
/** How long a peer that is refused may take to hear why, in ms. */
const FAREWELL_MS = 1_000;
