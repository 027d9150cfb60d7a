/**
 * One attempt of the dialling side to open a connection: TCP to one of the endpoints, CONNECT if there is a proxy, TLS,
 * the check of the server's certificate, HELLO, and the wait for WELCOME. Nothing is sent to the server before its
 * certificate is verified.
 * @module
 */
import { X509Certificate } from 'node:crypto';
import type { Socket } from 'node:net';
import { connect, type SecureContext, type TLSSocket } from 'node:tls';
import { EventEmitter } from 'eventemitter3';
import type { HostPort } from '../base/host-port.ts';
import { keyExchangeOf } from '../base/key-exchange.ts';
import { reasonOf } from '../base/socket-error.ts';
import { CertificateError } from '../errors.ts';
import { formatIdentity, type GatewayIdentity, identityOfCertificate } from '../pki/names.ts';
import type { Json } from '../store/store.ts';
import { TunnelConnection } from './connection.ts';
import { FrameType } from './frame.ts';
import type { LastEpoch } from './last-epoch.ts';
import {
  ALPN_PROTOCOL,
  CloseCode,
  type Hello,
  PROTOCOL_VERSION,
  printable,
  readWelcome,
  type Welcome,
} from './messages.ts';
import type { ResolvedDialOptions } from './options.ts';
import { TcpRace } from './tcp-race.ts';
import { type CloseCause, type ConnectionInfo, connectionInfo } from './tunnel.ts';

/** What is dialled, and what HELLO says about it. */
export interface AttemptTarget extends Pick<Hello, 'tunnel' | 'lane' | 'renews'> {
  /** One or more, the first to try in front. */
  readonly endpoints: readonly HostPort[];
  readonly context: SecureContext;
  readonly lastEpoch: LastEpoch;
  /** After how many ms an endpoint that does not answer is dialled anew, see `TcpRace`. */
  readonly againMs?: number;
  /** One of several endpoints could not be reached. The last one is that of `failed`. */
  readonly onEndpointFailed?: (endpoint: HostPort) => void;
}

export interface UpConnection {
  readonly connection: TunnelConnection;
  readonly welcome: Welcome;
  readonly info: ConnectionInfo;
  readonly endpoint: HostPort;
}

/** One of the two is emitted, once, unless the attempt is cancelled. */
export interface AttemptEvents {
  /** Take the connection over before returning, because the first packets may follow at once. */
  up: [up: UpConnection];
  /** `endpoint` is the one that was connected to, or the last one that was tried. */
  failed: [cause: CloseCause, endpoint: HostPort];
}

export class DialAttempt extends EventEmitter<AttemptEvents> {
  readonly #options: ResolvedDialOptions;
  readonly #target: AttemptTarget;
  #race: TcpRace | undefined;
  /** The socket to the server, once TCP is connected. */
  #socket: Socket | undefined;
  #endpoint: HostPort;
  #isProxied = false;
  readonly #cancelTimer: () => void;
  #isOver = false;

