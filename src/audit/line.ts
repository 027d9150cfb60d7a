/**
 * The lines of an audit log, and the hash that links each line to the one before.
 *
 * ```
 * {"seq":7,"prev":"9f86d0…","time":"2026-01-02T03:04:05.678Z","kind":"revocation","site":"site-a"}
 * ```
 *
 * `seq` counts from 1. `prev` is the SHA-256 of the line before, in 64 lower-case hexadecimal digits; in the first line
 * it is 64 zeros. The hash covers the bytes of the line (UTF-8, without the line feed), so that no canonical form of JSON
 * is needed.
 * @module
 */
import { createHash } from 'node:crypto';
import { ApiMisuseError } from '../errors.ts';
import type { Json } from '../store/store.ts';

/** The kinds of event. The log itself adds lines of the kinds `suppressed` and `recovered`. */
export type AuditKind =
  | 'start'
  | 'ca'
  | 'token'
  | 'enrolment'
  | 'renewal'
  | 'revocation'
  | 'reinstatement'
  | 'release'
  | 'expose'
  | 'unexpose'
  | 'capture'
  | 'machine'
  | 'refused-handshake'
  | 'refused-enrolment';

/** An event. Absent fields are left out of the line. */
export interface AuditEvent {
  readonly kind: AuditKind;
  /**
   * The name of the site concerned. In a refusal, set `site` and `serial` only for an authenticated peer, never from what
   * an unauthenticated peer claims, because authenticated peers have their own limits of lines.
   */
  readonly site?: string | undefined;
  /** Serial number of the certificate, in hexadecimal digits. */
  readonly serial?: string | undefined;
  /** The name of the operator who caused it, or what the admin interface knows about its caller. */
  readonly actor?: string | undefined;
  /** The address of the peer, as text. */
  readonly remoteAddress?: string | undefined;
  /** Further data. In the summary, refusals are counted by the string `detail.code`. */
  readonly detail?: Readonly<Record<string, Json>> | undefined;
}

/** The number and the hash of a line. */
export interface AuditHead {
  readonly seq: number;
  /** 64 hexadecimal digits. */
  readonly hash: string;
}

/** The head of an empty log. */
export const BEGINNING: AuditHead = { seq: 0, hash: '0'.repeat(64) };

/** The most bytes in a line, without the line feed. */
export const MAX_LINE_BYTES: number = 64 * 1024;

/** The beginning of every line, and so of a torn one. */
export const LINE_START = '{"seq":';

/** The fields that link a line to the one before. */
export interface Link {
  readonly seq: number;
  readonly prev: string;
}

/**
 * Encodes a line without its number and hash. A `detail` that makes it too long is replaced by its length.
 *
 * @throws {ApiMisuseError} if the kind of the event is unknown, or the event is not JSON or too long.
 */
export function encodeEvent(event: AuditEvent, nowMs: number): string {
  if (!KINDS.has(event.kind)) {
    throw new ApiMisuseError(`an audit log has no events of the kind "${event.kind}"`);
  }
  return encodeBody(event.kind, event, nowMs);
}

/** Does the same for any kind, also the log's own. @throws {ApiMisuseError} as `encodeEvent` does */
export function encodeBody(
  kind: string,
  { site, serial, actor, remoteAddress, detail }: Omit<AuditEvent, 'kind'>,
  nowMs: number
): string {
  const time = new Date(nowMs).toISOString();
  const encode = (written: AuditEvent['detail']): string =>
    JSON.stringify({ time, kind, site, serial, actor, remoteAddress, detail: written });
  let body: string;
  try {
    body = encode(detail);
  } catch (error) {
    throw new ApiMisuseError(`an audit log keeps JSON only: ${(error as Error).message}`, {
      cause: error,
    });
  }
  if (isTooLong(body))
    body = encode({ omittedBytes: Buffer.byteLength(JSON.stringify(detail) ?? '') });
  if (isTooLong(body)) {
    throw new ApiMisuseError(`an event of ${Buffer.byteLength(body)} bytes is too long for a line`);
  }
  return body;
}

/** Completes the result of `encodeEvent` with number and hash, without the line feed. */
export function encodeLine(head: AuditHead, body: string): Buffer {
  const { seq, hash } = head;
  return Buffer.from(`${LINE_START}${seq + 1},"prev":"${hash}",${body.slice(1)}`);
}

export function hashOf(line: Buffer): string {
  return createHash('sha256').update(line).digest('hex');
}

/** Reads the link of a line; returns undefined if it is not a line of an audit log. */
export function parseLink(line: Buffer): Link | undefined {
  if (line.length > MAX_LINE_BYTES) return undefined;
  try {
    const record: unknown = JSON.parse(line.toString());
    if (typeof record !== 'object' || record === null) return undefined;
    const { seq, prev, time, kind } = record as Readonly<Record<string, unknown>>;
    if (typeof seq !== 'number' || !Number.isSafeInteger(seq) || seq < 1) return undefined;
    if (typeof prev !== 'string' || !HASH.test(prev)) return undefined;
    if (typeof time !== 'string' || typeof kind !== 'string') return undefined;
    return { seq, prev };
  } catch {
    return undefined;
  }
}

function isTooLong(body: string): boolean {
  return Buffer.byteLength(body) + LINK_BYTES > MAX_LINE_BYTES;
}

const KINDS: ReadonlySet<AuditKind> = new Set<AuditKind>([
  'start',
  'ca',
  'token',
  'enrolment',
  'renewal',
  'revocation',
  'reinstatement',
  'release',
  'expose',
  'unexpose',
  'capture',
  'machine',
  'refused-handshake',
  'refused-enrolment',
]);

const HASH = /^[0-9a-f]{64}$/;

/** The space for the longest number and the hash, in bytes. */
const LINK_BYTES = 128;
