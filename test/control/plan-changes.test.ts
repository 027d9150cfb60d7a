/**
 * Changes of a plan that is divided: whatever they are and in whatever order they come, each translator has what it gets
 * of the plan as a whole, and the kernel has its routes. A failure prints the seed.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { IpAddress } from '../../src/base/address.ts';
import { Endpoint } from '../../src/base/endpoint.ts';
import { PortRange } from '../../src/base/port-range.ts';
import { IpPrefix } from '../../src/base/prefix.ts';
import { ELSEWHERE, PlanPartition, type RouteChange, SiteRoutes } from '../../src/control/index.ts';
import { ConfigError } from '../../src/errors.ts';
import type { Permit, PlanChanges, Presence, Realm } from '../../src/translator/index.ts';
import { runsOf, timeoutOf } from '../support/property-runs.ts';
import { PlanModel } from './plan-model.ts';

const RUNS = runsOf(60);

const SITES = ['a', 'b', 'c', 'd'];
const REALMS = ['cloud', ...SITES];
const POOLS = [
  ['10.0.0.128/25', '2001:db8::1:0/120'],
  ['10.0.0.128/26', '2001:db8::1:0/126'],
];
const HOSTS = ['10.0.0.5', '10.0.0.6', '2001:db8::5'].map((text) => IpAddress.parse(text));
/** In three blocks of IPv4 and one of IPv6, some of them in no pool of the second kind. */
const ADDRESSES = ['129', '130', '131', '145', '146', '200']
  .map((host) => `10.0.0.${host}`)
  .concat(['2001:db8::1:1', '2001:db8::1:2', '2001:db8::1:5'])
  .map((text) => IpAddress.parse(text));
const PORTS = ['tcp/80', 'udp/53', 'icmp'];

const realmIndex = fc.nat({ max: REALMS.length - 1 });
const host = fc.nat({ max: HOSTS.length - 1 });
const change = fc.oneof(
  {
    weight: 2,
    arbitrary: fc.record({
      realm: realmIndex,
      pools: fc.option(fc.nat({ max: POOLS.length - 1 }), { nil: undefined, freq: 2 }),
    }),
  },
  {
    weight: 10,
    arbitrary: fc.record({
      // Most presences are in the cloud, where they matter most.
      in: fc.oneof(fc.constant(0), realmIndex),
      address: fc.nat({ max: ADDRESSES.length - 1 }),
      of: fc.option(fc.tuple(realmIndex, host), { nil: undefined, freq: 4 }),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      clients: realmIndex,
      service: fc.tuple(realmIndex, host),
      ports: fc.array(fc.tuple(fc.subarray(PORTS, { minLength: 1 }), fc.boolean()), {
        maxLength: 2,
      }),
    }),
  }
);
const step = fc.oneof(
  { weight: 8, arbitrary: fc.array(change, { minLength: 1, maxLength: 8 }) },
  {
    weight: 1,
    arbitrary: fc.record({ move: fc.nat({ max: 3 }), to: fc.integer({ min: ELSEWHERE, max: 2 }) }),
  }
);
type Change = typeof change extends fc.Arbitrary<infer T> ? T : never;

function realmOf(name: string, pools: number): Realm {
  const prefixes = (texts: readonly string[]) => texts.map((text) => IpPrefix.parse(text));
  return {
    name,
    sources: prefixes(['10.0.0.0/24', '2001:db8::/64']),
    pools: prefixes(POOLS[pools]!),
  };
}

/** Leaves out what names a realm that is not there. */
function changesOf(model: PlanModel, all: readonly Change[]): PlanChanges {
  const realms = all.flatMap((each) => {
    if (!('pools' in each)) return [];
    const name = REALMS[each.realm]!;
    return [{ name, realm: each.pools === undefined ? undefined : realmOf(name, each.pools) }];
  });
  const last = new Map(realms.map(({ name, realm }) => [name, realm]));
  const isThere = (name: string) => model.realms.has(name) || last.get(name) !== undefined;
  return {
    realms,
    presences: all.flatMap((each) => {
      if (!('in' in each)) return [];
      const realm = REALMS[each.in]!;
      const [home, at] = each.of ?? [];
      const of = home === undefined ? undefined : new Endpoint(REALMS[home]!, HOSTS[at!]!);
      if (of !== undefined && (of.realm === realm || !isThere(realm) || !isThere(of.realm)))
        return [];
      return [{ realm, address: ADDRESSES[each.address]!, of }];
    }),
    permits: all.flatMap((each) => {
      if (!('clients' in each)) return [];
      const realm = REALMS[each.clients]!;
      const [home, at] = each.service;
      const service = new Endpoint(REALMS[home]!, HOSTS[at]!);
      if (service.realm === realm || !isThere(realm) || !isThere(service.realm)) return [];
      const permits = each.ports.map(([ports, isOpen]): Permit => {
        const clients = isOpen ? {} : { clients: [IpPrefix.parse('10.0.0.0/30')] };
        return { realm, service, ports: ports.map((text) => PortRange.parse(text)), ...clients };
      });
      return [{ realm, service, permits }];
    }),
  };
}

class Kernel {
  readonly routes = new Map<string, string>();

  readonly take = (changes: readonly RouteChange[]): void => {
    for (const { prefix, site } of changes) {
      if (site === undefined) this.routes.delete(`${prefix}`);
      else this.routes.set(`${prefix}`, site);
    }
  };
}

