/**
 * Each kind of fault in what is derived is found, when it is made on purpose in the indexes of a small cloud.
 */
import { beforeEach, describe, expect, test } from 'vitest';
import { IpAddress } from '../../src/base/address.ts';
import { Endpoint } from '../../src/base/endpoint.ts';
import { resolveControllerOptions } from '../../src/control/controller-options.ts';
import { DerivationCheck } from '../../src/control/derivation-check.ts';
import { IndexChanges } from '../../src/control/index-changes.ts';
import { type OpenedState, openState } from '../../src/control/opened-state.ts';
import { planOf } from '../../src/control/plan.ts';
import type { RealmLeases } from '../../src/control/realm-leases.ts';
import { viewOf } from '../../src/control/site-view.ts';
import { SnapshotPublisher } from '../../src/control/snapshot-publisher.ts';
import type { AllocatorError } from '../../src/errors.ts';
import { Registry } from '../../src/registry/index.ts';
import { DESIRED, ObservedTranslator, SceneClock, ScriptedStore } from './scene.ts';

const CLIENT = new Endpoint('site-a', IpAddress.parse('10.0.0.7'));
const RABBITMQ = { service: 'rabbitmq', site: 'site-a' };

let store: ScriptedStore;
let registry: Registry;
let opened: OpenedState;
let snapshots: SnapshotPublisher;
let translator: ObservedTranslator;
let check: DerivationCheck;

beforeEach(async () => {
  store = new ScriptedStore();
  const clock = new SceneClock();
  registry = await Registry.open(store, { clock });
  const shell = { name: 'shell', site: 'site-a', address: '10.0.0.6', ports: ['tcp/22'] };
  const services = [...DESIRED.services, shell];
  const exposures = [
    ...DESIRED.exposures,
    { service: 'glance', site: 'site-b' },
    { service: 'shell', site: 'site-b' },
  ];
  await registry.apply({ ...DESIRED, services, exposures }, 'file');
  translator = new ObservedTranslator(store);
  opened = await openState(
    resolveControllerOptions({ registry, store, translator, clock, transit: 'cloud' })
  );
  const { desired, leases } = opened;
  deriveAll();
  leases.admit('cloud', CLIENT, 4, 100);
  await leases.commit();
  snapshots = new SnapshotPublisher({
    viewOf: (name) => {
      const site = desired.sites.get(name);
      return site && viewOf(site, 30, desired, leases, () => true);
    },
    onSnapshot: () => {},
    coalesceMs: 20,
    clock,
  });
  translator.load(planOf(desired, leases, () => true));
  for (const name of desired.sites.keys()) snapshots.snapshot(name);
  check = new DerivationCheck({
    source: registry,
    store,
    transit: 'cloud',
    translator,
    state: () => ({ ...opened, snapshots, isLive: (name) => desired.sites.has(name) }),
  });
});

/** Derives everything of which nothing was derived yet, or which has changed since. */
function deriveAll(): void {
  const { desired, leases } = opened;
  const changes = new IndexChanges(true);
  desired.updateAll(changes);
  const problems: AllocatorError[] = [];
  for (const steps = leases.fit(changes, false, problems); !steps.next().done; );
  expect(problems).toEqual([]);
}

async function faultsOf(name: string): Promise<string[]> {
  const faults = [...check.steps(name)].filter((each) => each !== undefined);
  return [...new Set([...faults, ...(await check.storedFaults(name))])];
}

function realmOf(name: string): RealmLeases {
  return opened.leases.realm(name)!;
}

test('nothing differs in a cloud without faults', async () => {
  for (const name of ['cloud', 'site-a', 'site-b', 'none']) {
    expect(await faultsOf(name)).toEqual([]);
  }
});

