/**
 * Versions of records, changes on the condition of a version, and lists in pages.
 */
import { expect, test, vi } from 'vitest';
import { type RecordQuery, Registry } from '../../src/registry/index.ts';
import { ShardedMap } from '../../src/registry/sharded-map.ts';
import { MemoryStore } from '../../src/store/index.ts';

const LAN = { sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'] };
const SITES = ['cloud', 'site-a', 'site-b', 'site-c'].map((name) => {
  return {
    name,
    ...LAN,
    zone: `${name}.test`,
    labels: { tier: name === 'site-c' ? 'hub' : 'edge' },
  };
});
const SERVICES = ['amqp', 'dns', 'web'].map((name, i) => {
  return { name, site: 'cloud', address: `10.0.0.${5 + i}`, ports: ['tcp/80'] };
});
const EXPOSURES = [
  { service: 'web', site: 'site-a' },
  { service: 'amqp', site: 'site-a' },
  { service: 'web', site: 'site-b', notAfter: '2001-01-01T00:00:00Z' },
  { service: 'amqp', name: 'all-amqp', siteSelector: {} },
  { service: 'dns', name: 'edge-dns', siteSelector: { tier: 'edge' } },
];
const SITE_A = { kind: 'site', name: 'site-a' } as const;

async function open(): Promise<{ store: MemoryStore; registry: Registry }> {
  const store = new MemoryStore();
  const registry = await Registry.open(store);
  await registry.apply({ sites: SITES, services: SERVICES, exposures: EXPOSURES }, 'admin');
  return { store, registry };
}

test('a version follows what a record says, and survives a restart', async () => {
  const { store, registry } = await open();
  const before = registry.record(SITE_A)!;
  expect(before).toMatchObject({ owner: 'admin', spec: { name: 'site-a' } });
  expect(before.version).toMatch(/^[\w-]{16}$/);
  const again = await Registry.open(store);
  expect(again.record(SITE_A)!.version).toBe(before.version);
  await registry.putSite({ ...SITES[1], mtu: 1400 }, 'admin');
  const after = registry.record(SITE_A)!.version;
  expect(after).not.toBe(before.version);
  await registry.putSite(SITES[1], 'admin');
  expect(registry.record(SITE_A)!.version).toBe(before.version);
  expect(registry.record({ kind: 'site', name: 'site-x' })).toBeUndefined();
});

test('a change on the condition of a version is refused once another one has come', async () => {
  const { registry } = await open();
  const { version } = registry.record(SITE_A)!;
  const change = { ...SITES[1], mtu: 1400 };
  const both = await Promise.allSettled([
    registry.putSite(change, 'admin', { expect: version }),
    registry.putSite({ ...change, mtu: 1300 }, 'admin', { expect: version }),
  ]);
  expect(both[0]!.status).toBe('fulfilled');
  expect((both[1] as PromiseRejectedResult).reason).toMatchObject({
    code: 'ERR_PRESENCE_VERSION_MISMATCH',
    message: 'site/site-a: it has been changed meanwhile; read it again',
  });
  expect(registry.site('site-a')).toMatchObject({ mtu: 1400 });

  const outdated = { expect: version };
  const code = 'ERR_PRESENCE_VERSION_MISMATCH';
  await expect(registry.removeService('web', 'admin', outdated)).rejects.toMatchObject({ code });
  await expect(registry.unexpose(EXPOSURES[0]!, 'admin', outdated)).rejects.toMatchObject({ code });
  const absent = { expect: 'absent' };
  await expect(registry.expose(EXPOSURES[0], 'admin', absent)).rejects.toMatchObject({ code });
  const added = { service: 'dns', site: 'site-c' };
  await expect(registry.expose(added, 'admin', outdated)).rejects.toMatchObject({
    message: 'exposure/site-c/dns: it is not there; read it again',
  });
  await registry.expose(added, 'admin', absent);
  const name = { kind: 'exposure', ...added } as const;
  await registry.unexpose(added, 'admin', { expect: registry.record(name)!.version });
  expect(registry.record(name)).toBeUndefined();
});

test.each<[what: string, query: Omit<RecordQuery, 'limit'>, names: string[]]>([
  ['sites', { kind: 'site' }, ['cloud', 'site-a', 'site-b', 'site-c']],
  ['services', { kind: 'service' }, ['amqp', 'dns', 'web']],
  ['services of a site', { kind: 'service', site: 'site-a' }, []],
  ['selectors', { kind: 'selector' }, ['all-amqp', 'edge-dns']],
  ['selectors of a service', { kind: 'selector', service: 'dns' }, ['edge-dns']],
  ['exposures', { kind: 'exposure' }, ['site-a/amqp', 'site-a/web', 'site-b/web']],
  ['exposures to a site', { kind: 'exposure', site: 'site-a' }, ['site-a/amqp', 'site-a/web']],
  ['exposures of a service', { kind: 'exposure', service: 'web' }, ['site-a/web', 'site-b/web']],
  ['one exposure', { kind: 'exposure', site: 'site-b', service: 'web' }, ['site-b/web']],
  ['exposures of a selector', { kind: 'exposure', service: 'dns' }, []],
  ['services of the cloud', { kind: 'service', site: 'cloud' }, ['amqp', 'dns', 'web']],
  ['exposures to no site', { kind: 'exposure', site: 'site-x' }, []],
])('%s come in pages, each once and in their order', async (_what, query, names) => {
  const { registry } = await open();
  const named = ({ spec }: { readonly spec: object }) => {
    const { name, site, service } = spec as Record<string, string>;
    return name ?? `${site}/${service}`;
  };
  for (const limit of [1, 2, 100]) {
    const all: string[] = [];
    for (let after: string | undefined; ; after = all.at(-1)) {
      const page = registry.page({ ...query, after, limit }).map(named);
      all.push(...page);
      expect(page.length).toBeLessThanOrEqual(limit);
      if (page.length < limit) break;
    }
    expect(all).toEqual(names);
  }
  expect(registry.page({ ...query, limit: 0 })).toEqual([]);
});

test('a page of one site or one service reads no other records, and makes no versions', async () => {
  const { registry } = await open();
  const more = Array.from({ length: 50 }, (_, i) => {
    return { name: `more-${i}`, site: 'site-b', address: '10.0.0.9', ports: [`tcp/${i + 1}`] };
  });
  const exposures = more.map(({ name: service }) => ({ service, site: 'site-c' }));
  const state = { sites: SITES, services: [...SERVICES, ...more] };
  await registry.apply({ ...state, exposures: [...EXPOSURES, ...exposures] }, 'admin');
  const get = vi.spyOn(ShardedMap.prototype, 'get');
  const queries = [
    { kind: 'service', site: 'cloud' },
    { kind: 'exposure', service: 'web' },
    { kind: 'exposure', service: 'web', site: 'site-b' },
  ] as const;
  try {
    for (const query of queries) {
      get.mockClear();
      const records = registry.page({ ...query, limit: 10 });
      expect(get.mock.calls.length).toBeLessThan(5);
      expect(records.length).toBeGreaterThan(0);
      for (const record of records) expect(Object.keys(record).sort()).toEqual(['owner', 'spec']);
    }
  } finally {
    get.mockRestore();
  }
});

test('a page of exposures goes on behind the name that is given, whether it is there or not', async () => {
  const { registry } = await open();
  const sites = (after: string) =>
    registry
      .page({ kind: 'exposure', service: 'web', after, limit: 10 })
      .map(({ spec }) => (spec as { readonly site: string }).site);
  expect(sites('site-a/amqp')).toEqual(['site-a', 'site-b']);
  expect(sites('site-a/web')).toEqual(['site-b']);
  expect(sites('site-aa/web')).toEqual(['site-b']);
  expect(sites('site-b/zoo')).toEqual([]);
});
