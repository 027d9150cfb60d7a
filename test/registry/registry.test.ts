import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { IpPrefix } from '../../src/base/prefix.ts';
import { ApiMisuseError, type ConfigError, PresenceError, StoreError } from '../../src/errors.ts';
import {
  exposureName,
  type Owner,
  presenceFamily,
  Registry,
  type SiteInput,
} from '../../src/registry/index.ts';
import {
  type Change,
  FileStore,
  type Json,
  MemoryStore,
  type Write,
} from '../../src/store/index.ts';

const site = (name: string, more: object = {}) => ({
  name,
  sources: ['10.0.0.0/24'],
  pools: ['10.0.0.128/25'],
  zone: `${name}.example.org`,
  ...more,
});
const service = (name: string, more: object = {}) => ({
  name,
  site: 'cloud',
  address: '10.0.0.5',
  ports: ['tcp/5672'],
  ...more,
});
const SITES = [site('cloud'), site('site-a'), site('site-b')];
const DESIRED = {
  sites: SITES,
  services: [service('rabbitmq'), service('metrics', { address: '10.0.0.6' })],
  exposures: [{ service: 'rabbitmq', site: 'site-a' }],
};

async function open(): Promise<{ store: MemoryStore; registry: Registry; changes: () => number }> {
  const store = new MemoryStore();
  const registry = await Registry.open(store);
  let count = 0;
  registry.on('change', () => {
    count++;
  });
  return { store, registry, changes: () => count };
}

async function faultOf(promise: Promise<unknown>): Promise<ConfigError> {
  const fault = await promise.then(
    () => new Error('was accepted'),
    (error: unknown) => error
  );
  if (!(fault instanceof PresenceError)) throw fault;
  return fault as ConfigError;
}

describe('apply', () => {
  test('applies the whole state, with defaults, in one change', async () => {
    const { registry, changes } = await open();
    await registry.apply(DESIRED, 'file');
    expect(changes()).toBe(1);
    expect(registry.state.sites.map(({ name }) => name)).toEqual(['cloud', 'site-a', 'site-b']);
    expect(registry.site('site-a')).toEqual({
      ...SITES[1],
      reserved: [],
      maxClients: 1024,
      maxNames: 4096,
    });
    expect(registry.state.services.map(({ name }) => name)).toEqual(['metrics', 'rabbitmq']);
    expect(registry.state.exposures).toEqual([{ service: 'rabbitmq', site: 'site-a' }]);
  });

  test('keeps what a site says of its packets', async () => {
    const { registry } = await open();
    const more = { mtu: 1400, reject: 'unreachable' };
    await registry.apply({ ...DESIRED, sites: [SITES[0], site('site-a', more)] }, 'file');
    expect(registry.site('site-a')).toMatchObject(more);
  });

  test('makes the same state of records in any order', async () => {
    const { registry } = await open();
    const other = await open();
    await registry.apply(DESIRED, 'file');
    await other.registry.apply(
      { ...DESIRED, sites: [...SITES].reverse(), services: [...DESIRED.services].reverse() },
      'file'
    );
    expect(other.registry.state).toEqual(registry.state);
  });

  test('changes nothing and emits nothing when nothing is new', async () => {
    const { registry, changes } = await open();
    await registry.apply(DESIRED, 'file');
    const before = registry.state;
    await registry.apply(structuredClone(DESIRED), 'file');
    expect(changes()).toBe(1);
    expect(registry.state).toBe(before);
  });

  test('replaces all records of its owner and keeps those of others', async () => {
    const { registry } = await open();
    await registry.apply(DESIRED, 'file');
    await registry.expose({ service: 'metrics', site: 'site-b' }, 'admin');
    await registry.apply(
      { ...DESIRED, exposures: [{ service: 'rabbitmq', site: 'site-b' }] },
      'file'
    );
    expect(registry.state.exposures).toEqual([
      { service: 'metrics', site: 'site-b' },
      { service: 'rabbitmq', site: 'site-b' },
    ]);
  });

  test("refuses to take away what another owner's exposure needs, and changes nothing", async () => {
    const { registry, changes, store } = await open();
    await registry.apply(DESIRED, 'file');
    await registry.expose({ service: 'metrics', site: 'site-b' }, 'admin');
    const before = await store.list('');
    const fit = 'the exposure of "metrics" to "site-b", kept by the admin, would no longer fit';
    const without = { ...DESIRED, services: [service('rabbitmq')] };
    const fault = await faultOf(registry.apply(without, 'file'));
    expect(fault.message).toBe(`${fit}: "metrics" is not a service`);
    expect(fault.path).toBe('');
    const gone = await faultOf(registry.apply({ ...DESIRED, sites: SITES.slice(0, 2) }, 'file'));
    expect(gone.message).toBe(`${fit}: "site-b" is not a site`);
    expect(await store.list('')).toEqual(before);
    expect(changes()).toBe(2);
  });

  test('refuses a record that another owner keeps', async () => {
    const { registry } = await open();
    await registry.apply(DESIRED, 'file');
    await registry.expose({ service: 'metrics', site: 'site-b' }, 'admin');
    const again = {
      ...DESIRED,
      exposures: [...DESIRED.exposures, { service: 'metrics', site: 'site-b' }],
    };
    expect((await faultOf(registry.apply(again, 'file'))).message).toBe(
      'exposures[1]: the exposure of "metrics" to "site-b" is kept by the admin already'
    );
  });
});

