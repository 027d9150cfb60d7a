/**
 * The files of a gateway: what it was given, and the directory in which it keeps its keys. A fault
 * is one sentence with the path and the reason.
 * @module
 */
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { EnvironmentError } from 'virtual-presence';

/** @throws {EnvironmentError} if the file is not to be had. */
export function readText(what: string, path: string): string {
  return attempt(`${what} ${path} cannot be read`, () => {
    const stat = statSync(path);
    // Reading a FIFO or a device may never end.
    if (!stat.isFile() && !stat.isDirectory()) throw new Error('it is not a regular file');
    return readFileSync(path, 'utf8');
  });
}

/** A directory for the user of this process only. What its methods have done outlasts a crash. */
export class StateDirectory {
  readonly path: string;

  /**
   * @throws {EnvironmentError} if it is not there and cannot be made, if it belongs to another user than that of
   *   this process, or if others than its owner may use it.
   */
  constructor(path: string) {
    this.path = path;
    attempt(`the state directory ${path} cannot be made`, () => makeDirectory(path));
    // Windows has neither owners nor modes of this kind.
    const user = process.getuid?.();
    if (user === undefined) return;
    const { uid, mode: typeAndMode } = statSync(path);
    // Root may use every directory, but the owner of this one could read the keys.
    if (uid !== user) {
      throw new EnvironmentError(
        `the state directory ${path} belongs to user ${uid}, and the gateway runs as user ${user}: run it as user ${uid}, or chown -R ${user} ${path}`
      );
    }
    // The mode is not changed here: the path may be a directory of the system, by mistake.
    const mode = typeAndMode & 0o777;
    if ((mode & OTHERS) !== 0) {
      const octal = mode.toString(8).padStart(4, '0');
      throw new EnvironmentError(
        `the state directory ${path} is open to others (mode ${octal}): chmod 700 ${path}`
      );
    }
  }

  pathOf(name: string): string {
    return join(this.path, name);
  }

  has(name: string): boolean {
    return existsSync(this.pathOf(name));
  }

  /** @throws {EnvironmentError} if the file is not to be had. */
  read(name: string): string {
    return readText('the file', this.pathOf(name));
  }

  /**
   * Writes the whole file, for its owner only. After a crash the file is the one of before or the new one.
   *
   * @throws {EnvironmentError} if it cannot be written. In most cases the file is the one of before; it is the
   * new one if only the directory could not be synced.
   */
  write(name: string, text: string): void {
    const path = this.pathOf(name);
    attempt(`${path} cannot be written`, () => {
      const newPath = `${path}.new`;
      // What an interrupted write has left may be readable by others, or be a link: it is not written to.
      rmSync(newPath, { force: true });
      try {
        writeNew(newPath, text);
        renameSync(newPath, path);
      } catch (error) {
        rmSync(newPath, { force: true });
        throw error;
      }
      syncDirectory(this.path);
    });
  }

  /**
   * Renames a file, over another one if there is one.
   *
   * @throws {EnvironmentError} if that cannot be done.
   */
  rename(name: string, newName: string): void {
    attempt(`${this.pathOf(name)} cannot be renamed`, () => {
      renameSync(this.pathOf(name), this.pathOf(newName));
      syncDirectory(this.path);
    });
  }

  /**
   * Removes a file, if it is there.
   *
   * @throws {EnvironmentError} if it cannot be removed.
   */
  remove(name: string): void {
    attempt(`${this.pathOf(name)} cannot be removed`, () => {
      rmSync(this.pathOf(name), { force: true });
      syncDirectory(this.path);
    });
  }
}

/** Makes a file that is not there yet, and syncs it. */
function writeNew(path: string, text: string): void {
  const file = openSync(path, 'wx', 0o600);
  try {
    writeFileSync(file, text);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

/** Makes renames and removals in a directory durable. Windows cannot open a directory, and need not. */
function syncDirectory(path: string): void {
  if (process.platform === 'win32') return;
  const directory = openSync(path, 'r');
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}

/**
 * Makes a directory and those above it. Node's own `recursive` never ends where a file system takes no
 * directories and says so by ENOENT, as /proc does.
 */
function makeDirectory(path: string): void {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) return;
  const parent = dirname(path);
  if (parent !== path) makeDirectory(parent);
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new Error(`${parent} takes no directories`, { cause: error });
  }
}

function attempt<T>(fault: string, use: () => T): T {
  try {
    return use();
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    throw new EnvironmentError(`${fault}: ${REASONS[code ?? ''] ?? message}`, { cause });
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
