/** Aliases, wildcards, and SVCB and HTTPS records of a zone. */
import { describe, expect, test } from 'vitest';
import { RecordType, Zone, type ZoneData, type ZoneHost } from '../../src/dns/index.ts';
import { ZONE_DATA } from './scene.ts';

const { A, AAAA, CNAME, SRV, TXT, HTTPS, SVCB, ANY } = RecordType;

function zoneOf(...hosts: ZoneHost[]): Zone {
  return Zone.compile({ ...ZONE_DATA, hosts });
}

/** Returns the outcome, and the owner and data of each answer. */
function ask(zone: Zone, name: string, type: number): [string, ...unknown[]] {
  const { outcome, answers } = zone.lookup(`${name}.openstack.test`, type);
  return [outcome, ...answers.map(({ name: owner, content }) => [short(owner), content.data])];
}

function short(owner: string): string {
  return owner.replace(/\.openstack\.test\.$/, '');
}

function additionalOf(zone: Zone, name: string, type: number): unknown[] {
  const { additional } = zone.lookup(`${name}.openstack.test`, type);
  return additional.map(({ name: owner, content }) => [short(owner), content.data]);
}

const KEYSTONE = 'keystone.openstack.test.';

describe('an alias', () => {
  const zone = zoneOf(
    {
      name: 'keystone',
      addresses: ['100.64.0.2'],
      aliases: ['identity', 'auth.v3', 'Keystone-Public.openstack.test', '*.apps'],
      bindings: [{ type: 'HTTPS', priority: 1, port: 5000 }],
      texts: ['v=3'],
    },
    { name: 'nova', addresses: ['100.64.0.4'], aliases: ['keystone', 'ns', 'compute'] },
    { name: 'bare', addresses: [] },
    { name: 'glance', addresses: ['100.64.0.5'], aliases: ['bare', 'compute'] }
  );

  test.each([
    ['A', 'identity', A, ['success', ['identity', KEYSTONE], ['keystone', '100.64.0.2']]],
    [
      'A in another case',
      'IDENTITY',
      A,
      ['success', ['identity', KEYSTONE], ['keystone', '100.64.0.2']],
    ],
    ['TXT', 'identity', TXT, ['success', ['identity', KEYSTONE], ['keystone', 'v=3']]],
    ['CNAME', 'identity', CNAME, ['success', ['identity', KEYSTONE]]],
    ['ANY, with the CNAME alone (RFC 8482)', 'identity', ANY, ['success', ['identity', KEYSTONE]]],
    ['AAAA: no data behind it', 'identity', AAAA, ['nodata', ['identity', KEYSTONE]]],
    [
      'A of a full name',
      'keystone-public',
      A,
      ['success', ['keystone-public', KEYSTONE], ['keystone', '100.64.0.2']],
    ],
    ['the name above it', 'v3', A, ['nodata']],
    ['a name below it', 'x.identity', A, ['nxdomain']],
    ['a wildcard', 'x.apps', A, ['success', ['x.apps', KEYSTONE], ['keystone', '100.64.0.2']]],
    ['CNAME of a wildcard', 'x.y.apps', CNAME, ['success', ['x.y.apps', KEYSTONE]]],
    ['the name above a wildcard', 'apps', CNAME, ['nodata']],
    ['the asterisk itself', '*.apps', CNAME, ['success', ['*.apps', KEYSTONE]]],
    ['a name below the asterisk', 'x.*.apps', A, ['nxdomain']],
    ['a host of its name, which stays', 'keystone', A, ['success', ['keystone', '100.64.0.2']]],
    ['the nameserver, which stays', 'ns', A, ['success', ['ns', '100.64.0.1']]],
    ['a host without records, which stays', 'bare', A, ['nodata']],
    [
      'the same alias of a host that sorts later',
      'compute',
      CNAME,
      ['success', ['compute', 'glance.openstack.test.']],
    ],
  ] as const)('answers %s', (_, name, type, expected) => {
    expect(ask(zone, name, type)).toEqual(expected);
  });

  test('brings the addresses that the records behind it point to', () => {
    expect(additionalOf(zone, 'identity', HTTPS)).toEqual([['keystone', '100.64.0.2']]);
  });

  test('without data behind it has the SOA of the zone', () => {
    expect(zone.lookup('identity.openstack.test', AAAA).authority).toMatchObject([
      { name: 'openstack.test.', content: { type: 'SOA' }, ttlSeconds: 10 },
    ]);
  });

  test('gives way to records of its own host', () => {
    const own = zoneOf({
      name: 'mq',
      addresses: ['100.64.0.3'],
      ports: [{ protocol: 'tcp', port: 5672, service: 'amqp' }],
      aliases: ['mq', '_amqp._tcp.mq', 'queue', 'queue'],
    });
    expect(ask(own, 'mq', A)).toEqual(['success', ['mq', '100.64.0.3']]);
    expect(ask(own, '_amqp._tcp.mq', CNAME)).toEqual(['nodata']);
    expect(ask(own, 'queue', CNAME)).toEqual(['success', ['queue', 'mq.openstack.test.']]);
  });

  test('never leads to another alias, so that there is no loop', () => {
    const loop = zoneOf(
      { name: 'a', addresses: [], aliases: ['b', 'a', '*.a'] },
      { name: 'b', addresses: [], aliases: ['a', 'b', '*.b'] }
    );
    expect(ask(loop, 'a', A)).toEqual(['nodata']);
    expect(ask(loop, 'b', A)).toEqual(['nodata']);
    expect(ask(loop, 'x.a', A)).toEqual(['nodata', ['x.a', 'a.openstack.test.']]);
  });
});