type Fault = readonly [situation: string, change: (desired: Draft) => void, message: string];
interface Draft {
  sites: Record<string, unknown>[];
  services: Record<string, unknown>[];
  exposures: Record<string, unknown>[];
}

const FAULTS: readonly Fault[] = [
  ['no sites', (d) => delete (d as Partial<Draft>).sites, 'sites: is missing'],
  [
    'a site twice',
    (d) => d.sites.push(site('site-a')),
    'sites[3]: the site "site-a" is there twice',
  ],
  [
    'a service twice',
    (d) => d.services.push(service('rabbitmq', { address: '10.0.0.9' })),
    'services[2]: the service "rabbitmq" is there twice',
  ],
  [
    'an exposure twice',
    (d) => d.exposures.push({ service: 'rabbitmq', site: 'site-a', dnsName: 'other' }),
    'exposures[1]: the exposure of "rabbitmq" to "site-a" is there twice',
  ],
  [
    'overlapping pools',
    (d) => {
      d.sites[1]!.pools = ['10.1.0.0/24', '10.2.0.0/24', '10.1.0.128/25'];
    },
    'sites[1].pools[2]: 10.1.0.128/25 overlaps 10.1.0.0/24',
  ],
  [
    'a zone without room for names',
    (d) => {
      d.sites[1]!.zone = `${'a.'.repeat(75)}org`;
    },
    `sites[1].zone: expected at most 149 characters, got "${'a.'.repeat(28)}...`,
  ],
  [
    'a service of no site',
    (d) => {
      d.services[1]!.site = 'nowhere';
    },
    'services[1].site: "nowhere" is not a site',
  ],
  [
    'a service outside of its sources',
    (d) => {
      d.services[1]!.address = '192.0.2.1';
    },
    'services[1].address: 192.0.2.1 is not in the sources of "cloud"',
  ],
  [
    'a service within a pool',
    (d) => {
      d.services[1]!.address = '10.0.0.129';
    },
    'services[1].address: 10.0.0.129 is in a pool of "cloud"',
  ],
  [
    'an exposure to no site',
    (d) => {
      d.exposures[0]!.site = 'nowhere';
    },
    'exposures[0].site: "nowhere" is not a site',
  ],
  [
    'an exposure of no service',
    (d) => {
      d.exposures[0]!.service = 'nothing';
    },
    'exposures[0].service: "nothing" is not a service',
  ],
  [
    'an exposure at home',
    (d) => {
      d.exposures[0]!.site = 'cloud';
    },
    'exposures[0].site: "rabbitmq" is at home in "cloud"',
  ],
  [
    'an exposure to a site without a pool',
    (d) => {
      d.sites[1]!.pools = [];
    },
    'exposures[0].site: "site-a" has no pool for a presence of "rabbitmq"',
  ],
  [
    'an exposure whose clients can have no presence at home',
    (d) => {
      d.sites[0]!.pools = ['fd00::/64'];
    },
    'exposures[0].service: "cloud", where it is at home, has no IPv4 pool for presences of its clients',
  ],
  [
    'a name twice in a site',
    (d) => d.exposures.push({ service: 'metrics', site: 'site-a', dnsName: 'RabbitMQ' }),
    'exposures[1].dnsName: rabbitmq.site-a.example.org is the name of "rabbitmq" in "site-a" already',
  ],
  [
    "the name server's name",
    (d) => {
      d.exposures[0]!.dnsName = 'NS.site-a.example.org';
    },
    "exposures[0].dnsName: ns.site-a.example.org is the name of the site's own name server",
  ],
  [
    'a name too long within its zone',
    (d) => {
      d.exposures[0]!.dnsName = `${'a.'.repeat(120)}b`;
    },
    'exposures[0].dnsName: it has 260 characters within "site-a.example.org", more than 253',
  ],
  [
    'clients that are no list',
    (d) => {
      d.exposures[0]!.clients = '10.0.0.0/24';
    },
    'exposures[0].clients: expected a list, got "10.0.0.0/24"',
  ],
  [
    'a number of clients that is too large',
    (d) => {
      d.sites[2]!.maxClients = 1e9;
    },
    'sites[2].maxClients: expected a whole number from 0 to 1000000, got 1000000000',
  ],
  [
    'a number of names that is none',
    (d) => {
      d.sites[2]!.maxNames = -1;
    },
    'sites[2].maxNames: expected a whole number from 0 to 1000000, got -1',
  ],
  [
    'more names than a site may have',
    (d) => {
      d.sites[1]!.maxNames = 1;
      d.exposures.push(
        { service: 'metrics', site: 'site-b' },
        { service: 'metrics', site: 'site-a' }
      );
    },
    'exposures[2].site: "site-a" has all the names that its maxNames, 1, allows',
  ],
  [
    'an MTU under what every host takes',
    (d) => {
      d.sites[1]!.mtu = 575;
    },
    'sites[1].mtu: expected a whole number from 576 to 65535, got 575',
  ],
  [
    'an MTU beyond the longest packet',
    (d) => {
      d.sites[1]!.mtu = 65_536;
    },
    'sites[1].mtu: expected a whole number from 576 to 65535, got 65536',
  ],
  [
    'an MTU as text',
    (d) => {
      d.sites[1]!.mtu = '1500';
    },
    'sites[1].mtu: expected a number, got "1500"',
  ],
  [
    'an unknown way to reject',
    (d) => {
      d.sites[1]!.reject = 'refuse';
    },
    'sites[1].reject: expected "drop" or "unreachable" or "reset", got "refuse"',
  ],
  [
    'a port of a protocol that cannot be translated',
    (d) => {
      d.services[1]!.ports = ['sctp/3868', 'ip/33'];
    },
    'services[1].ports[1]: "ip/33" cannot be exposed: the checksum of DCCP covers the addresses, which is not supported',
  ],
  [
    'a name that would leave its place in the store',
    (d) => {
      d.services[0]!.name = '../site/cloud';
    },
    'services[0].name: expected a name of lower-case letters, digits and hyphens, got "../site/cloud"',
  ],
];

