/**
 * Enrols a new site. The site knows only the hash of the CA that is in its token, so it takes these steps at each
 * endpoint:
 *
 * 1. It opens a first TLS 1.3 connection, sends nothing on it, and takes the root CA certificate with the token's hash
 *    from the chain that the server presents. That proves nothing about the server: anybody can present a copy.
 * 2. It opens a second connection, on which OpenSSL verifies the server's chain with that root as the only trust
 *    anchor. The server certificate must name the cloud; otherwise the handshake fails.
 * 3. Only now does it send the secret, on the second connection.
 * 4. The certificate in the answer must be for the site's key and name, and lead to a CA of the trust bundle in the
 *    answer. The bundle must contain the root of step 1.
 * @module
 */
import { type KeyObject, X509Certificate } from 'node:crypto';
import http from 'node:http';
import type { Socket } from 'node:net';
import tls, { type TLSSocket } from 'node:tls';
import type { Clock } from '../base/clock.ts';
import type { HostPort } from '../base/host-port.ts';
import { keyExchangeGroups } from '../base/key-exchange.ts';
import {
  checkClock,
  checkDuration,
  checkObject,
  checkSignal,
  checkText,
} from '../base/option-check.ts';
import { type HttpProxy, type ProxyOption, proxyFor } from '../base/proxy.ts';
import { connectThrough } from '../base/proxy-connect.ts';
import { reasonOf } from '../base/socket-error.ts';
import {
  CertificateError,
  EnrolmentError,
  type EnrolmentFault,
  EnvironmentError,
  PeerProtocolError,
  PeerRefusedError,
  ProxyError,
} from '../errors.ts';
import type { Credentials } from './credentials.ts';
import { checkGranted, clockFault, isIssuedBy, readTrustBundle } from './credentials-check.ts';
import {
  ENROLMENT_ALPN,
  ENROLMENT_PATH,
  type EnrolmentRequest,
  parseAnswer,
  parseRefusal,
} from './enrolment-message.ts';
import { generateGatewayKey, readPrivateKey, spkiHashOfCertificate } from './keys.ts';
import { formatIdentity, type GatewayIdentity, identityOfCertificate } from './names.ts';
import { createSigningRequest } from './signing-request.ts';
import { type EnrolmentToken, parseToken } from './token.ts';

export interface EnrolOptions {
  /** The time for each endpoint of the token, both connections together, in ms; default 10 s. */
  readonly timeoutMs?: number;
  /**
   * HTTP proxy to connect through, for example `http://user:password@proxy.example.org:3128`, or a function that
   * returns one for each endpoint. Default: none; only `proxyFromEnvironment` reads the environment.
   */
  readonly proxy?: ProxyOption | undefined;
  /**
   * Cancels the enrolment; `enrol` then rejects with its reason. If the token was already sent, it may have been used.
   * Default: the enrolment cannot be cancelled.
   */
  readonly signal?: AbortSignal | undefined;
  /** PKCS#8; default a new P-256 key. */
  readonly privateKeyPem?: string;
  /** Checks the validity of certificates, in addition to OpenSSL's own clock; default: the system's clock. */
  readonly clock?: Clock;
}

/** The defaults of `EnrolOptions`; times are in ms. */
export const ENROL_DEFAULTS: Readonly<{ timeoutMs: number }> = Object.freeze({ timeoutMs: 10_000 });

interface EndpointOptions {
  readonly timeoutMs: number;
  readonly proxy: ProxyOption | undefined;
  readonly signal: AbortSignal | undefined;
  readonly clock: Clock;
}

/** @throws {ApiMisuseError} if an option is invalid; the proxy is checked for each endpoint. */
function resolveEnrol(
  options: EnrolOptions
): EndpointOptions & { readonly privateKeyPem: string | undefined } {
  const {
    timeoutMs = ENROL_DEFAULTS.timeoutMs,
    proxy,
    privateKeyPem,
  } = checkObject('the options of enrol', options);
  checkDuration('timeoutMs', timeoutMs);
  if (privateKeyPem !== undefined) checkText('privateKeyPem', privateKeyPem);
  const signal = checkSignal(options.signal);
  return { timeoutMs, proxy, signal, privateKeyPem, clock: checkClock(options.clock) };
}

/** The result of an enrolment: what a gateway needs to open its tunnel. */
export interface Enrolment extends Credentials {
  readonly identity: GatewayIdentity;
  /** The endpoints of the cloud's tunnels; empty if the server sent none. */
  readonly tunnels: readonly HostPort[];
}

