/**
 * Routes of a gateway that change while it runs: which routes exist, what the kernel forwards, and what remains
 * when a change fails.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { configureTun, openTun, type TunConfiguration } from '../../src/device/index.ts';
import { ApiMisuseError, EnvironmentError } from '../../src/errors.ts';
import { ip, nftSkipReason, titled, useNamespace } from '../support/namespace.ts';
import {
  ALL_DIRECTIONS,
  BOTH,
  before,
  cleanups,
  IPV4,
  kernel,
  killed,
  nftPath,
  OWN_DIRECTIONS,
  open,
  replaceNft,
  setKernel,
  state,
  tuns,
  useHostScene,
} from './host-scene.ts';

const skipReason = (await useNamespace()) ?? nftSkipReason();
if (skipReason === undefined) useHostScene();

/** A gateway that does not know its routes yet. */
const LATER: TunConfiguration = { name: 'vp0', routes: [], lan: ['lan'] };

/** Returns the routes to the TUN and the unreachable routes, without those that the kernel has created itself. */
function routes(): string[] {
  return (['-4', '-6'] as const)
    .flatMap((family) => [
      ...ip(family, 'route', 'show', 'dev', 'vp0', 'proto', 'boot').split('\n'),
      ...ip(family, 'route', 'show', 'type', 'unreachable').split('\n'),
    ])
    .map((line) => /^(?:unreachable )?\S+/.exec(line)?.[0] ?? '')
    .filter((route) => route !== '')
    .sort();
}

/** Returns everything that a gateway sets. */
function everything(): string {
  return `${routes().join('\n')}\n${state()}`;
}

