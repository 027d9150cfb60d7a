/**
 * Pools of a site that are added, grown, shrunk and replaced while everything runs: for an overlap, both addresses of a
 * presence lead to its host.
 */
import { describe, expect, test } from 'vitest';
import { DESIRED, type Desired, type Scene, startScene, turn } from './scene.ts';

const OVERLAP_MS = 40_000;
const QUARANTINE_MS = 60_000;
const OPTIONS = { overlapMs: OVERLAP_MS, quarantineMs: QUARANTINE_MS };
/** The pools of before and two others. */
const [A, B, C] = ['10.0.0.128/25', '10.1.0.0/24', '10.2.0.0/24'] as const;

function withPools(site: string, pools: readonly string[], more: Partial<Desired> = {}): Desired {
  const sites = DESIRED.sites.map((each) => (each.name === site ? { ...each, pools } : each));
  return { ...DESIRED, sites, ...more };
}

async function setPools(scene: Scene, site: string, ...pools: string[]): Promise<void> {
  await scene.registry.apply(withPools(site, pools), 'file');
  await scene.controller.settled();
  await turn();
}

/** The presences of the cloud's host 10.0.0.5 in site A: those of rabbitmq and neutron. */
function presencesOf({ translator }: Scene, realm = 'site-a', home = 'cloud', host = '10.0.0.5') {
  const all = translator.presences.filter(
    ({ realm: where, of }) => where === realm && of.realm === home && of.address === host
  );
  const former = all.filter(({ formerUntil }) => formerUntil !== undefined);
  former.sort((a, b) => a.formerUntil! - b.formerUntil!);
  return {
    newest: all.filter((each) => !former.includes(each)).map(({ address }) => address),
    former: former.map(({ address }) => address),
  };
}

/** What the names of site A answer with, and what its addresses are called. */
function namesOf({ controller }: Scene) {
  const { hosts, pointers } = controller.snapshot('site-a')!;
  const rabbitmq = hosts.find(({ name }) => name.startsWith('rabbitmq'))!;
  return {
    addresses: rabbitmq.addresses.map(String),
    former: (rabbitmq.former ?? []).map(String),
    pointers: Object.fromEntries(
      pointers.map(({ address, name }) => [`${address}`, name.split('.')[0]])
    ),
  };
}

function poolsOf({ translator }: Scene, realm = 'site-a') {
  return translator.plan.realms.find(({ name }) => name === realm)!.pools;
}

const whois = ({ controller }: Scene, address: string) =>
  controller.whois('site-a', address)?.address.toString();
const stored = ({ store }: Scene, address: string) =>
  store.leases.get(`lease/site-a/${address}`) as { releasedAt?: number } | undefined;

/** Expects the former address to have gone into quarantine, and nothing to be left of it afterwards. */
async function expectEnd(scene: Scene, former: string): Promise<void> {
  await scene.clock.pass(OVERLAP_MS);
  expect(presencesOf(scene).former).not.toContain(former);
  expect(whois(scene, former)).toBeUndefined();
  expect(stored(scene, former)).toHaveProperty('releasedAt');
  await scene.clock.pass(QUARANTINE_MS + 10_000);
  expect(stored(scene, former)).toBeUndefined();
}

