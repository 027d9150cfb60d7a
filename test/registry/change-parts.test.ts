/**
 * Large changes on a store that takes few writes at once: the state after each commit is one that a machine may open
 * and that fits together, also if another machine changes the state in between.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ConfigError, ConflictError, NotFoundError, StoreError } from '../../src/errors.ts';
import { Registry } from '../../src/registry/index.ts';
import { type Json, MemoryStore, type Write } from '../../src/store/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { runsOf, timeoutOf } from '../support/property-runs.ts';
import { fits } from './naive-fit.ts';
import {
  FIRST,
  grouped,
  keyOf,
  SERVICE_NAMES,
  SITE_NAMES,
  START_MS,
  stateOf,
  type Value,
} from './random-records.ts';
import { service, site } from './scene.ts';

const RUNS = runsOf(8);

/** Records of which many fit together, and that take the same few names and addresses. */
const dense = fc.oneof(
  fc.record({
    name: fc.constantFrom(...SITE_NAMES),
    sources: fc.constant(['10.0.0.0/24', '2001:db8::/64']),
    pools: fc.constantFrom(['10.0.0.128/25', 'fd00::/120'], ['10.0.0.128/25']),
    zone: fc.constantFrom('x.test', 'b.x.test'),
    maxNames: fc.constantFrom(3, 4, 5),
    labels: fc.constantFrom({}, { tier: 'edge' }),
  }),
  fc.record({
    name: fc.constantFrom(...SERVICE_NAMES),
    site: fc.constantFrom('cloud', 'a', 'c'),
    address: fc.constantFrom('10.0.0.5', '10.0.0.6', '2001:db8::5'),
    ports: fc.constant(['tcp/1']),
  }),
  {
    weight: 4,
    arbitrary: fc.record(
      {
        service: fc.constantFrom(...SERVICE_NAMES),
        site: fc.constantFrom(...SITE_NAMES),
        dnsName: fc.constantFrom(...SERVICE_NAMES),
        address: fc.constantFrom('10.0.0.129', '10.0.0.130'),
        aliases: fc.constantFrom(['n0'], ['n1'], ['n0', 'n1']),
      },
      { requiredKeys: ['service', 'site', 'dnsName'] }
    ),
  },
  fc.record({
    service: fc.constantFrom(...SERVICE_NAMES),
    name: fc.constantFrom('one', 'two', 'three'),
    siteSelector: fc.constantFrom({}, { tier: 'edge' }),
    dnsName: fc.constantFrom(...SERVICE_NAMES),
  })
) as fc.Arbitrary<Value>;

/** A store of several machines: it takes few writes at once. */
class NarrowStore extends MemoryStore {
  readonly maxWrites: number;
  /** The keys of records that each commit has written, `-` before those that it has deleted. */
  readonly commits: string[][] = [];
  /** Called before each commit of the first machine. */
  beforeCommit: () => Promise<void> = async () => {};
  /** Called after each commit. */
  afterCommit: () => Promise<void> = async () => {};

  constructor(maxWrites: number) {
    super();
    this.maxWrites = maxWrites;
  }

  override async commit(writes: readonly Write[]): Promise<void> {
    if (writes.length > this.maxWrites) throw new StoreError(`${writes.length} writes at once`);
    await this.beforeCommit();
    await super.commit(writes);
    const records = writes.filter(({ key }) => key.startsWith('desired/'));
    this.commits.push(records.map((each) => (each.value === undefined ? '-' : '') + each.key));
    await this.afterCommit();
  }
}

async function recordsIn(store: MemoryStore): Promise<Map<string, Json>> {
  return new Map((await store.list('desired/')).map(({ key, value }) => [key, value]));
}

