/**
 * Finds files of this package, wherever this code is: in `src/`, built in `dist/`, or bundled.
 * @module
 */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { EnvironmentError } from '../errors.ts';

/**
 * Returns the absolute path of a file of the package.
 *
 * @param name its path in the package, for example `schemas/cloud.json`
 * @throws {EnvironmentError} if this code is in no package.
 */
export function packageFile(name: string): string {
  const here = dirname(fileURLToPath(import.meta.url));
  for (let directory = here; ; directory = dirname(directory)) {
    if (existsSync(join(directory, 'package.json'))) return join(directory, name);
    if (directory === dirname(directory)) {
      throw new EnvironmentError(`${here} is in no package, so that there is no ${name}`);
    }
  }
}
