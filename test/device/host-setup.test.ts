/**
 * What a gateway sets on its machine: which packets the kernel forwards then, and that the machine gets back
 * what it had. The LAN, the WAN and the gateway's interface are TUNs, so that the test can send and receive.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { IpAddress } from '../../src/address.ts';
import { configureTun, LinuxTun, type TunConfiguration } from '../../src/device/index.ts';
import { EnvironmentError } from '../../src/errors.ts';
import { outcome, spawnNode } from './child.ts';
import { readFrame, turn, until } from './conformance.ts';
import { ip, nftSkipReason, titled, useNamespace } from './namespace.ts';
import { plainFrame, udpPacket } from './packets.ts';

const skipReason = (await useNamespace()) ?? nftSkipReason();

const CONFIGURE_CHILD = fileURLToPath(new URL('configure-child.ts', import.meta.url));

type Name = 'vp0' | 'vp1' | 'lan' | 'wan';
const NAMES: readonly Name[] = ['vp0', 'vp1', 'lan', 'wan'];
let tuns: Record<Name, LinuxTun>;
let before: string;
const cleanups: (() => unknown)[] = [];

beforeEach(async () => {
  if (skipReason !== undefined) return;
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
  if (skipReason !== undefined) return;
  await Promise.all(Object.values(tuns).map((tun) => tun.close()));
  // A test that has failed must not spoil those behind it.
  execFileSync('nft', ['flush', 'ruleset']);
  setKernel('ipv4/ip_forward', '0');
  setKernel('ipv6/conf/all/forwarding', '0');
});

const IPV4: Pick<TunConfiguration, 'name' | 'routes' | 'lan'> = {
  name: 'vp0',
  routes: ['10.0.0.128/25'],
  lan: ['lan'],
};
const BOTH = { ...IPV4, routes: ['10.0.0.128/25', 'fd00:0:0:1::/64'] };

/** An address behind each interface. */
const AT: Record<Name, { 4: string; 6: string }> = {
  vp0: { 4: '10.0.0.129', 6: 'fd00:0:0:1::9' },
  vp1: { 4: '203.0.113.9', 6: '2001:db8:1::9' },
  lan: { 4: '10.0.0.5', 6: 'fd00::5' },
  wan: { 4: '198.51.100.9', 6: '2001:db8::9' },
};

interface Way {
  readonly from: Name;
  readonly to: Name;
  /** Behind which interface the address of the sender is; `from` by default. */
  readonly as?: Name;
}

/** The ways on which a packet that the kernel is given by one interface comes out of the other. */
async function open(family: 4 | 6, ways: readonly Way[]): Promise<string[]> {
  const passed: string[] = [];
  for (const { from, to, as = from } of ways) {
    while (readFrame(tuns[to]).length > 0);
    const packet = packetFrom(family, AT[as][family], AT[to][family]);
    const frame = plainFrame(packet);
    expect(tuns[from].write(frame, 0, frame.length)).toBe(true);
    for (let turns = 0; turns < 20; turns++) {
      const read = readFrame(tuns[to]).subarray(10);
      // Past the hop limit and the checksum of the header, which a router changes.
      if (read.length > 0 && read.subarray(12).equals(packet.subarray(12))) {
        passed.push(as === from ? `${from} to ${to}` : `${from} to ${to} as ${as}`);
        break;
      }
      await turn();
    }
  }
  return passed;
}

