/** The names of exposures on their way: from the exposure to a snapshot, as JSON, and to a zone. */
import { describe, expect, test } from 'vitest';
import { IpAddress } from '../../src/base/address.ts';
import { PortRange } from '../../src/base/port-range.ts';
import { parseSchema } from '../../src/base/schema.ts';
import {
  nameChangesBetween,
  type Snapshot,
  type SnapshotHost,
  zoneDataOf,
  zonePatchOf,
} from '../../src/control/index.ts';
import { type ExposedNames, serviceHost } from '../../src/control/service-names.ts';
import { SnapshotSchema } from '../../src/control/snapshot.ts';
import { RecordType, Zone } from '../../src/dns/index.ts';
import { ConfigError } from '../../src/errors.ts';

const { A, CNAME, HTTPS, SVCB, PTR } = RecordType;
type Names = Omit<ExposedNames, 'service' | 'site'>;

const ADDRESS = IpAddress.from('10.0.0.129');

function hostOf(names: Names): SnapshotHost {
  const ports = [PortRange.from('tcp/443')];
  return serviceHost({ service: 'web', site: 'site-a', ...names }, { ports }, ADDRESS, {
    zone: 'A.test',
  });
}

/** A snapshot as it is on the wire. */
function snapshotWith(...hosts: unknown[]): object {
  return JSON.parse(
    JSON.stringify({
      revision: 7,
      site: 'site-a',
      sources: ['10.0.0.0/24'],
      pools: ['10.0.0.128/25'],
      zone: 'a.test',
      ttlSeconds: 30,
      hosts,
      pointers: [{ address: '10.0.0.129', name: 'web.a.test' }],
    })
  );
}

function zoneOf(snapshot: object): Zone {
  return Zone.compile(zoneDataOf(parseSchema(SnapshotSchema, snapshot), ['10.0.0.254']));
}

function ask(zone: Zone, name: string, type: number): unknown[] {
  return zone.lookup(name, type).answers.map(({ content }) => content.data);
}

const FULL: Names = {
  dnsName: 'Shop',
  aliases: ['store', 'www.A.test'],
  wildcard: true,
  https: [
    { priority: 1, target: '.', alpn: ['h2'] },
    { prefix: '_8443._https', priority: 1, target: '.', port: 8443 },
  ],
  svcb: [{ prefix: '_dns', priority: 1, target: 'shop.a.test' }],
};

describe('a host of a snapshot', () => {
  test('has only what its exposure asks for', () => {
    const plain = { name: 'web.a.test', addresses: ['10.0.0.129'], ports: ['tcp/443'] };
    for (const names of [{}, { aliases: [], wildcard: false, https: [], svcb: [] }]) {
      expect(JSON.parse(JSON.stringify(hostOf(names)))).toEqual(plain);
    }
    expect(JSON.parse(JSON.stringify(hostOf(FULL)))).toEqual({
      name: 'shop.a.test',
      addresses: ['10.0.0.129'],
      ports: ['tcp/443'],
      aliases: ['store.a.test', 'www.a.test'],
      wildcard: true,
      https: FULL.https,
      svcb: FULL.svcb,
    });
  });

  test('becomes the records of a zone', () => {
    const zone = zoneOf(snapshotWith(hostOf(FULL)));
    expect(ask(zone, 'shop.a.test', A)).toEqual(['10.0.0.129']);
    expect(ask(zone, 'store.a.test', A)).toEqual(['shop.a.test.', '10.0.0.129']);
    expect(ask(zone, 'www.a.test', CNAME)).toEqual(['shop.a.test.']);
    expect(ask(zone, 'x.shop.a.test', A)).toEqual(['10.0.0.129']);
    expect(ask(zone, 'shop.a.test', HTTPS)).toMatchObject([{ target: '.', alpn: ['h2'] }]);
    expect(ask(zone, '_8443._https.shop.a.test', HTTPS)).toMatchObject([{ port: 8443 }]);
    expect(ask(zone, '_dns.shop.a.test', SVCB)).toMatchObject([{ target: 'shop.a.test.' }]);
  });

  test('of an older cloud has a name and addresses alone, and of a newer one more than is known here', () => {
    const old = { name: 'web.a.test', addresses: ['10.0.0.129'], ports: [] };
    const zone = zoneOf(snapshotWith(old, { ...old, name: 'new.a.test', later: { any: 1 } }));
    expect(ask(zone, 'web.a.test', A)).toEqual(['10.0.0.129']);
    expect(ask(zone, 'new.a.test', A)).toEqual(['10.0.0.129']);
    expect(ask(zone, 'x.web.a.test', A)).toEqual([]);
  });

  test('in AliasMode has no parameters, so that a zone takes it', () => {
    const https = [{ priority: 0, target: 'www.example.org', port: 1, alpn: ['h2'] }];
    const zone = zoneOf(snapshotWith(hostOf({ https })));
    const [data] = ask(zone, 'web.a.test', HTTPS);
    expect(data).toEqual({ priority: 0, target: 'www.example.org.' });
  });

  test.each([
    ['an alias that is no name', { aliases: ['a b'] }, 'hosts[0].aliases[0]'],
    ['a wildcard that is no boolean', { wildcard: 1 }, 'hosts[0].wildcard'],
    [
      'a priority over 16 bits',
      { https: [{ priority: 65_536, target: '.' }] },
      'hosts[0].https[0].priority',
    ],
    ['no target', { svcb: [{ priority: 1 }] }, 'hosts[0].svcb[0].target'],
    [
      'an empty protocol',
      { svcb: [{ priority: 1, target: '.', alpn: [''] }] },
      'hosts[0].svcb[0].alpn[0]',
    ],
  ])('is refused with %s', (_, more, path) => {
    const host = { name: 'web.a.test', addresses: [], ports: [], ...more };
    expect(() => parseSchema(SnapshotSchema, snapshotWith(host))).toThrow(
      expect.objectContaining({ constructor: ConfigError, path })
    );
  });
});

