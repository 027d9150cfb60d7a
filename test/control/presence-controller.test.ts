import { describe, expect, test } from 'vitest';
import { NotAdmittedError, PresenceController, type Snapshot } from '../../src/control/index.ts';
import {
  ApiMisuseError,
  PoolExhaustedError,
  QuotaExceededError,
  StoreError,
} from '../../src/errors.ts';
import { Registry } from '../../src/registry/index.ts';
import { MemoryStore } from '../../src/store/index.ts';
import {
  DESIRED,
  type Desired,
  ObservedTranslator,
  SceneClock,
  ScriptedStore,
  SITE,
  startScene,
  turn,
} from './scene.ts';

const CLIENT = ['site-a', '10.0.0.7', 'cloud', 4] as const;

/** Hosts of a site, from .10 on. */
const hosts = (count: number) => Array.from({ length: count }, (_, i) => `10.0.0.${10 + i}`);

/** Wide enough for thousands of clients. */
const WIDE = {
  ...DESIRED,
  sites: DESIRED.sites.map((site) => ({
    ...site,
    sources: ['10.0.0.0/8'],
    pools: ['10.128.0.0/16'],
    maxClients: 5000,
  })),
};

function withSite(name: string, more: object, desired: Desired = DESIRED): Desired {
  const sites = desired.sites.map((site) => (site.name === name ? { ...site, ...more } : site));
  return { ...desired, sites };
}

describe('start', () => {
  test('gives every exposed host one presence, stored before the plan has it', async () => {
    const { translator, store } = await startScene();
    expect(translator.presences).toHaveLength(3); // two services of the cloud share a host
    expect(translator.unstored).toEqual([]);
    expect(store.leaseCommits).toBe(1);
    expect(translator.addressOf('site-a', 'cloud', '10.0.0.5')).toBe('10.0.0.129');
    expect(translator.addressOf('cloud', 'site-a', '10.0.0.5')).toBe('10.0.0.129');
    expect(translator.plan.permits).toHaveLength(4);
    expect(translator.plan.realms.map(({ name }) => name)).toEqual(['cloud', 'site-a', 'site-b']);
  });

  test('passes the packet options of a site on to the plan, and none that are absent', async () => {
    const more = { mtu: 1400, reject: 'reset' } as const;
    const { translator } = await startScene(withSite('site-a', more));
    expect(translator.plan.realms).toEqual([
      { name: 'cloud', ...SITE },
      { name: 'site-a', ...SITE, ...more },
      { name: 'site-b', ...SITE },
    ]);
    expect(Object.keys(translator.plan.realms[0]!)).toEqual(['name', 'sources', 'pools']);
  });

  test('uses changed packet options of a site', async () => {
    const { registry, translator } = await startScene();
    await registry.apply(withSite('site-a', { mtu: 1280 }), 'file');
    await turn();
    expect(translator.plan.realms[1]).toHaveProperty('mtu', 1280);
  });

  test('keeps every address across a restart, without a write', async () => {
    const scene = await startScene();
    await scene.controller.admit(...CLIENT);
    const before = scene.controller.presences();
    const commits = scene.store.leaseCommits;
    const again = await startScene(DESIRED, {}, scene);
    expect(new Set(again.controller.presences())).toEqual(new Set(before));
    expect(new Set(again.translator.presences)).toEqual(new Set(before));
    expect(again.store.leaseCommits).toBe(commits);
  });

  test('derives a change that arrives while the first leases are being stored', async () => {
    const store = new ScriptedStore();
    const registry = await Registry.open(store);
    await registry.apply(DESIRED, 'file');
    const open = store.hold();
    const translator = new ObservedTranslator(store);
    const starting = PresenceController.start({ registry, store, translator });
    await turn();
    await registry.expose({ service: 'glance', site: 'site-b' }, 'admin');
    open();
    await starting;
    await turn();
    expect(translator.addressOf('site-b', 'cloud', '10.0.0.6')).toBeDefined();
    expect(translator.unstored).toEqual([]);
  });

  test('fails when nothing can be stored, with nothing in force and no listener left', async () => {
    const store = new ScriptedStore();
    const registry = await Registry.open(store);
    await registry.apply(DESIRED, 'file');
    store.isFailing = true;
    const translator = new ObservedTranslator(store);
    const clock = new SceneClock();
    await expect(PresenceController.start({ registry, store, translator, clock })).rejects.toThrow(
      StoreError
    );
    expect(translator.presences).toEqual([]);
    expect(registry.listenerCount('change')).toBe(0);
    expect(clock.delays).toEqual([]);
  });

  test.each([
    [{ ttlSeconds: 60, quarantineMs: 59_999 }],
    [{ ttlSeconds: Number.NaN }],
    [{ quarantineMs: -1 }],
  ])('refuses %j', async (options) => {
    const store = new MemoryStore();
    const registry = await Registry.open(store);
    const translator = { load: () => {}, bind: () => {}, apply: () => {} };
    await expect(
      PresenceController.start({ registry, store, translator, ...options })
    ).rejects.toThrow(ApiMisuseError);
  });

  test.each([
    ['lease/cloud/10.0.0.129', null, 'expected a mapping, got null'],
    ['lease/cloud/10.0.0.129', {}, 'endpoint: is missing'],
    ['lease/cloud/10.0.0.129', { endpoint: 5 }, 'endpoint: expected a string, got 5'],
    ['lease/cloud/10.0.0.129', { endpoint: 'nothing' }, '"nothing" is not an endpoint'],
    ['lease/cloud/10.0.0.129', { endpoint: 'site-a/10.0.0' }, '"site-a/10.0.0" is not an endpoint'],
    ['lease/cloud/10.0.0.999', { endpoint: 'site-a/10.0.0.5' }, '"10.0.0.999" is not an address'],
    ['lease/cloud/fd00::0:1', { endpoint: 'site-a/fd00::1' }, '"fd00::0:1" is not an address'],
    ['lease/cloud', { endpoint: 'site-a/10.0.0.5' }, '"" is not an address'],
    [
      'lease/cloud/10.0.0.129',
      { endpoint: 'site-a/10.0.0.5', releasedAt: 'then' },
      'releasedAt: expected a number, got "then"',
    ],
  ])('refuses a store with %s: %j', async (key, value, reason) => {
    const store = new ScriptedStore();
    await store.commit([{ key, value }]);
    const registry = await Registry.open(store);
    const translator = new ObservedTranslator(store);
    const starting = PresenceController.start({ registry, store, translator });
    await expect(starting).rejects.toThrow(StoreError);
    await expect(starting).rejects.toThrow(`${key} in the store is not a lease: ${reason}`);
  });

  test('refuses a store in which one host has two addresses in use', async () => {
    const store = new ScriptedStore();
    const value = { endpoint: 'site-a/10.0.0.5' };
    await store.commit([
      { key: 'lease/cloud/10.0.0.130', value },
      { key: 'lease/cloud/10.0.0.131', value },
    ]);
    const registry = await Registry.open(store);
    const translator = new ObservedTranslator(store);
    await expect(PresenceController.start({ registry, store, translator })).rejects.toThrow(
      'lease/cloud/10.0.0.130 and lease/cloud/10.0.0.131 in the store are both of site-a/10.0.0.5'
    );
  });

  test.each([
    ['its service', { key: 'desired/service/rabbitmq', value: undefined }],
    ['the home of its service', { key: 'desired/site/cloud', value: undefined }],
    [
      'a service that is at home elsewhere',
      {
        key: 'desired/service/rabbitmq',
        value: {
          owner: 'file',
          spec: { name: 'rabbitmq', site: 'site-b', address: '10.0.0.5', ports: ['tcp/1'] },
        },
      },
    ],
  ])('leaves out an exposure from whose store somebody has taken %s', async (_what, write) => {
    const { store, registry, controller, problems } = await startScene();
    await store.commit([write]);
    await turn();
    expect(registry.state.exposures).toHaveLength(4);
    expect(controller.snapshot('site-b')!.hosts).toEqual([]);
    expect(problems).toEqual([]);
  });
});

