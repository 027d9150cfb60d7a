/**
 * The port of the listening side, and every connection from the accept to the answer to its HELLO. An unauthenticated
 * peer reaches OpenSSL only: this library parses no byte of it before its certificate is verified, its identity is read
 * from the leaf, and the host has agreed. A connection of another protocol that the host serves on the same port is
 * given to the host when TLS is done.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import { type AddressInfo, createServer as createTcpServer, type Server } from 'node:net';
import {
  createServer as createTlsServer,
  type TLSSocket,
  type Server as TlsServer,
} from 'node:tls';
import { EventEmitter } from 'eventemitter3';
import { RateLimit } from '../base/rate-limit.ts';
import { EnvironmentError } from '../errors.ts';
import type { Credentials } from '../pki/credentials.ts';
import { formatIdentity, type GatewayIdentity, identityOfCertificate } from '../pki/names.ts';
import type { Json } from '../store/store.ts';
import { TunnelConnection } from './connection.ts';
import { FrameType } from './frame.ts';
import { count, type Handshake, type Handshakes } from './handshakes.ts';
import {
  askHost,
  type HostDecision,
  type TunnelAdmission,
  type TunnelCandidate,
} from './host-decision.ts';
import {
  ALPN_PROTOCOL,
  type Close,
  CloseCode,
  closeFrame,
  type Hello,
  PROTOCOL_VERSION,
  printable,
  readHello,
  type TunnelRefusal,
} from './messages.ts';
import type { ResolvedListenOptions } from './options.ts';
import { secureContext, tlsProfile } from './tls-profile.ts';
import { type CloseCause, type ConnectionInfo, connectionInfo } from './tunnel.ts';

/** A connection that is up, and belongs to no tunnel yet. */
export interface AcceptedConnection {
  readonly connection: TunnelConnection;
  readonly hello: Hello;
  /** Which tunnel it belongs to, if the peer has said so. */
  readonly tunnelId: string | undefined;
  readonly info: ConnectionInfo;
}

export interface AcceptorEvents {
  /** Take the connection over before returning, because the first packets may follow at once. */
  connection: [accepted: AcceptedConnection];
  /** `authorize` has failed. */
  problem: [problem: { readonly error: Error; readonly site: string | undefined }];
}

/** What the acceptor has to know of the tunnels of its listener. */
export interface AcceptingTunnels {
  /** How many are up. */
  readonly size: number;
  /** Returns why no tunnel takes a connection; `tunnelId` says which tunnel it is for, if the peer has said so. */
  findPlace(hello: Hello, tunnelId: string | undefined): TunnelRefusal | undefined;
}

export class Acceptor extends EventEmitter<AcceptorEvents> {
  readonly #options: ResolvedListenOptions;
  readonly #handshakes: Handshakes;
  readonly #tunnels: AcceptingTunnels;
  readonly #tcp: Server;
  readonly #tls: TlsServer;
  /** Connections of the other protocols on this port. */
  readonly #otherSockets = new Set<TLSSocket>();
  /** Keyed by identity. */
  readonly #rates: RateLimit;
  #port = 0;