  constructor(options: ResolvedDialOptions, target: AttemptTarget) {
    super();
    this.#options = options;
    this.#target = target;
    this.#endpoint = target.endpoints[0]!;
    const { clock, handshakeTimeoutMs, proxy } = options;
    this.#cancelTimer = clock.after(handshakeTimeoutMs, () => this.#onTimeout());
    this.#race = new TcpRace({
      endpoints: target.endpoints,
      againMs: target.againMs,
      proxy,
      clock,
      onOpen: (socket, endpoint, isProxied) => {
        this.#race = undefined;
        this.#endpoint = endpoint;
        this.#isProxied = isProxied;
        this.#secure(socket);
      },
      onFailed: (error, endpoint, isLast) => {
        this.#endpoint = endpoint;
        if (isLast) this.#failWith(error);
        else target.onEndpointFailed?.(endpoint);
      },
    });
  }

  /** Begins TLS over a connection that is open. */
  #secure(tcp: Socket): void {
    const { expectedPeer } = this.#options;
    const socket = connect({
      socket: tcp,
      secureContext: this.#target.context,
      ALPNProtocols: [ALPN_PROTOCOL],
      // No SNI: the peer is known by its identity, and the network does not learn its name.
      servername: '',
      // By default the environment variable NODE_TLS_REJECT_UNAUTHORIZED could switch the verification off.
      rejectUnauthorized: true,
      checkServerIdentity: (_host, { raw }) => serverFault(raw, expectedPeer),
    });
    this.#socket = socket;
    socket.on('error', (error) => this.#failWith(error));
    socket.on('close', () => this.#fail(CloseCode.ConnectionLost, 'the connection was closed'));
    socket.on('secureConnect', () => this.#onSecure(socket));
  }

  /** Ends the attempt; nothing is emitted any more. */
  cancel(): void {
    this.#finish();
    this.#race?.cancel();
    this.#socket?.destroy();
  }

  #onTimeout(): void {
    const reason = `no acknowledgement within ${this.#options.handshakeTimeoutMs} ms`;
    const pending = this.#race?.pending ?? [];
    for (const endpoint of pending.slice(1)) this.#target.onEndpointFailed?.(endpoint);
    this.#endpoint = pending[0] ?? this.#endpoint;
    this.#fail(CloseCode.HandshakeTimeout, reason, pending.length > 0 ? 'ETIMEDOUT' : undefined);
  }

  /** TLS is up. The identity of the server is read from its certificate again, now that OpenSSL has verified it. */
  #onSecure(socket: TLSSocket): void {
    if (this.#isOver) return;
    const certificate = socket.getPeerX509Certificate();
    if (!socket.authorized || certificate === undefined) {
      this.#fail(CloseCode.Untrusted, 'the certificate of the server is not verified');
      return;
    }
    let peer: GatewayIdentity;
    try {
      peer = checkServer(certificate, this.#options.expectedPeer);
    } catch (error) {
      this.#fail(CloseCode.WrongIdentity, (error as Error).message);
      return;
    }
    if (socket.alpnProtocol !== ALPN_PROTOCOL) {
      this.#fail(CloseCode.ProtocolError, `the server does not speak ${ALPN_PROTOCOL}`);
      return;
    }
    const proxied = this.#isProxied ? this.#endpoint : undefined;
    const info = connectionInfo(socket, peer, certificate, keyExchangeOf(socket), proxied);
    this.#sendHello(socket, info);
  }

  #sendHello(socket: TLSSocket, info: ConnectionInfo): void {
    const { software, connection: options } = this.#options;
    const { tunnel, lane, renews, lastEpoch } = this.#target;
    const connection = new TunnelConnection(socket, FrameType.Welcome, options);
    connection.once('handshake', (message) => this.#onWelcome(connection, message, info));
    connection.once('closed', (cause) => {
      if (this.#finish()) this.emit('failed', cause, this.#endpoint);
    });
    connection.sendHandshake(FrameType.Hello, {
      version: PROTOCOL_VERSION,
      software,
      tunnel,
      lane,
      renews,
      keyExchange: info.keyExchange,
      epoch: lastEpoch.value,
    });
  }

  #onWelcome(connection: TunnelConnection, message: Json, info: ConnectionInfo): void {
    const welcome = readWelcome(message);
    if (welcome === undefined) {
      connection.failProtocol('the WELCOME is malformed');
      return;
    }
    const { lastEpoch } = this.#target;
    if (!lastEpoch.accepts(welcome.epoch)) {
      const [own, last] = [welcome.epoch?.number, lastEpoch.value?.number];
      const reason = `the gateway took the site at epoch ${own}, and another one at ${last}`;
      connection.abort({ code: CloseCode.StaleEpoch, reason });
      return;
    }
    lastEpoch.take(welcome.epoch);
    connection.becomeUp(welcome.keepaliveMs);
    if (!this.#finish()) return;
    connection.removeAllListeners();
    this.emit('up', { connection, welcome, info, endpoint: this.#endpoint });
  }

  #failWith(error: NodeJS.ErrnoException): void {
    this.#fail(CloseCode.ConnectionLost, reasonOf(error), error.code);
  }

  #fail(code: string, reason: string, errorCode?: string): void {
    if (!this.#finish()) return;
    this.#race?.cancel();
    this.#socket?.destroy();
    const { host, port } = this.#endpoint;
    const text = `${host} port ${port}: ${printable(reason)}`;
    this.emit('failed', { by: 'network', code, reason: text, errorCode }, this.#endpoint);
  }

  /** Returns false if the attempt is over already. */
  #finish(): boolean {
    const wasOver = this.#isOver;
    this.#isOver = true;
    this.#cancelTimer();
    return !wasOver;
  }
}

/** Returns what is wrong with the certificate of a server, as `checkServerIdentity` of Node must. */
function serverFault(raw: Buffer, expected: GatewayIdentity): Error | undefined {
  try {
    checkServer(new X509Certificate(raw), expected);
    return undefined;
  } catch (error) {
    return error as Error;
  }
}

/**
 * Reads the identity of the server from its certificate. OpenSSL verifies that the certificate is genuine.
 *
 * @throws {CertificateError} if the certificate is not for servers, or does not name the expected gateway.
 */
function checkServer(certificate: X509Certificate, expected: GatewayIdentity): GatewayIdentity {
  // OpenSSL accepts a certificate that names no purpose for any (RFC 5280 section 4.2.1.12).
  if (certificate.keyUsage?.includes(SERVER_AUTH) !== true) {
    throw new CertificateError('the certificate of the server is not for servers');
  }
  const found = identityOfCertificate(certificate);
  const [name, wanted] = [formatIdentity(found), formatIdentity(expected)];
  if (name !== wanted) throw new CertificateError(`the server is ${name}, not ${wanted}`);
  return found;
}

/** id-kp-serverAuth. */
const SERVER_AUTH = '1.3.6.1.5.5.7.3.1';
