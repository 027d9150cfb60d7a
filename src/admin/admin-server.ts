/**
 * A local HTTP server on a unix socket, for operators and their scripts. Everybody who can open the socket may do
 * everything; its file mode is 0600.
 * @module
 */
import { lstatSync, statSync, unlinkSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { connect, Server as NetServer, type Socket } from 'node:net';
import { dirname } from 'node:path';
import {
  checkFunction,
  checkMethods,
  checkObject,
  checkThat,
  checkWhole,
} from '../base/option-check.ts';
import { EnvironmentError, PresenceError } from '../errors.ts';
import { errorFields, type Logger, silentLogger } from '../observe/index.ts';
import type { AdminRequest, Handlers } from './handler.ts';
import type { Call, Operations } from './operation.ts';
import { AdminRequestError } from './problem.ts';
import { BodyReader, requestOf, targetOf } from './request.ts';
import { refuse, respond } from './response.ts';
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
  /** How long a client may take to send its request, and to read its answer, in ms; default 10,000. */
  readonly timeoutMs?: number;
  /** Receives a line for each request that was answered by the status 500. Default: nothing is logged. */
  readonly logger?: Logger;
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
  readonly #bodies: BodyReader;
  readonly #logger: Logger;
  readonly #timeoutMs: number;
  /** The requests that were received completely and are being handled. */
  readonly #running = new Set<Promise<void>>();
  /** The answers that their clients have not read yet. */
  readonly #unread = new Set<Promise<void>>();
  /** The controllers of requests whose clients are still connected. */
  readonly #leaving = new Set<AbortController>();
  /** The connections that have had their request. */
  readonly #served = new WeakSet<Socket>();
  #closing: Promise<void> | undefined;

  private constructor(options: AdminServerOptions) {
    const { socketPath, operations, handlers } = options;
    const {
      maxBodyBytes = ADMIN_SERVER_DEFAULTS.maxBodyBytes,
      timeoutMs = ADMIN_SERVER_DEFAULTS.timeoutMs,
      logger = silentLogger,
    } = options;
    checkThat('socketPath', socketPath, typeof socketPath === 'string', 'a text');
    checkObject('operations', operations);
    this.#handlers = checkObject('handlers', handlers) as never;
    for (const name of Object.keys(operations)) {
      checkFunction(`handlers.${name}`, this.#handlers[name]);
    }
    this.#router = new Router(operations);
    this.#bodies = new BodyReader(checkWhole('maxBodyBytes', maxBodyBytes, 0, MAX_BODY_BYTES));
    this.#logger = checkMethods('logger', logger, ['error']);
    this.#timeoutMs = checkWhole('timeoutMs', timeoutMs, 1, MAX_TIMER_MS);
    const limits = {
      requestTimeout: timeoutMs,
      headersTimeout: timeoutMs,
      connectionsCheckingInterval: Math.min(timeoutMs, 1000),
    };
    this.#server = createServer(limits, (request, response) => void this.#serve(request, response));
    this.#server.maxConnections = MAX_CONNECTIONS;
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
    // `close` of an HTTP server cuts the answers that its clients are reading.
    const closed = new Promise((resolve) => NetServer.prototype.close.call(this.#server, resolve));
    for (const leaving of this.#leaving) {
      leaving.abort(new EnvironmentError('the gateway closes'));
    }
    const answered = async () => {
      await Promise.all(this.#running);
      await Promise.all(this.#unread);
    };
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, this.#timeoutMs);
    });
    await Promise.race([answered(), timeout]);
    clearTimeout(timer);
    this.#server.closeAllConnections();
    await closed;
    // This ends the timer of the HTTP server.
    this.#server.close();
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
    const { socket } = request;
    // Each answer closes its connection, so no request behind another one is processed (RFC 9112 section 9.6).
    if (this.#served.has(socket)) return;
    this.#served.add(socket);
    const leaving = new AbortController();
    const closed = new Promise<void>((resolve) => {
      socket.once('close', () => {
        leaving.abort(new EnvironmentError('the client has gone away'));
        resolve();
      });
    });
    // A client that has ended its half of the connection still gets the answer.
    socket.once('end', () => leaving.abort(new EnvironmentError('the client has ended')));
    this.#leaving.add(leaving);
    let body: Buffer | undefined;
    try {
      body = await this.#bodies.read(request);
      if (this.#closing !== undefined) throw closingError();
    } catch (error) {
      refuse(response, error);
      body = undefined;
    }
    if (body !== undefined) {
      this.#unread.add(closed);
      const answered = this.#answer(request, response, body, leaving.signal);
      this.#running.add(answered);
      await answered;
      this.#running.delete(answered);
    }
    await closed;
    this.#leaving.delete(leaving);
    this.#unread.delete(closed);
  }

  async #answer(
    message: IncomingMessage,
    response: ServerResponse,
    body: Buffer,
    signal: AbortSignal
  ): Promise<void> {
    try {
      const [path, query] = targetOf(message);
      const match = this.#router.match(message.method ?? '', path);
      const request = requestOf(match, query, body, message);
      const answer = await this.#handlers[match.name]!({ ...request, signal });
      respond(response, match.operation, answer);
      if (match.operation.streamType !== undefined) return;
    } catch (error) {
      // A gateway that closes answers every call as if it were a wrong one.
      const { status } = refuse(response, this.#closing === undefined ? error : closingError());
      if (status === 500) {
        const fault = (error as Error | undefined)?.stack ?? String(error);
        const fields = { event: 'admin_failed', ...errorFields(error) } as const;
        this.#logger.error(fields, `the admin interface has answered 500: ${fault}`);
      }
    }
    message.socket.setTimeout(this.#timeoutMs, () => message.socket.destroy());
  }
}

function closingError(): AdminRequestError {
  return new AdminRequestError(503, 'the gateway closes');
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
/** How many clients there may be at once. */
const MAX_CONNECTIONS = 2048;
/** A longer body would not fit into a string. */
const MAX_BODY_BYTES = 2 ** 29;
/** The longest delay of a Node timer. */
const MAX_TIMER_MS = 2 ** 31 - 1;
/** Bytes of `sun_path` without its closing zero, see unix(7). */
const MAX_PATH_LENGTH = 107;
