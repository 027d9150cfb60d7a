/**
 * The door at which new sites enrol: an HTTPS server with one route, `POST /v1/enrol`. Everything
 * that knocks is a stranger, so connections, bytes and time are all bounded.
 * @module
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import https from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import {
  ApiMisuseError,
  CertificateError,
  EnrolmentError,
  EnvironmentError,
  StoreError,
} from '../errors.ts';
import type { CertificateAuthority } from './authority.ts';
import { ENROLMENT_PATH, type EnrolmentAnswer, parseRequest } from './enrolment-message.ts';
import { generateGatewayKey } from './keys.ts';
import { createSigningRequest } from './signing-request.ts';

export interface EnrolmentServerOptions {
  readonly authority: CertificateAuthority;
  /** Connections at once; more are closed at once. Default 64. */
  readonly maxConnections?: number;
  /** Bytes of a request's body; default 32 KiB. */
  readonly maxBodyBytes?: number;
  /** From connection to answer, handshake included, in ms; default 10 s. */
  readonly timeoutMs?: number;
  /** Lifetime of the server's own certificate in ms, renewed at half of it; default 30 days. */
  readonly certificateLifetimeMs?: number;
  /** Hears of faults that are ours, which the client is told only as "internal error". */
  readonly onError?: (error: unknown) => void;
}

/** Cumulative since the server was made. */
export interface EnrolmentCounters {
  connections: number;
  /** Closed unheard because there were too many. */
  refusedConnections: number;
  /** Closed because they took too long. */
  timeouts: number;
  handshakeFailures: number;
  enrolled: number;
  /** Answered 4xx: not a request we know, or a token or signing request that is not acceptable. */
  refused: number;
  /** Answered 5xx. */
  failed: number;
}

/**
 * Serves enrolment for one CA, under a certificate of identity `cloud` that it has issued to itself
 * and renews. `close` waits for redemptions under way.
 */
export class EnrolmentServer {
  readonly counters: Readonly<EnrolmentCounters>;

