/**
 * Reads the end of an audit log: finds where the next line goes, and checks that the last lines are consistent.
 * @module
 */
import type { FileHandle } from 'node:fs/promises';
import { AuditError } from '../errors.ts';
import { ChainCheck } from './chain.ts';
import { type AuditHead, BEGINNING, LINE_START, MAX_LINE_BYTES } from './line.ts';

export interface Tail {
  readonly head: AuditHead;
  /** The size of all complete lines, in bytes. */
  readonly intactBytes: number;
  /** The size of an unfinished line after them, in bytes. */
  readonly tornBytes: number;
}

/** @throws {AuditError} if the content was not written by an audit log, taking a crash into account. */
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
  // If only a part of the file was read, its first line may be incomplete.
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
  // If that part has no complete line, a line is too long.
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

/** Whether a crash may have left these bytes. Others may belong to a foreign file, which must not be truncated. */
function isTornLine(bytes: Buffer): boolean {
  const text = bytes.toString('latin1', 0, LINE_START.length);
  // After a crash, a file system may restore the length of a file but not its content.
  return LINE_START.startsWith(text) || bytes.every((byte) => byte === 0);
}

function notWhole(path: string): AuditError {
  return new AuditError(
    `the last lines of ${path} are not those that were written: verify it, and move it away`
  );
}

const LINE_FEED = 0x0a;
/** Enough for several lines of the maximum length. */
const TAIL_BYTES: number = 4 * MAX_LINE_BYTES;