describe('the index of the desired state', () => {
  test.each([
    [
      'an exposure',
      'site-b',
      () => registry.expose({ service: 'neutron', site: 'site-b' }, 'file'),
      ['the exposure of "neutron" is not in force'],
    ],
    [
      'the end of an exposure',
      'site-a',
      () => registry.unexpose(RABBITMQ, 'file'),
      ['the exposure of "rabbitmq" is in force without a record'],
    ],
    [
      'a service',
      'site-a',
      () => registry.putService({ ...DESIRED.services[0]!, address: '10.0.0.9' }, 'file'),
      ['the exposure of "rabbitmq" is in force otherwise than its record says'],
    ],
    [
      'a site',
      'site-b',
      () => registry.putSite({ ...DESIRED.sites[2]!, maxClients: 3 }, 'file'),
      ['its record is not the one in force'],
    ],
  ])('lacks %s', async (_, site, change, expected) => {
    await change();
    expect(await faultsOf(site)).toEqual(expect.arrayContaining(expected));
  });

  test('lacks a site, or has one too many', async () => {
    await registry.putSite({ ...DESIRED.sites[2]!, name: 'site-c' }, 'file');
    expect(await faultsOf('site-c')).toEqual(['its record is not the one in force']);
  });

  test.each<[string, string, (state: OpenedState) => void, string]>([
    [
      'a client of a service',
      'site-a',
      ({ desired }) => {
        desired.pair('cloud', 'site-a')!.remove(desired.entry(RABBITMQ)!);
      },
      'its hosts are not clients of "rabbitmq" in "cloud" with its maxClients',
    ],
    [
      'the clients in transit',
      'site-b',
      ({ desired }) => {
        const entry = desired.entry({ service: 'shell', site: 'site-b' })!;
        desired.transitPair('site-b')!.remove(entry);
      },
      'its hosts are not clients of "shell" in "cloud" with its maxClients',
    ],
    [
      'a host in transit',
      'site-b',
      ({ desired }) => {
        const entry = desired.entry({ service: 'shell', site: 'site-b' })!;
        desired.hostsIn('cloud').uncross('site-a/10.0.0.6', entry);
      },
      '"shell" needs a presence in "cloud"',
    ],
    [
      'a host',
      'site-a',
      ({ desired }) => {
        desired.hostsIn('site-a').unexpose(desired.entry(RABBITMQ)!);
      },
      'the host of "rabbitmq" needs a presence',
    ],
    [
      'the maxClients of a site',
      'cloud',
      ({ desired }) => {
        desired.clientSitesOf('cloud', 4).add('site-a', 7);
      },
      'the number of exposures that make hosts of "site-a" clients is wrong',
    ],
    [
      'a site that has no clients',
      'cloud',
      ({ desired }) => {
        desired.clientSitesOf('cloud', 6).add('site-z', 7);
      },
      'the number of exposures that make hosts of "site-z" clients is wrong',
    ],
  ])('has wrongly %s', async (_, site, corrupt, expected) => {
    corrupt(opened);
    expect(await faultsOf(site)).toContain(expected);
  });

  test('has a host that no exposure needs', async () => {
    const entry = opened.desired.entry(RABBITMQ)!;
    opened.desired.hostsIn('site-b').cross('cloud/10.0.0.9', 4, entry);
    expect(await faultsOf('site-b')).toContain(
      'cloud/10.0.0.5 has a presence that no exposure needs'
    );
  });
});

