/**
 * Enrolment tokens. A token is one line of text that an operator carries from the cloud to a new site. It contains the
 * endpoints to enrol at, the hash of the CA, and a secret that is valid for one certificate.
 *
 * The text is `vp1.` and the base64url of a JSON object.
 * @module
 */
import crypto from 'node:crypto';
import * as v from 'valibot';
import { checkThat } from '../base/option-check.ts';
import { ApiMisuseError, EnrolmentError } from '../errors.ts';
import { checkSite, checkTrustDomain } from './names.ts';

export interface EnrolmentToken {
  /** The endpoints of `EnrolmentServer`s, each `https://host:port`; they are tried in order. */
  readonly endpoints: readonly string[];
  /** SHA-256 of the CA's SubjectPublicKeyInfo, base64url. */
  readonly caSpkiHash: string;
  readonly trustDomain: string;
  readonly site: string;
  readonly id: string;
  /** 32 bytes, base64url. */
  readonly secret: string;
}

/**
 * Writes a token as text.
 *
 * @throws {ApiMisuseError} if an endpoint is not `https://host:port`, there are none or more than
 * eight, or the text would be longer than 4 KiB.
 */
export function formatToken(token: EnrolmentToken): string {
  checkThat('endpoints', token.endpoints, Array.isArray(token.endpoints), 'a list of texts');
  const wrong = token.endpoints.findIndex((endpoint) => !isEndpoint(endpoint));
  if (wrong >= 0) {
    throw new ApiMisuseError(
      `"${String(token.endpoints[wrong])}" is not an endpoint: expected https://host:port`
    );
  }
  if (token.endpoints.length < 1 || token.endpoints.length > MAX_ENDPOINTS) {
    throw new ApiMisuseError(
      `a token names 1 to ${MAX_ENDPOINTS} endpoints, not ${token.endpoints.length}`
    );
  }
  const text = PREFIX + Buffer.from(JSON.stringify(token)).toString('base64url');
  if (text.length > MAX_TOKEN_LENGTH) {
    throw new ApiMisuseError(`the token has ${text.length} bytes, more than ${MAX_TOKEN_LENGTH}`);
  }
  return text;
}

/**
 * Reads the text of a token and ignores white space around it.
 *
 * @throws {EnrolmentError} with fault `malformed` if the text is not a token.
 */
export function parseToken(text: string): EnrolmentToken {
  const isShort = typeof text === 'string' && text.length <= MAX_TOKEN_LENGTH;
  const body = isShort ? TOKEN.exec(text.trim())?.[1] : undefined;
  if (body === undefined) throw new EnrolmentError('malformed', 'not an enrolment token');
  let json: unknown;
  try {
    json = JSON.parse(Buffer.from(body, 'base64url').toString());
  } catch {
    // No `cause`, because its message would quote the secret.
    throw new EnrolmentError('malformed', 'the enrolment token is damaged');
  }
  const result = v.safeParse(TokenSchema, json);
  if (!result.success) throw new EnrolmentError('malformed', 'the enrolment token is damaged');
  return result.output;
}

/** Draws a token's id, 16 random bytes as base64url. */
export function randomTokenId(): string {
  return crypto.randomBytes(16).toString('base64url');
}

/** Draws a token's secret. */
export function randomSecret(): string {
  return crypto.randomBytes(32).toString('base64url');
}

export function isTokenId(text: string): boolean {
  return TOKEN_ID.test(text);
}

/** Hashes a secret for the store. A plain hash suffices because the secret is random. */
export function hashSecret(secret: string): string {
  return crypto.createHash('sha256').update(secret).digest('base64url');
}

/** Compares a secret with a stored hash in constant time. */
export function secretMatches(secret: string, hash: string): boolean {
  return crypto.timingSafeEqual(Buffer.from(hashSecret(secret)), Buffer.from(hash));
}

function isEndpoint(text: string): boolean {
  return typeof text === 'string' && ENDPOINT.test(text) && URL.canParse(text);
}

/** Makes a predicate from a check of `names.ts`. */
function passes(check: (text: string) => void): (text: string) => boolean {
  return (text) => {
    try {
      check(text);
      return true;
    } catch {
      return false;
    }
  };
}

const PREFIX = 'vp1.';
const TOKEN = /^vp1\.([A-Za-z0-9_-]+)$/;
/** `https://`, then a DNS name, an IPv4 address or an IPv6 address in brackets, and an optional port. */
const ENDPOINT = /^https:\/\/(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?$/i;
const TOKEN_ID = /^[A-Za-z0-9_-]{22}$/;
/** 32 bytes as base64url. */
const DIGEST = /^[A-Za-z0-9_-]{43}$/;
const MAX_TOKEN_LENGTH = 4096;
const MAX_ENDPOINTS = 8;

const TokenSchema = v.strictObject({
  endpoints: v.pipe(
    v.array(v.pipe(v.string(), v.check(isEndpoint))),
    v.minLength(1),
    v.maxLength(MAX_ENDPOINTS)
  ),
  caSpkiHash: v.pipe(v.string(), v.regex(DIGEST)),
  trustDomain: v.pipe(v.string(), v.check(passes(checkTrustDomain))),
  site: v.pipe(v.string(), v.check(passes(checkSite))),
  id: v.pipe(v.string(), v.regex(TOKEN_ID)),
  secret: v.pipe(v.string(), v.regex(DIGEST)),
});
