/**
 * The shares of a pool as the controller keeps them, and the warnings before anybody is refused.
 */
import { describe, expect, test, vi } from 'vitest';
import { AddressAllocator } from '../../src/allocator/index.ts';
import type { PoolWarning } from '../../src/control/index.ts';
import { AllocatorError } from '../../src/errors.ts';
import type { SiteInput } from '../../src/registry/index.ts';
import { DESIRED, type Scene, type SceneOptions, startScene, turn } from './scene.ts';

/** Hosts outside of the pools. */
const HOSTS = Array.from({ length: 120 }, (_, i) => `10.0.0.${i + 1}`);

const withSites = (more: Partial<SiteInput>, extra: readonly string[] = []) => ({
  ...DESIRED,
  sites: [
    ...DESIRED.sites.map((site) => (site.name === 'cloud' ? { ...site, ...more } : site)),
    ...extra.map((name) => ({ ...DESIRED.sites[2]!, name, zone: `${name}.test` })),
  ],
  exposures: [...DESIRED.exposures, ...extra.map((site) => ({ service: 'rabbitmq', site }))],
});

async function scenario(more: Partial<SiteInput> = {}, options: SceneOptions = {}) {
  const scene = await startScene(withSites(more), options);
  const warnings: PoolWarning[] = [];
  scene.controller.on('warning', (warning) => warnings.push(warning));
  return { ...scene, warnings };
}

/** Has all hosts of a site ask for a presence in the cloud. Returns how many got one. */
async function admitAll({ controller }: Pick<Scene, 'controller'>, site: string, hosts = HOSTS) {
  const outcomes = await Promise.allSettled(
    hosts.map((host) => controller.admit(site, host, 'cloud', 4))
  );
  for (const outcome of outcomes) {
    if (outcome.status === 'rejected') expect(outcome.reason).toBeInstanceOf(AllocatorError);
  }
  return outcomes.filter(({ status }) => status === 'fulfilled').length;
}

describe('a site that takes all addresses that it can', () => {
  test('leaves the others, services and two sites that come later what they need', async () => {
    const scene = await scenario();
    const { registry, controller, translator } = scene;
    const taken = await admitAll(scene, 'site-a');
    expect(taken).toBe(61);
    const refused = controller.admit('site-a', '10.0.0.127', 'cloud', 4);
    await expect(refused).rejects.toThrow(
      '"site-a" has 60 IPv4 addresses in "cloud", all that the shares of other sites and the reserve for services leave to it'
    );
    expect(await admitAll(scene, 'site-b')).toBeGreaterThanOrEqual(18);
    // A service of site-b is exposed to the cloud.
    const services = Array.from({ length: 10 }, (_, i) => ({
      name: `camera-${i}`,
      site: 'site-b',
      address: `10.0.0.${i + 1}`,
      ports: ['udp/9000'],
    }));
    const later = withSites({}, ['site-c', 'site-d']);
    const exposures = services.map(({ name }) => ({ service: name, site: 'cloud' }));
    await registry.apply(
      {
        ...later,
        services: [...later.services, ...services],
        exposures: [...later.exposures, ...exposures],
      },
      'file'
    );
    await turn();
    for (const { address } of services) {
      expect(translator.addressOf('cloud', 'site-b', address)).toBeDefined();
    }
    controller.suspend('site-a', true);
    for (const site of ['site-c', 'site-d']) {
      expect(await admitAll(scene, site, HOSTS.slice(0, 5)), site).toBe(5);
    }
    expect(scene.problems).toEqual([]);
  });

  test('keeps what it has across a restart, and gets no more', async () => {
    const scene = await scenario();
    const taken = await admitAll(scene, 'site-a');
    const again = await startScene(withSites({}), {}, scene);
    expect(again.controller.poolStats('cloud')).toEqual(scene.controller.poolStats('cloud'));
    expect(await admitAll(again, 'site-a')).toBe(taken);
  });

  test('is not limited twice while released addresses are in quarantine', async () => {
    const scene = await scenario({}, { quarantineMs: 60_000 });
    const { controller, clock } = scene;
    const taken = await admitAll(scene, 'site-a');
    await controller.releaseClients('site-a');
    // They are not the ones of before: an address in quarantine counts for the site that had it.
    expect(await admitAll(scene, 'site-a', HOSTS.slice(62))).toBe(0);
    expect(await admitAll(scene, 'site-b', HOSTS.slice(0, 18))).toBe(18);
    clock.advance(60_000);
    expect(await admitAll(scene, 'site-a', HOSTS.slice(62))).toBe(HOSTS.length - 62);
    expect(taken).toBeGreaterThan(HOSTS.length - 62 - 10);
  });

  test('gets as much as the clientShare says', async () => {
    const scene = await scenario({ clientShare: 5 });
    expect(scene.controller.poolStats('cloud')!.versions[0]!.share).toBe(5);
    expect(await admitAll(scene, 'site-a')).toBeGreaterThan(61);
    expect(await admitAll(scene, 'site-b')).toBeGreaterThanOrEqual(5);
  });

  test('gets no more than there is room for, and leaves the reserve, whatever the clientShare says', async () => {
    const scene = await scenario({ clientShare: 200 });
    const { registry, controller } = scene;
    const text =
      'the clientShare of "cloud" is 200, but its IPv4 pools have room for 110 clients, and with 2 sites and one that may come each is sure of 36: enlarge the pools, or lower clientShare to 36';
    const warning = { kind: 'clientShare', realm: 'cloud', message: text };
    expect(controller.warnings).toContainEqual(warning);
    await admitAll(scene, 'site-a');
    await admitAll(scene, 'site-b');
    const { leased } = controller.poolStats('cloud')!;
    expect(leased).toBeLessThanOrEqual(126 - 15 - 36);
    await registry.apply(withSites({ clientShare: 36 }), 'file');
    await turn();
    expect(controller.warnings.filter(({ kind }) => kind === 'clientShare')).toEqual([]);
  });

  test('gets its own addresses back at once after they were released', async () => {
    const scene = await scenario({}, { quarantineMs: 60_000 });
    const { controller, clock, translator } = scene;
    const taken = await admitAll(scene, 'site-a');
    const addresses = HOSTS.map((host) => translator.addressOf('cloud', 'site-a', host));
    await controller.releaseClients('site-a');
    await turn();
    expect(await admitAll(scene, 'site-a')).toBe(taken);
    expect(HOSTS.map((host) => translator.addressOf('cloud', 'site-a', host))).toEqual(addresses);
    // An address counts for nobody after its quarantine, so it needs a share again.
    await controller.releaseClients('site-a');
    clock.advance(60_000);
    expect(await admitAll(scene, 'site-a', HOSTS.slice(62))).toBe(HOSTS.length - 62);
    expect(await admitAll(scene, 'site-a')).toBe(taken);
  });
});

