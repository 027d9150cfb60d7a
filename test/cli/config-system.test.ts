/** `config check --system` in a namespace of its own: what is wrong with the machine is found, and what is right too. */
import { execFileSync, spawnSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { stringify } from 'yaml';
import type { Finding } from '../../src/cli/checks/finding.ts';
import { ExitCode } from '../../src/cli/index.ts';
import type { Config } from '../support/gateway-process.ts';
import { ip, titled, useNamespace } from '../support/namespace.ts';
import { runCommand } from './run-command.ts';

const skipReason = await useNamespace();
const root = mkdtempSync(join(tmpdir(), 'vp-system-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const LAN_ADDRESS = '10.0.0.1';
let count = 0;

function config(): Config {
  return {
    trustDomain: 'openstack.test',
    stateDirectory: './state',
    adminSocket: './admin.sock',
    device: { type: 'tun', name: 'vp0', lan: ['lan0'] },
    tunnel: `${LAN_ADDRESS}:7443`,
    dns: { listen: `${LAN_ADDRESS}:53` },
    desired: {
      sites: [
        {
          name: 'cloud',
          sources: ['10.0.0.0/24'],
          pools: ['100.64.0.0/24'],
          zone: 'openstack.test',
        },
      ],
    },
  };
}

/** Checks a configuration in a directory of its own. */
async function check(
  given: Config,
  directory = join(root, String(count++))
): Promise<{ readonly code: number; readonly findings: readonly Finding[] }> {
  mkdirSync(directory, { recursive: true });
  const path = join(directory, 'gateway.yaml');
  writeFileSync(path, stringify(given));
  const { code, out } = await runCommand(['config', 'check', path, '--system', '--json']);
  return { code, findings: (JSON.parse(out) as { findings: Finding[] }).findings };
}

/** The findings of a kind that are not ok. */
function faultsOf(findings: readonly Finding[], kind: string): readonly Finding[] {
  return findings.filter(({ check: of, status }) => of === kind && status !== 'ok');
}

function sysctl(name: string, value: number): void {
  execFileSync('sysctl', ['-q', '-w', `${name}=${value}`]);
}

describe.skipIf(skipReason !== undefined)(titled('config check --system', skipReason), () => {
  beforeAll(() => {
    ip('link', 'add', 'lan0', 'type', 'veth', 'peer', 'name', 'lan1');
    for (const name of ['lan0', 'lan1']) ip('link', 'set', 'dev', name, 'up');
    ip('address', 'add', `${LAN_ADDRESS}/24`, 'dev', 'lan0');
    sysctl('net.ipv4.conf.all.rp_filter', 0);
  });

  test('finds nothing wrong with a machine that is right', async () => {
    sysctl('net.ipv4.conf.lan0.rp_filter', 1);
    const { code, findings } = await check(config());
    // Whether the clock is synchronised, and nft is there, is up to the machine.
    const others = findings.filter(({ check: of }) => of !== 'clock' && of !== 'rules');
    expect(others.filter(({ status }) => status !== 'ok')).toEqual([]);
    expect(code).toBe(0);
    expect(new Set(others.map(({ check: of }) => of))).toEqual(
      new Set([
        ...['configuration', 'state', 'tun', 'lan', 'forwarding', 'rp_filter', 'pools'],
        ...['socket', 'port', 'descriptors'],
      ])
    );
  });

  test('finds a strict filter that drops the hosts of the site', async () => {
    const given = config();
    const { sites } = given.desired as { sites: { sources: string[] }[] };
    sites[0]!.sources = ['10.9.0.0/24'];
    sysctl('net.ipv4.conf.lan0.rp_filter', 1);
    const strict = await check(given);
    expect(faultsOf(strict.findings, 'rp_filter')).toMatchObject([
      {
        status: 'warn',
        message: expect.stringMatching(/lan0 has a strict .* 10\.9\.0\.0\/24/),
        remedy: expect.stringMatching(/rp_filter=2/),
      },
    ]);
    sysctl('net.ipv4.conf.lan0.rp_filter', 2);
    expect(faultsOf((await check(given)).findings, 'rp_filter')).toEqual([]);
  });

  test('finds that nothing forwards, where the gateway leaves that to the operator', async () => {
    const given = { ...config(), device: { type: 'tun', name: 'vp0', routes: [] } };
    sysctl('net.ipv4.ip_forward', 0);
    expect(faultsOf((await check(given)).findings, 'forwarding')).toMatchObject([
      { status: 'warn', remedy: expect.stringMatching(/net\.ipv4\.ip_forward=1/) },
    ]);
    sysctl('net.ipv4.ip_forward', 1);
    expect(faultsOf((await check(given)).findings, 'forwarding')).toEqual([]);
    sysctl('net.ipv4.ip_forward', 0);
  });

  test('finds an interface that is missing, and one with a smaller MTU', async () => {
    const missing = await check({
      ...config(),
      device: { type: 'tun', name: 'vp0', lan: ['lan7'] },
    });
    expect(missing.code).toBe(ExitCode.Usage);
    expect(faultsOf(missing.findings, 'lan')).toMatchObject([
      { status: 'fail', message: 'there is no interface lan7, which the device names' },
    ]);
    const jumbo = await check({
      ...config(),
      device: { type: 'tun', name: 'vp0', lan: ['lan0'], mtu: 9000 },
    });
    expect(faultsOf(jumbo.findings, 'lan')).toMatchObject([
      { status: 'warn', remedy: 'set device.mtu to 1500' },
    ]);
  });

  test('finds a port that is taken, and an address that the machine does not have', async () => {
    const socket = createSocket('udp4').bind(53, LAN_ADDRESS);
    await once(socket, 'listening');
    const taken = await check(config());
    socket.close();
    expect(taken.code).toBe(ExitCode.Usage);
    expect(faultsOf(taken.findings, 'port')).toMatchObject([
      {
        status: 'fail',
        message: '10.0.0.1:53/udp of dns.listen is in use by another program',
        remedy: expect.stringMatching(/^stop that program/),
      },
    ]);
    const foreign = await check({ ...config(), tunnel: '192.0.2.1:7443' });
    expect(faultsOf(foreign.findings, 'port')).toHaveLength(2);
    expect(faultsOf(foreign.findings, 'port')[0]!.message).toMatch(/no interface of this machine/);
  });

  test('finds a pool that the machine uses itself', async () => {
    const given = config();
    const { sites } = given.desired as { sites: { pools: string[] }[] };
    sites[0]!.pools = ['10.0.0.0/28'];
    expect(faultsOf((await check(given)).findings, 'pools')).toMatchObject([
      { status: 'warn', message: expect.stringMatching(/contains 10\.0\.0\.1/) },
    ]);
  });

  test('finds a state directory that others may read, and socket paths that cannot be', async () => {
    const directory = join(root, 'open');
    mkdirSync(join(directory, 'state'), { recursive: true });
    chmodSync(join(directory, 'state'), 0o755);
    const open = await check(config(), directory);
    expect(faultsOf(open.findings, 'state')).toMatchObject([
      { status: 'fail', remedy: `chmod 700 ${join(directory, 'state')}` },
    ]);
    const long = await check({ ...config(), adminSocket: `./${'x'.repeat(120)}.sock` });
    expect(faultsOf(long.findings, 'socket')[0]!.message).toMatch(/107 at most/);
    const lost = await check({ ...config(), adminSocket: './missing/admin.sock' });
    expect(faultsOf(lost.findings, 'socket')[0]!.message).toMatch(/^there is no directory/);
    const unit = await check({ ...config(), adminSocket: '/run/vp-test-nowhere/admin.sock' });
    expect(faultsOf(unit.findings, 'socket')).toMatchObject([
      { status: 'warn', remedy: expect.stringContaining('RuntimeDirectory=vp-test-nowhere,') },
    ]);
  });

  const canMount = skipReason === undefined && spawnSync('unshare', ['-m', 'true']).status === 0;
  test.skipIf(!canMount)('finds that there is no TUN (needs a mount namespace)', () => {
    const directory = join(root, 'no-tun');
    mkdirSync(directory);
    const path = join(directory, 'gateway.yaml');
    writeFileSync(path, stringify(config()));
    const node = [process.execPath, '--import', 'tsx', 'src/cli/main.ts'];
    const { status, stdout } = spawnSync(
      'unshare',
      [
        ...['-m', 'sh', '-c', 'mount -t tmpfs none /dev/net && exec "$@"', 'sh'],
        ...[...node, 'config', 'check', path, '--system', '--json'],
      ],
      { encoding: 'utf8' }
    );
    expect(status).toBe(ExitCode.Usage);
    const { findings } = JSON.parse(stdout) as { findings: Finding[] };
    expect(faultsOf(findings, 'tun')).toMatchObject([
      { status: 'fail', message: expect.stringMatching(/\/dev\/net\/tun/) },
    ]);
  });
});
