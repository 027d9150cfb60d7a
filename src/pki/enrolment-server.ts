/**
 * The server at which new sites enrol: HTTP over TLS with one route, `POST /v1/enrol`, on its own port or on the port
 * of a tunnel listener. Every client is an unauthenticated peer, so everything that a client can consume is bounded:
 *
 * 1. A `ConnectionLimiter` admits connections: so many a second for each address, and so many at once. When they are
 *    too many, the oldest connection of the address that has most is evicted.
 * 2. Handshake, request and answer share one deadline.
 * 3. The size of a body and the number of simultaneous redemptions are limited.
 * @module
 */
import http, { type IncomingMessage, type ServerResponse } from 'node:http';
import net, { type AddressInfo, type Socket } from 'node:net';
import tls, { type SecureContextOptions, type TLSSocket } from 'node:tls';
import { EventEmitter } from 'eventemitter3';
import type { Clock } from '../base/clock.ts';
import { ConnectionLimiter } from '../base/connection-limiter.ts';
import type { HostPort } from '../base/host-port.ts';
import { keyExchangeGroups } from '../base/key-exchange.ts';
import {
  ApiMisuseError,
  CertificateError,
  EnrolmentError,
  EnvironmentError,
  StoreError,
} from '../errors.ts';
import type { CertificateAuthority } from './authority.ts';
import type { IssuedCertificate } from './authority-options.ts';
import { authorizeEnrolment } from './enrolment-authorization.ts';
import {
  ENROLMENT_ALPN,
  ENROLMENT_PATH,
  type EnrolmentAnswer,
  type EnrolmentRequest,
  formatTunnels,
  parseRequest,
} from './enrolment-message.ts';
import {
  type AuthorizeEnrolment,
  type EnrolmentCounters,
  type EnrolmentOutcome,
  type EnrolmentServerEvents,
  type EnrolmentServerOptions,
  resolveEnrolmentServer,
} from './enrolment-server-options.ts';
import { ServerCertificate } from './server-certificate.ts';

/**
 * Serves enrolment for one CA.
 *
 * `listen` opens its own port. Its server certificate has the identity `cloud`; the authority issues it, and the server
 * renews it in time and when the CA is replaced. `handle` serves a connection of another TLS server instead, for example
 * of a `TunnelListener` with the option `otherProtocols`. `close` waits for redemptions in progress.
 */
export class EnrolmentServer extends EventEmitter<EnrolmentServerEvents> {
  readonly counters: Readonly<EnrolmentCounters>;