function divided(
  holders: ReadonlyMap<string, number>,
  onRoutes = (_: readonly RouteChange[]) => {}
) {
  const targets = [new PlanModel(), new PlanModel(), new PlanModel()];
  const partition = new PlanPartition({
    shared: 'cloud',
    targets,
    holderOf: (site) => holders.get(site)!,
    onRoutes,
  });
  return { targets, partition };
}

test(
  'changes of a divided plan give what the whole plan gives',
  () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 12 }), (steps) => {
        const holders = new Map(SITES.map((site, i) => [site, i % 3]));
        const kernel = new Kernel();
        const model = new PlanModel();
        model.apply({ realms: REALMS.map((name) => ({ name, realm: realmOf(name, 0) })) });
        const { targets, partition } = divided(holders, kernel.take);
        partition.load(model.plan);
        for (const each of steps) {
          if (Array.isArray(each)) {
            const changes = changesOf(model, each);
            model.apply(changes);
            partition.apply(changes);
            // Again, as after an answer that was lost.
            partition.apply(changes);
          } else {
            const site = SITES[each.move]!;
            holders.set(site, each.to);
            partition.moved(site)();
          }
          const whole = divided(holders);
          whole.partition.load(model.plan);
          expect(targets.map(({ text }) => text)).toEqual(whole.targets.map(({ text }) => text));
          expect(partition.routes).toEqual(whole.partition.routes);
          expect(kernel.routes).toEqual(partition.routes);
          const alone = new SiteRoutes('cloud');
          alone.load(model.plan);
          expect(partition.routes).toEqual(alone.routes);
        }
      }),
      RUNS
    );
  },
  timeoutOf(RUNS)
);

describe('a change', () => {
  /** Each site uses a service of the cloud and one of the first site, and has two clients in the cloud. */
  function cloudOf(count: number): PlanModel {
    const model = new PlanModel();
    const names = Array.from({ length: count }, (_, i) => `site-${i}`);
    const shared = new Endpoint('cloud', HOSTS[0]!);
    const first = new Endpoint('site-0', HOSTS[0]!);
    const presence = (realm: string, number: number, of: Endpoint): Presence => {
      const address = IpAddress.fromBigInt(4, BigInt(0x0a400000 + number));
      return { realm, address, of };
    };
    const pools = [IpPrefix.parse('10.64.0.0/10')];
    const sources = [IpPrefix.parse('10.0.0.0/8')];
    const ports = [PortRange.parse('tcp/80')];
    model.load({
      realms: ['cloud', ...names].map((name) => ({ name, sources, pools })),
      presences: names.flatMap((name, i) => [
        presence(name, 1, shared),
        presence('cloud', 16 * i, new Endpoint(name, HOSTS[0]!)),
        presence('cloud', 16 * i + 1, new Endpoint(name, HOSTS[1]!)),
        ...(i === 0 ? [] : [presence(name, 2, first)]),
      ]),
      permits: names.flatMap((realm, i) => [
        { realm, service: shared, ports },
        ...(i === 0 ? [] : [{ realm, service: first, ports }]),
      ]),
    });
    return model;
  }

  /** Returns how many things each change has named in all parts, and how many routes have changed. */
  function namedWith(count: number): number[][] {
    const holders = new Map(Array.from({ length: count }, (_, i) => [`site-${i}`, i % 3]));
    const routes: RouteChange[] = [];
    const { targets, partition } = divided(holders, (changes) => routes.push(...changes));
    partition.load(cloudOf(count).plan);
    const named = (changes: PlanChanges): number[] => {
      for (const target of targets) target.named = 0;
      routes.length = 0;
      partition.apply(changes);
      return [...targets.map((target) => target.named), routes.length];
    };
    const client = new Endpoint('site-4', HOSTS[1]!);
    const at = (number: number) => IpAddress.fromBigInt(4, BigInt(0x0a400000 + number));
    const service = new Endpoint('site-0', HOSTS[0]!);
    const counts = [
      named({ presences: [{ realm: 'cloud', address: at(16 * 4 + 2), of: client }] }),
      // In the block of another site.
      named({ presences: [{ realm: 'cloud', address: at(16 * 5 + 3), of: client }] }),
      named({ presences: [{ realm: 'site-4', address: at(2), of: undefined }] }),
      named({ permits: [{ realm: 'site-4', service, permits: [] }] }),
      named({ realms: [{ name: 'site-4', realm: undefined }] }),
    ];
    expect(targets.map(({ loads }) => loads)).toEqual([1, 1, 1]);
    return counts;
  }

  test('names what it touches, however many sites there are', () => {
    const few = namedWith(6);
    expect(few[0]).toEqual([0, 1, 0, 0]);
    expect(namedWith(200)).toEqual(few);
  });

  test('of an unknown realm is refused, and nothing of it is in force', () => {
    const { targets, partition } = divided(new Map([['site-0', 0]]));
    partition.load(cloudOf(1).plan);
    const before = targets.map(({ text }) => text);
    const presence = { realm: 'site-0', address: HOSTS[1]! };
    expect(() =>
      partition.apply({
        presences: [
          { ...presence, of: undefined },
          { ...presence, of: new Endpoint('site-x', HOSTS[0]!) },
        ],
      })
    ).toThrow(
      new ConfigError('presences[1].of.realm', '"site-x" is not one of the plan\'s realms')
    );
    expect(targets.map(({ text }) => text)).toEqual(before);
  });
});
