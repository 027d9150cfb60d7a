/**
 * Verifies a complete audit log in bounded memory.
 * @module
 */
import { createReadStream } from 'node:fs';
import { StoreError } from '../errors.ts';
import { type AuditFault, ChainCheck, type ChainFault } from './chain.ts';
import { type AuditHead, BEGINNING, MAX_LINE_BYTES } from './line.ts';

export interface AuditVerifyOptions {
  /**
   * A head that the log had before, kept where nobody who can write the log can change it. Without it, a log that was
   * truncated at the end of a line, or written again from some line on, is not detected.
   */
  readonly head?: AuditHead | undefined;
}

export type AuditVerdict =
  | { readonly ok: true; readonly lines: number; readonly head: AuditHead }
  | {
      readonly ok: false;
      /** The first faulty line, from 1. If the line before the last one was changed, this may be the last one. */
      readonly line: number;
      readonly fault: AuditFault;
      readonly message: string;
    };

/**
 * Verifies a log. A log that is being written may end in an incomplete line, which is a fault here: verify a copy, or
 * try again.
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
    // The line is already too long, so its end does not matter.
    if (rest.length > MAX_LINE_BYTES) return check.push(rest);
  }
  if (check.lines === 0 && rest.length === 0) {
    return { line: 1, fault: 'truncated', message: 'it is empty, and an audit log never is' };
  }
  return check.end(rest.length);
}

const LINE_FEED = 0x0a;
