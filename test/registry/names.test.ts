/** The names and the address that an exposure asks for. */
import { describe, expect, test } from 'vitest';
import { DESIRED, expectFault, openScene, service, site } from './scene.ts';

const MQ = { service: 'mq', site: 'site-a' };
const WEB = { service: 'web', site: 'site-a' };
const TAKEN = 'in "site-a" already';

describe('names', () => {
  test('of all kinds are kept with their defaults', async () => {
    const { registry } = await openScene();
    const names = {
      aliases: ['bus', 'old.site-a.test'],
      wildcard: true,
      https: [{ alpn: ['h2'], port: 8443 }],
      svcb: [{ prefix: '_8443._foo', priority: 3, target: 'other.test' }],
    };
    expect(await registry.expose({ ...MQ, ...names }, 'admin')).toEqual({
      ...MQ,
      ...names,
      https: [{ priority: 1, target: '.', alpn: ['h2'], port: 8443 }],
    });
  });

  test.each<[present: object, asked: object, message: string]>([
    [{}, { aliases: ['MQ'] }, `aliases[0]: mq.site-a.test is the name of "mq" ${TAKEN}`],
    [
      { aliases: ['bus'] },
      { aliases: ['other', 'bus'] },
      `aliases[1]: bus.site-a.test is an alias of "mq" ${TAKEN}`,
    ],
    [
      { aliases: ['bus'] },
      { dnsName: 'bus' },
      `dnsName: bus.site-a.test is an alias of "mq" ${TAKEN}`,
    ],
    [
      { aliases: ['_dns.web'] },
      { svcb: [{ prefix: '_dns' }] },
      `svcb[0].prefix: _dns.web.site-a.test is an alias of "mq" ${TAKEN}`,
    ],
    [
      { https: [{ prefix: '_8443._https' }] },
      { aliases: ['_8443._https.mq'] },
      `aliases[0]: _8443._https.mq.site-a.test is the name of "mq" ${TAKEN}`,
    ],
    [{}, { aliases: ['web'] }, 'aliases[0]: web.site-a.test is a name of the exposure already'],
    [{}, { aliases: ['a', 'A'] }, 'aliases[0]: a.site-a.test is a name of the exposure already'],
    [
      {},
      { aliases: ['ns'] },
      "aliases[0]: ns.site-a.test is the name of the site's own name server",
    ],
    [
      {},
      { aliases: ['site-a.test'] },
      'aliases[0]: site-a.test is the zone itself, which cannot be an alias',
    ],
    [
      {},
      { dnsName: `${'a.'.repeat(119)}bb`, wildcard: true },
      'dnsName: it has 254 characters within "site-a.test", more than 253',
    ],
    [
      {},
      { aliases: Array(17).fill('a') },
      'aliases: expected at most 16 entries, got ["a","a","a","a","a","a","a","a","a","a","a","a","a","a",...',
    ],
    [
      {},
      { https: [{ priority: 0 }] },
      'https[0].priority: expected a whole number from 1 to 65535, got 0',
    ],
    [{}, { https: [{ alpn: [] }] }, 'https[0].alpn: expected at least 1 entries, got []'],
    [
      {},
      { svcb: [{ prefix: 'dns' }] },
      'svcb[0].prefix: expected one or two labels that begin with an underscore, such as _8443._https, got "dns"',
    ],
  ])('beside %j, %j is refused', async (present, asked, message) => {
    const { registry } = await openScene();
    await registry.expose({ ...MQ, ...present }, 'admin');
    await expectFault(registry.expose({ ...WEB, ...asked }, 'admin'), message);
    expect(registry.state.exposures).toHaveLength(1);
  });

  test('below a wildcard may be those of another service (RFC 4592)', async () => {
    const { registry } = await openScene();
    await registry.expose({ ...MQ, wildcard: true }, 'admin');
    await registry.expose({ ...WEB, dnsName: 'web.mq', aliases: ['www.mq'] }, 'admin');
    expect(registry.state.exposures).toHaveLength(2);
  });

  test('conflict when the zone of their site changes', async () => {
    const { registry } = await openScene();
    await registry.expose({ ...MQ, dnsName: 'x' }, 'admin');
    await registry.expose({ ...WEB, dnsName: 'x.y' }, 'admin');
    await registry.expose({ ...WEB, dnsName: 'x.y' }, 'admin');
    await expectFault(
      registry.apply(
        { ...DESIRED, sites: DESIRED.sites.with(1, site('site-a', { zone: 'y' })) },
        'file'
      ),
      'the exposure of "web" to "site-a", kept by the admin, would no longer fit: x.y is the name of "mq" in "site-a" already'
    );
  });

  test('change places in one step', async () => {
    const exposures = [
      { ...MQ, dnsName: 'one' },
      { ...WEB, dnsName: 'two' },
    ];
    const { registry, touched } = await openScene({ ...DESIRED, exposures });
    const swapped = exposures.map((each, i) => ({ ...each, dnsName: exposures[1 - i]!.dnsName }));
    await registry.apply({ ...DESIRED, exposures: swapped }, 'file');
    expect(touched()).toEqual(['site-a/mq', 'site-a/web']);
  });

  test('in conflict: the exposure that is later in the file is at fault', async () => {
    const exposures = [MQ, { ...WEB, dnsName: 'www' }];
    const { registry } = await openScene({ ...DESIRED, exposures });
    const path = await expectFault(
      registry.apply({ ...DESIRED, exposures: [{ ...MQ, dnsName: 'www' }, exposures[1]] }, 'file'),
      `exposures[1].dnsName: www.site-a.test is the name of "mq" ${TAKEN}`
    );
    expect(path).toBe('exposures[1].dnsName');
  });
});

