/**
 * One line of an audit log, and the hash that ties the next one to it.
 *
 * ```
 * {"seq":7,"prev":"9f86d0…","time":"2026-01-02T03:04:05.678Z","kind":"revocation","site":"site-a"}
 * ```
 *
 * `seq` counts from 1. `prev` is the SHA-256, in 64 lower-case hexadecimal digits, of the line before:
 * of its very bytes, UTF-8 and without the line feed, so that no canonical form of JSON is needed. The
 * first line's is 64 zeros.
 * @module
 */
import { createHash } from 'node:crypto';
import { ApiMisuseError } from '../errors.ts';
import type { Json } from '../store/store.ts';

/** What a host may note. The log itself adds lines of the kinds `suppressed` and `recovered`. */
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
  | 'refused-handshake'
  | 'refused-enrolment';

/** Something that happened. What is absent is not in the line either. */
export interface AuditEvent {
  readonly kind: AuditKind;
  /**
   * Name of the site that it is about. In a refusal, `site` and `serial` are for a peer that has proved who
   * it is, and never what an unauthenticated peer says: such a peer has a number of lines of its own.
   */
  readonly site?: string | undefined;
  /** Serial number of the certificate, in hexadecimal digits. */
  readonly serial?: string | undefined;
  /** Who did it: an operator's name, or what the admin interface knows of its caller. */
  readonly actor?: string | undefined;
  /** Address of the far end, as text. */
  readonly remoteAddress?: string | undefined;
  /** More; `detail.code`, a string, is what refusals are counted by when they are summed up. */
  readonly detail?: Readonly<Record<string, Json>> | undefined;
}

/** A place in the log: the number of a line, and the hash of that line. */
export interface AuditHead {
  readonly seq: number;
  /** 64 hexadecimal digits. */
  readonly hash: string;
}

/** The head of an empty log. */
export const BEGINNING: AuditHead = { seq: 0, hash: '0'.repeat(64) };

/** Longest line, in bytes, without the line feed. */
export const MAX_LINE_BYTES: number = 64 * 1024;

/** How every line begins, so how a torn one does. */
export const LINE_START = '{"seq":';

/** What ties a line to the others. */
export interface Link {
  readonly seq: number;
  readonly prev: string;
}

/**
 * Returns all of a line but its number and its hash. A `detail` that makes it too long is left out, and
 * its length noted instead.
 *
 * @throws {ApiMisuseError} if the event is of no kind that may be noted, is not JSON, or is too long.
 */
export function encodeEvent(event: AuditEvent, nowMs: number): string {
  if (!KINDS.has(event.kind)) {
    throw new ApiMisuseError(`an audit log has no events of the kind "${event.kind}"`);
  }
  return encodeBody(event.kind, event, nowMs);
}

/** @throws {ApiMisuseError} as `encodeEvent` does; the kind may be the log's own. */
export function encodeBody(
  kind: string,
  { site, serial, actor, remoteAddress, detail }: Omit<AuditEvent, 'kind'>,
  nowMs: number
): string {
  const time = new Date(nowMs).toISOString();
  const encode = (shown: AuditEvent['detail']): string =>
    JSON.stringify({ time, kind, site, serial, actor, remoteAddress, detail: shown });
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

/** Puts number and hash to what `encodeEvent` gave; without the line feed. */
export function encodeLine(head: AuditHead, body: string): Buffer {
  const { seq, hash } = head;
  return Buffer.from(`${LINE_START}${seq + 1},"prev":"${hash}",${body.slice(1)}`);
}

export function hashOf(line: Buffer): string {
  return createHash('sha256').update(line).digest('hex');
}

/** Returns undefined if it is no line of an audit log. */
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
  'refused-handshake',
  'refused-enrolment',
]);

const HASH = /^[0-9a-f]{64}$/;

/** Room for the longest number and the hash. */
const LINK_BYTES = 128;