const ALL_WAYS: readonly Way[] = [
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
const OWN_WAYS = ['lan to vp0', 'vp0 to lan'];

describe.skipIf(skipReason !== undefined)(titled('the setup of the host', skipReason), () => {
  test.each([4, 6] as const)('forwards IPv%i between the LAN and the TUN alone', async (family) => {
    expect(await open(family, ALL_WAYS)).toEqual([]);
    const setup = await configureTun(BOTH);
    expect(setup.problems).toEqual([]);
    expect(await open(family, ALL_WAYS)).toEqual(OWN_WAYS);
    await setup.close();
    await setup.close();
    expect(state()).toBe(before);
    expect(await open(family, ALL_WAYS)).toEqual([]);
  });

  test.each([4, 6] as const)(
    'goes on forwarding IPv%i between the others where the machine did so before',
    async (family) => {
      setKernel('ipv4/ip_forward', '1');
      setKernel('ipv6/conf/all/forwarding', '1');
      before = state();
      const setup = await configureTun(BOTH);
      const others = ['lan to wan', 'wan to lan'];
      expect(await open(family, ALL_WAYS)).toEqual([...OWN_WAYS, ...others]);
      await setup.close();
      expect(state()).toBe(before);
    }
  );

  test('takes over what a gateway that was killed has left', async () => {
    // The next has another LAN and no IPv6.
    await killed({ ...BOTH, proxyArp: ['lan'] });
    const setup = await configureTun({ ...IPV4, lan: ['vp1'] });
    expect(kernel('ipv4/conf/lan/forwarding')).toBe('0');
    expect(kernel('ipv4/conf/lan/proxy_arp')).toBe('0');
    expect(kernel('ipv6/conf/all/forwarding')).toBe('0');
    expect(kernel('ipv4/conf/vp1/forwarding')).toBe('1');
    await setup.close();
    expect(state()).toBe(before);
  });

  test('keeps what another gateway on the machine needs, until that one is closed too', async () => {
    const other = { ...BOTH, name: 'vp1', routes: ['203.0.113.0/24', '2001:db8:1::/64'] };
    const first = await configureTun(BOTH);
    const second = await configureTun(other);
    const ways: readonly Way[] = [
      ...ALL_WAYS,
      { from: 'lan', to: 'vp1' },
      { from: 'vp1', to: 'lan' },
    ];
    const ofSecond = ['lan to vp1', 'vp1 to lan'];
    for (const family of [4, 6] as const) {
      expect(await open(family, ways)).toEqual([...OWN_WAYS, ...ofSecond]);
    }
    await first.close();
    for (const family of [4, 6] as const) expect(await open(family, ways)).toEqual(ofSecond);
    await second.close();
    expect(state()).toBe(before);
  });

  test('forwards between the TUNs of one gateway, and takes what is behind one from a TUN alone', async () => {
    const setup = await configureTun({ ...IPV4, otherTuns: ['vp1'] });
    ip('route', 'add', '203.0.113.0/24', 'dev', 'vp1');
    cleanups.push(() => ip('route', 'delete', '203.0.113.0/24'));
    expect(
      await open(4, [
        { from: 'vp0', to: 'vp1' },
        { from: 'vp1', to: 'lan', as: 'vp0' },
        { from: 'lan', to: 'vp1' },
        { from: 'lan', to: 'vp1', as: 'vp0' },
      ])
    ).toEqual(['vp0 to vp1', 'vp1 to lan as vp0', 'lan to vp1']);
    await setup.close();
  });

  test('leaves what somebody else has set since', async () => {
    const setup = await configureTun({ ...IPV4, proxyArp: ['lan'] });
    setKernel('ipv4/neigh/lan/proxy_delay', '50');
    setKernel('ipv4/ip_forward', '1');
    await setup.close();
    expect(kernel('ipv4/neigh/lan/proxy_delay')).toBe('50');
    expect(kernel('ipv4/conf/lan/proxy_arp')).toBe('0');
    expect(kernel('ipv4/conf/lan/forwarding')).toBe('1');
  });

  test('keeps the default route that a router has advertised', async () => {
    setKernel('ipv6/conf/wan/accept_ra', '1');
    const advertisement = plainFrame(routerAdvertisement());
    expect(tuns.wan.write(advertisement, 0, advertisement.length)).toBe(true);
    const route = () => ip('-6', 'route', 'show', 'default').replace(/ expires \S+/, '');
    await until(() => route().includes('dev wan'));
    const advertised = route();
    const setup = await configureTun(BOTH);
    expect(kernel('ipv6/conf/all/forwarding')).toBe('1');
    expect(route()).toBe(advertised);
    await setup.close();
    expect(route()).toBe(advertised);
    expect(kernel('ipv6/conf/wan/accept_ra')).toBe('1');
  });

  test('is undone when the device is closed', async () => {
    const { name, ...rest } = BOTH;
    expect(await tuns.vp0.configure({ ...rest, proxyArp: ['lan'] })).toEqual([]);
    expect(await open(4, ALL_WAYS)).toEqual(OWN_WAYS);
    await tuns.vp0.close();
    expect(kernel('ipv4/conf/lan/forwarding')).toBe('0');
    expect(kernel('ipv6/conf/all/forwarding')).toBe('0');
    expect(execFileSync('nft', ['list', 'tables'], { encoding: 'utf8' })).toBe('');
    await expect(tuns.vp0.configure({ ...rest })).rejects.toThrow(`device ${name} is closed`);
  });

  test('restores the settings though somebody else has removed the rules', async () => {
    const setup = await configureTun({ ...BOTH, proxyArp: ['lan'] });
    execFileSync('nft', ['flush', 'ruleset']);
    await setup.close();
    expect(state()).toBe(before);
  });

  test('installs the rules again that somebody else has removed, and says so', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    cleanups.push(() => vi.useRealTimers());
    const problems: string[] = [];
    const setup = await configureTun({ ...BOTH, onProblem: (it) => void problems.push(it) });
    execFileSync('nft', ['flush', 'ruleset']);
    vi.advanceTimersByTime(5000);
    await until(() => problems.length > 0);
    expect(problems).toEqual([
      expect.stringMatching(/^table inet vp_vp0 was removed by somebody else.* installed again/),
    ]);
    for (const family of [4, 6] as const) expect(await open(family, ALL_WAYS)).toEqual(OWN_WAYS);
    // Nothing is said of rules that are there.
    vi.advanceTimersByTime(5000);
    await setup.close();
    expect(problems).toHaveLength(1);
    expect(state()).toBe(before);
    vi.advanceTimersByTime(5000);
    expect(vi.getTimerCount()).toBe(0);
  });

  test('reports once that it cannot look for the rules, and keeps them if it cannot at the end', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    cleanups.push(() => vi.useRealTimers());
    const problems: string[] = [];
    const setup = await configureTun({ ...BOTH, onProblem: (it) => void problems.push(it) });
    const restoreNft = replaceNft('kill -9 $$');
    vi.advanceTimersByTime(5000);
    await until(() => problems.length > 0);
    vi.advanceTimersByTime(5000);
    // It waits until the second look is over.
    await expect(setup.close()).rejects.toThrow(/SIGKILL.*the rules of table inet vp_vp0 stay/);
    restoreNft();
    expect(problems).toEqual([expect.stringMatching(/^it is not known whether table inet vp_vp0/)]);
    expect(await open(4, ALL_WAYS)).toEqual([]);
    await setup.close();
    expect(state()).toBe(before);
  });

  test('takes over what a killed gateway has left whose TUN is gone', async () => {
    await killed(configurationOf('vp1'));
    await tuns.vp1.close();
    const setup = await configureTun(IPV4);
    expect(setup.problems).toEqual([
      expect.stringMatching(/^the rules of a gateway that was killed \(table inet vp_vp1\)/),
    ]);
    expect(kernel('ipv6/conf/all/forwarding')).toBe('0');
    expect(await open(4, [{ from: 'vp0', to: 'lan' }])).toEqual(['vp0 to lan']);
    // The killed gateway had the same prefix.
    expect(await open(4, [{ from: 'vp0', to: 'lan', as: 'vp1' }])).toEqual(['vp0 to lan as vp1']);
    await setup.close();
    expect(kernel('ipv4/conf/lan/forwarding')).toBe('0');
    expect(execFileSync('nft', ['list', 'tables'], { encoding: 'utf8' })).toBe('');
  });

  test('keeps the rules when a setting cannot be restored, and says so', async () => {
    const { output } = await outcome(
      spawnNode(
        [CONFIGURE_CHILD, JSON.stringify(BOTH), 'mount -o bind,ro /proc/sys /proc/sys'],
        ['unshare', '--mount']
      )
    );
    expect(output).toMatch(
      /^kernel setting net\.ipv6\.conf\.all\.forwarding cannot be set to 0: EROFS.*the rules of table inet vp_vp0 stay/
    );
    expect(kernel('ipv6/conf/all/forwarding')).toBe('1');
    expect(await open(6, ALL_WAYS)).toEqual(OWN_WAYS);
    // The next gateway takes over what was set before.
    await (await configureTun(BOTH)).close();
    expect(state()).toBe(before);
  });

  test('leaves the first setup in force when a second one fails', async () => {
    const first = await configureTun(BOTH);
    const restoreNft = replaceNft('echo "Device or resource busy" >&2; exit 1');
    await expect(configureTun({ ...BOTH, proxyArp: ['lan'] })).rejects.toThrow(
      'Device or resource busy'
    );
    restoreNft();
    expect(kernel('ipv4/conf/lan/proxy_arp')).toBe('0');
    for (const family of [4, 6] as const) expect(await open(family, ALL_WAYS)).toEqual(OWN_WAYS);
    await first.close();
    expect(state()).toBe(before);
  });

  test('leaves the first setup in force when a second one fails once its rules are installed', async () => {
    const first = await configureTun(BOTH);
    // Two replacements pass; the third, which follows the restoring of obsolete settings, does not.
    const count = join(mkdtempSync(join(tmpdir(), 'vp-count-')), 'count');
    const restoreNft = replaceNft(
      `if [ "$1" = -f ]; then echo >>${count}; [ "$(wc -l <${count})" = 2 ] && exit 1; fi; exec ${nftPath()} "$@"`
    );
    await expect(configureTun(IPV4)).rejects.toThrow('nft -f failed');
    restoreNft();
    rmSync(join(count, '..'), { recursive: true });
    for (const family of [4, 6] as const) expect(await open(family, ALL_WAYS)).toEqual(OWN_WAYS);
    await first.close();
    expect(state()).toBe(before);
  });

  test('does not take a table that cannot be read for one that is not there', async () => {
    await killed(BOTH);
    const restoreNft = replaceNft(
      `case "$*" in *"list table "*) kill -9 $$;; esac; exec ${nftPath()} "$@"`
    );
    await expect(configureTun(BOTH)).rejects.toThrow(/nft .*ended by SIGKILL before it answered/);
    restoreNft();
    await (await configureTun(BOTH)).close();
    expect(state()).toBe(before);
  });

  test('is undone when the device is closed while it is configured', async () => {
    const { name: _, ...rest } = BOTH;
    const configuring = tuns.vp0.configure(rest);
    await tuns.vp0.close();
    await configuring;
    expect(kernel('ipv6/conf/all/forwarding')).toBe('0');
    expect(execFileSync('nft', ['list', 'tables'], { encoding: 'utf8' })).toBe('');
  });

  describe('where nftables refuses', () => {
    beforeEach(() => void replaceNft('echo "Operation not supported" >&2; exit 1'));

    test('restores what all of several setups have set', async () => {
      await configureTun(IPV4);
      const setup = await configureTun(IPV4);
      await setup.close();
      expect(state(false)).toBe(before.slice(0, state(false).length));
    });

    test('forwards IPv4 by the settings of the interfaces, and says what is missing', async () => {
      const setup = await configureTun(IPV4);
      expect(setup.problems).toEqual([
        expect.stringMatching(
          /^there are no rules for vp0 \(nft list failed: Operation not supported\)/
        ),
      ]);
      // The interface that a packet comes from decides, and none asks where it goes.
      expect(await open(4, ALL_WAYS)).toEqual([...OWN_WAYS, 'lan to wan', 'vp0 to wan']);
      await setup.close();
      expect(kernel('ipv4/conf/lan/forwarding')).toBe('0');
      expect(kernel('ipv4/conf/lan/rp_filter')).toBe('0');
    });

    test('does not make a router of IPv6 of the machine, and changes no setting', async () => {
      const configuring = configureTun({ ...BOTH, proxyArp: ['lan'] });
      await expect(configuring).rejects.toThrow(EnvironmentError);
      await expect(configuring).rejects.toThrow(
        /^IPv6 cannot be forwarded between lan and vp0 alone, for there are no rules: install nftables/
      );
      for (const setting of ['ipv6/conf/all/forwarding', 'ipv4/conf/lan/proxy_arp']) {
        expect(kernel(setting)).toBe('0');
      }
    });

    test('uses a machine that is a router of IPv6 already', async () => {
      setKernel('ipv6/conf/all/forwarding', '1');
      const setup = await configureTun(BOTH);
      expect(setup.problems).toHaveLength(1);
      expect(await open(6, ALL_WAYS)).toEqual(expect.arrayContaining(OWN_WAYS));
      await setup.close();
      expect(kernel('ipv6/conf/all/forwarding')).toBe('1');
    });
  });
});

