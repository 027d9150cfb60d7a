/**
 * Reads the files that a configuration names. An error is one sentence with the path and the reason.
 * @module
 */
import { readFileSync, statSync } from 'node:fs';
import { ConfigError, EnvironmentError } from 'virtual-presence/errors';

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
};
