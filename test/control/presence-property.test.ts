/**
 * Random histories of a cloud of both IP versions: exposures come and go, clients arrive, pools move
 * and change their version, sites are suspended, the store fails, time passes, the process restarts.
 * What must always hold is checked after each step.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { runsOf, timeoutOf } from '../support/property-runs.ts';
import { DESIRED, type Desired, type Scene, startScene, turn } from './scene.ts';

/** `derivation-property.test.ts` has longer histories of more kinds. */
const RUNS = runsOf(150);
const TTL_SECONDS = 30;
const QUARANTINE_MS = 60_000;
const POOLS = [
  ['10.0.0.128/25'],
  ['10.0.0.128/30'],
  ['10.0.0.192/29', '10.0.0.130/32'],
  ['10.0.0.133/32'],
  ['10.0.0.128/25', 'fd00::/120'],
  ['fd00::/125', '10.0.0.128/30'],
  ['fd00::/125'],
];
const SITES = ['cloud', 'site-a', 'site-b'];
/** Two hosts of each IP version in the cloud, one of each in a site. */
const MIXED: Desired = {
  ...DESIRED,
  sites: DESIRED.sites.map((each, i) => ({
    ...each,
    sources: ['10.0.0.0/24', '2001:db8::/64'],
    pools: POOLS[4 + i]!,
  })),
  services: [
    ...DESIRED.services,
    { name: 'web', site: 'cloud', address: '2001:db8::5', ports: ['tcp/443'] },
    { name: 'api', site: 'cloud', address: '2001:db8::6', ports: ['tcp/8443', 'sctp/8443'] },
    { name: 'shell-a', site: 'site-a', address: '2001:db8::5', ports: ['tcp/22'] },
  ],
};
const SERVICES = MIXED.services.map(({ name }) => name);

type Step =
  | { readonly do: 'expose' | 'unexpose'; readonly service: number; readonly site: number }
  | {
      readonly do: 'admit';
      readonly site: number;
      readonly host: string;
      readonly egress: number;
      readonly families: readonly (4 | 6)[];
    }
  | { readonly do: 'pools'; readonly site: number; readonly pools: number }
  | { readonly do: 'block'; readonly site: number; readonly is: boolean }
  | { readonly do: 'store'; readonly isFailing: boolean }
  | { readonly do: 'wait'; readonly ms: number }
  | { readonly do: 'restart' };

const site = fc.nat({ max: SITES.length - 1 });
const service = fc.nat({ max: SERVICES.length - 1 });
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant('expose' as const), service, site }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('unexpose' as const), service, site }) },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant('admit' as const),
      site,
      host: fc.constantFrom('10.0.0.5', '10.0.0.7', '10.0.0.8', '2001:db8::5', '2001:db8::7'),
      egress: site,
      families: fc.constantFrom<(4 | 6)[]>([4], [6], [4, 6]),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('pools' as const),
      site,
      pools: fc.nat({ max: POOLS.length - 1 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('block' as const), site, is: fc.boolean() }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('store' as const), isFailing: fc.boolean() }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('wait' as const),
      ms: fc.constantFrom(5_000, 30_000, 60_000),
    }),
  },
  { weight: 1, arbitrary: fc.constant({ do: 'restart' as const }) }
);

/** Whatever comes then, there is a site of IPv6 that uses services of both versions. */
const FIRST_STEPS = ['rabbitmq', 'web'].map((name): Step => {
  return { do: 'expose', service: SERVICES.indexOf(name), site: SITES.indexOf('site-b') };
});

const familyOf = (text: string): 4 | 6 => (text.includes(':') ? 6 : 4);

/** What is desired, what has been suspended, and when each address was last in use, and for whom. */
class World {
  scene!: Scene;
  readonly sites = MIXED.sites.map((each) => ({ ...each, maxClients: 3 }));
  readonly suspended = new Set<string>();
  readonly lastUse = new Map<string, { of: string; atMs: number }>();

  desired(): object {
    return { sites: this.sites, services: MIXED.services, exposures: [] };
  }

  async start(): Promise<void> {
    const from = this.scene as Scene | undefined;
    const options = {
      ttlSeconds: TTL_SECONDS,
      quarantineMs: QUARANTINE_MS,
      overlapMs: 45_000,
      suspended: this.suspended,
    };
    this.scene = await startScene(this.desired(), options, from);
  }

