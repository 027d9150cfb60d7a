/**
 * The part of etcd's gRPC interface that this module uses, as a descriptor of protobufjs, with its messages as
 * TypeScript types. Source: `api/etcdserverpb/rpc.proto` and `api/mvccpb/kv.proto` of etcd 3.4 to 3.6.
 *
 * 64-bit numbers are read as text, because the ids of leases and clusters do not fit a number of JavaScript; revisions do.
 * @module
 */

/** A 64-bit number as text. */
export type Int64 = string;

export interface ResponseHeader {
  readonly cluster_id: Int64;
  readonly revision: Int64;
  readonly raft_term: Int64;
}

export interface KeyValue {
  readonly key: Buffer;
  readonly mod_revision: Int64;
  readonly value: Buffer;
}

export interface RangeRequest {
  readonly key: Buffer;
  readonly range_end?: Buffer;
  readonly limit?: number;
  readonly revision?: number;
  readonly keys_only?: boolean;
  readonly count_only?: boolean;
}

export interface RangeResponse {
  readonly header: ResponseHeader;
  readonly kvs: readonly KeyValue[];
  readonly more: boolean;
}

/** A comparison of the revision at which a key was written last; 0 if there is no such key. */
export interface Compare {
  readonly result: typeof COMPARE_EQUAL;
  readonly target: typeof COMPARE_MOD;
  readonly key: Buffer;
  readonly mod_revision: number;
}

export type RequestOp =
  | { readonly request_range: RangeRequest }
  | {
      readonly request_put: {
        readonly key: Buffer;
        readonly value: Buffer;
        readonly lease?: Int64;
      };
    }
  | { readonly request_delete_range: { readonly key: Buffer } };

export interface TxnRequest {
  readonly compare: readonly Compare[];
  readonly success: readonly RequestOp[];
  readonly failure: readonly RequestOp[];
}

export interface TxnResponse {
  readonly header: ResponseHeader;
  readonly succeeded: boolean;
  readonly responses: readonly {
    readonly response_range?: { readonly kvs: readonly KeyValue[] };
    readonly response_put?: object;
    readonly response_delete_range?: { readonly deleted: Int64 };
  }[];
}

export type WatchRequest =
  | {
      readonly create_request: {
        readonly key: Buffer;
        readonly range_end: Buffer;
        readonly start_revision: number;
        readonly fragment: boolean;
      };
    }
  | { readonly progress_request: object };

export interface WatchEvent {
  /** `EVENT_DELETE`, or 0 for a put. */
  readonly type: number;
  readonly kv: KeyValue;
}

export interface WatchResponse {
  readonly header: ResponseHeader;
  readonly created: boolean;
  readonly canceled: boolean;
  /** The first revision that is kept, if the watch was cancelled because it wanted an earlier one; else 0. */
  readonly compact_revision: Int64;
  readonly cancel_reason: string;
  /** Whether more events of the same response follow. */
  readonly fragment: boolean;
  readonly events: readonly WatchEvent[];
}

export interface LeaseResponse {
  readonly header: ResponseHeader;
  readonly ID: Int64;
  /** In seconds; 0 if there is no such lease. */
  readonly TTL: Int64;
}

/** Requests with one answer: `[request, response]` by the path of the call. */
export interface Calls {
  readonly '/etcdserverpb.KV/Range': readonly [RangeRequest, RangeResponse];
  readonly '/etcdserverpb.KV/Txn': readonly [TxnRequest, TxnResponse];
  readonly '/etcdserverpb.Lease/LeaseGrant': readonly [{ readonly TTL: number }, LeaseResponse];
  readonly '/etcdserverpb.Lease/LeaseRevoke': readonly [{ readonly ID: Int64 }, object];
  readonly '/etcdserverpb.Auth/Authenticate': readonly [
    { readonly name: string; readonly password: string },
    { readonly token: string },
  ];
}

/** Streams of requests and of answers: `[request, response]` by the path of the call. */
export interface Streams {
  readonly '/etcdserverpb.Watch/Watch': readonly [WatchRequest, WatchResponse];
  readonly '/etcdserverpb.Lease/LeaseKeepAlive': readonly [{ readonly ID: Int64 }, LeaseResponse];
}

// Numbers instead of names, because protobufjs takes a name that it does not know for 0.
export const COMPARE_EQUAL = 0;
export const COMPARE_MOD = 2;
export const EVENT_DELETE = 1;

type Field = readonly [name: string, type: string, id: number, isRepeated?: true];

function message(fields: readonly Field[]): object {
  return {
    fields: Object.fromEntries(
      fields.map(([name, type, id, isRepeated]) => [
        name,
        { type, id, ...(isRepeated && { rule: 'repeated' }) },
      ])
    ),
  };
}

/** A message that has one of these fields. */
function oneOf(fields: readonly Field[]): object {
  return { oneofs: { one: { oneof: fields.map(([name]) => name) } }, ...message(fields) };
}

function service(
  methods: Readonly<Record<string, readonly [string, string]>>,
  streams = false
): object {
  return {
    methods: Object.fromEntries(
      Object.entries(methods).map(([name, [requestType, responseType]]) => [
        name,
        { requestType, responseType, requestStream: streams, responseStream: streams },
      ])
    ),
  };
}

