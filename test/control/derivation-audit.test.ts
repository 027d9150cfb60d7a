/**
 * The audit in the background finds what differs, says so, and has it put right; it takes its time in slices.
 */
import { describe, expect, test } from 'vitest';
import { DerivationError, PresenceController } from '../../src/control/index.ts';
import type { Registry } from '../../src/registry/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { DESIRED, type Scene, SITE, startScene, turn } from './scene.ts';
import { SourceDouble } from './source-double.ts';

const ROUND_MS = 60_000;
const LOST =
  'what is in force for "site-b" differs from its records and leases (the exposure of "glance" is not in force)';

/** Makes a change of which nobody hears. */
async function losing(registry: Registry, change: () => Promise<unknown>): Promise<void> {
  const listeners = registry.listeners('change');
  registry.removeAllListeners('change');
  await change();
  for (const each of listeners) registry.on('change', each);
}

const ofSite = ({ translator }: Scene, site: string): string[] =>
  translator.presences.filter(({ realm }) => realm === site).map(({ of }) => of.address);

describe('the audit of a controller', () => {
  test('finds nothing, and ends with the controller', async () => {
    const scene = await startScene();
    await scene.clock.pass(3 * ROUND_MS);
    expect(scene.problems).toEqual([]);
    expect(scene.controller.audited).toEqual({ checkedSites: 9, differences: 0, repairs: 0 });
    expect(scene.translator.loads).toBe(1);
    await scene.controller.close();
    expect(scene.clock.delays).toEqual([]);
  });

  test('finds a change that was lost, and everything is derived anew', async () => {
    const scene = await startScene();
    const { registry, controller, clock, translator, problems } = scene;
    await controller.admit('site-a', '10.0.0.7', 'cloud', 4);
    const client = translator.addressOf('cloud', 'site-a', '10.0.0.7');
    await losing(registry, () => registry.expose({ service: 'glance', site: 'site-b' }, 'admin'));
    expect(ofSite(scene, 'site-b')).toEqual(['10.0.0.5']);
    const errors: Error[] = [];
    controller.on('problem', ({ error }) => errors.push(error));
    await clock.pass(ROUND_MS);
    expect(problems).toEqual([`${LOST}: everything is derived anew`]);
    expect(errors[0]).toBeInstanceOf(DerivationError);
    expect(ofSite(scene, 'site-b').sort()).toEqual(['10.0.0.5', '10.0.0.6']);
    expect(controller.snapshot('site-b')!.hosts).toHaveLength(2);
    expect(translator.loads).toBe(2);
    expect(translator.unstored).toEqual([]);
    // What was right is as it was, and everything goes on.
    expect(translator.addressOf('cloud', 'site-a', '10.0.0.7')).toBe(client);
    await controller.admit('site-b', '10.0.0.8', 'cloud', 4);
    await registry.expose({ service: 'glance', site: 'site-a' }, 'admin');
    await controller.settled();
    expect(ofSite(scene, 'site-a').sort()).toEqual(['10.0.0.5', '10.0.0.6']);
    await clock.pass(2 * ROUND_MS);
    expect(problems).toHaveLength(1);
    expect(controller.audited).toMatchObject({ differences: 1, repairs: 1 });
    await controller.close();
  });

  test('leaves in force what is, until everything is derived anew in slices', async () => {
    const more = Array.from({ length: 40 }, (_, i) => ({
      ...SITE,
      name: `site-${i}`,
      zone: `${i}.test`,
    }));
    const scene = await startScene({ ...DESIRED, sites: [...DESIRED.sites, ...more] });
    const { registry, controller, clock, translator } = scene;
    await losing(registry, () => registry.expose({ service: 'glance', site: 'site-b' }, 'admin'));
    const hostsOf = (site: string) => controller.snapshot(site)?.hosts.length;
    const meanwhile: unknown[] = [];
    controller.on('problem', () =>
      setImmediate(() => {
        controller.suspend('site-0', true);
        meanwhile.push([translator.loads, hostsOf('site-a'), hostsOf('site-b'), hostsOf('site-0')]);
      })
    );
    clock.tickMs = 1;
    await clock.pass(ROUND_MS);
    expect(meanwhile).toEqual([[1, 2, 1, undefined]]);
    for (let left = 100; left > 0 && translator.loads === 1; left--) await turn();
    expect(translator.loads).toBe(2);
    expect([hostsOf('site-a'), hostsOf('site-b')]).toEqual([2, 2]);
    expect(translator.plan.realms.map(({ name }) => name)).not.toContain('site-0');
    await controller.close();
  });

  test('derives anew every ten minutes at most', async () => {
    const { registry, controller, clock, translator, problems } = await startScene();
    const lose = (site: string) =>
      losing(registry, () => registry.expose({ service: 'glance', site }, 'admin'));
    await lose('site-b');
    await clock.pass(ROUND_MS);
    await lose('site-a');
    await clock.pass(9 * ROUND_MS);
    expect(problems).toHaveLength(2);
    expect(problems[1]).toContain('soon after everything was derived anew');
    expect(translator.loads).toBe(2);
    await clock.pass(2 * ROUND_MS);
    expect(problems).toHaveLength(3);
    expect(translator.loads).toBe(3);
    expect(translator.addressOf('site-a', 'cloud', '10.0.0.6')).toBeDefined();
    await controller.close();
  });

  test('finds that the store has lost a lease, and leases an address again', async () => {
    const { store, controller, clock, translator, problems } = await startScene();
    const address = translator.addressOf('site-b', 'cloud', '10.0.0.5');
    await store.commit([{ key: `lease/site-b/${address}`, value: undefined }]);
    await clock.pass(ROUND_MS);
    expect(problems).toEqual([expect.stringContaining('the store does not have the lease')]);
    const again = translator.addressOf('site-b', 'cloud', '10.0.0.5');
    expect([...store.leases.keys()]).toContain(`lease/site-b/${again}`);
    expect(translator.unstored).toEqual([]);
    await controller.close();
  });

  test('tries again when it cannot be put right, as the store cannot be written', async () => {
    const { store, registry, controller, clock, translator, problems } = await startScene();
    await losing(registry, () => registry.expose({ service: 'glance', site: 'site-b' }, 'admin'));
    store.isFailing = true;
    await clock.pass(ROUND_MS);
    expect(problems.slice(0, 2)).toEqual([expect.stringContaining(LOST), 'the disk is full']);
    store.isFailing = false;
    await clock.pass(ROUND_MS);
    expect(translator.addressOf('site-b', 'cloud', '10.0.0.6')).toBeDefined();
    expect(translator.unstored).toEqual([]);
    await controller.close();
  });

  test('waits for what is not derived', async () => {
    const { store, registry, controller, clock, problems } = await startScene();
    const open = store.hold();
    await registry.expose({ service: 'glance', site: 'site-b' }, 'admin');
    await clock.pass(2 * ROUND_MS);
    expect(problems).toEqual([]);
    open();
    await clock.pass(ROUND_MS);
    expect(problems).toEqual([]);
    expect(controller.audited.differences).toBe(0);
    await controller.close();
  });

  test('can be switched off', async () => {
    const { controller, clock } = await startScene(DESIRED, { auditMs: Number.POSITIVE_INFINITY });
    await clock.pass(10 * ROUND_MS);
    expect(controller.audited.checkedSites).toBe(0);
    await controller.close();
  });
});