  readonly #counters: EnrolmentCounters = {
    connections: 0,
    rateLimited: 0,
    evicted: 0,
    timeouts: 0,
    handshakeFailures: 0,
    enrolled: 0,
    refused: 0,
    busy: 0,
    failed: 0,
  };
  readonly #authority: CertificateAuthority;
  readonly #limiter: ConnectionLimiter;
  readonly #maxRedemptions: number;
  readonly #maxBodyBytes: number;
  readonly #timeoutMs: number;
  readonly #tunnels: () => readonly HostPort[];
  readonly #authorize: AuthorizeEnrolment | undefined;
  readonly #clock: Clock;
  /** Keyed by the addresses and ports of both ends, see `keyOf`. */
  readonly #connections = new Map<string, Connection>();
  readonly #inProgress = new Set<Promise<void>>();
  readonly #certificate: ServerCertificate;
  #redemptions = 0;
  /** It does not listen: it receives connections whose TLS handshake is done. */
  readonly #http: http.Server;
  #open: { readonly tcpServer: net.Server; readonly tlsServer: tls.Server } | undefined;
  #isClosed = false;
  #closing: Promise<void> | undefined;

  /** @throws {ApiMisuseError} if an option is invalid; the message names it. */
  constructor(options: EnrolmentServerOptions) {
    super();
    const settings = resolveEnrolmentServer(options);
    this.counters = this.#counters;
    this.#authority = settings.authority;
    this.#limiter = new ConnectionLimiter(settings.limits);
    this.#maxRedemptions = settings.maxRedemptions;
    this.#maxBodyBytes = settings.maxBodyBytes;
    this.#timeoutMs = settings.timeoutMs;
    this.#tunnels = settings.tunnels;
    this.#authorize = settings.authorize;
    this.#clock = settings.clock;
    this.#http = this.#createHttp();
    this.#certificate = new ServerCertificate({
      authority: this.#authority,
      lifetimeMs: settings.certificateLifetimeMs,
      clock: this.#clock,
      use: (credentials) =>
        this.#open?.tlsServer.setSecureContext({ ...credentials, ...tlsProfile() }),
      onError: (error) => this.#emitProblem(error),
    });
  }

  /** ALPN name of the protocol that `handle` serves. */
  static readonly alpn: string = ENROLMENT_ALPN;

  /**
   * Serves a connection whose TLS handshake another server has done and whose protocol is `EnrolmentServer.alpn`.
   * That server must present the certificate of the cloud and the whole chain up to the root, because a new site knows
   * only the hash of the root's key. The limits of this server apply to the connection, and its deadline begins now.
   * After `close` the connection is destroyed.
   */
  handle(socket: TLSSocket): void {
    if (this.#isClosed) socket.destroy();
    else if (this.#admit(socket)) this.#http.emit('connection', socket);
  }

  /**
   * Opens the port; 0 selects a free one.
   *
   * @throws {EnvironmentError} if the port is in use or cannot be opened.
   * @throws {ApiMisuseError} if the server already listens, or is closed before or during the call.
   */
  async listen(options: HostPort): Promise<{
    port: number;
  }> {
    if (this.#open !== undefined) throw new ApiMisuseError('the enrolment server listens already');
    this.#checkNotClosed();
    // It does not listen: the TCP server passes it the admitted connections, so the others cost no TLS.
    const tlsServer = tls.createServer(
      { ...tlsProfile(), handshakeTimeout: this.#timeoutMs, ALPNProtocols: [ENROLMENT_ALPN] },
      (socket) => this.#http.emit('connection', socket)
    );
    tlsServer.on('tlsClientError', (_error, socket) => {
      this.#counters.handshakeFailures++;
      socket.destroy();
    });
    const tcpServer = net.createServer({ noDelay: true }, (socket) => {
      if (this.#admit(socket)) tlsServer.emit('connection', socket);
    });
    this.#open = { tcpServer, tlsServer };
    try {
      await this.#certificate.open();
      this.#checkNotClosed();
      await listening(tcpServer, options);
      this.#checkNotClosed();
    } catch (error) {
      this.#open = undefined;
      this.#certificate.close();
      tcpServer.close();
      throw error;
    }
    // One connection could not be accepted.
    tcpServer.on('error', (error) => this.#emitProblem(error));
    return { port: (tcpServer.address() as AddressInfo).port };
  }

  /** Takes a new key and server certificate now. The server also does so by itself in time. */
  renewCertificate(): Promise<void> {
    return this.#certificate.renew();
  }

  /** Closes the port, waits for redemptions in progress, and closes every connection. Safe to call twice. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** The same as `close`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#isClosed = true;
    this.#certificate.close();
    const { tcpServer } = this.#open ?? {};
    const closed = tcpServer && new Promise((resolve) => tcpServer.close(resolve));
    // The tokens of these sites are not used yet, so the sites can try again.
    for (const { socket, isAwaitingDecision } of this.#connections.values()) {
      if (isAwaitingDecision) socket.destroy();
    }
    await Promise.allSettled(this.#inProgress);
    for (const { socket } of this.#connections.values()) socket.destroy();
    await closed;
  }

  #checkNotClosed(): void {
    if (this.#isClosed) throw new ApiMisuseError('the enrolment server is closed');
  }

  #createHttp(): http.Server {
    const server = http.createServer({ maxHeaderSize: MAX_HEADER_BYTES, keepAlive: false });
    server.maxRequestsPerSocket = 1;
    server.on('request', (request, response) => void this.#answer(request, response));
    // The bytes are not HTTP, or the headers are too long.
    server.on('clientError', (_error, socket) => {
      // Bytes that were read with the first faulty ones cause the event again.
      if (socket.destroyed) return;
      this.#counters.refused++;
      socket.destroy();
    });
    return server;
  }

  /** Returns whether the connection is admitted, and starts the deadline for all its steps. */
  #admit(socket: Socket): boolean {
    this.#counters.connections++;
    socket.on('error', () => {});
    const key = keyOf(socket);
    const { remoteAddress } = socket;
    const admission =
      remoteAddress === undefined // It has already closed.
        ? undefined
        : this.#limiter.admit(remoteAddress, this.#clock.monotonicMs(), () => this.#evict(key));
    this.#counters.rateLimited = this.#limiter.counters.rateLimited;
    if (remoteAddress === undefined || admission === undefined) {
      socket.destroy();
      return false;
    }
    const connection: Connection = {
      socket,
      remoteAddress,
      isEvicted: false,
      isRedeeming: false,
      isAwaitingDecision: false,
    };
    this.#connections.set(key, connection);
    const cancelDeadline = this.#clock.after(this.#timeoutMs, () => {
      this.#counters.timeouts++;
      socket.destroy();
    });
    socket.on('close', () => {
      cancelDeadline();
      admission.leave();
      this.#connections.delete(key);
    });
    return true;
  }

  /** Closes a connection to admit another, but not while it redeems a token, which would be lost. */
  #evict(key: string): void {
    const connection = this.#connections.get(key);
    if (connection === undefined) return;
    connection.isEvicted = true;
    if (connection.isRedeeming) return;
    this.#counters.evicted++;
    connection.socket.destroy();
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    request.on('error', () => {}); // The connection has closed, so there is nobody to answer.
    if (request.url !== ENROLMENT_PATH) return this.#refuse(response, 404, 'no such path');
    if (request.method !== 'POST') return this.#refuse(response, 405, 'only POST is served');
    const body = await readBody(request, this.#maxBodyBytes);
    if (body === 'aborted') return;
    if (body === 'too large') return this.#refuse(response, 413, 'the request is too large');
    const redemption = parseRequest(body.toString());
    if (redemption === undefined) return this.#refuse(response, 400, 'not an enrolment request');
    const connection = this.#connections.get(keyOf(request.socket));
    if (connection === undefined) return; // It has closed.
    if (this.#redemptions >= this.#maxRedemptions) {
      this.#counters.busy++;
      return send(response, 503, { code: INTERNAL, message: 'too many at once' });
    }
    const redeemed = this.#redeem(redemption, connection, response);
    this.#inProgress.add(redeemed);
    await redeemed;
    this.#inProgress.delete(redeemed);
  }

  /** Never rejects. */
  async #redeem(
    redemption: EnrolmentRequest,
    connection: Connection,
    response: ServerResponse
  ): Promise<void> {
    this.#redemptions++;
    connection.isRedeeming = true;
    let issued: IssuedCertificate;
    let tunnels: string[];
    try {
      // This comes before `enrol`, because a failure here must not use up the token.
      tunnels = formatTunnels(this.#tunnels());
      issued = await this.#authority.enrol(redemption, {
        authorize: this.#authorize && ((site) => this.#authorizeSite(site, connection)),
      });
    } catch (error) {
      connection.isRedeeming = false;
      return this.#refuseRedemption(error, connection, response);
    } finally {
      this.#redemptions--;
    }
    this.#counters.enrolled++;
    const { certificatePem, notAfter, identity, serial } = issued;
    if (identity.role === 'site') {
      this.#emitOutcome({ remoteAddress: connection.remoteAddress, site: identity.site, serial });
    }
    const answer: EnrolmentAnswer = {
      certificatePem,
      caPem: this.#authority.trustBundlePem,
      notAfter: notAfter.toISOString(),
      ...(tunnels.length > 0 && { tunnels }),
    };
    await send(response, 200, answer);
  }

  async #authorizeSite(site: string, connection: Connection): Promise<void> {
    const { socket, remoteAddress } = connection;
    connection.isAwaitingDecision = true;
    connection.site = site;
    try {
      await authorizeEnrolment(this.#authorize!, { site, remoteAddress }, socket, (error) =>
        this.#emitProblem(error)
      );
    } finally {
      connection.isAwaitingDecision = false;
    }
  }

  async #refuseRedemption(
    error: unknown,
    { remoteAddress, socket, isEvicted, site }: Connection,
    response: ServerResponse
  ): Promise<void> {
    const isRefusal = error instanceof EnrolmentError || error instanceof CertificateError;
    const refused = isRefusal
      ? { code: error.code, message: error.message }
      : { code: INTERNAL, message: 'internal error' };
    if (isRefusal) this.#counters.refused++;
    else {
      this.#counters.failed++;
      this.#emitProblem(error);
    }
    const isSiteKnown = error instanceof EnrolmentError && error.fault === 'not-authorized';
    this.#emitOutcome({
      remoteAddress,
      ...(isSiteKnown && site !== undefined && { site }),
      refused,
    });
    if (isEvicted) {
      this.#counters.evicted++;
      socket.destroy();
      return;
    }
    await send(response, statusOf(error), refused);
  }

  /** Emits `outcome`. The site gets its answer even if a listener throws. */
  #emitOutcome(outcome: EnrolmentOutcome): void {
    try {
      this.emit('outcome', outcome);
    } catch (error) {
      this.#emitProblem(error);
    }
  }

  #emitProblem(error: unknown): void {
    this.emit('problem', { error: error instanceof Error ? error : new Error(String(error)) });
  }

  async #refuse(response: ServerResponse, status: number, message: string): Promise<void> {
    this.#counters.refused++;
    await send(response, status, { code: MALFORMED, message });
  }
}