/** What a gateway leaves that was configured so and then killed. */
async function killed(configuration: TunConfiguration): Promise<void> {
  const child = spawnNode([CONFIGURE_CHILD, JSON.stringify(configuration)]);
  expect((await outcome(child)).output).toBe('done\n');
}

/** A gateway like that of `BOTH` with another TUN. */
function configurationOf(name: Name): TunConfiguration {
  return { ...BOTH, name, routes: [...BOTH.routes, '203.0.113.0/24'] };
}

/** Has a shell script stand in for `nft` until the test ends, or until the returned function is called. */
function replaceNft(script: string): () => void {
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

function nftPath(): string {
  return execFileSync('sh', ['-c', 'command -v nft'], { encoding: 'utf8' }).trim();
}

/** Settings and rules; routes and addresses go with the interface. */
function state(withRules = true): string {
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

function kernel(setting: string): string {
  return readFileSync(`/proc/sys/net/${setting}`, 'utf8').trim();
}

function setKernel(setting: string, value: string): void {
  writeFileSync(`/proc/sys/net/${setting}`, value);
}

function packetFrom(family: 4 | 6, source: string, destination: string): Buffer {
  if (family === 4) return udpPacket({ source, destination });
  const payload = Buffer.from('03e807d000100000' + '0123456789abcdef', 'hex');
  return ipv6Packet(17, 64, source, destination, payload);
}

/** A router that is the way to everywhere (RFC 4861 section 4.2). */
function routerAdvertisement(): Buffer {
  const message = Buffer.from('86000000400007080000000000000000', 'hex');
  const packet = ipv6Packet(58, 255, 'fe80::9', 'ff02::1', message);
  let sum = 58 + message.length;
  for (let at = 8; at < packet.length; at += 2) sum += packet.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  packet.writeUInt16BE(~sum & 0xffff, 42);
  return packet;
}

function ipv6Packet(
  nextHeader: number,
  hopLimit: number,
  source: string,
  destination: string,
  payload: Buffer
): Buffer {
  const header = Buffer.alloc(40);
  header[0] = 0x60;
  header.writeUInt16BE(payload.length, 4);
  header[6] = nextHeader;
  header[7] = hopLimit;
  IpAddress.parse(source).writeTo(header, 8);
  IpAddress.parse(destination).writeTo(header, 24);
  return Buffer.concat([header, payload]);
}
