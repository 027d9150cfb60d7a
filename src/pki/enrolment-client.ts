/**
 * How a new site enrols. The token's hash is all it knows of the CA, so at each endpoint:
 *
 * 1. A first TLS 1.3 connection, on which nothing is sent, takes from what the server shows the root
 *    CA certificate that has the hash of the token. A copy of it proves nothing of who shows it.
 * 2. On a second one OpenSSL verifies the server's chain with that root as the one trust anchor, and
 *    its certificate must name the cloud; else there is no connection.
 * 3. Only then is the secret sent, on that second connection.
 * 4. The certificate that comes back must be for our key, for the token's site, and lead to a CA of
 *    the trust bundle that comes with it; and the bundle must contain the root of step 1.
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
  /** For each endpoint of the token, both connections together, in ms; default 10 s. */
  readonly timeoutMs?: number;
  /**
   * HTTP proxy to connect through, for example `http://user:password@proxy.example.org:3128`, or a function that
   * names one for each endpoint. Default: none; the environment is read with `proxyFromEnvironment` only.
   */
  readonly proxy?: ProxyOption | undefined;
  /**
   * Ends the enrolment; `enrol` rejects with its reason then. A token that was sent may be spent. Default: nothing ends
   * it before its time.
   */
  readonly signal?: AbortSignal | undefined;
  /** PKCS#8; default a new P-256 key. */
  readonly privateKeyPem?: string;
  /** By which certificates are judged beside OpenSSL's clock; default that of the system. */
  readonly clock?: Clock;
}

/** What is used where an option is absent; times are in ms. */
export const ENROL_DEFAULTS: Readonly<{ timeoutMs: number }> = Object.freeze({ timeoutMs: 10_000 });

interface VisitOptions {
  readonly timeoutMs: number;
  readonly proxy: ProxyOption | undefined;
  readonly signal: AbortSignal | undefined;
  readonly clock: Clock;
}