  async take(step: Step): Promise<void> {
    const { registry, controller, store, clock, translator } = this.scene;
    const ignore = () => {};
    switch (step.do) {
      case 'expose':
      case 'unexpose': {
        const key = { service: SERVICES[step.service]!, site: SITES[step.site]! };
        await registry[step.do](key, 'admin').catch(ignore);
        break;
      }
      case 'admit': {
        const [home, realm] = [SITES[step.site]!, SITES[step.egress]!];
        const outcomes = await Promise.allSettled(
          step.families.map((family) => controller.admit(home, step.host, realm, family))
        );
        const families = translator.addressesOf(realm, home, step.host).map(familyOf);
        for (const [i, { status }] of outcomes.entries()) {
          if (status === 'fulfilled') expect(families).toContain(step.families[i]);
        }
        break;
      }
      case 'pools': {
        const before = this.sites[step.site]!;
        this.sites[step.site] = { ...before, pools: POOLS[step.pools]! };
        try {
          await registry.apply(this.desired(), 'file');
        } catch {
          // An exposure needs a pool of the version that would be gone.
          this.sites[step.site] = before;
        }
        break;
      }
      case 'block':
        if (step.is) this.suspended.add(SITES[step.site]!);
        else this.suspended.delete(SITES[step.site]!);
        controller.suspend(SITES[step.site]!, step.is);
        break;
      case 'store':
        store.isFailing = step.isFailing;
        break;
      case 'wait':
        clock.advance(step.ms);
        break;
      case 'restart': {
        const wasFailing = store.isFailing;
        store.isFailing = false;
        await this.start();
        store.isFailing = wasFailing;
        break;
      }
    }
    await turn();
    this.check();
  }

  /** IP version in which a service is to be had in a site. */
  servedFamily(site: string, service: string): 4 | 6 {
    const families = this.scene.registry.site(site)!.pools.map(({ family }) => family);
    const own = familyOf(service);
    return families.includes(own) ? own : families[0]!;
  }

  check(): void {
    const { translator, registry, controller, clock } = this.scene;
    expect(translator.unstored).toEqual([]);
    const addresses = new Set<string>();
    const hosts = new Set<string>();
    for (const { realm, address, of, formerUntil } of translator.presences) {
      const key = `${realm} ${address}`;
      const holder = `${of.realm}/${of.address}`;
      expect(addresses.has(key)).toBe(false);
      addresses.add(key);
      const host = `${realm} ${holder} ${familyOf(address)}`;
      if (formerUntil === undefined) {
        expect(hosts.has(host)).toBe(false);
        hosts.add(host);
      }
      expect(this.suspended.has(realm) || this.suspended.has(of.realm)).toBe(false);
      const last = this.lastUse.get(key);
      if (last !== undefined && last.of !== holder) {
        expect(clock.monotonicMs() - last.atMs).toBeGreaterThanOrEqual(QUARANTINE_MS);
      }
      this.lastUse.set(key, { of: holder, atMs: clock.monotonicMs() });
      // Only hosts that an exposure allows have a presence.
      const wanted = registry.state.exposures.some((exposure) => {
        const home = MIXED.services.find(({ name }) => name === exposure.service)!;
        const served = this.servedFamily(exposure.site, home.address);
        const isService =
          exposure.site === realm &&
          home.site === of.realm &&
          home.address === of.address &&
          familyOf(address) === served;
        const isClient =
          exposure.site === of.realm &&
          home.site === realm &&
          familyOf(of.address) === served &&
          familyOf(address) === familyOf(home.address);
        return isService || isClient;
      });
      expect(wanted).toBe(true);
    }
    // An address that a translator no longer has may still be in use by a lease that is kept.
    for (const { realm, address, of } of controller.presences()) {
      const holder = `${of.realm}/${of.address}`;
      this.lastUse.set(`${realm} ${address}`, { of: holder, atMs: clock.monotonicMs() });
    }
    for (const name of SITES) {
      const snapshot = controller.snapshot(name);
      expect(snapshot === undefined).toBe(this.suspended.has(name));
      for (const { address } of snapshot?.pointers ?? []) {
        expect(addresses.has(`${name} ${address}`)).toBe(true);
      }
    }
  }
}

test(
  'no history uses an address that is not stored, is taken, or is in quarantine',
  async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps) => {
        const world = new World();
        await world.start();
        for (const each of [...FIRST_STEPS, ...steps]) await world.take(each);

        // Whatever went wrong on the way heals, and a restart changes nothing.
        world.scene.store.isFailing = false;
        await world.take({ do: 'wait', ms: 60_000 });
        await world.take({ do: 'wait', ms: 60_000 });
        const before = new Set(
          world.scene.translator.presences.map((each) => JSON.stringify(each))
        );
        await world.take({ do: 'restart' });
        const after = new Set(world.scene.translator.presences.map((each) => JSON.stringify(each)));
        expect(after).toEqual(before);
        await world.scene.controller.close();
      }),
      RUNS
    );
  },
  timeoutOf(RUNS)
);
