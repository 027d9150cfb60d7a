/** The programs that the documents show are run from the sources, and print what the documents say. */
import { spawnSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import {
  codeOf,
  NAMED_PROGRAMS,
  outputOf,
  PROGRAMS,
  REPOSITORY,
  read,
} from '../documents/snippets.ts';

/** What a program printed on standard output; it must not fail. */
function run(code: string): string {
  // Inside the repository, so that the package's own name leads to its sources.
  const file = fileURLToPath(new URL(`program-${process.pid}.tmp.mts`, import.meta.url));
  writeFileSync(file, code);
  try {
    const { stdout, stderr, status } = spawnSync(process.execPath, ['--import', 'tsx', file], {
      cwd: REPOSITORY,
      encoding: 'utf8',
      timeout: 60_000,
    });
    expect(status, stderr).toBe(0);
    expect(stderr).toBe('');
    return stdout;
  } finally {
    rmSync(file, { force: true });
  }
}

test.each(NAMED_PROGRAMS)('%s prints what the document says', (_, program) => {
  const promised = outputOf(program);
  expect(promised).not.toBe('');
  expect(run(codeOf(program))).toBe(promised);
});

test('the example of the README begins before line 30 and is shorter than 30 lines', () => {
  const readme = read('README.md');
  expect(readme.slice(0, readme.indexOf('```ts')).split('\n').length).toBeLessThan(30);
  expect(codeOf(PROGRAMS[0]!).trim().split('\n').length).toBeLessThan(30);
  expect(outputOf(PROGRAMS[0]!).trim().split('\n')).toHaveLength(2);
});

test('the gateway pair by hand is shorter than 80 lines', () => {
  expect(codeOf(PROGRAMS[1]!).trim().split('\n').length).toBeLessThan(80);
});
