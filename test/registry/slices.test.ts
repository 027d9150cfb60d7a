/** A large change comes in slices; and the maps that do not make a pause. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { SortedMap } from '../../src/base/sorted-map.ts';
import { DESIRED, openScene, site } from './scene.ts';

test('a write waits until a large change is taken', async () => {
  const { registry, exposed } = await openScene();
  const sites = Array.from({ length: 2000 }, (_, i) => site(`edge-${i}`));
  const exposures = sites.map(({ name }) => ({ service: 'mq', site: name }));
  const touched = new Set<string>();
  registry.on('change', (keys) => {
    for (const key of keys.exposures.keys()) touched.add(key);
    // What is touched is there already.
    for (const id of keys.exposures.values()) expect(registry.exposure(id)).toBeDefined();
  });
  const applied = registry.apply(
    { ...DESIRED, sites: [...DESIRED.sites, ...sites], exposures },
    'file'
  );
  await registry.expose({ service: 'web', site: 'edge-1999' }, 'admin');
  await applied;
  expect(exposed()).toHaveLength(2001);
  expect(touched).toEqual(new Set(exposed()));
});

test('a sorted map lists what a sorted list has, and a list stays as it was', () => {
  const key = fc.constantFrom('a', 'a-b', 'a-b-c', 'aa', 'b', 'b-', 'c');
  fc.assert(
    fc.property(
      fc.array(fc.record({ key, isGone: fc.boolean(), isListed: fc.boolean() })),
      fc.constantFrom('', '/'),
      fc.constantFrom(1, 3),
      (steps, ending, parts) => {
        const map = new SortedMap<string>(ending, parts);
        const plain = new Set<string>();
        for (const step of steps) {
          const list = step.isListed ? map.keys() : [];
          const before = [...list];
          if (step.isGone) map.delete(step.key);
          else map.set(step.key, step.key);
          if (step.isGone) plain.delete(step.key);
          else plain.add(step.key);
          expect(list).toEqual(before);
        }
        const sorted = [...plain].sort((a, b) => (a + ending < b + ending ? -1 : 1));
        expect([...map.values()]).toEqual(sorted);
        expect(map.size).toBe(sorted.length);
      }
    )
  );
});