describe('a desired state that does not fit', () => {
  test.each(FAULTS)('%s', async (_situation, change, message) => {
    const { registry, changes, store } = await open();
    const draft = structuredClone(DESIRED) as unknown as Draft;
    change(draft);
    const fault = await faultOf(registry.apply(draft, 'file'));
    expect(fault.message).toBe(message);
    expect(message.startsWith(`${fault.path}: `)).toBe(true);
    expect(changes()).toBe(0);
    expect(await store.list('')).toEqual([]);
  });

  test.each([undefined, null, 5, 'text'])('%j instead of a mapping', async (value) => {
    const { registry } = await open();
    expect((await faultOf(registry.apply(value, 'file'))).path).toBe('');
  });
});

describe('expose and unexpose', () => {
  test('adds, changes and ends an exposure, each in one change', async () => {
    const { registry, changes } = await open();
    await registry.apply({ ...DESIRED, exposures: [] }, 'file');
    const key = { service: 'rabbitmq', site: 'site-a' };
    expect(await registry.expose({ ...key, dnsName: 'mq' }, 'admin')).toEqual({
      ...key,
      dnsName: 'mq',
    });
    await registry.expose({ ...key, clients: ['10.0.0.5'] }, 'admin');
    expect(registry.state.exposures).toEqual([{ ...key, clients: ['10.0.0.5'] }]);
    await registry.unexpose(key, 'admin');
    expect(registry.state.exposures).toEqual([]);
    expect(changes()).toBe(4);
  });

  test('names the place within the exposure', async () => {
    const { registry } = await open();
    await registry.apply(DESIRED, 'file');
    const expose = (exposure: unknown) => faultOf(registry.expose(exposure, 'admin'));
    expect((await expose({ service: 'none', site: 'site-a' })).message).toBe(
      'service: "none" is not a service'
    );
    expect((await expose({ service: 'metrics' })).message).toBe('site: is missing');
    expect((await expose(undefined)).message).toBe('is missing, expected a mapping');
  });

  test('does not change records of the file', async () => {
    const { registry, changes } = await open();
    await registry.apply(DESIRED, 'file');
    const key = { service: 'rabbitmq', site: 'site-a' };
    const sentence = 'the exposure of "rabbitmq" to "site-a" is kept by the file; change it there';
    expect((await faultOf(registry.expose(key, 'admin'))).message).toBe(sentence);
    expect((await faultOf(registry.unexpose(key, 'admin'))).message).toBe(sentence);
    expect(changes()).toBe(1);
  });

  test('names the new exposure in a conflict, wherever its key sorts', async () => {
    const { registry } = await open();
    await registry.apply(DESIRED, 'file');
    const exposure = { service: 'metrics', site: 'site-a', dnsName: 'rabbitmq' };
    expect((await faultOf(registry.expose(exposure, 'admin'))).message).toBe(
      'dnsName: rabbitmq.site-a.example.org is the name of "rabbitmq" in "site-a" already'
    );
  });

  test('names the changed exposure in a conflict with an older one', async () => {
    const { registry } = await open();
    await registry.apply(DESIRED, 'file');
    await registry.expose({ service: 'metrics', site: 'site-a' }, 'admin');
    await registry.expose({ service: 'metrics', site: 'site-b' }, 'admin');
    await registry.expose({ service: 'rabbitmq', site: 'site-b' }, 'admin');
    const changed = { service: 'metrics', site: 'site-b', dnsName: 'rabbitmq' };
    expect((await faultOf(registry.expose(changed, 'admin'))).path).toBe('dnsName');
  });

  test('refuses to end an exposure that does not exist', async () => {
    const { registry } = await open();
    await registry.apply(DESIRED, 'file');
    const end = (service: string) => registry.unexpose({ service, site: 'site-b' }, 'admin');
    expect((await faultOf(end('metrics'))).message).toBe('"metrics" is not exposed to "site-b"');
    expect((await faultOf(end('__proto__'))).code).toBe('ERR_PRESENCE_CONFIG');
  });

  test('gives a site no more names than it may have, and lets those be changed and made room', async () => {
    const { registry } = await open();
    const sites = [SITES[0], SITES[1], site('site-b', { maxNames: 1 })];
    await registry.apply({ ...DESIRED, sites, exposures: [] }, 'file');
    await registry.expose({ service: 'rabbitmq', site: 'site-b' }, 'admin');
    await registry.expose({ service: 'rabbitmq', site: 'site-a' }, 'admin');
    const metrics = { service: 'metrics', site: 'site-b' };
    const fault = await faultOf(registry.expose(metrics, 'admin'));
    expect(fault.message).toBe('site: "site-b" has all the names that its maxNames, 1, allows');
    await registry.expose({ service: 'rabbitmq', site: 'site-b', dnsName: 'mq' }, 'admin');
    await registry.unexpose({ service: 'rabbitmq', site: 'site-b' }, 'admin');
    await registry.expose(metrics, 'admin');
    const none = [SITES[0], SITES[1], site('site-b', { maxNames: 0 })];
    const lowered = await faultOf(
      registry.apply({ ...DESIRED, sites: none, exposures: [] }, 'file')
    );
    expect(lowered.message).toMatch(
      /^the exposure of "metrics" to "site-b", kept by the admin, would/
    );
  });

  test('counts aliases and HTTPS and SVCB records as names too', async () => {
    const { registry } = await open();
    const sites = [SITES[0], SITES[1], site('site-b', { maxNames: 4 })];
    await registry.apply({ ...DESIRED, sites, exposures: [] }, 'file');
    const exposure = { service: 'rabbitmq', site: 'site-b' };
    const more = { aliases: ['mq', 'bus'], https: [{}], svcb: [{ prefix: '_dns' }] };
    const full = 'site: "site-b" has all the names that its maxNames, 4, allows';
    expect((await faultOf(registry.expose({ ...exposure, ...more }, 'admin'))).message).toBe(full);
    await registry.expose({ ...exposure, ...more, svcb: [] }, 'admin');
    const metrics = { service: 'metrics', site: 'site-b' };
    expect((await faultOf(registry.expose(metrics, 'admin'))).message).toBe(full);
    await registry.expose({ ...exposure, aliases: ['mq', 'bus'] }, 'admin');
    await registry.expose(metrics, 'admin');
  });

  test('lets an IPv4 and an IPv6 service share a name', async () => {
    const { registry } = await open();
    const both = { sources: ['10.0.0.0/24', '2001:db8::/64'], pools: ['10.9.0.0/24', 'fd00::/64'] };
    await registry.apply(
      {
        sites: [site('cloud', both), site('site-a', both)],
        services: [service('mq4'), service('mq6', { address: '2001:DB8:0::5' })],
        exposures: ['mq4', 'mq6'].map((name) => ({ service: name, site: 'site-a', dnsName: 'mq' })),
      },
      'file'
    );
    expect(registry.state.exposures).toHaveLength(2);
  });

  test('refuses the name that they share in a site where both have a presence of one version', async () => {
    const { registry } = await open();
    const both = { sources: ['10.0.0.0/24', '2001:db8::/64'], pools: ['10.9.0.0/24', 'fd00::/64'] };
    const desired = {
      sites: [site('cloud', both), site('site-a', { ...both, pools: ['fd00::/64'] })],
      services: [service('mq4'), service('mq6', { address: '2001:db8::5' })],
      exposures: ['mq4', 'mq6'].map((name) => ({ service: name, site: 'site-a', dnsName: 'mq' })),
    };
    expect((await faultOf(registry.apply(desired, 'file'))).message).toBe(
      'exposures[1].dnsName: mq.site-a.example.org is the name of "mq4" in "site-a" already'
    );
  });

  test.each([
    ['IPv4', '10.0.0.5', ['fd00::/64']],
    ['IPv6', '2001:db8::5', ['10.9.0.0/24']],
  ])(
    'exposes an %s service to a site that has pools of the other version only',
    async (_version, address, pools) => {
      const { registry } = await open();
      const both = {
        sources: ['10.0.0.0/24', '2001:db8::/64'],
        pools: ['10.9.0.0/24', 'fd00::/64'],
      };
      await registry.apply(
        {
          sites: [site('cloud', both), site('site-a', { ...both, pools })],
          services: [service('mq', { address })],
        },
        'file'
      );
      await registry.expose({ service: 'mq', site: 'site-a' }, 'admin');
      const home = [site('cloud', { ...both, pools }), site('site-a', both)];
      const fault = await faultOf(
        registry.apply({ sites: home, services: [service('mq', { address })] }, 'file')
      );
      expect(fault.message).toMatch(
        /^the exposure of "mq" to "site-a", kept by the admin, .*"cloud", where it is at home, has no IPv[46] pool/
      );
    }
  );
});

