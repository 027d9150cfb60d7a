/**
 * A local HTTP server on a unix socket, for operators and their scripts: JSON in, JSON or PEM out. Everybody who can
 * open the socket may do everything; its file mode is 0600.
 * @module
 */
import { lstatSync, statSync, unlinkSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { checkFunction, checkObject, checkThat, checkWhole } from '../base/option-check.ts';
import { EnvironmentError, PresenceError } from '../errors.ts';
import type { Json } from '../store/index.ts';

/** An answer that is sent as text, for programs such as `openssl`. */
export class PemText {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

/** Answers one request, with JSON or a `PemText`. An error that it throws becomes an answer with status 400 or 500. */
export type AdminHandler = (request: AdminRequest) => unknown;

export interface AdminRequest {
  readonly query: URLSearchParams;
  /** Undefined for a request without a body. */
  readonly body: Json | undefined;
}

export interface AdminServerOptions {
  /** The path of the unix socket. */
  readonly socketPath: string;
  /** The handlers by method and path, such as `'POST /v1/tokens'`. */
  readonly routes: Readonly<Record<string, AdminHandler>>;
  /** The longest body, in bytes; default 256 KiB. */
  readonly maxBodyBytes?: number;
  /** How long a client may take to send its request, and during `close` to read its answer, in ms; default 10,000. */
  readonly timeoutMs?: number;
}

/** The values of options that are left out. */
export const ADMIN_SERVER_DEFAULTS: Readonly<{
  maxBodyBytes: number;
  /** In ms. */
  timeoutMs: number;
}> = Object.freeze({ maxBodyBytes: 256 * 1024, timeoutMs: 10_000 });

/** Answers each request by the handler of its method and path. */
export class AdminServer implements AsyncDisposable {
  readonly #server: Server;
  readonly #routes: ReadonlyMap<string, AdminHandler>;
  readonly #maxBodyBytes: number;
  readonly #timeoutMs: number;
  /** The requests that were received completely and are being handled. */
  readonly #running = new Set<Promise<void>>();
  /** The answers that their clients have not read yet. */
  readonly #unread = new Set<Promise<void>>();
  #closing: Promise<void> | undefined;

  private constructor(options: AdminServerOptions) {
    const { socketPath, routes } = options;
    const {
      maxBodyBytes = ADMIN_SERVER_DEFAULTS.maxBodyBytes,
      timeoutMs = ADMIN_SERVER_DEFAULTS.timeoutMs,
    } = options;
    checkThat('socketPath', socketPath, typeof socketPath === 'string', 'a text');
    this.#routes = new Map(Object.entries(checkObject('routes', routes)));
    for (const [route, handler] of this.#routes) checkFunction(`routes["${route}"]`, handler);
    this.#maxBodyBytes = checkWhole('maxBodyBytes', maxBodyBytes, 0, MAX_BODY_BYTES);
    this.#timeoutMs = checkWhole('timeoutMs', timeoutMs, 1, MAX_TIMER_MS);
    const limits = {
      requestTimeout: timeoutMs,
      headersTimeout: timeoutMs,
      connectionsCheckingInterval: Math.min(timeoutMs, 1000),
    };
    this.#server = createServer(limits, (request, response) => void this.#serve(request, response));
  }

  /**
   * Listens on the socket; replaces a socket that a process has left behind.
   *
   * @throws {ApiMisuseError} naming the option that is wrong.
   * @throws {EnvironmentError} if the path is in use, or cannot be used.
   */
  static async listen(options: AdminServerOptions): Promise<AdminServer> {
    const { socketPath } = checkObject('options', options);
    const admin = new AdminServer(options);
    try {
      checkPath(socketPath);
      await removeStaleSocket(socketPath);
      await admin.#listen(socketPath);
    } catch (error) {
      if (error instanceof PresenceError) throw error;
      const { message } = error as Error;
      throw new EnvironmentError(`cannot listen on the admin socket ${socketPath}: ${message}`, {
        cause: error,
      });
    }
    return admin;
  }

  /**
   * Accepts no more requests, waits for the handlers of requests that were received completely, and at most `timeoutMs`
   * until their answers are read; then closes all connections.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    await Promise.all(this.#running);
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, this.#timeoutMs);
    });
    await Promise.race([Promise.all(this.#unread), timeout]);
    clearTimeout(timer);
    this.#server.closeAllConnections();
    await closed;
  }

  #listen(socketPath: string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      // `listen` creates the socket at once, so with this umask nobody else can ever open it.
      const umask = process.umask(0o177);
      try {
        this.#server.listen(socketPath, () => {
          this.#server.off('error', reject);
          // A client could not be accepted, for example because of a lack of file descriptors.
          this.#server.on('error', () => {});
          resolve();
        });
      } finally {
        process.umask(umask);
      }
    });
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const closed = new Promise<void>((resolve) => response.once('close', resolve));
    let body: Json | undefined;
    try {
      body = await this.#readBody(request);
    } catch (error) {
      respond(response, ...failure(error));
      return;
    }
    const answered = this.#answer(request, response, body);
    this.#unread.add(closed);
    this.#running.add(answered);
    await answered;
    this.#running.delete(answered);
    await closed;
    this.#unread.delete(closed);
  }

  async #answer(
    request: IncomingMessage,
    response: ServerResponse,
    body: Json | undefined
  ): Promise<void> {
    try {
      const [path, query] = splitUrl(request.url ?? '/');
      const handler = this.#routes.get(`${request.method} ${path}`);
      if (handler === undefined) {
        respond(response, 404, { message: `there is no ${request.method} ${path}` });
      } else {
        respond(response, 200, (await handler({ query, body })) ?? {});
      }
    } catch (error) {
      respond(response, ...failure(error));
    }
  }

  async #readBody(request: IncomingMessage): Promise<Json | undefined> {
    const bytes = await readUpTo(this.#maxBodyBytes, request);
    if (bytes.length === 0) return undefined;
    try {
      return JSON.parse(bytes.toString()) as Json;
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

/** @throws {TypeError} if the body is not JSON; then nothing was sent. */
function respond(response: ServerResponse, status: number, body: unknown): void {
  const isPem = body instanceof PemText;
  const text = isPem ? body.text : `${JSON.stringify(body)}\n`;
  const type = isPem ? 'application/x-pem-file' : 'application/json';
  response.writeHead(status, { 'content-type': type, connection: 'close' });
  response.end(text);
}

function failure(error: unknown): [status: number, body: Json] {
  if (error instanceof PresenceError) {
    return [400, { code: error.code, message: error.message }];
  }
  return [500, { message: error instanceof Error ? error.message : String(error) }];
}

/** Discards bytes beyond the limit, so that the client can still read the answer. */
function readUpTo(maxBytes: number, request: IncomingMessage): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    request.on('data', (chunk: Buffer) => {
      length += chunk.length;
      if (length <= maxBytes) chunks.push(chunk);
      else reject(new AdminRequestError(`the body is longer than ${maxBytes} bytes`));
    });
    request.on('end', () => resolve(Buffer.concat(chunks)));
    request.on('error', reject);
  });
}

function splitUrl(url: string): [path: string, query: URLSearchParams] {
  const at = url.indexOf('?');
  return at < 0
    ? [url, new URLSearchParams()]
    : [url.slice(0, at), new URLSearchParams(url.slice(at + 1))];
}

/**
 * Checks what the system does not report well: Node truncates a longer path silently, a leading NUL creates a socket that
 * everybody may open, and a missing directory is reported as EACCES.
 *
 * @throws {EnvironmentError} if the path cannot be used.
 */
function checkPath(socketPath: string): void {
  const length = Buffer.byteLength(socketPath);
  if (length === 0 || length > MAX_PATH_LENGTH || socketPath.includes('\0')) {
    throw new EnvironmentError(
      `the path of the admin socket must have 1 to ${MAX_PATH_LENGTH} bytes, none of them 0: "${socketPath}" has ${length}`
    );
  }
  const directory = dirname(socketPath);
  if (statSync(directory, { throwIfNoEntry: false })?.isDirectory()) return;
  throw new EnvironmentError(
    `cannot listen on the admin socket ${socketPath}: there is no directory ${directory}`
  );
}

/**
 * Removes the socket of a process that has ended.
 *
 * @throws {EnvironmentError} if a process listens there, or the file is not a socket.
 */
async function removeStaleSocket(socketPath: string): Promise<void> {
  const stat = lstatSync(socketPath, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isSocket()) throw new EnvironmentError(`${socketPath} exists, and is not a socket`);
  if (await acceptsConnections(socketPath)) {
    throw new EnvironmentError(`the admin socket ${socketPath} is in use by another process`);
  }
  unlinkSync(socketPath);
}

/** Whether a process listens. Only ECONNREFUSED means no, so that the socket of a busy process stays. */
function acceptsConnections(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(socketPath, () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', ({ code }: NodeJS.ErrnoException) => resolve(code !== 'ECONNREFUSED'));
  });
}

/** A longer body would not fit into a string. */
const MAX_BODY_BYTES = 2 ** 29;
/** The longest delay of a Node timer. */
const MAX_TIMER_MS = 2 ** 31 - 1;
/** Bytes of `sun_path` without its closing zero, see unix(7). */
const MAX_PATH_LENGTH = 107;
