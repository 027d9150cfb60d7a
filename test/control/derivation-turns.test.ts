/**
 * Many changes at the same time are derived in several turns of the event loop, by a clock on which work takes time.
 */
import { describe, expect, test } from 'vitest';
import { NotAdmittedError } from '../../src/control/index.ts';
import { DESIRED, type Scene, SceneClock, SITE, startScene, turn } from './scene.ts';

const COUNT = 400;
const NAMES = Array.from({ length: COUNT }, (_, i) => `site-${i}`);
const MANY = {
  ...DESIRED,
  sites: [...DESIRED.sites, ...NAMES.map((name) => ({ name, ...SITE, zone: `${name}.test` }))],
};

test('an exposure to many sites and its end take many turns, and an admission comes in between', async () => {
  const clock = new SceneClock();
  const { registry, controller, translator } = await startScene(MANY, {}, { clock });
  clock.tickMs = 0.02;
  const exposures = NAMES.map((site) => ({ service: 'glance', site }));
  const all = { ...MANY, exposures: [...MANY.exposures, ...exposures] };
  await registry.apply(all, 'file');
  let isSettled = false;
  void controller.settled().then(() => {
    isSettled = true;
  });
  await controller.admit('site-a', '10.0.0.7', 'cloud', 4);
  expect(translator.addressOf('cloud', 'site-a', '10.0.0.7')).toBeDefined();
  expect(isSettled).toBe(false);
  while (!isSettled) await turn();
  const of = { realm: 'cloud', address: '10.0.0.6' };
  const present = translator.presences.filter((each) => each.of.address === of.address);
  expect(present).toHaveLength(COUNT);
  // Each turn sends what it has derived.
  const sizes = translator.changes.map(({ permits }) => permits?.length ?? 0);
  expect(Math.max(...sizes)).toBeLessThanOrEqual(128);

  // A service that moves takes all its exposures along.
  await registry.putService({ ...DESIRED.services[2]!, address: '10.0.0.9' }, 'file');
  await controller.settled();
  const moved = translator.presences.filter((each) => each.of.address === '10.0.0.9');
  expect(moved).toHaveLength(COUNT);
  await registry.apply(MANY, 'file');
  await controller.settled();
  expect(translator.presences.some((each) => each.of.address === '10.0.0.9')).toBe(false);
  expect(translator.plan.permits).toHaveLength(MANY.exposures.length);
  const refused = controller.admit('site-9', '10.0.0.7', 'cloud', 4);
  await expect(refused).rejects.toThrow(NotAdmittedError);
  expect(translator.unstored).toEqual([]);
  await controller.close();
}, 60_000);