test.each([
  [4, ['10.9.0.0/24', 'fd00::/64'], 4],
  [6, ['10.9.0.0/24', 'fd00::/64'], 6],
  [4, ['fd00::/64'], 6],
  [6, ['10.9.0.0/24'], 4],
  [6, [], 6],
] as const)(
  'presenceFamily of an IPv%i service where the pools are %j is %i',
  (own, pools, family) => {
    expect(
      presenceFamily(
        own,
        pools.map((text) => IpPrefix.parse(text))
      )
    ).toBe(family);
  }
);

describe('writes at the same time', () => {
  test('run one after the other, so that each is checked against the ones before', async () => {
    const { registry, changes } = await open();
    const outcomes = await Promise.allSettled([
      registry.apply(DESIRED, 'file'),
      registry.expose({ service: 'metrics', site: 'site-a', dnsName: 'm' }, 'admin'),
      registry.expose({ service: 'metrics', site: 'site-b' }, 'admin'),
      registry.apply({ ...DESIRED, services: [service('rabbitmq')] }, 'file'),
      registry.unexpose({ service: 'metrics', site: 'site-a' }, 'admin'),
      registry.unexpose({ service: 'metrics', site: 'site-a' }, 'admin'),
    ]);
    expect(outcomes.map(({ status }) => status)).toEqual([
      'fulfilled',
      'fulfilled',
      'fulfilled',
      'rejected',
      'fulfilled',
      'rejected',
    ]);
    expect(changes()).toBe(4);
    expect(registry.state.exposures.map((each) => `${each.site}/${each.service}`)).toEqual([
      'site-a/rabbitmq',
      'site-b/metrics',
    ]);
  });

  test('have emitted a change when they resolve', async () => {
    const { registry } = await open();
    const seen: number[] = [];
    registry.on('change', () => seen.push(registry.state.exposures.length));
    await registry.apply(DESIRED, 'file');
    expect(seen).toEqual([1]);
    await registry.expose({ service: 'metrics', site: 'site-b' }, 'admin');
    expect(seen).toEqual([1, 2]);
  });

  test('change nothing when the store fails, and the next one goes through', async () => {
    const store = new ScriptedStore();
    const registry = await Registry.open(store);
    await registry.apply(DESIRED, 'file');
    store.isFailing = true;
    const key = { service: 'metrics', site: 'site-b' };
    await expect(registry.expose(key, 'admin')).rejects.toThrow(StoreError);
    expect(registry.state.exposures).toHaveLength(1);
    store.isFailing = false;
    await registry.expose(key, 'admin');
    expect(registry.state.exposures).toHaveLength(2);
  });

  test('finish before close does, and later ones are refused', async () => {
    const { registry, changes } = await open();
    const written = registry.apply(DESIRED, 'file');
    await registry.close();
    await written;
    expect(changes()).toBe(1);
    await expect(registry.apply(DESIRED, 'file')).rejects.toThrow(ApiMisuseError);
  });
});