  readonly #counters: EnrolmentCounters = {
    connections: 0,
    refusedConnections: 0,
    timeouts: 0,
    handshakeFailures: 0,
    enrolled: 0,
    refused: 0,
    failed: 0,
  };
  readonly #authority: CertificateAuthority;
  readonly #maxConnections: number;
  readonly #maxBodyBytes: number;
  readonly #timeoutMs: number;
  readonly #certificateLifetimeMs: number;
  readonly #onError: (error: unknown) => void;
  readonly #sockets = new Set<Duplex>();
  readonly #underWay = new Set<Promise<void>>();
  #server: https.Server | undefined;
  #renewal: NodeJS.Timeout | undefined;

  constructor(options: EnrolmentServerOptions) {
    this.counters = this.#counters;
    this.#authority = options.authority;
    this.#maxConnections = positive('maxConnections', options.maxConnections ?? 64);
    this.#maxBodyBytes = positive('maxBodyBytes', options.maxBodyBytes ?? 32_768);
    this.#timeoutMs = positive('timeoutMs', options.timeoutMs ?? 10_000);
    this.#certificateLifetimeMs = positive(
      'certificateLifetimeMs',
      options.certificateLifetimeMs ?? 30 * 24 * 3_600_000
    );
    this.#onError = options.onError ?? (() => {});
  }

  /**
   * Opens the port; 0 takes a free one.
   *
   * @throws {EnvironmentError} if the port is busy or may not be opened.
   * @throws {ApiMisuseError} if the server listens already.
   */
  async listen(options: { readonly host: string; readonly port: number }): Promise<{
    port: number;
  }> {
    if (this.#server !== undefined)
      throw new ApiMisuseError('the enrolment server listens already');
    const server = https.createServer({
      minVersion: 'TLSv1.3',
      handshakeTimeout: this.#timeoutMs,
      maxHeaderSize: MAX_HEADER_BYTES,
      keepAlive: false,
    });
    this.#server = server;
    server.maxConnections = this.#maxConnections;
    server.maxRequestsPerSocket = 1;
    server.on('connection', (socket) => this.#bound(socket));
    server.on('drop', () => this.#counters.refusedConnections++);
    server.on('tlsClientError', () => this.#counters.handshakeFailures++);
    server.on('request', (request, response) => void this.#answer(request, response));
    try {
      await this.renewCertificate();
      await listening(server, options);
    } catch (error) {
      await this.close();
      throw error;
    }
    return { port: (server.address() as AddressInfo).port };
  }

  /** Takes a new key and certificate now; the server does so by itself in time. */
  async renewCertificate(): Promise<void> {
    const { privateKeyPem } = generateGatewayKey();
    const { trustDomain, certificatePem: caPem } = this.#authority;
    const { certificatePem } = await this.#authority.issue(
      createSigningRequest(privateKeyPem),
      { trustDomain, role: 'cloud' },
      { lifetimeMs: this.#certificateLifetimeMs }
    );
    // The CA goes along: a new site knows no more of it than its hash.
    this.#server?.setSecureContext({
      key: privateKeyPem,
      cert: certificatePem + caPem,
      minVersion: 'TLSv1.3',
    });
    this.#renewIn(this.#certificateLifetimeMs / 2);
  }

  /** Closes the port and every connection, after redemptions under way. Safe to call twice. */
  async close(): Promise<void> {
    const server = this.#server;
    if (server === undefined) return;
    this.#server = undefined;
    clearTimeout(this.#renewal);
    const closed = new Promise((resolve) => server.close(resolve));
    await Promise.allSettled(this.#underWay);
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #renewIn(delayMs: number): void {
    clearTimeout(this.#renewal);
    if (this.#server === undefined) return;
    this.#renewal = setTimeout(
      () => {
        this.renewCertificate().catch((error: unknown) => {
          this.#onError(error);
          this.#renewIn(RETRY_MS);
        });
      },
      Math.min(delayMs, MAX_TIMER_MS)
    );
    this.#renewal.unref();
  }

  /** One deadline for handshake, request and answer together: no step of it can be drawn out. */
  #bound(socket: Duplex): void {
    this.#counters.connections++;
    this.#sockets.add(socket);
    const deadline = setTimeout(() => {
      this.#counters.timeouts++;
      socket.destroy();
    }, this.#timeoutMs);
    socket.on('close', () => {
      clearTimeout(deadline);
      this.#sockets.delete(socket);
    });
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    request.on('error', () => {}); // the connection is gone, and with it whom to tell
    if (request.url !== ENROLMENT_PATH) return this.#refuse(response, 404, 'no such path');
    if (request.method !== 'POST') return this.#refuse(response, 405, 'only POST is served');
    const body = await readBody(request, this.#maxBodyBytes);
    if (body === undefined) return this.#refuse(response, 413, 'the request is too large');
    const redemption = this.#redeem(body, response);
    this.#underWay.add(redemption);
    await redemption;
    this.#underWay.delete(redemption);
  }

  /** Never rejects. */
  async #redeem(body: string, response: ServerResponse): Promise<void> {
    const redemption = parseRequest(body);
    if (redemption === undefined) return this.#refuse(response, 400, 'not an enrolment request');
    try {
      const { certificatePem, notAfter } = await this.#authority.enrol(redemption);
      this.#counters.enrolled++;
      const answer: EnrolmentAnswer = {
        certificatePem,
        caPem: this.#authority.certificatePem,
        notAfter: notAfter.toISOString(),
      };
      await send(response, 200, answer);
    } catch (error) {
      if (error instanceof EnrolmentError) {
        await this.#refuse(response, 403, error.message, error.code);
      } else if (error instanceof CertificateError) {
        await this.#refuse(response, 400, error.message, error.code);
      } else {
        this.#counters.failed++;
        this.#onError(error);
        const status = error instanceof StoreError ? 503 : 500;
        await send(response, status, { code: 'ERR_PRESENCE_INTERNAL', message: 'internal error' });
      }
    }
  }

  async #refuse(
    response: ServerResponse,
    status: number,
    message: string,
    code: string = MALFORMED
  ): Promise<void> {
    this.#counters.refused++;
    await send(response, status, { code, message });
  }
}

/** Resolves with undefined, and reads no further, when there are more than `maxBytes`. */
async function readBody(request: IncomingMessage, maxBytes: number): Promise<string | undefined> {
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of request as AsyncIterable<Buffer>) {
      length += chunk.length;
      if (length > maxBytes) return undefined;
      chunks.push(chunk);
    }
  } catch {
    return ''; // cut off; the answer reaches nobody
  }
  return Buffer.concat(chunks).toString();
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

function listening(
  server: https.Server,
  { host, port }: { readonly host: string; readonly port: number }
): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      const where = `port ${port} on ${host}`;
      const why =
        cause.code === 'EADDRINUSE'
          ? 'is in use by another program'
          : `cannot be opened: ${cause.code ?? cause.message}`;
      reject(new EnvironmentError(`${where} ${why}`, { cause }));
    });
    server.listen({ host, port }, resolve);
  });
}

function positive(name: string, value: number): number {
  if (!(value > 0 && Number.isFinite(value))) {
    throw new ApiMisuseError(`${name} must be positive, not ${value}`);
  }
  return value;
}

const MALFORMED: string = new EnrolmentError('malformed', '').code;
const MAX_HEADER_BYTES = 8192;
/** Before a failed renewal is tried again. */
const RETRY_MS = 60_000;
/** Longest delay of `setTimeout`. */
const MAX_TIMER_MS: number = 2 ** 31 - 1;
