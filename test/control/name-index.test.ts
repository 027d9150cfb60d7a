/**
 * The names of the cloud by keys: after any changes they are those of its snapshot. A failure prints the seed.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { PresenceController, type Snapshot } from '../../src/control/index.ts';
import { NameIndex } from '../../src/control/name-index.ts';
import { Registry } from '../../src/registry/index.ts';
import { MemoryStore } from '../../src/store/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { runsOf, timeoutOf } from '../support/property-runs.ts';
import { turn } from './scene.ts';

const RUNS = runsOf(25);

const SITES = ['a', 'b'];
const REALMS = ['cloud', ...SITES];
const HOSTS = ['10.0.0.5', '10.0.0.6', '2001:db8::5'];
const POOLS = [['10.0.0.128/25'], ['10.0.0.128/25', '2001:db8::1:0/120'], ['2001:db8::1:0/120']];
const SOURCES = [['10.0.0.0/24', '2001:db8::/64'], ['10.0.0.0/24']];
const ZONES = ['cloud.test', 'other.test'];
/** Two services at each of two hosts, so that some share one. */
const SERVICES = REALMS.flatMap((site) => [1, 2, 3].map((i) => ({ name: `${site}-${i}`, site })));

const service = fc.nat({ max: SERVICES.length - 1 });
const step = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      expose: service,
      to: fc.constantFrom(...REALMS),
      dnsName: fc.constantFrom(undefined, undefined, 'shared'),
      clients: fc.constantFrom(undefined, ['10.0.0.5/32']),
    }),
  },
  { weight: 2, arbitrary: fc.record({ unexpose: service, from: fc.constantFrom(...REALMS) }) },
  {
    weight: 2,
    arbitrary: fc.record({ put: service, host: fc.nat({ max: 2 }), port: fc.constantFrom(80, 81) }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      admit: fc.constantFrom(...HOSTS),
      of: fc.constantFrom(...SITES),
      to: fc.constantFrom(...REALMS),
      family: fc.constantFrom<(4 | 6)[]>(4, 6),
    }),
  },
  { weight: 1, arbitrary: fc.record({ suspend: fc.constantFrom(...SITES), is: fc.boolean() }) },
  {
    weight: 1,
    arbitrary: fc.record({ zone: fc.constantFrom(...ZONES), pools: fc.nat({ max: 1 }) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      change: fc.constantFrom(...SITES),
      pools: fc.nat({ max: 2 }),
      sources: fc.constantFrom(...SOURCES),
    }),
  },
  { weight: 1, arbitrary: fc.record({ remove: service }) }
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

function site(name: string, zone = 'cloud.test', pools = 1, sources = SOURCES[0]!) {
  return { name, sources, pools: POOLS[pools]!, zone };
}

class World {
  readonly index: NameIndex;
  /** The hosts by their names, and below it the pointers by the texts of the addresses. */
  readonly hosts = new Map<string, string[]>();
  readonly pointers = new Map<string, string>();

  private constructor(
    readonly registry: Registry,
    isTransit: boolean
  ) {
    this.index = new NameIndex({ site: 'cloud', desired: registry, isTransit });
    registry.on('change', (touched) => this.index.touch(touched));
  }

  controller!: PresenceController;

  static async start(isTransit: boolean): Promise<World> {
    const store = new MemoryStore();
    const registry = await Registry.open(store);
    const services = SERVICES.map((each, i) => ({
      ...each,
      address: HOSTS[i % 2]!,
      ports: ['tcp/80'],
    }));
    const exposures = SITES.flatMap((name) => [
      { service: `${name}-1`, site: 'cloud' },
      { service: 'cloud-1', site: name },
      { service: 'cloud-3', site: name },
    ]);
    const sites = REALMS.map((name) => site(name));
    await registry.apply({ sites, services, exposures }, 'file');
    const world = new World(registry, isTransit);
    const { index } = world;
    world.controller = await PresenceController.start({
      registry,
      store,
      clock: new FakeClock(),
      ...(isTransit && { transit: 'cloud' }),
      translator: {
        load: (plan) => index.load(plan),
        apply: (changes) => index.apply(changes),
      },
    });
    return world;
  }

