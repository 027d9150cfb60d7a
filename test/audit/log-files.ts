/**
 * Files with audit logs for tests.
 * @module
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AuditLog, type AuditLogOptions } from '../../src/audit/index.ts';
import { FakeClock } from '../support/fake-clock.ts';

let directory: string | undefined;
let files = 0;

/** The path of a file that does not exist yet, in a directory that `removeFiles` removes. */
export function newPath(): string {
  directory ??= mkdtempSync(join(tmpdir(), 'audit-'));
  return join(directory, `audit-${files++}.log`);
}

export function removeFiles(): void {
  if (directory !== undefined) rmSync(directory, { recursive: true });
  directory = undefined;
}

/** Writes a file with these bytes. */
export function fileOf(content: string | Uint8Array): string {
  const path = newPath();
  writeFileSync(path, content);
  return path;
}

export async function openLog(
  options: Partial<AuditLogOptions> = {}
): Promise<{ log: AuditLog; path: string; clock: FakeClock }> {
  const clock = new FakeClock({ wallMs: 1_000_000 });
  const path = options.path ?? newPath();
  const log = await AuditLog.open({ clock, ...options, path });
  return { log, path, clock };
}

/** Returns the lines of a log, without line feeds. */
export function linesOf(path: string): string[] {
  const text = readFileSync(path, 'utf8');
  return text === '' ? [] : text.replace(/\n$/, '').split('\n');
}

export function recordsOf(path: string): Record<string, unknown>[] {
  return linesOf(path).map((line) => JSON.parse(line));
}

/** Writes and closes a log with this many lines about sites. */
export async function filledLog(count: number): Promise<{ path: string; lines: string[] }> {
  const { log, path } = await openLog();
  for (let i = 1; i <= count; i++) {
    await log.append({ kind: 'expose', site: `site-${i}`, detail: { service: 'rabbitmq' } });
  }
  await log.close();
  return { path, lines: linesOf(path) };
}