/**
 * Redeems a token at the first of its endpoints that answers. It skips an endpoint that does not belong to the CA and
 * never sends the secret there.
 *
 * @throws {EnrolmentError} if the token is malformed or refused; with fault `wrong-ca` if an endpoint that answered
 * does not belong to the CA that the token pins; with fault `not-authorized` if the cloud gateway does not admit the
 * site, in which case the token stays valid.
 * @throws {CertificateError} if the type of the key is not accepted.
 * @throws {PeerProtocolError} or {PeerRefusedError} if the server's answer is unexpected.
 * @throws {ProxyError} if no endpoint answers, and the proxy is the reason for the first one.
 * @throws {EnvironmentError} if no endpoint answers for another reason.
 * @throws {ApiMisuseError} if another option is invalid; the message names it.
 * @throws {ConfigError} if `proxy` does not describe a usable proxy.
 */
export async function enrol(tokenText: string, options: EnrolOptions = {}): Promise<Enrolment> {
  const token = parseToken(tokenText);
  const settings = resolveEnrol(options);
  const { signal, clock } = settings;
  const privateKeyPem = settings.privateKeyPem ?? generateGatewayKey().privateKeyPem;
  const request = {
    tokenId: token.id,
    secret: token.secret,
    csrPem: createSigningRequest(privateKeyPem),
  };
  const failures: EndpointFailure[] = [];
  for (const endpoint of token.endpoints) {
    signal?.throwIfAborted();
    try {
      const reply = await exchange(endpoint, token, request, settings);
      return accept(reply, token, readPrivateKey(privateKeyPem), clock.wallMs());
    } catch (error) {
      if (!(error instanceof EndpointFailure)) throw error;
      failures.push(error);
    }
  }
  const reasons = failures.map((it) => it.message).join('; ');
  const [first] = failures;
  const distrusted = failures.find((it) => it.wrongCa);
  if (distrusted !== undefined) {
    throw new EnrolmentError('wrong-ca', reasons, { cause: distrusted });
  }
  const text = `no enrolment endpoint answers: ${reasons}`;
  const { cause } = first!;
  if (cause instanceof ProxyError) {
    throw new ProxyError(cause.fault, text, { cause, status: cause.status });
  }
  throw new EnvironmentError(text, { cause: first });
}

/** The reason why an endpoint cannot be used and the next one is tried. */
class EndpointFailure extends Error {
  readonly wrongCa: boolean;
  /** The `code` of the cause, if it has one. */
  readonly code: string | undefined;

  constructor(
    endpoint: string,
    reason: string,
    wrongCa: boolean,
    cause?: NodeJS.ErrnoException | undefined
  ) {
    super(`${endpoint}: ${reason}`, { cause });
    this.wrongCa = wrongCa;
    this.code = cause?.code;
  }
}

interface Reply {
  readonly status: number;
  readonly body: string;
}

/**
 * Makes both connections to one endpoint, within one deadline.
 *
 * @throws {EndpointFailure} if the endpoint cannot be used.
 * @throws {ConfigError} if the proxy for this endpoint is not usable.
 */
async function exchange(
  endpoint: string,
  token: EnrolmentToken,
  request: EnrolmentRequest,
  options: EndpointOptions
): Promise<Reply> {
  const connections = new EndpointConnections(endpoint, options);
  try {
    const presented = await connections.presentedChain();
    const root = presented.find((it) => isPinnedRoot(it, token));
    if (root === undefined) {
      throw connections.failure('presents no root certificate of the CA that the token pins', true);
    }
    const socket = await connections.verifiedConnection(root, token, presented, options.clock);
    const reply = await connections.post(socket, request);
    if (reply.status >= 500) throw connections.failure(`answered ${reply.status}`);
    return reply;
  } finally {
    connections.end();
  }
}

/** The connections to one endpoint; every failure of them is an `EndpointFailure`. */
class EndpointConnections {
  readonly #endpoint: string;
  /** Options of both connections. */
  readonly #server: tls.ConnectionOptions & { readonly host: string; readonly port: number };
  readonly #proxy: HttpProxy | undefined;
  readonly #sockets = new Set<Socket>();
  readonly #cancelDeadline: () => void;
  readonly #signal: AbortSignal | undefined;
  readonly #onAbort = (): void => this.#fail(this.#signal!.reason);
  #fail: (error: Error) => void = () => {};