/** A clock on which each record that is read takes 2 µs. It notes how long turns of the event loop take, in ms. */
class ReadingClock extends FakeClock {
  readonly source: SourceDouble = new SourceDouble();
  readonly turnsMs: number[] = [];
  #sinceMs = 0;

  override monotonicMs(): number {
    return super.monotonicMs() + this.source.reads / 500;
  }

  override after(delayMs: number, callback: () => void): () => void {
    this.turnsMs.push(this.monotonicMs() - this.#sinceMs);
    return super.after(delayMs, () => {
      this.#sinceMs = this.monotonicMs();
      callback();
    });
  }
}

test('a large site is compared in many turns of the event loop, none above 4 ms', async () => {
  const { registry, store } = await startScene({ ...DESIRED, exposures: [] });
  const clock = new ReadingClock();
  const { source } = clock;
  const services = Array.from({ length: 1000 }, (_, i) => ({
    ...registry.service('glance')!,
    name: `service-${i}`,
  }));
  const exposures = services.map(({ name }) => ({ service: name, site: 'site-a' }));
  source.put([...registry.sites()], services, exposures);
  const target = { load: () => {}, apply: () => {} };
  const options = { registry: source.registry, store, translator: target, clock };
  const controller = await PresenceController.start(options);
  expect(controller.snapshot('site-a')!.hosts).toHaveLength(1000);
  clock.advance(1000);
  clock.turnsMs.length = 0;
  clock.advance(ROUND_MS - 1000);
  for (let i = 0; i < 1000 && clock.turnsMs.length < 5; i++) {
    await turn();
    clock.advance(0);
  }
  expect(clock.turnsMs.length).toBe(5);
  expect(Math.max(...clock.turnsMs)).toBeLessThan(4);
  await controller.close();
});
