/** A FileStore when the disk or the system fails, and after a crash in the middle of a write. */
import { execFileSync } from 'node:child_process';
import { existsSync, lstatSync, mkdtempSync, readFileSync, statSync } from 'node:fs';
import { type FileHandle, mkdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { StoreError } from '../../src/errors.ts';
import { FileStore } from '../../src/store/index.ts';
import { FileLock } from '../../src/store/lock.ts';

type FileSystem = typeof import('node:fs/promises');

/** Replacements for calls of the file system, where they are set. */
const stand = vi.hoisted(() => ({
  rename: undefined as FileSystem['rename'] | undefined,
  open: undefined as FileSystem['open'] | undefined,
}));
vi.mock('node:fs/promises', async (importOriginal) => {
  const original = await importOriginal<FileSystem>();
  const rename: FileSystem['rename'] = (...args) => (stand.rename ?? original.rename)(...args);
  const open: FileSystem['open'] = (...args) => (stand.open ?? original.open)(...args);
  return { ...original, rename, open };
});
const { rename, open } = await vi.importActual<FileSystem>('node:fs/promises');

const directory = mkdtempSync(join(tmpdir(), 'faults-'));
let files = 0;
const newPath = (): string => join(directory, `store-${files++}`);
const EIO = Object.assign(new Error('EIO: i/o error'), { code: 'EIO' });

let handles: FileHandle;
beforeAll(async () => {
  const handle = await open(newPath(), 'w');
  handles = Object.getPrototypeOf(handle);
  await handle.close();
});
afterEach(() => {
  vi.restoreAllMocks();
  stand.rename = undefined;
  stand.open = undefined;
});
afterAll(() => rm(directory, { recursive: true }));

/** A store that rewrites its file soon. */
function openSmall(path: string): Promise<FileStore> {
  return FileStore.open({ path, compactAboveBytes: 1000, compactRatio: 1 });
}

/** Commits enough to cause a rewrite of the file, and waits until that has succeeded or failed. */
async function causeRewrite(store: FileStore): Promise<void> {
  for (let i = 0; i < 3; i++) await store.commit([{ key: 'filler', value: 'x'.repeat(300) }]);
  // This commit resolves after the rewrite and writes nothing itself.
  await store.commit([]);
}

async function entriesIn(path: string): Promise<Record<string, unknown>> {
  const store = await FileStore.open({ path });
  const entries = await store.list('');
  await store.close();
  return Object.fromEntries(entries.map(({ key, value }) => [key, value]));
}

/** Makes the sync of directories fail this many times or until `mend` is called. Returns how often it failed. */
function breakDirectorySync(times: number): { failures: number; mend: () => void } {
  const { sync } = handles;
  const state = {
    failures: 0,
    mend: () => {
      times = 0;
    },
  };
  vi.spyOn(handles, 'sync').mockImplementation(async function (this: FileHandle) {
    if (state.failures < times && (await this.stat()).isDirectory()) {
      state.failures++;
      throw EIO;
    }
    return sync.call(this);
  });
  return state;
}

describe('a new FileStore', () => {
  test('makes a file where there is none, and refuses one that has become empty', async () => {
    const path = newPath();
    await writeFile(path, '');
    const opened = FileStore.open({ path });
    await expect(opened).rejects.toThrow(
      new StoreError(
        `${path} is empty, and a store never is: its content was lost, with all revocations in it. Put a copy in its place; remove the file only to begin a new store`
      )
    );
    expect(statSync(path).size).toBe(0);
    await (await FileLock.acquire(`${path}.lock`)).release();
    await rm(path);
    expect(await entriesIn(path)).toEqual({});
  });

  test('makes the file at the target of a symbolic link, with the same lock for both names', async () => {
    const path = newPath();
    const alias = newPath();
    await symlink(path, alias);
    const store = await FileStore.open({ path: alias });
    expect([store.path, lstatSync(alias).isSymbolicLink()]).toEqual([path, true]);
    await expect(FileStore.open({ path })).rejects.toThrow(`${path}.lock is held`);
    await store.close();
  });

  test('is made again after a crash that left the new file under its temporary name', async () => {
    for (const text of ['', '65e13a1c {"form']) {
      const path = newPath();
      await writeFile(`${path}.new`, text, { mode: 0o644 });
      const store = await FileStore.open({ path });
      await store.commit([{ key: 'a', value: 1 }]);
      await store.close();
      expect(statSync(path).mode & 0o777).toBe(0o600);
      expect(existsSync(`${path}.new`)).toBe(false);
      expect(await entriesIn(path)).toEqual({ a: 1 });
    }
  });

  test('never leaves an incomplete file, whichever write or sync fails', async () => {
    for (const method of ['appendFile', 'sync'] as const) {
      const path = newPath();
      vi.spyOn(handles, method).mockRejectedValueOnce(EIO);
      await expect(FileStore.open({ path })).rejects.toThrow(`cannot open ${path}: EIO`);
      expect([existsSync(path), existsSync(`${path}.new`)]).toEqual([false, false]);
      expect(await entriesIn(path)).toEqual({});
    }
  });

  test('makes durable what a killed process has left, before it can be read', async () => {
    const path = newPath();
    await (await FileStore.open({ path })).close();
    await writeFile(`${path}.new`, 'half a file');
    const synced: boolean[] = [];
    const { sync } = handles;
    vi.spyOn(handles, 'sync').mockImplementation(async function (this: FileHandle) {
      synced.push((await this.stat()).isDirectory());
      return sync.call(this);
    });
    const store = await FileStore.open({ path });
    expect(synced).toEqual([false, true]);
    expect(existsSync(`${path}.new`)).toBe(false);
    await store.close();
  });
});

describe('a FileStore that cannot rewrite its file', () => {
  test('continues without a free file descriptor, and rewrites the file when there are some again', () => {
    const path = newPath();
    const script = join(import.meta.dirname, 'few-handles-child.ts');
    const command = `ulimit -n 100; exec "$0" --import tsx "$1" "$2"`;
    const output = execFileSync('sh', ['-c', command, process.execPath, script, path]);
    const { bytes, ...refused } = JSON.parse(String(output));
    expect(refused).toEqual({ refusedWithout: 0, refusedAfter: 0 });
    expect(bytes).toBeLessThan(2500);
  });

  test('continues when there was no file descriptor for the directory once', async () => {
    const path = newPath();
    const store = await openSmall(path);
    let failures = 0;
    stand.open = async (name, ...args) => {
      if (name !== directory || failures++ > 0) return open(name, ...args);
      throw Object.assign(new Error('EMFILE: too many open files'), { code: 'EMFILE' });
    };
    for (let i = 0; i < 30; i++) await store.commit([{ key: `k/${i % 3}`, value: 'x'.repeat(99) }]);
    expect(failures).toBeGreaterThan(1);
    expect(statSync(path).size).toBeLessThan(2000);
    await store.close();
    expect(Object.keys(await entriesIn(path))).toEqual(['k/0', 'k/1', 'k/2']);
  });

  test('loses nothing when the directory cannot be synced once, and continues', async () => {
    const path = newPath();
    const store = await openSmall(path);
    await store.commit([{ key: 'a', value: 1 }]);
    const directorySync = breakDirectorySync(1);
    await causeRewrite(store);
    expect(directorySync.failures).toBe(1);
    await store.commit([{ key: 'b', value: 2 }]);
    await store.commit([{ key: 'c', value: 3 }]);
    await store.close();
    expect(await entriesIn(path)).toMatchObject({ a: 1, b: 2, c: 3 });
  });

  test('reports no commit as durable while the directory cannot be synced', async () => {
    const path = newPath();
    const store = await openSmall(path);
    const directorySync = breakDirectorySync(Number.POSITIVE_INFINITY);
    await causeRewrite(store);
    expect(directorySync.failures).toBe(1);
    for (let i = 0; i < 3; i++) {
      await expect(store.commit([{ key: 'b', value: i }])).rejects.toThrow(
        new StoreError(`cannot write ${path}: EIO: i/o error`)
      );
    }
    directorySync.mend();
    await store.commit([{ key: 'c', value: 1 }]);
    await store.close();
    expect(Object.keys(await entriesIn(path))).toEqual(['c', 'filler']);
  });

  test.each([
    ['did not', false],
    ['did', true],
  ])(
    'continues in the file at the path after a failed rename that %s happen',
    async (_, isDone) => {
      const path = newPath();
      const store = await openSmall(path);
      let failures = 0;
      stand.rename = async (from, to) => {
        if (to !== path || failures++ > 0) return rename(from, to);
        if (isDone) await rename(from, to);
        throw EIO;
      };
      await causeRewrite(store);
      await store.commit([{ key: 'a', value: 1 }]);
      expect(failures).toBeGreaterThan(0);
      expect(readFileSync(path, 'utf8')).toContain('"a"');
      await store.close();
      expect(await entriesIn(path)).toMatchObject({ a: 1 });
    }
  );

  test('tries again when the file has grown by as much as a rewrite costs, and then as before', async () => {
    const path = newPath();
    const store = await FileStore.open({ path, compactAboveBytes: 10_000, compactRatio: 1 });
    let attempts = 0;
    stand.rename = async (from, to) => {
      if (to === path && ++attempts <= 3) throw EIO;
      return rename(from, to);
    };
    const sizes: number[] = [];
    for (let i = 0; i < 80; i++) {
      await store.commit([{ key: 'a', value: 'x'.repeat(1000) }]);
      sizes.push(statSync(path).size);
    }
    await store.close();
    const highest = Math.max(...sizes);
    expect(highest).toBeGreaterThan(39_000);
    expect(highest).toBeLessThan(43_000);
    const later = sizes.slice(sizes.indexOf(highest) + 1);
    expect(later.length).toBeGreaterThan(20);
    expect(Math.max(...later)).toBeLessThan(12_000);
  });
});

describe('a FileStore whose commit fails', () => {
  test('continues as soon as the file can be truncated, and reads nothing of the commit', async () => {
    const path = newPath();
    const store = await FileStore.open({ path });
    await store.commit([{ key: 'a', value: 1 }]);
    vi.spyOn(handles, 'datasync').mockRejectedValueOnce(EIO);
    vi.spyOn(handles, 'truncate').mockRejectedValueOnce(EIO).mockRejectedValueOnce(EIO);
    await expect(store.commit([{ key: 'b', value: 1 }])).rejects.toThrow(StoreError);
    await expect(store.commit([{ key: 'c', value: 1 }])).rejects.toThrow(StoreError);
    await store.commit([{ key: 'd', value: 1 }]);
    await store.close();
    expect(await entriesIn(path)).toEqual({ a: 1, d: 1 });
  });

  test('truncates the failed commit when it is closed, if it could not before', async () => {
    const path = newPath();
    const store = await FileStore.open({ path });
    vi.spyOn(handles, 'datasync').mockRejectedValueOnce(EIO);
    vi.spyOn(handles, 'truncate').mockRejectedValueOnce(EIO);
    await expect(store.commit([{ key: 'b', value: 1 }])).rejects.toThrow(StoreError);
    await store.close();
    expect(await entriesIn(path)).toEqual({});
  });

  test('releases its lock even if the file cannot be closed', async () => {
    const path = newPath();
    await (await FileStore.open({ path })).close();
    stand.open = async (...args) => {
      const handle = await open(...args);
      const { close } = handle;
      if (args[0] !== path) return handle;
      return Object.assign(handle, {
        close: async () => {
          await close.call(handle);
          throw EIO;
        },
      });
    };
    const store = await FileStore.open({ path });
    stand.open = undefined;
    await expect(store.close()).rejects.toThrow('EIO');
    expect(await entriesIn(path)).toEqual({});
  });
});

test('a FileStore refuses to open a directory', async () => {
  const path = newPath();
  await mkdir(path);
  await expect(FileStore.open({ path })).rejects.toThrow(StoreError);
});
