/**
 * Operations on files that must survive a crash or are locked by their path.
 * @module
 */
import { type FileHandle, open, readlink, realpath, rename, rm } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';

/**
 * Resolves the symbolic links in the path of a file, which need not exist, for a lock or a rename.
 *
 * @throws {Error} if its directory does not exist.
 */
export async function realPathOf(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    const directory = await realpath(dirname(path));
    // A symbolic link to a file that does not exist yet stands for its target.
    const target = await readlink(path).catch(() => undefined);
    if (target !== undefined) return realPathOf(resolve(directory, target));
    return join(directory, basename(path));
  }
}

/** Makes new files and renames in a directory durable. Windows cannot open directories and does not need it. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await openDirectory(path);
  try {
    await directory?.sync();
  } finally {
    await directory?.close();
  }
}

/**
 * Writes a new file of mode 0600 to `<path>.new` and renames it to `path`. After a crash there is either the complete
 * new file or what was there before. When it resolves, content and name are durable.
 *
 * @returns the new file, open for appending, and its size in bytes.
 * @throws {Error} if that fails. The previous file is then still there, unless only the last sync failed: then the new
 *   file is there but may not survive a crash.
 */
export async function replaceFile(
  path: string,
  parts: Iterable<Buffer>
): Promise<[file: FileHandle, size: number]> {
  const newPath = newPathOf(path);
  // Opened first, so that a lack of file descriptors does not cause a failure after the rename.
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

/** Removes the file that a crash during `replaceFile` may have left. */
export async function removeNewFile(path: string): Promise<void> {
  await rm(newPathOf(path), { force: true });
}

function newPathOf(path: string): string {
  return `${path}.new`;
}

async function openDirectory(path: string): Promise<FileHandle | undefined> {
  return process.platform === 'win32' ? undefined : open(path, 'r');
}
