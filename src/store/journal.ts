/**
 * The file of a `FileStore`: a header line, then one line for each write to the disk. A line is a CRC-32 and a JSON array
 * of changes. Everything that is written together is one line, so a crash can only tear the last line; any other damage
 * has another cause.
 *
 * ```
 * 65e13a1c {"format":"virtual-presence store","formatVersion":1,"version":12}
 * f4512d56 [[11,"site/a",{"zone":"a.example.org"}],[12,"lease/x",7]]
 * e93e161b [[13,"lease/x"]]
 * ```
 *
 * A change is `[version, key, value]`, or `[version, key]` for a deletion. The header holds the number of the last
 * commit when the file was begun.
 * @module
 */
import { type FileHandle, open, readFile, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { crc32 } from 'node:zlib';
import type { Slices } from '../base/slices.ts';
import { StoreError } from '../errors.ts';
import { removeNewFile, replaceFile, syncDirectory } from './durable.ts';
import { freezeParsed } from './json.ts';
import type { Change, Json } from './store.ts';
import type { EntryTable } from './table.ts';

/** The journal of one store: reads, appends to and rewrites its file. */
export class Journal {
  readonly path: string;
  readonly #table: EntryTable;
  #handle: FileHandle;
  /** The size of the complete, durable lines, in bytes. */
  #size: number;
  /** Whether the file may hold more than that. */
  #isDirty = false;
  /** Whether the open file may not be the one at `path`, now or after a crash. */
  #isMisplaced = false;

  private constructor(path: string, table: EntryTable, handle: FileHandle, size: number) {
    this.path = path;
    this.#table = table;
    this.#handle = handle;
    this.#size = size;
  }

  /**
   * Opens the file and puts its entries into `table`, or makes it if there is none. When it resolves, everything that
   * was read is durable, also if the process that wrote it was killed.
   *
   * @returns the journal, and how many bytes of a torn last line were cut off.
   * @throws {StoreError} if the file is empty, is damaged elsewhere, or is not the file of a store.
   */
  static async open(path: string, table: EntryTable): Promise<[journal: Journal, cut: number]> {
    const bytes = await readFile(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined;
      throw error;
    });
    if (bytes === undefined) {
      const [handle, size] = await replaceFile(path, snapshotLines(table));
      return [new Journal(path, table, handle, size), 0];
    }
    const intact = loadLines(path, bytes, table);
    const handle = await open(path, 'a');
    try {
      await removeNewFile(path);
      const journal = new Journal(path, table, handle, intact);
      if (intact < bytes.length) await journal.#cutBack();
      else await handle.sync();
      await syncDirectory(dirname(path));
      return [journal, bytes.length - intact];
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /** The size of the file in bytes. */
  get size(): number {
    return this.#size;
  }

  /** The approximate size of the file in bytes if it were rewritten. */
  get liveBytes(): number {
    return this.#table.textLength;
  }

  /**
   * Appends the changes of some commits as one line, which is durable when it resolves. A long line is made in slices of
   * the event loop.
   *
   * @throws {StoreError} if the disk fails. The line is cut off again, at the latest before the next one, so that a
   *   later call may succeed.
   */
  async append(commits: readonly (readonly Change[])[], slices: Slices): Promise<void> {
    if (commits.every((changes) => changes.length === 0)) return;
    const parts = await encodeInParts(commits, slices);
    try {
      if (this.#isMisplaced) await this.rewrite();
      if (this.#isDirty) await this.#cutBack();
      this.#isDirty = true;
      for (const part of parts) await this.#handle.appendFile(part);
      await this.#handle.datasync();
      this.#isDirty = false;
    } catch (error) {
      await this.#cutBackIfDirty();
      throw new StoreError(`cannot write ${this.path}: ${(error as Error).message}`, {
        cause: error,
      });
    }
    for (const part of parts) this.#size += part.length;
  }

  /**
   * Replaces the file by one with only the live entries. If that fails, the journal continues with the present file. If
   * it is not certain which file is at `path`, the next `append` first tries again, and fails if that fails.
   */
  async rewrite(): Promise<void> {
    const oldHandle = this.#handle;
    try {
      [this.#handle, this.#size] = await replaceFile(this.path, snapshotLines(this.#table));
    } catch (error) {
      // A failed sync of the directory cannot simply be repeated: the kernel may have dropped what it could not write,
      // and then report success.
      this.#isMisplaced = !(await isAt(this.path, oldHandle));
      throw error;
    }
    this.#isMisplaced = false;
    this.#isDirty = false;
    await oldHandle.close().catch(() => {});
  }

  async close(): Promise<void> {
    await this.#cutBackIfDirty();
    await this.#handle.close();
  }

  /** Cuts off what may follow the durable lines. If this fails, it is repeated before the next line. */
  async #cutBackIfDirty(): Promise<void> {
    if (this.#isDirty) await this.#cutBack().catch(() => {});
  }

  async #cutBack(): Promise<void> {
    await this.#handle.truncate(this.#size);
    await this.#handle.sync();
    this.#isDirty = false;
  }
}

/** Whether the open file is the one at `path`; also false if that is unknown. */
async function isAt(path: string, handle: FileHandle): Promise<boolean> {
  try {
    const [present, open] = await Promise.all([stat(path), handle.stat()]);
    return present.ino === open.ino && present.dev === open.dev;
  } catch {
    return false;
  }
}

/** Loads the complete lines and returns their size in bytes. */
function loadLines(path: string, bytes: Buffer, table: EntryTable): number {
  if (bytes.length === 0) {
    throw new StoreError(
      `${path} is empty, and a store never is: its content was lost, with all revocations in it. Put a copy in its place; remove the file only to begin a new store`
    );
  }
  let start = 0;
  for (let number = 1; start < bytes.length; number++) {
    const end = bytes.indexOf(LINE_FEED, start);
    const isLast = end < 0 || end + 1 === bytes.length;
    const content = end < 0 ? undefined : decodeLine(bytes.subarray(start, end));
    if (number === 1) {
      checkHeader(path, content);
      table.version = (content as unknown as Header).version;
    } else if (content !== undefined) {
      table.load(decodeChanges(content as ChangeTuple[]));
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

function* decodeChanges(tuples: readonly ChangeTuple[]): Generator<Change> {
  for (const [version, key, value] of tuples) {
    yield { version, key, value: value === undefined ? undefined : freezeParsed(value) };
  }
}

/** Returns the parts of one line with the changes of these commits. */
async function encodeInParts(
  commits: readonly (readonly Change[])[],
  slices: Slices
): Promise<readonly Buffer[]> {
  const parts: Buffer[] = [];
  let crc = 0;
  let text = '[';
  let separator = '';
  const endPart = (): Buffer => {
    const part = Buffer.from(text);
    crc = crc32(part, crc);
    text = '';
    return part;
  };
  for (const changes of commits) {
    for (const change of changes) {
      if (slices.isOver) await slices.next();
      if (text.length > PART_BYTES) parts.push(endPart());
      text += separator + encodeChange(change);
      separator = ',';
    }
  }
  text += ']';
  parts.push(Buffer.concat([endPart(), Buffer.from('\n')]));
  parts[0] = Buffer.concat([Buffer.from(`${hexOf(crc)} `), parts[0]!]);
  return parts;
}

function encodeLine(text: string): Buffer {
  return Buffer.from(`${hexOf(crc32(text))} ${text}\n`);
}

function hexOf(crc: number): string {
  return crc.toString(16).padStart(CRC_DIGITS, '0');
}

/** Returns undefined for a damaged line. */
function decodeLine(line: Buffer): Json | undefined {
  const text = line.subarray(CRC_DIGITS + 1);
  if (line.toString('latin1', 0, CRC_DIGITS + 1) !== `${hexOf(crc32(text))} `) return undefined;
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
/** About how long the parts are in which a long line is written; a shorter line is one part. */
const PART_BYTES = 64 * 1024;
