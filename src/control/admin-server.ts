/**
 * A local HTTP interface over a unix socket, for operators and their scripts: JSON in, JSON out. Who
 * may open the socket may do everything; its file mode is 0600.
 * @module
 */
import { chmodSync, unlinkSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { EnvironmentError, PresenceError } from '../errors.ts';
import type { Json } from '../store/index.ts';

/** Answers one request; what it throws becomes the answer, with a status of 400 or 500. */
export type AdminHandler = (request: AdminRequest) => unknown;

export interface AdminRequest {
  readonly query: URLSearchParams;
  /** Undefined for a request without a body. */
  readonly body: Json | undefined;
}

export interface AdminServerOptions {
  /** Path of the unix socket. */
  readonly socketPath: string;
  /** By method and path: `'POST /v1/tokens'`. */
  readonly routes: Readonly<Record<string, AdminHandler>>;
  readonly maxBodyBytes?: number;
  readonly timeoutMs?: number;
}

export class AdminServer {
  readonly #server: Server;
  readonly #routes: ReadonlyMap<string, AdminHandler>;
  readonly #maxBodyBytes: number;

  private constructor(options: AdminServerOptions) {
    this.#routes = new Map(Object.entries(options.routes));
    this.#maxBodyBytes = options.maxBodyBytes ?? 256 * 1024;
    this.#server = createServer((request, response) => void this.#serve(request, response));
    this.#server.requestTimeout = options.timeoutMs ?? 10_000;
  }

  /**
   * Listens on the socket, in place of one that a process left behind.
   *
   * @throws {EnvironmentError} if the path is not free or cannot be used.
   */
  static async listen(options: AdminServerOptions): Promise<AdminServer> {
    const { socketPath } = options;
    if (await isListening(socketPath)) {
      throw new EnvironmentError(`the admin socket ${socketPath} is in use by another process`);
    }
    const admin = new AdminServer(options);
    await new Promise<void>((resolve, reject) => {
      admin.#server.once('error', reject);
      admin.#server.listen(socketPath, resolve);
    }).catch((error: Error) => {
      throw new EnvironmentError(
        `cannot listen on the admin socket ${socketPath}: ${error.message}`,
        {
          cause: error,
        }
      );
    });
    chmodSync(socketPath, 0o600);
    return admin;
  }

  /** Waits for requests under way. */
  async close(): Promise<void> {
    await new Promise((resolve) => {
      this.#server.close(resolve);
      this.#server.closeIdleConnections();
    });
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const url = new URL(request.url ?? '/', 'http://admin');
      const handler = this.#routes.get(`${request.method} ${url.pathname}`);
      if (handler === undefined) {
        respond(response, 404, { message: `there is no ${request.method} ${url.pathname}` });
        return;
      }
      const body = await this.#readBody(request);
      respond(response, 200, (await handler({ query: url.searchParams, body })) ?? {});
    } catch (error) {
      const isOurs = error instanceof PresenceError;
      const { message } = error as Error;
      respond(response, isOurs ? 400 : 500, isOurs ? { code: error.code, message } : { message });
    }
  }

  async #readBody(request: IncomingMessage): Promise<Json | undefined> {
    const chunks: Buffer[] = [];
    let length = 0;
    for await (const chunk of request as AsyncIterable<Buffer>) {
      length += chunk.length;
      if (length > this.#maxBodyBytes) {
        throw new AdminRequestError(`the body is longer than ${this.#maxBodyBytes} bytes`);
      }
      chunks.push(chunk);
    }
    if (length === 0) return undefined;
    try {
      return JSON.parse(Buffer.concat(chunks).toString()) as Json;
    } catch (error) {
      throw new AdminRequestError(`the body is not JSON: ${(error as Error).message}`);
    }
  }
}

class AdminRequestError extends PresenceError {
  constructor(message: string) {
    super('ERR_PRESENCE_ADMIN_REQUEST', message);
  }
}

function respond(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json', connection: 'close' });
  response.end(`${JSON.stringify(body)}\n`);
}

/** Whether somebody answers at the socket; a file that nobody answers at is removed. */
function isListening(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(socketPath, () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ECONNREFUSED') unlinkSync(socketPath);
      resolve(false);
    });
  });
}
