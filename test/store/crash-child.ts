/**
 * Commits until it is killed, and tells crash.test.ts about it, one line each:
 *
 * - `opened`
 * - `try <writer> <number>`: a commit begins
 * - `done <writer> <number>`: it is acknowledged
 * - `synced <inode> <bytes>`: these bytes of a file survive a power loss
 * - `renaming`: the file will be replaced; the present one stays under the name `<path>.before` too
 * - `directory`: all names survive a power loss
 *
 * With the third argument `unsynced` the file is never synced after a commit.
 * @module
 */
import { existsSync, fstatSync, linkSync, rmSync, writeSync } from 'node:fs';
import promises, { type FileHandle } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { FileStore } from '../../src/store/index.ts';
import { WRITERS, Writer } from './crash-model.ts';

const [path, seed, mode] = process.argv.slice(2) as [string, string, string?];

function tell(line: string): void {
  writeSync(1, `${line}\n`);
}

/** Replaces the calls of the file system that make something durable by ones that also tell it. */
async function trace(): Promise<void> {
  const handle = await promises.open('/dev/null');
  const handles = Object.getPrototypeOf(handle) as FileHandle;
  await handle.close();
  for (const method of ['sync', 'datasync'] as const) {
    const original = handles[method];
    handles[method] = async function (this: FileHandle) {
      const stats = fstatSync(this.fd);
      if (method === 'datasync' && mode === 'unsynced') return;
      await original.call(this);
      tell(stats.isDirectory() ? 'directory' : `synced ${stats.ino} ${stats.size}`);
    };
  }
  const { rename } = promises;
  promises.rename = async (from, to) => {
    if (to === path) {
      // The store does not exist yet at its first start.
      if (existsSync(path)) {
        rmSync(`${path}.before`, { force: true });
        linkSync(path, `${path}.before`);
        tell('renaming');
      }
    }
    await rename(from, to);
  };
  syncBuiltinESMExports();
}

async function write(store: FileStore, id: number): Promise<never> {
  const reached = (await store.get(`sequence/${id}`))?.value as number | undefined;
  const writer = new Writer(Number(seed), id).after(reached ?? 0);
  for (;;) {
    const writes = writer.next();
    tell(`try ${id} ${writer.count}`);
    await store.commit(writes);
    tell(`done ${id} ${writer.count}`);
  }
}

await trace();
// The file is rewritten each time when a fiftieth of it is obsolete, so that many kills come while it is.
const store = await FileStore.open({ path, compactAboveBytes: 0, compactRatio: 1.02 });
tell('opened');
await Promise.all(Array.from({ length: WRITERS }, (_, id) => write(store, id)));