describe('a site with many exposures', () => {
  const MANY_SERVICES = Array.from({ length: 200 }, (_, i) => ({
    name: `service-${i}`,
    site: 'cloud',
    address: `10.0.0.${i < 100 ? 10 + i : i - 90}`,
    ports: [`tcp/${1000 + i}`],
  }));
  const LARGE = { name: 'large', ...SITE, zone: 'large.test' };
  const services = [...DESIRED.services, ...MANY_SERVICES];
  const ofLarge = MANY_SERVICES.map(({ name }) => ({ service: name, site: 'large' }));
  const FULL = {
    sites: [...DESIRED.sites, LARGE],
    services,
    exposures: [...DESIRED.exposures, ...ofLarge],
  };
  const WITHOUT = { ...FULL, exposures: DESIRED.exposures };
  const GONE = { ...WITHOUT, sites: DESIRED.sites };

  async function startLarge(): Promise<Scene> {
    const scene = await startScene(FULL, {}, { clock: new SceneClock() });
    scene.translator.changes.length = 0;
    // In a slice are 30 looks at the clock.
    scene.clock.tickMs = 0.1;
    return scene;
  }

  /** Lets some turns pass, in which something is derived but not all. */
  async function begin({ translator }: Scene): Promise<void> {
    while (translator.changes.length < 3) await turn();
  }

  /** What a fresh controller on the same store would have. */
  async function expectAsFresh(scene: Scene): Promise<void> {
    const { controller, translator } = scene;
    await controller.settled();
    const permits = (plan: typeof translator.plan) =>
      plan.permits.map((each) => JSON.stringify(each)).sort();
    const before = { plan: translator.plan, snapshot: controller.snapshot('large') };
    const fresh = await startScene(null, {}, scene);
    expect(permits(fresh.translator.plan)).toEqual(permits(before.plan));
    const places = (plan: typeof translator.plan) =>
      plan.presences.map((each) => JSON.stringify(each)).sort();
    expect(places(fresh.translator.plan)).toEqual(places(before.plan));
    const view = fresh.controller.snapshot('large');
    expect(view && { ...view, revision: 0 }).toEqual(
      before.snapshot && { ...before.snapshot, revision: 0 }
    );
    expect(translator.unstored).toEqual([]);
    await fresh.controller.close();
  }

  test('goes in many turns; suspended meanwhile, it is out of the plan at once', async () => {
    const scene = await startLarge();
    const { registry, controller, translator } = scene;
    await registry.unexpose({ service: 'service-0', site: 'large' }, 'file');
    const applied = registry.apply(WITHOUT, 'file');
    await begin(scene);
    controller.suspend('large', true);
    expect(translator.plan.realms.map(({ name }) => name)).not.toContain('large');
    expect(translator.presences.some(({ realm }) => realm === 'large')).toBe(false);
    await applied;
    await controller.settled();
    const sizes = translator.changes.map(({ permits = [] }) => permits.length);
    expect(sizes.filter((size) => size > 0).length).toBeGreaterThan(2);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(32);
    controller.suspend('large', false);
    await expectAsFresh(scene);
  });

  test('that comes back while it goes has all that it had', async () => {
    const scene = await startLarge();
    const { registry } = scene;
    const gone = registry.apply(GONE, 'file');
    while (scene.translator.changes.length === 0) await turn();
    const back = registry.apply(FULL, 'file');
    await gone;
    await back;
    await scene.controller.settled();
    expect(scene.controller.snapshot('large')!.hosts).toHaveLength(ofLarge.length);
    await expectAsFresh(scene);
  });

  test('is renamed while a service of it moves: both are in force', async () => {
    const scene = await startLarge();
    const { registry, controller, translator } = scene;
    const moved = MANY_SERVICES.map((each) => ({ ...each, address: '10.0.0.127' }));
    const applied = registry.apply({ ...FULL, services: [...DESIRED.services, ...moved] }, 'file');
    await begin(scene);
    await registry.putSite({ ...LARGE, zone: 'renamed.test' }, 'file');
    const seen = new Set<string>();
    const look = (): void => {
      const { zone, hosts } = controller.snapshot('large')!;
      seen.add(zone);
      // No snapshot has names of another zone.
      expect(hosts.filter(({ name }) => !name.endsWith(`.${zone}`))).toEqual([]);
    };
    for (look(); !seen.has('renamed.test'); look()) await turn();
    await applied;
    await controller.settled();
    expect(translator.presences.filter(({ realm }) => realm === 'large')).toHaveLength(1);
    await expectAsFresh(scene);
  });

  test('whose commit fails in the middle is stored later', async () => {
    const scene = await startLarge();
    const { registry, controller, store, clock, problems } = scene;
    await registry.apply(WITHOUT, 'file');
    await controller.settled();
    const applied = registry.apply(FULL, 'file');
    scene.translator.changes.length = 0;
    await begin(scene);
    store.isFailing = true;
    await applied;
    await controller.settled();
    expect(problems).toContain('the disk is full');
    store.isFailing = false;
    await clock.pass(60_000);
    await controller.settled();
    expect(controller.snapshot('large')!.hosts).toHaveLength(ofLarge.length);
    await expectAsFresh(scene);
  });

  test('is not derived further after close, and wholly after a restart', async () => {
    const scene = await startLarge();
    const { registry, controller, translator } = scene;
    await registry.apply(WITHOUT, 'file');
    await begin(scene);
    await controller.close();
    const { length } = translator.changes;
    for (let left = 20; left > 0; left--) await turn();
    expect(translator.changes).toHaveLength(length);
    const fresh = await startScene(null, {}, scene);
    expect(fresh.translator.plan.permits).toHaveLength(DESIRED.exposures.length);
    expect(fresh.controller.snapshot('large')!.hosts).toEqual([]);
    await fresh.controller.close();
  });

  test('sends nothing to the translator when its labels change', async () => {
    const { registry, controller, translator } = await startLarge();
    for (const site of [LARGE, FULL.sites[0]!]) {
      await registry.putSite({ ...site, labels: { tier: 'gold' } }, 'file');
    }
    await controller.settled();
    expect(translator.changes).toEqual([]);
    await controller.close();
  });
});
