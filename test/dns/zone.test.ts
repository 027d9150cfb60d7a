import { describe, expect, test } from 'vitest';
import { RecordType, Zone, type ZoneData } from '../../src/dns/index.ts';
import { ConfigError } from '../../src/errors.ts';
import { ZONE, ZONE_DATA } from './scene.ts';

const { A, AAAA, NS, PTR, SOA, SRV, TXT, ANY } = RecordType;
const HTTPS = 65;

/** Returns the outcome and the data of all answers, so that a case fits on a line. */
function ask(name: string, type: number, zone: Zone = ZONE): [string, ...unknown[]] {
  const { outcome, answers } = zone.lookup(name, type);
  return [outcome, ...answers.map(({ content }) => content.data)];
}

function compile(change: Partial<ZoneData>): Zone {
  return Zone.compile({ ...ZONE_DATA, ...change });
}

describe('Zone', () => {
  test.each([
    ['a name relative to the origin', 'keystone.openstack.test', A, ['success', '100.64.0.2']],
    ['the same with a trailing dot', 'keystone.openstack.test.', A, ['success', '100.64.0.2']],
    ['the same in another case', 'KeyStone.OpenStack.TEST', A, ['success', '100.64.0.2']],
    ['IPv6', 'rabbit.mq.openstack.test', AAAA, ['success', '2001:db8:64::3']],
    ['AAAA of an IPv4-only name', 'keystone.openstack.test', AAAA, ['nodata']],
    ['A of an IPv6-only name', 'v6only.openstack.test', A, ['nodata']],
    ['HTTPS of a name of the zone', 'keystone.openstack.test', HTTPS, ['nodata']],
    ['an unknown type of a name of the zone', 'keystone.openstack.test', 65_280, ['nodata']],
    ['TXT', 'rabbit.mq.openstack.test', TXT, ['success', 'vhost=/nova']],
    ['the nameserver', 'ns.openstack.test', A, ['success', '100.64.0.1']],
    ['NS at the apex', 'openstack.test', NS, ['success', 'ns.openstack.test.']],
    ['A at the apex', 'openstack.test', A, ['nodata']],
    ['an empty non-terminal', 'mq.openstack.test', A, ['nodata']],
    ['ANY of an empty non-terminal', 'mq.openstack.test', ANY, ['nodata']],
    ['the name above an SRV record', '_tcp.keystone.openstack.test', SRV, ['nodata']],
    ['a missing name', 'nova.openstack.test', A, ['nxdomain']],
    ['a name below an existing one', 'x.keystone.openstack.test', A, ['nxdomain']],
    ['a name below a missing one', 'a.b.c.nova.openstack.test', A, ['nxdomain']],
    ['the parent of the origin', 'test', A, ['not-authoritative']],
    ['the root', '.', NS, ['not-authoritative']],
    ['another zone', 'example.org', A, ['not-authoritative']],
    ['a name that ends in the same letters', 'myopenstack.test', A, ['not-authoritative']],
    [
      'PTR of an IPv4 presence',
      '2.0.64.100.in-addr.arpa',
      PTR,
      ['success', 'keystone.openstack.test.'],
    ],
    [
      'PTR to a name elsewhere',
      '9.0.64.100.in-addr.arpa',
      PTR,
      ['success', 'compute-1.site-a.example.org.'],
    ],
    ['PTR of a free address of the pool', '7.15.64.100.in-addr.arpa', PTR, ['nxdomain']],
    ['an empty non-terminal of a reverse zone', '3.64.100.in-addr.arpa', PTR, ['nodata']],
    [
      'PTR of an address outside of the pool',
      '7.16.64.100.in-addr.arpa',
      PTR,
      ['not-authoritative'],
    ],
    ['the name above a reverse zone', '64.100.in-addr.arpa', PTR, ['not-authoritative']],
    [
      'PTR of an IPv6 presence',
      `3.${'0.'.repeat(15)}0.0.0.0.4.6.0.0.8.b.d.0.1.0.0.2.ip6.arpa`,
      PTR,
      ['success', 'rabbit.mq.openstack.test.'],
    ],
    [
      'PTR of a free IPv6 address of the pool',
      `4.${'0.'.repeat(15)}0.0.0.0.4.6.0.0.8.b.d.0.1.0.0.2.ip6.arpa`,
      PTR,
      ['nxdomain'],
    ],
  ] as const)('answers %s (%s)', (_, name, type, expected) => {
    expect(ask(name, type)).toEqual(expected);
  });

  test('answers SRV with the port and the target, and adds the addresses of the target', () => {
    const { outcome, answers, additional } = ZONE.lookup(
      '_amqp._tcp.rabbit.mq.openstack.test',
      SRV
    );
    expect(outcome).toBe('success');
    expect(answers.map(({ content }) => content.data)).toEqual([
      { priority: 0, weight: 0, port: 5672, target: 'rabbit.mq.openstack.test.' },
    ]);
    expect(additional.map(({ content }) => content.data)).toEqual(['100.64.0.3', '2001:db8:64::3']);
  });

  test('answers ANY with one HINFO record (RFC 8482)', () => {
    expect(ask('rabbit.mq.openstack.test', ANY)).toEqual(['success', { cpu: 'RFC8482', os: '' }]);
  });

  test('gives the SOA its own TTL at the apex, and the lesser TTL in a negative answer (RFC 2308)', () => {
    const [soa] = ZONE.lookup('openstack.test', SOA).answers;
    expect(soa).toMatchObject({
      name: 'openstack.test.',
      ttlSeconds: 60,
      content: {
        data: {
          mname: 'ns.openstack.test.',
          rname: 'hostmaster.openstack.test.',
          serial: 7,
          minimum: 10,
        },
      },
    });
    for (const name of ['nova.openstack.test', 'keystone.openstack.test']) {
      expect(ZONE.lookup(name, AAAA).authority).toMatchObject([
        { name: 'openstack.test.', ttlSeconds: 10, content: { type: 'SOA' } },
      ]);
    }
    const shortLived = compile({ ttlSeconds: 5 });
    expect(shortLived.lookup('nova.openstack.test', A).authority[0]!.ttlSeconds).toBe(5);
  });

  test('gives a negative answer the SOA of the reverse zone, not of its parent', () => {
    expect(ZONE.lookup('7.15.64.100.in-addr.arpa', PTR).authority[0]!.name).toBe(
      '15.64.100.in-addr.arpa.'
    );
  });

  test('merges entries of one name and drops records given twice', () => {
    const zone = compile({
      hosts: [
        { name: 'nova', addresses: ['192.0.2.1', '192.0.2.1'] },
        { name: 'NOVA.openstack.test', addresses: ['192.0.2.2', '192.0.2.1', '2001:DB8::1'] },
        { name: 'nova.openstack.test.', addresses: ['2001:db8:0::1'] },
      ],
    });
    expect(ask('nova.openstack.test', A, zone)).toEqual(['success', '192.0.2.1', '192.0.2.2']);
    expect(ask('nova.openstack.test', AAAA, zone)).toEqual(['success', '2001:db8::1']);
  });

  test('answers for a host without records that it has no data', () => {
    const zone = compile({ hosts: [{ name: 'bare', addresses: [] }] });
    expect(ask('bare.openstack.test', A, zone)).toEqual(['nodata']);
    expect(ask('bare.openstack.test', ANY, zone)).toEqual(['nodata']);
  });

  test('serves a pointer outside of every reverse prefix as its own zone', () => {
    const zone = compile({ reverse: [], pointers: [{ address: '192.0.2.7', name: 'nova' }] });
    expect(ask('7.2.0.192.in-addr.arpa', PTR, zone)).toEqual(['success', 'nova.openstack.test.']);
    expect(ask('8.2.0.192.in-addr.arpa', PTR, zone)).toEqual(['not-authoritative']);
  });

  test.each([
    ['0.0.0.0/0', 'in-addr.arpa', 1],
    ['10.0.0.0/8', '10.in-addr.arpa', 1],
    ['100.64.0.0/10', '127.100.in-addr.arpa', 64],
    ['192.0.2.128/25', '255.2.0.192.in-addr.arpa', 128],
    ['192.0.2.1/32', '1.2.0.192.in-addr.arpa', 1],
    ['2001:db8::/32', '8.b.d.0.1.0.0.2.ip6.arpa', 1],
    ['2001:db8::/33', '7.8.b.d.0.1.0.0.2.ip6.arpa', 8],
    ['::/1', '7.ip6.arpa', 8],
  ])('splits %s into reverse zones, the last one %s', (prefix, lastZone, count) => {
    const zone = compile({ reverse: [prefix], pointers: [] });
    expect(zone.lookup(lastZone, SOA).outcome).toBe('success');
    const [first, ...rest] = lastZone.split('.');
    const siblings = Array.from({ length: 256 }, (_, i) =>
      lastZone.endsWith('ip6.arpa') ? i.toString(16) : `${i}`
    );
    const served = siblings.filter(
      (label) => zone.lookup([label, ...rest].join('.'), SOA).outcome === 'success'
    );
    expect(served).toHaveLength(lastZone === 'in-addr.arpa' ? 0 : count);
    if (served.length > 0) expect(served.at(-1)).toBe(first);
  });

  test('answers for names between two nested reverse zones that they exist (RFC 8020)', () => {
    const zone = compile({ reverse: ['100.64.0.0/16', '100.64.5.7/32'], pointers: [] });
    expect(ask('5.64.100.in-addr.arpa', PTR, zone)).toEqual(['nodata']);
    expect(ask('6.64.100.in-addr.arpa', PTR, zone)).toEqual(['nxdomain']);
  });

  test('splits a text longer than 255 bytes into strings of one record', () => {
    const zone = compile({
      hosts: [{ name: 'nova', addresses: [], texts: ['x'.repeat(600), ''] }],
    });
    const [long, empty] = zone.lookup('nova.openstack.test', TXT).answers;
    const data = Buffer.from(long!.wire.subarray(long!.bodyOffset + 10));
    expect([data[0], data[256], data[512], data.length]).toEqual([255, 255, 90, 603]);
    expect(Buffer.from(empty!.wire.subarray(empty!.bodyOffset + 8)).toString('hex')).toBe('000100');
  });

  const label64 = 'a'.repeat(64);
  const name252 = `${'a.'.repeat(119)}openstack.test.`;
  test.each<[string, Partial<ZoneData>, string, string]>([
    ['an empty origin', { origin: '' }, 'origin', 'empty label'],
    ['the root as origin', { origin: '.' }, 'origin', 'empty label'],
    [
      'a label of 64',
      { hosts: [{ name: label64, addresses: [] }] },
      'hosts[0].name',
      '64 characters',
    ],
    [
      'a name of 254',
      {
        hosts: [
          { name: `aa${name252.slice(1)}`, addresses: [] },
          { name: `aaa${name252.slice(1)}`, addresses: [] },
        ],
      },
      'hosts[1].name',
      '254 characters',
    ],
    [
      'an empty label',
      { hosts: [{ name: 'a..b', addresses: [] }] },
      'hosts[0].name',
      'empty label',
    ],
    ['an empty name', { hosts: [{ name: '', addresses: [] }] }, 'hosts[0].name', 'empty label'],
    ['a NUL', { hosts: [{ name: 'a\0b', addresses: [] }] }, 'hosts[0].name', '"a\\u0000b"'],
    ['a blank', { hosts: [{ name: 'a b', addresses: [] }] }, 'hosts[0].name', '"a b"'],
    [
      'an escaped dot',
      { hosts: [{ name: 'a\\.b', addresses: [] }] },
      'hosts[0].name',
      'characters other',
    ],
    ['a wildcard', { hosts: [{ name: '*', addresses: [] }] }, 'hosts[0].name', '"*"'],
    ['a hyphen at the edge', { hosts: [{ name: '-a', addresses: [] }] }, 'hosts[0].name', 'hyphen'],
    [
      'a letter outside of ASCII',
      { hosts: [{ name: 'münchen', addresses: [] }] },
      'hosts[0].name',
      'münchen',
    ],
    [
      'a name outside of the zone',
      { hosts: [{ name: 'nova.example.org.', addresses: [] }] },
      'hosts[0].name',
      'not within the zone openstack.test.',
    ],
    [
      'a bad address',
      { hosts: [{ name: 'a', addresses: ['10.0.0.1', '10.0.0'] }] },
      'hosts[0].addresses[1]',
      '"10.0.0"',
    ],
    [
      'port 0',
      { hosts: [{ name: 'a', addresses: [], ports: [{ protocol: 'tcp', port: 0 }] }] },
      'hosts[0].ports[0].port',
      '0 is not an integer from 1 to 65535',
    ],
    [
      'a service of two labels',
      {
        hosts: [
          { name: 'a', addresses: [], ports: [{ protocol: 'tcp', port: 1, service: 'a.b' }] },
        ],
      },
      'hosts[0].ports[0].service',
      '"a.b"',
    ],
    [
      'a bad pointer address',
      { pointers: [{ address: 'x', name: 'a' }] },
      'pointers[0].address',
      '"x"',
    ],
    [
      'a bad pointer name',
      { pointers: [{ address: '10.0.0.1', name: 'a..' }] },
      'pointers[0].name',
      'empty label',
    ],
    [
      'a prefix with host bits',
      { reverse: ['10.0.0.1/8'] },
      'reverse[0]',
      'did you mean 10.0.0.0/8',
    ],
    [
      'a nameserver outside of the zone',
      { nameserver: 'ns.example.org.' },
      'nameserver',
      'not within',
    ],
    [
      'a bad nameserver address',
      { nameserverAddresses: ['::g'] },
      'nameserverAddresses[0]',
      '"::g"',
    ],
    ['a negative TTL below 0', { negativeTtlSeconds: -1 }, 'negativeTtlSeconds', '-1'],
    ['a TTL over 31 bits', { ttlSeconds: 2 ** 31 }, 'ttlSeconds', '2147483648'],
    ['a serial over 32 bits', { serial: 2 ** 32 }, 'serial', '4294967296'],
    [
      'more addresses than a message holds',
      {
        hosts: [
          {
            name: 'a',
            addresses: Array.from({ length: 4096 }, (_, i) => `10.0.${i >> 8}.${i & 255}`),
          },
        ],
      },
      '',
      'the A records of a.openstack.test. take 65536 bytes',
    ],
  ])('refuses %s', (_, change, path, message) => {
    const error = (() => {
      try {
        compile(change);
      } catch (error) {
        return error as ConfigError;
      }
      return undefined;
    })();
    expect(error).toBeInstanceOf(ConfigError);
    expect(error!.path).toBe(path);
    expect(error!.message).toContain(message);
  });
});
