/**
 * The demo's scene with the cloud gateway in two processes: every step of it, as with one process.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { whatIsMissing } from '../support/network.ts';

const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url));
const skipReason = whatIsMissing({});
const isSkipped = skipReason !== undefined && process.env.CI === undefined;
const title = isSkipped ? ` (skipped: ${skipReason})` : '';

interface Step {
  readonly name: string;
  readonly ok: boolean;
  readonly detail: string;
}

test.skipIf(isSkipped)(`the scene of two sites shows every step with two processes${title}`, () => {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--import', 'tsx', 'examples/two-sites/main.ts', '--json'],
    {
      cwd: REPOSITORY,
      encoding: 'utf8',
      timeout: 150_000,
      env: { ...process.env, VP_DEMO_WORKERS: '2' },
    }
  );
  const { steps } = JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as { steps: Step[] };
  expect(
    steps.filter(({ ok }) => !ok),
    stderr
  ).toEqual([]);
  expect(status).toBe(0);
  expect(steps.map(({ name }) => name)).toContain('shutdown');
  // Without a TUN there is one process, whatever the environment variable says.
  expect(stderr).not.toContain('without namespaces');
});
