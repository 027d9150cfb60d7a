/**
 * An audit log is an append-only file of JSON lines. Each line contains the hash of the line before (`line.ts`), so that
 * a changed line is detected (`verify.ts`). This does not prevent somebody who can write the file from writing all of it
 * again; against that, copy `head` to another place from time to time.
 *
 * Lines are durable before `append` resolves. Lines that arrive during a sync share the next one. The first lines make
 * the file, so an empty file has lost its lines. The file grows for ever: there is no rotation. To begin a new one,
 * close the log, move the file away, and note its head in the `start` of the new one.
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
   * The file; the first line makes it with mode 0600 if it does not exist. Its directory must exist, on a local file
   * system. Next to it is the directory `<path>.lock`, which excludes other processes on this machine, also in other
   * containers.
   */
  readonly path: string;
  /** Default: the system's clock. Its timers do not keep the process alive. */
  readonly clock?: Clock | undefined;
}

export interface AuditLogEvents {
  /** The line with the summary of refusals, for which nobody waits, cannot be written. */
  problem: [problem: { readonly error: StoreError }];
}

/** Counters since the log was opened. */
export interface AuditCounters {
  /** Lines that were written. */
  lines: number;
  /** Refusals without their own line. */
  suppressed: number;
  /** Lines that could not be written. */
  failed: number;
}

interface Pending {
  readonly body: string;
  readonly resolve: () => void;
  readonly reject: (error: StoreError) => void;
}

/** The only writer of an audit log; it excludes other processes until it is closed. */
export class AuditLog extends EventEmitter<AuditLogEvents> {
  readonly path: string;
  /** How many bytes of an unfinished line were cut off when the file was opened after a crash. */
  readonly recoveredBytes: number;
  readonly #counters: AuditCounters = { lines: 0, suppressed: 0, failed: 0 };
  /** Undefined while there is no file. The first lines make it, so that it is never empty. */
  #handle: FileHandle | undefined;
  readonly #lock: FileLock;
  readonly #clock: Clock;
  readonly #refusals: RefusalLimit;
  #head: AuditHead;
  /** The size of the complete, durable lines, in bytes. */
  #size: number;
  /** Whether the file may hold more than that. */
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
    this.#refusals = new RefusalLimit(limits, clock, (suppressed) => this.#summarise(suppressed));
  }

  /**
   * Opens the file; if there is none, the first line makes it. An unfinished line that a crash has left is cut off, and
   * a line of the kind `recovered` records that. Only the last lines are verified, so that a long log opens as fast as a
   * short one; `verifyAuditLog` verifies all.
   *
   * @throws {AuditError} if the file is empty, or its last lines are not consistent or not lines of an audit log.
   * @throws {StoreError} if the file is open elsewhere, or cannot be read or written.
   * @throws {ApiMisuseError} if an option is invalid, for example a limit that is not a whole number from 0.
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
        // No line is complete, so the first new line replaces the file.
        await handle.close();
        handle = undefined;
      }
      if (handle !== undefined) {
        // The lines may not be durable yet if the process that wrote them was killed.
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

  /** The number and hash of the last durable line. */
  get head(): AuditHead {
    return this.#head;
  }

  get counters(): Readonly<AuditCounters> {
    return this.#counters;
  }

  /**
   * Writes a line, which is durable when it resolves. A refusal above the limit is only counted for a later summary and
   * resolves at once. A `detail` that is too long is replaced by its length.
   *
   * @throws {StoreError} if the disk fails or the log is closed. Then nothing was written, and a later call may succeed.
   * @throws {ApiMisuseError} if the event cannot be written as a line.
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

  /** Writes the summary of refusals, waits for lines in progress, and closes the file. */
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

  #summarise(suppressed: Suppressed): void {
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
    // Waits for the other lines of the same turn of the event loop, to write them together.
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
      // If this fails too, it is repeated before the next line. There is nothing to cut off for the first line.
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