describe('a change of the desired state', () => {
  test('releases the address of a service that is no longer exposed, and gives it back when it is exposed again', async () => {
    const { registry, translator, store, clock } = await startScene();
    const before = translator.addressOf('site-b', 'cloud', '10.0.0.5')!;
    const key = { service: 'rabbitmq', site: 'site-b' };
    const exposures = DESIRED.exposures.filter(({ site }) => site !== 'site-b');
    await registry.apply({ ...DESIRED, exposures }, 'file');
    await turn();
    expect(translator.addressOf('site-b', 'cloud', '10.0.0.5')).toBeUndefined();
    expect(store.leases.get(`lease/site-b/${before}`)).toEqual({
      endpoint: 'cloud/10.0.0.5',
      releasedAt: clock.wallMs(),
    });
    await registry.expose({ service: 'glance', site: 'site-b' }, 'admin');
    await turn();
    expect(translator.addressOf('site-b', 'cloud', '10.0.0.6')).not.toBe(before);
    await registry.expose(key, 'admin');
    await turn();
    expect(translator.addressOf('site-b', 'cloud', '10.0.0.5')).toBe(before);
    expect(translator.unstored).toEqual([]);
  });

  test('keeps the presence of a host that another exposure needs', async () => {
    const { registry, translator } = await startScene();
    const before = translator.addressOf('site-a', 'cloud', '10.0.0.5');
    await registry.apply({ ...DESIRED, exposures: DESIRED.exposures.slice(1) }, 'file');
    await turn();
    expect(translator.addressOf('site-a', 'cloud', '10.0.0.5')).toBe(before);
    const permits = translator.plan.permits.filter(({ realm }) => realm === 'site-a');
    expect(permits.map(({ ports }) => ports)).toEqual([['tcp/9696']]);
  });

  test('puts a released address into quarantine, and leases it to another host only after that', async () => {
    const small = withSite('site-b', { pools: ['10.0.0.128/32'] });
    const { registry, translator, clock, problems } = await startScene(small, { ttlSeconds: 30 });
    const exposures = DESIRED.exposures.filter(({ site }) => site !== 'site-b');
    const glance = [...exposures, { service: 'glance', site: 'site-b' }];
    await registry.apply({ ...small, exposures: glance }, 'file');
    await turn();
    expect(translator.addressOf('site-b', 'cloud', '10.0.0.6')).toBeUndefined();
    expect(problems).toEqual([
      'no presence in "site-b" for "glance": pool 10.0.0.128/32 exhausted: 0 of 1 addresses leased, 1 in quarantine',
    ]);
    clock.advance(60_000); // it is tried again without any change
    await turn();
    expect(translator.addressOf('site-b', 'cloud', '10.0.0.6')).toBe('10.0.0.128');
    expect(problems).toHaveLength(1);
    expect(translator.unstored).toEqual([]);
  });

  test('is reported once when a pool has no room for it, and the rest is in force', async () => {
    const small = withSite('site-a', { pools: ['10.0.0.128/32'] });
    const exposures = [...DESIRED.exposures, { service: 'glance', site: 'site-a' }];
    const { registry, translator, problems, controller } = await startScene({
      ...small,
      exposures,
    });
    expect(problems).toEqual([
      'no presence in "site-a" for "neutron" and 1 more: pool 10.0.0.128/32 exhausted: 1 of 1 addresses leased, 0 in quarantine',
    ]);
    expect(translator.addressOf('site-a', 'cloud', '10.0.0.6')).toBe('10.0.0.128');
    expect(translator.addressOf('site-b', 'cloud', '10.0.0.5')).toBeDefined();
    expect(controller.snapshot('site-a')!.hosts.map(({ name }) => name)).toEqual(['glance.a.test']);
    await registry.expose({ service: 'glance', site: 'site-b' }, 'admin');
    await turn();
    expect(problems).toHaveLength(1);
  });

  test('drops leases outside of the new pools, and keeps those inside', async () => {
    const { registry, translator, store, controller, clock } = await startScene(DESIRED, {
      overlapMs: 0,
    });
    await controller.admit(...CLIENT);
    expect(translator.addressOf('cloud', 'site-a', '10.0.0.7')).toBe('10.0.0.130');
    const moved = withSite('cloud', { pools: ['10.0.0.130/32', '10.0.0.192/26'] });
    await registry.apply(moved, 'file');
    await turn();
    expect(translator.addressOf('cloud', 'site-a', '10.0.0.7')).toBe('10.0.0.130');
    expect(translator.addressOf('cloud', 'site-a', '10.0.0.5')).toBe('10.0.0.193');
    const stored = () => [...store.leases.keys()].filter((key) => key.startsWith('lease/cloud/'));
    // It stays in the store for its quarantine.
    expect(store.leases.get('lease/cloud/10.0.0.129')).toHaveProperty('releasedAt');
    clock.advance(60_000);
    await turn();
    expect(stored().sort()).toEqual(['lease/cloud/10.0.0.130', 'lease/cloud/10.0.0.193']);
    expect(translator.unstored).toEqual([]);
  });

  test('keeps the quarantine of an address while its pool is away', async () => {
    const { registry, translator, clock, problems } = await startScene(
      withSite('cloud', { pools: ['10.0.0.129/32'] }),
      { overlapMs: 0 }
    );
    const [camera] = DESIRED.services.filter(({ name }) => name === 'console-a');
    const other = { ...camera!, name: 'other', address: '10.0.0.9' };
    await registry.apply(withSite('cloud', { pools: ['10.0.0.192/32'] }), 'file');
    await turn();
    expect(translator.addressOf('cloud', 'site-a', '10.0.0.5')).toBe('10.0.0.192');
    clock.advance(30_000);
    const back = {
      ...withSite('cloud', { pools: ['10.0.0.129/32', '10.0.0.192/32'] }),
      services: [...DESIRED.services, other],
      exposures: [...DESIRED.exposures, { service: 'other', site: 'cloud' }],
    };
    await registry.apply(back, 'file');
    await turn();
    expect(translator.addressOf('cloud', 'site-a', '10.0.0.9')).toBeUndefined();
    expect(problems).toEqual([expect.stringContaining('1 of 2 addresses leased, 1 in quarantine')]);
    clock.advance(30_000);
    await turn();
    expect(translator.addressOf('cloud', 'site-a', '10.0.0.9')).toBe('10.0.0.129');
    expect(translator.unstored).toEqual([]);
  });

  test('is noticed at the start if it was a change of pools', async () => {
    const scene = await startScene();
    const moved = withSite('cloud', { pools: ['10.0.0.192/26'] });
    const { translator, store } = await startScene(moved, { overlapMs: 0 }, scene);
    expect(translator.addressOf('cloud', 'site-a', '10.0.0.5')).toBe('10.0.0.193');
    expect(store.leases.get('lease/cloud/10.0.0.129')).toHaveProperty('releasedAt');
  });

  test('takes a newly reserved address from its holder', async () => {
    const { registry, translator } = await startScene();
    await registry.apply(withSite('cloud', { reserved: ['10.0.0.129'] }), 'file');
    await turn();
    expect(translator.addressOf('cloud', 'site-a', '10.0.0.5')).toBe('10.0.0.130');
  });

  test('leaves nothing of a removed site, and of its leases only their quarantine', async () => {
    const { registry, translator, store, controller, clock } = await startScene();
    await controller.admit(...CLIENT);
    expect(controller.snapshot('site-a')).toBeDefined();
    const isElsewhere = ({ site }: { site: string }) => site !== 'site-a';
    await registry.apply(
      {
        sites: DESIRED.sites.filter(({ name }) => name !== 'site-a'),
        services: DESIRED.services.filter(isElsewhere),
        exposures: DESIRED.exposures.filter(
          ({ site, service }) => site !== 'site-a' && service !== 'console-a'
        ),
      },
      'file'
    );
    await turn();
    expect(translator.plan.realms.map(({ name }) => name)).toEqual(['cloud', 'site-b']);
    expect(JSON.stringify(translator.presences)).not.toContain('site-a');
    expect(store.leases.get('lease/site-a/10.0.0.129')).toHaveProperty('releasedAt');
    clock.advance(60_000);
    await turn();
    expect([...store.leases.keys()].filter((key) => key.startsWith('lease/site-a/'))).toEqual([]);
    expect(controller.snapshot('site-a')).toBeUndefined();
    expect(controller.poolStats('site-a')).toBeUndefined();
    expect(controller.whois('site-a', '10.0.0.129')).toBeUndefined();
  });

  test('is noticed at the start if it removed a site', async () => {
    const scene = await startScene();
    const desired = {
      sites: DESIRED.sites.slice(0, 1),
      services: DESIRED.services.slice(0, 1),
      exposures: [],
    };
    const { store, clock } = await startScene(desired, {}, scene);
    const left = () => [...store.leases].filter(([key]) => !key.startsWith('lease/cloud/'));
    for (const [, lease] of left()) expect(lease).toHaveProperty('releasedAt');
    clock.advance(60_000);
    await turn();
    expect(left()).toEqual([]);
  });

  test('releases clients that no exposure admits any more', async () => {
    const only = (clients: string[]) => ({
      ...DESIRED,
      exposures: [{ service: 'rabbitmq', site: 'site-a', clients }],
    });
    const { registry, translator, controller } = await startScene(only(['10.0.0.0/28']));
    await controller.admit('site-a', '10.0.0.7', 'cloud', 4);
    await controller.admit('site-a', '10.0.0.9', 'cloud', 4);
    await registry.apply(only(['10.0.0.7']), 'file');
    await turn();
    expect(translator.addressOf('cloud', 'site-a', '10.0.0.7')).toBeDefined();
    expect(translator.addressOf('cloud', 'site-a', '10.0.0.9')).toBeUndefined();
    const shrunk = withSite('site-a', { sources: ['10.0.0.64/26'] }, only(['10.0.0.7']));
    const services = DESIRED.services.filter(({ site }) => site === 'cloud');
    await registry.apply({ ...shrunk, services }, 'file');
    await turn();
    expect(translator.addressOf('cloud', 'site-a', '10.0.0.7')).toBeUndefined();
  });

  test('admits all clients of a site when one exposure does', async () => {
    const clients = ['10.0.0.5'];
    const { controller } = await startScene({
      ...DESIRED,
      exposures: ['glance', 'neutron', 'rabbitmq'].map((service) =>
        service === 'neutron' ? { service, site: 'site-a' } : { service, site: 'site-a', clients }
      ),
    });
    await controller.admit(...CLIENT);
  });

  test('is derived together with others that arrive while one is being derived', async () => {
    const { registry, translator, store } = await startScene();
    const before = translator.changes.length;
    const open = store.hold();
    await registry.expose({ service: 'glance', site: 'site-b' }, 'file');
    await turn();
    await registry.expose({ service: 'glance', site: 'site-a' }, 'file');
    await registry.expose({ service: 'neutron', site: 'site-b' }, 'file');
    await registry.unexpose({ service: 'rabbitmq', site: 'site-b' }, 'file');
    open();
    await turn();
    expect(translator.plan.permits).toHaveLength(6);
    expect(translator.changes.length - before).toBe(2);
    expect(translator.loads).toBe(1);
  });
});