/** @throws {ApiMisuseError} if an option is not what it must be; the proxy is looked at for each endpoint. */
function resolveEnrol(
  options: EnrolOptions
): VisitOptions & { readonly privateKeyPem: string | undefined } {
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

/** What a gateway needs to open its tunnel. */
export interface Enrolment extends Credentials {
  readonly identity: GatewayIdentity;
  /** Where the cloud takes tunnels; empty if it has said nothing about that. */
  readonly tunnels: readonly HostPort[];
}

/**
 * Redeems a token at the first of its endpoints that answers. An endpoint that is not the CA's is
 * passed over, and never sees the secret.
 *
 * @throws {EnrolmentError} if the token is malformed or refused; with fault `wrong-ca` if an
 * endpoint that answered was not of the CA that the token pins; with fault `not-authorized` if the cloud gateway
 * does not let the site in, which leaves the token good.
 * @throws {CertificateError} if the key is of a kind that is not accepted.
 * @throws {PeerProtocolError} or {PeerRefusedError} if the server's answer makes no sense.
 * @throws {ProxyError} if no endpoint answers, and for the first one the proxy is the reason.
 * @throws {EnvironmentError} if no endpoint answers for another reason.
 * @throws {ApiMisuseError} if another option is not what it must be; the message names it.
 * @throws {ConfigError} if `proxy` names no proxy that can be used.
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

/** Why one endpoint was no good and the next is tried. */
class EndpointFailure extends Error {
  readonly wrongCa: boolean;
  /** The code of the error that is the cause, if there is one. */
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
 * One endpoint: both connections, within one time.
 *
 * @throws {EndpointFailure}
 * @throws {ConfigError} if the proxy for this endpoint is none that can be used.
 */
async function exchange(
  endpoint: string,
  token: EnrolmentToken,
  request: EnrolmentRequest,
  options: VisitOptions
): Promise<Reply> {
  const visit = new Visit(endpoint, options);
  try {
    const shown = await visit.shownChain();
    const root = shown.find((it) => isPinnedRoot(it, token));
    if (root === undefined) {
      throw visit.failure('shows no root certificate of the CA that the token pins', true);
    }
    const socket = await visit.verifiedConnection(root, token, shown, options.clock);
    const reply = await visit.post(socket, request);
    if (reply.status >= 500) throw visit.failure(`answered ${reply.status}`);
    return reply;
  } finally {
    visit.end();
  }
}

/** The connections to one endpoint; whatever goes wrong with them is an `EndpointFailure`. */
class Visit {
  readonly #endpoint: string;
  /** Options of both connections. */
  readonly #server: tls.ConnectionOptions & { readonly host: string; readonly port: number };
  readonly #proxy: HttpProxy | undefined;
  readonly #sockets = new Set<Socket>();
  readonly #cancelDeadline: () => void;
  readonly #signal: AbortSignal | undefined;
  readonly #onAbort = (): void => this.#fail(this.#signal!.reason);
  #fail: (error: Error) => void = () => {};

  constructor(endpoint: string, { timeoutMs, proxy, signal, clock }: VisitOptions) {
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

  /** Closes what is open. */
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

  /** What TLS is to run over: a connection through the proxy, or one that Node makes itself. */
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

  /** The certificates that the server shows, its own first. Nobody has verified them. */
  async shownChain(): Promise<X509Certificate[]> {
    const transport = await this.#transport();
    // Every chain is accepted, and none because an anchor of the system verifies it. Nothing may be sent here.
    const socket = this.#keep(
      tls.connect({ ...this.#server, ...transport, ca: [], rejectUnauthorized: false }),
      transport.socket
    );
    return this.#step(socket, (resolve) => {
      socket.on('secureConnect', () => {
        const shown: X509Certificate[] = [];
        // Asked for once only: a second call finds the socket's chain used up. What follows a
        // certificate is what the server sent behind it, whether it is its issuer or not.
        let next = socket.getPeerX509Certificate();
        for (; next !== undefined && shown.length < MAX_SHOWN; next = next.issuerCertificate) {
          shown.push(next);
        }
        socket.end();
        resolve(shown);
      });
    });
  }

  /** A connection to a server whose chain OpenSSL has verified, and which is the token's cloud. */
  async verifiedConnection(
    root: X509Certificate,
    token: EnrolmentToken,
    shown: readonly X509Certificate[],
    clock: Clock
  ): Promise<TLSSocket> {
    const transport = await this.#transport();
    let wrongTime: string | undefined;
    const socket = this.#keep(
      tls.connect({
        ...this.#server,
        ...transport,
        ca: root.toString(),
        // By default the environment variable NODE_TLS_REJECT_UNAUTHORIZED could switch the verification off.
        rejectUnauthorized: true,
        // Called when the chain is verified. The host's name is no matter, the identity is.
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
        // Null unless a certificate is the reason.
        const fault = socket.authorizationError as unknown as string | null | undefined;
        if (fault === null || fault === undefined) return this.#failureBy(error);
        if (wrongTime !== undefined) {
          // As OpenSSL says it, which goes by the system's clock: the certificate is the cloud's.
          const cause = Object.assign(new Error(wrongTime), { code: 'CERT_HAS_EXPIRED' });
          return this.failure(wrongTime, false, cause);
        }
        if (CLOCK_FAULTS.has(fault)) {
          return this.failure(clockFault(shown, clock.wallMs()) ?? error.message, false, error);
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
   * Has a connection closed with the others. One over another socket takes that one with it: Node crashes if that
   * is destroyed first.
   */
  #keep<S extends Socket>(socket: S, below?: Socket): S {
    if (below !== undefined) this.#sockets.delete(below);
    this.#sockets.add(socket);
    return socket;
  }

  /** What `run` resolves with, unless the time is over or the socket ends before. */
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

/** A root that signs itself: the same key certified by another is not the anchor. */
function isPinnedRoot(certificate: X509Certificate, token: EnrolmentToken): boolean {
  try {
    return (
      certificate.ca &&
      spkiHashOfCertificate(certificate) === token.caSpkiHash &&
      isIssuedBy(certificate, certificate)
    );
  } catch {
    return false; // a key of a kind that we do not know
  }
}

/** What is wrong with a server whose chain is verified. */
function cloudFault(leaf: X509Certificate, { trustDomain }: EnrolmentToken): Error | undefined {
  try {
    const found = formatIdentity(identityOfCertificate(leaf));
    const wanted = formatIdentity({ trustDomain, role: 'cloud' });
    return found === wanted ? undefined : new CertificateError(`is ${found}, not ${wanted}`);
  } catch (error) {
    return error as Error;
  }
}

/** Takes from the reply what it grants, or throws what it refuses. */
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
/** Certificates of a server that are looked at. */
const MAX_SHOWN = 16;
/** How OpenSSL says that a certificate does not hold at this time. */
const CLOCK_FAULTS: ReadonlySet<string> = new Set(['CERT_HAS_EXPIRED', 'CERT_NOT_YET_VALID']);
/** What a server may answer; the others are ours alone to find. */
const FAULTS: readonly EnrolmentFault[] = [
  'malformed',
  'unknown',
  'expired',
  'used',
  'not-authorized',
];
