import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, test } from 'vitest';
import { configureTun, LinuxTun } from '../../src/device/index.ts';
import { ApiMisuseError, EnvironmentError } from '../../src/errors.ts';
import { outcome, spawnNode } from '../support/child.ts';
import { ip, titled, useNamespace } from '../support/namespace.ts';

const skipReason = await useNamespace();

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function openTun(name: string): Promise<LinuxTun> {
  const tun = await LinuxTun.open({ name });
  cleanups.push(() => tun.close());
  return tun;
}

describe.skipIf(skipReason !== undefined)(titled('configureTun', skipReason), () => {
  test('changes nothing when it is called a second time', async () => {
    const tun = await openTun('conf');
    ip('link', 'add', 'lan0', 'type', 'veth', 'peer', 'name', 'lan1');
    cleanups.push(() => ip('link', 'delete', 'lan0'));
    const configuration = {
      name: tun.name,
      mtu: 1400,
      addresses: ['192.0.2.1/32', '192.0.2.9/24'],
      routes: ['198.51.100.0/24', '203.0.113.7/32'],
      proxyArp: ['lan0'],
      lan: [],
    };
    await configureTun(configuration);
    const setup = await configureTun(configuration);
    cleanups.push(() => setup.close());
    const [link] = JSON.parse(ip('-j', '-4', 'address', 'show', 'dev', 'conf'));
    expect(link.mtu).toBe(1400);
    expect(
      link.addr_info.map((info: { local: string; prefixlen: number }) => [
        info.local,
        info.prefixlen,
      ])
    ).toEqual([
      ['192.0.2.1', 32],
      ['192.0.2.9', 24],
    ]);
    const routes = ip('route', 'show', 'dev', 'conf');
    expect(routes).toContain('198.51.100.0/24');
    expect(routes).toContain('203.0.113.7');
    expect(kernelSetting('ipv4/ip_forward')).toBe('0');
    for (const name of ['conf', 'lan0']) {
      expect(kernelSetting(`ipv4/conf/${name}/forwarding`)).toBe('1');
    }
    expect(kernelSetting('ipv4/conf/lan0/proxy_arp')).toBe('1');
    expect(kernelSetting('ipv4/neigh/lan0/proxy_delay')).toBe('0');
  });

  test('routes IPv6 prefixes, and does not change forwarding without a list of LANs', async () => {
    const tun = await openTun('conf6');
    writeFileSync('/proc/sys/net/ipv6/conf/conf6/disable_ipv6', '0');
    await configureTun({
      name: tun.name,
      addresses: ['2001:db8::1/128'],
      routes: ['2001:db8:1::/64'],
    });
    expect(ip('-6', 'route', 'show', 'dev', 'conf6')).toContain('2001:db8:1::/64');
    expect(ip('-6', 'address', 'show', 'dev', 'conf6')).toContain('2001:db8::1/128');
    expect(kernelSetting('ipv6/conf/all/forwarding')).toBe('0');
  });

  test('reports what ip prints when ip fails', async () => {
    const configuring = configureTun({ name: 'nowhere', routes: [] });
    await expect(configuring).rejects.toThrow(EnvironmentError);
    await expect(configuring).rejects.toThrow(
      /^ip link set dev nowhere up failed: Cannot find device "nowhere"$/
    );
  });

  test('reports that ip is missing', async () => {
    const path = process.env.PATH;
    process.env.PATH = '/nonexistent';
    cleanups.push(() => {
      process.env.PATH = path;
    });
    await expect(configureTun({ name: 'vp0', routes: [] })).rejects.toThrow(
      'the command ip is missing; install iproute2'
    );
  });

  test('reports that a LAN interface does not exist, and changes nothing', async () => {
    const tun = await openTun('conf');
    const routes = ['198.51.100.0/24'];
    const configuring = configureTun({ name: tun.name, routes, proxyArp: ['nolan0'] });
    await expect(configuring).rejects.toThrow(new EnvironmentError('there is no interface nolan0'));
    expect(ip('route', 'show', 'dev', 'conf')).toBe('');
  });

  test.each(['all', 'default'])('does not accept "%s" as an interface', async (name) => {
    const tun = await openTun('conf');
    const configuring = configureTun({ name: tun.name, routes: [], lan: [name] });
    await expect(configuring).rejects.toThrow(`there is no interface ${name}`);
  });

  // Runs in a mount namespace in which nobody can write a setting, as in many containers.
  const READ_ONLY = 'mount -o bind,ro /proc/sys /proc/sys && exec "$@"';

  test('names the kernel setting that it cannot write', async () => {
    await openTun('conf');
    ip('link', 'add', 'lan0', 'type', 'veth', 'peer', 'name', 'lan1');
    cleanups.push(() => ip('link', 'delete', 'lan0'));
    const configuration = JSON.stringify({ name: 'conf', routes: [], proxyArp: ['lan0'] });
    const readOnly = ['unshare', '--mount', 'sh', '-c', READ_ONLY, 'sh'];
    expect(await outcome(spawnNode([CONFIGURE_CHILD, configuration], readOnly))).toMatchObject({
      output: expect.stringMatching(
        /^kernel setting net\.ipv4\.conf\.lan0\.proxy_arp cannot be set to 1: EROFS/
      ),
    });
  });

  test('does not write a setting that has its value already', async () => {
    await openTun('conf');
    ip('link', 'add', 'lan0', 'type', 'veth', 'peer', 'name', 'lan1');
    cleanups.push(() => ip('link', 'delete', 'lan0'));
    for (const name of ['conf', 'lan0']) {
      writeFileSync(`/proc/sys/net/ipv4/conf/${name}/forwarding`, '1');
    }
    writeFileSync('/proc/sys/net/ipv4/conf/lan0/rp_filter', '1');
    const configuration = JSON.stringify({
      name: 'conf',
      routes: ['198.51.100.0/24'],
      lan: ['lan0'],
    });
    const readOnly = ['unshare', '--mount', 'sh', '-c', READ_ONLY, 'sh'];
    const { output } = await outcome(spawnNode([CONFIGURE_CHILD, configuration], readOnly));
    expect(output).toBe('done\n');
  });

  test.each([
    ['an address without its length', { addresses: ['192.0.2.1'] }],
    ['an address with a length of 33', { addresses: ['192.0.2.1/33'] }],
    ['an option in place of an address', { addresses: ['-batch'] }],
    ['a route with host bits', { routes: ['192.0.2.1/24'] }],
    ['a path as LAN', { proxyArp: ['../../../kernel'] }],
    ['".." as LAN', { proxyArp: ['..'] }],
    ['a quotation mark in the name of a LAN', { lan: ['a"b'] }],
    ['a name that is a pattern', { lan: ['eth*'] }],
    ['a blank in the name of another TUN', { lan: [], otherTuns: ['vp 1'] }],
    ['an MTU of 0', { mtu: 0 }],
  ])('refuses %s', async (_, part) => {
    await expect(configureTun({ name: 'vp0', routes: [], ...part })).rejects.toThrow(
      ApiMisuseError
    );
  });
});

function kernelSetting(setting: string): string {
  return readFileSync(`/proc/sys/net/${setting}`, 'utf8').trim();
}

const CONFIGURE_CHILD = fileURLToPath(new URL('configure-child.ts', import.meta.url));
