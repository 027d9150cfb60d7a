/** Exposures to the sites with certain labels. */
import { describe, expect, test } from 'vitest';
import { Registry } from '../../src/registry/index.ts';
import { DESIRED, expectFault, openScene, service, site } from './scene.ts';

const MQ = { name: 'edge-mq', service: 'mq', siteSelector: { tier: 'edge' } };

describe('a selector', () => {
  test('takes the sites that have all its labels', async () => {
    const { registry, exposed, touched } = await openScene();
    await registry.expose(MQ, 'admin');
    expect(exposed()).toEqual(['site-a/mq', 'site-b/mq']);
    expect(touched()).toEqual(['site-a/mq', 'site-b/mq']);
    await registry.expose({ ...MQ, siteSelector: { country: 'de', tier: 'edge' } }, 'admin');
    expect(exposed()).toEqual(['site-a/mq']);
    expect(registry.exposure({ service: 'mq', site: 'site-a' })).toEqual({
      service: 'mq',
      site: 'site-a',
    });
    expect(registry.state.selectors).toEqual([
      { ...MQ, siteSelector: { country: 'de', tier: 'edge' } },
    ]);
    expect(registry.state.exposures).toEqual([]);
  });

  test('without labels takes every site but the cloud and the home of the service', async () => {
    const { registry, exposed } = await openScene();
    await registry.putService(service('cam', { site: 'site-a', address: '10.0.0.7' }), 'admin');
    await registry.expose({ name: 'all', service: 'cam', siteSelector: {} }, 'admin');
    expect(exposed()).toEqual(['site-b/cam', 'site-c/cam']);
  });

  test('takes the cloud by its labels', async () => {
    const sites = [site('cloud', { labels: { tier: 'edge' } }), ...DESIRED.sites.slice(1)];
    const { registry, exposed } = await openScene({ ...DESIRED, sites });
    await registry.putService(service('cam', { site: 'site-a', address: '10.0.0.7' }), 'admin');
    await registry.expose({ ...MQ, service: 'cam' }, 'admin');
    expect(exposed()).toEqual(['cloud/cam', 'site-b/cam']);
  });

  test('follows the labels of sites, and sites that come and go', async () => {
    const { registry, exposed, touched } = await openScene();
    await registry.expose(MQ, 'admin');
    await registry.putSite(site('site-d', { labels: { tier: 'edge' } }), 'admin');
    expect(exposed()).toEqual(['site-a/mq', 'site-b/mq', 'site-d/mq']);
    touched();
    await registry.putSite(site('site-d', { labels: { tier: 'lab' } }), 'admin');
    expect(touched()).toEqual(['site-d/mq']);
    expect(exposed()).toEqual(['site-a/mq', 'site-b/mq']);
    await registry.putSite(site('site-d', { labels: { tier: 'edge' } }), 'admin');
    await registry.removeSite('site-d', 'admin');
    expect(exposed()).toEqual(['site-a/mq', 'site-b/mq']);
  });

  test('follows the home of its service', async () => {
    const { registry, exposed, touched } = await openScene();
    await registry.expose({ name: 'all', service: 'mq', siteSelector: {} }, 'admin');
    expect(exposed()).toEqual(['site-a/mq', 'site-b/mq', 'site-c/mq']);
    touched();
    await registry.putService(service('mq', { site: 'site-b' }), 'file');
    expect(exposed()).toEqual(['site-a/mq', 'site-c/mq']);
    expect(touched()).toEqual(['site-b/mq']);
  });

  test('gives way to an exposure to the site itself, and then to the lower name', async () => {
    const { registry, exposed } = await openScene();
    await registry.expose(MQ, 'admin');
    await registry.expose({ ...MQ, name: 'a', dnsName: 'bus' }, 'admin');
    const id = { service: 'mq', site: 'site-a' };
    expect(registry.exposure(id)?.dnsName).toBe('bus');
    await registry.expose({ ...id, dnsName: 'own' }, 'admin');
    expect(registry.exposure(id)?.dnsName).toBe('own');
    await registry.unexpose(id, 'admin');
    expect(registry.exposure(id)?.dnsName).toBe('bus');
    await registry.unexpose({ name: 'a' }, 'admin');
    expect(registry.exposure(id)?.dnsName).toBeUndefined();
    await registry.unexpose({ name: 'edge-mq' }, 'admin');
    expect(exposed()).toEqual([]);
  });

  test('passes a site on to an exposure of its own in one change, without an end in between', async () => {
    const own = ['site-a', 'site-b'].map((name) => ({ service: 'mq', site: name }));
    const { registry } = await openScene({ ...DESIRED, exposures: own });
    const seen: number[] = [];
    registry.on('change', () => seen.push([...registry.exposures()].length));
    await registry.apply({ ...DESIRED, exposures: [MQ] }, 'file');
    await registry.apply({ ...DESIRED, exposures: own }, 'file');
    expect(seen).toEqual([2, 2]);
  });

  test('is there after a restart', async () => {
    const { registry, store, exposed } = await openScene({ ...DESIRED, exposures: [MQ] });
    await registry.close();
    const again = await Registry.open(store);
    expect(again.state).toEqual(registry.state);
    expect([...again.exposures()].map((each) => `${each.site}/${each.service}`)).toEqual(exposed());
    expect((await store.list('desired/')).filter(({ key }) => key.includes('mq'))).toMatchObject([
      { key: 'desired/selector/edge-mq', value: { owner: 'file', spec: MQ } },
      { key: 'desired/service/mq' },
    ]);
  });
});

