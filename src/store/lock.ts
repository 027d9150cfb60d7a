/**
 * A lock between processes without native code: a file of claims. A claim is one line, appended in
 * one write, so that all agree on the order of claims; the lock belongs to the first one that is
 * neither released nor of a process that has ended. Nothing is ever "stolen", which is where lock
 * files go wrong when two processes find the same stale one.
 *
 * A process is told from a later one with the same number by the time it started, where the system
 * says it (Linux). It does not work between machines, nor between containers that do not see each
 * other's processes.
 * @module
 */
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { type FileHandle, open, rename, stat } from 'node:fs/promises';
import { StoreError } from '../errors.ts';

interface Claim {
  readonly id: string;
  readonly pid: number;
  readonly startedAt: string;
}

export class FileLock {
  readonly #handle: FileHandle;
  readonly #claim: Claim;

  private constructor(handle: FileHandle, claim: Claim) {
    this.#handle = handle;
    this.#claim = claim;
  }

  /** @throws {StoreError} if another process, or this one, holds the lock. */
  static async acquire(path: string): Promise<FileLock> {
    const claim = { id: randomUUID(), pid: process.pid, startedAt: startOf(process.pid) ?? '' };
    for (;;) {
      const handle = await open(path, 'a+', 0o600);
      try {
        await handle.appendFile(lineOf(claim));
        const { claims, lines } = await readClaims(handle);
        const holder = claims.find(({ id, pid, startedAt }) => {
          return id === claim.id || startOf(pid) === startedAt;
        });
        if (holder?.id !== claim.id) {
          await handle.appendFile(lineOf({ released: claim.id }));
          throw new StoreError(`${path} is held by process ${holder?.pid}`);
        }
        // Checked last: whoever could replace the file held the lock, so ended before our claim won.
        if ((await stat(path)).ino === (await handle.stat()).ino) {
          const kept = lines > MAX_LINES ? await replace(path, claim) : handle;
          if (kept !== handle) await handle.close();
          return new FileLock(kept, claim);
        }
      } catch (error) {
        await handle.close();
        throw error;
      }
      await handle.close();
    }
  }

  async release(): Promise<void> {
    await this.#handle.appendFile(lineOf({ released: this.#claim.id }));
    await this.#handle.close();
  }
}

/** Begins with a line feed too, so that a line torn by a crash cannot swallow this one. */
function lineOf(value: Claim | { released: string }): string {
  return `\n${JSON.stringify(value)}\n`;
}

async function readClaims(handle: FileHandle): Promise<{ claims: Claim[]; lines: number }> {
  const bytes = Buffer.alloc((await handle.stat()).size);
  const { bytesRead } = await handle.read(bytes, 0, bytes.length, 0);
  const claims = new Map<string, Claim>();
  const lines = bytes.toString('utf8', 0, bytesRead).split('\n');
  for (const line of lines) {
    const value = parseLine(line);
    if (value === undefined) continue;
    if ('released' in value) claims.delete(value.released);
    else claims.set(value.id, value);
  }
  return { claims: [...claims.values()], lines: lines.length };
}

function parseLine(line: string): Claim | { released: string } | undefined {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

/** Starts the file anew with the holder's claim alone. */
async function replace(path: string, claim: Claim): Promise<FileHandle> {
  const handle = await open(`${path}.new`, 'w', 0o600);
  await handle.appendFile(lineOf(claim));
  await rename(`${path}.new`, path);
  return handle;
}

/** When process `pid` was started, in words that no other process shares; undefined: it ended. */
function startOf(pid: number): string | undefined {
  try {
    if (process.platform !== 'linux') {
      process.kill(pid, 0);
      return '';
    }
    // proc(5): the name, field 2, ends at the last ')'; field 3 is the state, 22 the start time
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
    return fields[0] === 'Z' || fields[0] === 'X' ? undefined : `${boot}/${fields[19]}`;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM' ? '' : undefined;
  }
}

const MAX_LINES = 256;
