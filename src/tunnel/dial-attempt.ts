/**
 * One attempt of the dialling side to bring up a lane: TCP, TLS, the look at the peer's certificate,
 * HELLO, and the wait for WELCOME.
 * @module
 */
import { X509Certificate } from 'node:crypto';
import { connect, type SecureContext, type TLSSocket } from 'node:tls';
import { formatIdentity, type GatewayIdentity, identityOfCertificate } from '../pki/names.ts';
import type { Json } from '../store/store.ts';
import { FrameType } from './frame.ts';
import { type CloseCause, handshakeOwner, type LaneOptions } from './lane.ts';
import {
  ALPN_PROTOCOL,
  CloseCode,
  type Hello,
  printable,
  readWelcome,
  type Welcome,
} from './messages.ts';
import { TlsLane } from './tls-lane.ts';
import { type ConnectionInfo, connectionInfo } from './tunnel.ts';

export interface AttemptOptions {
  readonly host: string;
  readonly port: number;
  readonly context: SecureContext;
  readonly expectedPeer: GatewayIdentity;
  readonly hello: Hello;
  readonly timeoutMs: number;
  readonly lane: LaneOptions;
}

/** One of the two is called, once, unless the attempt is cancelled. */
export interface AttemptOutcome {
  /** Take the lane over before returning: the first packets may follow at once. */
  onUp(lane: TlsLane, welcome: Welcome, info: ConnectionInfo): void;
  onFailed(cause: CloseCause): void;
}

export class DialAttempt {
  readonly #options: AttemptOptions;
  readonly #socket: TLSSocket;
  readonly #cancelTimer: () => void;
  /** Undefined when it is over. */
  #outcome: AttemptOutcome | undefined;

  constructor(options: AttemptOptions, outcome: AttemptOutcome) {
    this.#options = options;
    this.#outcome = outcome;
    const { host, port, context, expectedPeer, timeoutMs } = options;
    const socket = connect({
      host,
      port,
      secureContext: context,
      ALPNProtocols: [ALPN_PROTOCOL],
      // No SNI: the peer is known by its identity, and its name is not to be seen on the way.
      servername: '',
      checkServerIdentity: (_host, { raw }) => identityFault(raw, expectedPeer),
    });
    this.#socket = socket;
    socket.on('error', (error) => this.#fail(CloseCode.ConnectionLost, error.message));
    socket.on('close', () => this.#fail(CloseCode.ConnectionLost, 'the connection was closed'));
    socket.on('secureConnect', () => {
      if (socket.alpnProtocol === ALPN_PROTOCOL) this.#greet();
      else this.#fail(CloseCode.ProtocolError, `the server does not speak ${ALPN_PROTOCOL}`);
    });
    this.#cancelTimer = options.lane.timers.after(timeoutMs, () => {
      this.#fail(CloseCode.HandshakeTimeout, `no acknowledgement within ${timeoutMs} ms`);
    });
  }

  /** Ends it; nothing is called any more. */
  cancel(): void {
    this.#finish();
    this.#socket.destroy();
  }

  #greet(): void {
    if (this.#outcome === undefined) return;
    const socket = this.#socket;
    const lane: TlsLane = new TlsLane(
      socket,
      FrameType.Welcome,
      handshakeOwner({
        onHandshake: (message) => this.#onWelcome(lane, message),
        onLaneClosed: (cause) => this.#finish()?.onFailed(cause),
      }),
      this.#options.lane
    );
    lane.sendHandshake(FrameType.Hello, this.#options.hello);
  }

  #onWelcome(lane: TlsLane, message: Json): string | undefined {
    const welcome = readWelcome(message);
    if (welcome === undefined) return 'the WELCOME is malformed';
    lane.becomeUp(welcome.keepaliveMs);
    this.#finish()?.onUp(lane, welcome, connectionInfo(this.#socket));
    return undefined;
  }

  #fail(code: string, reason: string): void {
    const outcome = this.#finish();
    if (outcome === undefined) return;
    this.#socket.destroy();
    const { host, port } = this.#options;
    const text = `${host} port ${port}: ${printable(reason)}`;
    outcome.onFailed({ by: 'network', code, reason: text });
  }

  #finish(): AttemptOutcome | undefined {
    const outcome = this.#outcome;
    this.#outcome = undefined;
    this.#cancelTimer();
    return outcome;
  }
}

function identityFault(raw: Buffer, expected: GatewayIdentity): Error | undefined {
  try {
    const certificate = new X509Certificate(raw);
    // Without a purpose, OpenSSL lets a certificate pass for any (RFC 5280 section 4.2.1.12).
    if (certificate.keyUsage?.includes(SERVER_AUTH) !== true) {
      return new Error('the certificate of the server is not for servers');
    }
    const found = formatIdentity(identityOfCertificate(certificate));
    if (found === formatIdentity(expected)) return undefined;
    return new Error(`the server is ${found}, not ${formatIdentity(expected)}`);
  } catch (error) {
    return error as Error;
  }
}

/** id-kp-serverAuth. */
const SERVER_AUTH = '1.3.6.1.5.5.7.3.1';
