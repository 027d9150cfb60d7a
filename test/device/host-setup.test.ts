/**
 * The setup of a gateway's machine: which packets the kernel forwards, and that the machine is restored. The LAN,
 * the WAN and the interface of the gateway are TUNs, so that the test can send and receive.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { configureTun } from '../../src/device/index.ts';
import { EnvironmentError } from '../../src/errors.ts';
import { outcome, spawnNode } from '../support/child.ts';
import { plainFrame } from '../support/datagrams.ts';
import { ip, nftSkipReason, titled, useNamespace } from '../support/namespace.ts';
import { until } from './conformance.ts';
import {
  ALL_DIRECTIONS,
  BOTH,
  before,
  CONFIGURE_CHILD,
  cleanups,
  configurationOf,
  type Direction,
  IPV4,
  kernel,
  killed,
  nftPath,
  OWN_DIRECTIONS,
  open,
  replaceNft,
  routerAdvertisement,
  setKernel,
  state,
  tuns,
  useHostScene,
} from './host-scene.ts';

const skipReason = (await useNamespace()) ?? nftSkipReason();
if (skipReason === undefined) useHostScene();

describe.skipIf(skipReason !== undefined)(titled('the setup of the host', skipReason), () => {
  test.each([4, 6] as const)('forwards IPv%i between the LAN and the TUN only', async (family) => {
    expect(await open(family, ALL_DIRECTIONS)).toEqual([]);
    const setup = await configureTun(BOTH);
    expect(setup.problems).toEqual([]);
    expect(await open(family, ALL_DIRECTIONS)).toEqual(OWN_DIRECTIONS);
    await setup.close();
    await setup.close();
    expect(state()).toBe(before);
    expect(await open(family, ALL_DIRECTIONS)).toEqual([]);
  });

  test.each([4, 6] as const)(
    'goes on forwarding IPv%i between the others where the machine did so before',
    async (family) => {
      setKernel('ipv4/ip_forward', '1');
      setKernel('ipv6/conf/all/forwarding', '1');
      const asBefore = state();
      const setup = await configureTun(BOTH);
      const others = ['lan to wan', 'wan to lan'];
      expect(await open(family, ALL_DIRECTIONS)).toEqual([...OWN_DIRECTIONS, ...others]);
      await setup.close();
      expect(state()).toBe(asBefore);
    }
  );

  test('takes over the setup of a gateway that was killed', async () => {
    // The next gateway has another LAN and no IPv6.
    await killed({ ...BOTH, proxyArp: ['lan'] });
    const setup = await configureTun({ ...IPV4, lan: ['vp1'] });
    expect(kernel('ipv4/conf/lan/forwarding')).toBe('0');
    expect(kernel('ipv4/conf/lan/proxy_arp')).toBe('0');
    expect(kernel('ipv6/conf/all/forwarding')).toBe('0');
    expect(kernel('ipv4/conf/vp1/forwarding')).toBe('1');
    await setup.close();
    expect(state()).toBe(before);
  });

  test('keeps settings that another gateway on the machine needs, until that is closed too', async () => {
    const other = { ...BOTH, name: 'vp1', routes: ['203.0.113.0/24', '2001:db8:1::/64'] };
    const first = await configureTun(BOTH);
    const second = await configureTun(other);
    const directions: readonly Direction[] = [
      ...ALL_DIRECTIONS,
      { from: 'lan', to: 'vp1' },
      { from: 'vp1', to: 'lan' },
    ];
    const ofSecond = ['lan to vp1', 'vp1 to lan'];
    for (const family of [4, 6] as const) {
      expect(await open(family, directions)).toEqual([...OWN_DIRECTIONS, ...ofSecond]);
    }
    await first.close();
    for (const family of [4, 6] as const) expect(await open(family, directions)).toEqual(ofSecond);
    await second.close();
    expect(state()).toBe(before);
  });

  test('forwards between the TUNs of one gateway, and accepts sources behind them from a TUN only', async () => {
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

  test('does not restore a setting that another program has changed since', async () => {
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
    expect(await open(4, ALL_DIRECTIONS)).toEqual(OWN_DIRECTIONS);
    await tuns.vp0.close();
    expect(kernel('ipv4/conf/lan/forwarding')).toBe('0');
    expect(kernel('ipv6/conf/all/forwarding')).toBe('0');
    expect(execFileSync('nft', ['list', 'tables'], { encoding: 'utf8' })).toBe('');
    await expect(tuns.vp0.configure({ ...rest })).rejects.toThrow(`device ${name} is closed`);
  });

  test('restores the settings after another program has removed the rules', async () => {
    const setup = await configureTun({ ...BOTH, proxyArp: ['lan'] });
    execFileSync('nft', ['flush', 'ruleset']);
    await setup.close();
    expect(state()).toBe(before);
  });

  test('installs rules again that another program has removed, and reports it', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    cleanups.push(() => vi.useRealTimers());
    const problems: string[] = [];
    const setup = await configureTun({ ...BOTH, onProblem: (it) => void problems.push(it) });
    execFileSync('nft', ['flush', 'ruleset']);
    vi.advanceTimersByTime(5000);
    await until(() => problems.length > 0);
    expect(problems).toEqual([
      expect.stringMatching(/^table inet vp_vp0 was removed by another program.* installed again/),
    ]);
    for (const family of [4, 6] as const)
      expect(await open(family, ALL_DIRECTIONS)).toEqual(OWN_DIRECTIONS);
    // Nothing is reported while the rules exist.
    vi.advanceTimersByTime(5000);
    await setup.close();
    expect(problems).toHaveLength(1);
    expect(state()).toBe(before);
    vi.advanceTimersByTime(5000);
    expect(vi.getTimerCount()).toBe(0);
  });

  test('reports once that it cannot check the rules, and keeps them if it cannot at the end', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    cleanups.push(() => vi.useRealTimers());
    const problems: string[] = [];
    const setup = await configureTun({ ...BOTH, onProblem: (it) => void problems.push(it) });
    const restoreNft = replaceNft('kill -9 $$');
    vi.advanceTimersByTime(5000);
    await until(() => problems.length > 0);
    vi.advanceTimersByTime(5000);
    // Waits until the second check is over.
    await expect(setup.close()).rejects.toThrow(/SIGKILL.*the rules of table inet vp_vp0 stay/);
    restoreNft();
    expect(problems).toEqual([
      expect.stringMatching(/^table inet vp_vp0 cannot be checked or installed again/),
    ]);
    expect(await open(4, ALL_DIRECTIONS)).toEqual([]);
    await setup.close();
    expect(state()).toBe(before);
  });

  test('takes over the setup of a killed gateway whose TUN does not exist any more', async () => {
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

  test('keeps the rules when a setting cannot be restored, and reports it', async () => {
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
    expect(await open(6, ALL_DIRECTIONS)).toEqual(OWN_DIRECTIONS);
    // The next gateway takes over the recorded values.
    await (await configureTun(BOTH)).close();
    expect(state()).toBe(before);
  });

  test('keeps the first setup in force when a second one fails', async () => {
    const first = await configureTun(BOTH);
    const restoreNft = replaceNft('echo "Device or resource busy" >&2; exit 1');
    await expect(configureTun({ ...BOTH, proxyArp: ['lan'] })).rejects.toThrow(
      'Device or resource busy'
    );
    restoreNft();
    expect(kernel('ipv4/conf/lan/proxy_arp')).toBe('0');
    for (const family of [4, 6] as const)
      expect(await open(family, ALL_DIRECTIONS)).toEqual(OWN_DIRECTIONS);
    await first.close();
    expect(state()).toBe(before);
  });

  test('keeps the first setup in force when a second one fails after its rules were installed', async () => {
    const first = await configureTun(BOTH);
    // Two replacements succeed; the third, after obsolete settings were restored, fails.
    const count = join(mkdtempSync(join(tmpdir(), 'vp-count-')), 'count');
    const restoreNft = replaceNft(
      `if [ "$1" = -f ]; then echo >>${count}; [ "$(wc -l <${count})" = 2 ] && exit 1; fi; exec ${nftPath()} "$@"`
    );
    await expect(configureTun(IPV4)).rejects.toThrow('nft -f failed');
    restoreNft();
    rmSync(join(count, '..'), { recursive: true });
    for (const family of [4, 6] as const)
      expect(await open(family, ALL_DIRECTIONS)).toEqual(OWN_DIRECTIONS);
    await first.close();
    expect(state()).toBe(before);
  });

  test('does not treat a table that cannot be read as missing', async () => {
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

  describe('without nftables', () => {
    beforeEach(() => void replaceNft('echo "Operation not supported" >&2; exit 1'));

    test('restores the settings of several setups', async () => {
      await configureTun(IPV4);
      const setup = await configureTun(IPV4);
      await setup.close();
      expect(state(false)).toBe(before.slice(0, state(false).length));
    });

    test('forwards IPv4 by the settings of the interfaces, and reports what is missing', async () => {
      const setup = await configureTun(IPV4);
      expect(setup.problems).toEqual([
        expect.stringMatching(
          /^there are no rules for vp0 \(nft list failed: Operation not supported\)/
        ),
      ]);
      // The interface that a packet comes from decides, wherever the packet goes.
      expect(await open(4, ALL_DIRECTIONS)).toEqual([
        ...OWN_DIRECTIONS,
        'lan to wan',
        'vp0 to wan',
      ]);
      await setup.close();
      expect(kernel('ipv4/conf/lan/forwarding')).toBe('0');
      expect(kernel('ipv4/conf/lan/rp_filter')).toBe('0');
    });

    test('does not make the machine an IPv6 router, and changes no setting', async () => {
      const configuring = configureTun({ ...BOTH, proxyArp: ['lan'] });
      await expect(configuring).rejects.toThrow(EnvironmentError);
      await expect(configuring).rejects.toThrow(
        /^IPv6 cannot be forwarded between lan and vp0 only, because there are no rules: install nftables/
      );
      for (const setting of ['ipv6/conf/all/forwarding', 'ipv4/conf/lan/proxy_arp']) {
        expect(kernel(setting)).toBe('0');
      }
    });

    test('uses a machine that is an IPv6 router already', async () => {
      setKernel('ipv6/conf/all/forwarding', '1');
      const setup = await configureTun(BOTH);
      expect(setup.problems).toHaveLength(1);
      expect(await open(6, ALL_DIRECTIONS)).toEqual(expect.arrayContaining([...OWN_DIRECTIONS]));
      await setup.close();
      expect(kernel('ipv6/conf/all/forwarding')).toBe('1');
    });
  });
});