describe('pools of a site', () => {
  test('grow, and are added, without a change of any address', async () => {
    const scene = await startScene(withPools('site-a', ['10.0.0.128/28']), OPTIONS);
    const before = presencesOf(scene);
    await setPools(scene, 'site-a', '10.0.0.128/25');
    expect(presencesOf(scene)).toEqual(before);
    await setPools(scene, 'site-a', '10.0.0.128/25', B);
    expect(presencesOf(scene)).toEqual(before);
    expect(poolsOf(scene)).toEqual(['10.0.0.128/25', B]);
    expect(await scene.store.list('overlap/')).toEqual([]);
    await scene.controller.close();
  });

  test('that shrink beside the addresses in use change none and begin no overlap', async () => {
    const scene = await startScene(DESIRED, OPTIONS);
    await setPools(scene, 'site-a', '10.0.0.128/28');
    expect(presencesOf(scene)).toEqual({ newest: ['10.0.0.129'], former: [] });
    expect(poolsOf(scene)).toEqual(['10.0.0.128/28']);
    await scene.controller.close();
  });

  test('that shrink below addresses in use leave these for the overlap', async () => {
    const scene = await startScene(DESIRED, OPTIONS);
    await setPools(scene, 'site-a', '10.0.0.192/26');
    expect(presencesOf(scene)).toEqual({ newest: ['10.0.0.193'], former: ['10.0.0.129'] });
    // Only what the pools have lost is left of them.
    expect(poolsOf(scene)).toEqual(['10.0.0.192/26', '10.0.0.128/26']);
    await expectEnd(scene, '10.0.0.129');
    expect(poolsOf(scene)).toEqual(['10.0.0.192/26']);
    await scene.controller.close();
  });

  test('that are replaced have both addresses lead to the host, and names answer with the new one', async () => {
    const scene = await startScene(DESIRED, OPTIONS);
    expect(namesOf(scene).addresses).toEqual(['10.0.0.129']);
    await setPools(scene, 'site-a', B);
    expect(presencesOf(scene)).toEqual({ newest: ['10.1.0.1'], former: ['10.0.0.129'] });
    expect(poolsOf(scene)).toEqual([B, A]);
    expect(namesOf(scene)).toEqual({
      addresses: ['10.1.0.1'],
      former: ['10.0.0.129'],
      pointers: { '10.0.0.129': 'neutron', '10.1.0.1': 'neutron' },
    });
    expect(scene.controller.snapshot('site-a')!.pools.map(String)).toEqual([B, A]);
    for (const address of ['10.0.0.129', '10.1.0.1']) {
      expect(whois(scene, address)).toBe('10.0.0.5');
    }
    // The former address counts for nobody in the new pools.
    expect(scene.controller.poolStats('site-a')).toMatchObject({ leased: 1, quarantined: 0 });
    await scene.clock.pass(OVERLAP_MS - 10_000);
    expect(presencesOf(scene).former).toEqual(['10.0.0.129']);
    await expectEnd(scene, '10.0.0.129');
    expect(presencesOf(scene)).toEqual({ newest: ['10.1.0.1'], former: [] });
    expect(poolsOf(scene)).toEqual([B]);
    expect(namesOf(scene)).toEqual({
      addresses: ['10.1.0.1'],
      former: [],
      pointers: { '10.1.0.1': 'neutron' },
    });
    expect(await scene.store.list('overlap/')).toEqual([]);
    expect(scene.translator.unstored).toEqual([]);
    await scene.controller.close();
  });

  test('that are replaced twice in a row have three addresses lead to the host for a while', async () => {
    const scene = await startScene(DESIRED, OPTIONS);
    await setPools(scene, 'site-a', B);
    await scene.clock.pass(20_000);
    await setPools(scene, 'site-a', C);
    expect(presencesOf(scene)).toEqual({
      newest: ['10.2.0.1'],
      former: ['10.0.0.129', '10.1.0.1'],
    });
    expect(namesOf(scene)).toMatchObject({
      addresses: ['10.2.0.1'],
      former: ['10.0.0.129', '10.1.0.1'],
    });
    await scene.clock.pass(25_000);
    expect(presencesOf(scene)).toEqual({ newest: ['10.2.0.1'], former: ['10.1.0.1'] });
    expect(poolsOf(scene)).toEqual([C, B]);
    await expectEnd(scene, '10.1.0.1');
    await scene.controller.close();
  });

  test('that are put back within the overlap have the former address again at once', async () => {
    const scene = await startScene(DESIRED, OPTIONS);
    await setPools(scene, 'site-a', B);
    await setPools(scene, 'site-a', A);
    expect(presencesOf(scene)).toEqual({ newest: ['10.0.0.129'], former: ['10.1.0.1'] });
    expect(namesOf(scene).addresses).toEqual(['10.0.0.129']);
    await scene.clock.pass(OVERLAP_MS);
    expect(presencesOf(scene)).toEqual({ newest: ['10.0.0.129'], former: [] });
    expect(stored(scene, '10.1.0.1')).toHaveProperty('releasedAt');
    expect(stored(scene, '10.0.0.129')).not.toHaveProperty('releasedAt');
    await scene.controller.close();
  });

  test.each(['and goes on', 'and is restarted'])(
    'that come back beside the new ones keep the new address, %s',
    async (how) => {
      let scene = await startScene(DESIRED, OPTIONS);
      await setPools(scene, 'site-a', B);
      await setPools(scene, 'site-a', A, B);
      if (how === 'and is restarted') scene = await startScene(null, OPTIONS, scene);
      expect(presencesOf(scene)).toEqual({ newest: ['10.1.0.1'], former: ['10.0.0.129'] });
      expect(scene.controller.poolStats('site-a')).toMatchObject({ leased: 2 });
      await scene.clock.pass(OVERLAP_MS);
      expect(presencesOf(scene)).toEqual({ newest: ['10.1.0.1'], former: [] });
      // It rests in its pool like any other.
      expect(scene.controller.poolStats('site-a')).toMatchObject({ leased: 1, quarantined: 1 });
      await scene.controller.close();
    }
  );

  test('that come back while their addresses are in quarantine count each of these once', async () => {
    const scene = await startScene(DESIRED, OPTIONS);
    for (const pool of ['fd00::/124', A, 'fd00::/124']) await setPools(scene, 'site-b', pool);
    expect(presencesOf(scene, 'site-b')).toEqual({ newest: ['fd00::1'], former: [] });
    // The audit compares all sites in this time.
    await scene.clock.pass(60_000);
    expect(scene.controller.audited.checkedSites).toBeGreaterThanOrEqual(3);
    expect(scene.problems).toEqual([]);
    await scene.controller.close();
  });

  test('that come back count a former address for the site when its host is only a client any more', async () => {
    const scene = await startScene(DESIRED, OPTIONS);
    const { registry, controller, clock } = scene;
    const sshd = { name: 'sshd', site: 'site-b', address: '10.0.0.9', ports: ['tcp/22'] };
    await controller.admit('site-b', sshd.address, 'cloud', 4);
    const rest = { services: [...DESIRED.services, sshd] };
    const exposed = [...DESIRED.exposures, { service: 'sshd', site: 'cloud' }];
    for (const [pool, exposures] of [
      [B, exposed],
      [A, exposed],
      [A, DESIRED.exposures],
    ] as const) {
      await registry.apply(
        withPools('cloud', pool === A ? [A, B] : [B], { ...rest, exposures }),
        'file'
      );
      await controller.settled();
      await turn();
    }
    const before = JSON.stringify(controller.poolStats('cloud'));
    expect(presencesOf(scene, 'cloud', 'site-b', sshd.address).former).toHaveLength(1);
    const again = await startScene(null, OPTIONS, scene);
    expect(JSON.stringify(again.controller.poolStats('cloud'))).toBe(before);
    await clock.pass(60_000);
    expect(again.problems).toEqual([]);
    await again.controller.close();
  });

  test('that change their IP version end the former addresses at once', async () => {
    const exposures = DESIRED.exposures.filter(({ service }) => service !== 'console-a');
    const scene = await startScene({ ...DESIRED, exposures }, OPTIONS);
    await scene.registry.apply(withPools('site-a', ['fd00::/64'], { exposures }), 'file');
    await scene.controller.settled();
    await turn();
    expect(presencesOf(scene)).toEqual({ newest: ['fd00::1'], former: [] });
    expect(stored(scene, '10.0.0.129')).toHaveProperty('releasedAt');
    await scene.controller.close();
  });
});

