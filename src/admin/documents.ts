/**
 * Reads the documents that the package ships in its folder `schemas`.
 * @module
 */
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { EnvironmentError } from '../errors.ts';

/**
 * Returns a document by its name without `.json`. The package finds its folder by its own name, so that it makes no
 * difference whether the sources or what is built of them run.
 *
 * @throws {EnvironmentError} if the file is not there, as in a host program that bundles the package.
 */
export async function documentOf(name: string): Promise<object> {
  try {
    const path = createRequire(import.meta.url).resolve(`virtual-presence/schemas/${name}.json`);
    return JSON.parse(await readFile(path, 'utf8')) as object;
  } catch (cause) {
    const message = `the document ${name}.json of the package virtual-presence cannot be read`;
    throw new EnvironmentError(message, { cause });
  }
}
