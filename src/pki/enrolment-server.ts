/**
 * The server where new sites enrol: HTTP over TLS with one route, `POST /v1/enrol`, on a port of its own or on that
 * of a tunnel listener. Every client is an unauthenticated peer, so all that one can take is bounded:
 *
 * 1. a `ConnectionLimiter` decides who comes in: by address so many a second, and so many at once, of
 *    whom the slowest of the address that has most make way for others
 * 2. one deadline holds for handshake, request and answer together
 * 3. a body has so many bytes, and the authority is asked about so many at once
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
 * `listen` opens a port of its own, under a certificate of identity `cloud` that the server has issued to itself; it
 * renews that in time, and when the CA is replaced. `handle` serves a connection of another TLS server instead, for
 * example of a `TunnelListener` that is told so by `otherProtocols`. `close` waits for redemptions under way.
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
  readonly #gate: ConnectionLimiter;
  readonly #maxRedemptions: number;
  readonly #maxBodyBytes: number;
  readonly #timeoutMs: number;
  readonly #tunnels: () => readonly HostPort[];
  readonly #authorize: AuthorizeEnrolment | undefined;
  readonly #clock: Clock;
  /** The key is the addresses and ports of both ends. */
  readonly #connections = new Map<string, Connection>();
  readonly #underWay = new Set<Promise<void>>();
  readonly #certificate: ServerCertificate;
  #redemptions = 0;
  /** It listens on nothing, here or anywhere: it is handed connections whose TLS handshake is done. */
  readonly #http: http.Server;
  #open: { readonly door: net.Server; readonly server: tls.Server } | undefined;
  #isClosed = false;
  #closing: Promise<void> | undefined;

  /** @throws {ApiMisuseError} if an option is not what it must be; the message names it. */
  constructor(options: EnrolmentServerOptions) {
    super();
    const settings = resolveEnrolmentServer(options);
    this.counters = this.#counters;
    this.#authority = settings.authority;
    this.#gate = new ConnectionLimiter(settings.gate);
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
      use: (shown) => this.#open?.server.setSecureContext({ ...shown, ...tlsProfile() }),
      onError: (error) => this.#fault(error),
    });
  }

  /** Name of the protocol that `handle` serves, as ALPN has it. */
  static readonly alpn: string = ENROLMENT_ALPN;

  /**
   * Serves a connection whose TLS handshake another server has done and whose protocol is `EnrolmentServer.alpn`.
   * That server must present the certificate of the cloud and all certificates from it up to the root. The root is
   * needed because a new site knows the hash of its key alone. The limits of this server hold for the connection too; its
   * deadline begins now. After `close` the connection is destroyed.
   */
  handle(socket: TLSSocket): void {
    if (this.#isClosed) socket.destroy();
    else if (this.#admit(socket)) this.#http.emit('connection', socket);
  }

  /**
   * Opens the port; 0 takes a free one.
   *
   * @throws {EnvironmentError} if the port is busy or may not be opened.
   * @throws {ApiMisuseError} if the server listens already, or is closed, also meanwhile.
   */
  async listen(options: HostPort): Promise<{
    port: number;
  }> {
    if (this.#open !== undefined) throw new ApiMisuseError('the enrolment server listens already');
    this.#checkNotClosed();
    // It listens on nothing: the TCP server hands it those who may come in, so the others cost no TLS.
    const server = tls.createServer(
      { ...tlsProfile(), handshakeTimeout: this.#timeoutMs, ALPNProtocols: [ENROLMENT_ALPN] },
      (socket) => this.#http.emit('connection', socket)
    );
    server.on('tlsClientError', (_error, socket) => {
      this.#counters.handshakeFailures++;
      socket.destroy();
    });
    const door = net.createServer({ noDelay: true }, (socket) => {
      if (this.#admit(socket)) server.emit('connection', socket);
    });
    this.#open = { door, server };
    try {
      await this.#certificate.open();
      this.#checkNotClosed();
      await listening(door, options);
      this.#checkNotClosed();
    } catch (error) {
      this.#open = undefined;
      this.#certificate.close();
      door.close();
      throw error;
    }
    // Of one connection that could not be accepted.
    door.on('error', (error) => this.#fault(error));
    return { port: (door.address() as AddressInfo).port };
  }

  /** Takes a new key and certificate now; the server does so by itself in time. */
  renewCertificate(): Promise<void> {
    return this.#certificate.renew();
  }

  /** Closes the port and every connection, after redemptions under way. Safe to call twice. */
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
    const { door } = this.#open ?? {};
    const closed = door && new Promise((resolve) => door.close(resolve));
    // A site whose token is not spent yet can come again.
    for (const { socket, isAwaitingHost } of this.#connections.values()) {
      if (isAwaitingHost) socket.destroy();
    }
    await Promise.allSettled(this.#underWay);
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
    // What came is no HTTP, or has headers without end.
    server.on('clientError', (_error, socket) => {
      // What was read with it is still parsed.
      if (socket.destroyed) return;
      this.#counters.refused++;
      socket.destroy();
    });
    return server;
  }

  /** Whether the connection may go on; with one deadline for all of it, so no step can be drawn out. */
  #admit(socket: Socket): boolean {
    this.#counters.connections++;
    socket.on('error', () => {});
    const key = keyOf(socket);
    const { remoteAddress } = socket;
    const admission =
      remoteAddress === undefined // gone already
        ? undefined
        : this.#gate.admit(remoteAddress, this.#clock.monotonicMs(), () => this.#cut(key));
    this.#counters.rateLimited = this.#gate.counters.rateLimited;
    if (remoteAddress === undefined || admission === undefined) {
      socket.destroy();
      return false;
    }
    const connection: Connection = {
      socket,
      remoteAddress,
      isCut: false,
      isRedeeming: false,
      isAwaitingHost: false,
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

  /** Makes way for another; but not while a token is being redeemed, for it would be lost. */
  #cut(key: string): void {
    const connection = this.#connections.get(key);
    if (connection === undefined) return;
    connection.isCut = true;
    if (connection.isRedeeming) return;
    this.#counters.evicted++;
    connection.socket.destroy();
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    request.on('error', () => {}); // the connection is gone, and with it whom to tell
    if (request.url !== ENROLMENT_PATH) return this.#refuse(response, 404, 'no such path');
    if (request.method !== 'POST') return this.#refuse(response, 405, 'only POST is served');
    const body = await readBody(request, this.#maxBodyBytes);
    if (body === 'cut off') return;
    if (body === 'too large') return this.#refuse(response, 413, 'the request is too large');
    const redemption = parseRequest(body.toString());
    if (redemption === undefined) return this.#refuse(response, 400, 'not an enrolment request');
    const connection = this.#connections.get(keyOf(request.socket));
    if (connection === undefined) return; // gone
    if (this.#redemptions >= this.#maxRedemptions) {
      this.#counters.busy++;
      return send(response, 503, { code: INTERNAL, message: 'too many at once' });
    }
    const underWay = this.#redeem(redemption, connection, response);
    this.#underWay.add(underWay);
    await underWay;
    this.#underWay.delete(underWay);
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
      // The token would be spent if these were asked for later and could not be told.
      tunnels = formatTunnels(this.#tunnels());
      issued = await this.#authority.enrol(redemption, {
        authorize: this.#authorize && ((site) => this.#askHost(site, connection)),
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
      this.#tell({ remoteAddress: connection.remoteAddress, site: identity.site, serial });
    }
    const answer: EnrolmentAnswer = {
      certificatePem,
      caPem: this.#authority.trustBundlePem,
      notAfter: notAfter.toISOString(),
      ...(tunnels.length > 0 && { tunnels }),
    };
    await send(response, 200, answer);
  }

  async #askHost(site: string, connection: Connection): Promise<void> {
    const { socket, remoteAddress } = connection;
    connection.isAwaitingHost = true;
    connection.site = site;
    try {
      await authorizeEnrolment(this.#authorize!, { site, remoteAddress }, socket, (error) =>
        this.#fault(error)
      );
    } finally {
      connection.isAwaitingHost = false;
    }
  }

  async #refuseRedemption(
    error: unknown,
    { remoteAddress, socket, isCut, site }: Connection,
    response: ServerResponse
  ): Promise<void> {
    const isTheirs = error instanceof EnrolmentError || error instanceof CertificateError;
    const refused = isTheirs
      ? { code: error.code, message: error.message }
      : { code: INTERNAL, message: 'internal error' };
    if (isTheirs) this.#counters.refused++;
    else {
      this.#counters.failed++;
      this.#fault(error);
    }
    const isKnown = error instanceof EnrolmentError && error.fault === 'not-authorized';
    this.#tell({ remoteAddress, ...(isKnown && site !== undefined && { site }), refused });
    if (isCut) {
      this.#counters.evicted++;
      socket.destroy();
      return;
    }
    await send(response, statusOf(error), refused);
  }

  /** A listener that throws must not keep the site from its answer. */
  #tell(outcome: EnrolmentOutcome): void {
    try {
      this.emit('outcome', outcome);
    } catch (error) {
      this.#fault(error);
    }
  }

  #fault(error: unknown): void {
    this.emit('problem', { error: error instanceof Error ? error : new Error(String(error)) });
  }

  async #refuse(response: ServerResponse, status: number, message: string): Promise<void> {
    this.#counters.refused++;
    await send(response, status, { code: MALFORMED, message });
  }
}

/** One that was let in. */
interface Connection {
  readonly socket: Socket;
  readonly remoteAddress: string;
  /** The authority has its token; or has granted a certificate, which is on its way. */
  isRedeeming: boolean;
  /** The host has not decided yet, and the token is not spent. */
  isAwaitingHost: boolean;
  /** About which the host was asked. */
  site?: string;
  /** It has had to make way. */
  isCut: boolean;
}

/** The same for a connection and for the TLS socket upon it. */
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

/** Reads no further when there are more than `maxBytes`. */
async function readBody(
  request: IncomingMessage,
  maxBytes: number
): Promise<Buffer | 'too large' | 'cut off'> {
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of request as AsyncIterable<Buffer>) {
      length += chunk.length;
      if (length > maxBytes) return 'too large';
      chunks.push(chunk);
    }
  } catch {
    return 'cut off';
  }
  return Buffer.concat(chunks);
}

/** Resolves when the answer is out and the connection closed, or when it is gone. */
function send(response: ServerResponse, status: number, body: object): Promise<void> {
  return new Promise((resolve) => {
    const { socket } = response;
    if (socket === null || socket.destroyed) return resolve();
    // Not `finish` of the response: then its bytes may still be waiting to be encrypted.
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
    // It was closed before it listened; the caller sees that.
    server.once('close', resolve);
    server.listen({ host, port }, resolve);
  });
}

const INTERNAL = 'ERR_PRESENCE_INTERNAL';
const MALFORMED: string = new EnrolmentError('malformed', '').code;
const MAX_HEADER_BYTES = 8192;
