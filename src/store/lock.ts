/**
 * A lock between the processes of one machine, without native code: a directory that holds the listening
 * unix socket of the one process that has the lock. The kernel stops the listening when that process
 * ends, however it ends. A connection reaches the socket through the file system, so that it is answered
 * across PID and network namespaces too, and therefore between containers that share the directory. It
 * does not work between machines that share a file system over the network.
 *
 * 1. A process makes a directory and in it a listening socket, both under random names. A socket that can
 *    be seen at the lock's path is therefore one that listens, or one whose process has ended; the latter
 *    never listens again.
 * 2. It renames its directory to the path of the lock. The kernel does that in one step, and only if
 *    there is no directory at the path or an empty one. Of any number of processes one succeeds.
 * 3. Who does not succeed asks the socket that is there. If it answers, the lock is held. If not, its
 *    process has ended: the socket is removed, under its own name, which no other socket will ever have,
 *    and step 2 is tried again. A process that acts late on what it saw can thus remove nothing but what
 *    it saw.
 *
 * A process that is killed within step 1 leaves its directory, `<path>.<random name>`, which may be
 * removed.
 * @module
 */
import { randomBytes } from 'node:crypto';
import { constants, existsSync } from 'node:fs';
import { chmod, lstat, mkdir, open, readdir, rename, rm, rmdir, unlink } from 'node:fs/promises';
import { connect, createServer, type Server } from 'node:net';
import { dirname, join } from 'node:path';
import { StoreError } from '../errors.ts';
import { removeClaimFile } from './claim-file.ts';

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
   * @param path of the directory that is made, and removed by `release`
   * @throws {StoreError} if another process, or this one, holds the lock, if something else is at `path`,
   *   if what a process of another user has left there may not be removed, or if the file system takes no
   *   unix sockets.
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

  /** Frees the lock, even where the directory cannot be removed. */
  async release(): Promise<void> {
    await unlink(join(this.#path, this.#name)).catch(() => {});
    await new Promise((resolve) => this.#server.close(resolve));
    // It fails if the next process has the lock by now.
    await rmdir(this.#path).catch(() => {});
  }
}

/** Returns when `ownDirectory` is the one at `path`. */
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

/** Says whose the lock is that this process may not touch. Undefined if the error is about something else. */
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

/** @throws {StoreError} if the lock is held, or if the directory holds something else. */
async function removeStale(path: string): Promise<void> {
  const names = await readdir(path).catch((error: NodeJS.ErrnoException) => {
    // It was released, or is the lock file of an earlier version: the next attempt shows it.
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
  // A lock keeps no process alive.
  server.unref();
  const listening = withSocketPath(directory, name, async (path) => {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      // Without `exclusive`, a worker of node:cluster would have its primary listen in its place.
      server.listen({ path, exclusive: true }, resolve);
    });
    server.removeAllListeners('error');
    // A connection that could not be accepted, for example for want of file descriptors.
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
 * @throws {Error} if that cannot be found out, for example for want of permission.
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
      // It was removed meanwhile.
      case 'ENOENT':
      case 'ENOTDIR':
        return false;
      // Its process runs, but accepts nothing just now.
      case 'EAGAIN':
        return true;
      default:
        throw error;
    }
  });
}

/**
 * Calls `use` with a path of the socket that fits into a socket's address (unix(7)). A longer path is
 * replaced by one that begins at an open handle of the directory.
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

/** The number of the process, and what `randomName` returns. */
const SOCKET_NAME = /^(\d+)\.[\w-]{12}$/;
/** Of `sun_path` without its last zero: 108 bytes on Linux, 104 on the BSDs and macOS. */
const MAX_SOCKET_PATH_BYTES: number = process.platform === 'linux' ? 107 : 103;
const HANDLES = '/proc/self/fd';
/** What `bind` says where no socket can be made. */
const NO_SOCKETS: ReadonlySet<string> = new Set([
  'EINVAL',
  'ENOSYS',
  'ENOTSUP',
  'EOPNOTSUPP',
  'EPERM',
]);
/** Each round is lost to another process only. */
const MAX_ROUNDS = 1000;
