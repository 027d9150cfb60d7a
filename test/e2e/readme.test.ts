import { spawnSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url));

test('the first example of the README runs and prints what its comments say', () => {
  const readme = readFileSync(`${REPOSITORY}/README.md`, 'utf8');
  const [, before, code] = /^([\s\S]*?)```ts\n([\s\S]*?)```/.exec(readme)!;
  expect(before!.split('\n').length).toBeLessThan(30);
  // Inside the repository, so that the package's own name leads to its sources.
  const file = fileURLToPath(new URL(`readme-example-${process.pid}.tmp.mts`, import.meta.url));
  writeFileSync(file, code!);
  try {
    const { stdout, stderr } = spawnSync(process.execPath, ['--import', 'tsx', file], {
      cwd: REPOSITORY,
      encoding: 'utf8',
    });
    const promised = [...code!.matchAll(/\); \/\/ (.*)$/gm)].map(([, comment]) => comment);
    expect(promised.length, stderr).toBe(2);
    const lines = stdout.trim().split('\n');
    expect(lines[0]).toBe(`from site-a: ${promised[0]}`);
    expect(lines[1]!.replace(' to the cloud:', '')).toBe(promised[1]);
  } finally {
    rmSync(file, { force: true });
  }
});
