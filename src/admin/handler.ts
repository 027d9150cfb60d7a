/**
 * What answers the operations of a table: one function for each.
 * @module
 */
import type { Call, CallOf, WrittenAs } from './operation.ts';

/** A request after the schemas of its operation. */
export interface AdminRequest<C extends Call> {
  readonly params: C['params'];
  readonly query: C['query'];
  readonly body: C['body'];
  /**
   * The condition of a change, for `ChangeOptions`: the version in `If-Match`, `present` for `If-Match: *`, `absent` for
   * `If-None-Match: *`; undefined if there is none.
   */
  readonly expect: string | undefined;
  /** Aborted when the client goes away, and when the server closes. */
  readonly signal: AbortSignal;
}

/** An answer with its `ETag`. */
export class Versioned<T> {
  readonly value: T;
  readonly version: string;

  constructor(value: T, version: string) {
    this.value = value;
    this.version = version;
  }
}

/** An answer that says what is not done yet: it is sent with the status 202. */
export class Accepted<T> {
  readonly value: T;

  constructor(value: T) {
    this.value = value;
  }
}

/** The bytes of an answer, piece by piece; `return` is called if they are not read to the end. */
export type HandlerStream = AsyncIterable<Uint8Array>;

/** What an operation without an answer returns is not sent. */
export type HandlerAnswer<C extends Call> = 'result' extends keyof C
  ? WrittenAs<C['result']> | Versioned<WrittenAs<C['result']>> | Accepted<WrittenAs<C['result']>>
  : 'stream' extends keyof C
    ? HandlerStream
    : unknown;

/** Answers one operation. An error that it throws becomes a problem document. */
export type Handler<C extends Call> = (
  request: AdminRequest<C>
) => HandlerAnswer<C> | Promise<HandlerAnswer<C>>;

/** A handler for each operation of a table. */
export type Handlers<T> = { readonly [K in keyof T]: Handler<CallOf<T[K]>> };