describe('sites and services at run time', () => {
  const SITE_C = site('site-c');
  const CAMERA = service('camera', { site: 'site-c', address: '10.0.0.7', ports: ['tcp/554'] });

  test('are added, changed and removed, each in one change', async () => {
    const { registry, changes, store } = await open();
    await registry.apply(DESIRED, 'file');
    expect(await registry.putSite(SITE_C, 'admin')).toEqual({
      ...SITE_C,
      reserved: [],
      maxClients: 1024,
      maxNames: 4096,
    });
    expect(await registry.putService(CAMERA, 'admin')).toEqual(CAMERA);
    expect(await store.get('desired/service/camera')).toMatchObject({
      value: { owner: 'admin', spec: CAMERA },
    });
    await registry.putSite({ ...SITE_C, mtu: 1400 }, 'admin');
    expect(registry.site('site-c')).toHaveProperty('mtu', 1400);
    await registry.putService({ ...CAMERA, address: '10.0.0.8' }, 'admin');
    expect(registry.state.services.find(({ name }) => name === 'camera')).toHaveProperty(
      'address',
      '10.0.0.8'
    );
    await registry.removeService('camera', 'admin');
    await registry.removeSite('site-c', 'admin');
    expect(registry.site('site-c')).toBeUndefined();
    expect(changes()).toBe(7);
    const keys = (await store.list('desired/')).map(({ key }) => key);
    expect(keys.filter((key) => /site-c|camera/.test(key))).toEqual([]);
  });

  test('change nothing and emit nothing when they are as they were', async () => {
    const { registry, changes } = await open();
    await registry.apply(DESIRED, 'file');
    await registry.putSite(SITE_C, 'admin');
    await registry.putSite(structuredClone(SITE_C), 'admin');
    expect(changes()).toBe(2);
  });

  test('stay when the file is applied again', async () => {
    const { registry } = await open();
    await registry.apply(DESIRED, 'file');
    await registry.putSite(SITE_C, 'admin');
    await registry.putService(CAMERA, 'admin');
    await registry.apply({ ...DESIRED, exposures: [] }, 'file');
    expect(registry.site('site-c')).toBeDefined();
    const twice = { ...DESIRED, sites: [...SITES, SITE_C] };
    expect((await faultOf(registry.apply(twice, 'file'))).message).toBe(
      'sites[3]: the site "site-c" is kept by the admin already'
    );
  });

  test('are there after a restart, with their owner', async () => {
    const { registry, store } = await open();
    await registry.apply(DESIRED, 'file');
    await registry.putSite(SITE_C, 'admin');
    await registry.putService(CAMERA, 'admin');
    await registry.close();
    const reopened = await Registry.open(store);
    expect(reopened.state).toEqual(registry.state);
    await reopened.removeService('camera', 'admin');
    await reopened.removeSite('site-c', 'admin');
    expect(reopened.site('site-c')).toBeUndefined();
  });

  type Ask = (registry: Registry) => Promise<unknown>;
  const REFUSED: readonly (readonly [
    situation: string,
    ask: Ask,
    message: string,
    path: string | undefined,
  ])[] = [
    [
      'a site that is none',
      (registry) => registry.putSite(undefined, 'admin'),
      'is missing, expected a mapping',
      '',
    ],
    [
      'a site without a zone',
      (registry) => registry.putSite({ ...SITE_C, zone: undefined }, 'admin'),
      'zone: is missing, expected a string',
      'zone',
    ],
    [
      'a site with a name that would leave its place in the store',
      (registry) => registry.putSite({ ...SITE_C, name: '../x' }, 'admin'),
      'name: expected a name of lower-case letters, digits and hyphens, got "../x"',
      'name',
    ],
    [
      'a site with overlapping pools',
      (registry) => registry.putSite({ ...SITE_C, pools: ['10.0.0.0/24', '10.0.0.0/8'] }, 'admin'),
      'pools[1]: 10.0.0.0/8 overlaps 10.0.0.0/24',
      'pools[1]',
    ],
    [
      'a site that the file keeps',
      (registry) => registry.putSite(site('site-a'), 'admin'),
      'the site "site-a" is kept by the file; change it there',
      undefined,
    ],
    [
      'a site that no longer holds a service of another owner',
      (registry) => registry.putSite(site('cloud', { sources: ['10.9.0.0/24'] }), 'file'),
      'the service "rabbitmq", kept by the file, would no longer fit: 10.0.0.5 is not in the sources of "cloud"',
      '',
    ],
    [
      'a service that is none',
      (registry) => registry.putService(5, 'admin'),
      'expected a mapping, got 5',
      '',
    ],
    [
      'a service of no site',
      (registry) => registry.putService(service('new', { site: 'nowhere' }), 'admin'),
      'site: "nowhere" is not a site',
      'site',
    ],
    [
      'a service outside of the sources',
      (registry) => registry.putService(service('new', { address: '192.0.2.1' }), 'admin'),
      'address: 192.0.2.1 is not in the sources of "cloud"',
      'address',
    ],
    [
      'a service with a port that is none',
      (registry) => registry.putService(service('new', { ports: ['tcp/0'] }), 'admin'),
      'ports[0]: "tcp/0" is not a port such as tcp/5672, udp/8000-8100, icmp or ip/47',
      'ports[0]',
    ],
    [
      'a service that the file keeps',
      (registry) => registry.putService(service('rabbitmq'), 'admin'),
      'the service "rabbitmq" is kept by the file; change it there',
      undefined,
    ],
    [
      'a service that moves to where it is exposed',
      (registry) => registry.putService(service('rabbitmq', { site: 'site-a' }), 'file'),
      'the exposure of "rabbitmq" to "site-a", kept by the file, would no longer fit: "rabbitmq" is at home in "site-a"',
      '',
    ],
    [
      'the removal of no site',
      (registry) => registry.removeSite('nowhere', 'admin'),
      '"nowhere" is not a site',
      undefined,
    ],
    [
      'the removal of a site without a name',
      (registry) => registry.removeSite(undefined as unknown as string, 'admin'),
      'name: is missing, expected a string',
      'name',
    ],
    [
      'the removal of the cloud',
      (registry) => registry.removeSite('cloud', 'file'),
      '"cloud" cannot be removed: every other site needs it',
      undefined,
    ],
    [
      'the removal of a site that the file keeps',
      (registry) => registry.removeSite('site-b', 'admin'),
      'the site "site-b" is kept by the file; change it there',
      undefined,
    ],
    [
      'the removal of a site that is needed',
      (registry) => registry.removeSite('site-a', 'file'),
      'the site "site-a" cannot be removed while it is needed by the exposure of "rabbitmq" to "site-a" (kept by the file): remove these first, each where it is kept',
      undefined,
    ],
    [
      'the removal of no service',
      (registry) => registry.removeService('none', 'admin'),
      '"none" is not a service',
      undefined,
    ],
    [
      'the removal of a service that the file keeps',
      (registry) => registry.removeService('metrics', 'admin'),
      'the service "metrics" is kept by the file; change it there',
      undefined,
    ],
    [
      'the removal of a service that is exposed',
      (registry) => registry.removeService('rabbitmq', 'file'),
      'the service "rabbitmq" cannot be removed while it is needed by the exposure of "rabbitmq" to "site-a" (kept by the file): remove these first, each where it is kept',
      undefined,
    ],
  ];

  test.each(REFUSED)(
    '%s is refused, and nothing changed',
    async (_situation, ask, message, path) => {
      const { registry, changes, store } = await open();
      await registry.apply(DESIRED, 'file');
      const before = await store.list('');
      const fault = await faultOf(ask(registry));
      expect(fault.message).toBe(message);
      expect(fault.path ?? '').toBe(path ?? '');
      expect(changes()).toBe(1);
      expect(await store.list('')).toEqual(before);
    }
  );

  test('names the first records that need a site, when there are many', async () => {
    const { registry } = await open();
    await registry.apply(DESIRED, 'file');
    await registry.putSite(SITE_C, 'admin');
    for (let i = 0; i < 4; i++) {
      const name = `camera-${i}`;
      await registry.putService({ ...CAMERA, name }, 'admin');
      await registry.expose({ service: name, site: 'cloud' }, 'admin');
    }
    for (const name of ['rabbitmq', 'metrics']) {
      await registry.expose({ service: name, site: 'site-c' }, 'admin');
    }
    const { message } = await faultOf(registry.removeSite('site-c', 'admin'));
    expect(message).toBe(
      'the site "site-c" cannot be removed while it is needed by the service "camera-0" (kept by the admin), the service "camera-1" (kept by the admin), the service "camera-2" (kept by the admin), the service "camera-3" (kept by the admin), the exposure of "rabbitmq" to "site-c" (kept by the admin) and 1 more: remove these first, each where it is kept'
    );
  });

  test('change nothing when the store fails', async () => {
    const store = new ScriptedStore();
    const registry = await Registry.open(store);
    await registry.apply(DESIRED, 'file');
    store.isFailing = true;
    await expect(registry.putSite(SITE_C, 'admin')).rejects.toThrow(StoreError);
    await expect(registry.removeSite('site-b', 'file')).rejects.toThrow(StoreError);
    expect(registry.state.sites.map(({ name }) => name)).toEqual(['cloud', 'site-a', 'site-b']);
    store.isFailing = false;
    await registry.removeSite('site-b', 'file');
    await registry.putSite(SITE_C, 'admin');
    expect(registry.state.sites.map(({ name }) => name)).toEqual(['cloud', 'site-a', 'site-c']);
  });
});

