import { type FileHandle, open } from 'node:fs/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { AuditLog, verifyAuditLog } from '../../src/audit/index.ts';
import { ApiMisuseError, StoreError } from '../../src/errors.ts';
import { newPath, openLog, recordsOf, removeFiles } from './log-files.ts';

let handles: FileHandle;
beforeAll(async () => {
  const handle = await open(newPath(), 'w');
  handles = Object.getPrototypeOf(handle);
  await handle.close();
});
afterEach(() => vi.restoreAllMocks());
afterAll(removeFiles);

const refusal = (code: string) => ({ kind: 'refused-handshake', detail: { code } }) as const;
const refusalOf = (site: string) => ({ ...refusal('revoked'), site, serial: '0b' }) as const;
const countOf = (path: string, name: string) =>
  recordsOf(path).filter(({ site }) => site === name).length;
const kindsIn = (path: string) => recordsOf(path).map(({ kind }) => kind);

async function refuse(log: AuditLog, count: number, code = 'no-certificate'): Promise<void> {
  await Promise.all(Array.from({ length: count }, () => log.append(refusal(code))));
}

/** Waits for the line with the summary. */
async function linesWritten(log: AuditLog, count: number): Promise<void> {
  await vi.waitFor(() => expect(log.counters.lines).toBe(count));
}

