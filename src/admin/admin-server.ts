/**
 * A local HTTP interface over a unix socket, for operators and their scripts: JSON in, JSON or PEM out. Who
 * may open the socket may do everything; its file mode is 0600.
 * @module
 */
import { lstatSync, statSync, unlinkSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { checkFunction, checkObject, checkThat, checkWhole } from '../base/option-check.ts';
import { EnvironmentError, PresenceError } from '../errors.ts';
import type { Json } from '../store/index.ts';

/** An answer that is sent as it is, for programs such as `openssl`. */
export class PemText {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

/** Answers one request, with JSON or a `PemText`; what it throws becomes the answer, with a status of 400 or 500. */
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
  /** Longest body, in bytes; default 256 KiB. */
  readonly maxBodyBytes?: number;
  /** How long a client may take to send its request, and at the end to take its answer, in ms; default 10,000. */
  readonly timeoutMs?: number;
}

/** What is used where an option is absent. */
export const ADMIN_SERVER_DEFAULTS: Readonly<{
  maxBodyBytes: number;
  /** In ms. */
  timeoutMs: number;
}> = Object.freeze({ maxBodyBytes: 256 * 1024, timeoutMs: 10_000 });

export class AdminServer implements AsyncDisposable {
  readonly #server: Server;
  readonly #routes: ReadonlyMap<string, AdminHandler>;
  readonly #maxBodyBytes: number;
  readonly #timeoutMs: number;
  /** Requests that have come whole and whose handlers are at work. */
  readonly #underWay = new Set<Promise<void>>();
  /** Answers that their clients have not taken yet. */
  readonly #untaken = new Set<Promise<void>>();
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
   * Listens on the socket, in place of one that a process left behind.
   *
   * @throws {ApiMisuseError} naming the option that is wrong.
   * @throws {EnvironmentError} if the path is not free or cannot be used.
   */
  static async listen(options: AdminServerOptions): Promise<AdminServer> {
    const { socketPath } = checkObject('options', options);
    const admin = new AdminServer(options);
    try {
      checkPath(socketPath);
      await makeRoom(socketPath);
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
   * Takes no more requests, waits for the handlers of those that have come whole, and for `timeoutMs` at most until
   * their answers are taken; ends the rest.
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
    await Promise.all(this.#underWay);
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, this.#timeoutMs);
    });
    await Promise.race([Promise.all(this.#untaken), timeout]);
    clearTimeout(timer);
    this.#server.closeAllConnections();
    await closed;
  }

  #listen(socketPath: string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      // The socket is made within the call: at no time may others open it.
      const umask = process.umask(0o177);
      try {
        this.#server.listen(socketPath, () => {
          this.#server.off('error', reject);
          // A client that could not be accepted, for example for want of file descriptors.
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
    this.#untaken.add(closed);
    this.#underWay.add(answered);
    await answered;
    this.#underWay.delete(answered);
    await closed;
    this.#untaken.delete(closed);
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

/** @throws {TypeError} if the body is not JSON; nothing was sent then. */
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

/** What is beyond the limit is thrown away, so that the answer still finds its way. */
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
 * Says what the system would not: Node cuts a longer path silently, a NUL in front makes a socket that
 * everybody may open, and a missing directory is reported as EACCES.
 *
 * @throws {EnvironmentError} if no socket can be at the path.
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
 * Removes the socket of a process that is gone.
 *
 * @throws {EnvironmentError} if somebody answers there, or it is something else than a socket.
 */
async function makeRoom(socketPath: string): Promise<void> {
  const stat = lstatSync(socketPath, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isSocket()) throw new EnvironmentError(`${socketPath} is there, and is not a socket`);
  if (await isAnswered(socketPath)) {
    throw new EnvironmentError(`the admin socket ${socketPath} is in use by another process`);
  }
  unlinkSync(socketPath);
}

/** Anything but a refusal counts as an answer: the socket of a busy process stays. */
function isAnswered(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(socketPath, () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', ({ code }: NodeJS.ErrnoException) => resolve(code !== 'ECONNREFUSED'));
  });
}

/** More would not fit a string. */
const MAX_BODY_BYTES = 2 ** 29;
/** The longest a timer of Node takes. */
const MAX_TIMER_MS = 2 ** 31 - 1;
/** Bytes of `sun_path` without its closing zero, see unix(7). */
const MAX_PATH_LENGTH = 107;
