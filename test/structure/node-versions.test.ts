/**
 * The Node versions that are supported are those that are tested, each pinned to the digit: what a run tests does
 * not depend on the day.
 */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';

const read = (path: string): string =>
  readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');
const versionsIn = (text: string | undefined): string[] => text?.match(/\d+(\.\d+)*/g) ?? [];

test('.ci/run and the workflow pin the same Node versions, and the README names their lines', () => {
  const run = versionsIn(/^node_versions=\((.*)\)$/m.exec(read('.ci/run'))?.[1]);
  const workflow = versionsIn(/^ +node: \[(.*)\]$/m.exec(read('.github/workflows/ci.yml'))?.[1]);
  expect(run.length).toBeGreaterThan(0);
  for (const version of run) expect(version).toMatch(/^\d+\.\d+\.\d+$/);
  expect(workflow).toEqual(run);
  const named = versionsIn(/^Node (\d[\d, or]*)\./m.exec(read('README.md'))?.[1]);
  expect(named).toEqual(run.map((version) => version.split('.')[0]));
});

test('the Containerfile has one of these versions', () => {
  const images = [...read('Containerfile').matchAll(/^FROM \S+\/node:([\d.]+)-/gm)];
  const run = versionsIn(/^node_versions=\((.*)\)$/m.exec(read('.ci/run'))?.[1]);
  expect(new Set(images.map(([, version]) => version)).size).toBe(1);
  expect(run).toContain(images[0]![1]);
});
