import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import type { Cost } from './allocation-child.ts';

/** Of 50,000 packets to a million; what reading the heap's size costs, and the compiler now and then. */
const MOST_BYTES = 64 * 1024;

test('very many packets, forwarded or refused, of any kind and IP version, allocate nothing', {
  timeout: 300_000,
}, () => {
  const child = fileURLToPath(new URL('allocation-child.ts', import.meta.url));
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--expose-gc', '--import', 'tsx', child, String(MOST_BYTES)],
    { encoding: 'utf8', timeout: 300_000 }
  );
  expect([status, stderr]).toEqual([0, '']);
  const costs = Object.entries(JSON.parse(stdout) as Record<string, Cost>);
  expect(costs.length).toBeGreaterThan(70);
  const costly = costs.filter(([, cost]) => cost.collections > 0 || cost.bytes > MOST_BYTES);
  expect(costly).toEqual([]);
});