describe('a store that fails', () => {
  test('keeps a new presence out of everything until it is stored', async () => {
    const { registry, translator, store, problems, controller } = await startScene();
    store.isFailing = true;
    await registry.expose({ service: 'glance', site: 'site-b' }, 'admin');
    await turn();
    expect(problems).toEqual(['the disk is full']);
    controller.suspend('site-a', true);
    expect(translator.addressOf('site-b', 'cloud', '10.0.0.6')).toBeUndefined();
    expect(controller.presences().some(({ of }) => `${of.address}` === '10.0.0.6')).toBe(false);
    expect(controller.whois('site-b', '10.0.0.130')).toBeUndefined();
    expect(JSON.stringify(controller.snapshot('site-b'))).not.toContain('glance');
    expect(translator.unstored).toEqual([]);
  });

  test('is tried again, and recovers without a change', async () => {
    const { registry, translator, store, clock } = await startScene();
    store.isFailing = true;
    await registry.expose({ service: 'glance', site: 'site-b' }, 'admin');
    await turn();
    clock.advance(5000);
    await turn();
    expect(translator.addressOf('site-b', 'cloud', '10.0.0.6')).toBeUndefined();
    store.isFailing = false;
    clock.advance(5000);
    await turn();
    expect(translator.addressOf('site-b', 'cloud', '10.0.0.6')).toBeDefined();
    expect(translator.unstored).toEqual([]);
  });

  test('recovers with the next commit of a client', async () => {
    const { registry, translator, store, controller } = await startScene();
    store.isFailing = true;
    await registry.expose({ service: 'glance', site: 'site-b' }, 'admin');
    await turn();
    controller.suspend('site-x', true); // loads the plan as it is meanwhile
    store.isFailing = false;
    await controller.admit(...CLIENT);
    expect(translator.addressOf('site-b', 'cloud', '10.0.0.6')).toBeDefined();
    expect(translator.addressOf('cloud', 'site-a', '10.0.0.7')).toBeDefined();
    expect(translator.unstored).toEqual([]);
  });

  test('stores in the next commit what it could not store before', async () => {
    const { registry, translator, store } = await startScene();
    const key = { service: 'glance', site: 'site-b' };
    store.isFailing = true;
    await registry.expose(key, 'admin');
    await turn();
    await registry.unexpose(key, 'admin');
    await turn();
    store.isFailing = false;
    await registry.expose({ service: 'neutron', site: 'site-b' }, 'admin');
    await turn();
    expect(translator.plan.permits).toHaveLength(5);
    expect(store.leases.get('lease/site-b/10.0.0.130')).toHaveProperty('releasedAt');
    expect(translator.unstored).toEqual([]);
  });

  test('does not keep in force what is no longer exposed', async () => {
    const { registry, translator, store } = await startScene();
    store.isFailing = true;
    await registry.apply({ ...DESIRED, exposures: [] }, 'file');
    await turn();
    expect(translator.presences).toEqual([]);
    expect(translator.plan.permits).toEqual([]);
  });

  test('refuses the client, which is admitted later with the same address', async () => {
    const { translator, store, controller } = await startScene();
    store.isFailing = true;
    await expect(controller.admit(...CLIENT)).rejects.toThrow('the disk is full');
    await expect(controller.admit(...CLIENT)).rejects.toThrow(StoreError);
    expect(translator.addressOf('cloud', 'site-a', '10.0.0.7')).toBeUndefined();
    store.isFailing = false;
    await controller.admit(...CLIENT);
    expect(translator.addressOf('cloud', 'site-a', '10.0.0.7')).toBe('10.0.0.130');
    expect(translator.unstored).toEqual([]);
  });

  test('uses the lease of an earlier client when the next commit has stored it', async () => {
    const { translator, store, controller } = await startScene();
    store.isFailing = true;
    await expect(controller.admit(...CLIENT)).rejects.toThrow(StoreError);
    store.isFailing = false;
    await controller.admit('site-a', '10.0.0.8', 'cloud', 4);
    expect(translator.addressOf('cloud', 'site-a', '10.0.0.7')).toBe('10.0.0.130');
    expect(translator.unstored).toEqual([]);
  });

  test('delays only what is new when it is slow', async () => {
    const { registry, translator, store, controller } = await startScene();
    const open = store.hold();
    const admission = controller.admit(...CLIENT);
    await turn();
    controller.suspend('site-b', true);
    controller.suspend('site-b', false);
    expect(translator.addressOf('cloud', 'site-a', '10.0.0.7')).toBeUndefined();
    expect(controller.snapshot('cloud')!.pointers).toHaveLength(1);
    await registry.expose({ service: 'glance', site: 'site-b' }, 'admin');
    open();
    await admission;
    await turn();
    expect(translator.addressOf('cloud', 'site-a', '10.0.0.7')).toBeDefined();
    expect(translator.addressOf('site-b', 'cloud', '10.0.0.6')).toBeDefined();
    expect(translator.unstored).toEqual([]);
  });
});

