/**
 * The files of a gateway: what it was given, and the directory in which it keeps its keys. A fault
 * is one sentence with the path and the reason.
 * @module
 */
import { existsSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
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

/** A directory for its owner only. */
export class StateDirectory {
  readonly path: string;

  /** @throws {EnvironmentError} if it is not there and cannot be made. */
  constructor(path: string) {
    this.path = path;
    attempt(`the state directory ${path} cannot be made`, () => makeDirectory(path));
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
   * Writes the whole file or, after a crash, nothing.
   *
   * @throws {EnvironmentError} if it cannot be written.
   */
  write(name: string, text: string): void {
    const path = this.pathOf(name);
    attempt(`${path} cannot be written`, () => {
      writeFileSync(`${path}.new`, text, { mode: 0o600, flush: true });
      renameSync(`${path}.new`, path);
    });
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
