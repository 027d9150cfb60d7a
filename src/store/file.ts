/**
 * A store in one file on one machine, without a server or native code. All entries are in memory. Commits are appended
 * to a journal (`journal.ts`) and synced before they resolve. Commits that arrive during a sync share the next one. A
 * commit with many writes is as atomic as any other, and is prepared, written and applied in slices of the event loop.
 * @module
 */

import { checkObject, checkText, checkThat } from '../base/option-check.ts';
import { slicesOf } from '../base/slices.ts';
import { ApiMisuseError, PresenceError, StoreError } from '../errors.ts';
import { CommitWrites } from './changes.ts';
import { realPathOf } from './durable.ts';
import { Journal } from './journal.ts';
import { KeyMap } from './key-map.ts';
import { FileLock } from './lock.ts';
import type { Change, Entry, Guard, Store, Write } from './store.ts';
import { EntryTable } from './table.ts';

export interface FileStoreOptions {
  /**
   * The file; it is made with mode 0600 if it does not exist. Its directory must exist, on a local file system. Next to
   * it are the directory `<path>.lock`, which excludes other processes on this machine, also in other containers, and
   * `<path>.new` while the file is rewritten.
   */
  readonly path: string;
  /** The file is rewritten only if it is larger than this, in bytes; default 1 MiB. */
  readonly compactAboveBytes?: number;
  /** ... and larger than this many times its live entries; default 4. */
  readonly compactRatio?: number;
}

/** The defaults of `FileStoreOptions`. */
export const FILE_STORE_DEFAULTS: Readonly<{ compactAboveBytes: number; compactRatio: number }> =
  Object.freeze({ compactAboveBytes: 1024 * 1024, compactRatio: 4 });

/** @throws {ApiMisuseError} if an option is invalid. */
function resolveFileStore(options: FileStoreOptions): Required<FileStoreOptions> {
  const {
    path,
    compactAboveBytes = FILE_STORE_DEFAULTS.compactAboveBytes,
    compactRatio = FILE_STORE_DEFAULTS.compactRatio,
  } = checkObject('the options of FileStore', options);
  checkText('path', path);
  checkThat(
    'compactAboveBytes',
    compactAboveBytes,
    isFromZero(compactAboveBytes),
    'a number from 0'
  );
  checkThat('compactRatio', compactRatio, isFromZero(compactRatio), 'a number from 0');
  return { path, compactAboveBytes, compactRatio };
}

function isFromZero(value: unknown): boolean {
  return typeof value === 'number' && value >= 0;
}

/** @throws {ApiMisuseError} if a write has a lease. */
function checkNoLease({ leases }: CommitWrites): void {
  for (const key of leases.keys()) {
    throw new ApiMisuseError(
      `"${key}" is written with a lease, and FileStore has none: use a store of several machines`
    );
  }
}

interface Pending {
  readonly writes: CommitWrites;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/**
 * A store in one file. Reads return only durable entries. When `commit` resolves, its watchers have been called.
 * Returned values are frozen. `close()` waits for earlier commits.
 */
export class FileStore implements Store {
  readonly path: string;
  /** How many bytes of an unfinished write were cut off when the file was opened after a crash. */
  readonly cutBytes: number;
  readonly #table: EntryTable;
  readonly #journal: Journal;
  readonly #lock: FileLock;
  readonly #compactRatio: number;
  readonly #compactAbove: number;
  /** The size of the file at which a failed rewrite is tried again; 0 if none has failed. */
  #retryAtBytes = 0;
  #queue: Pending[] = [];
  #writing: Promise<void> | undefined;
  #closing: Promise<void> | undefined;

  private constructor(
    options: Required<FileStoreOptions>,
    table: EntryTable,
    [journal, cutBytes]: [Journal, number],
    lock: FileLock
  ) {
    this.path = journal.path;
    this.cutBytes = cutBytes;
    this.#table = table;
    this.#journal = journal;
    this.#lock = lock;
    this.#compactAbove = options.compactAboveBytes;
    this.#compactRatio = options.compactRatio;
  }

