/**
 * What an operation of the admin interface is: one entry of the tables `CLOUD_OPERATIONS` and `EDGE_OPERATIONS`. The
 * server, the client, the OpenAPI documents and the command are made of the tables.
 * @module
 */
import * as v from 'valibot';
import type { Schema } from '../base/schema.ts';

/** The content type of a capture file; none is registered, and this one is common. */
export const PCAPNG_TYPE = 'application/x-pcapng';

/** The role that a caller of an operation needs. `operator` may do what `viewer` may, and `admin` everything. */
export type Role = 'viewer' | 'operator' | 'admin';

/** The parts of an operation that have a type. What is absent has no parameters, no body, or no answer. */
export interface Call {
  /** The parameters in the path. */
  readonly params?: object;
  readonly query?: object;
  /** What is sent: JSON. */
  readonly body?: unknown;
  /** What is answered: JSON, or a text if the operation has a `textType`. */
  readonly result?: unknown;
  /** What is answered if the operation has a `streamType`. */
  readonly stream?: AsyncIterable<Uint8Array>;
}

/** An operation apart from its types. */
export interface Route {
  readonly method: 'GET' | 'PUT' | 'POST' | 'DELETE';
  /** A parameter is one whole segment, such as `{site}` in `/v1/sites/{site}`. */
  readonly path: `/${string}`;
  /** One sentence for the reference. */
  readonly summary: string;
  readonly role: Role;
  /** The content type of an answer that is a text and no JSON. */
  readonly textType?: 'application/x-pem-file' | undefined;
  /** The content type of an answer that is bytes, piece by piece, as they come. It has no schema. */
  readonly streamType?: typeof PCAPNG_TYPE | undefined;
  /** Whether the answer is one record with an `ETag`, which `If-Match` of a change is compared with. */
  readonly versioned?: boolean | undefined;
  /**
   * What the server checks of a body instead of its schema, if the handler checks the rest in slices: such a body may have
   * so many records that packets would wait. Default: the schema of the body.
   */
  readonly frame?: Schema<object> | undefined;
  /** Whether success creates something: it is answered by 201 instead of 200. */
  readonly creates?: boolean | undefined;
  /** Whether the answer may be that a part of it is not done yet, with the status 202; see `Accepted`. */
  readonly accepts?: boolean | undefined;
}

/** The schema of one part of a call, if the call has that part. */
export type CallPart<C extends Call, K extends keyof Call> = K extends keyof C
  ? { readonly [P in K]: Schema<C[K]> }
  : { readonly [P in K]?: undefined };

/**
 * One operation: the route, and a schema for each part of the call. `params` and `query` are of texts; their schemas are
 * objects.
 */
export type Operation<C extends Call = Call> = Route &
  CallPart<C, 'params'> &
  CallPart<C, 'query'> &
  CallPart<C, 'body'> &
  CallPart<C, 'result'> & {
    /** The type of the call; there is no such value. */
    readonly call?: C;
  };

/** An operation of any call, as the server and the documents see it. */
export type AnyOperation = Route & {
  readonly [K in Exclude<keyof Call, 'stream'>]?: Schema<unknown> | undefined;
};

/** Operations by their names, which are the `operationId`s of the OpenAPI document. */
export type Operations = Readonly<Record<string, AnyOperation>>;

/** The call of an operation. */
export type CallOf<O> = O extends { readonly call?: infer C } ? NonNullable<C> : never;

/** What JSON writes as `T`: a value such as an address stands for its text. */
export type WrittenAs<T> = T extends string
  ? T | { toJSON(): string }
  : T extends readonly (infer E)[]
    ? readonly WrittenAs<E>[]
    : T extends object
      ? { readonly [K in keyof T]: WrittenAs<T[K]> }
      : T;

/** Every table has it: the document that describes the table. */
export const DOCUMENT_OPERATION: Operation<{ result: object }> = {
  method: 'GET',
  path: '/openapi.json',
  summary: 'This interface as an OpenAPI 3.1 document',
  role: 'viewer',
  result: v.looseObject({}),
};
