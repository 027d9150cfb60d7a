/**
 * The messages of the enrolment protocol between `enrol` and `EnrolmentServer`: one POST of JSON over TLS 1.3.
 * @module
 */
import * as v from 'valibot';
import { formatHostPort, type HostPort } from '../base/host-port.ts';
import { HostPortSchema } from '../base/host-port-schema.ts';
import { parseSchema, type Schema } from '../base/schema.ts';

/** The ALPN name of the protocol; a server uses it to tell enrolment from tunnels on the same port. */
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
  /** The endpoints of the cloud's tunnels, written by `formatHostPort`; an older server sends none. */
  readonly tunnels?: readonly string[];
}

/** An answer with parsed endpoints. */
export interface ParsedAnswer extends Omit<EnrolmentAnswer, 'tunnels'> {
  /** Empty if the server sent none. */
  readonly tunnels: readonly HostPort[];
}

/** The body of every answer that is not 200. */
export interface EnrolmentRefusal {
  /** `code` of an error class of this library, or `ERR_PRESENCE_INTERNAL`. */
  readonly code: string;
  readonly message: string;
}

/** Reads a request; returns undefined if it is malformed. */
export function parseRequest(body: string): EnrolmentRequest | undefined {
  return parse(RequestSchema, body);
}

/** Reads an answer; returns undefined if it is malformed. */
export function parseAnswer(body: string): ParsedAnswer | undefined {
  return parse(AnswerSchema, body);
}

/**
 * Writes the endpoints of tunnels for an answer.
 *
 * @throws {ConfigError} if there are more than an answer may hold, or one is not an endpoint.
 */
export function formatTunnels(tunnels: readonly HostPort[]): string[] {
  const texts = parseSchema(TunnelsSchema, tunnels, 'tunnels').map(formatHostPort);
  // The client parses the texts: for example, it would refuse an address with a zone.
  parseSchema(TunnelTextsSchema, texts, 'tunnels');
  return texts;
}

/** Reads a refusal; returns undefined if it is malformed. */
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

function isShortText(value: unknown): boolean {
  return typeof value === 'string' && value.length <= MAX_ENDPOINT_LENGTH;
}

const MAX_TUNNELS = 16;
/** A domain name has 253 characters, a port 5. */
const MAX_ENDPOINT_LENGTH = 259;
const text = (maxLength: number) => v.pipe(v.string(), v.minLength(1), v.maxLength(maxLength));
const RequestSchema = v.strictObject({
  tokenId: text(64),
  secret: text(64),
  csrPem: text(16_384),
});
const TunnelsSchema = v.pipe(v.array(HostPortSchema), v.maxLength(MAX_TUNNELS)) as Schema<
  HostPort[]
>;
const TunnelTextsSchema = v.pipe(
  v.array(v.pipe(v.unknown(), v.check(isShortText), HostPortSchema)),
  v.maxLength(MAX_TUNNELS)
) as Schema<HostPort[]>;
// Less strict than the request: a newer server may send more fields.
const AnswerSchema = v.object({
  certificatePem: text(16_384),
  caPem: text(16_384),
  notAfter: text(64),
  tunnels: v.optional(TunnelTextsSchema, []),
});
const RefusalSchema = v.object({
  code: v.pipe(v.string(), v.regex(/^ERR_[A-Z_]{1,60}$/)),
  message: text(1000),
});