describe('an overlap', () => {
  test('goes on over a restart, for the rest of its time', async () => {
    const first = await startScene(DESIRED, OPTIONS);
    await setPools(first, 'site-a', B);
    await first.clock.pass(30_000);
    const scene = await startScene(null, OPTIONS, first);
    expect(presencesOf(scene)).toEqual({ newest: ['10.1.0.1'], former: ['10.0.0.129'] });
    expect(poolsOf(scene)).toEqual([B, A]);
    await scene.clock.pass(5_000);
    expect(presencesOf(scene).former).toEqual(['10.0.0.129']);
    await scene.clock.pass(10_000);
    expect(presencesOf(scene)).toEqual({ newest: ['10.1.0.1'], former: [] });
    await scene.controller.close();
  });

  test('begins at the start if the pools were changed while no controller ran', async () => {
    const first = await startScene(DESIRED, OPTIONS);
    const scene = await startScene(withPools('site-a', [B]), OPTIONS, first);
    expect(presencesOf(scene)).toEqual({ newest: ['10.1.0.1'], former: ['10.0.0.129'] });
    // The pools of before are not known any more, but the addresses are.
    expect(poolsOf(scene)).toEqual([B, '10.0.0.129/32']);
    await expectEnd(scene, '10.0.0.129');
    await scene.controller.close();
  });

  test('lets names answer with the former address until the new one is stored', async () => {
    const scene = await startScene(DESIRED, OPTIONS);
    scene.store.isFailing = true;
    await setPools(scene, 'site-a', B);
    expect(presencesOf(scene)).toEqual({ newest: ['10.0.0.129'], former: [] });
    expect(namesOf(scene)).toMatchObject({ addresses: ['10.0.0.129'], former: [] });
    expect(scene.problems).toEqual(['the disk is full']);
    // A restart forgets what was not stored, and begins anew.
    const again = await startScene(null, OPTIONS, { ...scene, store: scene.store }).catch(
      (error: Error) => error.message
    );
    expect(again).toBe('the disk is full');
    scene.store.isFailing = false;
    const last = await startScene(null, OPTIONS, { store: scene.store, clock: scene.clock });
    expect(presencesOf(last)).toEqual({ newest: ['10.1.0.1'], former: ['10.0.0.129'] });
    expect(last.translator.unstored).toEqual([]);
    await last.controller.close();
  });

  test('is stored by the next commit if one has failed', async () => {
    const scene = await startScene(DESIRED, OPTIONS);
    scene.store.isFailing = true;
    await setPools(scene, 'site-a', B);
    scene.store.isFailing = false;
    await scene.clock.pass(5_000);
    expect(presencesOf(scene)).toEqual({ newest: ['10.1.0.1'], former: ['10.0.0.129'] });
    expect(await scene.store.list('overlap/')).toHaveLength(1);
    await scene.controller.close();
  });

  test('is also one of addresses that are stored only after they were replaced', async () => {
    const scene = await startScene(DESIRED, OPTIONS);
    scene.store.isFailing = true;
    const exposures = [...DESIRED.exposures, { service: 'glance', site: 'site-b' }];
    for (const pool of [A, B]) {
      await scene.registry.apply(withPools('site-b', [pool], { exposures }), 'file');
      await scene.controller.settled();
    }
    scene.store.isFailing = false;
    await scene.clock.pass(5_000);
    expect(presencesOf(scene, 'site-b', 'cloud', '10.0.0.6')).toEqual({
      newest: [expect.stringMatching(/^10\.1\./)],
      former: ['10.0.0.130'],
    });
    await scene.controller.close();
  });

  test('that began last has the newest address, after a restart too, if several end at once', async () => {
    const exposures = [...DESIRED.exposures, { service: 'glance', site: 'site-a' }];
    const first = await startScene({ ...DESIRED, exposures }, OPTIONS);
    // The last pool has an address for glance alone.
    for (const pool of [B, '10.3.0.0/32']) {
      await first.registry.apply(withPools('site-a', [pool], { exposures }), 'file');
      await first.controller.settled();
    }
    await turn();
    const before = presencesOf(first);
    expect(before.newest).toEqual([expect.stringMatching(/^10\.1\./)]);
    expect(before.former).toEqual([expect.stringMatching(/^10\.0\./)]);
    const scene = await startScene(null, OPTIONS, first);
    expect(presencesOf(scene)).toEqual(before);
    await scene.controller.close();
  });

  test('ends with what its service needs, and with the site', async () => {
    const scene = await startScene(DESIRED, OPTIONS);
    await setPools(scene, 'site-a', B);
    await setPools(scene, 'site-b', B);
    const only = withPools('site-a', [B], {
      sites: DESIRED.sites
        .filter(({ name }) => name !== 'site-b')
        .map((each) => (each.name === 'site-a' ? { ...each, pools: [B] } : each)),
      exposures: [],
    });
    await scene.registry.apply(only, 'file');
    await scene.controller.settled();
    await turn();
    expect(presencesOf(scene)).toEqual({ newest: [], former: [] });
    for (const address of ['10.0.0.129', '10.1.0.1']) {
      expect(stored(scene, address)).toHaveProperty('releasedAt');
    }
    const overlaps = await scene.store.list('overlap/');
    expect(overlaps.map(({ key }) => key)).toEqual(['overlap/site-a']);
    await scene.clock.pass(OVERLAP_MS + QUARANTINE_MS + 10_000);
    expect(await scene.store.list('overlap/')).toEqual([]);
    expect([...scene.store.leases.keys()].filter((key) => key.includes('site-b'))).toEqual([]);
    await scene.controller.close();
  });

  test('keeps an address in new pools that are too small, and ends it nevertheless', async () => {
    const scene = await startScene(DESIRED, OPTIONS);
    await scene.registry.apply(
      withPools('site-a', ['10.1.0.0/32'], {
        exposures: [...DESIRED.exposures, { service: 'glance', site: 'site-a' }],
      }),
      'file'
    );
    await scene.controller.settled();
    await turn();
    expect(scene.problems).toEqual([expect.stringContaining('exhausted')]);
    const all = () =>
      scene.translator.presences.filter(({ realm }) => realm === 'site-a').map((p) => p.address);
    expect(all().sort()).toEqual(['10.0.0.129', '10.1.0.0']);
    await scene.clock.pass(OVERLAP_MS);
    expect(all()).toEqual(['10.1.0.0']);
    await scene.controller.close();
  });
});

