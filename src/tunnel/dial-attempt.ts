/**
 * One attempt of the dialling side to bring up a connection: TCP, CONNECT if there is a proxy, TLS, the check of the
 * server's certificate, HELLO, and the wait for WELCOME. Nothing is sent to the server before its certificate is
 * verified.
 * @module
 */
import { X509Certificate } from 'node:crypto';
import type { Socket } from 'node:net';
import { connect, type SecureContext, type TLSSocket } from 'node:tls';
import { keyExchangeOf } from '../base/key-exchange.ts';
import { type ProxyOption, proxyFor } from '../base/proxy.ts';
import { connectThrough } from '../base/proxy-connect.ts';
import { reasonOf } from '../base/socket-error.ts';
import { CertificateError } from '../errors.ts';
import { formatIdentity, type GatewayIdentity, identityOfCertificate } from '../pki/names.ts';
import type { Json } from '../store/store.ts';
import { TunnelConnection } from './connection.ts';
import { type CloseCause, type ConnectionOptions, handshakeOwner } from './connection-types.ts';
import { FrameType } from './frame.ts';
import {
  ALPN_PROTOCOL,
  CloseCode,
  type Hello,
  printable,
  readWelcome,
  type Welcome,
} from './messages.ts';
import { type ConnectionInfo, connectionInfo } from './tunnel.ts';

export interface AttemptOptions {
  readonly host: string;
  readonly port: number;
  readonly proxy: ProxyOption | undefined;
  readonly context: SecureContext;
  readonly expectedPeer: GatewayIdentity;
  /** Without the group of the key exchange. */
  readonly hello: Hello;
  readonly timeoutMs: number;
  readonly connection: ConnectionOptions;
}

/** One of the two is called, once, unless the attempt is cancelled. */
export interface AttemptOutcome {
  /** Take the connection over before returning: the first packets may follow at once. */
  onUp(connection: TunnelConnection, welcome: Welcome, info: ConnectionInfo): void;
  onFailed(cause: CloseCause): void;
}

export class DialAttempt {
  readonly #options: AttemptOptions;
  /** To the server, or to the proxy as long as that has not answered; undefined if there is neither. */
  #socket: Socket | undefined;
  #isProxied = false;
  readonly #cancelTimer: () => void;
  /** Undefined when it is over. */
  #outcome: AttemptOutcome | undefined;

  constructor(options: AttemptOptions, outcome: AttemptOutcome) {
    this.#options = options;
    this.#outcome = outcome;
    const { timeoutMs } = options;
    this.#cancelTimer = options.connection.clock.after(timeoutMs, () => {
      this.#fail(CloseCode.HandshakeTimeout, `no acknowledgement within ${timeoutMs} ms`);
    });
    try {
      this.#connect();
    } catch (error) {
      // Nobody is told of the outcome before they have the attempt.
      process.nextTick(() => this.#failWith(error as Error));
    }
  }

  /** @throws {PresenceError} if there is no such proxy, or it cannot be asked for the host. */
  #connect(): void {
    const { host, port, proxy: option } = this.#options;
    const proxy = proxyFor(option, host, port);
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
          if (this.#outcome !== undefined) this.#secure({ socket });
        },
        onFailed: (error) => this.#failWith(error),
      }
    );
  }

  /** Begins TLS: to an endpoint, or over a connection to it that is there. */
  #secure(transport: { host: string; port: number } | { socket: Socket }): void {
    const { context, expectedPeer } = this.#options;
    const socket = connect({
      ...transport,
      secureContext: context,
      ALPNProtocols: [ALPN_PROTOCOL],
      // No SNI: the peer is known by its identity, and its name is not to be seen on the way.
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

  /** Ends it; nothing is called any more. */
  cancel(): void {
    this.#finish();
    this.#socket?.destroy();
  }

  /** TLS is up: who the server is, is read from its certificate again, now that OpenSSL has verified it. */
  #onSecure(socket: TLSSocket): void {
    if (this.#outcome === undefined) return;
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
    const { host, port } = this.#options;
    const proxied = this.#isProxied ? { host, port } : undefined;
    const info = connectionInfo(socket, peer, certificate, keyExchangeOf(socket), proxied);
    this.#greet(socket, info);
  }

  #greet(socket: TLSSocket, info: ConnectionInfo): void {
    const connection: TunnelConnection = new TunnelConnection(
      socket,
      FrameType.Welcome,
      handshakeOwner({
        onHandshake: (message) => this.#onWelcome(connection, message, info),
        onConnectionClosed: (cause) => this.#finish()?.onFailed(cause),
      }),
      this.#options.connection
    );
    const { keyExchange } = info;
    connection.sendHandshake(FrameType.Hello, { ...this.#options.hello, keyExchange });
  }

  #onWelcome(
    connection: TunnelConnection,
    message: Json,
    info: ConnectionInfo
  ): string | undefined {
    const welcome = readWelcome(message);
    if (welcome === undefined) return 'the WELCOME is malformed';
    connection.becomeUp(welcome.keepaliveMs);
    this.#finish()?.onUp(connection, welcome, info);
    return undefined;
  }

  #failWith(error: NodeJS.ErrnoException): void {
    this.#fail(CloseCode.ConnectionLost, reasonOf(error), error.code);
  }

  #fail(code: string, reason: string, errorCode?: string): void {
    const outcome = this.#finish();
    if (outcome === undefined) return;
    this.#socket?.destroy();
    const { host, port } = this.#options;
    const text = `${host} port ${port}: ${printable(reason)}`;
    outcome.onFailed({ by: 'network', code, reason: text, errorCode });
  }

  #finish(): AttemptOutcome | undefined {
    const outcome = this.#outcome;
    this.#outcome = undefined;
    this.#cancelTimer();
    return outcome;
  }
}

/** What is wrong with the certificate of a server, in the form that Node asks for. */
function serverFault(raw: Buffer, expected: GatewayIdentity): Error | undefined {
  try {
    checkServer(new X509Certificate(raw), expected);
    return undefined;
  } catch (error) {
    return error as Error;
  }
}

/**
 * Reads who the server is from its certificate. That the certificate is genuine is for OpenSSL to verify.
 *
 * @throws {CertificateError} if the certificate is not for servers, or does not name the expected gateway.
 */
function checkServer(certificate: X509Certificate, expected: GatewayIdentity): GatewayIdentity {
  // OpenSSL lets a certificate that names no purpose pass for any (RFC 5280 section 4.2.1.12).
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
