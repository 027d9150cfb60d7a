/**
 * A lock between the processes of one machine, without native code. The lock is a directory with the listening unix
 * socket of its holder. The kernel closes the socket when the holder ends, however it ends. Connections go through the
 * file system, so the lock also works across PID and network namespaces, and so between containers that share the
 * directory. It does not work between machines that share a network file system.
 *
 * 1. A process makes a directory and in it a listening socket, both with random names. So a socket at the lock's path
 *    either listens, or its process has ended and it never listens again.
 * 2. The process renames its directory to the path of the lock. The kernel does so atomically, and only if there is no
 *    directory or an empty one at the path. Of any number of processes, one succeeds.
 * 3. The others connect to the socket that is there. If it answers, the lock is held. If not, its holder has ended, so
 *    they remove the socket and try step 2 again. No other socket ever has the same name, so a slow process cannot remove
 *    the socket of a new holder.
 *
 * A process that is killed during step 1 leaves the directory `<path>.<random name>`, which may be removed.
 * @module
 */
import { randomBytes } from 'node:crypto';
import { constants, existsSync } from 'node:fs';
import { chmod, lstat, mkdir, open, readdir, rename, rm, rmdir, unlink } from 'node:fs/promises';
import { connect, createServer, type Server } from 'node:net';
import { dirname, join } from 'node:path';
import { StoreError } from '../errors.ts';
import { removeClaimFile } from './claim-file.ts';

/** A lock that this process holds. */
export class FileLock {
  readonly #path: string;
  readonly #name: string;
  readonly #server: Server;

  private constructor(path: string, name: string, server: Server) {
    this.#path = path;
    this.#name = name;
    this.#server = server;
  }

  /**
   * Takes the lock.
   *
   * @param path of the directory, which is made here and removed by `release`
   * @throws {StoreError} if another process or this one holds the lock, something else is at `path`, the lock of
   *   another user's process may not be removed, or the file system does not support unix sockets.
   */
  static async acquire(path: string): Promise<FileLock> {
    const ownDirectory = `${path}.${randomName()}`;
    const name = `${process.pid}.${randomName()}`;
    let server: Server | undefined;
    await mkdir(ownDirectory, { mode: 0o700 });
    try {
      server = await listen(ownDirectory, name);
      await chmod(join(ownDirectory, name), 0o600);
      await moveTo(path, ownDirectory).catch(async (error: NodeJS.ErrnoException) => {
        throw (await refusalByOwner(path, error)) ?? error;
      });
      return new FileLock(path, name, server);
    } catch (error) {
      server?.close();
      await rm(ownDirectory, { recursive: true, force: true });
      throw error;
    }
  }

