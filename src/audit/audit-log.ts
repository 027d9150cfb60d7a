/**
 * An audit log: a file of JSON lines that is only ever appended to, each line carrying the hash of the
 * one before (`line.ts`), so that a change of what is written shows (`verify.ts`). It does not keep
 * whoever can write the file from writing all of it anew: for that, note `head` elsewhere from time to
 * time.
 *
 * Lines are durable before `append` resolves; those that arrive during an fsync share the next one. The
 * first ones make the file, so that a file without a line is one that has lost them. The file grows without
 * end: there is no rotation. To begin a new one, close the log, move the file away, and put its head into
 * the `start` of the new one.
 * @module
 */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { EventEmitter } from 'eventemitter3';
import type { Clock } from '../base/clock.ts';
import { checkClock, checkObject, checkText } from '../base/option-check.ts';
import { PresenceError, StoreError } from '../errors.ts';
import { realPathOf, removeNewFile, replaceFile, syncDirectory } from '../store/durable.ts';
import { FileLock } from '../store/lock.ts';
import {
  type AuditEvent,
  type AuditHead,
  BEGINNING,
  encodeBody,
  encodeEvent,
  encodeLine,
  hashOf,
} from './line.ts';
import {
  RefusalLimit,
  type RefusalLimits,
  type ResolvedLimits,
  resolveRefusalLimits,
  type Suppressed,
} from './refusals.ts';
import { readTail, type Tail } from './tail.ts';

export interface AuditLogOptions extends RefusalLimits {
  /**
   * The file, made with mode 0600 by the first line if it is not there; its directory must exist, on a local file system.
   * Beside it stands the directory `<path>.lock`, which keeps other processes of this machine off it, those
   * of other containers included.
   */
  readonly path: string;
  /** Default: that of the system. It keeps no process alive. */
  readonly clock?: Clock | undefined;
}

export interface AuditLogEvents {
  /** A line that nobody waits for, that of the refusals summed up, cannot be written. */
  problem: [problem: { readonly error: StoreError }];
}

/** Cumulative, since the log was opened. */
export interface AuditCounters {
  /** Lines written. */
  lines: number;
  /** Refusals that got no line of their own. */
  suppressed: number;
  /** Lines that could not be written. */
  failed: number;
}

interface Pending {
  readonly body: string;
  readonly resolve: () => void;
  readonly reject: (error: StoreError) => void;
}

/** The one writer of a file; other processes are kept off it until it is closed. */
export class AuditLog extends EventEmitter<AuditLogEvents> {
  readonly path: string;
  /** Bytes of an unfinished line that were cut off when the file was opened, after a crash. */
  readonly recoveredBytes: number;
  readonly #counters: AuditCounters = { lines: 0, suppressed: 0, failed: 0 };
  /** Undefined while there is no file: the first lines make it, so that it is never empty. */
  #handle: FileHandle | undefined;
  readonly #lock: FileLock;
  readonly #clock: Clock;
  readonly #refusals: RefusalLimit;
  #head: AuditHead;
  /** Bytes of whole, durable lines. */
  #size: number;
  /** There may be more in the file than that. */
  #isDirty = false;
  #queue: Pending[] = [];
  #writing: Promise<void> | undefined;
  #closing: Promise<void> | undefined;

  private constructor(
    path: string,
    clock: Clock,
    limits: ResolvedLimits,
    handle: FileHandle | undefined,
    lock: FileLock,
    tail: Tail
  ) {
    super();
    this.path = path;
    this.recoveredBytes = tail.tornBytes;
    this.#handle = handle;
    this.#lock = lock;
    this.#head = tail.head;
    this.#size = tail.intactBytes;
    this.#isDirty = handle !== undefined && tail.tornBytes > 0;
    this.#clock = clock;
    this.#refusals = new RefusalLimit(limits, clock, (suppressed) => this.#sumUp(suppressed));
  }

