import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import type { Cost } from './allocation-child.ts';

/**
 * The limit covers the reading of the heap's size (in steps of 128 KiB) and the compiler.
 * Each load would take more than three times as much with 16 bytes for each packet.
 */
const MOST_BYTES = 256 * 1024;

test('translate allocates nothing for packets of any kind and IP version, forwarded or refused', {
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