  async run(each: Step): Promise<void> {
    const { registry, controller } = this;
    if ('expose' in each) {
      const { expose, to, dnsName, clients } = each;
      const exposure = { service: SERVICES[expose]!.name, site: to };
      await registry.expose(
        { ...exposure, ...(dnsName && { dnsName }), ...(clients && { clients }) },
        'file'
      );
    } else if ('unexpose' in each) {
      await registry.unexpose({ service: SERVICES[each.unexpose]!.name, site: each.from }, 'file');
    } else if ('put' in each) {
      const { put, host, port } = each;
      await registry.putService(
        { ...SERVICES[put]!, address: HOSTS[host]!, ports: [`tcp/${port}`] },
        'file'
      );
    } else if ('admit' in each) {
      await controller.admit(each.of, each.admit, each.to, each.family);
    } else if ('suspend' in each) {
      controller.suspend(each.suspend, each.is);
    } else if ('change' in each) {
      const { change, pools, sources } = each;
      await registry.putSite(site(change, undefined, pools, sources), 'file');
    } else if ('remove' in each) {
      await registry.removeService(SERVICES[each.remove]!.name, 'file');
    } else {
      await registry.putSite(site('cloud', each.zone, each.pools), 'file');
    }
  }

  /** Takes over what has changed. */
  follow(): void {
    while (this.index.isBehind) this.#take(this.index.take(2));
  }

  #take(changed: ReturnType<NameIndex['take']>): void {
    if (changed === undefined) return;
    if (changed === 'everything') {
      this.hosts.clear();
      this.pointers.clear();
      return;
    }
    for (const name of changed.names) this.hosts.delete(name);
    for (const address of changed.addresses) this.pointers.delete(`${address}`);
    const { hosts, pointers } = changed;
    for (const host of hosts) {
      this.hosts.set(
        host.name,
        [...(this.hosts.get(host.name) ?? []), JSON.stringify(host)].sort()
      );
    }
    for (const { address, name } of pointers) this.pointers.set(`${address}`, name);
  }

  expectSame({ hosts, pointers }: Snapshot): void {
    expect([...this.hosts.values()].flat().sort()).toEqual(
      hosts.map((host) => JSON.stringify(host)).sort()
    );
    const named = pointers.map(({ address, name }) => [`${address}`, name] as const);
    expect(this.pointers).toEqual(new Map(named));
  }

  async close(): Promise<void> {
    await this.controller.close();
    await this.registry.close();
  }
}

test('a host that is in transit only has a name while it is a client too', async () => {
  const a = { change: 'a', sources: SOURCES[0]! };
  const cases: readonly [Step, readonly string[]][] = [
    // A host of "a" whose service is exposed to "b" alone. It is a client of "cloud-1", until that has IPv6.
    [{ expose: 4, to: 'b', dnsName: undefined, clients: undefined }, ['10-0-0-5']],
    [{ unexpose: 2, from: 'a' }, ['10-0-0-5']],
    [{ put: 0, host: 2, port: 80 }, []],
    [{ put: 0, host: 0, port: 80 }, ['10-0-0-5']],
    [{ unexpose: 0, from: 'a' }, []],
    // An IPv6 host of "a" is a client of an IPv4 service as long as that has an IPv6 address in "a".
    [{ unexpose: 3, from: 'cloud' }, []],
    [{ put: 4, host: 2, port: 80 }, []],
    [{ zone: 'cloud.test', pools: 0 }, []],
    [{ expose: 2, to: 'a', dnsName: undefined, clients: undefined }, []],
    [{ ...a, pools: 2 }, ['2001-db8--5']],
    [{ ...a, pools: 1 }, []],
  ];
  const world = await World.start(true);
  for (const [step, labels] of cases) {
    await world.run(step);
    await turn();
    world.follow();
    world.expectSame(world.controller.snapshot('cloud')!);
    const named = [...world.hosts.keys()].filter((name) => name.endsWith('.a.cloud.test'));
    expect([step, named]).toEqual([step, labels.map((label) => `${label}.a.cloud.test`)]);
  }
  await world.close();
});

test.each([false, true])(
  'the names by keys are those of the snapshot (the cloud is the transit realm: %s)',
  async (isTransit) => {
    let names = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 25 }), async (steps) => {
        const world = await World.start(isTransit);
        try {
          for (const each of steps) {
            // What is not possible is refused.
            await world.run(each).catch(() => {});
            await turn();
            world.follow();
            world.expectSame(world.controller.snapshot('cloud')!);
            names += world.hosts.size;
          }
        } finally {
          await world.close();
        }
      }),
      RUNS
    );
    // With fewer the property would not have been tested.
    expect(names).toBeGreaterThan(20 * RUNS.numRuns);
  },
  timeoutOf(RUNS)
);
