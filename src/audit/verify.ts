/**
 * Verifies an audit log from its first line to its last, in memory that does not grow with it.
 * @module
 */
import { createReadStream } from 'node:fs';
import { StoreError } from '../errors.ts';
import { type AuditFault, ChainCheck, type ChainFault } from './chain.ts';
import { type AuditHead, BEGINNING, MAX_LINE_BYTES } from './line.ts';

export interface AuditVerifyOptions {
  /**
   * A head that the log once had, kept where whoever can write the log cannot: without it a log that was
   * cut off at the end of a line, or written anew from some line to the end, cannot be told from a true one.
   */
  readonly head?: AuditHead | undefined;
}

export type AuditVerdict =
  | { readonly ok: true; readonly lines: number; readonly head: AuditHead }
  | {
      readonly ok: false;
      /** The first line at fault, counted from 1. Of a last line but one, it may be the last. */
      readonly line: number;
      readonly fault: AuditFault;
      readonly message: string;
    };

/**
 * A log that is being written may end in half a line, which is a fault here: verify a copy, or once
 * more.
 *
 * @throws {StoreError} if the file cannot be read.
 */
export async function verifyAuditLog(
  path: string,
  options: AuditVerifyOptions = {}
): Promise<AuditVerdict> {
  const check = new ChainCheck(BEGINNING, options.head);
  const fault = await firstFault(path, check).catch((error: Error) => {
    throw new StoreError(`cannot read ${path}: ${error.message}`, { cause: error });
  });
  if (fault !== undefined) return { ok: false, ...fault };
  return { ok: true, lines: check.lines, head: check.head };
}

async function firstFault(path: string, check: ChainCheck): Promise<ChainFault | undefined> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    let start = 0;
    for (let end = bytes.indexOf(LINE_FEED); end >= 0; end = bytes.indexOf(LINE_FEED, start)) {
      const fault = check.push(bytes.subarray(start, end));
      if (fault !== undefined) return fault;
      start = end + 1;
    }
    rest = bytes.subarray(start);
    // No need to see the end of a line that is too long.
    if (rest.length > MAX_LINE_BYTES) return check.push(rest);
  }
  if (check.lines === 0 && rest.length === 0) {
    return { line: 1, fault: 'truncated', message: 'it is empty, and an audit log never is' };
  }
  return check.end(rest.length);
}

const LINE_FEED = 0x0a;