/** An admitted connection. */
interface Connection {
  readonly socket: Socket;
  readonly remoteAddress: string;
  /** Whether the authority checks its token, or has granted a certificate that is being sent. */
  isRedeeming: boolean;
  /** Whether `authorize` has not decided yet; the token is not used then. */
  isAwaitingDecision: boolean;
  /** The site about which `authorize` was asked. */
  site?: string;
  /** Whether it must close to admit another. */
  isEvicted: boolean;
}

/** Returns the same key for a connection and for the TLS socket on it. */
function keyOf({ remoteAddress, remotePort, localAddress, localPort }: Socket): string {
  return `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`;
}

function statusOf(error: unknown): number {
  if (error instanceof EnrolmentError) return 403;
  if (error instanceof CertificateError) return 400;
  return error instanceof StoreError ? 503 : 500;
}

function tlsProfile(): Pick<SecureContextOptions, 'minVersion' | 'ecdhCurve'> {
  return { minVersion: 'TLSv1.3', ecdhCurve: keyExchangeGroups() };
}

/** Reads a body, and stops when it has more than `maxBytes`. */
async function readBody(
  request: IncomingMessage,
  maxBytes: number
): Promise<Buffer | 'too large' | 'aborted'> {
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of request as AsyncIterable<Buffer>) {
      length += chunk.length;
      if (length > maxBytes) return 'too large';
      chunks.push(chunk);
    }
  } catch {
    return 'aborted';
  }
  return Buffer.concat(chunks);
}

/** Sends an answer and resolves when the connection has closed. */
function send(response: ServerResponse, status: number, body: object): Promise<void> {
  return new Promise((resolve) => {
    const { socket } = response;
    if (socket === null || socket.destroyed) return resolve();
    // At `finish` of the response, its bytes may still wait to be encrypted, so this waits for `close`.
    socket.on('close', () => resolve());
    response.writeHead(status, { 'content-type': 'application/json', connection: 'close' });
    response.end(JSON.stringify(body));
  });
}

function listening(server: net.Server, { host, port }: HostPort): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      const where = `port ${port} on ${host}`;
      const why =
        cause.code === 'EADDRINUSE'
          ? 'is in use by another program'
          : `cannot be opened: ${cause.code ?? cause.message}`;
      reject(new EnvironmentError(`${where} ${why}`, { cause }));
    });
    // It was closed before it listened; the caller checks for that.
    server.once('close', resolve);
    server.listen({ host, port }, resolve);
  });
}

const INTERNAL = 'ERR_PRESENCE_INTERNAL';
const MALFORMED: string = new EnrolmentError('malformed', '').code;
const MAX_HEADER_BYTES = 8192;
