/**
 * The file of a `FileStore`: a header line, then one line for each write to the medium, each a JSON
 * array of changes behind its CRC-32. What is written together is one line, so a crash can tear the
 * last line only; any other damage was not done by this code.
 *
 * ```
 * 65e13a1c {"format":"virtual-presence store","formatVersion":1,"version":12}
 * f4512d56 [[11,"site/a",{"zone":"a.example.org"}],[12,"lease/x",7]]
 * e93e161b [[13,"lease/x"]]
 * ```
 *
 * A change is `[version, key, value]`, or `[version, key]` for a deletion. The header holds the
 * number of the last commit at the time the file was begun.
 * @module
 */
import { type FileHandle, open, readFile, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { crc32 } from 'node:zlib';
import { StoreError } from '../errors.ts';
import { syncDirectory } from './durable.ts';
import { frozenJson } from './json.ts';
import type { Change, Json } from './store.ts';
import type { EntryTable } from './table.ts';

export class Journal {
  readonly path: string;
  #handle: FileHandle | undefined;
  #size = 0;
  /** Bytes that each live entry takes in a fresh file, and their sum. */
  readonly #entryBytes = new Map<string, number>();
  #liveBytes = 0;
  #fault: Error | undefined;

  private constructor(path: string) {
    this.path = path;
  }

  /**
   * Opens or begins the file and puts its entries into `table`. Returns the journal, and how many
   * bytes of a torn last line were cut off.
   *
   * @throws {StoreError} if the file is damaged elsewhere or is not a store's.
   */
  static async open(path: string, table: EntryTable): Promise<[journal: Journal, cut: number]> {
    const bytes = await readFile(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return Buffer.alloc(0);
      throw error;
    });
    const journal = new Journal(path);
    const intact = bytes.length === 0 ? 0 : loadLines(path, bytes, table);
    for (const { version, key, value } of table.entries()) {
      journal.#account(key, encodeChange({ version, key, value }).length);
    }
    if (intact === 0) {
      await journal.rewrite(table);
    } else {
      journal.#handle = await open(path, 'a', 0o600);
      journal.#size = intact;
      if (intact < bytes.length) await journal.#cutTo(intact);
    }
    return [journal, bytes.length - intact];
  }

  /** Bytes of the file. */
  get size(): number {
    return this.#size;
  }

  /** Bytes the file would have if it were rewritten, about. */
  get liveBytes(): number {
    return this.#liveBytes;
  }

  /**
   * Appends the changes as one line; durable when it resolves.
   *
   * @throws {StoreError} if the medium fails; the file is as before, or takes no more lines.
   */
  async append(changes: readonly Change[]): Promise<void> {
    const texts = changes.map(encodeChange);
    const line = encodeLine(`[${texts.join(',')}]`);
    try {
      if (this.#fault !== undefined) throw this.#fault;
      await this.#handle?.appendFile(line);
      await this.#handle?.datasync();
    } catch (error) {
      await this.#cutTo(this.#size).catch((fault: Error) => {
        this.#fault ??= fault;
      });
      throw new StoreError(`cannot write ${this.path}: ${(error as Error).message}`, {
        cause: error,
      });
    }
    this.#size += line.length;
    for (const [i, change] of changes.entries()) {
      this.#account(change.key, change.value === undefined ? 0 : texts[i]!.length);
    }
  }

  /** Replaces the file by one that holds the live entries only, or leaves it as it is. */
  async rewrite(table: EntryTable): Promise<void> {
    const newPath = `${this.path}.new`;
    await rm(newPath, { force: true });
    const handle = await open(newPath, 'ax', 0o600);
    let size = 0;
    try {
      for (const line of snapshotLines(table)) {
        await handle.appendFile(line);
        size += line.length;
      }
      await handle.sync();
      await rename(newPath, this.path);
    } catch (error) {
      await handle.close();
      await rm(newPath, { force: true });
      throw error;
    }
    const former = this.#handle;
    this.#handle = handle;
    this.#size = size;
    await former?.close();
    await syncDirectory(dirname(this.path)).catch((error: Error) => {
      // A crash might bring the former file back, without the lines that would follow here.
      this.#fault = error;
      throw error;
    });
  }

  async close(): Promise<void> {
    await this.#handle?.close();
    this.#handle = undefined;
  }

  async #cutTo(size: number): Promise<void> {
    await this.#handle?.truncate(size);
    await this.#handle?.sync();
  }

  #account(key: string, bytes: number): void {
    this.#liveBytes += bytes - (this.#entryBytes.get(key) ?? 0);
    if (bytes === 0) this.#entryBytes.delete(key);
    else this.#entryBytes.set(key, bytes);
  }
}

