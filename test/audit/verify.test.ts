import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type AuditHead, verifyAuditLog } from '../../src/audit/index.ts';
import { StoreError } from '../../src/errors.ts';
import { fileOf, filledLog, newPath, removeFiles } from './log-files.ts';

const COUNT = 12;
const NOTHING = '0'.repeat(64);

afterAll(removeFiles);

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');
const joined = (lines: readonly string[]): string => lines.map((line) => `${line}\n`).join('');

/** A line with other content that follows from `previous`. */
function forged(previous: string | undefined, seq: number, more: object = {}): string {
  const prev = previous === undefined ? NOTHING : sha256(previous);
  return JSON.stringify({ seq, prev, time: '2026-01-01T00:00:00.000Z', kind: 'expose', ...more });
}

let path: string;
let lines: string[];
let head: AuditHead;

beforeAll(async () => {
  ({ path, lines } = await filledLog(COUNT));
  head = { seq: COUNT, hash: sha256(lines[COUNT - 1]!) };
});

async function verdictOf(content: string | Uint8Array, known: AuditHead | undefined = head) {
  return verifyAuditLog(fileOf(content), { head: known });
}

/** Returns the line and the fault that are found, as a text. */
async function faultOf(content: string | Uint8Array, known?: AuditHead): Promise<string> {
  const verdict = await verdictOf(content, known);
  return verdict.ok ? 'none' : `${verdict.line} ${verdict.fault}`;
}

