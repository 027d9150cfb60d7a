/**
 * Presences in a realm that is on the way between two others: who gets one, and where it does not appear.
 */
import { describe, expect, test } from 'vitest';
import { NotAdmittedError } from '../../src/control/index.ts';
import { PoolExhaustedError } from '../../src/errors.ts';
import { DESIRED, type Desired, SITE, startScene, turn } from './scene.ts';

const TRANSIT = { transit: 'cloud' };
/** site-a's console is there for site-b, except for one host. */
const BETWEEN: Desired = {
  ...DESIRED,
  exposures: [{ service: 'console-a', site: 'site-b', clients: ['10.0.0.4/30'] }],
};
const SERVICE = ['site-a', '10.0.0.5'] as const;
const CLIENT = ['site-b', '10.0.0.7'] as const;

describe('without a transit realm', () => {
  test('sites have no presences in a third one', async () => {
    const { controller, translator } = await startScene(BETWEEN);
    await controller.admit(...CLIENT, 'site-a', 4);
    expect(translator.presences.map(({ realm }) => realm).sort()).toEqual(['site-a', 'site-b']);
    await expect(controller.admit(...CLIENT, 'cloud', 4)).rejects.toThrow(NotAdmittedError);
  });
});

describe('with a transit realm', () => {
  test('a service that is exposed to another site has a presence there, without a name', async () => {
    const { controller, translator, store } = await startScene(BETWEEN, TRANSIT);
    const address = translator.addressOf('cloud', ...SERVICE)!;
    expect(
      store.has({ realm: 'cloud', address, of: { realm: 'site-a', address: '10.0.0.5' } })
    ).toBe(true);
    expect(controller.snapshot('cloud')).toMatchObject({ hosts: [], pointers: [] });
    expect(controller.whois('cloud', address)).toEqual({
      site: 'site-a',
      address: '10.0.0.5',
      services: ['console-a'],
    });
    expect(translator.plan.permits.map(({ realm }) => realm)).toEqual(['site-b']);
  });

  test('a client that is admitted to another site is admitted there too, without a name', async () => {
    const { controller, translator, store } = await startScene(BETWEEN, TRANSIT);
    const commits = store.leaseCommits;
    await controller.admit(...CLIENT, 'site-a', 4);
    expect(store.leaseCommits).toBe(commits + 1);
    expect(translator.addressOf('site-a', ...CLIENT)).toBeDefined();
    expect(translator.addressOf('cloud', ...CLIENT)).toBeDefined();
    expect(controller.snapshot('cloud')).toMatchObject({ hosts: [], pointers: [] });
    expect(translator.unstored).toEqual([]);
  });

  test('a presence there is admitted as the host that it stands for', async () => {
    const { controller, translator } = await startScene(BETWEEN, TRANSIT);
    await controller.admit(...CLIENT, 'cloud', 4);
    const presence = translator.addressOf('cloud', ...CLIENT)!;
    await controller.admit('cloud', presence, 'site-a', 4);
    expect(translator.addressOf('site-a', ...CLIENT)).toBeDefined();
  });

  test.each([
    ['no client of the service', 'site-b', '10.0.0.8'],
    ['of a site without an exposure', 'site-a', '10.0.0.7'],
    ['in a pool', 'site-b', '10.0.0.133'],
    ['outside of the sources', 'site-b', '192.0.2.1'],
  ])('a host that is %s is not admitted there', async (_, site, host) => {
    const { controller, translator } = await startScene(BETWEEN, TRANSIT);
    await expect(controller.admit(site, host, 'cloud', 4)).rejects.toThrow(NotAdmittedError);
    const known = translator.addressOf('cloud', ...SERVICE)!;
    await expect(controller.admit('cloud', known, 'site-b', 4)).rejects.toThrow(NotAdmittedError);
  });

  test('a host that is also a client there has a name', async () => {
    const exposures = [...BETWEEN.exposures, { service: 'rabbitmq', site: 'site-b' }];
    const { controller } = await startScene({ ...BETWEEN, exposures }, TRANSIT);
    await controller.admit(...CLIENT, 'site-a', 4);
    expect(controller.snapshot('cloud')?.hosts).toMatchObject([
      { name: '10-0-0-7.site-b.cloud.test' },
    ]);
  });

  test('a client that was admitted before gets its presence at the start', async () => {
    const before = await startScene(BETWEEN);
    await before.controller.admit(...CLIENT, 'site-a', 4);
    const { translator } = await startScene(BETWEEN, TRANSIT, before);
    expect(translator.addressOf('cloud', ...CLIENT)).toBeDefined();
    expect(translator.addressOf('cloud', ...SERVICE)).toBeDefined();
    expect(translator.unstored).toEqual([]);
  });

  test('both presences end with the exposure, and the addresses go into quarantine', async () => {
    const scene = await startScene({ ...DESIRED, exposures: [] }, TRANSIT);
    const { controller, registry, translator, store } = scene;
    const exposure = { service: 'console-a', site: 'site-b' };
    await registry.expose(exposure, 'admin');
    await turn();
    await controller.admit(...CLIENT, 'site-a', 4);
    const address = translator.addressOf('cloud', ...CLIENT);
    expect(address).toBeDefined();
    await registry.unexpose(exposure, 'admin');
    await turn();
    expect(translator.addressOf('cloud', ...CLIENT)).toBeUndefined();
    expect(store.leases.get(`lease/cloud/${address}`)).toHaveProperty('releasedAt');
  });

  test('a full pool there refuses clients and is reported; the rest works', async () => {
    const small = { ...SITE, pools: ['10.0.0.128/31'] };
    const sites = BETWEEN.sites.map((each) =>
      each.name === 'cloud' ? { ...each, ...small } : each
    );
    const { controller } = await startScene({ ...BETWEEN, sites }, TRANSIT);
    await controller.admit(...CLIENT, 'site-a', 4);
    const other = controller.admit('site-b', '10.0.0.6', 'site-a', 4);
    await expect(other).rejects.toThrow(PoolExhaustedError);

    const before = await startScene({ ...BETWEEN, sites });
    for (const host of ['10.0.0.6', '10.0.0.7']) {
      await before.controller.admit('site-b', host, 'site-a', 4);
    }
    const { problems, translator } = await startScene({ ...BETWEEN, sites }, TRANSIT, before);
    expect(problems).toEqual([
      expect.stringMatching(/^no presence in "cloud" for clients of "site-b": pool .* exhausted/),
    ]);
    expect(translator.addressOf('site-a', ...CLIENT)).toBeDefined();
  });

  test('uses IPv4 where one of both hosts does, if it has an IPv4 pool', async () => {
    const mixed = {
      sites: [
        { ...DESIRED.sites[0]!, pools: ['10.0.0.128/25', 'fd00::/112'] },
        { ...DESIRED.sites[1]!, sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'] },
        { ...DESIRED.sites[2]!, sources: ['2001:db8::/64'], pools: ['fd00::/112'] },
      ],
      services: [
        { name: 'four', site: 'site-a', address: '10.0.0.5', ports: ['tcp/22'] },
        { name: 'six', site: 'site-b', address: '2001:db8::5', ports: ['tcp/22'] },
      ],
      exposures: [{ service: 'four', site: 'site-b' }],
    };
    const { controller, translator } = await startScene(mixed, TRANSIT);
    await controller.admit('site-b', '2001:db8::7', 'site-a', 4);
    expect(translator.addressesOf('cloud', 'site-a', '10.0.0.5')).toEqual(['10.0.0.129']);
    expect(translator.addressesOf('cloud', 'site-b', '2001:db8::7')).toEqual(['10.0.0.144']);
  });
});