/** Returns how many bytes at the beginning of the file are whole lines. */
function loadLines(path: string, bytes: Buffer, table: EntryTable): number {
  let start = 0;
  for (let number = 1; start < bytes.length; number++) {
    const end = bytes.indexOf(LINE_FEED, start);
    const isLast = end < 0 || end + 1 === bytes.length;
    const content = end < 0 ? undefined : decodeLine(bytes.subarray(start, end));
    if (number === 1) {
      checkHeader(path, content);
      table.version = (content as unknown as Header).version;
    } else if (content !== undefined) {
      table.load((content as ChangeTuple[]).map(decodeChange));
    } else if (isLast) {
      return start;
    } else {
      throw new StoreError(`line ${number} of ${path} is damaged, and lines follow it`);
    }
    start = end + 1;
  }
  return start;
}

function checkHeader(path: string, content: Json | undefined): void {
  const header = content as Partial<Header> | null | undefined;
  if (header?.format !== FORMAT) {
    throw new StoreError(`${path} is not a store, or its line 1 is damaged`);
  }
  if (header.formatVersion !== FORMAT_VERSION) {
    throw new StoreError(
      `${path} has format version ${header.formatVersion}, this is software for ${FORMAT_VERSION}`
    );
  }
}

function* snapshotLines(table: EntryTable): Generator<Buffer> {
  const { version } = table;
  const header: Header = { format: FORMAT, formatVersion: FORMAT_VERSION, version };
  yield encodeLine(JSON.stringify(header));
  let texts: string[] = [];
  for (const entry of table.entries()) {
    texts.push(encodeChange(entry));
    if (texts.length === ENTRIES_PER_LINE) {
      yield encodeLine(`[${texts.join(',')}]`);
      texts = [];
    }
  }
  if (texts.length > 0) yield encodeLine(`[${texts.join(',')}]`);
}

function encodeChange({ version, key, value }: Change): string {
  return JSON.stringify(value === undefined ? [version, key] : [version, key, value]);
}

function decodeChange([version, key, value]: ChangeTuple): Change {
  return { version, key, value: value === undefined ? undefined : frozenJson(value) };
}

function encodeLine(text: string): Buffer {
  return Buffer.from(`${crc32(text).toString(16).padStart(CRC_DIGITS, '0')} ${text}\n`);
}

/** Returns undefined for a damaged line. */
function decodeLine(line: Buffer): Json | undefined {
  const text = line.subarray(CRC_DIGITS + 1);
  const crc = crc32(text).toString(16).padStart(CRC_DIGITS, '0');
  if (line.toString('latin1', 0, CRC_DIGITS + 1) !== `${crc} `) return undefined;
  try {
    return JSON.parse(text.toString());
  } catch {
    return undefined;
  }
}

interface Header {
  readonly format: string;
  readonly formatVersion: number;
  readonly version: number;
}

type ChangeTuple = readonly [version: number, key: string, value?: Json];

const FORMAT = 'virtual-presence store';
const FORMAT_VERSION = 1;
const CRC_DIGITS = 8;
const LINE_FEED = 0x0a;
/** Keeps the event loop free while a large store is rewritten. */
const ENTRIES_PER_LINE = 500;