describe('admit', () => {
  test('gives a hundred callers for one client one lease', async () => {
    const { translator, store, controller } = await startScene();
    const before = store.leaseCommits;
    await Promise.all(Array.from({ length: 100 }, () => controller.admit(...CLIENT)));
    expect(store.leaseCommits - before).toBe(1);
    expect(translator.presences).toHaveLength(4);
    expect(controller.poolStats('cloud')).toMatchObject({ leased: 2 });
    await controller.admit(...CLIENT);
    expect(store.leaseCommits - before).toBe(1);
  });

  test('stores a thousand clients in few commits', async () => {
    const { translator, store, controller } = await startScene(WIDE);
    const before = store.leaseCommits;
    await Promise.all(
      Array.from({ length: 1000 }, (_, i) =>
        controller.admit('site-a', `10.1.${i >> 8}.${i & 255}`, 'cloud', 4)
      )
    );
    expect(store.leaseCommits - before).toBeLessThanOrEqual(2);
    expect(new Set(translator.presences.map((each) => `${each.realm} ${each.address}`)).size).toBe(
      1003
    );
    expect(translator.unstored).toEqual([]);
  });

  test('recognises a host by its address in any spelling', async () => {
    const v6 = { sources: ['2001:db8::/64'], pools: ['fd00::/64'] };
    const { translator, controller } = await startScene({
      sites: [
        { name: 'cloud', ...v6, zone: 'cloud.test' },
        { name: 'site-a', ...v6, zone: 'a.test' },
      ],
      services: [{ name: 'mq', site: 'cloud', address: '2001:DB8:0::5', ports: ['tcp/1'] }],
      exposures: [{ service: 'mq', site: 'site-a' }],
    });
    await controller.admit('site-a', '2001:db8:0:0::7', 'cloud', 6);
    await controller.admit('site-a', '2001:db8::7', 'cloud', 6);
    expect(translator.addressOf('cloud', 'site-a', '2001:db8::7')).toBe('fd00::1');
    expect(translator.addressOf('site-a', 'cloud', '2001:db8::5')).toBe('fd00::1');
    expect(controller.whois('site-a', 'FD00:0::1')).toEqual({
      site: 'cloud',
      address: '2001:db8::5',
      services: ['mq'],
    });
  });

  test('counts clients only against the quota of their site', async () => {
    const { controller } = await startScene(withSite('site-a', { maxClients: 2 }));
    const [first, second, third] = hosts(3) as [string, string, string];
    await controller.admit('site-a', first, 'cloud', 4);
    await controller.admit('site-a', '10.0.0.5', 'cloud', 4); // has a presence as a service
    await controller.admit('site-a', second, 'cloud', 4);
    const refused = controller.admit('site-a', third, 'cloud', 4);
    await expect(refused).rejects.toThrow(QuotaExceededError);
    await expect(refused).rejects.toThrow('"site-a" has 2 clients in "cloud", as many as it may');
    await controller.admit('site-a', first, 'cloud', 4);
    await controller.admit('site-b', third, 'cloud', 4);
  });

  test('frees the quota when clients are released', async () => {
    const only = (clients: string[]) => ({
      ...withSite('site-a', { maxClients: 1 }),
      exposures: [{ service: 'rabbitmq', site: 'site-a', clients }],
    });
    const { registry, controller } = await startScene(only(['10.0.0.10']));
    await controller.admit('site-a', '10.0.0.10', 'cloud', 4);
    await registry.apply(only(['10.0.0.11']), 'file');
    await turn();
    await controller.admit('site-a', '10.0.0.11', 'cloud', 4);
  });

  test('counts the clients of before a restart', async () => {
    const desired = withSite('site-a', { maxClients: 1 });
    const scene = await startScene(desired);
    await scene.controller.admit('site-a', '10.0.0.10', 'cloud', 4);
    const { controller } = await startScene(desired, {}, scene);
    await expect(controller.admit('site-a', '10.0.0.11', 'cloud', 4)).rejects.toThrow(
      QuotaExceededError
    );
  });

  test('is refused when the pool is full, for that client alone', async () => {
    const small = withSite('cloud', { pools: ['10.0.0.128/30'] });
    const { controller } = await startScene(small); // console-a has one of two
    const outcomes = await Promise.allSettled(
      hosts(3).map((host) => controller.admit('site-a', host, 'cloud', 4))
    );
    expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'rejected']);
    expect((outcomes[1] as PromiseRejectedResult).reason).toBeInstanceOf(PoolExhaustedError);
  });

  test.each([
    ['an unknown site', ['site-x', '10.0.0.7', 'cloud']],
    ['an unknown egress', ['site-a', '10.0.0.7', 'site-x']],
    ['a site called __proto__', ['__proto__', '10.0.0.7', 'constructor']],
    ['a host outside of its sources', ['site-a', '192.0.2.7', 'cloud']],
    ['an address of its pool', ['site-a', '10.0.0.200', 'cloud']],
    ['a host of a site to which nothing there is exposed', ['site-b', '10.0.0.7', 'site-a']],
    ['a host of its own site', ['cloud', '10.0.0.7', 'cloud']],
  ] as const)('refuses %s', async (_what, [ingress, source, egress]) => {
    const { controller, store } = await startScene();
    const before = store.leaseCommits;
    await expect(controller.admit(ingress, source, egress, 4)).rejects.toThrow(NotAdmittedError);
    expect(store.leaseCommits).toBe(before);
  });

  test('refuses a text that is not an address, and continues', async () => {
    const { controller } = await startScene();
    await expect(controller.admit('site-a', 'x', 'cloud', 4)).rejects.toThrow(ApiMisuseError);
    await controller.admit(...CLIENT);
  });

  test('refuses a client of a suspended site, and a client to a suspended site', async () => {
    const { controller, store } = await startScene(DESIRED, { suspended: ['site-a'] });
    const before = store.leaseCommits;
    await expect(controller.admit(...CLIENT)).rejects.toThrow(
      '10.0.0.7 of "site-a" is no client of an IPv4 service of "cloud"'
    );
    await expect(controller.admit('cloud', '10.0.0.9', 'site-a', 4)).rejects.toThrow(
      NotAdmittedError
    );
    expect(store.leaseCommits).toBe(before);
    controller.suspend('site-a', false);
    await controller.admit(...CLIENT);
  });

  test('binds nothing when the site is suspended meanwhile', async () => {
    const { controller, store, translator } = await startScene();
    const open = store.hold();
    const admission = controller.admit(...CLIENT);
    await turn();
    controller.suspend('site-a', true);
    open();
    await expect(admission).rejects.toThrow(NotAdmittedError);
    expect(JSON.stringify(translator.presences)).not.toContain('site-a');
    controller.suspend('site-a', false);
    expect(translator.addressOf('cloud', 'site-a', '10.0.0.7')).toBe('10.0.0.130');
  });

  test('leaves nothing behind when the site is removed meanwhile', async () => {
    const { controller, registry, store, translator } = await startScene();
    const open = store.hold();
    const admissions = [controller.admit(...CLIENT)];
    await turn();
    const desired = { sites: DESIRED.sites.slice(0, 1), services: [], exposures: [] };
    await registry.apply(desired, 'file');
    admissions.push(controller.admit('site-a', '10.0.0.8', 'cloud', 4));
    open();
    const outcomes = await Promise.allSettled(admissions);
    await turn();
    expect(outcomes[1]).toHaveProperty('reason', expect.any(NotAdmittedError));
    expect(translator.presences).toEqual([]);
    const inUse = [...store.leases.values()].filter(
      (lease) => !('releasedAt' in (lease as object))
    );
    expect(inUse).toEqual([]);
    expect(translator.unstored).toEqual([]);
  });

  test('is refused after close, which waits for admissions under way', async () => {
    const { controller, translator, clock } = await startScene();
    const admission = controller.admit(...CLIENT);
    await controller.close();
    await admission;
    expect(translator.addressOf('cloud', 'site-a', '10.0.0.7')).toBeDefined();
    await expect(controller.admit(...CLIENT)).rejects.toThrow(ApiMisuseError);
    expect(clock.delays).toEqual([]);
  });
});

