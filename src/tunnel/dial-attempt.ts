/**
 * One attempt of the dialling side to open a connection: TCP, CONNECT if there is a proxy, TLS, the check of the
 * server's certificate, HELLO, and the wait for WELCOME. Nothing is sent to the server before its certificate is
 * verified.
 * @module
 */
import { X509Certificate } from 'node:crypto';
import type { Socket } from 'node:net';
import { connect, type SecureContext, type TLSSocket } from 'node:tls';
import { EventEmitter } from 'eventemitter3';
import type { HostPort } from '../base/host-port.ts';
import { keyExchangeOf } from '../base/key-exchange.ts';
import { proxyFor } from '../base/proxy.ts';
import { connectThrough } from '../base/proxy-connect.ts';
import { reasonOf } from '../base/socket-error.ts';
import { CertificateError } from '../errors.ts';
import { formatIdentity, type GatewayIdentity, identityOfCertificate } from '../pki/names.ts';
import type { Json } from '../store/store.ts';
import { TunnelConnection } from './connection.ts';
import { FrameType } from './frame.ts';
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
import { type CloseCause, type ConnectionInfo, connectionInfo } from './tunnel.ts';

/** What is dialled, and what HELLO says about it. */
export interface AttemptTarget extends Pick<Hello, 'tunnel' | 'lane' | 'renews'> {
  readonly endpoint: HostPort;
  readonly context: SecureContext;
}

export interface UpConnection {
  readonly connection: TunnelConnection;
  readonly welcome: Welcome;
  readonly info: ConnectionInfo;
}

/** One of the two is emitted, once, unless the attempt is cancelled. */
export interface AttemptEvents {
  /** Take the connection over before returning, because the first packets may follow at once. */
  up: [up: UpConnection];
  failed: [cause: CloseCause];
}

export class DialAttempt extends EventEmitter<AttemptEvents> {
  readonly #options: ResolvedDialOptions;
  readonly #target: AttemptTarget;
  /** The socket to the server, or to the proxy until that has answered; undefined if there is neither. */
  #socket: Socket | undefined;
  #isProxied = false;
  readonly #cancelTimer: () => void;
  #isOver = false;

  constructor(options: ResolvedDialOptions, target: AttemptTarget) {
    super();
    this.#options = options;
    this.#target = target;
    const { clock, handshakeTimeoutMs } = options;
    this.#cancelTimer = clock.after(handshakeTimeoutMs, () => {
      this.#fail(CloseCode.HandshakeTimeout, `no acknowledgement within ${handshakeTimeoutMs} ms`);
    });
    try {
      this.#connect();
    } catch (error) {
      // Nobody can listen before the constructor has returned.
      process.nextTick(() => this.#failWith(error as Error));
    }
  }

  /** @throws {PresenceError} if there is no such proxy, or it cannot be asked for the host. */
  #connect(): void {
    const { host, port } = this.#target.endpoint;
    const proxy = proxyFor(this.#options.proxy, host, port);
    if (proxy === undefined) {
      this.#secure({ host, port });
      return;
    }
    this.#isProxied = true;
    this.#socket = connectThrough(
      proxy,
      { host, port },
      {
        onOpen: (socket) => {
          if (!this.#isOver) this.#secure({ socket });
        },
        onFailed: (error) => this.#failWith(error),
      }
    );
  }

  /** Begins TLS to an endpoint, or over a connection to it through a proxy. */
  #secure(transport: { host: string; port: number } | { socket: Socket }): void {
    const { expectedPeer } = this.#options;
    const socket = connect({
      ...transport,
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
    this.#socket?.destroy();
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
    const proxied = this.#isProxied ? this.#target.endpoint : undefined;
    const info = connectionInfo(socket, peer, certificate, keyExchangeOf(socket), proxied);
    this.#sendHello(socket, info);
  }

  #sendHello(socket: TLSSocket, info: ConnectionInfo): void {
    const { software, connection: options } = this.#options;
    const { tunnel, lane, renews } = this.#target;
    const connection = new TunnelConnection(socket, FrameType.Welcome, options);
    connection.once('handshake', (message) => this.#onWelcome(connection, message, info));
    connection.once('closed', (cause) => {
      if (this.#finish()) this.emit('failed', cause);
    });
    connection.sendHandshake(FrameType.Hello, {
      version: PROTOCOL_VERSION,
      software,
      tunnel,
      lane,
      renews,
      keyExchange: info.keyExchange,
    });
  }

  #onWelcome(connection: TunnelConnection, message: Json, info: ConnectionInfo): void {
    const welcome = readWelcome(message);
    if (welcome === undefined) {
      connection.failProtocol('the WELCOME is malformed');
      return;
    }
    connection.becomeUp(welcome.keepaliveMs);
    if (!this.#finish()) return;
    connection.removeAllListeners();
    this.emit('up', { connection, welcome, info });
  }

  #failWith(error: NodeJS.ErrnoException): void {
    this.#fail(CloseCode.ConnectionLost, reasonOf(error), error.code);
  }

  #fail(code: string, reason: string, errorCode?: string): void {
    if (!this.#finish()) return;
    this.#socket?.destroy();
    const { host, port } = this.#target.endpoint;
    const text = `${host} port ${port}: ${printable(reason)}`;
    this.emit('failed', { by: 'network', code, reason: text, errorCode });
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