describe('a wildcard (RFC 4592)', () => {
  const zone = zoneOf(
    {
      name: 'apps',
      addresses: ['100.64.0.2', '2001:db8:64::2'],
      wildcard: true,
      texts: ['any'],
      ports: [{ protocol: 'tcp', port: 443, service: 'https' }],
      bindings: [
        { type: 'HTTPS', priority: 1, alpn: ['h2'] },
        { type: 'HTTPS', prefix: '_8443._https', priority: 1, port: 8443 },
      ],
    },
    { name: 'web.apps', addresses: ['100.64.0.3'] },
    { name: 'x.team.apps', addresses: ['100.64.0.4'] }
  );

  test.each([
    ['a name below', 'shop.apps', A, ['success', ['shop.apps', '100.64.0.2']]],
    ['AAAA of it', 'shop.apps', AAAA, ['success', ['shop.apps', '2001:db8:64::2']]],
    ['TXT of it', 'shop.apps', TXT, ['success', ['shop.apps', 'any']]],
    ['a type that it lacks', 'shop.apps', SRV, ['nodata']],
    ['ANY of it', 'shop.apps', ANY, ['success', ['shop.apps', { cpu: 'RFC8482', os: '' }]]],
    ['a name two labels below', 'a.b.apps', A, ['success', ['a.b.apps', '100.64.0.2']]],
    ['the host itself', 'apps', A, ['success', ['apps', '100.64.0.2']]],
    ['the asterisk itself', '*.apps', A, ['success', ['*.apps', '100.64.0.2']]],
    ['a name below the asterisk', 'a.*.apps', A, ['nxdomain']],
    ['an existing name', 'web.apps', A, ['success', ['web.apps', '100.64.0.3']]],
    ['a type that an existing name lacks', 'web.apps', AAAA, ['nodata']],
    ['a name below an existing name', 'a.web.apps', A, ['nxdomain']],
    ['an empty non-terminal', 'team.apps', A, ['nodata']],
    ['a name below an empty non-terminal', 'y.team.apps', A, ['nxdomain']],
    ['a name below its SRV records', 'a._tcp.apps', A, ['nxdomain']],
    ['a name beside it', 'shop', A, ['nxdomain']],
  ] as const)('answers for %s', (_, name, type, expected) => {
    expect(ask(zone, name, type)).toEqual(expected);
  });

  test('answers for names that need escapes, and not for names that cannot be', () => {
    const octets = 'a\\000\\046b.apps.openstack.test';
    const [record] = zone.lookup(octets, A).answers;
    expect(record!.name).toBe(`${octets}.`);
    const owner = Buffer.from(record!.wire.subarray(0, record!.bodyOffset));
    expect(owner.toString('latin1')).toBe('\x04a\x00.b\x04apps\x09openstack\x04test\x00');
    const long = 'a'.repeat(64);
    const tooLong = 'a.'.repeat(120);
    for (const label of ['a.', '', long, 'a\\25', 'a\\256', 'a b', 'é', tooLong]) {
      expect(ask(zone, `${label}.apps`, A), label).toEqual(['nxdomain']);
    }
  });

  test('at the apex covers every missing name', () => {
    const all = zoneOf({ name: 'openstack.test.', addresses: ['100.64.0.2'], wildcard: true });
    expect(ask(all, 'a.b', A)).toEqual(['success', ['a.b', '100.64.0.2']]);
    expect(ask(all, 'a.ns', A)).toEqual(['nxdomain']);
  });

  test('has HTTPS records whose target is the name that was asked for', () => {
    const data = { priority: 1, target: '.', alpn: ['h2'] };
    expect(ask(zone, 'shop.apps', HTTPS)).toEqual(['success', ['shop.apps', data]]);
    expect(additionalOf(zone, 'shop.apps', HTTPS)).toEqual([
      ['shop.apps', '100.64.0.2'],
      ['shop.apps', '2001:db8:64::2'],
    ]);
  });
});