describe('suspend', () => {
  test('takes the site out of the plan within the call, and keeps its addresses', async () => {
    const { controller, translator } = await startScene();
    await controller.admit(...CLIENT);
    const before = translator.presences;
    controller.suspend('site-a', true);
    expect(translator.plan.realms.map(({ name }) => name)).toEqual(['cloud', 'site-b']);
    expect(translator.presences.map(({ realm, of }) => [realm, of.realm])).toEqual([
      ['site-b', 'cloud'],
    ]);
    expect(translator.plan.permits).toHaveLength(1);
    expect(controller.snapshot('site-a')).toBeUndefined();
    expect(controller.snapshot('cloud')!.hosts).toEqual([]);
    controller.suspend('site-a', false);
    expect(new Set(translator.presences)).toEqual(new Set(before));
    expect(controller.snapshot('cloud')!.hosts).toHaveLength(2);
  });

  test('works while the site is being removed', async () => {
    const { controller, registry, store, translator } = await startScene();
    const open = store.hold();
    const isOther = ({ name }: { name: string }) => name !== 'site-b';
    const exposures = DESIRED.exposures.filter(({ site }) => site !== 'site-b');
    await registry.apply({ ...DESIRED, sites: DESIRED.sites.filter(isOther), exposures }, 'file');
    controller.suspend('site-b', true);
    await turn();
    controller.suspend('site-b', true);
    open();
    await turn();
    expect(JSON.stringify(translator.plan)).not.toContain('site-b');
  });

  test('applies to the first plan when the site is suspended at the start', async () => {
    const { translator } = await startScene(DESIRED, { suspended: ['site-a'] });
    expect(translator.loads).toBe(1);
    expect(JSON.stringify(translator.plan)).not.toContain('site-a');
  });
});