  /** Releases the lock, even if the directory cannot be removed. */
  async release(): Promise<void> {
    await unlink(join(this.#path, this.#name)).catch(() => {});
    await new Promise((resolve) => this.#server.close(resolve));
    // This fails if the next process already has the lock.
    await rmdir(this.#path).catch(() => {});
  }
}

/** Resolves when `ownDirectory` has been renamed to `path`. */
async function moveTo(path: string, ownDirectory: string): Promise<void> {
  for (let round = 0; round < MAX_ROUNDS; round++) {
    try {
      await rename(ownDirectory, path);
      return;
    } catch (error) {
      switch ((error as NodeJS.ErrnoException).code) {
        case 'ENOTEMPTY':
        case 'EEXIST':
          await removeStale(path);
          break;
        case 'ENOTDIR':
          await removeClaimFile(path);
          break;
        default:
          throw error;
      }
    }
  }
  throw new StoreError(
    `${path} was taken and left by other processes ${MAX_ROUNDS} times in a row: try again`
  );
}

/** Returns an error that names the owner of a lock that this process may not touch; undefined for another cause. */
async function refusalByOwner(
  path: string,
  error: NodeJS.ErrnoException
): Promise<StoreError | undefined> {
  if (error.code !== 'EACCES' && error.code !== 'EPERM') return undefined;
  const owner = (await lstat(path).catch(() => undefined))?.uid;
  if (owner === undefined) return undefined;
  return new StoreError(
    `the lock ${path} belongs to user ${owner}, and user ${process.getuid?.()} may not take it over (${error.code}): make sure that no process of user ${owner} has it open, then remove ${path}`,
    { cause: error }
  );
}

/** @throws {StoreError} if the lock is held, or the directory contains something else. */
async function removeStale(path: string): Promise<void> {
  const names = await readdir(path).catch((error: NodeJS.ErrnoException) => {
    // The lock was released, or there is a lock file of an earlier version; the next attempt handles both.
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return [];
    throw error;
  });
  for (const name of names) {
    const pid = SOCKET_NAME.exec(name)?.[1];
    if (pid === undefined) {
      throw new StoreError(`${path} holds ${name}, which is not part of a lock: move it away`);
    }
    if (await isAnswered(path, name)) {
      throw new StoreError(
        `${path} is held by process ${pid}, by the numbers of its container: stop it first`
      );
    }
    await unlink(join(path, name)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT' && error.code !== 'ENOTDIR') throw error;
    });
  }
}

async function listen(directory: string, name: string): Promise<Server> {
  const server = createServer((socket) => socket.destroy());
  // A lock must not keep the process alive.
  server.unref();
  const listening = withSocketPath(directory, name, async (path) => {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      // Without `exclusive`, the primary of node:cluster would listen instead of its worker.
      server.listen({ path, exclusive: true }, resolve);
    });
    server.removeAllListeners('error');
    // Emitted when a connection cannot be accepted, for example for lack of file descriptors.
    server.on('error', () => {});
  });
  await listening.catch((error: NodeJS.ErrnoException) => {
    if (!NO_SOCKETS.has(error.code ?? '')) throw error;
    throw new StoreError(
      `the file system of ${dirname(directory)} takes no unix sockets (${error.code}), which lock the files there: choose a directory of a local file system`,
      { cause: error }
    );
  });
  return server;
}

/**
 * Whether the process that made the socket still runs.
 *
 * @throws {Error} if that is unknown, for example because a permission is missing.
 */
async function isAnswered(directory: string, name: string): Promise<boolean> {
  const answered = withSocketPath(directory, name, (path) => {
    return new Promise<boolean>((resolve, reject) => {
      const socket = connect(path, () => {
        socket.destroy();
        resolve(true);
      });
      socket.on('error', reject);
    });
  });
  return answered.catch((error: NodeJS.ErrnoException) => {
    switch (error.code) {
      case 'ECONNREFUSED':
      // The socket was removed in the meantime.
      case 'ENOENT':
      case 'ENOTDIR':
        return false;
      // The process runs but has too many waiting connections.
      case 'EAGAIN':
        return true;
      default:
        throw error;
    }
  });
}

/**
 * Calls `use` with a path that fits into the address of a unix socket (unix(7)). A path that is too long is replaced by
 * one through an open handle of the directory.
 */
async function withSocketPath<T>(
  directory: string,
  name: string,
  use: (path: string) => Promise<T>
): Promise<T> {
  const path = join(directory, name);
  if (Buffer.byteLength(path) <= MAX_SOCKET_PATH_BYTES) return use(path);
  if (!existsSync(HANDLES)) {
    throw new StoreError(
      `the path ${path} of a unix socket is longer than ${MAX_SOCKET_PATH_BYTES} bytes, and there is no ${HANDLES}: choose a shorter path`
    );
  }
  const handle = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    return await use(`${HANDLES}/${handle.fd}/${name}`);
  } finally {
    await handle.close();
  }
}

function randomName(): string {
  return randomBytes(9).toString('base64url');
}

/** The process id and the result of `randomName`. */
const SOCKET_NAME = /^(\d+)\.[\w-]{12}$/;
/** The size of `sun_path` (108 bytes on Linux, 104 on the BSDs and macOS) without the final zero. */
const MAX_SOCKET_PATH_BYTES: number = process.platform === 'linux' ? 107 : 103;
const HANDLES = '/proc/self/fd';
/** Errors of `bind` on a file system that does not support sockets. */
const NO_SOCKETS: ReadonlySet<string> = new Set([
  'EINVAL',
  'ENOSYS',
  'ENOTSUP',
  'EOPNOTSUPP',
  'EPERM',
]);
/** A round fails only because another process was faster. */
const MAX_ROUNDS = 1000;