  constructor(options: ResolvedListenOptions, handshakes: Handshakes, tunnels: AcceptingTunnels) {
    super();
    this.#options = options;
    this.#handshakes = handshakes;
    this.#tunnels = tunnels;
    this.#rates = new RateLimit(options.maxTunnelRate, options.maxTunnelBurst);
    // Two servers, so that a connection can be counted and ended before TLS spends anything on it.
    // Nothing is read from a connection that waits for its TLS.
    const tcpOptions = { noDelay: true, pauseOnConnect: true };
    this.#tcp = createTcpServer(tcpOptions, (socket) => handshakes.accept(socket));
    handshakes.on('begin', (socket) => this.#tls.emit('connection', socket));
    this.#tls = createTlsServer({
      ...tlsProfile(options.credentials),
      requestCert: true,
      // `#onSecure` rejects and sends the reason, because an edge that was away too long needs it.
      rejectUnauthorized: false,
      ALPNProtocols: [ALPN_PROTOCOL, ...options.otherProtocols.keys()],
    });
    this.#tls.on('secureConnection', (socket) => this.#onSecure(socket));
    this.#tls.on('tlsClientError', (error, socket) => handshakes.onTlsError(error, socket));
  }

  /** @throws {EnvironmentError} if the port cannot be opened. */
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
        // This happens when no file descriptors are left, for example. Existing connections continue.
        tcp.on('error', (error: NodeJS.ErrnoException) => {
          count(this.#handshakes.counters.failed, error.code ?? error.name);
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

  /** @throws {CertificateError} if they are unusable; those before are kept then. */
  updateCredentials(credentials: Credentials): void {
    secureContext(credentials);
    this.#tls.setSecureContext(tlsProfile(credentials));
  }

  /**
   * Takes no more connections, and ends those that are part of no tunnel. Resolves when all are gone, those of tunnels
   * too.
   */
  close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#tcp.close(() => resolve()));
    this.#handshakes.close({ code: CloseCode.Shutdown, reason: 'the listener is closed' });
    for (const socket of this.#otherSockets) socket.destroy();
    return closed;
  }

  #onSecure(socket: TLSSocket): void {
    socket.on('error', () => {});
    const handshake = this.#handshakes.of(socket);
    if (handshake === undefined) {
      socket.destroy();
      return;
    }
    const serve = this.#options.otherProtocols.get(String(socket.alpnProtocol));
    if (serve !== undefined) {
      this.#serveOther(handshake, socket, serve);
      return;
    }
    const certificate = socket.getPeerX509Certificate();
    if (!socket.authorized || certificate === undefined) {
      this.#refuseUntrusted(handshake, socket, certificate !== undefined);
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
      this.#refuseSocket(handshake, socket, candidate);
      return;
    }
    this.#decide(handshake, candidate, ({ refusal: refused }) => {
      const refusal = refused ?? this.#rateFault(candidate);
      if (refusal === undefined) this.#awaitHello({ handshake, socket, candidate });
      else this.#refuseSocket(handshake, socket, refusal);
    });
  }

  #awaitHello(peer: Peer): void {
    const { handshake, socket } = peer;
    const connection = new TunnelConnection(socket, FrameType.Hello, this.#options.connection);
    connection.once('handshake', (message) => this.#onHello(connection, message, peer));
    connection.once('closed', (cause) => this.#handshakes.refuse(handshake, refusalOf(cause)));
    handshake.connection = connection;
  }

  #serveOther(handshake: Handshake, socket: TLSSocket, serve: (socket: TLSSocket) => void): void {
    this.#handshakes.counters.otherProtocols++;
    this.#handshakes.done(handshake);
    this.#otherSockets.add(socket);
    socket.once('close', () => this.#otherSockets.delete(socket));
    serve(socket);
  }

  #refuseUntrusted(handshake: Handshake, socket: TLSSocket, hasCertificate: boolean): void {
    const code = hasCertificate ? String(socket.authorizationError) : 'no-certificate';
    this.#handshakes.refuse(handshake, { code, reason: 'the certificate is not trusted here' });
    const reason = `the certificate is not trusted here: ${code}`;
    this.#endWith(socket, { code: CloseCode.Untrusted, reason });
  }

  #refuseSocket(handshake: Handshake, socket: TLSSocket, refusal: TunnelRefusal): void {
    this.#refuse(handshake, refusal);
    this.#endWith(socket, refusal);
  }

  /** Sends the peer the reason, and ends the socket. */
  #endWith(socket: TLSSocket, close: Close): void {
    socket.end(closeFrame(close));
    // If bytes of the peer stayed unread, the system would reset the connection, and the CLOSE could be lost.
    socket.resume();
    const cancel = this.#options.clock.after(LINGER_MS, () => socket.destroy());
    socket.once('close', cancel);
  }

  #onHello(connection: TunnelConnection, message: Json, peer: Peer): void {
    const hello = readHello(message);
    if (hello === undefined) {
      connection.failProtocol('the HELLO is malformed');
      return;
    }
    const { handshake, candidate } = peer;
    connection.awaitAnswer();
    const { epoch: lastEpoch } = hello;
    this.#decide(handshake, { ...candidate, step: 'hello', lastEpoch }, (decision) => {
      const name = formatIdentity(candidate.identity);
      const tunnelId = hello.tunnel === undefined ? undefined : `${name} ${hello.tunnel}`;
      // The tunnel may have come or gone while the host decided.
      const refusal = decision.refusal ?? this.#tunnels.findPlace(hello, tunnelId);
      if (decision.refusal === undefined && refusal === undefined) {
        this.#accept(connection, { hello, tunnelId, ...decision.admission }, peer);
        return;
      }
      this.#refuse(handshake, refusal!);
      connection.abort(refusal!);
    });
  }

  #accept(
    connection: TunnelConnection,
    { hello, tunnelId, epoch, endpoints }: Admitted,
    { handshake, socket, candidate }: Peer
  ): void {
    const { software, keepaliveMs, connections, expectedTunnels } = this.#options;
    const { identity, certificate } = candidate;
    const tunnels = expectedTunnels?.() ?? this.#tunnels.size;
    connection.sendHandshake(FrameType.Welcome, {
      version: PROTOCOL_VERSION,
      software,
      peer: formatIdentity(identity),
      keepaliveMs,
      lanes: connections,
      // Left out if it is 0.
      reconnectSpreadMs: this.#handshakes.rate.spreadMs(tunnels) || undefined,
      epoch,
      endpoints,
    });
    connection.becomeUp(keepaliveMs);
    // It may have broken while WELCOME was sent.
    if (handshake.isSettled) return;
    this.#handshakes.done(handshake);
    connection.removeAllListeners();
    const info = connectionInfo(socket, identity, certificate, hello.keyExchange);
    this.emit('connection', { connection, hello, tunnelId, info });
  }

  /**
   * Asks the host, if there is an `authorize`. `onAnswer` is called in this turn of the event loop if the host answers
   * in it, and never if the handshake ends before the answer.
   */
  #decide(
    handshake: Handshake,
    candidate: TunnelCandidate,
    onAnswer: (decision: HostDecision) => void
  ): void {
    const { authorize } = this.#options;
    if (authorize === undefined) {
      onAnswer({ refusal: undefined, admission: undefined });
      return;
    }
    handshake.isDeciding = true;
    askHost(
      authorize,
      candidate,
      (decision) => {
        handshake.isDeciding = false;
        if (!handshake.isSettled) onAnswer(decision);
      },
      (error) => this.emit('problem', { error, site: siteOf(candidate.identity) })
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
    // OpenSSL accepts a certificate that names no purpose for any (RFC 5280 section 4.2.1.12).
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
    count(this.#handshakes.counters.refused, refusal.code);
    this.#handshakes.refuse(handshake, refusal);
  }
}

/** What the host has said about a peer that it lets in, and which tunnel the connection is for. */
interface Admitted extends Partial<TunnelAdmission> {
  readonly hello: Hello;
  readonly tunnelId: string | undefined;
}

/** A peer that is verified, and whose HELLO is to come. */
interface Peer {
  readonly handshake: Handshake;
  readonly socket: TLSSocket;
  readonly candidate: TunnelCandidate;
}

/** This leaves out a code of the peer: codes are counted, and a peer can make up any number of them. */
function refusalOf({ by, code, reason }: CloseCause): Close {
  return by === 'peer' ? { code: 'peer-closed', reason: `${code}: ${reason}` } : { code, reason };
}

function siteOf(identity: GatewayIdentity): string | undefined {
  return identity.role === 'site' ? identity.site : undefined;
}

/** id-kp-clientAuth. */
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2';
/** How long a peer that is refused may take to read why, in ms. */
const LINGER_MS = 1_000;