describe('a snapshot', () => {
  test('names services and clients, forward and back', async () => {
    const { controller } = await startScene();
    await controller.admit('site-a', '10.0.0.7', 'cloud', 4);
    await controller.admit('site-b', '10.0.0.7', 'cloud', 4);
    expect(controller.snapshot('cloud')).toEqual({
      revision: expect.any(Number),
      site: 'cloud',
      sources: SITE.sources,
      pools: SITE.pools,
      zone: 'cloud.test',
      ttlSeconds: 30,
      hosts: [
        { name: 'console-a.cloud.test', addresses: ['10.0.0.129'], ports: ['tcp/6080'] },
        { name: '10-0-0-7.site-a.cloud.test', addresses: ['10.0.0.130'], ports: [] },
        { name: '10-0-0-7.site-b.cloud.test', addresses: ['10.0.0.144'], ports: [] },
      ],
      pointers: [
        { address: '10.0.0.129', name: 'console-a.cloud.test' },
        { address: '10.0.0.130', name: '10-0-0-7.site-a.cloud.test' },
        { address: '10.0.0.144', name: '10-0-0-7.site-b.cloud.test' },
      ],
    });
    const siteA = controller.snapshot('site-a')!;
    expect(siteA.hosts).toEqual([
      { name: 'neutron.a.test', addresses: ['10.0.0.129'], ports: ['tcp/9696'] },
      { name: 'rabbitmq.a.test', addresses: ['10.0.0.129'], ports: ['tcp/5672', 'icmp'] },
    ]);
    expect(siteA.pointers).toEqual([{ address: '10.0.0.129', name: 'neutron.a.test' }]);
  });

  test('gives every IPv6 client a name of its own', async () => {
    const v6 = { sources: ['::/0'], pools: ['fd00::/64'], zone: 'Test' };
    const { controller } = await startScene({
      sites: [
        { name: 'cloud', ...v6 },
        { name: 'site-a', ...v6 },
      ],
      services: [{ name: 'mq', site: 'cloud', address: '2001:db8::5', ports: ['tcp/1'] }],
      exposures: [{ service: 'mq', site: 'site-a' }],
    });
    const clients = ['2001:db8::1', '2001:db8:1::', '::1', '1::', '2001:db8:0:1:1:1:1:1'];
    for (const client of clients) await controller.admit('site-a', client, 'cloud', 6);
    expect(controller.snapshot('cloud')!.hosts.map(({ name }) => name)).toEqual([
      '0--1.site-a.test',
      '1--0.site-a.test',
      '2001-db8--1.site-a.test',
      '2001-db8-0-1-1-1-1-1.site-a.test',
      '2001-db8-1--0.site-a.test',
    ]);
  });

  test('is emitted at once, and then once for changes within coalesceMs', async () => {
    const { controller, registry, clock } = await startScene(DESIRED, { coalesceMs: 20 });
    clock.advance(20);
    const seen: Snapshot[] = [];
    controller.on('snapshot', (snapshot) => seen.push(snapshot));
    await registry.expose({ service: 'glance', site: 'site-b' }, 'admin');
    await turn();
    clock.advance(0);
    expect(seen.map(({ site }) => site)).toEqual(['site-b']);
    for (const host of hosts(5)) await controller.admit('site-b', host, 'cloud', 4);
    clock.advance(19);
    expect(seen).toHaveLength(1);
    clock.advance(1);
    expect(seen.map(({ site }) => site)).toEqual(['site-b', 'cloud']);
    clock.advance(5000);
    expect(seen).toHaveLength(2);
  });

  test('is not emitted again when nothing in it has changed', async () => {
    const { controller, clock } = await startScene();
    clock.advance(5000);
    const seen: Snapshot[] = [];
    controller.on('snapshot', (snapshot) => seen.push(snapshot));
    const before = controller.snapshot('site-b');
    controller.suspend('site-x', true);
    clock.advance(5000);
    expect(seen).toEqual([]);
    expect(controller.snapshot('site-b')).toEqual(before);
  });

  test('has a revision that grows with each change and across restarts', async () => {
    const scene = await startScene();
    const revisions = [scene.controller.snapshot('site-b')!.revision];
    const { registry } = scene;
    await registry.expose({ service: 'glance', site: 'site-b' }, 'admin');
    await turn();
    revisions.push(scene.controller.snapshot('site-b')!.revision);
    await registry.unexpose({ service: 'glance', site: 'site-b' }, 'admin');
    await turn();
    revisions.push(scene.controller.snapshot('site-b')!.revision);
    scene.clock.advance(1000);
    const again = await startScene(DESIRED, {}, scene);
    revisions.push(again.controller.snapshot('site-b')!.revision);
    expect(revisions).toEqual([...new Set(revisions)].sort((a, b) => a - b));
  });
});

