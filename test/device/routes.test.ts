import { writeFileSync } from 'node:fs';
import { afterEach, describe, expect, test } from 'vitest';
import { changeRoutes, configureTun, forgetRoutes } from '../../src/device/index.ts';
import { ApiMisuseError, EnvironmentError } from '../../src/errors.ts';
import { ip, titled, useNamespace } from '../support/namespace.ts';

const skipReason = await useNamespace();

const cleanups: (() => unknown)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0).reverse()) cleanup();
});

/** Creates an interface that is up. */
function link(name: string): string {
  ip('link', 'add', name, 'type', 'veth', 'peer', 'name', `${name}-far`);
  cleanups.push(() => ip('link', 'delete', name));
  writeFileSync(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`, '0');
  for (const end of [name, `${name}-far`]) ip('link', 'set', end, 'up');
  return name;
}

describe.skipIf(skipReason !== undefined)(titled('changeRoutes', skipReason), () => {
  test('sets routes of both IP versions, moves them, and removes them', async () => {
    for (const name of ['one', 'two']) link(name);
    const prefixes = ['198.51.100.16/28', '198.51.100.33/32', '2001:db8:7::10/124'];
    await changeRoutes(prefixes.map((prefix) => ({ prefix, device: 'one' })));
    expect(ip('route', 'show', 'dev', 'one')).toMatch(
      /^198\.51\.100\.16\/28 .*\n198\.51\.100\.33 /
    );
    expect(ip('-6', 'route', 'show', 'dev', 'one')).toContain('2001:db8:7::10/124');
    await changeRoutes([
      { prefix: prefixes[0]!, device: 'two' },
      { prefix: prefixes[1]!, device: undefined },
      { prefix: prefixes[2]!, device: undefined },
    ]);
    expect(ip('route', 'show', 'dev', 'one')).not.toContain('198.51.100');
    expect(ip('route', 'show', 'dev', 'two')).toContain('198.51.100.16/28');
    expect(ip('-6', 'route', 'show', 'dev', 'one')).not.toContain('2001:db8:7');
  });

  test('reports no error for a route that does not exist', async () => {
    link('one');
    await changeRoutes([
      { prefix: '198.51.100.16/28', device: undefined },
      { prefix: '198.51.100.32/28', device: 'one' },
    ]);
    expect(ip('route', 'show', 'dev', 'one')).toContain('198.51.100.32/28');
  });

  test('reports a route that is refused, and sets the others', async () => {
    link('one');
    const settings = [
      { prefix: '198.51.100.16/28', device: 'nowhere' },
      { prefix: '198.51.100.32/28', device: 'one' },
    ];
    await expect(changeRoutes(settings)).rejects.toThrow(EnvironmentError);
    await expect(changeRoutes(settings)).rejects.toThrow(/Cannot find device "nowhere"/);
    expect(ip('route', 'show', 'dev', 'one')).toContain('198.51.100.32/28');
  });

  test.each([
    { prefix: '198.51.100.17/28', device: 'one' },
    { prefix: 'no-prefix', device: undefined },
    { prefix: '198.51.100.16/28', device: 'a b' },
    { prefix: '198.51.100.16/28', device: 'one', metric: 0 },
    { prefix: '198.51.100.16/28', device: 'one', metric: 2 ** 32 },
  ])('refuses %j, and changes nothing', async (setting) => {
    link('one');
    const good = { prefix: '198.51.100.32/28', device: 'one' };
    await expect(changeRoutes([good, setting])).rejects.toThrow(ApiMisuseError);
    expect(ip('route', 'show', 'dev', 'one')).not.toContain('198.51.100.32');
  });

  test('keeps the rest of an unreachable prefix unreachable until all routes are forgotten', async () => {
    link('one');
    const configuration = {
      name: 'one',
      routes: [],
      unreachable: ['198.51.100.0/24'],
    };
    for (let i = 0; i < 2; i++) await configureTun(configuration);
    await changeRoutes([{ prefix: '198.51.100.16/28', device: 'one' }]);
    ip('route', 'add', '198.51.100.64/28', 'dev', 'one');
    expect(ip('route', 'get', '198.51.100.17')).toContain('dev one');
    expect(() => ip('route', 'get', '198.51.100.1')).toThrow();
    await forgetRoutes('198.51.100.0/24');
    await forgetRoutes('198.51.100.0/24');
    // A route of another program stays.
    expect(ip('route', 'show', 'root', '198.51.100.0/24').trim()).toMatch(
      /^198\.51\.100\.64\/28[^\n]*$/
    );
  });

  test('keeps routes of several metrics, of which the smallest counts, over a blackhole of the same prefix', async () => {
    for (const name of ['one', 'two']) link(name);
    for (const prefix of ['198.51.100.16/28', '2001:db8:7::10/124']) {
      const inside = prefix.includes(':') ? '2001:db8:7::11' : '198.51.100.17';
      const setup = await configureTun({ name: 'one', routes: [], blackhole: [prefix] });
      expect(() => ip('route', 'get', inside)).toThrow();
      const [older, later] = [4_294_967_200, 4_294_967_100];
      await changeRoutes([
        { prefix, device: 'one', metric: older },
        { prefix, device: 'two', metric: later },
      ]);
      expect(ip('route', 'get', inside)).toContain('dev two');
      await changeRoutes([{ prefix, device: undefined, metric: later }]);
      expect(ip('route', 'get', inside)).toContain('dev one');
      await changeRoutes([{ prefix, device: undefined, metric: older }]);
      expect(() => ip('route', 'get', inside)).toThrow();
      await setup.setRoutes({ routes: [], unreachable: [prefix] });
      await setup.setRoutes({ routes: [], blackhole: [prefix] });
      const family = prefix.includes(':') ? '-6' : '-4';
      expect(ip(family, 'route', 'show', prefix).trim()).toMatch(
        /^blackhole [^\n]*proto 118 metric 4294967295[^\n]*$/
      );
      await setup.close();
      expect(ip(family, 'route', 'show', prefix)).toBe('');
    }
  });
});