describe('verifyAuditLog', () => {
  test('accepts an unchanged log, and returns its number of lines', async () => {
    expect(await verifyAuditLog(path)).toEqual({ ok: true, lines: COUNT, head });
    expect(await verifyAuditLog(path, { head })).toEqual({ ok: true, lines: COUNT, head });
  });

  test('accepts a log that has grown since its head was noted', async () => {
    const earlier = { seq: 5, hash: sha256(lines[4]!) };
    expect(await verifyAuditLog(path, { head: earlier })).toMatchObject({ ok: true, head });
  });

  test('detects that all lines were removed, also without a head', async () => {
    expect(await verifyAuditLog(fileOf(''))).toMatchObject({ ok: false, fault: 'truncated' });
    expect(await faultOf('')).toBe('1 truncated');
  });

  test('detects any change of a byte, at its line', async () => {
    const bytes = readFileSync(path);
    await fc.assert(
      fc.asyncProperty(
        fc.nat(bytes.length - 1),
        fc.integer({ min: 1, max: 255 }),
        async (at, flip) => {
          const copy = Buffer.from(bytes);
          copy[at]! ^= flip;
          const line = bytes.subarray(0, at).toString('latin1').split('\n').length;
          const verdict = await verdictOf(copy);
          expect(verdict).toMatchObject({ ok: false, line });
        }
      ),
      { numRuns: 500 }
    );
  });

  test('detects any removed line', async () => {
    for (let at = 0; at < COUNT; at++) {
      const fault = await faultOf(joined(lines.toSpliced(at, 1)));
      expect(fault).toBe(`${at + 1} ${at === COUNT - 1 ? 'truncated' : 'missing'}`);
    }
  });

  test('detects any two swapped lines, at the first of them', async () => {
    for (let a = 0; a < COUNT; a++) {
      for (let b = a + 1; b < COUNT; b++) {
        const swapped = lines.with(a, lines[b]!).with(b, lines[a]!);
        expect(await faultOf(joined(swapped))).toBe(`${a + 1} missing`);
      }
    }
  });

  test('detects any repeated line, wherever it is inserted', async () => {
    for (let from = 0; from < COUNT; from++) {
      for (let at = 0; at <= COUNT; at++) {
        // The fault is at the second of two equal lines.
        const line = at === from ? at + 2 : at + 1;
        const fault = await faultOf(joined(lines.toSpliced(at, 0, lines[from]!)));
        expect(fault, `${from} at ${at}`).toBe(`${line} ${from > at ? 'missing' : 'changed'}`);
      }
    }
  });

  test('detects an inserted line, even if it follows from the one before it', async () => {
    for (let at = 0; at < COUNT; at++) {
      const extra = forged(lines[at - 1], at + 1);
      expect(await faultOf(joined(lines.toSpliced(at, 0, extra)))).toBe(`${at + 1} changed`);
    }
  });

  test('detects a replaced line, even if it follows from the one before it', async () => {
    for (let at = 0; at < COUNT; at++) {
      const other = forged(lines[at - 1], at + 1);
      expect(await faultOf(joined(lines.with(at, other)))).toBe(`${at + 1} changed`);
    }
  });

  test('detects a change in the line before the last one without a head', async () => {
    const other = joined(lines.with(COUNT - 2, forged(lines[COUNT - 3], COUNT - 1)));
    expect(await verifyAuditLog(fileOf(other))).toMatchObject({ ok: false, line: COUNT - 1 });
  });

  test('detects a line of which only the number was changed', async () => {
    for (let at = 0; at < COUNT; at++) {
      const other = lines[at]!.replace(`"seq":${at + 1}`, `"seq":${at + 3}`);
      expect(await faultOf(joined(lines.with(at, other)))).toBe(`${at + 1} changed`);
    }
  });

  test('detects a first line that claims to follow another', async () => {
    const first = forged('another', 1);
    const rewritten = joined([first, forged(first, 2), forged('a third', 3)]);
    expect(await verifyAuditLog(fileOf(rewritten))).toMatchObject({
      ok: false,
      line: 1,
      fault: 'changed',
    });
    const alone = fileOf(joined([first]));
    expect(await verifyAuditLog(alone)).toMatchObject({ ok: false, line: 1, fault: 'changed' });
  });

  test('detects with a noted head that everything was written again, and not without', async () => {
    const rewritten: string[] = [];
    for (let i = 0; i < COUNT; i++) rewritten.push(forged(rewritten.at(-1), i + 1));
    expect(await faultOf(joined(rewritten))).toBe(`${COUNT} changed`);
    expect(await verifyAuditLog(fileOf(joined(rewritten)))).toMatchObject({ ok: true });
  });

  test('detects with a noted head that the end was truncated, and not without', async () => {
    for (let keep = 1; keep < COUNT; keep++) {
      const cut = joined(lines.slice(0, keep));
      expect(await faultOf(cut)).toBe(`${keep + 1} truncated`);
      expect(await verifyAuditLog(fileOf(cut))).toMatchObject({ ok: true, lines: keep });
    }
  });

  test('detects half a line at the end, also without a head', async () => {
    const bytes = readFileSync(path);
    for (const keep of [1, 50, bytes.length - 1]) {
      const verdict = await verifyAuditLog(fileOf(bytes.subarray(0, keep)));
      const line = bytes.subarray(0, keep).toString('latin1').split('\n').length;
      expect(verdict).toMatchObject({ ok: false, line, fault: 'truncated' });
    }
  });

  test.each([
    ['an empty line', ''],
    ['other JSON', '[1]'],
    ['null', 'null'],
    ['no number', '{"prev":"","time":"","kind":""}'],
    ['a number that is none', forged(undefined, 1.5)],
    ['a hash that is none', forged(undefined, 1, { prev: 'F'.repeat(64) })],
    ['no time', forged(undefined, 1, { time: undefined })],
    ['no kind', forged(undefined, 1, { kind: 7 })],
    ['65 KiB', forged(undefined, 1, { site: 'x'.repeat(65 * 1024) })],
  ])('reports a line of %s as malformed', async (_, line) => {
    expect(await faultOf(joined([line]))).toBe('1 malformed');
  });

  test('reads a line without an end only up to the limit', async () => {
    expect(await faultOf(Buffer.alloc(16 * 1024 * 1024, 0x20))).toBe('1 malformed');
  });

  test('accepts lines of the maximum length, across the chunks of the file', async () => {
    const long: string[] = [];
    for (let i = 0; i < 5; i++) {
      const bare = forged(long.at(-1), i + 1, { site: '' });
      long.push(forged(long.at(-1), i + 1, { site: 'x'.repeat(64 * 1024 - bare.length) }));
    }
    expect(long[0]).toHaveLength(64 * 1024);
    expect(await verifyAuditLog(fileOf(joined(long)))).toMatchObject({ ok: true, lines: 5 });
  });

  test('throws a StoreError when there is no file', async () => {
    await expect(verifyAuditLog(newPath())).rejects.toThrow(StoreError);
  });
});