describe('names of clients', () => {
  test('fit one control message, and no site takes the names of another', async () => {
    const zone = `${'a'.repeat(60)}.${'b'.repeat(60)}.test`;
    const sites = WIDE.sites.map((site) => ({ ...site, zone, maxClients: 10_000 }));
    const { controller, clock } = await startScene({ ...WIDE, sites });
    const admitted = Array.from({ length: 9000 }, (_, i) =>
      controller.admit('site-a', `10.1.${i >> 8}.${i & 0xff}`, 'cloud', 4)
    );
    for (let i = 0; i < 100; i++) {
      admitted.push(controller.admit('site-b', `10.1.0.${i}`, 'cloud', 4));
    }
    await Promise.all(admitted);
    clock.advance(5000);
    const snapshot = controller.snapshot('cloud')!;
    expect(Buffer.byteLength(JSON.stringify(snapshot))).toBeLessThan(4 * 1024 * 1024);
    const named = (site: string) =>
      snapshot.hosts.filter(({ name }) => name.includes(`.${site}.`)).length;
    expect(named('site-b')).toBe(100);
    expect(named('site-a')).toBeGreaterThan(2000);
    expect(named('site-a')).toBeLessThan(9000);
    expect(snapshot.pointers.length).toBe(snapshot.hosts.length);
    // A host without a name is a client too.
    const address = controller.presences().filter(({ of }) => of.realm === 'site-a');
    expect(address.length).toBeGreaterThanOrEqual(9000);
  });
});

