/**
 * Errors as answers: problem documents ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)) with the status that tells
 * whose fault it is.
 * @module
 */
import { STATUS_CODES } from 'node:http';
import * as v from 'valibot';
import type { Schema } from '../base/schema.ts';
import { ConfigError, ConflictError, PresenceError } from '../errors.ts';

/** The content type of a problem document. */
export const PROBLEM_TYPE = 'application/problem+json';

export interface Problem {
  /** The name of the status. */
  readonly title: string;
  /** The status of the answer. */
  readonly status: number;
  /** One sentence that says what is wrong. */
  readonly detail: string;
  /** A stable identifier, `ERR_PRESENCE_...`. */
  readonly code: string;
  /** The key of the request that is wrong, for example `pools[0]`; absent if it concerns the whole. */
  readonly path?: string | undefined;
  /** One sentence that says what to do. */
  readonly remedy?: string | undefined;
}

export const ProblemSchema: Schema<Problem> = v.object({
  title: v.string(),
  status: v.number(),
  detail: v.string(),
  code: v.string(),
  path: v.optional(v.string()),
  remedy: v.optional(v.string()),
});

/** A request that no operation takes. */
export class AdminRequestError extends PresenceError {
  readonly status: number;
  /** The methods that the path has, for the status 405. */
  readonly allow: readonly string[];

  constructor(status: number, message: string, allow: readonly string[] = []) {
    super('ERR_PRESENCE_ADMIN_REQUEST', message);
    this.status = status;
    this.allow = allow;
  }
}

/** Returns the problem document for an error that reading a request or a handler has thrown. */
export function problemOf(error: unknown): Problem {
  if (!(error instanceof PresenceError)) {
    const detail = error instanceof Error ? error.message : String(error);
    const remedy = 'This is a fault of the gateway; report it with its log.';
    return { ...titled(500), detail, code: 'ERR_PRESENCE_INTERNAL', remedy };
  }
  const { code, message: detail } = error;
  const status = error instanceof AdminRequestError ? error.status : statusOf(code);
  const isPlaced = error instanceof ConfigError || error instanceof ConflictError;
  const path = isPlaced && error.path !== '' ? error.path : undefined;
  const remedy = REMEDIES[code];
  return {
    ...titled(status),
    detail,
    code,
    ...(path !== undefined && { path }),
    ...(remedy !== undefined && { remedy }),
  };
}

function statusOf(code: string): number {
  // The cloud refuses a token, for one of many reasons.
  const byDefault = code.startsWith('ERR_PRESENCE_ENROLMENT_') ? 409 : 500;
  return STATUSES[code] ?? byDefault;
}

function titled(status: number): Pick<Problem, 'title' | 'status'> {
  return { title: STATUS_CODES[status]!, status };
}

/** The statuses of errors by their codes; any other error is a fault of the gateway (500). */
const STATUSES: Readonly<Record<string, number>> = {
  ERR_PRESENCE_CONFIG: 400,
  ERR_PRESENCE_API_MISUSE: 400,
  ERR_PRESENCE_ENROLMENT_MALFORMED: 400,
  ERR_PRESENCE_NOT_FOUND: 404,
  ERR_PRESENCE_CONFLICT: 409,
  ERR_PRESENCE_CERTIFICATE: 409,
  ERR_PRESENCE_STORE_CONFLICT: 409,
  ERR_PRESENCE_POOL_EXHAUSTED: 409,
  ERR_PRESENCE_QUOTA_EXCEEDED: 409,
  ERR_PRESENCE_ADDRESS_UNAVAILABLE: 409,
  ERR_PRESENCE_VERSION_MISMATCH: 412,
  ERR_PRESENCE_PEER_PROTOCOL: 502,
  ERR_PRESENCE_PEER_REFUSED: 502,
  ERR_PRESENCE_STORE: 503,
  ERR_PRESENCE_STORE_UNAVAILABLE: 503,
  ERR_PRESENCE_STORE_DOUBT: 503,
  ERR_PRESENCE_STORE_REPLACED: 503,
  ERR_PRESENCE_ALLOCATOR_UNAVAILABLE: 503,
  ERR_PRESENCE_ENVIRONMENT: 503,
};

const REMEDIES: Readonly<Record<string, string>> = {
  ERR_PRESENCE_VERSION_MISMATCH: 'Read the record again, and repeat the change with its ETag.',
  ERR_PRESENCE_STORE_CONFLICT: 'Another gateway has changed the same; repeat the request.',
  ERR_PRESENCE_STORE: 'Check the state directory and its disk, then read the state again.',
  ERR_PRESENCE_STORE_UNAVAILABLE:
    'Look at the store and the way to it, and repeat the request, also at another machine of the cloud.',
  ERR_PRESENCE_STORE_DOUBT: 'Look whether the change is there before you repeat the request.',
  ERR_PRESENCE_POOL_EXHAUSTED: 'Give the site a larger pool, or release the addresses of clients.',
};