describe('a warning', () => {
  test('is given at the start when quotas exceed a pool, and ends when they do not', async () => {
    const { registry, controller, warnings } = await scenario();
    const text =
      'the maxClients of 2 sites are 2048 in all, but the IPv4 pools of "cloud" have room for 110 clients, of which each site is sure of 18, and so in 1 other pool: enlarge the pools, lower maxClients, or set the clientShare of "cloud"';
    expect(controller.warnings).toEqual([{ kind: 'quotas', realm: 'cloud', message: text }]);
    expect(warnings).toEqual([]); // it was reported in the turn before
    const sites = DESIRED.sites.map((site) => ({ ...site, maxClients: 50 }));
    await registry.apply({ ...DESIRED, sites }, 'file');
    await turn();
    expect(controller.warnings).toEqual([]);
    await registry.apply(DESIRED, 'file');
    await turn();
    expect(warnings.map(({ message }) => message)).toEqual([text]);
  });

  test('is given once at four fifths of a share, and again after seven tenths', async () => {
    const scene = await scenario();
    const { controller, warnings, clock } = scene;
    const limit = controller.poolStats('cloud')!.versions[0]!.clients[0]!.limit;
    const count = Math.ceil(0.8 * limit) - 1;
    await admitAll(scene, 'site-a', HOSTS.slice(20, 20 + count));
    expect(warnings).toEqual([]);
    await admitAll(scene, 'site-a', HOSTS.slice(20 + count, 25 + count));
    const kinds = () => warnings.map(({ kind, realm, site }) => [kind, realm, site]);
    expect(kinds()).toEqual([['share', 'cloud', 'site-a']]);
    expect(warnings[0]!.message).toMatch(/^"site-a" holds \d+ of the \d+ IPv4 addresses/);
    expect(controller.warnings.map(({ kind }) => kind)).toEqual(['quotas', 'share']);
    await controller.releaseClients('site-a');
    clock.advance(60_000);
    await admitAll(scene, 'site-a', ['10.0.0.1']);
    expect(controller.warnings.map(({ kind }) => kind)).toEqual(['quotas']);
    await admitAll(scene, 'site-a');
    expect(kinds().filter(([kind]) => kind === 'share')).toHaveLength(2);
  });

  test('is given at four fifths of a pool, and of maxClients', async () => {
    const scene = await scenario({ clientShare: 0, serviceReserve: 0 });
    await admitAll(scene, 'site-a');
    await admitAll(scene, 'site-b');
    expect(scene.controller.warnings.map(({ kind }) => kind)).toContain('pool');
    const sites = DESIRED.sites.map((site) => ({ ...site, maxClients: 10 }));
    const small = await startScene({ ...DESIRED, sites });
    await admitAll(small, 'site-a', HOSTS.slice(10, 18));
    expect(small.controller.warnings.map(({ message }) => message)).toEqual([
      '"site-a" has 8 clients in "cloud", and its maxClients is 10: raise it, or find out why there are so many',
    ]);
  });

  test('ends with the site that it is about', async () => {
    const scene = await scenario();
    await admitAll(scene, 'site-a');
    const sites = DESIRED.sites.filter(({ name }) => name !== 'site-a');
    const services = DESIRED.services.filter(({ site }) => site !== 'site-a');
    await scene.registry.apply({ sites, services, exposures: [] }, 'file');
    await turn();
    expect(scene.controller.warnings.filter(({ kind }) => kind === 'share')).toEqual([]);
  });
});

test('the state of a pool has its room, the share, and what each site holds and can have', async () => {
  const scene = await scenario();
  await admitAll(scene, 'site-a', HOSTS.slice(10, 20));
  expect(scene.controller.poolStats('cloud')).toEqual({
    capacity: 126,
    leased: 11,
    quarantined: 0,
    versions: [
      {
        family: 4,
        capacity: 126,
        leased: 11,
        quarantined: 0,
        room: 110,
        share: 18,
        clients: [
          { site: 'site-a', held: 10, limit: 60 },
          { site: 'site-b', held: 0, limit: 60 },
        ],
      },
    ],
  });
  expect(scene.controller.poolStats('site-x')).toBeUndefined();
});

test('an admission, a refusal and a warning read no list of leases', async () => {
  const scene = await scenario();
  const walks = vi.spyOn(AddressAllocator.prototype, 'leases');
  try {
    expect(await admitAll(scene, 'site-a')).toBe(61);
    expect(scene.warnings).toHaveLength(1);
    expect(walks).not.toHaveBeenCalled();
  } finally {
    walks.mockRestore();
  }
});
