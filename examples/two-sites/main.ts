/**
 * `npm run demo`: two sites and a cloud with the same addresses, on this machine.
 *
 * It runs itself in namespaces of its own (user, network, mount, PID), so it needs no root, changes
 * nothing outside and leaves nothing behind. Where the system forbids that, it says what is missing
 * and runs the same gateways in one process, over devices in memory; so it does with `--in-memory`.
 * With `--json` standard output is one JSON object.
 * @module
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LinuxTun } from 'virtual-presence';
import { Report } from './report.ts';

const INSIDE = 'VP_DEMO_INSIDE';
const MISSING = 77;

if (process.env[INSIDE] !== undefined) await runInside();
else if (process.argv.includes('--in-memory')) await runInMemory();
else runOutside();

/** Runs this program again in new namespaces. */
function runOutside(): void {
  const isRoot = process.getuid?.() === 0;
  const flags = ['--net', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc'];
  if (!isRoot) flags.unshift('--user', '--map-root-user');
  const missing = whatIsMissing(flags);
  if (missing === undefined) {
    const again = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
    const { status } = spawnSync('unshare', [...flags, ...again], {
      stdio: 'inherit',
      env: { ...process.env, [INSIDE]: '1' },
    });
    if (status !== MISSING) process.exit(status ?? 1);
  } else {
    process.stderr.write(`${missing}\n`);
  }
  void runInMemory();
}

function whatIsMissing(flags: readonly string[]): string | undefined {
  if (process.platform !== 'linux') return 'namespaces and TUN need Linux';
  for (const program of ['unshare', 'nsenter', 'ip']) {
    const { status } = spawnSync('sh', ['-c', `command -v ${program}`]);
    if (status !== 0) {
      const from = program === 'ip' ? 'iproute2' : 'util-linux';
      return `${program} is not installed (Debian package ${from})`;
    }
  }
  const { status, stderr } = spawnSync('unshare', [...flags, 'true'], { encoding: 'utf8' });
  if (status !== 0) return `this system forbids new namespaces: ${stderr.trim()}`;
  return existsSync('/dev/net/tun') ? undefined : 'there is no /dev/net/tun';
}

async function runInside(): Promise<void> {
  try {
    const tun = await LinuxTun.open({ name: 'vp-probe' });
    await tun.close();
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n`);
    process.exit(MISSING);
  }
  const { runScene } = await import('./steps.ts');
  await run((report, directory) => runScene(report, directory));
}

async function runInMemory(): Promise<void> {
  process.stderr.write('running the gateways in one process, over devices in memory\n');
  const { runInMemoryScene } = await import('./in-memory.ts');
  await run((report, directory) => runInMemoryScene(report, directory));
}

async function run(scene: (report: Report, directory: string) => Promise<void>): Promise<void> {
  const report = new Report(process.argv.includes('--json'));
  const directory = mkdtempSync(join(tmpdir(), 'two-sites-'));
  try {
    await scene(report, directory);
  } catch (error) {
    await report.step('scene', 'The scene itself', () => Promise.reject(error));
  }
  rmSync(directory, { recursive: true, force: true });
  report.close();
  process.exit(report.ok ? 0 : 1);
}
