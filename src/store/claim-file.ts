/**
 * Lock files of earlier versions. A file has one line for each claim, and the lock belongs to the first claim that is
 * not released and whose process still runs. These files are only read during an upgrade, so that a gateway of an
 * earlier version that still runs on this machine keeps its lock. They are no longer written, because such a process
 * is not visible from another container.
 * @module
 */
import { randomUUID } from 'node:crypto';
import { constants, readFileSync } from 'node:fs';
import { type FileHandle, open, stat, unlink } from 'node:fs/promises';
import { StoreError } from '../errors.ts';

interface Claim {
  readonly id: string;
  readonly pid: number;
  /** Distinguishes a process from a later one with the same id. */
  readonly startedAt: string;
}

/**
 * Removes the lock file of an earlier version. It first adds its own claim, so that a process of an earlier version
 * that starts at the same moment finds the lock held. It does nothing if there is no file.
 *
 * @throws {StoreError} if a running process holds the lock, or there is a symbolic link at `path`.
 */
export async function removeClaimFile(path: string): Promise<void> {
  // No version makes a symbolic link, and the target of one must not be written to.
  const flags = constants.O_RDWR | constants.O_APPEND | constants.O_NOFOLLOW;
  const handle = await open(path, flags).catch((error: NodeJS.ErrnoException) => {
    // FreeBSD reports EMLINK.
    if (error.code !== 'ELOOP' && error.code !== 'EMLINK') return ignoreGone(error);
    throw new StoreError(`${path} is a symbolic link, and no lock: remove it`, { cause: error });
  });
  if (handle === undefined) return;
  try {
    const claim = { id: randomUUID(), pid: process.pid, startedAt: startOf(process.pid) ?? '' };
    await handle.appendFile(lineOf(claim));
    const claims = await readClaims(handle);
    const holder = claims.find(({ id, pid, startedAt }) => {
      return id === claim.id || startOf(pid) === startedAt;
    });
    if (holder?.id !== claim.id) {
      await handle.appendFile(lineOf({ released: claim.id }));
      throw new StoreError(
        `${path} is held by process ${holder?.pid}, which runs an earlier version: stop it first`
      );
    }
    // Only a holder of the lock could replace the file, and all of them had ended before this claim won.
    const current = await stat(path).catch(ignoreGone);
    if (current?.ino === (await handle.stat()).ino) await unlink(path);
  } finally {
    await handle.close();
  }
}

/** The line begins with a line feed too, so that it is not joined to a line that a crash has torn. */
function lineOf(value: Claim | { released: string }): string {
  return `\n${JSON.stringify(value)}\n`;
}

async function readClaims(handle: FileHandle): Promise<Claim[]> {
  const bytes = Buffer.alloc((await handle.stat()).size);
  const { bytesRead } = await handle.read(bytes, 0, bytes.length, 0);
  const claims = new Map<string, Claim>();
  for (const line of bytes.toString('utf8', 0, bytesRead).split('\n')) {
    const value = parseLine(line);
    if (value === undefined) continue;
    if ('released' in value) claims.delete(value.released);
    else claims.set(value.id, value);
  }
  return [...claims.values()];
}

function parseLine(line: string): Claim | { released: string } | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null
      ? (value as Claim | { released: string })
      : undefined;
  } catch {
    return undefined;
  }
}

/** Returns a text for the start of process `pid` that no other process has; undefined if the process has ended. */
function startOf(pid: number): string | undefined {
  try {
    if (process.platform !== 'linux') {
      process.kill(pid, 0);
      return '';
    }
    // proc(5): field 2, the name, ends at the last ')'; field 3 is the state and field 22 the start time.
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
    return fields[0] === 'Z' || fields[0] === 'X' ? undefined : `${boot}/${fields[19]}`;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM' ? '' : undefined;
  }
}

/** Ignores that another process has removed the file or replaced it by a lock of this version. */
function ignoreGone(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT' && error.code !== 'EISDIR') throw error;
}
