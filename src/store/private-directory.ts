/**
 * The state directory of a gateway, which only its owner may use.
 * @module
 */
import { mkdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { EnvironmentError } from '../errors.ts';

/**
 * Makes the directory with mode 0700 if it does not exist, and changes nothing if it does.
 *
 * @throws {EnvironmentError} if it does not exist and cannot be made, belongs to another user than that of this process,
 *   or may be used by others than its owner.
 */
export async function preparePrivateDirectory(path: string): Promise<void> {
  await attempt(`the state directory ${path} cannot be made`, () => makeDirectory(path));
  await checkOwner(path);
}

/**
 * Calls `use`.
 *
 * @throws {EnvironmentError} if it fails; the message is the fault and the reason of the system in words.
 */
export async function attempt<T>(fault: string, use: () => Promise<T>): Promise<T> {
  try {
    return await use();
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    throw new EnvironmentError(`${fault}: ${REASONS[code ?? ''] ?? message}`, { cause });
  }
}

/** Whether there is a directory at `path`; false for a dangling symbolic link. */
export async function isDirectory(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch (error) {
    // Nothing is there, or a dangling link, which a rename replaces.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

async function checkOwner(path: string): Promise<void> {
  // Windows has no such owners and modes.
  const user = process.getuid?.();
  if (user === undefined) return;
  const { uid, mode: typeAndMode } = await stat(path);
  // Root may use any directory, but then its owner could read the keys.
  if (uid !== user) {
    throw new EnvironmentError(
      `the state directory ${path} belongs to user ${uid}, and the gateway runs as user ${user}: run it as user ${uid}, or chown -R ${user} ${path}`
    );
  }
  // The mode is not changed, because the path may be a system directory by mistake.
  const mode = typeAndMode & 0o777;
  if ((mode & OTHERS) === 0) return;
  const octal = mode.toString(8).padStart(4, '0');
  throw new EnvironmentError(
    `the state directory ${path} is open to others (mode ${octal}): chmod 700 ${path}`
  );
}

/**
 * Makes a directory and its parents. Node's `recursive` never ends on a file system such as /proc, which reports ENOENT
 * because it does not support new directories.
 */
async function makeDirectory(path: string): Promise<void> {
  if (await isDirectory(path)) return;
  const parent = dirname(path);
  if (parent !== path) await makeDirectory(parent);
  try {
    await mkdir(path, { mode: 0o700 });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // Another process made it at the same time.
    if (code === 'EEXIST' && (await isDirectory(path))) return;
    if (code !== 'ENOENT') throw error;
    throw new Error(`${parent} takes no directories`, { cause: error });
  }
}

/** The mode bits that let group and others read, write or enter. */
const OTHERS = 0o077;
const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'it does not exist',
  EACCES: 'this user may not',
  EPERM: 'this user may not',
  EISDIR: 'it is a directory',
  ENOTDIR: 'a part of the path is a file',
  EEXIST: 'it is a file',
  ENOSPC: 'the disk is full',
  EROFS: 'the disk is read-only',
};
