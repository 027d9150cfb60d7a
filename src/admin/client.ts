/**
 * Calls the operations of a gateway's admin interface.
 * @module
 */
import { type IncomingMessage, type RequestOptions, request as startRequest } from 'node:http';
import { checkObject, checkText } from '../base/option-check.ts';
import { ApiMisuseError, EnvironmentError, PresenceError } from '../errors.ts';
import { CLOUD_OPERATIONS, type CloudOperations } from './cloud-operations.ts';
import type { AnyOperation, Call, CallOf, Operations } from './operation.ts';
import { PROBLEM_TYPE, type Problem } from './problem.ts';

export interface AdminClientOptions<T> {
  /** The table of the gateway's operations, `CLOUD_OPERATIONS` or `EDGE_OPERATIONS`. Default: `CLOUD_OPERATIONS`. */
  readonly operations?: T;
  /** The path of the gateway's admin socket. */
  readonly socketPath: string;
}

/** What a call sends: the parts that the operation has. */
export type AdminCall<C extends Call> = Required<Pick<C, keyof C & ('params' | 'body')>> &
  ('query' extends keyof C ? { readonly query?: Partial<NonNullable<C['query']>> } : object) & {
    /** The condition of a change; see `ChangeOptions`. Default: none. */
    readonly expect?: string;
    /** Ends a stream: the gateway sends what it has, and then the end. Default: it ends when the gateway ends it. */
    readonly finish?: AbortSignal;
    /** Ends the call, which then rejects with the signal's reason. Default: nothing does. */
    readonly signal?: AbortSignal;
  };

/** A call of any operation. */
type SentCall = Call & Pick<AdminCall<object>, 'expect' | 'finish' | 'signal'>;

export interface AdminAnswer<C extends Call> {
  readonly result: C['result'];
  /** The version of the record; undefined if the answer is not one record. */
  readonly version: string | undefined;
}

/** The names of the operations that answer with bytes. */
export type StreamName<T> = {
  [K in keyof T & string]: 'stream' extends keyof CallOf<T[K]> ? K : never;
}[keyof T & string];

/** A gateway has refused a request. `code` is that of the gateway's error. */
export class AdminProblemError extends PresenceError {
  readonly problem: Problem;

  constructor(problem: Problem) {
    super(problem.code, problem.detail);
    this.problem = problem;
  }
}

/**
 * A client of one gateway:
 *
 * ```ts
 * const client = new AdminClient({ socketPath: '/run/virtual-presence/admin.sock' });
 * const { result } = await client.call('getSite', { params: { site: 'site-a' } });
 * ```
 *
 * It keeps no connection, so it need not be closed.
 */
export class AdminClient<T extends object = CloudOperations> {
  readonly #operations: Operations;
  readonly #socketPath: string;

  /** @throws {ApiMisuseError} naming the option that is wrong. */
  constructor(options: AdminClientOptions<T>) {
    const { operations = CLOUD_OPERATIONS, socketPath } = checkObject('options', options);
    this.#operations = checkObject('operations', operations) as Operations;
    this.#socketPath = checkText('socketPath', socketPath);
  }

  /**
   * Calls an operation, and returns its answer as it was sent: addresses and times are texts.
   *
   * @throws {AdminProblemError} if the gateway refuses the request.
   * @throws {EnvironmentError} if there is no gateway, or its answer is not one.
   * @throws {ApiMisuseError} if there is no such operation.
   */
  async call<K extends keyof T & string>(
    name: K,
    call: AdminCall<CallOf<T[K]>>
  ): Promise<AdminAnswer<CallOf<T[K]>>> {
    const { signal } = call;
    const response = await this.#request(name, call as SentCall);
    const content = await this.#read(response, signal);
    const { 'content-type': type, etag } = response.headers;
    const result = type === 'application/json' ? this.#parse(content) : content || undefined;
    return { result: result as never, version: etag?.replace(/^"|"$/g, '') };
  }