/** Returns the records of `first` with those of `values` that fit to them, one after the other. */
async function fittingRecords(
  values: readonly Value[],
  clock: FakeClock
): Promise<ReadonlyMap<string, Value>> {
  let records = new Map([...FIRST.sites, ...FIRST.services].map((each) => [keyOf(each), each]));
  for (const each of values) {
    const next = new Map(records).set(keyOf(each), each);
    const stored = [...next].map(([key, spec]) => [key, { owner: 'file', spec }] as const);
    if (fits(await stateOf(new Map(stored), clock))) records = next;
  }
  return records;
}

describe('a change in parts', () => {
  test('leaves a state that fits after each part', { timeout: timeoutOf(RUNS) }, async () => {
    let divided = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(dense, { minLength: 30, maxLength: 60, size: 'max' }), {
          minLength: 2,
          maxLength: 3,
        }),
        fc.integer({ min: 3, max: 6 }),
        fc.array(fc.option(dense, { freq: 4 }), { maxLength: 30 }),
        async (states, maxWrites, others) => {
          const clock = new FakeClock({ wallMs: START_MS });
          const store = new NarrowStore(maxWrites);
          await using here = await Registry.open(store, { clock });
          await using there = await Registry.open(store, { clock });
          const misfits: unknown[] = [];
          store.afterCommit = async () => {
            await using fresh = await Registry.open(store, { clock });
            if (!fits(fresh.state)) misfits.push(JSON.parse(JSON.stringify(fresh.state)));
          };
          let isOther = false;
          store.beforeCommit = async () => {
            const other = others.pop();
            if (isOther || other === null || other === undefined) return;
            isOther = true;
            await put(there, other).catch(expectRefusal);
            isOther = false;
          };
          for (const values of states) {
            const records = await fittingRecords(values, clock);
            const before = store.commits.length;
            try {
              await here.apply(grouped([...records.values()]), 'file');
            } catch (error) {
              // The other machine may have stored something to which this does not fit.
              if (error instanceof ConfigError) continue;
              if (!(error instanceof ConflictError)) throw error;
              // With so few writes at once, some changes cannot be divided; what is stored fits all the same.
              continue;
            }
            if (store.commits.length - before > 1) divided++;
            const stored = await recordsIn(store);
            const own = [...stored].filter(([, it]) => (it as { owner: string }).owner === 'file');
            expect(own.map(([key]) => key).sort()).toEqual([...records.keys()].sort());
          }
          expect(misfits).toEqual([]);
        }
      ),
      RUNS
    );

    expect(divided).toBeGreaterThan(0);
  });

  const CLOUD = site('cloud', { labels: {} });
  const SITES = ['a', 'b'].map((name) => site(name));
  const names = (count: number) => Array.from({ length: count }, (_, i) => `s${i}`);
  const services = names(8).map((name, i) => service(name, { address: `10.0.0.${i + 1}` }));
  const exposed = (of: (name: string, i: number) => object) =>
    names(8).map((name, i) => ({ service: name, site: 'a', ...of(name, i) }));

  test('deletes first, exposures before all else, and sites last', async () => {
    const store = new NarrowStore(4);
    await using registry = await Registry.open(store);
    const sites = [CLOUD, ...SITES];
    await registry.apply({ sites, services, exposures: exposed(() => ({})) }, 'file');
    store.commits.length = 0;
    const exposures = [{ service: 's0', site: 'a', dnsName: 'other' }];
    await registry.apply({ sites: [CLOUD, SITES[0]], services, exposures }, 'file');
    expect(store.commits).toEqual([
      ['-desired/exposure/a/s1', '-desired/exposure/a/s2', '-desired/exposure/a/s3'],
      ['-desired/exposure/a/s4', '-desired/exposure/a/s5', '-desired/exposure/a/s6'],
      ['-desired/exposure/a/s7', 'desired/exposure/a/s0', '-desired/site/b'],
    ]);
  });

  test('deletes an exposure before another one takes its name', async () => {
    const store = new NarrowStore(4);
    await using registry = await Registry.open(store);
    const sites = [CLOUD, ...SITES];
    const named = (shift: number) => exposed((_, i) => ({ dnsName: `n${(i + shift) % 8}` }));
    await registry.apply({ sites, services, exposures: named(0) }, 'file');
    store.commits.length = 0;
    await registry.apply({ sites, services, exposures: named(1) }, 'file');
    expect(store.commits.flat().filter((key) => key.startsWith('-'))).toHaveLength(8);
    const dnsNames = [...registry.exposuresTo('a')].map(({ dnsName }) => dnsName);
    expect(dnsNames).toEqual(['n1', 'n2', 'n3', 'n4', 'n5', 'n6', 'n7', 'n0']);
  });

  test('does not delete an exposure that only changes', async () => {
    const store = new NarrowStore(4);
    await using registry = await Registry.open(store);
    const sites = [CLOUD, ...SITES];
    await registry.apply({ sites, services, exposures: exposed(() => ({})) }, 'file');
    store.commits.length = 0;
    const exposures = exposed(() => ({ clients: ['10.0.0.7'] }));
    await registry.apply({ sites, services, exposures }, 'file');
    expect(store.commits).toHaveLength(3);
    expect(store.commits.flat().filter((key) => key.startsWith('-'))).toEqual([]);
  });

  test('is refused with what to do if it cannot be divided, and what was stored stays', async () => {
    const store = new NarrowStore(4);
    await using registry = await Registry.open(store);
    await registry.apply({ sites: [CLOUD, ...SITES], services }, 'file');
    const moved = {
      sites: [site('cloud', { sources: ['10.1.0.0/24'] }), ...SITES],
      services: names(8).map((name, i) => service(name, { address: `10.1.0.${i + 1}` })),
    };
    const refused = registry.apply(moved, 'file');
    await expect(refused).rejects.toThrow(ConflictError);
    await expect(refused).rejects.toThrow('both their old and their new sources');
    const both = site('cloud', { sources: ['10.0.0.0/24', '10.1.0.0/24'] });
    await registry.apply({ sites: [both, ...SITES], services: moved.services }, 'file');
    await registry.apply(moved, 'file');
    expect([...registry.services()].every(({ address }) => `${address}`.startsWith('10.1.'))).toBe(
      true
    );
  });

  test('does not overwrite what another owner adds on another machine in between', async () => {
    const store = new NarrowStore(4);
    await using registry = await Registry.open(store);
    await using there = await Registry.open(store);
    let isOther = false;
    store.afterCommit = async () => {
      if (isOther || there.service('s7') !== undefined || there.site('cloud') === undefined) return;
      isOther = true;
      await there.putService(services[7], 'admin');
    };
    const applied = registry.apply({ sites: [CLOUD, ...SITES], services }, 'file');
    await expect(applied).rejects.toThrow('the service "s7" is kept by the admin already');
    expect(store.commits.flat().filter((key) => key.endsWith('s7'))).toHaveLength(1);
  });

  test('goes on where it was interrupted', async () => {
    const store = new NarrowStore(4);
    await using registry = await Registry.open(store);
    const desired = { sites: [CLOUD, ...SITES], services, exposures: exposed(() => ({})) };
    let commits = 0;
    store.beforeCommit = async () => {
      if (++commits === 3) throw new StoreError('the disk is full');
    };
    await expect(registry.apply(desired, 'file')).rejects.toThrow('the disk is full');
    expect(store.commits).toHaveLength(2);
    await registry.apply(desired, 'file');
    expect([...registry.exposures()]).toHaveLength(8);
    expect(store.commits.flat()).toHaveLength(1 + SITES.length + services.length + 8);
  });
});

function put(registry: Registry, each: Value): Promise<unknown> {
  if (each.zone !== undefined) return registry.putSite(each, 'admin');
  if (each.ports !== undefined) return registry.putService(each, 'admin');
  return registry.expose(each, 'admin');
}

function expectRefusal(error: Error): void {
  if (error instanceof ConfigError || error instanceof ConflictError) return;
  if (!(error instanceof NotFoundError)) throw error;
}
