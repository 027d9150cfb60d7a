/**
 * A local HTTP server on a unix socket, for operators and their scripts. Everybody who can open the socket may do
 * everything; its file mode is 0600.
 * @module
 */
import { lstatSync, statSync, unlinkSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { pipeline } from 'node:stream';
import { checkFunction, checkObject, checkThat, checkWhole } from '../base/option-check.ts';
import { parseSchema } from '../base/schema.ts';
import { ConfigError, EnvironmentError, PresenceError } from '../errors.ts';
import type { Json } from '../store/index.ts';
import { type AdminRequest, type HandlerStream, type Handlers, Versioned } from './handler.ts';
import type { AnyOperation, Call, Operations } from './operation.ts';
import { AdminRequestError, PROBLEM_TYPE, problemOf } from './problem.ts';
import { Router } from './router.ts';

export interface AdminServerOptions<T = Operations> {
  /** The path of the unix socket. */
  readonly socketPath: string;
  /** The table, such as `CLOUD_OPERATIONS`. */
  readonly operations: T;
  /** What answers them, such as `cloudHandlers(gateway)`. */
  readonly handlers: Handlers<T>;
  /** The longest body, in bytes; default 64 MiB, which a desired state of 200,000 exposures fits in. */
  readonly maxBodyBytes?: number;
  /** How long a client may take to send its request, and during `close` to read its answer, in ms; default 10,000. */
  readonly timeoutMs?: number;
}

/** The values of options that are left out. */
export const ADMIN_SERVER_DEFAULTS: Readonly<{
  maxBodyBytes: number;
  /** In ms. */
  timeoutMs: number;
}> = Object.freeze({ maxBodyBytes: 64 * 1024 * 1024, timeoutMs: 10_000 });

/** Answers each request by the handler of its operation. */
export class AdminServer implements AsyncDisposable {
  readonly #server: Server;
  readonly #router: Router;
  readonly #handlers: Readonly<Record<string, (request: AdminRequest<Call>) => unknown>>;
  readonly #maxBodyBytes: number;
  readonly #timeoutMs: number;
  /** The requests that were received completely and are being handled. */
  readonly #running = new Set<Promise<void>>();
  /** The answers that their clients have not read yet. */
  readonly #unread = new Set<Promise<void>>();
  /** The bytes of the bodies that are being received. */
  #receivedBytes = 0;
  /** Aborted when the server closes. */
  readonly #ending = new AbortController();
  #closing: Promise<void> | undefined;

  private constructor(options: AdminServerOptions) {
    const { socketPath, operations, handlers } = options;
    const {
      maxBodyBytes = ADMIN_SERVER_DEFAULTS.maxBodyBytes,
      timeoutMs = ADMIN_SERVER_DEFAULTS.timeoutMs,
    } = options;
    checkThat('socketPath', socketPath, typeof socketPath === 'string', 'a text');
    checkObject('operations', operations);
    this.#handlers = checkObject('handlers', handlers) as never;
    for (const name of Object.keys(operations)) {
      checkFunction(`handlers.${name}`, this.#handlers[name]);
    }
    this.#router = new Router(operations);
    this.#maxBodyBytes = checkWhole('maxBodyBytes', maxBodyBytes, 0, MAX_BODY_BYTES);
    this.#timeoutMs = checkWhole('timeoutMs', timeoutMs, 1, MAX_TIMER_MS);
    const limits = {
      requestTimeout: timeoutMs,
      headersTimeout: timeoutMs,
      connectionsCheckingInterval: Math.min(timeoutMs, 1000),
    };
    this.#server = createServer(limits, (request, response) => void this.#serve(request, response));
    // Node would close the connection of a client that has ended its half, before the answer. It has no option for this.
    Object.assign(this.#server, { httpAllowHalfOpen: true });
  }

  /**
   * Listens on the socket; replaces a socket that a process has left behind.
   *
   * @throws {ApiMisuseError} naming the option that is wrong.
   * @throws {EnvironmentError} if the path is in use, or cannot be used.
   */
  static async listen<T extends object>(options: AdminServerOptions<T>): Promise<AdminServer> {
    const { socketPath } = checkObject('options', options);
    const admin = new AdminServer(options as unknown as AdminServerOptions);
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
    this.#ending.abort(new EnvironmentError('the gateway closes'));
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
        this.#server.listen({ path: socketPath, backlog: BACKLOG }, () => {
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
    const leaving = new AbortController();
    const closed = new Promise<void>((resolve) => {
      response.once('close', () => {
        leaving.abort(new EnvironmentError('the client has gone away'));
        resolve();
      });
    });
    // A client that has ended its half of the connection still gets the answer.
    request.socket.once('end', () => leaving.abort(new EnvironmentError('the client has ended')));
    const signal = AbortSignal.any([leaving.signal, this.#ending.signal]);
    let body: Buffer;
    try {
      body = await this.#read(request);
    } catch (error) {
      refuse(response, error);
      return;
    }
    const answered = this.#answer(request, response, body, signal);
    this.#unread.add(closed);
    this.#running.add(answered);
    await answered;
    this.#running.delete(answered);
    await closed;
    this.#unread.delete(closed);
  }

  /** Reads the body. All bodies that are being received have at most twice the bytes of the longest one. */
  async #read(request: IncomingMessage): Promise<Buffer> {
    const chunks: Buffer[] = [];
    let length = 0;
    const reading = new Promise<void>((resolve, reject) => {
      const refuse = (status: number, message: string) => {
        // The rest is discarded, so that the client can still read the answer.
        request.off('data', take).resume();
        reject(new AdminRequestError(status, message));
      };
      const take = (chunk: Buffer) => {
        if (length + chunk.length > this.#maxBodyBytes) {
          refuse(413, `the body is longer than ${this.#maxBodyBytes} bytes`);
        } else if (this.#receivedBytes + chunk.length > 2 * this.#maxBodyBytes) {
          refuse(503, 'the gateway is receiving other long requests; repeat this one');
        } else {
          length += chunk.length;
          this.#receivedBytes += chunk.length;
          chunks.push(chunk);
        }
      };
      request.on('data', take);
      request.on('end', resolve);
      request.on('error', reject);
      // The client may go away within the body.
      request.on('close', () => reject(new AdminRequestError(400, 'the body is not complete')));
    });
    try {
      await reading;
      return Buffer.concat(chunks);
    } finally {
      this.#receivedBytes -= length;
    }
  }

  async #answer(
    request: IncomingMessage,
    response: ServerResponse,
    body: Buffer,
    signal: AbortSignal
  ): Promise<void> {
    try {
      const [path, query] = splitUrl(request.url ?? '/');
      const { name, operation, params } = this.#router.match(request.method ?? '', path);
      const answer = await this.#handlers[name]!({
        params: operation.params && (parseSchema(operation.params, params) as object),
        query: queryOf(operation, query),
        body: bodyOf(operation, body),
        expect: conditionOf(operation, request),
        signal,
      });
      respond(response, operation, answer);
    } catch (error) {
      refuse(response, error);
    }
  }
}

function queryOf({ query: schema }: AnyOperation, query: URLSearchParams): object | undefined {
  const given = new Map<string, string>();
  for (const [key, value] of query) {
    if (given.has(key)) throw new AdminRequestError(400, `the query has "${key}" twice`);
    given.set(key, value);
  }
  if (schema !== undefined) return parseSchema(schema, Object.fromEntries(given)) as object;
  const [key] = given.keys();
  if (key === undefined) return undefined;
  throw new AdminRequestError(400, `the query has "${key}", and this operation takes none`);
}

function bodyOf({ body: schema }: AnyOperation, body: Buffer): unknown {
  if (schema === undefined) {
    if (body.length === 0) return undefined;
    throw new AdminRequestError(400, 'the request has a body, and this operation takes none');
  }
  let value: Json | undefined;
  try {
    if (body.length > 0) value = JSON.parse(body.toString()) as Json;
  } catch (error) {
    throw new AdminRequestError(400, `the body is not JSON: ${(error as Error).message}`);
  }
  // The schema of an object whose keys are all optional takes a list too.
  if (Array.isArray(value)) throw new ConfigError('', 'expected a mapping, got a list');
  return parseSchema(schema, value);
}

/** RFC 9110 sections 13.1.1 and 13.1.2, for one version. */
function conditionOf(
  { versioned = false, method }: AnyOperation,
  { headers }: IncomingMessage
): string | undefined {
  const { 'if-match': match, 'if-none-match': noneMatch } = headers;
  if (method === 'GET' || (match === undefined && noneMatch === undefined)) return undefined;
  if (!versioned) throw new AdminRequestError(400, 'this operation has no versions to match');
  if (noneMatch !== undefined) {
    if (match === undefined && noneMatch === '*') return 'absent';
    throw new AdminRequestError(400, 'expected If-Match, or If-None-Match: *');
  }
  if (match === '*') return 'present';
  const version = /^"([\w-]{16})"$/.exec(match!)?.[1];
  if (version !== undefined) return version;
  throw new AdminRequestError(400, 'expected one ETag in If-Match, as it was answered');
}

/** @throws {TypeError} if the answer cannot be written as JSON; then nothing was sent. */
function respond(response: ServerResponse, operation: AnyOperation, answer: unknown): void {
  const { result, textType, streamType, creates = false } = operation;
  response.setHeader('connection', 'close');
  if (streamType !== undefined) {
    response.writeHead(200, { 'content-type': streamType });
    // A client that goes away, or a stream that fails, ends both; the client sees that the answer is not complete.
    pipeline(answer as HandlerStream, response, () => {});
    return;
  }
  if (result === undefined) {
    response.writeHead(204).end();
    return;
  }
  const value = answer instanceof Versioned ? answer.value : answer;
  const text = textType === undefined ? `${JSON.stringify(value)}\n` : String(value);
  if (answer instanceof Versioned) response.setHeader('etag', `"${answer.version}"`);
  response.setHeader('content-type', textType ?? 'application/json');
  response.writeHead(creates ? 201 : 200).end(text);
}

function refuse(response: ServerResponse, error: unknown): void {
  const problem = problemOf(error);
  const allow = error instanceof AdminRequestError ? error.allow.join(', ') : '';
  if (allow !== '') response.setHeader('allow', allow);
  const headers = { 'content-type': PROBLEM_TYPE, connection: 'close' };
  response.writeHead(problem.status, headers).end(`${JSON.stringify(problem)}\n`);
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

/** How many connections may wait; the kernel takes its own limit, 4096 by default, if that is lower. */
const BACKLOG = 4096;
/** A longer body would not fit into a string. */
const MAX_BODY_BYTES = 2 ** 29;
/** The longest delay of a Node timer. */
const MAX_TIMER_MS = 2 ** 31 - 1;
/** Bytes of `sun_path` without its closing zero, see unix(7). */
const MAX_PATH_LENGTH = 107;