const HEADER: Field = ['header', 'ResponseHeader', 1];

const MESSAGES = {
  KV: service({ Range: ['RangeRequest', 'RangeResponse'], Txn: ['TxnRequest', 'TxnResponse'] }),
  Watch: service({ Watch: ['WatchRequest', 'WatchResponse'] }, true),
  Lease: {
    methods: {
      LeaseGrant: { requestType: 'LeaseGrantRequest', responseType: 'LeaseGrantResponse' },
      LeaseRevoke: { requestType: 'LeaseRevokeRequest', responseType: 'LeaseRevokeResponse' },
      LeaseKeepAlive: {
        requestType: 'LeaseKeepAliveRequest',
        responseType: 'LeaseKeepAliveResponse',
        requestStream: true,
        responseStream: true,
      },
    },
  },
  Auth: service({ Authenticate: ['AuthenticateRequest', 'AuthenticateResponse'] }),
  ResponseHeader: message([
    ['cluster_id', 'uint64', 1],
    ['member_id', 'uint64', 2],
    ['revision', 'int64', 3],
    ['raft_term', 'uint64', 4],
  ]),
  RangeRequest: message([
    ['key', 'bytes', 1],
    ['range_end', 'bytes', 2],
    ['limit', 'int64', 3],
    ['revision', 'int64', 4],
    ['keys_only', 'bool', 8],
    ['count_only', 'bool', 9],
  ]),
  RangeResponse: message([
    HEADER,
    ['kvs', 'mvccpb.KeyValue', 2, true],
    ['more', 'bool', 3],
    ['count', 'int64', 4],
  ]),
  PutRequest: message([
    ['key', 'bytes', 1],
    ['value', 'bytes', 2],
    ['lease', 'int64', 3],
  ]),
  PutResponse: message([HEADER]),
  DeleteRangeRequest: message([
    ['key', 'bytes', 1],
    ['range_end', 'bytes', 2],
  ]),
  DeleteRangeResponse: message([HEADER, ['deleted', 'int64', 2]]),
  RequestOp: oneOf([
    ['request_range', 'RangeRequest', 1],
    ['request_put', 'PutRequest', 2],
    ['request_delete_range', 'DeleteRangeRequest', 3],
  ]),
  ResponseOp: oneOf([
    ['response_range', 'RangeResponse', 1],
    ['response_put', 'PutResponse', 2],
    ['response_delete_range', 'DeleteRangeResponse', 3],
  ]),
  // The enumerations of both are numbers on the wire.
  Compare: message([
    ['result', 'int32', 1],
    ['target', 'int32', 2],
    ['key', 'bytes', 3],
    ['mod_revision', 'int64', 6],
  ]),
  TxnRequest: message([
    ['compare', 'Compare', 1, true],
    ['success', 'RequestOp', 2, true],
    ['failure', 'RequestOp', 3, true],
  ]),
  TxnResponse: message([HEADER, ['succeeded', 'bool', 2], ['responses', 'ResponseOp', 3, true]]),
  WatchRequest: oneOf([
    ['create_request', 'WatchCreateRequest', 1],
    ['progress_request', 'WatchProgressRequest', 3],
  ]),
  WatchCreateRequest: message([
    ['key', 'bytes', 1],
    ['range_end', 'bytes', 2],
    ['start_revision', 'int64', 3],
    ['fragment', 'bool', 8],
  ]),
  WatchProgressRequest: message([]),
  WatchResponse: message([
    HEADER,
    ['watch_id', 'int64', 2],
    ['created', 'bool', 3],
    ['canceled', 'bool', 4],
    ['compact_revision', 'int64', 5],
    ['cancel_reason', 'string', 6],
    ['fragment', 'bool', 7],
    ['events', 'mvccpb.Event', 11, true],
  ]),
  LeaseGrantRequest: message([
    ['TTL', 'int64', 1],
    ['ID', 'int64', 2],
  ]),
  LeaseGrantResponse: message([HEADER, ['ID', 'int64', 2], ['TTL', 'int64', 3]]),
  LeaseRevokeRequest: message([['ID', 'int64', 1]]),
  LeaseRevokeResponse: message([HEADER]),
  LeaseKeepAliveRequest: message([['ID', 'int64', 1]]),
  LeaseKeepAliveResponse: message([HEADER, ['ID', 'int64', 2], ['TTL', 'int64', 3]]),
  AuthenticateRequest: message([
    ['name', 'string', 1],
    ['password', 'string', 2],
  ]),
  AuthenticateResponse: message([HEADER, ['token', 'string', 2]]),
};

/** What `fromJSON` of `@grpc/proto-loader` takes. */
export const DESCRIPTOR: { readonly nested: object } = {
  nested: {
    mvccpb: {
      nested: {
        KeyValue: message([
          ['key', 'bytes', 1],
          ['create_revision', 'int64', 2],
          ['mod_revision', 'int64', 3],
          ['version', 'int64', 4],
          ['value', 'bytes', 5],
          ['lease', 'int64', 6],
        ]),
        Event: message([
          ['type', 'int32', 1],
          ['kv', 'KeyValue', 2],
        ]),
      },
    },
    etcdserverpb: { nested: MESSAGES },
  },
};
