/**
 * A machine between a LAN and a WAN, for the tests of the host setup of a gateway. The LAN, the WAN and the
 * interfaces of the gateway are TUNs, so that a test can send and receive.
 * @module
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect } from 'vitest';
import { LinuxTun, type TunConfiguration } from '../../src/device/index.ts';
import { outcome, spawnNode } from '../support/child.ts';
import { plainDatagram, plainFrame } from '../support/datagrams.ts';
import { ip } from '../support/namespace.ts';
import { icmpMessage, udpPacket } from '../support/packets.ts';
import { readFrame, turn } from './conformance.ts';

export const CONFIGURE_CHILD: string = fileURLToPath(
  new URL('configure-child.ts', import.meta.url)
);

export type Name = 'vp0' | 'vp1' | 'lan' | 'wan';
const NAMES: readonly Name[] = ['vp0', 'vp1', 'lan', 'wan'];
export let tuns: Record<Name, LinuxTun>;
export let before: string;
export const cleanups: (() => unknown)[] = [];

/** Builds the machine before each test of the calling file, and restores it afterwards. */
export function useHostScene(): void {
  beforeEach(async () => {
    const opened = await Promise.all(NAMES.map((name) => LinuxTun.open({ name })));
    tuns = Object.fromEntries(NAMES.map((name, i) => [name, opened[i]!])) as typeof tuns;
    for (const name of NAMES) setKernel(`ipv6/conf/${name}/disable_ipv6`, '0');
    ip('route', 'add', '10.0.0.0/25', 'dev', 'lan');
    ip('route', 'add', '198.51.100.0/24', 'dev', 'wan');
    ip('-6', 'route', 'add', 'fd00::/64', 'dev', 'lan');
    ip('-6', 'route', 'add', '2001:db8::/64', 'dev', 'wan');
    before = state();
  });

  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
    await Promise.all(Object.values(tuns).map((tun) => tun.close()));
    // A failed test must not affect the tests after it.
    execFileSync('nft', ['flush', 'ruleset']);
    setKernel('ipv4/ip_forward', '0');
    setKernel('ipv6/conf/all/forwarding', '0');
  });
}

export const IPV4: Pick<TunConfiguration, 'name' | 'routes' | 'lan'> = {
  name: 'vp0',
  routes: ['10.0.0.128/25'],
  lan: ['lan'],
};
export const BOTH: typeof IPV4 = { ...IPV4, routes: ['10.0.0.128/25', 'fd00:0:0:1::/64'] };

/** An address behind each interface. */
const AT: Record<Name, { 4: string; 6: string }> = {
  vp0: { 4: '10.0.0.129', 6: 'fd00:0:0:1::9' },
  vp1: { 4: '203.0.113.9', 6: '2001:db8:1::9' },
  lan: { 4: '10.0.0.5', 6: 'fd00::5' },
  wan: { 4: '198.51.100.9', 6: '2001:db8::9' },
};

export interface Direction {
  readonly from: Name;
  readonly to: Name;
  /** The interface behind which the address of the sender is; default `from`. */
  readonly as?: Name;
}

/** Returns the pairs of interfaces between which the kernel forwards a packet. */
export async function open(family: 4 | 6, directions: readonly Direction[]): Promise<string[]> {
  const passed: string[] = [];
  for (const { from, to, as = from } of directions) {
    while (readFrame(tuns[to]).length > 0);
    const packet = packetFrom(family, AT[as][family], AT[to][family]);
    const frame = plainFrame(packet);
    expect(tuns[from].write(frame, 0, frame.length)).toBe(true);
    for (let turns = 0; turns < 20; turns++) {
      const read = readFrame(tuns[to]).subarray(10);
      // The bytes behind the hop limit and the header checksum, which a router changes.
      if (read.length > 0 && read.subarray(12).equals(packet.subarray(12))) {
        passed.push(as === from ? `${from} to ${to}` : `${from} to ${to} as ${as}`);
        break;
      }
      await turn();
    }
  }
  return passed;
}

