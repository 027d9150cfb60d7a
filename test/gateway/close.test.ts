/** Closing a gateway, at whatever moment, leaves no handle and no timer, and lets the process end. */
import { spawnSync } from 'node:child_process';
import { expect, test } from 'vitest';

test('a gateway that is closed at any moment leaves nothing, and the process ends by itself', () => {
  const { stdout, stderr, status } = spawnSync(
    process.execPath,
    ['--expose-gc', '--import', 'tsx', 'test/gateway/close-child.ts'],
    { encoding: 'utf8', timeout: 240_000 }
  );
  expect(status, stderr).toBe(0);
  const results = JSON.parse(stdout) as Record<string, { reached: string; left: object }>;
  const scenes = Object.entries(results);
  expect(scenes.length).toBeGreaterThan(30);
  expect(scenes.filter(([, { left }]) => Object.keys(left).length > 0)).toEqual([]);
  // Gateways were closed in every state.
  const reached = new Set(scenes.map(([, scene]) => scene.reached));
  for (const each of ['enough', 'started', 'enrolling', 'online']) expect(reached).toContain(each);
  expect(results['a start fails because the port is taken']!.reached).toMatch(/it is in use$/);
}, 300_000);
