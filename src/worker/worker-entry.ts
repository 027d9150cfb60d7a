/**
 * Finds the program that a worker's process runs: `worker-main`, which lies beside this file, whether that is a
 * source file or was built as ESM or as CommonJS.
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
 * @param given what the host says, `WorkerPoolOptions.workerMain`; by default the library's own program is looked for
 * @throws {ConfigError} if there is no such file.
 */
export function findWorkerMain(given: string | URL | undefined): string {
  if (given !== undefined) return checkFile(given);
  // A URL, or in CommonJS a path, by the build; undefined where a bundler has made CommonJS of the library.
  const here = import.meta.url as string | undefined;
  try {
    return createRequire(here!).resolve(`./worker-main${extname(here!)}`);
  } catch (cause) {
    const message =
      'the program of the workers is not beside this library, as where a bundler has moved the library: ' +
      'bundle virtual-presence/worker-main as an entry of its own, and give its path';
    throw new ConfigError('workerMain', message, { cause });
  }
}

function checkFile(given: string | URL): string {
  const path = String(given).startsWith('file:') ? fileURLToPath(given) : String(given);
  if (!existsSync(path)) throw new ConfigError('workerMain', `there is no file ${path}`);
  return path;
}