describe('SVCB and HTTPS (RFC 9460)', () => {
  /** Returns the data of the only record, in hexadecimal. */
  function rdata(binding: NonNullable<ZoneHost['bindings']>[number], name = 'web'): string {
    const zone = zoneOf({ name: 'web', addresses: ['100.64.0.2'], bindings: [binding] });
    const [record] = zone.lookup(`${name}.openstack.test`, RecordType[binding.type]).answers;
    return Buffer.from(record!.wire.subarray(record!.bodyOffset + 10)).toString('hex');
  }

  // The vectors of RFC 9460 appendix D that this module can say, with targets where it has them.
  test.each([
    [
      'AliasMode',
      { type: 'HTTPS', priority: 0, target: 'foo.example.com.' },
      '00000 3666f6f076578616d706c6503636f6d00',
    ],
    ['a target of "."', { type: 'SVCB', priority: 1 }, '000100'],
    [
      'a port',
      { type: 'SVCB', priority: 16, target: 'foo.example.com.', port: 53 },
      '001003666f6f076578616d706c6503636f6d00000300020035',
    ],
    [
      'protocols',
      { type: 'HTTPS', priority: 16, target: 'foo.example.org.', alpn: ['h2', 'h3-19'] },
      '001003666f6f076578616d706c65036f7267000001000902683205 68332d3139',
    ],
    [
      'protocols with a comma and a backslash',
      { type: 'SVCB', priority: 16, target: 'foo.example.org.', alpn: ['f\\oo,bar', 'h2'] },
      '001003666f6f076578616d706c65036f72670000 01000c08665c6f6f2c626172026832',
    ],
    [
      'keys in ascending order',
      { type: 'HTTPS', priority: 1, port: 8443, alpn: ['h2'] },
      '000100 00010003026832 0003000220fb',
    ],
  ] as const)('encodes %s', (_, binding, expected) => {
    expect(rdata(binding)).toBe(expected.replaceAll(' ', ''));
  });

  test('stand below the host with a prefix (sections 2.3 and 9.1)', () => {
    const prefix = '_8443._https';
    expect(rdata({ type: 'HTTPS', prefix, priority: 1, port: 8443 }, `${prefix}.web`)).toBe(
      '0001000003000220fb'
    );
  });

  test('bring the addresses of their targets, and in AliasMode also the records of their type', () => {
    const zone = zoneOf(
      {
        name: 'web',
        addresses: ['100.64.0.2'],
        bindings: [
          { type: 'HTTPS', priority: 1 },
          { type: 'HTTPS', priority: 2, target: 'backup' },
          { type: 'HTTPS', priority: 3, target: 'elsewhere.example.org.' },
        ],
      },
      { name: 'backup', addresses: ['2001:db8:64::3'] },
      { name: 'www', addresses: [], bindings: [{ type: 'HTTPS', priority: 0, target: 'web' }] },
      { name: 'off', addresses: ['100.64.0.9'], bindings: [{ type: 'SVCB', priority: 0 }] }
    );
    expect(additionalOf(zone, 'web', HTTPS)).toEqual([
      ['web', '100.64.0.2'],
      ['backup', '2001:db8:64::3'],
    ]);
    expect(additionalOf(zone, 'www', HTTPS).map((each) => (each as [string])[0])).toEqual([
      'web',
      'web',
      'web',
      'web',
    ]);
    expect(additionalOf(zone, 'off', SVCB)).toEqual([]);
    expect(ask(zone, 'backup', HTTPS)).toEqual(['nodata']);
  });
});

