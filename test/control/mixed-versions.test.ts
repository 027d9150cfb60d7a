/**
 * A cloud of both IP versions, a site of IPv6 and a site of IPv4: who gets a presence of which
 * version where.
 */
import { describe, expect, test } from 'vitest';
import { NotAdmittedError, zoneDataOf } from '../../src/control/index.ts';
import { RecordType, Zone } from '../../src/dns/index.ts';
import { PoolExhaustedError, QuotaExceededError, StoreError } from '../../src/errors.ts';
import type { Json } from '../../src/store/index.ts';
import { type Desired, type Scene, ScriptedStore, startScene, turn } from './scene.ts';

const MIXED: Desired = {
  sites: [
    {
      name: 'cloud',
      sources: ['10.0.0.0/24', '2001:db8::/64'],
      pools: ['10.0.0.128/25', 'fd00::/64'],
      zone: 'cloud.test',
    },
    { name: 'site-4', sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'], zone: 'four.test' },
    { name: 'site-6', sources: ['2001:db8::/64'], pools: ['fd00::/64'], zone: 'six.test' },
  ],
  services: [
    { name: 'mq', site: 'cloud', address: '10.0.0.5', ports: ['tcp/5672'] },
    { name: 'web', site: 'cloud', address: '2001:db8::5', ports: ['tcp/443'] },
    { name: 'console-6', site: 'site-6', address: '2001:db8::5', ports: ['tcp/6080'] },
  ],
  exposures: [
    { service: 'mq', site: 'site-4' },
    { service: 'web', site: 'site-4' },
    { service: 'mq', site: 'site-6' },
    { service: 'web', site: 'site-6' },
    { service: 'console-6', site: 'cloud' },
    { service: 'console-6', site: 'site-4' },
  ],
};
const HOST_6 = '2001:db8::7';
const HOST_4 = '10.0.0.7';

const exposures = (...indexes: number[]) => indexes.map((i) => MIXED.exposures[i]!);

function withSite(name: string, more: object): Desired {
  const sites = MIXED.sites.map((site) => (site.name === name ? { ...site, ...more } : site));
  return { ...MIXED, sites };
}

/** The host of site-6 as a client of both services of the cloud. */
async function admitBoth({ controller }: Scene): Promise<void> {
  await Promise.all([
    controller.admit('site-6', HOST_6, 'cloud', 4),
    controller.admit('site-6', HOST_6, 'cloud', 6),
  ]);
}

/** A store with leases, as one of an earlier time. */
async function storeOf(leases: Readonly<Record<string, Json>>): Promise<ScriptedStore> {
  const store = new ScriptedStore();
  await store.commit(Object.entries(leases).map(([key, value]) => ({ key, value })));
  return store;
}

describe('a service', () => {
  test('has a presence of the IP version of which the site has a pool', async () => {
    const { translator, problems } = await startScene(MIXED);
    expect(translator.addressesOf('site-6', 'cloud', '10.0.0.5')).toEqual(['fd00::1']);
    expect(translator.addressesOf('site-6', 'cloud', '2001:db8::5')).toEqual(['fd00::2']);
    expect(translator.addressesOf('site-4', 'site-6', '2001:db8::5')).toEqual(['10.0.0.129']);
    expect(translator.addressesOf('site-4', 'cloud', '10.0.0.5')).toEqual(['10.0.0.144']);
    expect(translator.addressesOf('site-4', 'cloud', '2001:db8::5')).toEqual(['10.0.0.145']);
    expect(translator.unstored).toEqual([]);
    expect(problems).toEqual([]);
  });

  test('has a presence of its own IP version where the site has pools of both', async () => {
    const { translator } = await startScene(MIXED);
    expect(translator.addressesOf('cloud', 'site-6', '2001:db8::5')).toEqual(['fd00::1']);
  });

  test('is named by an address record of the presence, whatever its own version', async () => {
    const { controller } = await startScene(MIXED);
    const zone = Zone.compile(zoneDataOf(controller.snapshot('site-6')!, []));
    const ask = (name: string, type: number) =>
      zone.lookup(name, type).answers.map(({ content }) => content.data);
    expect(ask('mq.six.test', RecordType.AAAA)).toEqual(['fd00::1']);
    expect(ask('mq.six.test', RecordType.A)).toEqual([]);
    expect(controller.snapshot('site-6')!.pointers).toEqual([
      { address: 'fd00::1', name: 'mq.six.test' },
      { address: 'fd00::2', name: 'web.six.test' },
    ]);
    expect(controller.whois('site-6', 'fd00::1')).toEqual({
      site: 'cloud',
      address: '10.0.0.5',
      services: ['mq'],
    });
  });

  test('gets no presence of the other version when the pool of its own is full', async () => {
    const { translator, problems } = await startScene({
      ...withSite('site-6', { pools: ['10.9.0.1/32', 'fd00::/64'] }),
      services: [
        ...MIXED.services,
        { name: 'api', site: 'cloud', address: '10.0.0.6', ports: ['tcp/80'] },
      ],
      exposures: [...exposures(2, 3), { service: 'api', site: 'site-6' }],
    });
    expect(problems).toEqual([expect.stringContaining('for "mq": pool 10.9.0.1/32 exhausted')]);
    expect(translator.addressesOf('site-6', 'cloud', '10.0.0.5')).toEqual([]);
    expect(translator.addressesOf('site-6', 'cloud', '2001:db8::5')).toEqual(['fd00::1']);
  });

  test('is reported with the version that was wanted when it gets no address', async () => {
    const { problems } = await startScene(withSite('site-6', { pools: ['fd00::1/128'] }));
    expect(problems).toEqual([
      'no presence in "site-6" for "web": pool fd00::1/128 exhausted: 1 of 1 addresses leased, 0 in quarantine',
    ]);
  });
});

describe('a client', () => {
  test('has a presence of each version when it uses services of both, stored in one commit', async () => {
    const scene = await startScene(MIXED);
    const { translator, store } = scene;
    const before = store.leaseCommits;
    await admitBoth(scene);
    expect(store.leaseCommits - before).toBe(1);
    expect(translator.addressesOf('cloud', 'site-6', HOST_6)).toEqual(['10.0.0.129', 'fd00::2']);
    const value = { endpoint: `site-6/${HOST_6}` };
    expect(store.leases.get('lease/cloud/10.0.0.129')).toMatchObject(value);
    expect(store.leases.get('lease/cloud/fd00::2')).toMatchObject(value);
    expect(translator.unstored).toEqual([]);
  });

  test('gets only the presence that was asked for', async () => {
    const { controller, translator } = await startScene(MIXED);
    await controller.admit('site-6', HOST_6, 'cloud', 4);
    expect(translator.addressesOf('cloud', 'site-6', HOST_6)).toEqual(['10.0.0.129']);
    await controller.admit('site-4', HOST_4, 'site-6', 6);
    expect(translator.addressesOf('site-6', 'site-4', HOST_4)).toEqual(['fd00::10']);
  });

  test('has one name for both presences, and both lead back to it', async () => {
    const scene = await startScene(MIXED);
    const { controller } = scene;
    await admitBoth(scene);
    const snapshot = controller.snapshot('cloud')!;
    const name = '2001-db8--7.site-6.cloud.test';
    expect(snapshot.hosts).toEqual([
      { name: 'console-6.cloud.test', addresses: ['fd00::1'], ports: ['tcp/6080'] },
      { name, addresses: ['10.0.0.129', 'fd00::2'], ports: [] },
    ]);
    expect(snapshot.pointers).toEqual([
      { address: '10.0.0.129', name },
      { address: 'fd00::1', name: 'console-6.cloud.test' },
      { address: 'fd00::2', name },
    ]);
    const zone = Zone.compile(zoneDataOf(snapshot, []));
    const ask = (type: number) =>
      zone.lookup(name, type).answers.map(({ content }) => content.data);
    expect(ask(RecordType.A)).toEqual(['10.0.0.129']);
    expect(ask(RecordType.AAAA)).toEqual(['fd00::2']);
    const whois = { site: 'site-6', address: HOST_6, services: [] };
    expect(controller.whois('cloud', '10.0.0.129')).toEqual(whois);
    expect(controller.whois('cloud', 'fd00::2')).toEqual(whois);
  });

  test('has a name of its own beside that of its service where their presences differ', async () => {
    const { controller } = await startScene(MIXED);
    await controller.admit('site-6', '2001:db8::5', 'cloud', 4);
    await controller.admit('site-6', '2001:db8::5', 'cloud', 6); // the presence of console-6
    expect(controller.snapshot('cloud')!.pointers).toEqual([
      { address: '10.0.0.129', name: '2001-db8--5.site-6.cloud.test' },
      { address: 'fd00::1', name: 'console-6.cloud.test' },
    ]);
    expect(controller.whois('cloud', '10.0.0.129')).toHaveProperty('services', ['console-6']);
  });

  test('keeps both presences across a restart, without a write', async () => {
    const scene = await startScene(MIXED);
    await admitBoth(scene);
    const before = new Set(scene.controller.presences());
    const commits = scene.store.leaseCommits;
    const again = await startScene(MIXED, {}, scene);
    expect(new Set(again.controller.presences())).toEqual(before);
    expect(new Set(again.translator.presences)).toEqual(before);
    expect(again.controller.snapshot('cloud')!.hosts).toEqual(
      scene.controller.snapshot('cloud')!.hosts
    );
    expect(again.store.leaseCommits).toBe(commits);
  });

  test('counts once against the quota of its site', async () => {
    const desired = withSite('site-6', { maxClients: 1 });
    const scene = await startScene(desired);
    await admitBoth(scene);
    const again = await startScene(desired, {}, scene);
    await admitBoth(again);
    const refused = again.controller.admit('site-6', '2001:db8::8', 'cloud', 4);
    await expect(refused).rejects.toThrow(QuotaExceededError);
    await expect(refused).rejects.toThrow('"site-6" has 1 clients in "cloud", as many as it may');
  });

  test('is refused by a full pool, and gets an address of the other version', async () => {
    const { controller } = await startScene(
      withSite('cloud', { pools: ['10.0.0.128/32', 'fd00::/64'] })
    );
    await controller.admit('site-6', HOST_6, 'cloud', 4);
    const refused = controller.admit('site-6', '2001:db8::8', 'cloud', 4);
    await expect(refused).rejects.toThrow(PoolExhaustedError);
    await controller.admit('site-6', '2001:db8::8', 'cloud', 6);
  });

  test('loses only the presence whose service is no longer exposed', async () => {
    const scene = await startScene(MIXED);
    const { registry, translator, store, clock } = scene;
    await admitBoth(scene);
    await registry.apply({ ...MIXED, exposures: exposures(3) }, 'file');
    await turn();
    expect(translator.addressesOf('cloud', 'site-6', HOST_6)).toEqual(['fd00::2']);
    expect(store.leases.get('lease/cloud/10.0.0.129')).toEqual({
      endpoint: `site-6/${HOST_6}`,
      releasedAt: clock.wallMs(),
    });
    await registry.apply(MIXED, 'file');
    await turn();
    await admitBoth(scene);
    expect(translator.addressesOf('cloud', 'site-6', HOST_6)).toEqual(['10.0.0.129', 'fd00::2']);
  });

  test('is admitted by its real address, whatever the version of the service', async () => {
    const { controller } = await startScene({
      ...MIXED,
      exposures: [{ service: 'mq', site: 'site-6', clients: [HOST_6, '10.0.0.0/8'] }],
    });
    await controller.admit('site-6', HOST_6, 'cloud', 4);
    await expect(controller.admit('site-6', '2001:db8::8', 'cloud', 4)).rejects.toThrow(
      NotAdmittedError
    );
  });

  test.each<[string, number[], readonly [string, string, string, 4 | 6]]>([
    ['of a version that no service there has', [2], ['site-6', HOST_6, 'cloud', 6]],
    ['of its own version where services have the other', [1], ['site-4', HOST_4, 'cloud', 4]],
    ['at a site whose service is not exposed to it', [4], ['site-4', HOST_4, 'site-6', 6]],
    ['when it is not of the version it is served in', [4], ['cloud', HOST_4, 'site-6', 6]],
  ])('is refused a presence %s', async (_what, which, [ingress, source, egress, family]) => {
    const { controller, store } = await startScene({ ...MIXED, exposures: exposures(...which) });
    const before = store.leaseCommits;
    const refused = controller.admit(ingress, source, egress, family);
    await expect(refused).rejects.toThrow(NotAdmittedError);
    await expect(refused).rejects.toThrow(
      `${source} of "${ingress}" is no client of an IPv${family} service of "${egress}"`
    );
    expect(store.leaseCommits).toBe(before);
  });
});

describe('a change of pools', () => {
  test('moves a service to its own version, and releases its former clients', async () => {
    const scene = await startScene(MIXED);
    const { registry, translator, store, clock } = scene;
    await admitBoth(scene);
    await registry.apply(withSite('site-6', { pools: ['fd00::/64', '10.9.0.0/24'] }), 'file');
    await turn();
    expect(translator.addressesOf('site-6', 'cloud', '10.0.0.5')).toEqual(['10.9.0.1']);
    expect(translator.addressesOf('site-6', 'cloud', '2001:db8::5')).toEqual(['fd00::2']);
    expect(store.leases.get('lease/site-6/fd00::1')).toEqual({
      endpoint: 'cloud/10.0.0.5',
      releasedAt: clock.wallMs(),
    });
    // An IPv6 host cannot send to an IPv4 presence.
    expect(translator.addressesOf('cloud', 'site-6', HOST_6)).toEqual(['fd00::2']);
    expect(translator.unstored).toEqual([]);
  });

  test('moves presences to the other version when one is taken away', async () => {
    const { registry, translator, store, clock } = await startScene(MIXED);
    await registry.apply(
      { ...withSite('cloud', { pools: ['10.0.0.128/25'] }), exposures: exposures(0, 2, 4) },
      'file'
    );
    await turn();
    expect(translator.addressesOf('cloud', 'site-6', '2001:db8::5')).toEqual(['10.0.0.129']);
    expect(store.leases.get('lease/cloud/fd00::1')).toHaveProperty('releasedAt');
    clock.advance(60_000);
    await turn();
    expect([...store.leases.keys()].filter((key) => key.startsWith('lease/cloud/'))).toEqual([
      'lease/cloud/10.0.0.129',
    ]);
  });
});

describe('a store', () => {
  test('is read as it was when all presences had the version of their endpoint', async () => {
    const value = { endpoint: `site-6/${HOST_6}` };
    const store = await storeOf({
      'lease/cloud/fd00::9': value,
      'lease/site-6/fd00::5': { endpoint: 'cloud/2001:db8::5' },
    });
    const { translator, controller } = await startScene(MIXED, {}, { store });
    expect(translator.addressesOf('cloud', 'site-6', HOST_6)).toEqual(['fd00::9']);
    expect(translator.addressesOf('site-6', 'cloud', '2001:db8::5')).toEqual(['fd00::5']);
    await controller.admit('site-6', HOST_6, 'cloud', 4);
    expect(translator.addressesOf('cloud', 'site-6', HOST_6)).toEqual(['10.0.0.129', 'fd00::9']);
  });

  test('gives a released address of the other version back to its endpoint', async () => {
    const released = { endpoint: `site-6/${HOST_6}`, releasedAt: 1 };
    const store = await storeOf({ 'lease/cloud/10.0.0.200': released });
    const { translator, controller } = await startScene(MIXED, {}, { store });
    await controller.admit('site-6', HOST_6, 'cloud', 4);
    expect(translator.addressesOf('cloud', 'site-6', HOST_6)).toEqual(['10.0.0.200']);
  });

  test('is refused if one host has two addresses of the other version in use', async () => {
    const value = { endpoint: `site-6/${HOST_6}` };
    const store = await storeOf({
      'lease/cloud/10.0.0.130': value,
      'lease/cloud/10.0.0.131': value,
    });
    const starting = startScene(MIXED, {}, { store });
    await expect(starting).rejects.toThrow(StoreError);
    await expect(starting).rejects.toThrow(
      `lease/cloud/10.0.0.130 and lease/cloud/10.0.0.131 in the store are both of site-6/${HOST_6}`
    );
  });
});
