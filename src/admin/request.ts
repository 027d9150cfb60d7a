/**
 * Reads the parts of a request, and checks them by the schemas of its operation.
 * @module
 */
import type { IncomingMessage } from 'node:http';
import { parseSchema } from '../base/schema.ts';
import { ConfigError } from '../errors.ts';
import type { Json } from '../store/index.ts';
import type { AdminRequest } from './handler.ts';
import type { AnyOperation, Call } from './operation.ts';
import { AdminRequestError } from './problem.ts';
import type { Match } from './router.ts';

/** Bounds the bodies of requests: each, and all that are being received together, which have twice as much. */
export class BodyReader {
  readonly #maxBytes: number;
  #receivedBytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** @throws {AdminRequestError} if the body is too long (413), or others are (503), or the client goes away within it. */
  async read(request: IncomingMessage): Promise<Buffer> {
    const chunks: Buffer[] = [];
    let length = 0;
    const reading = new Promise<void>((resolve, reject) => {
      const refuse = (status: number, message: string) => {
        // The rest is discarded, so that the client can still read the answer.
        request.off('data', take).resume();
        reject(new AdminRequestError(status, message));
      };
      const take = (chunk: Buffer) => {
        if (length + chunk.length > this.#maxBytes) {
          refuse(413, `the body is longer than ${this.#maxBytes} bytes`);
        } else if (this.#receivedBytes + chunk.length > 2 * this.#maxBytes) {
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
      request.on('close', () => reject(new AdminRequestError(400, 'the body is not complete')));
    });
    try {
      await reading;
      return Buffer.concat(chunks);
    } finally {
      this.#receivedBytes -= length;
    }
  }
}

/**
 * Returns a request after the schemas of its operation.
 *
 * @throws {AdminRequestError} if a part is there that the operation does not have, or cannot be read.
 * @throws {ConfigError} naming the key that is wrong.
 */
export function requestOf(
  { operation, params }: Match,
  query: URLSearchParams,
  body: Buffer,
  message: IncomingMessage
): Omit<AdminRequest<Call>, 'signal'> {
  return {
    params: operation.params && (parseSchema(operation.params, params) as object),
    query: queryOf(operation, query),
    body: bodyOf(operation, body),
    expect: conditionOf(operation, message),
  };
}

/** Returns the path and the query of a request, whose target may be a whole URL (RFC 9112 section 3.2.2). */
export function targetOf({ url = '/' }: IncomingMessage): [path: string, query: URLSearchParams] {
  const target = url.replace(/^http:\/\/[^/?]*/, '');
  const at = target.indexOf('?');
  return at < 0
    ? [target, new URLSearchParams()]
    : [target.slice(0, at), new URLSearchParams(target.slice(at + 1))];
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

function bodyOf({ body: whole, frame }: AnyOperation, body: Buffer): unknown {
  const schema = frame ?? whole;
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
