import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  mkdtempSync,
  readFileSync,
  rmdirSync,
  statSync,
  symlinkSync,
  truncateSync,
} from 'node:fs';
import { copyFile, type FileHandle, mkdir, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { ApiMisuseError, StoreError } from '../../src/errors.ts';
import { FileStore, MemoryStore } from '../../src/store/index.ts';
import { describeStore } from './conformance.ts';

const directory = mkdtempSync(join(tmpdir(), 'store-'));
let files = 0;
const newPath = (): string => join(directory, `store-${files++}`);

afterAll(() => rm(directory, { recursive: true }));

describeStore('FileStore', () => FileStore.open({ path: newPath() }));
describeStore('FileStore that rewrites its file after every commit', () =>
  FileStore.open({ path: newPath(), compactAboveBytes: 0, compactRatio: 0 })
);

/** Commits k/0 to k/(count - 1), each on its own line, and closes. */
async function fill(path: string, count: number): Promise<void> {
  const store = await FileStore.open({ path });
  for (let i = 0; i < count; i++) await store.commit([{ key: `k/${i}`, value: i }]);
  await store.close();
}

async function keysIn(path: string): Promise<string[]> {
  const store = await FileStore.open({ path });
  const entries = await store.list('');
  await store.close();
  return entries.map((entry) => entry.key);
}

describe('FileStore', () => {
  test('refuses a write with a lease, and writes nothing', async () => {
    const store = await FileStore.open({ path: newPath() });
    const lease = await new MemoryStore().grant(1000);
    const commit = store.commit([
      { key: 'a', value: 1 },
      { key: 'b', value: 1, lease },
    ]);
    await expect(commit).rejects.toThrow(ApiMisuseError);
    expect(await store.list('')).toEqual([]);
    await store.close();
  });

  test('keeps entries and versions when it is opened again, and continues to count after a deletion', async () => {
    const path = newPath();
    let store = await FileStore.open({ path });
    await store.commit([{ key: 'a', value: { n: 1 } }]);
    await store.commit([{ key: 'b', value: 'ü€😀' }]);
    await store.commit([{ key: 'c', value: 1 }]);
    await store.commit([{ key: 'c', value: undefined }]);
    const before = await store.list('');
    await store.close();

    store = await FileStore.open({ path });
    expect(await store.list('')).toEqual(before);
    await store.commit([{ key: 'c', value: 2 }]);
    expect((await store.get('c'))?.version).toBe(5);
    await store.close();
  });

  test('continues to count when the newest commit, a deletion, was removed by a rewrite', async () => {
    const path = newPath();
    let store = await FileStore.open({ path, compactAboveBytes: 0, compactRatio: 0 });
    await store.commit([{ key: 'a', value: 1 }]);
    await store.commit([{ key: 'a', value: undefined }]);
    await store.close();
    store = await FileStore.open({ path });
    await store.commit([{ key: 'a', value: 1 }]);
    expect((await store.get('a'))?.version).toBe(3);
    await store.close();
  });

  test('is readable by its owner only', async () => {
    const path = newPath();
    await fill(path, 1);
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  test('gives readers and watchers only durable entries', async () => {
    const path = newPath();
    const store = await FileStore.open({ path });
    const onDisk: boolean[] = [];
    store.watch('', () => onDisk.push(readFileSync(path, 'utf8').includes('"a"')));
    const committed = store.commit([{ key: 'a', value: 1 }]);
    expect(await store.get('a')).toBeUndefined();
    await committed;
    expect(await store.get('a')).toBeDefined();
    expect(onDisk).toEqual([true]);
    await store.close();
  });

  test('writes commits that arrive together as one line', async () => {
    const path = newPath();
    const store = await FileStore.open({ path });
    await Promise.all(
      Array.from({ length: 100 }, (_, i) => store.commit([{ key: `k/${i}`, value: i }]))
    );
    await store.close();
    expect(readFileSync(path, 'utf8').trimEnd().split('\n')).toHaveLength(2);
    expect(await keysIn(path)).toHaveLength(100);
  });

  test('close waits for the commits made before it', async () => {
    const path = newPath();
    const store = await FileStore.open({ path });
    const committed = store.commit([{ key: 'a', value: 1 }]);
    await store.close();
    await committed;
    expect(await keysIn(path)).toEqual(['a']);
  });

  test('rewrites the file when it is large and mostly obsolete, and not before', async () => {
    const path = newPath();
    const value = 'x'.repeat(1000);
    const store = await FileStore.open({ path, compactAboveBytes: 20_000 });
    const sizes: number[] = [];
    for (let i = 0; i < 60; i++) {
      await store.commit([{ key: 'a', value: value + i }]);
      sizes.push(statSync(path).size);
    }
    await store.close();
    expect(Math.max(...sizes)).toBeGreaterThan(19_000);
    expect(Math.max(...sizes)).toBeLessThan(22_000);
    expect(await keysIn(path)).toEqual(['a']);

    const live = await FileStore.open({ path: newPath(), compactAboveBytes: 20_000 });
    for (let i = 0; i < 60; i++) await live.commit([{ key: `k/${i}`, value }]);
    expect(statSync(live.path).size).toBeGreaterThan(60_000);
    await live.close();
  });

  test('cuts off a last line torn at any byte, and commits after it', async () => {
    const path = newPath();
    await fill(path, 3);
    const whole = readFileSync(path);
    const lastLine = whole.lastIndexOf('\n', whole.length - 2) + 1;
    for (let size = lastLine + 1; size < whole.length; size++) {
      const torn = newPath();
      await copyFile(path, torn);
      truncateSync(torn, size);
      const store = await FileStore.open({ path: torn });
      expect(store.cutBytes).toBe(size - lastLine);
      expect(await store.list('')).toHaveLength(2);
      await store.commit([{ key: 'after', value: 1 }]);
      await store.close();
      expect(await keysIn(torn)).toEqual(['after', 'k/0', 'k/1']);
    }
  });

  test('writes a commit with many writes as one line, of which a torn one has no effect', async () => {
    const path = newPath();
    const store = await FileStore.open({ path });
    const writes = Array.from({ length: 2000 }, (_, i) => ({
      key: `k/${i}`,
      value: 'ü'.repeat(50),
    }));
    await store.commit([{ key: 'first', value: 1 }]);
    await store.commit(writes);
    const entries = await store.list('');
    await store.close();
    const whole = readFileSync(path);
    expect(whole.toString().trimEnd().split('\n')).toHaveLength(3);
    const again = await FileStore.open({ path });
    expect(await again.list('')).toEqual(entries);
    await again.close();
    // It is longer than the parts in which it is written.
    const lastLine = whole.lastIndexOf('\n', whole.length - 2) + 1;
    expect(whole.length - lastLine).toBeGreaterThan(3 * 65_536);
    for (let size = lastLine + 65_536; size < whole.length; size += 65_536) {
      truncateSync(path, size);
      expect(await keysIn(path)).toEqual(['first']);
      await writeFile(path, whole);
    }
  });

  test('cuts off a last line of zeros (after a power failure)', async () => {
    const path = newPath();
    await fill(path, 2);
    appendFileSync(path, Buffer.alloc(5000));
    const store = await FileStore.open({ path });
    expect(store.cutBytes).toBe(5000);
    expect(await store.list('')).toHaveLength(2);
    await store.close();
  });

  test('names the file and the line when one in the middle is damaged', async () => {
    const path = newPath();
    await fill(path, 3);
    const bytes = readFileSync(path);
    const secondLine = bytes.indexOf('\n') + 1;
    const thirdLine = bytes.indexOf('\n', secondLine) + 1;
    for (let at = secondLine; at < thirdLine - 1; at++) {
      const damaged = newPath();
      const copy = Buffer.from(bytes);
      copy[at]! ^= 0x04;
      await writeFile(damaged, copy);
      await expect(FileStore.open({ path: damaged })).rejects.toThrow(
        new StoreError(`line 2 of ${damaged} is damaged, and lines follow it`)
      );
      expect(readFileSync(damaged).equals(copy)).toBe(true);
    }
  });

  test.each([
    ['another file', 'hello\nworld\n', 'is not a store, or its line 1 is damaged'],
    ['a torn first line', '7d1c02a4 {"form', 'is not a store, or its line 1 is damaged'],
    [
      'a newer format',
      'dd90e298 {"format":"virtual-presence store","formatVersion":2,"version":0}\n',
      'format version 2',
    ],
  ])('refuses %s and leaves it as it is', async (_, text, message) => {
    const path = newPath();
    await writeFile(path, text);
    await expect(FileStore.open({ path })).rejects.toThrow(message);
    expect(readFileSync(path, 'utf8')).toBe(text);
  });

  test('reports why a file cannot be opened', async () => {
    const path = join(directory, 'absent', 'store');
    await expect(FileStore.open({ path })).rejects.toThrow(/^cannot open .*absent.*ENOENT/);
    await mkdir(join(directory, 'folder'));
    await expect(FileStore.open({ path: join(directory, 'folder') })).rejects.toThrow(StoreError);
  });

  test('ignores the half-written file of a rewrite that crashed', async () => {
    const path = newPath();
    await fill(path, 2);
    await writeFile(`${path}.new`, 'garbage');
    const store = await FileStore.open({ path, compactAboveBytes: 0, compactRatio: 0 });
    await store.commit([{ key: 'k/2', value: 2 }]);
    await store.close();
    expect(await keysIn(path)).toEqual(['k/0', 'k/1', 'k/2']);
  });
});

describe('durability of a FileStore', () => {
  let handles: FileHandle;
  beforeAll(async () => {
    const handle = await open(newPath(), 'w');
    handles = Object.getPrototypeOf(handle);
    await handle.close();
  });
  afterEach(() => vi.restoreAllMocks());

  test('resolves no commit before the fsync, and lets commits share the next one', async () => {
    const store = await FileStore.open({ path: newPath() });
    const syncs: (() => void)[] = [];
    vi.spyOn(handles, 'datasync').mockImplementation(
      () => new Promise<void>((resolve) => syncs.push(resolve))
    );
    const resolved: string[] = [];
    const commit = (key: string): Promise<void> =>
      store.commit([{ key, value: 1 }]).then(() => void resolved.push(key));
    const commits = [commit('a')];
    await vi.waitFor(() => expect(syncs).toHaveLength(1));
    commits.push(commit('b'), commit('c'));
    await new Promise(setImmediate);
    expect([resolved, await store.list('')]).toEqual([[], []]);
    syncs[0]!();
    await vi.waitFor(() => expect(syncs).toHaveLength(2));
    expect(resolved).toEqual(['a']);
    syncs[1]!();
    await Promise.all(commits);
    expect([resolved, syncs.length]).toEqual([['a', 'b', 'c'], 2]);
    await store.close();
  });

  test('undoes a commit whose fsync fails, and continues', async () => {
    const path = newPath();
    const store = await FileStore.open({ path });
    await store.commit([{ key: 'a', value: 1 }]);
    vi.spyOn(handles, 'datasync').mockRejectedValueOnce(new Error('EIO: i/o error'));
    await expect(store.commit([{ key: 'b', value: 1 }])).rejects.toThrow(
      new StoreError(`cannot write ${path}: EIO: i/o error`)
    );
    await store.commit([{ key: 'c', value: 1, expect: 0 }]);
    await store.close();
    expect(await keysIn(path)).toEqual(['a', 'c']);
  });

  test('refuses further commits while a failed one cannot be undone', async () => {
    const path = newPath();
    const store = await FileStore.open({ path });
    await store.commit([{ key: 'a', value: 1 }]);
    vi.spyOn(handles, 'datasync').mockRejectedValueOnce(new Error('EIO: i/o error'));
    vi.spyOn(handles, 'truncate').mockRejectedValue(new Error('EIO: i/o error'));
    await expect(store.commit([{ key: 'b', value: 1 }])).rejects.toThrow(StoreError);
    await expect(store.commit([{ key: 'c', value: 1 }])).rejects.toThrow(StoreError);
    expect((await store.list('')).map((entry) => entry.key)).toEqual(['a']);
    await store.close();
  });
});

describe('the lock of a FileStore', () => {
  test('refuses a second opener, also under another name, and is released on close', async () => {
    const path = newPath();
    const store = await FileStore.open({ path });
    const alias = newPath();
    symlinkSync(path, alias);
    for (const name of [path, alias]) {
      await expect(FileStore.open({ path: name })).rejects.toThrow(
        `${path}.lock is held by process ${process.pid}, by the numbers of its container: stop it first`
      );
    }
    await store.close();
    await (await FileStore.open({ path: alias })).close();
  });

  test('is taken by exactly one of many that open at the same time', async () => {
    const path = newPath();
    for (let round = 0; round < 20; round++) {
      const outcomes = await Promise.allSettled(
        Array.from({ length: 10 }, () => FileStore.open({ path }))
      );
      const stores = outcomes.flatMap((o) => (o.status === 'fulfilled' ? [o.value] : []));
      expect(stores).toHaveLength(1);
      await stores[0]!.close();
    }
  });
});

/** A file system of 256 KiB; null where this process may not mount one. */
function mountSmall(): string | null {
  const path = mkdtempSync(join(tmpdir(), 'small-'));
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'none', path], { stdio: 'ignore' });
    return path;
  } catch {
    rmdirSync(path);
    return null;
  }
}

const small = mountSmall();
afterAll(() => {
  if (small === null) return;
  execFileSync('umount', [small]);
  rmdirSync(small);
});

describe('a FileStore on a full disk', () => {
  test.skipIf(small === null)(
    'refuses the whole commit, keeps its entries, and continues when there is space (needs mount)',
    async () => {
      const path = join(small!, 'store');
      const store = await FileStore.open({ path, compactAboveBytes: 10_000 });
      await store.commit([{ key: 'a', value: 1 }]);
      const filler = await open(join(small!, 'filler'), 'w');
      await filler.appendFile(Buffer.alloc(200 * 1024));
      const large = 'x'.repeat(100 * 1024);
      await expect(store.commit([{ key: 'a', value: large }])).rejects.toThrow(StoreError);
      expect((await store.get('a'))?.value).toBe(1);
      await store.commit([{ key: 'b', value: 2 }]);
      await filler.truncate(0);
      await filler.close();
      await store.commit([{ key: 'c', value: large }]);
      await store.close();
      expect(await keysIn(path)).toEqual(['a', 'b', 'c']);
    }
  );
});
