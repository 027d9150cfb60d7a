/**
 * The directory of a gateway's state, which only its owner may use.
 * @module
 */
import { mkdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { EnvironmentError } from '../errors.ts';

/**
 * Makes the directory with mode 0700 if it is not there, and changes nothing in one that is.
 *
 * @throws {EnvironmentError} if it is not there and cannot be made, if it belongs to another user than that of this
 *   process, or if others than its owner may use it.
 */
export async function preparePrivateDirectory(path: string): Promise<void> {
  await attempt(`the state directory ${path} cannot be made`, () => makeDirectory(path));
  await checkOwner(path);
}

/** Does what `use` does. @throws {EnvironmentError} that begins with the fault, with the reason of the system in words. */
export async function attempt<T>(fault: string, use: () => Promise<T>): Promise<T> {
  try {
    return await use();
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    throw new EnvironmentError(`${fault}: ${REASONS[code ?? ''] ?? message}`, { cause });
  }
}

/** Whether there is a directory; a link that leads nowhere is none. */
export async function isDirectory(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch (error) {
    // It is not there, or a link that leads nowhere, which a rename replaces.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

async function checkOwner(path: string): Promise<void> {
  // Windows has neither owners nor modes of this kind.
  const user = process.getuid?.();
  if (user === undefined) return;
  const { uid, mode: typeAndMode } = await stat(path);
  // Root may use every directory, but the owner of this one could read the keys.
  if (uid !== user) {
    throw new EnvironmentError(
      `the state directory ${path} belongs to user ${uid}, and the gateway runs as user ${user}: run it as user ${uid}, or chown -R ${user} ${path}`
    );
  }
  // The mode is not changed here: the path may be a directory of the system, by mistake.
  const mode = typeAndMode & 0o777;
  if ((mode & OTHERS) === 0) return;
  const octal = mode.toString(8).padStart(4, '0');
  throw new EnvironmentError(
    `the state directory ${path} is open to others (mode ${octal}): chmod 700 ${path}`
  );
}

/**
 * Makes a directory and those above it. Node's own `recursive` never ends where a file system takes no
 * directories and says so by ENOENT, as /proc does.
 */
async function makeDirectory(path: string): Promise<void> {
  if (await isDirectory(path)) return;
  const parent = dirname(path);
  if (parent !== path) await makeDirectory(parent);
  try {
    await mkdir(path, { mode: 0o700 });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // Another made it at the same time.
    if (code === 'EEXIST' && (await isDirectory(path))) return;
    if (code !== 'ENOENT') throw error;
    throw new Error(`${parent} takes no directories`, { cause: error });
  }
}

/** Bits of a mode: group and others may read, write or enter. */
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
