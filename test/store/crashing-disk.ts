/**
 * A model of a disk that loses unsynced data when the machine crashes. It follows a program's calls of
 * `node:fs/promises` in one directory and yields what may be there after a crash: any changes of names since the last
 * sync of the directory may be missing, and a file that was not synced may have half of its content.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

type FileSystem = typeof import('node:fs/promises');

/** Thrown by every call after the crash. */
export class Crash extends Error {}

interface Content {
  bytes: Uint8Array;
  isSynced: boolean;
}

type Names = Map<string, Content>;

export class CrashingDisk {
  readonly directory: string;
  /** How many calls that change something succeed before the crash. */
  callsLeft: number = Number.POSITIVE_INFINITY;
  /** Called before each such call, which fails with the error that it throws. */
  onCall: (call: string) => void = () => {};
  calls = 0;
  readonly #original: FileSystem;
  #seen: Names = new Map();
  #durable: Names = new Map();
  #pending: ((names: Names) => void)[] = [];

  constructor(original: FileSystem, directory: string) {
    this.#original = original;
    this.directory = directory;
  }

  /** Makes the present files durable. */
  adopt(): void {
    for (const name of readdirSync(this.directory)) {
      this.#seen.set(name, { bytes: readFileSync(join(this.directory, name)), isSynced: true });
    }
    this.#durable = new Map(this.#seen);
  }

  /** The replacements for Node's functions. */
  readonly fileSystem: Pick<FileSystem, 'open' | 'rename' | 'rm'> = {
    open: (async (path: string, flags: string, mode?: number) => {
      if (path === this.directory) return this.#directoryHandle(path, flags);
      if (flags === 'r') return this.#original.open(path, flags);
      this.#count(`open ${basename(path)}`);
      const handle = await this.#original.open(path, flags, mode);
      const content: Content = { bytes: new Uint8Array(), isSynced: false };
      this.#change((names) => names.set(basename(path), content));
      const { writeFile, sync } = handle;
      handle.writeFile = (async (bytes: Uint8Array) => {
        this.#count(`write ${basename(path)}`);
        await writeFile.call(handle, bytes);
        content.bytes = bytes;
      }) as FileHandle['writeFile'];
      handle.sync = async () => {
        this.#count(`sync ${basename(path)}`);
        await sync.call(handle);
        content.isSynced = true;
      };
      return handle;
    }) as FileSystem['open'],
    rename: async (from, to) => {
      if (dirname(String(to)) !== this.directory) return this.#original.rename(from, to);
      this.#count(`rename ${basename(String(from))}`);
      await this.#original.rename(from, to);
      const content = this.#seen.get(basename(String(from)))!;
      this.#change((names) => {
        names.delete(basename(String(from)));
        names.set(basename(String(to)), content);
      });
    },
    rm: async (path, options) => {
      if (dirname(String(path)) !== this.directory) return this.#original.rm(path, options);
      this.#count(`rm ${basename(String(path))}`);
      await this.#original.rm(path, options);
      this.#change((names) => names.delete(basename(String(path))));
    },
  };

  /** Writes each state that a crash now may leave into its own directory. */
  leave(newDirectory: () => string): string[] {
    const all = this.#pending.map(() => true);
    const outcomes = [
      all,
      all.map(() => false),
      ...all.map((_, at) => all.map((_kept, each) => each === at)),
      ...all.map((_, at) => all.map((_kept, each) => each !== at)),
    ];
    const texts = new Set(outcomes.map((outcome) => outcome.join()));
    return [...texts].map((text) => {
      const kept = text.split(',');
      const names = new Map(this.#durable);
      this.#pending.forEach((change, at) => {
        if (kept[at] === 'true') change(names);
      });
      const directory = newDirectory();
      for (const [name, { bytes, isSynced }] of names) {
        const found = isSynced ? bytes : bytes.subarray(0, bytes.length >> 1);
        writeFileSync(join(directory, name), found, { mode: 0o600 });
      }
      return directory;
    });
  }

  async #directoryHandle(path: string, flags: string): Promise<FileHandle> {
    const handle = await this.#original.open(path, flags);
    const { sync } = handle;
    handle.sync = async () => {
      this.#count('sync the directory');
      await sync.call(handle);
      this.#durable = new Map(this.#seen);
      this.#pending = [];
    };
    return handle;
  }

  #count(call: string): void {
    if (this.calls >= this.callsLeft) throw new Crash();
    this.calls++;
    this.onCall(call);
  }

  #change(change: (names: Names) => void): void {
    change(this.#seen);
    this.#pending.push(change);
  }
}