describe('refusals', () => {
  test('above the limit of a minute share one line at its end', async () => {
    const { log, path, clock } = await openLog({ maxRefusalsPerMinute: 3 });
    await refuse(log, 5);
    await refuse(log, 1000, 'revoked');
    await log.append({ kind: 'refused-enrolment', detail: { other: 1 } });
    clock.advance(59_999);
    expect(kindsIn(path)).toEqual(Array(3).fill('refused-handshake'));
    expect(log.counters).toEqual({ lines: 3, suppressed: 1003, failed: 0 });
    clock.advance(1);
    await linesWritten(log, 4);
    expect(recordsOf(path)[3]).toMatchObject({
      kind: 'suppressed',
      detail: {
        count: 1003,
        codes: { 'no-certificate': 2, revoked: 1000, 'refused-enrolment': 1 },
      },
    });
    await log.close();
    expect(await verifyAuditLog(path)).toMatchObject({ ok: true, lines: 4 });
  });

  test('get lines again in the next minute, which the first of them starts', async () => {
    const { log, path, clock } = await openLog({ maxRefusalsPerMinute: 2 });
    await refuse(log, 2);
    clock.advance(60_000);
    expect(clock.delays).toEqual([]);
    clock.advance(45_000);
    await refuse(log, 3);
    clock.advance(59_999);
    expect(log.counters).toEqual({ lines: 4, suppressed: 1, failed: 0 });
    clock.advance(1);
    await linesWritten(log, 5);
    await log.close();
    expect(kindsIn(path).at(-1)).toBe('suppressed');
  });

  test('get at most 60 lines in a minute by default', async () => {
    const { log } = await openLog();
    await refuse(log, 61);
    expect(log.counters).toEqual({ lines: 60, suppressed: 1, failed: 0 });
    await log.close();
  });

  test('do not limit lines of other kinds', async () => {
    const { log, path } = await openLog({ maxRefusalsPerMinute: 0 });
    await refuse(log, 10);
    await log.append({ kind: 'revocation', site: 'site-a' });
    expect(kindsIn(path)).toEqual(['revocation']);
    await log.close();
  });

  test('are summarised when the log is closed', async () => {
    const { log, path, clock } = await openLog({ maxRefusalsPerMinute: 1 });
    await refuse(log, 5);
    await log.close();
    expect(recordsOf(path)[1]).toMatchObject({ kind: 'suppressed', detail: { count: 4 } });
    expect(clock.delays).toEqual([]);
  });

  test('are summarised later if the line cannot be written, and a problem is emitted', async () => {
    const errors: StoreError[] = [];
    const { log, path, clock } = await openLog({ maxRefusalsPerMinute: 1 });
    log.on('problem', ({ error }) => errors.push(error));
    await refuse(log, 3);
    vi.spyOn(handles, 'datasync').mockRejectedValueOnce(new Error('EIO: i/o error'));
    clock.advance(60_000);
    await vi.waitFor(() => expect(errors).toHaveLength(1));
    expect(errors[0]).toBeInstanceOf(StoreError);
    await refuse(log, 2);
    clock.advance(60_000);
    await linesWritten(log, 3);
    expect(recordsOf(path)[2]).toMatchObject({
      detail: { count: 3, codes: { 'no-certificate': 3 } },
    });
    await log.close();
    expect(await verifyAuditLog(path)).toMatchObject({ ok: true, lines: 3 });
  });

  test('of an authenticated site get their own lines, however many unauthenticated peers connect', async () => {
    const { log, path, clock } = await openLog();
    await refuse(log, 1000);
    for (let i = 0; i < 5; i++) await log.append(refusalOf('site-a'));
    expect(recordsOf(path).filter(({ site }) => site === 'site-a')).toHaveLength(5);
    // One site does not use the limit of another, or of unauthenticated peers in the next minute.
    for (let i = 0; i < 1000; i++) await log.append(refusalOf('site-b'));
    await log.append(refusalOf('site-a'));
    await log.append({ kind: 'refused-enrolment', serial: '0a', detail: { code: 'renewal' } });
    expect(countOf(path, 'site-a')).toBe(6);
    expect(countOf(path, 'site-b')).toBe(10);
    expect(kindsIn(path).at(-1)).toBe('refused-enrolment');
    clock.advance(60_000);
    await linesWritten(log, 60 + 6 + 10 + 1 + 1);
    expect(recordsOf(path).at(-1)).toMatchObject({
      kind: 'suppressed',
      detail: {
        count: 940 + 990,
        codes: { 'no-certificate': 940, revoked: 990 },
        peers: { 'site-b': 990 },
      },
    });
    await log.append(refusalOf('site-b'));
    expect(countOf(path, 'site-b')).toBe(11);
    await log.close();
  });

  test('of authenticated sites have the limit that is set, also 0', async () => {
    const { log, path } = await openLog({ maxRefusalsPerMinute: 2, maxSiteRefusalsPerMinute: 0 });
    await refuse(log, 2);
    await log.append(refusalOf('site-a'));
    await log.close();
    expect(kindsIn(path)).toEqual(['refused-handshake', 'refused-handshake', 'suppressed']);
    expect(recordsOf(path)[2]).toMatchObject({ detail: { count: 1, peers: { 'site-a': 1 } } });
  });

  test('of sites beyond the first 256 share one limit, separate from that of unauthenticated peers', async () => {
    const { log, path } = await openLog({ maxRefusalsPerMinute: 3, maxSiteRefusalsPerMinute: 2 });
    await refuse(log, 3);
    for (let i = 0; i < 300; i++) {
      for (let j = 0; j < 3; j++) await log.append(refusalOf(`site-${i}`));
    }
    for (let i = 0; i < 256; i++) expect(countOf(path, `site-${i}`)).toBe(2);
    expect(recordsOf(path)).toHaveLength(3 + 256 * 2 + 3);
    await log.close();
    const { count, peers } = recordsOf(path).at(-1)!.detail as { count: number; peers: object };
    expect(count).toBe(900 - 256 * 2 - 3);
    expect(Object.keys(peers)).toHaveLength(257);
    expect(peers).toMatchObject({ 'site-0': 1, others: 44 * 3 - 3 });
  });

  test('are summarised in one line, also for sites with very long names', async () => {
    const { log, path } = await openLog({ maxRefusalsPerMinute: 0, maxSiteRefusalsPerMinute: 0 });
    for (let i = 0; i < 300; i++) {
      await log.append({ ...refusal(`${i} ${'x'.repeat(99)}`), site: `${i} ${'€'.repeat(999)}` });
    }
    await log.close();
    expect(recordsOf(path)[0]).toMatchObject({ detail: { count: 300 } });
  });

  test.each([
    { maxRefusalsPerMinute: -1 },
    { maxRefusalsPerMinute: Number.NaN },
    { maxSiteRefusalsPerMinute: 1.5 },
  ])('cannot have the limit %o', async (options) => {
    await expect(openLog(options)).rejects.toThrow(ApiMisuseError);
  });

  test('set no timer when the last lines could not be written', async () => {
    const onProblem = vi.fn();
    const { log, clock } = await openLog({ maxRefusalsPerMinute: 0 });
    log.on('problem', onProblem);
    await refuse(log, 3);
    vi.spyOn(handles, 'sync').mockRejectedValueOnce(new Error('EIO: i/o error'));
    await log.close();
    expect(onProblem).toHaveBeenCalledTimes(1);
    expect(clock.delays).toEqual([]);
  });

  test('use bounded memory for any number of codes', async () => {
    const { log, path } = await openLog({ maxRefusalsPerMinute: 0 });
    for (let i = 0; i < 5000; i++) await log.append(refusal(`${i} ${'x'.repeat(1000)}`));
    await log.close();
    const { count, codes } = recordsOf(path)[0]!.detail as { count: number; codes: object };
    expect(count).toBe(5000);
    expect(Object.keys(codes)).toHaveLength(33);
    expect(codes).toMatchObject({ others: 4968 });
    expect(JSON.stringify(codes).length).toBeLessThan(3000);
  });

  test('do not keep the process alive', async () => {
    const unref = vi.spyOn(Object.getPrototypeOf(setTimeout(() => {}, 0)), 'unref');
    const log = await AuditLog.open({ path: newPath() });
    await refuse(log, 1);
    expect(unref).toHaveBeenCalledTimes(1);
    await log.close();
  });
});
