/** The demo's own traffic, captured at a host of site A by tcpdump, through `virtual-presence bench --pcap`. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CaptureFile, replayCapture } from '../../src/replay/index.ts';
import { runCommand } from '../cli/run-command.ts';
import { RunningDemo } from './running-demo.ts';

const missing = skipReason();
/** The presences at site A: of the cloud's host. */
const BROKER = '10.0.0.129';

function skipReason(): string | undefined {
  if (process.getuid?.() !== 0) return 'not root';
  if (!existsSync('/dev/net/tun')) return 'no /dev/net/tun';
  const programs = ['tcpdump', 'nsenter', 'unshare', 'editcap'];
  const none = programs.find((name) => spawnSync('sh', ['-c', `command -v ${name}`]).status !== 0);
  return none && `${none} is not installed`;
}

/** tcpdump on an interface of the network namespace of a process; ready when it listens. */
async function startTcpdump(pid: number, file: string): Promise<ChildProcess> {
  const tcpdump = ['tcpdump', '-i', 'eth0', '-s', '128', '-U', '-Z', 'root', '-w', file];
  const child = spawn('nsenter', ['-t', String(pid), '-n', ...tcpdump], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let said = '';
  await Promise.race([
    once(child, 'exit'),
    new Promise<void>((resolve) => {
      child.stderr!.on('data', (chunk: Buffer) => {
        said += chunk;
        if (said.includes('listening on')) resolve();
      });
    }),
  ]);
  expect(said).toContain('listening on');
  return child;
}

describe.skipIf(missing !== undefined && !process.env.CI)(
  `the demo's own traffic (${missing ?? 'captured by tcpdump'})`,
  () => {
    const folder = mkdtempSync(join(tmpdir(), 'vp-demo-capture-'));
    const file = join(folder, 'demo.pcap');
    let demo: RunningDemo | undefined;

    beforeAll(async () => {
      demo = new RunningDemo([]);
      await demo.printed('ok: two certificates, two tunnels');
      const host = demo.processes.find((pid) =>
        readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('compute host of site A')
      );
      const tcpdump = await startTcpdump(host!, file);
      const ended = once(tcpdump, 'exit');
      // The step in which a port is refused; all its packets have been sent.
      await demo.printed('ok: keystone');
      tcpdump.kill('SIGINT');
      await ended;
      await demo.end('SIGTERM', 143);
    }, 150_000);

    afterAll(() => {
      demo?.cleanUp();
      rmSync(folder, { recursive: true });
    });

    test('passes as it did in the demo, but for the port that nobody has exposed', async () => {
      const { code, out, err } = await runCommand(['bench', '--quick', '--json', '--pcap', file]);
      expect({ code, err }).toEqual({ code: 0, err: '' });
      const { replay } = JSON.parse(out);
      console.log(JSON.stringify({ capture: replay.capture, verdicts: replay.verdicts }));
      expect(replay.capture).toMatchObject({ format: 'pcap' });
      expect(replay.capture.ipPackets).toBeGreaterThan(50);
      expect(replay.notJudged).toEqual({ cut: 0, local: 0, beyond: 0 });
      const broker = replay.plan.services.find(
        ({ address }: { address: string }) => address === BROKER
      );
      expect(broker.ports).toContain('tcp/9696');
      expect(replay.timing.all.nsPerPacket).toBeGreaterThan(0);

      const { Forward, DropNotPermitted, ...others } = replay.verdicts;
      expect(Forward).toBeGreaterThan(0.9 * replay.judged);
      expect(DropNotPermitted).toBeGreaterThan(0);
      // A router of the demo tells hosts of their own network that the way is shorter without it.
      expect(Object.keys(others).filter((name) => name !== 'DropUnsupported')).toEqual([]);
      expect(replay.refusals).toContainEqual(
        expect.objectContaining({
          verdict: 'DropNotPermitted',
          reason: expect.stringMatching(/^no permit allows TCP from 10\.0\.0\.5:\d+ of "site" to /),
          remedy: `the capture shows no answer of tcp/5000 of ${BROKER}, so that the plan has no such service: if there is one, expose it`,
        })
      );
    }, 60_000);

    test('gives the same verdicts in other formats', async () => {
      const verdicts = new Set<string>();
      for (const format of ['pcap', 'nsecpcap', 'pcapng']) {
        const other = join(folder, format);
        execFileSync('editcap', ['-F', format, file, other]);
        const effort = { rounds: 1, roundMs: 0.1 };
        const report = await replayCapture(new CaptureFile(other), { effort });
        verdicts.add(JSON.stringify([report.verdicts, report.plan, report.capture.packets]));
      }
      expect(verdicts.size).toBe(1);
    }, 60_000);
  }
);