describe('an address', () => {
  const BOTH = { pools: ['10.0.0.128/25', 'fd00::/64'], reserved: ['10.0.0.254'] };
  const SITES = DESIRED.sites.with(1, site('site-a', BOTH));

  test.each<[address: string, message: string]>([
    ['10.0.0.9', 'address: 10.0.0.9 is not in the pools of "site-a"'],
    ['10.0.0.254', 'address: 10.0.0.254 is reserved in "site-a"'],
    ['fd00::9', 'address: fd00::9 is no IPv4 address, as the presence in "site-a" is'],
    ['10.0.0.200', 'address: 10.0.0.200 is the address of "mq" in "site-a" already'],
    ['10.0.0', 'address: "10.0.0" is not an IP address'],
  ])('%s is refused', async (address, message) => {
    const exposures = [{ ...MQ, address: '10.0.0.200' }];
    const { registry } = await openScene({ ...DESIRED, sites: SITES, exposures });
    await expectFault(registry.expose({ ...WEB, address }, 'admin'), message);
  });

  test('is one for all services of a host', async () => {
    const services = [...DESIRED.services, service('mq-2', { ports: ['tcp/5671'] })];
    const exposures = [{ ...MQ, address: '10.0.0.200' }];
    const { registry } = await openScene({ ...DESIRED, services, exposures });
    const second = { service: 'mq-2', site: 'site-a' };
    await expectFault(
      registry.expose({ ...second, address: '10.0.0.201' }, 'admin'),
      'address: "mq", a service of the same host, has 10.0.0.200 in "site-a"'
    );
    await registry.expose({ ...second, address: '10.0.0.200' }, 'admin');
    await registry.expose(second, 'admin');
    await registry.expose({ ...second, address: '10.0.0.200' }, 'admin');
    await expectFault(
      registry.putService(service('mq', { address: '10.0.0.9' }), 'file'),
      'the exposure of "mq-2" to "site-a", kept by the admin, would no longer fit: 10.0.0.200 is the address of "mq" in "site-a" already'
    );
  });

  test('stays within the pools of its site', async () => {
    const { registry } = await openScene();
    await registry.expose({ ...MQ, address: '10.0.0.200' }, 'admin');
    await expectFault(
      registry.putSite(site('site-a', { pools: ['10.0.0.128/26'] }), 'file'),
      'the exposure of "mq" to "site-a", kept by the admin, would no longer fit: 10.0.0.200 is not in the pools of "site-a"'
    );
  });
});
