/**
 * A program that a newcomer can write with the documents and the types alone: `newcomer-program.ts`, which
 * docs/embedding.md shows.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import * as root from '../../src/index.ts';

const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url));
const PROGRAM = fileURLToPath(new URL('newcomer-program.ts', import.meta.url));

const source = readFileSync(PROGRAM, 'utf8');
const embedding = readFileSync(`${REPOSITORY}/docs/embedding.md`, 'utf8');

test('a program of less than 60 lines runs a cloud and two sites, prints who is who and why a site is revoked, and ends', () => {
  expect(source.trim().split('\n').length).toBeLessThan(60);
  const { stdout, stderr, status, signal } = spawnSync(
    process.execPath,
    ['--import', 'tsx', PROGRAM],
    { cwd: REPOSITORY, encoding: 'utf8', timeout: 60_000 }
  );
  expect({ status, signal }, stderr).toEqual({ status: 0, signal: null });
  expect(stdout.trim().split('\n')).toEqual([
    '10.0.0.129 is 10.0.0.5 of site-a, and says "I am site-a"',
    'site-a: echo is 10.0.0.129, and answers "I am site-a"',
    '10.0.0.144 is 10.0.0.5 of site-b, and says "I am site-b"',
    'site-b: echo is 10.0.0.129, and answers "I am site-b"',
    'site-a: rejected, revoked (operator, token); site-b: online',
  ]);
  expect(embedding).toContain(`\`\`\`\n${stdout}\`\`\`\n`);
}, 90_000);

test('docs/embedding.md contains that program', () => {
  expect(embedding).toContain(`\`\`\`ts\n${source}\`\`\`\n`);
});

test('docs/embedding.md names the remedy of every kind of failure', () => {
  const code = readFileSync(`${REPOSITORY}/src/tunnel/failure.ts`, 'utf8');
  const [, union] = /export type FailureKind =([^;]*);/.exec(code)!;
  const kinds = [...union!.matchAll(/'([a-z-]+)'/g)].map(([, kind]) => kind);
  const [, table] = /\| `kind` \|.*\n((?:\|.*\n)+)/.exec(embedding)!;
  const rows = table!.split('\n').map((row) => row.split('|')[1] ?? '');
  const documented = rows.flatMap((cell) =>
    [...cell.matchAll(/`([a-z-]+)`/g)].map(([, kind]) => kind)
  );
  expect(documented.sort()).toEqual(kinds.sort());
});

test('docs/entry-points.md names the values of the root entry point', () => {
  const text = readFileSync(`${REPOSITORY}/docs/entry-points.md`, 'utf8');
  const [, list] = /The values of `virtual-presence` are:\n([^|]*)\n\|/.exec(text)!;
  const named = [...list!.matchAll(/`(\w+)`/g)].map(([, name]) => name);
  expect(named.sort()).toEqual(Object.keys(root).sort());
});
