/**
 * A server that listens on a unix socket which never has another mode than it should, not even for a moment.
 *
 * `bind` creates the file with the umask of the whole process, and nothing changes a mode before the file is there. So
 * the socket is bound in a new directory of mode 0700, gets its mode there, and is then linked to its path. A link
 * replaces nothing. The socket of a dead process is removed before, by one process at a time.
 * @module
 */
import { chmod, constants, link, lstat, mkdtemp, rm, stat, unlink } from 'node:fs/promises';
import { connect, type Server } from 'node:net';
import { dirname, join } from 'node:path';
import { FileLock } from '../../store/lock.ts';
import { hasCode, listenError } from '../node/system-error.ts';

/**
 * Listens at the path. Whoever may write to its directory can replace the socket by their own later, so a directory that
 * everybody may write to must have the sticky bit, as `/tmp` has it. Its owner and its group are trusted.
 *
 * @param listen lets the server listen at the path that it is given
 * @returns a function that removes the file, unless another one is there by then
 * @throws system errors as `listen` has: EADDRINUSE if there is a file that is not the socket of a dead process,
 *   EPERM if everybody may write to the directory and it has no sticky bit, or if the socket was replaced while it was
 *   made; ENAMETOOLONG, ENOENT and EACCES of the directory.
 */
export async function listenAtPath(
  server: Server,
  path: string,
  mode: number,
  listen: (path: string) => Promise<void>
): Promise<() => Promise<void>> {
  try {
    await checkDirectory(dirname(path));
    return await listenIn(await mkdtemp(join(dirname(path), '.vp-')), path, mode, listen);
  } catch (error) {
    server.close();
    const { code, syscall, cause } = error as NodeJS.ErrnoException;
    const reason = syscall === 'listen' ? cause : error;
    throw listenError(String(code), 'listen', { address: path, cause: reason });
  }
}

async function listenIn(
  directory: string,
  path: string,
  mode: number,
  listen: (path: string) => Promise<void>
): Promise<() => Promise<void>> {
  try {
    const own = join(directory, 's');
    for (const each of [own, path]) {
      // A longer path would be cut off without an error.
      if (Buffer.byteLength(each) > MAX_PATH_BYTES) {
        throw listenError('ENAMETOOLONG', 'listen', { address: each });
      }
    }
    await listen(own);
    const made = await lstat(own, { bigint: true });
    // `chmod` would follow a symbolic link that somebody has put there.
    if (!made.isSocket()) throw replacedError(own);
    await chmod(own, mode);
    if (!isSame(made, await lstat(own, { bigint: true }))) throw replacedError(own);
    await moveTo(path, own);
    return async () => {
      const found = await lstat(path, { bigint: true }).catch(() => undefined);
      if (isSame(made, found)) await unlink(path).catch(() => {});
    };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** @throws {Error} EPERM, if everybody may rename and remove the files of others in the directory. */
async function checkDirectory(directory: string): Promise<void> {
  const { mode } = await stat(directory);
  if ((mode & constants.S_IWOTH) === 0 || (mode & STICKY) !== 0) return;
  const text = `everybody may write to the directory ${directory}: remove that permission, or set the sticky bit`;
  throw listenError('EPERM', 'listen', { address: directory, cause: new Error(text) });
}

function replacedError(own: string): Error {
  const cause = new Error(`somebody has replaced the socket ${own} while it was made`);
  return listenError('EPERM', 'listen', { address: own, cause });
}

interface FileId {
  readonly dev: bigint;
  readonly ino: bigint;
}

function isSame(made: FileId, found: FileId | undefined): boolean {
  return found?.ino === made.ino && found.dev === made.dev;
}

/** @throws {Error} EADDRINUSE, if something is at the path that is not dead. */
async function moveTo(path: string, own: string): Promise<void> {
  const isLinked = await link(own, path).then(() => true, unless('EEXIST'));
  if (isLinked || (await replace(path, own))) return;
  throw listenError('EADDRINUSE', 'listen', { address: path });
}

/**
 * Returns false if what is there is not dead, or another process was faster. Who removes a dead socket holds the lock, so that nobody removes one that
 * was made since they have looked.
 */
async function replace(path: string, own: string): Promise<boolean> {
  const lock = await FileLock.acquire(`${path}.lock`).catch((cause: unknown) => {
    throw listenError('EADDRINUSE', 'listen', { address: path, cause });
  });
  try {
    if (!(await isDead(path))) return false;
    await unlink(path).catch(unless('ENOENT'));
    return await link(own, path).then(() => true, unless('EEXIST'));
  } finally {
    await lock.release();
  }
}

/** Whether it is a unix socket whose process is gone, or nothing at all. */
async function isDead(path: string): Promise<boolean> {
  const found = await lstat(path).catch(unless('ENOENT'));
  if (found === false) return true;
  if (!found.isSocket()) return false;
  return new Promise((resolve) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve(false);
    });
    // EAGAIN comes from a process with many waiting connections, EACCES of one that is not known.
    socket.on('error', (error) => {
      resolve(hasCode(error, 'ECONNREFUSED') || hasCode(error, 'ENOENT'));
    });
  });
}

/** Returns a handler that turns this error into `false`, and throws the others. */
function unless(code: string): (error: unknown) => false {
  return (error) => {
    if (hasCode(error, code)) return false;
    throw error;
  };
}

/** The bit of a mode, which Node has no constant for. In such a directory only the owner of a file may rename it. */
const STICKY = 0o1000;
/** The longest path of a unix socket: `sun_path` without its last byte, see unix(7). */
const MAX_PATH_BYTES = 107;
