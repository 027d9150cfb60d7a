/**
 * Reads the end of an audit log: where the next line goes, and whether the last ones hang together.
 * @module
 */
import type { FileHandle } from 'node:fs/promises';
import { AuditError } from '../errors.ts';
import { ChainCheck } from './chain.ts';
import { type AuditHead, BEGINNING, LINE_START, MAX_LINE_BYTES } from './line.ts';

export interface Tail {
  readonly head: AuditHead;
  /** Bytes of whole lines, from the beginning of the file. */
  readonly intactBytes: number;
  /** Bytes of an unfinished line behind them. */
  readonly tornBytes: number;
}

/** @throws {AuditError} if what is there was not left by a log, be it after a crash. */
export async function readTail(handle: FileHandle, path: string): Promise<Tail> {
  const { size } = await handle.stat();
  if (size === 0) {
    throw new AuditError(
      `${path} is empty, and an audit log never is: its lines were lost. Put a copy in its place; move it away only to begin a new log`
    );
  }
  const bytes = Buffer.alloc(Math.min(size, TAIL_BYTES));
  await readAll(handle, bytes, size - bytes.length, path);
  const isWhole = bytes.length === size;
  // The first line of a part may be half a line.
  const start = isWhole ? 0 : bytes.indexOf(LINE_FEED) + 1;
  const end = bytes.lastIndexOf(LINE_FEED) + 1;
  const torn = bytes.subarray(end);
  if (torn.length > MAX_LINE_BYTES || !isTornLine(torn)) {
    throw new AuditError(`${path} is no audit log, or its last line was changed`);
  }
  const check = new ChainCheck(isWhole ? BEGINNING : undefined);
  for (let at = start; at < end; ) {
    const lineEnd = bytes.indexOf(LINE_FEED, at);
    if (check.push(bytes.subarray(at, lineEnd)) !== undefined) throw notWhole(path);
    at = lineEnd + 1;
  }
  // A part without a whole line has one that is too long.
  if (check.end() !== undefined || (check.lines === 0 && !isWhole)) throw notWhole(path);
  return { head: check.head, intactBytes: size - torn.length, tornBytes: torn.length };
}

async function readAll(
  handle: FileHandle,
  bytes: Buffer,
  position: number,
  path: string
): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const { bytesRead } = await handle.read(bytes, at, bytes.length - at, position + at);
    if (bytesRead === 0) throw new AuditError(`${path} became shorter while it was read`);
    at += bytesRead;
  }
}

/** Anything else may be a file of somebody else's, of which not a byte is to be cut off. */
function isTornLine(bytes: Buffer): boolean {
  const text = bytes.toString('latin1', 0, LINE_START.length);
  // A file system may bring back the length of a file without what was in it.
  return LINE_START.startsWith(text) || bytes.every((byte) => byte === 0);
}

function notWhole(path: string): AuditError {
  return new AuditError(
    `the last lines of ${path} are not those that were written: verify it, and move it away`
  );
}

const LINE_FEED = 0x0a;
/** Holds a few lines, however long they are. */
const TAIL_BYTES: number = 4 * MAX_LINE_BYTES;
