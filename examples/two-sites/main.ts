/**
 * `npm run demo`: two sites and a cloud with the same addresses, on this machine.
 *
 * It runs itself in new namespaces (user, network, mount, PID), so it needs no root, changes nothing outside and
 * leaves nothing behind. If the system forbids that, it prints what is missing and runs the same programs with devices
 * of the type `sockets`, which need no namespaces; `--rootless` does the same. `--machines 2` shows another scene: a cloud
 * of two machines, one of which is lost. It needs namespaces, etcd and RabbitMQ. With `--json`, standard output is one JSON
 * object. `VP_DEMO_WORKERS=2` in the environment spreads the cloud gateway over two processes, if it has a TUN.
 * SIGTERM, SIGINT or SIGHUP ends the demo with all processes that it has started.
 * @module
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { LinuxTun } from 'virtual-presence';
import { SERVER as RABBITMQ } from './rabbitmq.ts';
import { Report } from './report.ts';

/** The environment variable with the scene's directory, for the program inside the namespaces. */
const INSIDE = 'VP_DEMO_INSIDE';
const MISSING = 77;
const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const;
/** The longest time that the scene may take to end after a signal, in ms. */
const END_TIMEOUT_MS = 10_000;

const isMachines = process.argv.includes('--machines');
if (isMachines && process.argv[process.argv.indexOf('--machines') + 1] !== '2') {
  fail('--machines takes the number 2: the scene has two machines');
}
if (isMachines && process.argv.includes('--rootless')) {
  fail('the scene of two machines needs namespaces, so --rootless cannot show it');
}
const { [INSIDE]: inside } = process.env;
if (inside !== undefined) await runInside(inside);
else if (process.argv.includes('--rootless')) await runRootless();
else await runOutside();

/** Runs this program again in new namespaces. */
async function runOutside(): Promise<void> {
  const isRoot = process.getuid?.() === 0;
  const flags = ['--net', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc'];
  if (!isRoot) flags.unshift('--user', '--map-root-user');
  const missing = whatIsMissing(flags);
  if (missing === undefined) {
    const code = await runInNamespaces(flags);
    if (code !== MISSING) process.exit(code);
  } else {
    process.stderr.write(`${missing}\n`);
  }
  if (isMachines) fail('the scene of two machines is not shown, because it needs what is missing');
  await runRootless();
}

/** Returns the exit code. Signals are forwarded to the scene, which ends with its first process. */
async function runInNamespaces(flags: readonly string[]): Promise<number> {
  const again = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  const child = spawn('unshare', [...flags, ...again], {
    stdio: 'inherit',
    env: { ...process.env, [INSIDE]: newDirectory() },
    // The scene gets its own process group, because unshare itself ignores these signals.
    detached: true,
  });
  let timer: NodeJS.Timeout | undefined;
  const forward = (signal: NodeJS.Signals) => {
    process.kill(-child.pid!, signal);
    // A scene that has just started may not handle signals yet.
    timer ??= setTimeout(() => process.kill(-child.pid!, 'SIGKILL'), END_TIMEOUT_MS);
  };
  for (const signal of SIGNALS) process.on(signal, forward);
  const [code] = (await once(child, 'exit')) as [number | null];
  clearTimeout(timer);
  for (const signal of SIGNALS) process.off(signal, forward);
  return code ?? 1;
}

function whatIsMissing(flags: readonly string[]): string | undefined {
  if (process.platform !== 'linux') return 'namespaces and TUN need Linux';
  const programs = { unshare: 'util-linux', nsenter: 'util-linux', ip: 'iproute2' };
  const machines = { etcd: 'etcd-server', [RABBITMQ]: 'rabbitmq-server' };
  for (const [program, from] of Object.entries({ ...programs, ...(isMachines && machines) })) {
    const { status } = spawnSync('sh', ['-c', `command -v ${program}`]);
    if (status !== 0) return `${program} is not installed (Debian package ${from})`;
  }
  const { status, stderr } = spawnSync('unshare', [...flags, 'true'], { encoding: 'utf8' });
  if (status !== 0) return `this system forbids new namespaces: ${stderr.trim()}`;
  return existsSync('/dev/net/tun') ? undefined : 'there is no /dev/net/tun';
}

async function runInside(directory: string): Promise<void> {
  endOnSignals();
  try {
    const tun = await LinuxTun.open({ name: 'vp-probe' });
    await tun.close();
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n`);
    process.exit(MISSING);
  }
  const { runMachinesScene } = await import('./two-machines.ts');
  const { runScene } = await import('./namespaces.ts');
  await run((report) => (isMachines ? runMachinesScene : runScene)(report, directory));
}

async function runRootless(): Promise<void> {
  if (process.platform !== 'linux') {
    fail('the demo needs Linux, which alone has all addresses of 127.0.0.0/8');
  }
  process.stderr.write(
    'running the gateways without namespaces, with devices of the type sockets\n'
  );
  endOnSignals();
  const { runRootlessScene } = await import('./rootless.ts');
  const { endProcesses } = await import('./local-place.ts');
  const directory = newDirectory(endProcesses);
  await run((report) => runRootlessScene(report, directory));
}

function fail(reason: string): never {
  process.stderr.write(`${reason}\n`);
  process.exit(1);
}

/** Creates a directory that is removed when this process exits, after `end`. */
function newDirectory(end: (directory: string) => void = () => {}): string {
  const directory = mkdtempSync(join(tmpdir(), 'two-sites-'));
  process.on('exit', () => {
    end(directory);
    rmSync(directory, { recursive: true, force: true, maxRetries: 5 });
  });
  return directory;
}

/** Ends on signals, which the first process of a PID namespace ignores by default; exit handlers then run. */
function endOnSignals(): void {
  for (const signal of SIGNALS) {
    process.once(signal, () => process.exit(128 + constants.signals[signal]));
  }
}

async function run(scene: (report: Report) => Promise<void>): Promise<void> {
  const report = new Report(process.argv.includes('--json'));
  try {
    await scene(report);
  } catch (error) {
    await report.step('scene', 'The scene itself', () => Promise.reject(error));
  }
  report.close();
  process.exit(report.ok ? 0 : 1);
}