  /**
   * Opens the file, or makes it if there is none. An unfinished write that a crash has left is cut off.
   *
   * @throws {StoreError} if the file is open elsewhere, is empty or damaged, or cannot be read or written.
   * @throws {ApiMisuseError} if an option is invalid.
   */
  static async open(options: FileStoreOptions): Promise<FileStore> {
    const settings = resolveFileStore(options);
    let lock: FileLock | undefined;
    try {
      const path = await realPathOf(options.path);
      lock = await FileLock.acquire(`${path}.lock`);
      const table = new EntryTable();
      return new FileStore(settings, table, await Journal.open(path, table), lock);
    } catch (error) {
      await lock?.release();
      if (error instanceof PresenceError) throw error;
      throw new StoreError(`cannot open ${options.path}: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }

  async get(key: string): Promise<Entry | undefined> {
    this.#assertOpen();
    return this.#table.get(key);
  }

  async list(prefix: string): Promise<Entry[]> {
    this.#assertOpen();
    return this.#table.list(prefix);
  }

  /** @throws {ApiMisuseError} if a write has a lease: a file has none. */
  async commit(writes: readonly Write[], guards: readonly Guard[] = []): Promise<void> {
    this.#assertOpen();
    const given = new CommitWrites(writes, guards);
    return new Promise((resolve, reject) => {
      this.#queue.push({ writes: given, resolve, reject });
      this.#writing ??= this.#writeQueue();
    });
  }

  watch(prefix: string, listener: (changes: readonly Change[]) => void): () => void {
    this.#assertOpen();
    return this.#table.watch(prefix, listener);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** The same as `close`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    await this.#writing;
    this.#table.unwatchAll();
    try {
      await this.#journal.close();
    } finally {
      await this.#lock.release();
    }
  }

  async #writeQueue(): Promise<void> {
    // Waits for the other commits of the same turn of the event loop, to write them together.
    await undefined;
    while (this.#queue.length > 0) {
      const batch = this.#queue;
      this.#queue = [];
      await this.#writeBatch(batch);
      await this.#compactIfDue();
    }
    this.#writing = undefined;
  }

  async #writeBatch(batch: readonly Pending[]): Promise<void> {
    const slices = slicesOf();
    let version = this.#table.version;
    const batchVersions = new KeyMap<number>();
    const versionOf = (key: string): number => {
      return batchVersions.get(key) ?? this.#table.versionOf(key);
    };
    const accepted: { pending: Pending; changes: readonly Change[] }[] = [];
    const refused: { pending: Pending; error: unknown }[] = [];
    for (const pending of batch) {
      if (slices.isOver) await slices.next();
      try {
        const changes = await pending.writes.changes(version + 1, versionOf, slices);
        checkNoLease(pending.writes);
        for (const { key, value } of changes) {
          if (slices.isOver) await slices.next();
          batchVersions.set(key, value === undefined ? 0 : version + 1);
        }
        if (changes.length > 0) version++;
        accepted.push({ pending, changes });
      } catch (error) {
        refused.push({ pending, error });
      }
    }
    try {
      await this.#journal.append(
        accepted.map(({ changes }) => changes),
        slices
      );
      for (const { pending, changes } of accepted) {
        if (slices.isOver) await slices.next();
        await this.#table.apply(changes, slices);
        pending.resolve();
      }
    } catch (error) {
      for (const { pending } of accepted) pending.reject(error);
    }
    // Rejected last, so that a reader finds the entry that caused the conflict.
    for (const { pending, error } of refused) pending.reject(error);
  }

  async #compactIfDue(): Promise<void> {
    const { size, liveBytes } = this.#journal;
    if (size <= this.#compactAbove || size <= this.#compactRatio * liveBytes) return;
    if (size < this.#retryAtBytes) return;
    try {
      await this.#journal.rewrite();
      this.#retryAtBytes = 0;
    } catch {
      // The commits are safe in the present file. The next attempt waits until as much has been appended as a rewrite
      // would write, so that a permanent failure costs no more than the commits do.
      this.#retryAtBytes = size + Math.max(this.#compactAbove, liveBytes);
    }
  }

  #assertOpen(): void {
    if (this.#closing !== undefined) throw new StoreError('the store is closed');
  }
}