describe('the store', () => {
  test('has all records after a restart', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'registry-'));
    try {
      const path = join(directory, 'store.journal');
      const store = await FileStore.open({ path });
      const registry = await Registry.open(store);
      await registry.apply(DESIRED, 'file');
      await registry.expose({ service: 'metrics', site: 'site-b', clients: ['10.0.0.5'] }, 'admin');
      await registry.close();
      await store.close();

      const again = await FileStore.open({ path });
      const reopened = await Registry.open(again);
      expect(reopened.state).toEqual(registry.state);
      const unexpose = (owner: Owner) =>
        reopened.unexpose({ service: 'metrics', site: 'site-b' }, owner);
      await expect(unexpose('file')).rejects.toThrow('is kept by the admin');
      await unexpose('admin');
      await reopened.close();
      await again.close();
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  test('is followed when another registry writes to it', async () => {
    const { store, registry, changes } = await open();
    const other = await Registry.open(store);
    await other.apply(DESIRED, 'file');
    expect(registry.state).toEqual(other.state);
    expect(changes()).toBe(1);
    await registry.close();
    await other.expose({ service: 'metrics', site: 'site-b' }, 'admin');
    expect(registry.state.exposures).toHaveLength(1);
  });

  test('may change while it is read', async () => {
    const store = new ScriptedStore();
    const writer = await Registry.open(store);
    await writer.apply(DESIRED, 'file');
    let read!: () => void;
    store.reading = new Promise((resolve) => {
      read = resolve;
    });
    const opening = Registry.open(store);
    await writer.unexpose({ service: 'rabbitmq', site: 'site-a' }, 'file');
    await writer.expose({ service: 'metrics', site: 'site-b' }, 'admin');
    read();
    expect((await opening).state).toEqual(writer.state);
    expect(writer.state.exposures).toHaveLength(1);
  });

  test.each<[string, Json, string]>([
    ['desired/site/cloud', null, 'expected a mapping, got null'],
    ['desired/site/cloud', 'text', 'expected a mapping, got "text"'],
    ['desired/site/cloud', { owner: 'file' }, 'spec: is missing'],
    [
      'desired/site/cloud',
      { owner: 'root', spec: site('cloud') },
      'owner: expected "file" or "admin", got "root"',
    ],
    [
      'desired/site/cloud',
      { owner: 'file', spec: site('cloud', { pools: ['x'] }) },
      'spec.pools[0]: "x" is not an IP prefix',
    ],
    [
      'desired/site/cloud',
      { owner: 'file', spec: site('other') },
      'it belongs to desired/site/other',
    ],
    ['desired/services/x', {}, 'its key is not known'],
    ['desired/exposure/site-a/x', { owner: 'file', spec: {} }, 'spec.service: is missing'],
  ])('with %s: %j cannot be opened', async (key, value, reason) => {
    const store = new MemoryStore();
    await store.commit([{ key, value }]);
    const opening = Registry.open(store);
    await expect(opening).rejects.toThrow(StoreError);
    await expect(opening).rejects.toThrow(
      `${key} in the store is not a record of the desired state: ${reason}`
    );
  });

  test('is used without a record that another writer has broken at run time', async () => {
    const { store, registry } = await open();
    const problems: string[] = [];
    registry.on('problem', ({ error }) => problems.push(error.message));
    await registry.apply(DESIRED, 'file');
    await store.commit([{ key: 'desired/exposure/site-a/rabbitmq', value: 7 }]);
    expect(registry.state.exposures).toEqual([]);
    expect(problems).toEqual([
      'desired/exposure/site-a/rabbitmq in the store is not a record of the desired state: expected a mapping, got 7',
    ]);
  });

  test('is not watched any more when it cannot be read', async () => {
    const store = new ScriptedStore();
    store.isFailing = true;
    await expect(Registry.open(store)).rejects.toThrow(StoreError);
    expect(store.watchers).toBe(0);
  });
});