  /**
   * Opens the file; if there is none, the first line begins it. What a crash left of an unfinished line is
   * cut off, and a line of the kind `recovered` says so. The last lines are verified and no others, so that
   * a long log opens as fast as a short one: `verifyAuditLog` is for the whole.
   *
   * @throws {AuditError} if the file is empty, or if its last lines do not hang together or are none of an
   *   audit log.
   * @throws {StoreError} if the file is open elsewhere, or cannot be read or written.
   * @throws {ApiMisuseError} if an option is not what it must be, for example a limit not a whole number from 0.
   */
  static async open(options: AuditLogOptions): Promise<AuditLog> {
    checkText('path', checkObject('the options of AuditLog', options).path);
    const clock = checkClock(options.clock);
    const limits = resolveRefusalLimits(options);
    let lock: FileLock | undefined;
    let handle: FileHandle | undefined;
    try {
      const path = await realPathOf(options.path);
      lock = await FileLock.acquire(`${path}.lock`);
      handle = await openExisting(path);
      const tail = handle === undefined ? NOTHING : await readTail(handle, path);
      if (handle !== undefined && tail.intactBytes === 0) {
        // Not one line was whole: the first one replaces the file.
        await handle.close();
        handle = undefined;
      }
      if (handle !== undefined) {
        // What is read is to be durable, also if the process that wrote it was killed.
        await handle.sync();
        await syncDirectory(dirname(path));
      }
      await removeNewFile(path);
      const log = new AuditLog(path, clock, limits, handle, lock, tail);
      if (tail.tornBytes > 0) await log.#note('recovered', { droppedBytes: tail.tornBytes });
      return log;
    } catch (error) {
      await handle?.close();
      await lock?.release();
      if (error instanceof PresenceError) throw error;
      throw new StoreError(`cannot open ${options.path}: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }

  /** The last durable line. */
  get head(): AuditHead {
    return this.#head;
  }

  get counters(): Readonly<AuditCounters> {
    return this.#counters;
  }

  /**
   * Writes a line; durable when it resolves. A refusal above the limit is counted, to be summed up later,
   * and resolves at once. A `detail` that is too long is left out, and its length noted instead.
   *
   * @throws {StoreError} if the medium fails, or the log is closed; nothing was written then, and a later
   *   call may succeed.
   * @throws {ApiMisuseError} if the event cannot be a line.
   */
  async append(event: AuditEvent): Promise<void> {
    if (this.#closing !== undefined) throw new StoreError('the audit log is closed');
    const body = encodeEvent(event, this.#clock.wallMs());
    if (isRefusal(event) && !this.#refusals.admit(codeOf(event), event.site ?? event.serial)) {
      this.#counters.suppressed++;
      return;
    }
    return this.#write(body);
  }

  /** Sums up the refusals of the last minute, waits for lines under way, and frees the file. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** The same as `close`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#refusals.flush();
    this.#refusals.stop();
    await this.#writing;
    try {
      if (this.#isDirty) await this.#cutBack().catch(() => {});
      await this.#handle?.close();
    } finally {
      await this.#lock.release();
    }
  }

  #note(
    kind: 'recovered' | 'suppressed',
    detail: NonNullable<AuditEvent['detail']>
  ): Promise<void> {
    return this.#write(encodeBody(kind, { detail }, this.#clock.wallMs()));
  }

  #sumUp(suppressed: Suppressed): void {
    this.#note('suppressed', { ...suppressed }).catch((error: StoreError) => {
      this.#refusals.restore(suppressed);
      this.emit('problem', { error });
    });
  }

  #write(body: string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ body, resolve, reject });
      this.#writing ??= this.#writeQueue();
    });
  }

  async #writeQueue(): Promise<void> {
    // Lines of the same turn of the event loop go together from the first on.
    await undefined;
    while (this.#queue.length > 0) {
      const batch = this.#queue;
      this.#queue = [];
      await this.#writeBatch(batch);
    }
    this.#writing = undefined;
  }

  async #writeBatch(batch: readonly Pending[]): Promise<void> {
    const parts: Buffer[] = [];
    let head = this.#head;
    for (const { body } of batch) {
      const line = encodeLine(head, body);
      head = { seq: head.seq + 1, hash: hashOf(line) };
      parts.push(line, LINE_FEED);
    }
    const bytes = Buffer.concat(parts);
    try {
      if (this.#handle === undefined) {
        [this.#handle] = await replaceFile(this.path, [bytes]);
      } else {
        if (this.#isDirty) await this.#cutBack();
        this.#isDirty = true;
        await this.#handle.appendFile(bytes);
        await this.#handle.datasync();
        this.#isDirty = false;
      }
    } catch (error) {
      this.#counters.failed += batch.length;
      // If this fails too, it is done before the next line. A first line is repeated as a whole.
      if (this.#isDirty) await this.#cutBack().catch(() => {});
      const message = `cannot write ${this.path}: ${(error as Error).message}`;
      for (const { reject } of batch) reject(new StoreError(message, { cause: error }));
      return;
    }
    this.#size += bytes.length;
    this.#head = head;
    this.#counters.lines += batch.length;
    for (const { resolve } of batch) resolve();
  }

  async #cutBack(): Promise<void> {
    await this.#handle?.truncate(this.#size);
    await this.#handle?.sync();
    this.#isDirty = false;
  }
}

/** Returns undefined if there is no file. */
async function openExisting(path: string): Promise<FileHandle | undefined> {
  return open(path, constants.O_RDWR | constants.O_APPEND).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
}

function isRefusal({ kind }: AuditEvent): boolean {
  return kind === 'refused-handshake' || kind === 'refused-enrolment';
}

function codeOf({ kind, detail }: AuditEvent): string {
  return typeof detail?.code === 'string' ? detail.code : kind;
}

const NOTHING: Tail = { head: BEGINNING, intactBytes: 0, tornBytes: 0 };
const LINE_FEED: Buffer = /* @__PURE__ */ Buffer.from('\n');
