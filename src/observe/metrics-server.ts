/**
 * `MetricsServer`: a small HTTP server for monitoring. It answers `/metrics`, `/healthz` and `/readyz`, reads nothing but
 * the request line and the headers, and changes nothing. Everybody who can connect may read.
 * @module
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type Clock, systemClock } from '../base/clock.ts';
import { formatHostPort, type HostPort } from '../base/host-port.ts';
import { EnvironmentError } from '../errors.ts';
import type { MetricFamily } from './metric.ts';
import { encodeMetrics, METRICS_CONTENT_TYPE } from './metric-text.ts';
import type { Readiness } from './readiness.ts';

export interface MetricsServerOptions {
  /** Where to listen; port 0 takes a free one. */
  readonly listen: HostPort;
  /** Called for each request of `/metrics`, but not while an earlier call has not settled. */
  readonly metrics: () => Promise<readonly MetricFamily[]>;
  readonly readiness: () => Readiness;
  /** Default: the clocks of the system. */
  readonly clock?: Clock;
}

/** The limits of a `MetricsServer`; times are in ms. */
export const METRICS_SERVER_LIMITS: Readonly<{
  /** Connections at a time; more are closed at once. */
  maxConnections: number;
  maxHeaderBytes: number;
  /** From the connection, or the answer before, to the end of the headers. */
  requestTimeoutMs: number;
  /** From the request until the client has read the answer. */
  answerTimeoutMs: number;
}> = Object.freeze({
  maxConnections: 64,
  maxHeaderBytes: 8192,
  requestTimeoutMs: 5000,
  answerTimeoutMs: 10_000,
});

export class MetricsServer implements AsyncDisposable {
  readonly #options: MetricsServerOptions;
  readonly #server: Server;
  #closing: Promise<void> | undefined;
  /** The scrape in progress: all who ask meanwhile get the same bytes. */
  #scrape: Promise<Buffer> | undefined;

  private constructor(options: MetricsServerOptions) {
    this.#options = options;
    const { maxHeaderBytes, requestTimeoutMs, maxConnections } = METRICS_SERVER_LIMITS;
    const limits = {
      maxHeaderSize: maxHeaderBytes,
      headersTimeout: requestTimeoutMs,
      requestTimeout: requestTimeoutMs,
      keepAliveTimeout: requestTimeoutMs,
      connectionsCheckingInterval: 1000,
    };
    this.#server = createServer(limits, (request, response) => void this.#serve(request, response));
    this.#server.maxConnections = maxConnections;
  }

  /** @throws {EnvironmentError} if the port cannot be opened. */
  static async listen(options: MetricsServerOptions): Promise<MetricsServer> {
    const server = new MetricsServer(options);
    await server.#listen();
    return server;
  }

  /** Where it listens, with the actual port. */
  get address(): HostPort {
    const { host } = this.#options.listen;
    return { host, port: (this.#server.address() as AddressInfo).port };
  }

  /** Closes all connections. Safe to call twice. */
  close(): Promise<void> {
    this.#closing ??= new Promise((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #listen(): Promise<void> {
    const { listen } = this.#options;
    return new Promise((resolve, reject) => {
      const onError = (cause: Error): void => {
        const at = formatHostPort(listen);
        const text = `cannot listen for metrics on ${at}: ${cause.message}`;
        reject(new EnvironmentError(text, { cause }));
      };
      this.#server.once('error', onError);
      this.#server.listen({ host: listen.host, port: listen.port }, () => {
        this.#server.off('error', onError);
        // A client could not be accepted, for example because of a lack of file descriptors.
        this.#server.on('error', () => {});
        resolve();
      });
    });
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { clock = systemClock } = this.#options;
    const { answerTimeoutMs } = METRICS_SERVER_LIMITS;
    const cancel = clock.after(answerTimeoutMs, () => request.socket.destroy(), true);
    response.once('close', cancel);
    const { status, type, body, allow } = await this.#answer(request);
    const hasBody =
      request.headers['transfer-encoding'] !== undefined ||
      Number(request.headers['content-length'] ?? 0) > 0;
    response.writeHead(status, {
      'content-type': type,
      'content-length': body.length,
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
      ...(allow && { allow }),
      // A body is not read.
      ...(hasBody && { connection: 'close' }),
    });
    response.end(request.method === 'HEAD' ? undefined : body);
  }

  async #answer({ method, url = '' }: IncomingMessage): Promise<Answer> {
    const path = pathOf(url);
    if (!PATHS.includes(path)) {
      return text(404, `there is no ${printable(path)}, only ${PATHS.join(', ')}\n`);
    }
    if (method !== 'GET' && method !== 'HEAD') {
      return { ...text(405, `${path} can only be read, with GET or HEAD\n`), allow: 'GET, HEAD' };
    }
    if (path === '/healthz') return text(200, 'ok\n');
    if (path === '/readyz') {
      const readiness = this.#options.readiness();
      const body = Buffer.from(`${JSON.stringify(readiness)}\n`);
      return { status: readiness.ready ? 200 : 503, type: 'application/json', body };
    }
    try {
      return { status: 200, type: METRICS_CONTENT_TYPE, body: await this.#metrics() };
    } catch (error) {
      return text(500, `the metrics cannot be read: ${(error as Error).message}\n`);
    }
  }

  #metrics(): Promise<Buffer> {
    const { metrics, clock } = this.#options;
    this.#scrape ??= metrics()
      .then((families) => encodeMetrics(families, clock))
      .finally(() => {
        this.#scrape = undefined;
      });
    return this.#scrape;
  }
}

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: Buffer;
  readonly allow?: string;
}

function text(status: number, body: string): Answer {
  return { status, type: 'text/plain; charset=utf-8', body: Buffer.from(body) };
}

/** Returns the path of a request target, which may be a whole URL (RFC 9112 section 3.2.2). */
function pathOf(url: string): string {
  const path = url.replace(/^https?:\/\/[^/?#]*/i, '');
  const end = path.search(/[?#]/);
  return end < 0 ? path : path.slice(0, end);
}

function printable(path: string): string {
  return path.slice(0, 100).replace(/[^\x21-\x7e]/g, '?');
}

const PATHS: readonly string[] = ['/metrics', '/healthz', '/readyz'];
