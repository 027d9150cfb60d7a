/**
 * What a user gives a command on standard input, or in a file.
 * @module
 */

import { usageError } from './exit.ts';
import { readText } from './files.ts';
import type { Io } from './io.ts';

/** Returns the text of standard input. @throws {CommandError} if it is longer than a gateway takes. */
export async function readInput({ stdin }: Pick<Io, 'stdin'>): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of stdin) {
    chunks.push(Buffer.from(chunk as Buffer));
    length += chunks.at(-1)!.length;
    if (length <= MAX_INPUT_BYTES) continue;
    const message = `standard input has more than ${MAX_INPUT_BYTES} bytes`;
    throw usageError(message);
  }
  return Buffer.concat(chunks).toString();
}

/**
 * Returns the text of a file without white space around it; `-` is standard input.
 *
 * @param what for messages, such as `the token`
 * @throws {CommandError} if it is empty or cannot be read.
 */
export async function readWord(io: Io, what: string, path: string): Promise<string> {
  const text = (path === '-' ? await readInput(io) : readGiven(what, path)).trim();
  if (text !== '') return text;
  const place = path === '-' ? 'standard input' : path;
  throw usageError(`${what} is missing: ${place} is empty`);
}

function readGiven(what: string, path: string): string {
  try {
    return readText(`the file with ${what}`, path);
  } catch (cause) {
    throw usageError((cause as Error).message, { cause });
  }
}

/** The longest body that a gateway takes. */
const MAX_INPUT_BYTES = 64 * 1024 * 1024;
