/**
 * Many changes at the same time are derived in several turns of the event loop.
 */
import { expect, test } from 'vitest';
import { NotAdmittedError } from '../../src/control/index.ts';
import { DESIRED, SITE, startScene, turn } from './scene.ts';

const COUNT = 1000;
const NAMES = Array.from({ length: COUNT }, (_, i) => `site-${i}`);
const MANY = {
  ...DESIRED,
  sites: [...DESIRED.sites, ...NAMES.map((name) => ({ name, ...SITE, zone: `${name}.test` }))],
};

test('an exposure to a thousand sites and its end take many turns, and an admission comes in between', async () => {
  const { registry, controller, translator } = await startScene(MANY);
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