  constructor(endpoint: string, { timeoutMs, proxy, signal, clock }: EndpointOptions) {
    const { hostname, port: portText } = new URL(endpoint);
    const host = hostname.replace(/^\[|\]$/g, '');
    const port = Number(portText === '' ? 443 : portText);
    this.#endpoint = endpoint;
    this.#proxy = proxyFor(proxy, host, port);
    this.#server = {
      host,
      port,
      minVersion: 'TLSv1.3',
      ecdhCurve: keyExchangeGroups(),
      ALPNProtocols: [ENROLMENT_ALPN],
    };
    this.#cancelDeadline = clock.after(timeoutMs, () => {
      const cause = Object.assign(new Error('timed out'), { code: 'ETIMEDOUT' });
      this.#fail(this.failure(`no answer within ${timeoutMs} ms`, false, cause));
    });
    this.#signal = signal;
    signal?.addEventListener('abort', this.#onAbort);
  }

  /** Closes all connections. */
  end(): void {
    this.#cancelDeadline();
    this.#signal?.removeEventListener('abort', this.#onAbort);
    for (const socket of this.#sockets) socket.destroy();
  }

  failure(reason: string, wrongCa = false, cause?: NodeJS.ErrnoException): EndpointFailure {
    return new EndpointFailure(this.#endpoint, reason, wrongCa, cause);
  }

  #failureBy(error: NodeJS.ErrnoException): EndpointFailure {
    return this.failure(reasonOf(error), false, error);
  }

  /** Returns a connection through the proxy for TLS to use, or nothing, in which case Node connects itself. */
  async #transport(): Promise<{ readonly socket?: Socket }> {
    const proxy = this.#proxy;
    if (proxy === undefined) return {};
    const socket = await new Promise<Socket>((resolve, reject) => {
      this.#fail = reject;
      const onFailed = (error: Error): void => reject(this.#failureBy(error));
      this.#keep(connectThrough(proxy, this.#server, { onOpen: resolve, onFailed }));
    });
    return { socket };
  }

  /** Returns the certificates that the server presents, its own first. They are not verified. */
  async presentedChain(): Promise<X509Certificate[]> {
    const transport = await this.#transport();
    // With no anchors and no rejection, every chain is accepted unverified. Nothing may be sent on this connection.
    const socket = this.#keep(
      tls.connect({ ...this.#server, ...transport, ca: [], rejectUnauthorized: false }),
      transport.socket
    );
    return this.#step(socket, (resolve) => {
      socket.on('secureConnect', () => {
        const presented: X509Certificate[] = [];
        // It is called only once, because a second call returns no chain. `issuerCertificate` is what the server sent
        // next, whether it is the issuer or not.
        let next = socket.getPeerX509Certificate();
        while (next !== undefined && presented.length < MAX_PRESENTED) {
          presented.push(next);
          next = next.issuerCertificate;
        }
        socket.end();
        resolve(presented);
      });
    });
  }

  /** Connects to a server whose chain OpenSSL has verified and whose certificate names the token's cloud. */
  async verifiedConnection(
    root: X509Certificate,
    token: EnrolmentToken,
    presented: readonly X509Certificate[],
    clock: Clock
  ): Promise<TLSSocket> {
    const transport = await this.#transport();
    let wrongTime: string | undefined;
    const socket = this.#keep(
      tls.connect({
        ...this.#server,
        ...transport,
        ca: root.toString(),
        // Explicit, because the environment variable NODE_TLS_REJECT_UNAUTHORIZED can change the default.
        rejectUnauthorized: true,
        // Called when the chain is verified. It checks the identity instead of the host name.
        checkServerIdentity: (_host, { raw }) => {
          const leaf = new X509Certificate(raw);
          wrongTime = clockFault([leaf], clock.wallMs());
          return wrongTime === undefined
            ? cloudFault(leaf, token)
            : new CertificateError(wrongTime);
        },
      }),
      transport.socket
    );
    return this.#step(
      socket,
      (resolve, reject) => {
        socket.on('secureConnect', () => {
          if (socket.authorized) resolve(socket);
          else reject(this.failure('its certificate is not verified', true));
        });
      },
      (error) => {
        // Null unless a certificate caused the error.
        const fault = socket.authorizationError as unknown as string | null | undefined;
        if (fault === null || fault === undefined) return this.#failureBy(error);
        if (wrongTime !== undefined) {
          // The same code as when OpenSSL finds this with the system's clock. It is not a wrong CA.
          const cause = Object.assign(new Error(wrongTime), { code: 'CERT_HAS_EXPIRED' });
          return this.failure(wrongTime, false, cause);
        }
        if (CLOCK_FAULTS.has(fault)) {
          return this.failure(clockFault(presented, clock.wallMs()) ?? error.message, false, error);
        }
        return this.failure(
          `its certificate is not one of the cloud by the CA that the token pins: ${error.message}`,
          true,
          error
        );
      }
    );
  }

  post(socket: TLSSocket, body: EnrolmentRequest): Promise<Reply> {
    return this.#step(socket, (resolve, reject) => {
      const request = http.request({
        createConnection: () => socket,
        method: 'POST',
        path: ENROLMENT_PATH,
        host: this.#server.host,
        headers: { 'content-type': 'application/json' },
      });
      const fail = (error: Error) => reject(this.#failureBy(error));
      request.on('error', fail);
      request.on('response', (response) => {
        const chunks: Buffer[] = [];
        let length = 0;
        response.on('data', (chunk: Buffer) => {
          length += chunk.length;
          chunks.push(chunk);
          if (length > MAX_REPLY_BYTES) fail(new Error('the answer is too large'));
        });
        response.on('error', fail);
        response.on('end', () => {
          resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString() });
        });
      });
      request.end(JSON.stringify(body));
    });
  }

  /**
   * Adds a socket to those that `end` closes. It replaces the socket `below` it, which closes with it: Node crashes if
   * that one is destroyed first.
   */
  #keep<S extends Socket>(socket: S, below?: Socket): S {
    if (below !== undefined) this.#sockets.delete(below);
    this.#sockets.add(socket);
    return socket;
  }

  /** Resolves as `run` does; rejects if the deadline passes or the socket closes before. */
  #step<T>(
    socket: TLSSocket,
    run: (resolve: (value: T) => void, reject: (failure: EndpointFailure) => void) => void,
    failureOf: (error: Error) => EndpointFailure = (error) => this.#failureBy(error)
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#fail = reject;
      socket.on('error', (error) => reject(failureOf(error)));
      socket.on('close', () => reject(this.failure('closed the connection')));
      run(resolve, reject);
    });
  }
}

