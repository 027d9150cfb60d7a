import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { whatIsMissing } from '../support/network.ts';
import { DEMO, REPOSITORY, RunningDemo } from './running-demo.ts';

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

/** Only TCP passes a proxy and published ports. */
function expectLeftOutWithoutNamespaces(steps: readonly Step[]): void {
  const leftOut = steps.filter(({ skipped }) => skipped).map(({ name }) => name);
  const isComplete = hasRabbitMq || process.env.CI !== undefined;
  expect(leftOut).toEqual(isComplete ? ['ping'] : ['rabbitmq', 'ping']);
}

const isRoot = process.getuid?.() === 0;
const hasRabbitMq = existsSync('/usr/lib/rabbitmq/bin/rabbitmq-server');
/** Whether no step may be skipped because a program is missing. */
const isAllInstalled = hasRabbitMq && spawnSync('sh', ['-c', 'command -v ping']).status === 0;
const canBeSomebodyElse = isRoot && existsSync('/dev/net/tun') && existsSync('/usr/bin/setpriv');

/** Without a TUN there is one process, whatever the environment variable says. */
const isWithTun = whatIsMissing({}) === undefined;
/** If this user is root, an ordinary user shows it with one process. */
const WORKERS = canBeSomebodyElse ? [2] : isWithTun ? [1, 2] : [1];

describe('the scene of two sites', () => {
  test.each(WORKERS)(
    'shows every step to the user who runs the tests, with a cloud gateway of %i processes',
    (workers) => {
      // From the sources, as `npm run demo` does it.
      const { VP_BUNDLED_GATEWAYS: _, ...environment } = process.env;
      const result = spawnSync(process.execPath, DEMO, {
        cwd: REPOSITORY,
        encoding: 'utf8',
        timeout: 150_000,
        env: { ...environment, VP_DEMO_WORKERS: String(workers) },
      });
      const steps = stepsOf(result);
      // On a machine with all programs no step may be skipped.
      if (process.env.CI !== undefined) {
        expect(steps.filter(({ skipped }) => skipped)).toEqual([]);
      }
      if (isWithTun) expect(result.stderr).not.toContain('without namespaces');
    }
  );

  test.skipIf(!canBeSomebodyElse).each([
    ['in namespaces', []],
    ['without namespaces', ['--rootless']],
  ])(
    'shows every step to an ordinary user, %s (needs root, to become one, and /dev/net/tun)',
    (_, args) => {
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
        const command = [directory, REPOSITORY, process.execPath, ...DEMO, ...args];
        const result = spawnSync('unshare', ['--mount', 'sh', '-c', script, ...command], {
          encoding: 'utf8',
          timeout: 150_000,
          env: { ...process.env, HOME: '/nonexistent' },
        });
        const steps = stepsOf(result);
        expect(/without namespaces/.test(result.stderr)).toBe(args.length > 0);
        if (args.length > 0) expectLeftOutWithoutNamespaces(steps);
        else if (process.env.CI !== undefined || isAllInstalled) {
          expect(steps.filter(({ skipped }) => skipped)).toEqual([]);
        }
      } finally {
        rmSync(directory, { recursive: true, force: true });
      }
    }
  );

  // An ordinary user has shown it, if this one is root.
  if (!canBeSomebodyElse) {
    test('shows every step without namespaces', () => {
      const steps = stepsOf(
        spawnSync(process.execPath, [...DEMO, '--rootless'], {
          cwd: REPOSITORY,
          encoding: 'utf8',
          timeout: 150_000,
        })
      );
      expectLeftOutWithoutNamespaces(steps);
    });
  }

  test('in namespaces, or without where they are forbidden, ends on SIGTERM and SIGINT with all of its processes and files', async () => {
    const demos = [new RunningDemo([]), new RunningDemo([])] as const;
    try {
      for (const demo of demos) {
        await demo.printed('ok: two certificates, two tunnels');
        expect(demo.processes.length, demo.output).toBeGreaterThan(0);
      }
      await demos[0].end('SIGTERM', 143);
      await demos[1].end('SIGINT', 130);
    } finally {
      for (const demo of demos) demo.cleanUp();
    }
  });

  test('two copies without namespaces share no port and no file, and end on SIGTERM and SIGINT with all of their processes and files', async () => {
    const demos = [new RunningDemo(['--rootless']), new RunningDemo(['--rootless'])] as const;
    try {
      // By then each has its broker, all of its gateways and services.
      for (const demo of demos) {
        await demo.printed(hasRabbitMq ? 'ok: request and reply' : 'LEFT OUT: RabbitMQ');
        expect(demo.output).not.toContain('FAILED');
        expect(demo.processes.length, demo.output).toBeGreaterThan(0);
      }
      await demos[0].end('SIGTERM', 143);
      await demos[1].end('SIGINT', 130);
    } finally {
      for (const demo of demos) demo.cleanUp();
    }
  });
});