test.each([
  [{}, 'mq.example.org'],
  [{ dnsName: 'a.b' }, 'a.b.example.org'],
  [{ dnsName: 'A.Example.ORG' }, 'a.example.org'],
  [{ dnsName: 'example.org' }, 'example.org'],
  [{ dnsName: 'notexample.org' }, 'notexample.org.example.org'],
])('exposureName of %j is %s', (more, name) => {
  const zone = { zone: 'Example.org' } as SiteInput;
  expect(exposureName({ service: 'mq', ...more }, zone)).toBe(name);
});

class ScriptedStore extends MemoryStore {
  isFailing = false;
  watchers = 0;
  /** A list is answered when this is done, with what there was when it was asked for. */
  reading: Promise<void> | undefined;

  override async commit(writes: readonly Write[]): Promise<void> {
    if (this.isFailing) throw new StoreError('the disk is full');
    await super.commit(writes);
  }

  override async list(prefix: string) {
    if (this.isFailing) throw new StoreError('the disk is gone');
    const entries = await super.list(prefix);
    await this.reading;
    return entries;
  }

  override watch(prefix: string, listener: (changes: readonly Change[]) => void): () => void {
    const unwatch = super.watch(prefix, listener);
    this.watchers++;
    return () => {
      this.watchers--;
      unwatch();
    };
  }
}
