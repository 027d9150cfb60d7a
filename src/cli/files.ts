/**
 * Reads and writes the files that a configuration names. An error is one sentence with the path and the reason.
 * @module
 */
import {
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { ConfigError, EnvironmentError } from '../errors.ts';

/** @throws {EnvironmentError} if the file cannot be read. */
export function readText(what: string, path: string): string {
  return attempt(`${what} ${path} cannot be read`, () => {
    const stat = statSync(path);
    // Reading a FIFO or a device may never end.
    if (!stat.isFile() && !stat.isDirectory()) throw new Error('it is not a regular file');
    return readFileSync(path, 'utf8');
  });
}

/**
 * @param key the key of the configuration, for the message.
 * @throws {EnvironmentError} if the file cannot be read.
 * @throws {ConfigError} if the file is empty.
 */
export function readPassphrase(key: string, path: string): string {
  const passphrase = readText('the passphrase file', path).trimEnd();
  if (passphrase !== '') return passphrase;
  throw new ConfigError(key, `the passphrase file ${path} is empty`);
}

/**
 * Returns undefined if there is no such file.
 *
 * @param key the key of the configuration, for the message.
 * @throws {EnvironmentError} if the file cannot be read.
 * @throws {ConfigError} if other users may read it.
 */
export function readSecret(key: string, path: string): string | undefined {
  if (!existsSync(path)) return undefined;
  const text = readText('the password file', path).trimEnd();
  if ((statSync(path).mode & 0o077) === 0) return text;
  throw new ConfigError(key, `other users may use ${path}: give it the mode 0600`);
}

/**
 * Creates a file that only its owner may read, with one line; one that exists already stays as it is.
 *
 * @throws {EnvironmentError} if it cannot be written.
 */
export function writeSecret(what: string, path: string, text: string): void {
  if (existsSync(path)) return;
  attempt(`${what} ${path} cannot be written`, () => {
    writeFileSync(path, `${text}\n`, { mode: 0o600, flag: 'wx' });
  });
}

/**
 * Makes a directory and those above it; one that exists stays as it is.
 *
 * @throws {EnvironmentError} if it cannot be made.
 */
export function makeDirectory(path: string): void {
  attempt(`the directory ${path} cannot be made`, () => mkdirSync(path, { recursive: true }));
}

/**
 * Writes a file that does not exist yet.
 *
 * @param force whether one that exists is replaced
 * @param mode default: as the process makes files
 * @throws {EnvironmentError} if it cannot be written, or exists.
 */
export function writeNewFile(
  path: string,
  text: string,
  { force, mode = 0o666 }: { readonly force: boolean; readonly mode?: number | undefined }
): void {
  attempt(`${path} cannot be written`, () => {
    // A file that exists keeps its mode, so it is removed first.
    if (force) rmSync(path, { force: true });
    writeFileSync(path, text, { flag: 'wx', mode });
  });
}

/**
 * Replaces the text of a file that this function has written before, at once for its readers.
 *
 * @param key the key of the configuration, for the message.
 * @throws {EnvironmentError} if it cannot be read or written.
 * @throws {ConfigError} if somebody else has written it.
 */
export function replaceFile(key: string, path: string, text: string): void {
  if (existsSync(path) && !readText('the file', path).startsWith(WRITTEN_HERE)) {
    throw new ConfigError(key, `${path} has other lines: give the path of a file of its own`);
  }
  attempt(`${path} cannot be written`, () => {
    writeFileSync(`${path}.new`, `${WRITTEN_HERE}\n${text}`);
    renameSync(`${path}.new`, path);
  });
}

const WRITTEN_HERE = '# Written by the gateway, which replaces it at every change.';

function attempt<T>(fault: string, use: () => T): T {
  try {
    return use();
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    throw new EnvironmentError(`${fault}: ${REASONS[code ?? ''] ?? message}`, { cause });
  }
}

const REASONS: Readonly<Record<string, string>> = {
  EEXIST: 'there is a file already',
  ENOENT: 'it does not exist',
  EACCES: 'this user may not',
  EPERM: 'this user may not',
  EISDIR: 'it is a directory',
  ENOTDIR: 'a part of the path is a file',
};
