/** `bench`: what it prints, and how it refuses captures and options. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { ExitCode } from '../../src/cli/index.ts';
import { PcapngWriter } from '../../src/packet/index.ts';
import { tcpPacket } from '../support/packets.ts';
import { runCommand } from './run-command.ts';

const folder = mkdtempSync(join(tmpdir(), 'vp-bench-'));
afterAll(() => rmSync(folder, { recursive: true }));

function file(name: string, content: Uint8Array | string): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

const CLIENT = { source: '10.0.0.9', destination: '10.0.0.5' };
const SERVICE = { source: '10.0.0.5', destination: '10.0.0.9' };
const to = (port: number) => ({ sourcePort: 40_000, destinationPort: port });

function capture(): Buffer {
  const parts: Uint8Array[] = [];
  const writer = new PcapngWriter({ write: (bytes) => parts.push(bytes) });
  const lan = writer.interface('lan');
  const packets = [
    tcpPacket(CLIENT, { ...to(5672), flags: 2 }),
    tcpPacket(SERVICE, { sourcePort: 5672, destinationPort: 40_000, flags: 0x12 }),
    tcpPacket(CLIENT, { ...to(5000), flags: 2 }),
  ];
  for (const [i, packet] of packets.entries()) {
    writer.packet(lan, 1000 + i, 'inbound', packet, 0, packet.length);
  }
  return Buffer.concat(parts);
}

const whole = file('mine.pcapng', capture());

/** A configuration with these exposures; the other keys of a gateway do not matter. */
function desired(...exposures: readonly string[]): string {
  return file(
    `${exposures.length}.yaml`,
    JSON.stringify({
      desired: {
        sites: ['cloud', 'site-a', 'site-b'].map((name) => ({
          name,
          sources: ['10.0.0.0/24'],
          pools: ['10.0.0.128/25'],
          zone: `${name}.test`,
        })),
        services: [{ name: 'keystone', site: 'cloud', address: '10.0.0.5', ports: ['tcp/5000'] }],
        exposures: exposures.map((site) => ({ service: 'keystone', site })),
      },
    })
  );
}

const TIMEOUT_MS = 60_000;

describe('virtual-presence bench', () => {
  test(
    'without a capture times the built-in mix',
    async () => {
      const { code, out, err } = await runCommand(['bench', '--quick']);
      expect({ code, err }).toEqual({ code: 0, err: '' });
      expect(out).toMatch(/^speed: CPU time/);
      expect(out).toMatch(/^all +12,300 +341 +\d+\.\d +[\d,]+ +\d+\.\d +\d+\.\d$/m);
      expect(out).toContain(`\nhere: `);
    },
    TIMEOUT_MS
  );

  test(
    'prints one document with --json',
    async () => {
      const { code, out } = await runCommand(['bench', '--quick', '--pcap', whole, '--json']);
      expect(code).toBe(0);
      const report = JSON.parse(out);
      expect(report).toMatchObject({
        schemaVersion: 1,
        replay: {
          capture: { format: 'pcapng', packets: 3 },
          plan: { from: 'inferred', services: [{ address: '10.0.0.5', ports: ['tcp/5672'] }] },
          verdicts: { Forward: 2, DropNotPermitted: 1 },
          refusals: [{ verdict: 'DropNotPermitted', packets: 1, examples: [{ number: 3 }] }],
        },
      });
      expect(report.reference.machine.cpu).not.toBe('');
      expect(report.here.timing.all.nsPerPacket).toBeGreaterThan(0);
    },
    TIMEOUT_MS
  );

  test(
    'takes the plan from a desired state, or from prefixes',
    async () => {
      const plan = ['bench', '--quick', '--json', '--pcap', whole];
      const one = await runCommand([...plan, '--desired', desired('site-a')]);
      expect(JSON.parse(one.out).replay.verdicts).toEqual({ Forward: 1, DropNotPermitted: 2 });
      const both = [...plan, '--desired', desired('site-a', 'site-b')];
      expect(await runCommand(both)).toEqual({
        code: ExitCode.Usage,
        out: '',
        err: `virtual-presence: ${join(folder, '2.yaml')} exposes services to the sites site-a, site-b: choose that of the clients by --client-site\n`,
      });
      const chosen = await runCommand([...both, '--client-site', 'site-b']);
      expect(JSON.parse(chosen.out).replay.plan.realms).toEqual(['site-b', 'other sites']);
      const prefixes = await runCommand([...plan, '--site', '10.0.0.8/30', '192.0.2.0/24']);
      expect(JSON.parse(prefixes.out).replay.verdicts).toEqual({ Forward: 2, DropNotPermitted: 1 });
    },
    TIMEOUT_MS
  );
});

describe('one sentence says', () => {
  const cut = file('cut.pcapng', capture().subarray(0, -20));
  const empty = file('empty.pcap', '');
  const hostile = capture();
  hostile.writeUInt32LE(0xfffffff0, hostile.length - 4);
  const lying = file('lying.pcapng', hostile);
  const notDesired = file('wrong.yaml', 'desired:\n  sites: 7\n');

  test.each([
    ['a cut capture', ['--pcap', cut], 1, `${cut}: the capture is cut: it ends at byte`],
    ['how to keep the rest', ['--pcap', cut], 1, `whole packets: editcap ${cut} whole.pcapng`],
    ['an empty one', ['--pcap', empty], 1, `${empty}: the capture is empty`],
    [
      'a hostile one',
      ['--pcap', lying],
      1,
      'has the length 84 at its beginning and 4294967280 at its end',
    ],
    ['a text', ['--pcap', notDesired], 1, `${notDesired}: the file is neither a pcap nor a pcapng`],
    ['a missing one', ['--pcap', join(folder, 'none')], 1, 'cannot be read: ENOENT'],
    ['a folder', ['--pcap', folder], 1, 'is not a file'],
    ['a plan without a capture', ['--site', '10.0.0.0/8'], 2, 'add --pcap <file>'],
    ['two plans', ['--pcap', whole, '--site', '::/0', '--desired', 'x'], 2, 'give one of them'],
    ['a site without a plan', ['--pcap', whole, '--client-site', 'a'], 2, 'add --desired <file>'],
    ['a wrong prefix', ['--pcap', whole, '--site', '10.0.0.1/8'], 2, 'did you mean 10.0.0.0/8?'],
    ['no exposure', ['--pcap', whole, '--desired', desired()], 2, 'exposes nothing'],
    [
      'a wrong state',
      ['--pcap', whole, '--desired', notDesired],
      2,
      `${notDesired}:2: desired.sites:`,
    ],
    [
      'an unknown site',
      ['--pcap', whole, '--desired', desired('site-a'), '--client-site', 'x'],
      2,
      'has no site "x"',
    ],
  ])('%s', async (_, args, code, says) => {
    const { err, ...outcome } = await runCommand(['bench', ...args]);
    expect(outcome).toEqual({ code, out: '' });
    expect(err).toContain(says);
    expect(err.trim().split('\n')).toHaveLength(1);
  });
});
