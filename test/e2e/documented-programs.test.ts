/** The programs in the documents run, and print what the documents say. */
import { spawnSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url));

/** Returns what a program printed on standard output; the program must not fail. */
function run(code: string): string {
  // The program runs inside the repository, so that the package's own name resolves to its sources.
  const file = fileURLToPath(new URL(`program-${process.pid}.tmp.mts`, import.meta.url));
  writeFileSync(file, code);
  try {
    const { stdout, stderr, status } = spawnSync(process.execPath, ['--import', 'tsx', file], {
      cwd: REPOSITORY,
      encoding: 'utf8',
      timeout: 60_000,
    });
    expect(status, stderr).toBe(0);
    return stdout;
  } finally {
    rmSync(file, { force: true });
  }
}

/** Returns the blocks of a document in this language, each without its fences. */
function blocksOf(document: string, language: string): string[] {
  const text = readFileSync(`${REPOSITORY}/${document}`, 'utf8');
  const fenced = new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\`$`, 'gm');
  return [...text.matchAll(fenced)].map(([, block]) => block!);
}

/** Returns what a program prints according to the comments behind its `console.log`. */
function promisedBy(code: string): string[] {
  return [...code.matchAll(/console\.log\(.*\); \/\/ (.*)$/gm)].map(([, comment]) => comment!);
}

test('the first example of the README runs: a cloud and an edge in one process, in less than 30 lines', () => {
  const readme = readFileSync(`${REPOSITORY}/README.md`, 'utf8');
  expect(readme.slice(0, readme.indexOf('```ts')).split('\n').length).toBeLessThan(30);
  const [code] = blocksOf('README.md', 'ts');
  expect(code!.trim().split('\n').length).toBeLessThan(30);
  const promised = promisedBy(code!);
  expect(promised).toHaveLength(2);
  expect(run(code!).trim().split('\n')).toEqual(promised);
});

test('the example of a gateway pair from single classes runs, in less than 80 lines', () => {
  const [code] = blocksOf('docs/composing.md', 'ts');
  expect(code!.trim().split('\n').length).toBeLessThan(80);
  const [promised] = blocksOf('docs/composing.md', '');
  expect(run(code!)).toBe(promised);
});

test('the example of the translator runs', () => {
  const [, code] = blocksOf('docs/composing.md', 'ts');
  const lines = run(code!).trim().split('\n');
  const promised = promisedBy(code!);
  expect(promised).toHaveLength(2);
  expect(lines[0]).toBe(`from site-a: ${promised[0]}`);
  expect(lines[1]!.replace(' to the cloud:', '')).toBe(promised[1]);
});
