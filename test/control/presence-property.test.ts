/**
 * Random histories of a cloud: exposures come and go, clients arrive, pools move, sites are blocked,
 * the store fails, time passes, the process restarts. What must always hold is checked after each
 * step.
 */
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { DESIRED, type Scene, startScene, turn } from './scene.ts';

const TTL_SECONDS = 30;
const QUARANTINE_MS = 60_000;
const POOLS = [
  ['10.0.0.128/25'],
  ['10.0.0.128/30'],
  ['10.0.0.192/29', '10.0.0.130/32'],
  ['10.0.0.133/32'],
];
const SITES = ['cloud', 'site-a', 'site-b'];
const SERVICES = DESIRED.services.map(({ name }) => name);

type Step =
  | { readonly do: 'expose' | 'unexpose'; readonly service: number; readonly site: number }
  | { readonly do: 'admit'; readonly site: number; readonly host: number; readonly egress: number }
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
      host: fc.nat({ max: 4 }),
      egress: site,
    }),
  },
  {
    weight: 1,
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

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
});
afterEach(() => {
  vi.useRealTimers();
});

/** What is desired, what has been blocked, and when each address was last in use, and for whom. */
class World {
  scene!: Scene;
  readonly sites = DESIRED.sites.map((each) => ({ ...each, maxClients: 3 }));
  readonly blocked = new Set<string>();
  readonly lastUse = new Map<string, { of: string; atMs: number }>();

  desired(): object {
    return { sites: this.sites, services: DESIRED.services, exposures: [] };
  }

  async start(): Promise<void> {
    const from = this.scene as Scene | undefined;
    const options = { ttlSeconds: TTL_SECONDS, quarantineMs: QUARANTINE_MS, blocked: this.blocked };
    this.scene = await startScene(this.desired(), options, from);
  }

  async take(step: Step): Promise<void> {
    const { registry, controller, store, clock } = this.scene;
    const ignore = () => {};
    switch (step.do) {
      case 'expose':
      case 'unexpose': {
        const key = { service: SERVICES[step.service]!, site: SITES[step.site]! };
        await registry[step.do](key, 'admin').catch(ignore);
        break;
      }
      case 'admit':
        await controller
          .admit(SITES[step.site]!, `10.0.0.${5 + step.host}`, SITES[step.egress]!)
          .catch(ignore);
        break;
      case 'pools':
        this.sites[step.site] = { ...this.sites[step.site]!, pools: POOLS[step.pools]! };
        await registry.apply(this.desired(), 'file');
        // What a pool no longer has is forgotten, and so is its rest.
        for (const key of this.lastUse.keys()) {
          if (key.startsWith(`${SITES[step.site]} `)) this.lastUse.delete(key);
        }
        break;
      case 'block':
        if (step.is) this.blocked.add(SITES[step.site]!);
        else this.blocked.delete(SITES[step.site]!);
        controller.setBlocked(SITES[step.site]!, step.is);
        break;
      case 'store':
        store.isFailing = step.isFailing;
        break;
      case 'wait':
        clock.nowMs += step.ms;
        vi.advanceTimersByTime(step.ms);
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

  check(): void {
    const { translator, registry, controller, clock } = this.scene;
    expect(translator.unstored).toEqual([]);
    const addresses = new Set<string>();
    const hosts = new Set<string>();
    for (const { realm, address, of } of translator.presences) {
      const key = `${realm} ${address}`;
      const holder = `${of.realm}/${of.address}`;
      expect(addresses.has(key)).toBe(false);
      addresses.add(key);
      expect(hosts.has(`${realm} ${holder}`)).toBe(false);
      hosts.add(`${realm} ${holder}`);
      expect(this.blocked.has(realm) || this.blocked.has(of.realm)).toBe(false);
      const last = this.lastUse.get(key);
      if (last !== undefined && last.of !== holder) {
        expect(clock.nowMs - last.atMs).toBeGreaterThanOrEqual(QUARANTINE_MS);
      }
      this.lastUse.set(key, { of: holder, atMs: clock.nowMs });
      // Nobody has a presence whom no exposure wants there, or lets in.
      const serviceSite = new Map(DESIRED.services.map((each) => [each.name, each.site]));
      const wanted = registry.state.exposures.some((exposure) => {
        const home = serviceSite.get(exposure.service);
        return (
          (exposure.site === realm && home === of.realm) ||
          (exposure.site === of.realm && home === realm)
        );
      });
      expect(wanted).toBe(true);
    }
    // An address that a translator no longer has may still be in use by a lease that is kept.
    for (const { realm, address, of } of controller.presences()) {
      const holder = `${of.realm}/${of.address}`;
      this.lastUse.set(`${realm} ${address}`, { of: holder, atMs: clock.nowMs });
    }
    for (const name of SITES) {
      const snapshot = controller.snapshot(name);
      expect(snapshot === undefined).toBe(this.blocked.has(name));
      for (const { address } of snapshot?.pointers ?? []) {
        expect(addresses.has(`${name} ${address}`)).toBe(true);
      }
    }
  }
}

test('no history puts an address to use that is not stored, is taken, or has not rested', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps) => {
      const world = new World();
      await world.start();
      for (const each of steps) await world.take(each);

      // Whatever went wrong on the way heals, and a restart changes nothing.
      world.scene.store.isFailing = false;
      await world.take({ do: 'wait', ms: 60_000 });
      await world.take({ do: 'wait', ms: 60_000 });
      const before = new Set(world.scene.translator.presences.map((each) => JSON.stringify(each)));
      await world.take({ do: 'restart' });
      const after = new Set(world.scene.translator.presences.map((each) => JSON.stringify(each)));
      expect(after).toEqual(before);
      await world.scene.controller.close();
    }),
    { numRuns: process.env.CI ? 1000 : 150, seed: Number(process.env.VP_SEED ?? 1) }
  );
}, 120_000);
