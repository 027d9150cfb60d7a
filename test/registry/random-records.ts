/**
 * Random records of a few sites, services and selectors, which often do not fit together.
 * @module
 */
import fc from 'fast-check';
import { type DesiredState, Registry } from '../../src/registry/index.ts';
import { type Json, MemoryStore } from '../../src/store/index.ts';
import type { FakeClock } from '../support/fake-clock.ts';

export const START_MS: number = Date.parse('2026-01-01T00:00:00Z');

export type Value = Readonly<Record<string, Json>>;

export const SITE_NAMES: readonly string[] = ['cloud', 'a', 'a-b', 'c'];
export const SERVICE_NAMES: readonly string[] = ['mq', 'web', 'web-2', 'api'];
const SELECTOR_NAMES = ['one', 'two', 'three'];

/** What each history begins with. */
export const FIRST: { readonly sites: readonly Value[]; readonly services: readonly Value[] } = {
  sites: SITE_NAMES.map((name, i) => ({
    name,
    sources: ['10.0.0.0/24', '2001:db8::/64'],
    pools: ['10.0.0.128/25', 'fd00::/120'],
    zone: 'x.test',
    labels: i < 2 ? {} : { tier: 'edge' },
  })),
  services: SERVICE_NAMES.map((name, i) => ({
    name,
    site: i === 3 ? 'a' : 'cloud',
    address: ['10.0.0.5', '10.0.0.6', '2001:db8::5', '10.0.0.5'][i]!,
    ports: ['tcp/1'],
  })),
};

const site = fc.record(
  {
    name: fc.constantFrom(...SITE_NAMES),
    sources: fc.constant(['10.0.0.0/24', '2001:db8::/64']),
    pools: fc.constantFrom(
      ['10.0.0.128/25', 'fd00::/120'],
      ['10.0.0.128/25'],
      ['fd00::/120'],
      ['10.0.0.128/26', '10.0.0.192/26']
    ),
    reserved: fc.constantFrom([], ['10.0.0.130']),
    zone: fc.constantFrom('x.test', 'X.test', 'b.x.test'),
    maxNames: fc.constantFrom(1, 2, 5, 5, 5),
    labels: fc.constantFrom({}, { tier: 'edge' }, { tier: 'edge', country: 'de' }, { tier: 'lab' }),
  },
  { requiredKeys: ['name', 'sources', 'pools', 'zone'] }
);
const service = fc.record({
  name: fc.constantFrom(...SERVICE_NAMES),
  site: fc.constantFrom('cloud', 'cloud', 'a', 'c'),
  address: fc.constantFrom('10.0.0.5', '10.0.0.5', '10.0.0.6', '2001:db8::5', '10.0.0.200'),
  ports: fc.constant(['tcp/1']),
});
const time = fc.integer({ min: -3, max: 9 }).map((minutes) => {
  return new Date(START_MS + minutes * 60_000).toISOString();
});
const label = fc.constantFrom('mq', 'web', 'WWW', 'www.x.test', 'x.test', 'deep.mq', '_a.mq', 'ns');
const binding = fc.record({ prefix: fc.constantFrom('_a', '_a._b') }, { requiredKeys: [] });
const terms = {
  service: fc.constantFrom(...SERVICE_NAMES),
  dnsName: label,
  clients: fc.constant(['10.0.0.7']),
  address: fc.constantFrom('10.0.0.129', '10.0.0.130', 'fd00::9', '10.9.9.9'),
  aliases: fc.array(label, { maxLength: 2 }),
  wildcard: fc.boolean(),
  https: fc.array(binding, { maxLength: 2 }),
  svcb: fc.array(binding, { maxLength: 1 }),
  notBefore: time,
  notAfter: time,
};
const exposure = fc.oneof(
  fc.record({ service: terms.service, site: fc.constantFrom(...SITE_NAMES) }),
  fc.record(
    {
      service: terms.service,
      site: fc.constantFrom(...SITE_NAMES),
      dnsName: label,
      aliases: fc.array(label, { maxLength: 1 }),
      address: terms.address,
    },
    { requiredKeys: ['service', 'site'] }
  ),
  fc.record(
    { ...terms, site: fc.constantFrom(...SITE_NAMES) },
    { requiredKeys: ['service', 'site'] }
  ),
  fc.record(
    {
      ...terms,
      name: fc.constantFrom(...SELECTOR_NAMES),
      siteSelector: fc.constantFrom({}, { tier: 'edge' }, { country: 'de', tier: 'edge' }),
    },
    { requiredKeys: ['service', 'name', 'siteSelector'] }
  )
);

export const value: fc.Arbitrary<Value> = fc.oneof(
  { weight: 2, arbitrary: site },
  { weight: 2, arbitrary: service },
  { weight: 5, arbitrary: exposure }
) as fc.Arbitrary<Value>;

/** Returns the key of a record in the store. */
export function keyOf(value: Value): string {
  if (value.siteSelector !== undefined) return `desired/selector/${value.name}`;
  if (value.zone !== undefined) return `desired/site/${value.name}`;
  if (value.ports !== undefined) return `desired/service/${value.name}`;
  return `desired/exposure/${value.site}/${value.service}`;
}

/** Returns a desired state with these records. */
export function grouped(values: readonly Value[]): Readonly<Record<string, readonly Value[]>> {
  return {
    sites: values.filter((each) => each.zone !== undefined),
    services: values.filter((each) => each.ports !== undefined),
    exposures: values.filter((each) => each.service !== undefined),
  };
}

/** Returns the state that these records make. */
export async function stateOf(
  records: ReadonlyMap<string, Json>,
  clock: FakeClock
): Promise<DesiredState> {
  const store = new MemoryStore();
  await store.commit([...records].map(([key, value]) => ({ key, value })));
  await using registry = await Registry.open(store, { clock });
  return registry.state;
}