describe.skipIf(skipReason !== undefined)(titled('setRoutes', skipReason), () => {
  test('forwards nothing before there is a route, and then between the LAN and the TUN only', async () => {
    const setup = await configureTun({ ...LATER, proxyArp: ['lan'] });
    for (const family of [4, 6] as const) expect(await open(family, ALL_DIRECTIONS)).toEqual([]);
    expect(kernel('ipv4/conf/lan/forwarding')).toBe('0');
    expect(await setup.setRoutes(BOTH)).toEqual([]);
    expect(routes()).toEqual(['10.0.0.128/25', 'fd00:0:0:1::/64']);
    for (const family of [4, 6] as const)
      expect(await open(family, ALL_DIRECTIONS)).toEqual(OWN_DIRECTIONS);
    await setup.close();
    expect(state()).toBe(before);
  });

  test('removes routes that are not listed any more, and the rules and the forwarding that they needed', async () => {
    const setup = await configureTun(BOTH);
    await setup.setRoutes({ routes: ['10.0.0.192/26'] });
    expect(routes()).toEqual(['10.0.0.192/26']);
    expect(kernel('ipv6/conf/all/forwarding')).toBe('0');
    const set = execFileSync('nft', ['list', 'set', 'inet', 'vp_vp0', 'ipv4'], {
      encoding: 'utf8',
    });
    expect(set).toContain('elements = { 10.0.0.192/26 }');
    await setup.setRoutes({ routes: [] });
    expect(routes()).toEqual([]);
    expect(kernel('ipv4/conf/lan/forwarding')).toBe('0');
    for (const family of [4, 6] as const) expect(await open(family, ALL_DIRECTIONS)).toEqual([]);
    await setup.close();
    expect(state()).toBe(before);
  });

  test('does not touch routes of others and routes that stay', async () => {
    const setup = await configureTun(BOTH);
    ip('route', 'add', '203.0.113.0/24', 'dev', 'vp0');
    await setup.setRoutes({ routes: ['10.0.0.128/25'] });
    expect(routes()).toEqual(['10.0.0.128/25', '203.0.113.0/24']);
    await setup.close();
  });

  test('changes nothing the second time, and restores what another program has removed', async () => {
    const setup = await configureTun(LATER);
    await setup.setRoutes(BOTH);
    const once = everything();
    await setup.setRoutes(BOTH);
    expect(everything()).toBe(once);
    ip('route', 'delete', '10.0.0.128/25', 'dev', 'vp0');
    execFileSync('nft', ['flush', 'ruleset']);
    await setup.setRoutes(BOTH);
    expect(everything()).toBe(once);
    await setup.close();
    expect(state()).toBe(before);
  });

  test('makes a prefix of the TUN unreachable, and routes it to the TUN again', async () => {
    const prefixes = ['10.0.0.128/25', 'fd00:0:0:1::/64'];
    const nowhere = prefixes.map((prefix) => `unreachable ${prefix}`);
    const setup = await configureTun(BOTH);
    await setup.setRoutes({ routes: [], unreachable: prefixes });
    expect(routes()).toEqual(nowhere);
    expect(await open(4, [{ from: 'lan', to: 'vp0' }])).toEqual([]);
    await setup.setRoutes({ routes: prefixes });
    expect(routes()).toEqual(prefixes);
    await setup.setRoutes({ routes: [], unreachable: prefixes });
    await setup.close();
    expect(routes()).toEqual([]);
    expect(state()).toBe(before);
  });

  test('replaces the routes of a killed gateway with several TUNs', async () => {
    const unreachable = ['10.0.0.128/26', 'fd00:0:0:1::/64'];
    await killed({ ...IPV4, routes: [], unreachable, otherTuns: ['vp1'] });
    const left = ['unreachable 10.0.0.128/26', 'unreachable fd00:0:0:1::/64'];
    expect(routes()).toEqual(left);
    const setup = await configureTun(LATER);
    expect(routes()).toEqual(left);
    await setup.setRoutes(BOTH);
    expect(routes()).toEqual(['10.0.0.128/25', 'fd00:0:0:1::/64']);
    await setup.close();
    expect(state()).toBe(before);
  });

  test('runs calls one after the other, and undoes the last of them', async () => {
    const setup = await configureTun(LATER);
    const changes = [BOTH, { routes: ['203.0.113.0/24'] }, { routes: ['203.0.113.0/25'] }];
    const setting = changes.map((change) => setup.setRoutes(change));
    await Promise.all([...setting, setup.close()]);
    expect(routes()).toEqual(['203.0.113.0/25']);
    expect(state()).toBe(before);
  });

  test.each([
    ['a route that the kernel refuses', ['203.0.113.0/24', '2001:db8:1::/64'], EnvironmentError],
    ['a text that is not a prefix', ['203.0.113.0/24', 'no-prefix'], ApiMisuseError],
  ] as const)('keeps the former state after %s', async (_, wanted, kind) => {
    const setup = await configureTun(IPV4);
    setKernel('ipv6/conf/vp0/disable_ipv6', '1');
    const former = everything();
    await expect(setup.setRoutes({ routes: wanted })).rejects.toThrow(kind);
    expect(everything()).toBe(former);
    setKernel('ipv6/conf/vp0/disable_ipv6', '0');
    await setup.setRoutes({ routes: ['203.0.113.0/24'] });
    expect(routes()).toEqual(['203.0.113.0/24']);
    await setup.close();
    expect(state()).toBe(before);
  });

  test('keeps the former state if the rules cannot be installed, before or after the routes', async () => {
    const setup = await configureTun(BOTH);
    const former = everything();
    const directory = mkdtempSync(join(tmpdir(), 'vp-count-'));
    cleanups.push(() => rmSync(directory, { recursive: true }));
    for (const failing of [1, 2, 3]) {
      const count = join(directory, String(failing));
      const restoreNft = replaceNft(
        `if [ "$1" = -f ]; then echo >>${count}; [ "$(wc -l <${count})" = ${failing} ] && exit 1; fi; exec ${nftPath()} "$@"`
      );
      await expect(setup.setRoutes({ routes: ['203.0.113.0/24'] })).rejects.toThrow(
        'nft -f failed'
      );
      restoreNft();
      expect(everything()).toBe(former);
    }
    await setup.close();
    expect(state()).toBe(before);
  });

  test('removes with the next call what a failed change has left and could not remove', async () => {
    const setup = await configureTun(IPV4);
    setKernel('ipv6/conf/vp0/disable_ipv6', '1');
    // All changes of the rules from the second on are refused, so that nothing can be rolled back.
    const count = join(mkdtempSync(join(tmpdir(), 'vp-count-')), 'count');
    cleanups.push(() => rmSync(join(count, '..'), { recursive: true }));
    const restoreNft = replaceNft(
      `if [ "$1" = -f ]; then echo >>${count}; [ "$(wc -l <${count})" -gt 1 ] && exit 1; fi; exec ${nftPath()} "$@"`
    );
    const wanted = ['203.0.113.0/24', '2001:db8:1::/64'];
    await expect(setup.setRoutes({ routes: wanted })).rejects.toThrow(EnvironmentError);
    restoreNft();
    await setup.setRoutes({ routes: ['10.0.0.128/25'] });
    expect(routes()).toEqual(['10.0.0.128/25']);
    await setup.close();
    setKernel('ipv6/conf/vp0/disable_ipv6', '0');
    expect(state()).toBe(before);
  });

  test('does not make the machine an IPv6 router without nftables', async () => {
    replaceNft('echo "Operation not supported" >&2; exit 1');
    const setup = await configureTun(IPV4);
    await expect(setup.setRoutes(BOTH)).rejects.toThrow(/^IPv6 cannot be forwarded/);
    expect(routes()).toEqual(['10.0.0.128/25']);
    expect(kernel('ipv6/conf/all/forwarding')).toBe('0');
    expect(await setup.setRoutes({ routes: ['10.0.0.128/26'] })).toEqual([
      expect.stringMatching(/^there are no rules for vp0/),
    ]);
    expect(await open(4, ALL_DIRECTIONS)).toEqual(expect.arrayContaining([...OWN_DIRECTIONS]));
    await setup.close();
    expect(kernel('ipv4/conf/lan/forwarding')).toBe('0');
  });

  test('is refused when the setup is closed, or replaced by a later one', async () => {
    const setup = await configureTun(IPV4);
    const later = await configureTun(IPV4);
    await expect(setup.setRoutes(BOTH)).rejects.toThrow(
      new ApiMisuseError(
        'the setup of vp0 is closed, or a later one has replaced it: it can set no routes'
      )
    );
    await later[Symbol.asyncDispose]();
    await expect(later.setRoutes(BOTH)).rejects.toThrow(ApiMisuseError);
    expect(routes()).toEqual(['10.0.0.128/25']);
    expect(state()).toBe(before);
  });
});

