/**
 * What `enrol` and `EnrolmentServer` say to each other: one POST of JSON over TLS 1.3.
 * @module
 */
import * as v from 'valibot';

/** ALPN name of the protocol, by which a server tells it from tunnels on the same port. */
export const ENROLMENT_ALPN = 'http/1.1';

export const ENROLMENT_PATH = '/v1/enrol';

export interface EnrolmentRequest {
  readonly tokenId: string;
  readonly secret: string;
  readonly csrPem: string;
}

export interface EnrolmentAnswer {
  readonly certificatePem: string;
  readonly caPem: string;
  /** ISO 8601. */
  readonly notAfter: string;
}

/** The body of every answer that is not 200. */
export interface EnrolmentRefusal {
  /** `code` of an error class of this library, or `ERR_PRESENCE_INTERNAL`. */
  readonly code: string;
  readonly message: string;
}

/** @returns the request, or undefined if it is none. */
export function parseRequest(body: string): EnrolmentRequest | undefined {
  return parse(RequestSchema, body);
}

/** @returns the answer, or undefined if it is none. */
export function parseAnswer(body: string): EnrolmentAnswer | undefined {
  return parse(AnswerSchema, body);
}

/** @returns the refusal, or undefined if it is none. */
export function parseRefusal(body: string): EnrolmentRefusal | undefined {
  return parse(RefusalSchema, body);
}

function parse<T extends v.GenericSchema>(schema: T, body: string): v.InferOutput<T> | undefined {
  try {
    const result = v.safeParse(schema, JSON.parse(body));
    return result.success ? result.output : undefined;
  } catch {
    return undefined;
  }
}

const text = (maxLength: number) => v.pipe(v.string(), v.minLength(1), v.maxLength(maxLength));
const RequestSchema = v.strictObject({
  tokenId: text(64),
  secret: text(64),
  csrPem: text(16_384),
});
// Looser than the request: a newer server may say more.
const AnswerSchema = v.object({
  certificatePem: text(16_384),
  caPem: text(16_384),
  notAfter: text(64),
});
const RefusalSchema = v.object({
  code: v.pipe(v.string(), v.regex(/^ERR_[A-Z_]{1,60}$/)),
  message: text(1000),
});