describe('a zone refuses', () => {
  const name252 = `${'a.'.repeat(119)}openstack.test`;
  test.each<[string, Partial<ZoneHost>, string, string]>([
    [
      'an alias outside of it',
      { aliases: ['a', 'b.org.'] },
      'hosts[0].aliases[1]',
      'not within the zone',
    ],
    ['an alias with an asterisk inside', { aliases: ['a.*.b'] }, 'hosts[0].aliases[0]', '"*"'],
    ['a host with an asterisk', { name: '*.a' }, 'hosts[0].name', '"*"'],
    [
      'a wildcard of a long name',
      { name: name252, wildcard: true },
      'hosts[0].wildcard',
      '254 characters',
    ],
    [
      'a prefix with a blank',
      { bindings: [{ type: 'SVCB', prefix: '_a b', priority: 1 }] },
      'hosts[0].bindings[0].prefix',
      '"_a b"',
    ],
    [
      'a priority over 16 bits',
      { bindings: [{ type: 'SVCB', priority: 65_536 }] },
      'hosts[0].bindings[0].priority',
      '65536',
    ],
    [
      'port 0',
      { bindings: [{ type: 'HTTPS', priority: 1, port: 0 }] },
      'hosts[0].bindings[0].port',
      '0 is not',
    ],
    [
      'a target with an empty label',
      { bindings: [{ type: 'HTTPS', priority: 1, target: 'a..b' }] },
      'hosts[0].bindings[0].target',
      'empty label',
    ],
    [
      'no protocol',
      { bindings: [{ type: 'HTTPS', priority: 1, alpn: [] }] },
      'hosts[0].bindings[0].alpn.length',
      '0 is not',
    ],
    [
      'an empty protocol',
      { bindings: [{ type: 'HTTPS', priority: 1, alpn: ['h2', ''] }] },
      'hosts[0].bindings[0].alpn[1]',
      '0 bytes',
    ],
    [
      'a protocol of 256 bytes',
      { bindings: [{ type: 'HTTPS', priority: 1, alpn: ['é'.repeat(128)] }] },
      'hosts[0].bindings[0].alpn[0]',
      '256 bytes',
    ],
    [
      'parameters in AliasMode',
      { bindings: [{ type: 'HTTPS', priority: 0, port: 1 }] },
      'hosts[0].bindings[0]',
      'AliasMode',
    ],
  ])('%s', (_, host, path, message) => {
    const data: ZoneData = { ...ZONE_DATA, hosts: [{ name: 'web', addresses: [], ...host }] };
    expect(() => Zone.compile(data)).toThrow(
      expect.objectContaining({
        name: 'ConfigError',
        path,
        message: expect.stringContaining(message),
      })
    );
  });
});