describe.skipIf(skipReason !== undefined)(titled('LinuxTun.setRoutes', skipReason), () => {
  test('changes what configure has set, until the device is closed', async () => {
    const { vp0 } = tuns;
    expect(await vp0.configure({ routes: [], lan: ['lan'] })).toEqual([]);
    expect(await vp0.setRoutes(BOTH.routes)).toEqual([]);
    expect(await open(4, ALL_DIRECTIONS)).toEqual(OWN_DIRECTIONS);
    const setting = vp0.setRoutes(IPV4.routes);
    await vp0.close();
    await setting;
    expect(kernel('ipv6/conf/all/forwarding')).toBe('0');
    expect(execFileSync('nft', ['list', 'tables'], { encoding: 'utf8' })).toBe('');
    await expect(vp0.setRoutes([])).rejects.toThrow(new ApiMisuseError('device vp0 is closed'));
  });

  test('waits for a running configuration, and works without one', async () => {
    const { vp0, vp1 } = tuns;
    await Promise.all([vp0.configure(LATER), vp0.setRoutes(['10.0.0.128/25'])]);
    expect(routes()).toEqual(['10.0.0.128/25']);
    expect(await open(4, ALL_DIRECTIONS)).toEqual(OWN_DIRECTIONS);
    await vp1.setRoutes(['203.0.113.0/24']);
    expect(ip('route', 'show', 'dev', 'vp1')).toContain('203.0.113.0/24');
  });
});

describe.skipIf(skipReason !== undefined)(titled('openTun', skipReason), () => {
  /** Opens the TUN instead of the scene's, and returns the problems that it reported. */
  async function opened(options: object, later: readonly string[] = []): Promise<string[]> {
    await tuns.vp0.close();
    const problems: string[] = [];
    const device = await openTun({ name: 'vp0', ...options }, (it) => void problems.push(it));
    tuns.vp0 = device;
    setKernel('ipv6/conf/vp0/disable_ipv6', '0');
    if (later.length > 0) await device.setRoutes(later);
    return problems;
  }

  test.each([
    ['a LAN', { lan: ['lan'] }],
    ['a LAN where it answers ARP', { proxyArp: ['lan'] }],
  ])('forwards between %s and the TUN only, as soon as there are routes', async (_, options) => {
    expect(await opened(options)).toEqual([]);
    for (const family of [4, 6] as const) expect(await open(family, ALL_DIRECTIONS)).toEqual([]);
    await tuns.vp0.setRoutes(BOTH.routes);
    for (const family of [4, 6] as const)
      expect(await open(family, ALL_DIRECTIONS)).toEqual(OWN_DIRECTIONS);
  });

  test('reports without a LAN that nothing is forwarded, and forwards nothing', async () => {
    expect(await opened({}, BOTH.routes.map(String))).toEqual([
      'nothing is forwarded to and from vp0; name the interfaces of the LAN in device.lan',
    ]);
    setKernel('ipv4/ip_forward', '1');
    expect(await open(4, [{ from: 'lan', to: 'vp0' }])).toEqual([]);
  });

  test('leaves routes and forwarding to the operator if the list is empty', async () => {
    expect(await opened({ routes: [] })).toEqual([]);
    expect(execFileSync('nft', ['list', 'tables'], { encoding: 'utf8' })).toBe('');
  });
});
