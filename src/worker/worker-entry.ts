/**
 * Finds the program that a worker's process runs: `worker-main` beside this file, as TypeScript, ESM or CommonJS.
 * @module
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ConfigError } from '../errors.ts';

/**
 * Returns the path of the program.
 *
 * @param given the option `workerMain`; default: the library's own program
 * @throws {ConfigError} if there is no such file.
 */
export function findWorkerMain(given: string | URL | undefined): string {
  if (given !== undefined) return checkFile(given);
  // The build makes this a URL in ESM and a path in CommonJS; it is undefined if a bundler has made CommonJS of it.
  const here = import.meta.url as string | undefined;
  try {
    return createRequire(here!).resolve(`./worker-main${extname(here!)}`);
  } catch (cause) {
    const message =
      'the program of the workers is not beside this library, for example because a bundler has moved the library: ' +
      'build a second bundle of virtual-presence/worker-main, and pass its path';
    throw new ConfigError('workerMain', message, { cause });
  }
}

function checkFile(given: string | URL): string {
  const path = String(given).startsWith('file:') ? fileURLToPath(given) : String(given);
  if (!existsSync(path)) throw new ConfigError('workerMain', `there is no file ${path}`);
  return path;
}
