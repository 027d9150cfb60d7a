/**
 * What a file takes that is to be locked by its path, and to outlast a crash.
 * @module
 */
import { type FileHandle, open, readlink, realpath, rename, rm } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';

/**
 * The path of a file, which need not be there yet, without symbolic links: what a lock and a rename need.
 *
 * @throws {Error} if its directory is not there.
 */
export async function realPathOf(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    const directory = await realpath(dirname(path));
    // A symbolic link to a file that is not there yet names the same file as its target does.
    const target = await readlink(path).catch(() => undefined);
    if (target !== undefined) return realPathOf(resolve(directory, target));
    return join(directory, basename(path));
  }
}

/** Makes a new file, or a rename, durable. Systems that cannot open a directory (Windows) need not. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await openDirectory(path);
  try {
    await directory?.sync();
  } finally {
    await directory?.close();
  }
}

/**
 * Puts a new file of mode 0600 with these bytes in the place of the one at `path`, or where none is, by
 * way of `<path>.new`. After a crash there is the whole new file or what was there before. Returns the
 * new file, open for appending, and its size in bytes; all of it is durable then, its name too.
 *
 * @throws {Error} if that fails. What was at `path` is still there, unless the failure came so late that
 *   the new file is there, but might not outlast a crash.
 */
export async function replaceFile(
  path: string,
  parts: Iterable<Buffer>
): Promise<[file: FileHandle, size: number]> {
  const newPath = newPathOf(path);
  // It is opened first, so that a want of file descriptors does not show after the rename.
  const directory = await openDirectory(dirname(path));
  let handle: FileHandle | undefined;
  try {
    await rm(newPath, { force: true });
    handle = await open(newPath, 'ax', 0o600);
    let size = 0;
    for (const part of parts) {
      await handle.appendFile(part);
      size += part.length;
    }
    await handle.sync();
    await rename(newPath, path);
    await directory?.sync();
    return [handle, size];
  } catch (error) {
    await handle?.close().catch(() => {});
    await removeNewFile(path).catch(() => {});
    throw error;
  } finally {
    await directory?.close().catch(() => {});
  }
}

/** Removes what a crash within `replaceFile` may have left. */
export async function removeNewFile(path: string): Promise<void> {
  await rm(newPathOf(path), { force: true });
}

function newPathOf(path: string): string {
  return `${path}.new`;
}

async function openDirectory(path: string): Promise<FileHandle | undefined> {
  return process.platform === 'win32' ? undefined : open(path, 'r');
}
