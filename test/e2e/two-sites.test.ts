import { type SpawnSyncReturns, spawn, spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url));
const DEMO = ['--import', 'tsx', 'examples/two-sites/main.ts', '--json'];

/** Every step of the scene. */
const STEPS = [
  'enrol',
  'names',
  'rest',
  'rabbitmq',
  'console',
  'site-to-site',
  'refused-port',
  'refused-service',
  'refused-source',
  'ping',
  'transfer',
  'expose',
  'revoke',
  'shutdown',
];

interface Step {
  readonly name: string;
  readonly ok: boolean;
  readonly skipped?: true;
  readonly detail: string;
}

function stepsOf({ status, stdout, stderr }: SpawnSyncReturns<string>): Step[] {
  const last = stdout.trim().split('\n').at(-1) ?? '';
  expect(last, stderr).toMatch(/^\{/);
  const { ok, steps } = JSON.parse(last) as { ok: boolean; steps: Step[] };
  expect(
    steps.filter((step) => !step.ok),
    stderr
  ).toEqual([]);
  expect({ ok, status }).toEqual({ ok: true, status: 0 });
  expect(steps.map(({ name }) => name)).toEqual(STEPS);
  console.log(steps.find(({ name }) => name === 'transfer')?.detail);
  return steps;
}

const isRoot = process.getuid?.() === 0;
/** Whether no step may be skipped because a program is missing. */
const isAllInstalled =
  existsSync('/usr/lib/rabbitmq/bin/rabbitmq-server') &&
  spawnSync('sh', ['-c', 'command -v ping']).status === 0;
const canBeSomebodyElse = isRoot && existsSync('/dev/net/tun') && existsSync('/usr/bin/setpriv');

describe('the scene of two sites', () => {
  test('shows every step to the user who runs the tests', () => {
    const steps = stepsOf(
      spawnSync(process.execPath, DEMO, { cwd: REPOSITORY, encoding: 'utf8', timeout: 150_000 })
    );
    // On a machine with all programs no step may be skipped.
    if (process.env.CI !== undefined) {
      expect(steps.filter(({ skipped }) => skipped)).toEqual([]);
    }
  });

  test.skipIf(!canBeSomebodyElse)(
    'shows every step to an ordinary user (needs root, to become one, and /dev/net/tun)',
    () => {
      // The test runs in its own mount namespace: the TUN device has the usual mode 0666, and this repository
      // is at a path that everybody can reach.
      const directory = mkdtempSync(join(tmpdir(), 'vp-user-'));
      chmodSync(directory, 0o755);
      mkdirSync(join(directory, 'repository'));
      const script = [
        'mknod "$0/tun" c 10 200 && chmod 666 "$0/tun"',
        'mount --bind "$0/tun" /dev/net/tun',
        'mount --bind "$1" "$0/repository"',
        'cd "$0/repository" && shift',
        'exec setpriv --reuid 65534 --regid 65534 --clear-groups -- "$@"',
      ].join(' && ');
      try {
        const command = [directory, REPOSITORY, process.execPath, ...DEMO];
        const result = spawnSync('unshare', ['--mount', 'sh', '-c', script, ...command], {
          encoding: 'utf8',
          timeout: 150_000,
          env: { ...process.env, HOME: '/nonexistent' },
        });
        const steps = stepsOf(result);
        expect(steps.find(({ name }) => name === 'transfer')?.detail).not.toContain('one process');
        if (process.env.CI !== undefined || isAllInstalled) {
          expect(steps.filter(({ skipped }) => skipped)).toEqual([]);
        }
      } finally {
        rmSync(directory, { recursive: true, force: true });
      }
    }
  );

  test('shows every step but RabbitMQ in memory, where namespaces are forbidden', () => {
    const steps = stepsOf(
      spawnSync(process.execPath, [...DEMO, '--in-memory'], {
        cwd: REPOSITORY,
        encoding: 'utf8',
        timeout: 150_000,
      })
    );
    expect(steps.filter(({ skipped }) => skipped).map(({ name }) => name)).toEqual(['rabbitmq']);
  });

  test.each([
    ['in namespaces, or where they are forbidden in memory,', 'SIGTERM', 143, []],
    ['in namespaces, or where they are forbidden in memory,', 'SIGINT', 130, []],
    ['in memory', 'SIGTERM', 143, ['--in-memory']],
  ] as const)(
    '%s ends on %s with all of its processes and files',
    async (_, signal, code, args) => {
      const directory = mkdtempSync(join(tmpdir(), 'vp-scene-'));
      const mark = `VP_TEST_MARK=${randomUUID()}`;
      const demo = spawn(process.execPath, [...DEMO, ...args], {
        cwd: REPOSITORY,
        env: { ...process.env, TMPDIR: directory, VP_TEST_MARK: mark.split('=')[1] },
        stdio: ['ignore', 'ignore', 'pipe'],
      });
      try {
        let output = '';
        const isUp = new Promise<void>((resolve) => {
          demo.stderr.on('data', (chunk: Buffer) => {
            output += chunk;
            if (output.includes('ok: two certificates, two tunnels')) resolve();
          });
        });
        const exited = once(demo, 'exit');
        await Promise.race([isUp, exited]);
        expect(processesWith(mark).length, output).toBeGreaterThan(0);
        demo.kill(signal);
        expect(await exited, output).toEqual([code, null]);
        expect(processesWith(mark)).toEqual([]);
        expect(readdirSync(directory).filter((name) => !name.startsWith('tsx-'))).toEqual([]);
      } finally {
        for (const pid of processesWith(mark)) process.kill(pid, 'SIGKILL');
        rmSync(directory, { recursive: true, force: true, maxRetries: 5 });
      }
    }
  );
});

/** Returns the processes that have this in their environment. */
function processesWith(mark: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0').includes(mark);
      } catch {
        return false; // ended meanwhile, or another user's
      }
    })
    .map(Number);
}