export const ALL_DIRECTIONS: readonly Direction[] = [
  { from: 'lan', to: 'vp0' },
  { from: 'vp0', to: 'lan' },
  { from: 'lan', to: 'wan' },
  { from: 'wan', to: 'lan' },
  { from: 'wan', to: 'vp0' },
  { from: 'vp0', to: 'wan' },
  { from: 'wan', to: 'lan', as: 'vp0' },
  { from: 'wan', to: 'vp0', as: 'lan' },
  { from: 'lan', to: 'wan', as: 'vp0' },
];
export const OWN_DIRECTIONS: readonly string[] = ['lan to vp0', 'vp0 to lan'];

/** Configures a gateway that is then killed, so that its setup stays. */
export async function killed(configuration: TunConfiguration): Promise<void> {
  const child = spawnNode([CONFIGURE_CHILD, JSON.stringify(configuration)]);
  expect((await outcome(child)).output).toBe('done\n');
}

/** A gateway like that of `BOTH`, with another TUN. */
export function configurationOf(name: Name): TunConfiguration {
  return { ...BOTH, name, routes: [...BOTH.routes, '203.0.113.0/24'] };
}

/** Replaces `nft` by a shell script until the test ends or the returned function is called. */
export function replaceNft(script: string): () => void {
  const directory = mkdtempSync(join(tmpdir(), 'vp-nft-'));
  const path = process.env.PATH;
  writeFileSync(join(directory, 'nft'), `#!/bin/sh\n${script}\n`);
  chmodSync(join(directory, 'nft'), 0o755);
  process.env.PATH = `${directory}:${path}`;
  const restore = () => {
    process.env.PATH = path;
    rmSync(directory, { recursive: true, force: true });
  };
  cleanups.push(restore);
  return restore;
}

export function nftPath(): string {
  return execFileSync('sh', ['-c', 'command -v nft'], { encoding: 'utf8' }).trim();
}

/** Returns the settings and rules; routes and addresses end with the interface. */
export function state(withRules = true): string {
  const settings = ['ipv4/ip_forward', 'ipv6/conf/all/forwarding', 'ipv6/conf/default/forwarding'];
  for (const name of NAMES) {
    for (const each of ['forwarding', 'proxy_arp', 'rp_filter'])
      settings.push(`ipv4/conf/${name}/${each}`);
    for (const each of ['forwarding', 'accept_ra']) settings.push(`ipv6/conf/${name}/${each}`);
    settings.push(`ipv4/neigh/${name}/proxy_delay`);
  }
  const rules = withRules ? execFileSync('nft', ['list', 'ruleset'], { encoding: 'utf8' }) : '';
  return `${settings.map((each) => `${each} ${kernel(each)}`).join('\n')}\n${rules}`;
}

export function kernel(setting: string): string {
  return readFileSync(`/proc/sys/net/${setting}`, 'utf8').trim();
}

export function setKernel(setting: string, value: string): void {
  writeFileSync(`/proc/sys/net/${setting}`, value);
}

function packetFrom(family: 4 | 6, source: string, destination: string): Buffer {
  if (family === 4) return plainDatagram({ source, destination });
  const ports = { sourcePort: 1000, destinationPort: 2000 };
  const payload = Buffer.from('0123456789abcdef', 'hex');
  return Buffer.from(udpPacket({ source, destination }, { ...ports, payload, checksum: 'none' }));
}

/** Returns the advertisement of a default router (RFC 4861 section 4.2). */
export function routerAdvertisement(): Buffer {
  const rest = Buffer.from('40000708', 'hex');
  const fields = { type: 134, rest, payload: new Uint8Array(8), hopLimit: 255 };
  return Buffer.from(icmpMessage({ source: 'fe80::9', destination: 'ff02::1' }, fields));
}
