import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { outcome, spawnNode } from '../support/child.ts';
import { titled, useNamespace } from '../support/namespace.ts';

const skipReason = await useNamespace();

describe.skipIf(skipReason !== undefined)(titled('a process with a LinuxTun', skipReason), () => {
  const scenes: [string, string[]][] = [
    ['exit while open', ['exit 0']],
    ['exit within delivery', ['exit 0']],
    ['close and end', ['closed', 'exit 0']],
    ['open, never started', ['opened', 'exit 0']],
    ['kept alive', ['read', 'exit 0']],
    [
      'promises and timers',
      ['ticks 3', 'ticks 3', 'ticks 3', 'tick', 'microtask', 'timer', 'exit 0'],
    ],
    ['reader throws', ['uncaught event1', 'uncaught event2', 'uncaught event3', 'exit 0']],
    ['reader throws, nobody listens', ['exit 1']],
    ['interface deleted', ['exit 1']],
  ];
  test('survives the end of a worker that has its own TUN', async () => {
    const { output, signal } = await outcome(spawnNode([TUN_CHILD, 'auto', 'worker terminated']));
    expect(output).toBe('started thread-pool\nterminated\nexit 0\n');
    expect(signal).toBeNull();
  });

  for (const wakeup of ['libuv', 'thread-pool'] as const) {
    test.each(scenes)(
      `ends as expected with the wake-up ${wakeup}: %s`,
      async (scene, expected) => {
        const child = spawnNode([TUN_CHILD, wakeup, scene]);
        const { output, code, signal } = await outcome(child);
        expect(output.trim().split('\n')).toEqual(expected);
        expect(signal).toBeNull();
        expect(`exit ${code}`).toBe(expected.at(-1));
      }
    );
  }
});

const TUN_CHILD = fileURLToPath(new URL('tun-child.ts', import.meta.url));