  /**
   * Calls an operation that answers with bytes, and returns them piece by piece. A loop that is left ends the call.
   *
   * @throws {AdminProblemError} if the gateway refuses the request.
   * @throws {EnvironmentError} if there is no gateway; also within the loop, if the answer ends too early.
   * @throws {ApiMisuseError} if there is no such operation.
   */
  async stream<K extends StreamName<T>>(
    name: K,
    call: AdminCall<CallOf<T[K]>>
  ): Promise<AsyncIterable<Uint8Array>> {
    const response = await this.#request(name, call as SentCall);
    return this.#pieces(response, call.signal);
  }

  /** Sends a request, and returns the response to one that was not refused. */
  async #request(name: string, call: SentCall): Promise<IncomingMessage> {
    const operation = this.#operations[name];
    if (operation === undefined) throw new ApiMisuseError(`there is no operation "${name}"`);
    const { params, query, body, expect, finish, signal } = call;
    const text = body === undefined ? undefined : JSON.stringify(body);
    const options: RequestOptions = {
      socketPath: this.#socketPath,
      method: operation.method,
      path: urlOf(operation, params, query),
      headers: {
        ...(text !== undefined && {
          'content-type': 'application/json',
          'content-length': Buffer.byteLength(text),
        }),
        ...conditionOf(expect),
      },
      ...(signal && { signal }),
    };
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const request = startRequest(options, resolve).once('error', reject).end(text);
      // What the gateway sends is still read.
      const end = (): void => void request.socket?.end();
      finish?.addEventListener('abort', end, { once: true });
      request.once('close', () => finish?.removeEventListener('abort', end));
    }).catch((error) => this.#fail(error, signal));
    const { statusCode: status = 0, headers } = response;
    if (status < 300) return response;
    const content = await this.#read(response, signal);
    if (headers['content-type'] === PROBLEM_TYPE) {
      throw new AdminProblemError(this.#parse(content) as Problem);
    }
    throw new EnvironmentError(`${this.#socketPath} answered ${status}`);
  }

  async #read(response: IncomingMessage, signal: AbortSignal | undefined): Promise<string> {
    const chunks: Uint8Array[] = [];
    for await (const chunk of this.#pieces(response, signal)) chunks.push(chunk);
    return Buffer.concat(chunks).toString();
  }

  async *#pieces(
    response: IncomingMessage,
    signal: AbortSignal | undefined
  ): AsyncGenerator<Uint8Array> {
    try {
      for await (const chunk of response) yield chunk as Buffer;
    } catch (error) {
      this.#fail(error, signal);
    }
  }

  #fail(error: unknown, signal: AbortSignal | undefined): never {
    signal?.throwIfAborted();
    const { code, message } = error as NodeJS.ErrnoException;
    const reason = REASONS[code ?? ''] ?? message;
    throw new EnvironmentError(`cannot ask the gateway at ${this.#socketPath}: ${reason}`, {
      cause: error,
    });
  }

  #parse(content: string): unknown {
    try {
      return JSON.parse(content);
    } catch (cause) {
      throw new EnvironmentError(`${this.#socketPath} did not answer with JSON`, { cause });
    }
  }
}

function urlOf({ path }: AnyOperation, params: object = {}, query: object = {}): string {
  const filled = path.replace(/\{(\w+)\}/g, (_, name: string) => {
    const value = (params as Readonly<Record<string, unknown>>)[name];
    if (value === undefined) throw new ApiMisuseError(`params.${name} is missing`);
    return encodeURIComponent(String(value));
  });
  const given = Object.entries(query).filter(([, value]) => value !== undefined);
  const search = new URLSearchParams(
    given.map(([name, value]): [string, string] => [name, String(value)])
  );
  return given.length === 0 ? filled : `${filled}?${search}`;
}

function conditionOf(expect: string | undefined): Record<string, string> {
  if (expect === undefined) return {};
  if (expect === 'absent') return { 'if-none-match': '*' };
  return { 'if-match': expect === 'present' ? '*' : `"${expect}"` };
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'the socket does not exist; is the gateway running?',
  ECONNREFUSED: 'no process listens on the socket; is the gateway running?',
  EACCES: 'this user may not open the socket',
  EAGAIN: 'too many others are waiting for it; try again',
};