/** Whether this is the self-signed root that the token pins; the same key certified by another CA does not count. */
function isPinnedRoot(certificate: X509Certificate, token: EnrolmentToken): boolean {
  try {
    return (
      certificate.ca &&
      spkiHashOfCertificate(certificate) === token.caSpkiHash &&
      isIssuedBy(certificate, certificate)
    );
  } catch {
    return false; // The type of its key is not accepted.
  }
}

/** Returns what is wrong with the certificate of a server whose chain is verified, if anything. */
function cloudFault(leaf: X509Certificate, { trustDomain }: EnrolmentToken): Error | undefined {
  try {
    const found = formatIdentity(identityOfCertificate(leaf));
    const wanted = formatIdentity({ trustDomain, role: 'cloud' });
    return found === wanted ? undefined : new CertificateError(`is ${found}, not ${wanted}`);
  } catch (error) {
    return error as Error;
  }
}

/** Returns the enrolment that the reply grants, or throws the error that it reports. */
function accept(
  reply: Reply,
  token: EnrolmentToken,
  privateKey: KeyObject,
  nowMs: number
): Enrolment {
  if (reply.status !== 200) throw refusal(reply);
  const answer = parseAnswer(reply.body);
  if (answer === undefined) throw new PeerProtocolError('the enrolment answer is malformed');
  const identity: GatewayIdentity = {
    trustDomain: token.trustDomain,
    role: 'site',
    site: token.site,
  };
  try {
    const granted = checkGranted(answer, privateKey, identity, nowMs);
    if (!readTrustBundle(granted.caPem).some((it) => isPinnedRoot(it, token))) {
      throw new CertificateError('its trust bundle is without the CA that the token pins');
    }
    return {
      key: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
      cert: granted.certificatePem,
      ca: granted.caPem,
      identity,
      tunnels: answer.tunnels,
    };
  } catch (cause) {
    const reason = (cause as Error).message;
    throw new PeerProtocolError(`the certificate granted is not usable: ${reason}`, { cause });
  }
}

function refusal({ status, body }: Reply): Error {
  const { code, message } = parseRefusal(body) ?? { code: '', message: `answered ${status}` };
  const fault = FAULTS.find((it) => new EnrolmentError(it, '').code === code);
  if (fault !== undefined) return new EnrolmentError(fault, message);
  if (code === new CertificateError('').code) return new CertificateError(message);
  return new PeerRefusedError(`enrolment refused: ${message}`);
}

const MAX_REPLY_BYTES = 65_536;
/** How many certificates of a server's chain are read. */
const MAX_PRESENTED = 16;
/** OpenSSL's codes for a certificate that is not valid at this time. */
const CLOCK_FAULTS: ReadonlySet<string> = new Set(['CERT_HAS_EXPIRED', 'CERT_NOT_YET_VALID']);
/** The faults that a server may answer; only the client finds the others. */
const FAULTS: readonly EnrolmentFault[] = [
  'malformed',
  'unknown',
  'expired',
  'used',
  'not-authorized',
];