describe('a selector that does not fit', () => {
  const MISFITS = 'where it does not fit';

  test.each<[situation: string, selector: object, message: string]>([
    ['without a service', { ...MQ, service: 'none' }, 'service: "none" is not a service'],
    [
      'with a name that is taken',
      { ...MQ, dnsName: 'web' },
      `dnsName: "edge-mq" takes the site "site-b", ${MISFITS}: web.site-b.test is the name of "web" in "site-b" already`,
    ],
    ['with a site', { ...MQ, site: 'site-a' }, 'site: is not a known key'],
    ['without a selector', { name: 'x', service: 'mq' }, 'siteSelector: is missing'],
    [
      'with a label that is none',
      { ...MQ, siteSelector: { tier: 'Edge' } },
      'siteSelector.tier: expected a name of lower-case letters, digits and hyphens, got "Edge"',
    ],
    [
      'with an address outside of a pool',
      { ...MQ, address: '10.0.0.9' },
      `address: "edge-mq" takes the site "site-a", ${MISFITS}: 10.0.0.9 is not in the pools of "site-a"`,
    ],
  ])('%s is refused', async (_situation, selector, message) => {
    const exposures = [{ service: 'web', site: 'site-b' }];
    const { registry, exposed } = await openScene({ ...DESIRED, exposures });
    await expectFault(registry.expose(selector, 'admin'), message);
    expect(exposed()).toEqual(['site-b/web']);
  });

  test('is refused with the file that has it, which names its place', async () => {
    const { registry } = await openScene();
    const sites = [...DESIRED.sites, site('site-d', { pools: [], labels: { tier: 'edge' } })];
    const path = await expectFault(
      registry.apply({ ...DESIRED, sites, exposures: [MQ] }, 'file'),
      `exposures[0].siteSelector: "edge-mq" takes the site "site-d", ${MISFITS}: "site-d" has no pool for a presence of "mq"`
    );
    expect(path).toBe('exposures[0].siteSelector');
  });

  test.each<[situation: string, more: object, message: string]>([
    ['no pool', { pools: [] }, '"site-d" has no pool for a presence of "mq"'],
    ['too few names', { maxNames: 0 }, '"site-d" has all the names that its maxNames, 0, allows'],
  ])('refuses labels that give it a site with %s', async (_situation, more, message) => {
    const { registry } = await openScene();
    await registry.expose(MQ, 'file');
    await registry.putSite(site('site-d', more), 'admin');
    await expectFault(
      registry.putSite(site('site-d', { ...more, labels: { tier: 'edge' } }), 'admin'),
      `the exposure "edge-mq", kept by the file, would no longer fit in the site "site-d": ${message}`
    );
  });

  test('refuses the end of the exposure that it gives way to', async () => {
    const { registry, exposed } = await openScene();
    const own = { service: 'mq', site: 'site-a', dnsName: 'own' };
    await registry.expose(own, 'admin');
    await registry.expose({ service: 'web', site: 'site-a', dnsName: 'mq' }, 'admin');
    await registry.expose(MQ, 'file');
    await expectFault(
      registry.unexpose(own, 'admin'),
      'the exposure "edge-mq", kept by the file, would no longer fit in the site "site-a": mq.site-a.test is the name of "web" in "site-a" already'
    );
    expect(exposed()).toEqual(['site-a/mq', 'site-a/web', 'site-b/mq']);
  });

  test('keeps the service that it needs', async () => {
    const { registry } = await openScene();
    await registry.expose(MQ, 'admin');
    await expectFault(
      registry.removeService('mq', 'file'),
      'the service "mq" cannot be removed while it is needed by the exposure "edge-mq" (kept by the admin): remove these first, each where it is kept'
    );
    await expectFault(
      registry.apply({ ...DESIRED, services: [] }, 'file'),
      'the exposure "edge-mq", kept by the admin, would no longer fit: "mq" is not a service'
    );
  });

  test('that does not exist cannot be ended', async () => {
    const { registry } = await openScene();
    await expectFault(
      registry.unexpose({ name: 'none' }, 'admin'),
      'there is no exposure with the name "none"'
    );
  });
});

test('a site has at most 64 labels', async () => {
  const { registry } = await openScene();
  const labels = (count: number) =>
    Object.fromEntries(Array.from({ length: count }, (_, i) => [`key-${i}`, 'value']));
  await registry.putSite(site('site-d', { labels: labels(64) }), 'admin');
  await expectFault(
    registry.putSite(site('site-d', { labels: labels(65) }), 'admin'),
    'labels: expected at most 64 labels, got 65'
  );
});