describe('a client whose address the pools have lost', () => {
  const CLIENT = ['site-a', '10.0.0.7', 'cloud', 4] as const;

  test('keeps it for the overlap, counts once, and then gets another one', async () => {
    const scene = await startScene(
      { ...DESIRED, sites: DESIRED.sites.map((each) => ({ ...each, maxClients: 1 })) },
      OPTIONS
    );
    await scene.controller.admit(...CLIENT);
    const ofClient = () => presencesOf(scene, 'cloud', 'site-a', '10.0.0.7');
    expect(ofClient()).toEqual({ newest: ['10.0.0.130'], former: [] });
    await scene.registry.apply(
      {
        ...DESIRED,
        sites: DESIRED.sites.map((each) => ({
          ...each,
          maxClients: 1,
          ...(each.name === 'cloud' && { pools: [B] }),
        })),
      },
      'file'
    );
    await scene.controller.settled();
    await turn();
    // The service of site A in the cloud has both, the client has the one that its packets leave under.
    expect(presencesOf(scene, 'cloud', 'site-a')).toEqual({
      newest: ['10.1.0.1'],
      former: ['10.0.0.129'],
    });
    await scene.controller.admit(...CLIENT);
    expect(ofClient()).toEqual({ newest: ['10.0.0.130'], former: [] });
    await scene.clock.pass(OVERLAP_MS);
    expect(ofClient()).toEqual({ newest: [], former: [] });
    await scene.controller.admit(...CLIENT);
    expect(ofClient()).toEqual({ newest: ['10.1.0.2'], former: [] });
    await scene.controller.close();
  });

  test('ends after its idle time within the overlap, too', async () => {
    const scene = await startScene(DESIRED, {
      ...OPTIONS,
      overlapMs: 10_000_000,
      clientIdleMs: 3_600_000,
      pressedIdleMs: 3_600_000,
      presenceUses: async () => [],
    });
    await scene.controller.admit(...CLIENT);
    await setPools(scene, 'cloud', B);
    await scene.clock.pass(5_000_000);
    expect(presencesOf(scene, 'cloud', 'site-a', '10.0.0.7')).toEqual({ newest: [], former: [] });
    expect(presencesOf(scene, 'cloud', 'site-a').former).toEqual(['10.0.0.129']);
    await scene.controller.close();
  });
});

test('an entry of an overlap that is none is refused', async () => {
  const { store, controller } = await startScene(DESIRED, OPTIONS);
  await controller.close();
  await store.commit([{ key: 'overlap/site-a', value: [{ prefix: '10.0.0.1/8', until: 1 }] }]);
  await expect(startScene(null, OPTIONS, { store })).rejects.toThrow('is not an overlap');
});