describe('the leases', () => {
  test.each<[string, string, () => void, string]>([
    [
      'of a service is gone',
      'site-a',
      () => {
        const realm = realmOf('site-a');
        realm.release(realm.get('cloud/10.0.0.5')!);
      },
      'cloud/10.0.0.5 has no lease',
    ],
    [
      'counts as a service',
      'cloud',
      () => {
        realmOf('cloud').setService(realmOf('cloud').get(CLIENT.key)!, true);
      },
      "counts as a service's",
    ],
    [
      'has no use',
      'cloud',
      () => {
        realmOf('cloud').uses.delete(CLIENT.key);
      },
      'the uses of 10.0.0.131 by site-a/10.0.0.7 are kept wrongly',
    ],
    [
      'is not charged',
      'cloud',
      () => {
        realmOf('cloud').shares[4].remove('site-a');
      },
      '"site-a" is charged with too few IPv4 addresses',
    ],
    [
      'is charged twice',
      'cloud',
      () => {
        realmOf('cloud').shares[4].add('site-b');
      },
      'its clients are charged with 2 IPv4 addresses in place of 1',
    ],
    [
      'takes room',
      'cloud',
      () => {
        realmOf('cloud').shares[4].add(undefined);
      },
      'the room of its IPv4 pools is wrong',
    ],
    [
      'is of a host that is no client',
      'cloud',
      () => {
        const stranger = new Endpoint('site-b', IpAddress.parse('192.0.2.1'));
        const { key } = realmOf('cloud').allocate(stranger, 4, false);
        realmOf('cloud').uses.set(key, { usedAtMs: 0, storedAtMs: 0 });
      },
      'is one that no exposure allows',
    ],
  ])('of which one %s', async (_, site, corrupt, expected) => {
    corrupt();
    expect((await faultsOf(site)).join('\n')).toContain(expected);
  });

  test('are not in the store', async () => {
    await store.commit([{ key: 'lease/site-a/10.0.0.129', value: undefined }]);
    expect(await faultsOf('site-a')).toEqual([
      'the store does not have the lease of 10.0.0.129 to cloud/10.0.0.5',
    ]);
  });

  test('are not those of the store, in a site with more of them than are read at once', async () => {
    const hosts = Array.from({ length: 600 }, (_, i) =>
      IpAddress.parse(`10.1.${i >> 8}.${i & 255}`)
    );
    const pools = ['10.64.0.0/16'];
    await registry.putSite({ ...DESIRED.sites[0]!, sources: ['10.0.0.0/8'], pools }, 'file');
    await registry.putSite({ ...DESIRED.sites[1]!, sources: ['10.0.0.0/8'] }, 'file');
    deriveAll();
    for (const host of hosts) opened.leases.admit('cloud', new Endpoint('site-a', host), 4, 1000);
    await opened.leases.commit();
    const held = [...opened.leases.presencesIn('cloud')];
    const last = held.at(-1)!;
    await store.commit([{ key: `lease/cloud/${last.address}`, value: undefined }]);
    const found = [];
    for (let round = 0; round < 3; round++) found.push(...(await check.storedFaults('cloud')));
    expect(found).toEqual([`the store does not have the lease of ${last.address} to ${last.of}`]);
  });
});

describe('the translator', () => {
  const of = { realm: 'cloud', address: '10.0.0.5' };

  test.each([
    [
      'lacks a realm',
      { realms: [{ name: 'site-b', realm: undefined }] },
      'the translator lacks its realm',
    ],
    [
      'lacks a presence',
      { presences: [{ realm: 'site-b', address: '10.0.0.129', of: undefined }] },
      'the translator does not have cloud/10.0.0.6 at 10.0.0.129 as it has to',
    ],
    [
      'has a presence too many',
      {
        presences: [
          { realm: 'site-b', address: '10.0.0.200', of: { realm: 'site-a', address: '10.0.0.99' } },
        ],
      },
      'presences in place of',
    ],
    [
      'lacks permits',
      { permits: [{ realm: 'site-b', service: of, permits: [] }] },
      'has permits for 2 hosts in place of 3',
    ],
  ])('%s', async (_, changes, expected) => {
    translator.real.apply(changes);
    expect((await faultsOf('site-b')).join('\n')).toContain(expected);
  });
});

test('a snapshot is an old one', async () => {
  const { desired, leases } = opened;
  leases.admit('site-a', new Endpoint('cloud', IpAddress.parse('10.0.0.8')), 4, 100);
  await leases.commit();
  translator.load(planOf(desired, leases, () => true));
  expect(await faultsOf('site-a')).toEqual(['its snapshot is an old one']);
  snapshots.snapshot('site-a');
  expect(await faultsOf('site-a')).toEqual([]);
});
