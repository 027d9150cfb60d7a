/**
 * Why a call of etcd has failed, and whether etcd may have done what was asked.
 * Source: the codes of gRPC, and `api/v3rpc/rpctypes/error.go` of etcd.
 * @module
 */

/** The status codes of gRPC that make a difference here. */
export const Code = {
  Cancelled: 1,
  Unknown: 2,
  DeadlineExceeded: 4,
  NotFound: 5,
  /** FAILED_PRECONDITION in gRPC. */
  Refused: 9,
  OutOfRange: 11,
  Internal: 13,
  Unavailable: 14,
  DataLoss: 15,
  Unauthenticated: 16,
} as const;

/** A call has failed. */
export class CallError extends Error {
  readonly code: number;
  /** etcd's own words. */
  readonly details: string;
  /** Whether the request was sent. */
  readonly wasSent: boolean;

  constructor(code: number, details: string, wasSent: boolean) {
    super(`etcd: ${details.replace(/^etcdserver: /, '')}`);
    this.code = code;
    this.details = details;
    this.wasSent = wasSent;
  }

  /** Whether the server cannot be reached or cannot answer now, so that another one may be asked. */
  get isUnavailable(): boolean {
    return WITHOUT_ANSWER.has(this.code) || NOT_NOW.has(this.details);
  }

  /** Whether etcd may have done what was asked, or may do it later. */
  get isDoubtful(): boolean {
    return this.wasSent && this.isUnavailable && !NOT_NOW.has(this.details);
  }

  /** Whether another token may help: it has expired, or users were changed. Nothing was done. */
  get isOfToken(): boolean {
    return this.code === Code.Unauthenticated || this.details === OLD_USERS;
  }
}

/** An answer of etcd has another code, and means that nothing was done. */
const WITHOUT_ANSWER: ReadonlySet<number> = new Set([
  Code.Cancelled,
  Code.Unknown,
  Code.DeadlineExceeded,
  Code.Internal,
  Code.Unavailable,
  Code.DataLoss,
]);
/** The answers to a request that is not even proposed to the members. */
const NOT_NOW: ReadonlySet<string> = new Set([
  'etcdserver: no leader',
  'etcdserver: too many requests',
]);
const OLD_USERS = 'etcdserver: revision of auth store is old';
