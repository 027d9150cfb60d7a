/**
 * The routes that change sites, services and exposures, with a real registry. The other routes are tested with a whole gateway, in
 * test/e2e.
 */
import { expect, test } from 'vitest';
import { type AdminHandler, type AdminTarget, adminRoutes } from '../../src/admin/index.ts';
import { Registry } from '../../src/registry/index.ts';
import { type Json, MemoryStore } from '../../src/store/index.ts';

const LAN = { sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'] };
const SITE = { name: 'site-a', ...LAN, zone: 'a.test' };
const CAMERA = { name: 'camera', site: 'site-a', address: '10.0.0.7', ports: ['tcp/554'] };

async function start(): Promise<{
  registry: Registry;
  send: (route: string, body?: Json) => unknown;
}> {
  const registry = await Registry.open(new MemoryStore());
  const sites = [{ name: 'cloud', ...LAN, zone: 'cloud.test' }];
  await registry.apply({ sites }, 'file');
  const routes: Record<string, AdminHandler> = adminRoutes({ registry } as AdminTarget);
  const query = new URLSearchParams();
  return { registry, send: async (route, body) => await routes[route]!({ query, body }) };
}

test('the routes add and remove sites and services', async () => {
  const { registry, send } = await start();
  expect(await send('PUT /v1/sites', SITE)).toMatchObject({ ...SITE, maxClients: 1024 });
  expect(await send('PUT /v1/services', CAMERA)).toEqual(CAMERA);
  expect(registry.state.services).toEqual([CAMERA]);
  await send('DELETE /v1/services', { name: 'camera' });
  await send('DELETE /v1/sites', { name: 'site-a' });
  expect(registry.state.sites.map(({ name }) => name)).toEqual(['cloud']);
});

test('the routes add and remove an exposure with a selector', async () => {
  const { registry, send } = await start();
  await send('PUT /v1/sites', { ...SITE, labels: { tier: 'edge' } });
  const service = { ...CAMERA, name: 'mq', site: 'cloud' };
  await send('PUT /v1/services', service);
  const selector = { name: 'edge-mq', service: 'mq', siteSelector: { tier: 'edge' } };
  expect(await send('POST /v1/exposures', selector)).toEqual(selector);
  const desired = (await send('GET /v1/desired')) as { exposures: unknown };
  expect(desired.exposures).toEqual([selector]);
  expect([...registry.exposures()]).toEqual([{ service: 'mq', site: 'site-a' }]);
  await send('DELETE /v1/exposures', { name: 'edge-mq' });
  expect([...registry.exposures()]).toEqual([]);
});

test.each<[route: string, body: Json | undefined, message: string]>([
  ['PUT /v1/sites', undefined, 'is missing, expected a mapping'],
  ['PUT /v1/sites', { ...SITE, colour: 'red' }, 'colour: is not a known key'],
  [
    'PUT /v1/sites',
    { ...SITE, name: 'cloud' },
    'the site "cloud" is kept by the file; change it there',
  ],
  ['PUT /v1/services', CAMERA, 'site: "site-a" is not a site'],
  ['DELETE /v1/sites', 'site-a', 'expected a mapping, got "site-a"'],
  ['DELETE /v1/sites', {}, 'name: is missing'],
  ['DELETE /v1/sites', { name: 'site-a' }, 'name: "site-a" is not a site'],
  ['DELETE /v1/sites', { name: 'cloud' }, '"cloud" cannot be removed: every other site needs it'],
  ['DELETE /v1/services', { name: 'camera', site: 'site-a' }, 'site: is not a known key'],
  ['DELETE /v1/services', { name: 'camera' }, 'name: "camera" is not a service'],
  ['DELETE /v1/exposures', { name: 'x', site: 'site-a' }, 'site: is not a known key'],
  ['DELETE /v1/exposures', { name: 'x' }, 'there is no exposure with the name "x"'],
])('%s of %j is refused', async (route, body, message) => {
  const { send } = await start();
  await expect(send(route, body)).rejects.toMatchObject({ code: 'ERR_PRESENCE_CONFIG', message });
});