test('a patch of changed names makes the zone of the next snapshot', () => {
  const zone = zoneOf(snapshotWith(hostOf({}), hostOf({ dnsName: 'gone', aliases: ['old'] })));
  const changed = hostOf(FULL);
  zone.patch(
    zonePatchOf({
      revision: 2 ** 32 + 8,
      names: ['gone.a.test', 'shop.a.test'],
      hosts: [changed],
      addresses: [ADDRESS],
      pointers: [{ address: ADDRESS, name: 'shop.a.test' }],
    })
  );
  expect(zone.serial).toBe(8);
  expect(ask(zone, 'web.a.test', A)).toEqual(['10.0.0.129']);
  expect(ask(zone, 'store.a.test', A)).toEqual(['shop.a.test.', '10.0.0.129']);
  expect(zone.lookup('gone.a.test', A).outcome).toBe('nxdomain');
  expect(zone.lookup('old.a.test', A).outcome).toBe('nxdomain');
  expect(ask(zone, '129.0.0.10.in-addr.arpa', PTR)).toEqual(['shop.a.test.']);
});

describe('nameChangesBetween', () => {
  const parse = (hosts: unknown[], more: object = {}): Snapshot =>
    parseSchema(SnapshotSchema, { ...snapshotWith(...hosts), ...more });
  const before = parse([
    hostOf(FULL),
    hostOf({ dnsName: 'mq' }),
    hostOf({ dnsName: 'both' }),
    { name: 'both.a.test', addresses: ['10.0.0.130'], ports: [] },
    hostOf({ dnsName: 'gone' }),
  ]);

  test('finds nothing in the same snapshot, made again', () => {
    expect(nameChangesBetween(before, parse([...before.hosts], { revision: 8 }))).toEqual({
      revision: 8,
      names: [],
      hosts: [],
      addresses: [],
      pointers: [],
    });
  });

  test.each<[string, object]>([
    ['an address', { addresses: ['10.0.0.131'] }],
    ['one address more', { addresses: ['10.0.0.129', '10.0.0.131'] }],
    ['a port', { ports: ['tcp/444'] }],
    ['an alias', { aliases: ['store.a.test'] }],
    ['no alias', { aliases: undefined }],
    ['no wildcard', { wildcard: undefined }],
    ['an HTTPS record', { https: [{ priority: 2, target: '.' }] }],
    ['no SVCB record', { svcb: [] }],
  ])('finds a host that has changed: %s', (_, change) => {
    const [shop, ...others] = before.hosts;
    const after = parse([{ ...shop, ...change }, ...others]);
    const changes = nameChangesBetween(before, after)!;
    expect(changes.names).toEqual([]);
    expect(changes.hosts).toEqual([after.hosts[0]]);
  });

  test('finds what is gone, what is new, and all hosts of a name that has several', () => {
    const [shop, mq, , other] = before.hosts;
    const fresh = hostOf({ dnsName: 'new' });
    const pointers = [{ address: '10.0.0.130', name: 'both.a.test' }];
    const after = parse([fresh, shop, mq, other], { pointers });
    const changes = nameChangesBetween(before, after)!;
    expect(changes.names).toEqual(['gone.a.test']);
    expect(changes.hosts.map(({ name }) => name)).toEqual(['new.a.test', 'both.a.test']);
    expect(changes.addresses.map(String)).toEqual(['10.0.0.129']);
    expect(changes.pointers).toEqual(after.pointers);
    const zone = Zone.compile(zoneDataOf(before, []));
    zone.patch(zonePatchOf(changes));
    expect(ask(zone, 'both.a.test', A)).toEqual(['10.0.0.130']);
  });

  test.each([
    ['the zone', { zone: 'b.test' }],
    ['the TTL', { ttlSeconds: 31 }],
    ['the pools', { pools: ['10.0.0.128/25', '10.0.1.0/24'] }],
  ])('leaves a change of %s to a new zone', (_, more) => {
    expect(nameChangesBetween(before, parse([], more))).toBeUndefined();
  });
});
