/**
 * Exposures that ask for an address of their own.
 */
import { expect, test } from 'vitest';
import { DESIRED, SITE, startScene, turn } from './scene.ts';

const AT = '10.0.0.140';
const EXPOSURE = { service: 'rabbitmq', site: 'site-b' };
const HOST = ['site-b', 'cloud', '10.0.0.5'] as const;
const CLOUD = { ...SITE, name: 'cloud', zone: 'cloud.test' };
const WITHOUT = {
  ...DESIRED,
  exposures: DESIRED.exposures.filter(({ site }) => site !== 'site-b'),
};

test('the presence has the address, and nobody else gets it, also not after a restart', async () => {
  let scene = await startScene(WITHOUT);
  await scene.registry.expose({ ...EXPOSURE, address: '10.0.0.129' }, 'admin');
  await scene.registry.expose({ service: 'glance', site: 'site-b', address: AT }, 'admin');
  await scene.registry.expose({ service: 'console-a', site: 'site-b' }, 'admin');
  await turn();
  scene = await startScene(null, {}, scene);
  expect(scene.translator.addressOf(...HOST)).toBe('10.0.0.129');
  expect(scene.translator.addressOf('site-b', 'cloud', '10.0.0.6')).toBe(AT);
  expect(scene.translator.addressOf('site-b', 'site-a', '10.0.0.5')).toBe('10.0.0.144');
  expect(scene.problems).toEqual([]);
  expect(scene.translator.unstored).toEqual([]);
});

test('it is kept for the service while the lease of another host ends, which is reported', async () => {
  const { registry, controller, translator, clock, problems } = await startScene();
  await controller.admit('site-a', '10.0.0.7', 'cloud', 4);
  const taken = translator.addressOf('cloud', 'site-a', '10.0.0.7')!;
  const camera = { name: 'camera', site: 'site-a', address: '10.0.0.9', ports: ['tcp/554'] };
  await registry.putService(camera, 'file');
  await registry.expose({ service: 'camera', site: 'cloud', address: taken }, 'file');
  await turn();
  expect(translator.addressOf('cloud', 'site-a', '10.0.0.7')).toBe(taken);
  expect(translator.addressOf('cloud', 'site-a', '10.0.0.9')).toBeUndefined();
  expect(problems).toEqual([
    `no presence in "cloud" for "camera" at ${taken}, which is tried again: ${taken} belongs to site-a/10.0.0.7`,
  ]);
  await controller.releaseClients('site-a');
  // The former holder does not get it back, although no other host has had it.
  await controller.admit('site-a', '10.0.0.7', 'cloud', 4);
  expect(translator.addressOf('cloud', 'site-a', '10.0.0.7')).not.toBe(taken);
  clock.advance(60_000);
  await turn();
  expect(translator.addressOf('cloud', 'site-a', '10.0.0.9')).toBe(taken);
  expect(problems).toHaveLength(1);
  expect(translator.unstored).toEqual([]);
});

test('another one moves the presence; the former address goes into quarantine', async () => {
  const { registry, translator, store, clock, controller } = await startScene();
  const before = translator.addressOf(...HOST)!;
  await registry.expose({ ...EXPOSURE, address: AT }, 'file');
  await turn();
  expect(translator.addressesOf(...HOST)).toEqual([AT]);
  expect(store.leases.get(`lease/site-b/${before}`)).toEqual({
    endpoint: 'cloud/10.0.0.5',
    releasedAt: clock.wallMs(),
  });
  expect(controller.snapshot('site-b')!.hosts).toMatchObject([{ addresses: [AT] }]);
  expect(translator.changes.at(-1)).toMatchObject({ presences: [{}, {}] });
  // It stays there when the exposure asks for none any more.
  await registry.expose(EXPOSURE, 'file');
  await turn();
  expect(translator.addressesOf(...HOST)).toEqual([AT]);
  await registry.expose({ ...EXPOSURE, address: before }, 'file');
  await turn();
  expect(translator.addressesOf(...HOST)).toEqual([before]);
  expect(translator.unstored).toEqual([]);
});

test('the presence stays where it is while another host has the address', async () => {
  const { registry, translator, problems } = await startScene();
  const before = translator.addressOf(...HOST)!;
  const pools = ['10.0.0.129/32', '10.0.0.144/28'];
  await registry.apply(
    {
      ...DESIRED,
      sites: DESIRED.sites.map((site) => (site.name === 'site-b' ? { ...site, pools } : site)),
      exposures: [
        ...DESIRED.exposures.slice(0, 2),
        { service: 'glance', site: 'site-b' },
        EXPOSURE,
      ],
    },
    'file'
  );
  await turn();
  expect(translator.addressOf(...HOST)).toBe(before);
  const taken = translator.addressOf('site-b', 'cloud', '10.0.0.6')!;
  await registry.expose({ ...EXPOSURE, address: taken }, 'file');
  await turn();
  expect(translator.addressOf(...HOST)).toBe(before);
  expect(problems).toEqual([expect.stringContaining(`for "rabbitmq" at ${taken}`)]);
});

test('an address outside of the pools is a problem of that service alone', async () => {
  const sites = DESIRED.sites.map((site) => (site.name === 'cloud' ? CLOUD : site));
  const { store, translator, problems } = await startScene({ ...DESIRED, sites });
  // Another writer has stored it.
  const spec = { ...EXPOSURE, address: '192.0.2.1' };
  const value = { owner: 'file', spec };
  await store.commit([{ key: 'desired/exposure/site-b/rabbitmq', value }]);
  await turn();
  expect(translator.addressOf(...HOST)).toBeDefined();
  expect(problems).toEqual([
    'no presence in "site-b" for "rabbitmq" at 192.0.2.1, which is tried again: 192.0.2.1 is not an address of the pools that can be leased',
  ]);
});
