import {
  appendFileSync,
  existsSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { type AuditEvent, AuditLog, verifyAuditLog } from '../../src/audit/index.ts';
import { ApiMisuseError, AuditError, StoreError } from '../../src/errors.ts';
import { FileLock } from '../../src/store/lock.ts';
import {
  fileOf,
  filledLog,
  linesOf,
  newPath,
  openLog,
  recordsOf,
  removeFiles,
} from './log-files.ts';

let handles: FileHandle;
beforeAll(async () => {
  const handle = await open(newPath(), 'w');
  handles = Object.getPrototypeOf(handle);
  await handle.close();
});
afterEach(() => vi.restoreAllMocks());
afterAll(removeFiles);

const EIO = new Error('EIO: i/o error');
const FULL = new Error('ENOSPC: no space left on device');

describe('AuditLog', () => {
  test('writes what happened, when, and in what order', async () => {
    const { log, path, clock } = await openLog();
    await log.append({ kind: 'start', actor: 'root', detail: { version: '1.0' } });
    clock.advance(1500);
    const event = { site: 'site-a', serial: '0a', remoteAddress: '192.0.2.1' };
    await log.append({ kind: 'enrolment', ...event });
    expect(recordsOf(path)).toEqual([
      {
        seq: 1,
        prev: '0'.repeat(64),
        time: '1970-01-01T00:16:40.000Z',
        kind: 'start',
        actor: 'root',
        detail: { version: '1.0' },
      },
      {
        seq: 2,
        prev: expect.stringMatching(/^[0-9a-f]{64}$/),
        time: '1970-01-01T00:16:41.500Z',
        kind: 'enrolment',
        ...event,
      },
    ]);
    await log.close();
    expect(await verifyAuditLog(path)).toEqual({ ok: true, lines: 2, head: log.head });
  });

  test('continues after its last line when it is opened again', async () => {
    const { path } = await filledLog(3);
    const { log } = await openLog({ path });
    expect(log.head).toMatchObject({ seq: 3 });
    await log.append({ kind: 'start' });
    await log.close();
    expect(await verifyAuditLog(path)).toEqual({ ok: true, lines: 4, head: log.head });
  });

  test('is readable by its owner only', async () => {
    const { path } = await filledLog(1);
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  test('makes durable what a killed process has left when it is opened', async () => {
    const { path } = await filledLog(1);
    const synced: boolean[] = [];
    const { sync } = handles;
    vi.spyOn(handles, 'sync').mockImplementation(async function (this: FileHandle) {
      synced.push((await this.stat()).isDirectory());
      return sync.call(this);
    });
    await (await AuditLog.open({ path })).close();
    expect(synced).toEqual([false, true]);
  });

  test('keeps events that arrive together in their order, each on its own line', async () => {
    const { path } = await filledLog(1);
    const { log } = await openLog({ path });
    const sync = vi.spyOn(handles, 'datasync');
    const events = Array.from(
      { length: 50 },
      (_, i) => ({ kind: 'token', site: `s${i}` }) as const
    );
    await Promise.all(events.map((event) => log.append(event)));
    expect(sync).toHaveBeenCalledTimes(1);
    const sites = recordsOf(path).map(({ site }) => site);
    expect(sites).toEqual(['site-1', ...events.map(({ site }) => site)]);
    expect(log.counters).toEqual({ lines: 50, suppressed: 0, failed: 0 });
    await log.close();
  });

  test('resolves no line before the fsync', async () => {
    const { path } = await filledLog(1);
    const { log } = await openLog({ path });
    const syncs: (() => void)[] = [];
    vi.spyOn(handles, 'datasync').mockImplementation(
      () => new Promise<void>((resolve) => syncs.push(resolve))
    );
    let isDurable = false;
    const appended = log.append({ kind: 'start' }).then(() => {
      isDurable = true;
    });
    await vi.waitFor(() => expect(syncs).toHaveLength(1));
    await new Promise(setImmediate);
    expect([isDurable, log.head.seq]).toEqual([false, 1]);
    syncs[0]!();
    await appended;
    expect(log.head.seq).toBe(2);
    await log.close();
  });

  test('writes text of an unauthenticated peer on one line', async () => {
    const { log, path } = await openLog();
    const text = '\n{"seq":2}\r\u2028\ud800"\\\0';
    await log.append({ kind: 'refused-enrolment', remoteAddress: text, detail: { text } });
    await log.close();
    expect(linesOf(path)).toHaveLength(1);
    expect(recordsOf(path)[0]).toMatchObject({ remoteAddress: text, detail: { text } });
    expect(await verifyAuditLog(path)).toMatchObject({ ok: true, lines: 1 });
  });

  test('replaces a detail that is too long for a line by its length', async () => {
    const { log, path } = await openLog();
    await log.append({ kind: 'ca', site: 'site-a', detail: { text: '€'.repeat(30_000) } });
    expect(recordsOf(path)[0]).toMatchObject({ site: 'site-a', detail: { omittedBytes: 90_011 } });
    await log.close();
    expect(await verifyAuditLog(path)).toMatchObject({ ok: true, lines: 1 });
  });

  test('refuses an event that cannot be a line, and writes nothing', async () => {
    const { log, path } = await openLog();
    const loop: Record<string, unknown> = {};
    loop.loop = loop;
    for (const event of [
      { kind: 'recovered' },
      { kind: 'ca', detail: loop },
      { kind: 'ca', detail: { big: 1n } },
      { kind: 'ca', actor: 'x'.repeat(70_000) },
    ]) {
      await expect(log.append(event as unknown as AuditEvent)).rejects.toThrow(ApiMisuseError);
    }
    await log.close();
    expect(existsSync(path)).toBe(false);
  });

  test('waits for the lines in progress when it is closed, and refuses others', async () => {
    const { log, path } = await openLog();
    const appended = log.append({ kind: 'start' });
    await log.close();
    await appended;
    expect(linesOf(path)).toHaveLength(1);
    await expect(log.append({ kind: 'start' })).rejects.toThrow(StoreError);
    await log.close();
  });

  test('can be open only once, also under another name', async () => {
    const { log, path } = await openLog();
    const alias = newPath();
    symlinkSync(path, alias);
    for (const name of [path, alias]) {
      await expect(AuditLog.open({ path: name })).rejects.toThrow(StoreError);
    }
    await log.close();
    await (await AuditLog.open({ path: alias })).close();
  });

  test('reports which file it cannot open', async () => {
    const path = join(newPath(), 'audit.log');
    await expect(AuditLog.open({ path })).rejects.toThrow(`cannot open ${path}: ENOENT`);
  });
});

describe('a new audit log', () => {
  test('has no file until its first line', async () => {
    const { log, path } = await openLog();
    expect(existsSync(path)).toBe(false);
    const sync = vi.spyOn(handles, 'sync');
    await log.append({ kind: 'start' });
    // The syncs of the file and of its directory.
    expect(sync).toHaveBeenCalledTimes(2);
    await log.append({ kind: 'ca' });
    await log.close();
    expect(existsSync(`${path}.new`)).toBe(false);
    expect(await verifyAuditLog(path)).toMatchObject({ ok: true, lines: 2 });
  });

  test('is refused if the file has become empty', async () => {
    const path = fileOf('');
    const opened = AuditLog.open({ path });
    await expect(opened).rejects.toThrow(
      new AuditError(
        `${path} is empty, and an audit log never is: its lines were lost. Put a copy in its place; move it away only to begin a new log`
      )
    );
    expect(statSync(path).size).toBe(0);
    expect(await verifyAuditLog(path)).toEqual({
      ok: false,
      line: 1,
      fault: 'truncated',
      message: 'it is empty, and an audit log never is',
    });
  });

  test('makes its file again after any failure, and never with half a line', async () => {
    for (const method of ['appendFile', 'sync'] as const) {
      for (const failures of [1, 2]) {
        const { log, path } = await openLog();
        // The second sync is of the directory.
        const { [method]: call } = handles;
        let calls = 0;
        const spy = vi.spyOn(handles, method).mockImplementation(async function (
          this: FileHandle,
          ...args: unknown[]
        ) {
          if (++calls === failures) throw EIO;
          return (call as (...values: unknown[]) => Promise<void>).apply(this, args);
        });
        const lines = [log.append({ kind: 'start' })];
        const [outcome] = await Promise.allSettled(lines);
        spy.mockRestore();
        await log.append({ kind: 'ca' });
        await log.close();
        const kinds = outcome!.status === 'fulfilled' ? ['start', 'ca'] : ['ca'];
        expect(recordsOf(path).map(({ kind }) => kind)).toEqual(kinds);
        expect(await verifyAuditLog(path)).toMatchObject({ ok: true, lines: kinds.length });
      }
    }
  });
});

describe('an audit log after a crash', () => {
  test('has no line that was refused when it was closed', async () => {
    const { path } = await filledLog(1);
    const { log } = await openLog({ path });
    vi.spyOn(handles, 'datasync').mockRejectedValueOnce(EIO);
    vi.spyOn(handles, 'truncate').mockRejectedValueOnce(EIO);
    await expect(log.append({ kind: 'ca' })).rejects.toThrow(StoreError);
    await log.close();
    expect(linesOf(path)).toHaveLength(1);
  });

  test('keeps its complete lines wherever the last one was torn, and records what it dropped', async () => {
    const { path, lines } = await filledLog(3);
    const bytes = readFileSync(path);
    const intact = bytes.length - lines[2]!.length - 1;
    for (let keep = intact + 1; keep < bytes.length; keep += 7) {
      const torn = fileOf(bytes.subarray(0, keep));
      expect(await verifyAuditLog(torn)).toMatchObject({ ok: false, line: 3, fault: 'truncated' });
      const { log } = await openLog({ path: torn });
      expect(log.recoveredBytes).toBe(keep - intact);
      await log.append({ kind: 'start' });
      await log.close();
      expect(linesOf(torn).slice(0, 2)).toEqual(lines.slice(0, 2));
      expect(recordsOf(torn).slice(2)).toMatchObject([
        { seq: 3, kind: 'recovered', detail: { droppedBytes: keep - intact } },
        { seq: 4, kind: 'start' },
      ]);
      expect(await verifyAuditLog(torn)).toEqual({ ok: true, lines: 4, head: log.head });
    }
  });

  test('starts again if not even its first line is complete', async () => {
    const { log, path } = await openLog({ path: fileOf('{"seq":1,"pr') });
    await log.close();
    expect(recordsOf(path)).toMatchObject([{ seq: 1, kind: 'recovered' }]);
  });

  test('drops zeros that the file system has left in the place of a line', async () => {
    const { path } = await filledLog(2);
    appendFileSync(path, Buffer.alloc(4096));
    const { log } = await openLog({ path });
    await log.close();
    expect(recordsOf(path)[2]).toMatchObject({ kind: 'recovered', detail: { droppedBytes: 4096 } });
  });

  test('reads only its last lines when it is opened, however long it is', async () => {
    const { log: writer, path } = await openLog();
    const detail = { text: 'x'.repeat(60_000) };
    for (let i = 0; i < 20; i++) await writer.append({ kind: 'ca', detail });
    await writer.close();
    const bytes = readFileSync(path);
    bytes[1000] = 0x79;
    writeFileSync(path, bytes);
    const read = vi.spyOn(handles, 'read');
    const { log } = await openLog({ path });
    const total = read.mock.results.map(async ({ value }) => (await value).bytesRead as number);
    // The reads include those of the lock.
    const sum = (await Promise.all(total)).reduce((a, b) => a + b, 0);
    expect(sum).toBeLessThan(300_000);
    expect(log.head).toEqual(writer.head);
    await log.close();
    expect(await verifyAuditLog(path)).toMatchObject({ ok: false, line: 1, fault: 'changed' });
  });
});

describe('a file that was changed or is not an audit log', () => {
  /** Returns the error of opening it, after checking that its bytes have not changed. */
  async function opened(content: string | Uint8Array): Promise<unknown> {
    const path = fileOf(content);
    const before = readFileSync(path);
    const error = await AuditLog.open({ path }).then(
      (log) => log.close(),
      (fault: unknown) => fault
    );
    expect(readFileSync(path).equals(before)).toBe(true);
    // The lock was released, so it can be taken again.
    await (await FileLock.acquire(`${path}.lock`)).release();
    return error;
  }

  test('is refused and stays unchanged', async () => {
    const { lines } = await filledLog(4);
    const joined = (each: readonly string[]) => each.map((line) => `${line}\n`).join('');
    const moved = lines[1]!.replace('site-2', 'site-9');
    for (const [what, content] of [
      ['a changed line', joined(lines.with(1, moved))],
      [
        'a change in the line before the last',
        joined(lines.with(2, lines[2]!.replace('site-3', 'site-9'))),
      ],
      ['a missing line', joined(lines.toSpliced(1, 1))],
      ['no first line', joined(lines.slice(1))],
      ['a repeated last line', joined([...lines, lines[3]!])],
      ['a last line of something else', joined([...lines, 'hello'])],
      ['half a line of something else', `${joined(lines)}hello`],
      ['a text', 'hello'],
      ['a torn line of 80 kB', `${joined(lines)}{"seq":5${' '.repeat(80_000)}`],
      ['a line of 400 kB', `{"seq":1${' '.repeat(400_000)}\n`],
      ['400 kB', 'x'.repeat(400_000)],
    ] as const) {
      expect(await opened(content), what).toBeInstanceOf(AuditError);
    }
  });
});

describe('an audit log whose medium fails', () => {
  test('removes a line that is not durable, and continues with the next', async () => {
    const { log, path } = await openLog();
    await log.append({ kind: 'start' });
    vi.spyOn(handles, 'datasync').mockRejectedValueOnce(EIO);
    await expect(log.append({ kind: 'ca' })).rejects.toThrow(
      new StoreError(`cannot write ${path}: EIO: i/o error`)
    );
    expect(linesOf(path)).toHaveLength(1);
    await log.append({ kind: 'token' });
    expect(log.counters).toEqual({ lines: 2, suppressed: 0, failed: 1 });
    await log.close();
    expect(recordsOf(path).map(({ kind }) => kind)).toEqual(['start', 'token']);
    expect(await verifyAuditLog(path, { head: log.head })).toMatchObject({ ok: true, lines: 2 });
  });

  test('leaves no half line when the disk is full, even if it cannot truncate it at once', async () => {
    const { log, path } = await openLog();
    await log.append({ kind: 'start' });
    vi.spyOn(handles, 'appendFile').mockImplementationOnce(async () => {
      appendFileSync(path, '{"seq":2,"prev');
      throw FULL;
    });
    const truncate = vi.spyOn(handles, 'truncate').mockRejectedValueOnce(EIO);
    await expect(log.append({ kind: 'ca' })).rejects.toThrow(StoreError);
    expect(linesOf(path)).toHaveLength(2);
    truncate.mockRejectedValueOnce(EIO).mockRejectedValueOnce(EIO);
    await expect(log.append({ kind: 'ca' })).rejects.toThrow(StoreError);
    await log.append({ kind: 'token' });
    await log.close();
    expect(recordsOf(path).map(({ kind }) => kind)).toEqual(['start', 'token']);
    expect(log.counters).toEqual({ lines: 2, suppressed: 0, failed: 2 });
    expect(await verifyAuditLog(path)).toMatchObject({ ok: true, lines: 2 });
  });

  test('fails all lines that were to be written together', async () => {
    const { log, path } = await openLog();
    vi.spyOn(handles, 'sync').mockRejectedValueOnce(EIO);
    const both = [log.append({ kind: 'start' }), log.append({ kind: 'ca' })];
    const outcomes = await Promise.allSettled(both);
    expect(outcomes.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    expect([existsSync(path), log.counters.failed, log.head.seq]).toEqual([false, 2, 0]);
    await log.close();
  });

  test('is not opened if the line about a crash cannot be written', async () => {
    const path = fileOf('{"seq":1,');
    vi.spyOn(handles, 'appendFile').mockImplementation(async () => {
      throw FULL;
    });
    await expect(AuditLog.open({ path })).rejects.toThrow(StoreError);
    vi.restoreAllMocks();
    await (await AuditLog.open({ path })).close();
  });
});