describe('whois', () => {
  test('returns site, host and services', async () => {
    const { controller } = await startScene();
    await controller.admit(...CLIENT);
    expect(controller.whois('site-a', '10.0.0.129')).toEqual({
      site: 'cloud',
      address: '10.0.0.5',
      services: ['neutron', 'rabbitmq'],
    });
    expect(controller.whois('cloud', '10.0.0.130')).toEqual({
      site: 'site-a',
      address: '10.0.0.7',
      services: [],
    });
    expect(controller.whois('cloud', '10.0.0.131')).toBeUndefined();
    expect(controller.whois('nowhere', '10.0.0.129')).toBeUndefined();
    expect(() => controller.whois('cloud', 'x')).toThrow(ApiMisuseError);
  });
});

test('a listener that throws does not stop the controller', async () => {
  const { registry, controller, store, translator } = await startScene();
  const uncaught: unknown[] = [];
  const listeners = process.listeners('uncaughtException');
  process.removeAllListeners('uncaughtException');
  process.on('uncaughtException', (error) => uncaught.push(error));
  try {
    controller.on('problem', () => {
      throw new Error('from a listener');
    });
    store.isFailing = true;
    await registry.expose({ service: 'glance', site: 'site-b' }, 'admin');
    await turn();
    store.isFailing = false;
    await controller.admit(...CLIENT);
    expect(translator.addressOf('site-b', 'cloud', '10.0.0.6')).toBeDefined();
    expect(uncaught).toEqual([new Error('from a listener')]);
  } finally {
    process.removeAllListeners('uncaughtException');
    for (const listener of listeners) process.on('uncaughtException', listener);
  }
});
