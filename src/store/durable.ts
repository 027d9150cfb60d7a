/**
 * What a file takes that is to be locked by its path, and to outlast a crash.
 * @module
 */
import { open, realpath } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

/** The one true path of a file, which need not be there yet: what a lock and a rename need. */
export async function realPathOf(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch {
    return join(await realpath(dirname(path)), basename(path));
  }
}

/** Makes a new file, or a rename, durable. Systems that cannot open a directory (Windows) need not. */
export async function syncDirectory(path: string): Promise<void> {
  if (process.platform === 'win32') return;
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
