/** The bytes of answers through aliases and wildcards. */
import { describe, expect, test } from 'vitest';
import { SiteResolver, Zone } from '../../src/dns/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { type Answer, decodeAnswer, LOCAL, query, ZONE, ZONE_DATA } from './scene.ts';

const resolver = new SiteResolver({ zone: ZONE });

function resolve(bytes: Uint8Array, transport: 'udp' | 'tcp' = 'udp'): Buffer {
  return Buffer.from(resolver.resolve(bytes, transport, LOCAL) as Uint8Array);
}

function ask(name: string, type: string, size?: number): Answer {
  return decodeAnswer(resolve(query(`${name}.openstack.test`, type, size)));
}

describe('an answer through an alias', () => {
  // 37 bytes of header and question, 34 of the CNAME record, 60 records of 16 bytes, 11 of OPT
  test.each([
    ['no EDNS', undefined, 'udp', true],
    ['one byte less than it takes', 1041, 'udp', true],
    ['exactly what it takes', 1042, 'udp', false],
    ['TCP', undefined, 'tcp', false],
  ] as const)('is truncated or not with %s', (_, size, transport, truncated) => {
    const bytes = resolve(query('huge.openstack.test', 'A', size), transport);
    const answer = decodeAnswer(bytes);
    expect(answer).toMatchObject({ rcode: 'NOERROR', flag_aa: true, flag_tc: truncated });
    expect(answer.answers).toHaveLength(truncated ? 0 : 61);
    if (truncated) return;
    expect(bytes.length).toBe(size ?? 1031);
    const owners = answer.answers.map(({ name }) => name);
    expect(new Set(owners)).toEqual(new Set(['huge.openstack.test', 'large.openstack.test']));
  });

  test('repeats the name of the question in its own case (0x20)', () => {
    const answer = ask('iDENtity', 'A');
    expect(answer.questions![0]!.name).toBe('iDENtity.openstack.test');
    expect(answer.answers).toMatchObject([
      { name: 'iDENtity.openstack.test', type: 'CNAME', data: 'keystone.openstack.test' },
      { name: 'keystone.openstack.test', type: 'A', data: '100.64.0.2' },
    ]);
  });

  test('fits a message by TCP, however long the names and the records are', () => {
    const [alias, host] = ['a', 'b'].map((label) => `${label}.`.repeat(119).slice(0, -1)) as [
      string,
      string,
    ];
    const addresses = (count: number): string[] =>
      Array.from({ length: count }, (_, i) => `10.0.${i >> 8}.${i & 255}`);
    const zoneOf = (count: number): Zone =>
      Zone.compile({
        ...ZONE_DATA,
        hosts: [{ name: host, addresses: addresses(count), aliases: [alias] }],
      });
    expect(() => zoneOf(4062)).toThrow('an answer holds 64986');
    const large = new SiteResolver({ zone: zoneOf(4061) });
    const bytes = large.resolve(query(`${alias}.openstack.test`, 'A', 1232), 'tcp', LOCAL);
    const answer = decodeAnswer(bytes as Uint8Array);
    expect(answer.flag_tc).toBe(false);
    expect(answer.answers).toHaveLength(4062);
    expect(answer.answers.at(-1)).toMatchObject({ name: `${host}.openstack.test`, type: 'A' });
  });

  test('without data has the CNAME, the SOA and no error', () => {
    const answer = ask('identity', 'AAAA');
    expect(answer).toMatchObject({ rcode: 'NOERROR', flag_aa: true });
    expect(answer.answers).toMatchObject([{ type: 'CNAME' }]);
    expect(answer.authorities).toMatchObject([{ name: 'openstack.test', type: 'SOA', ttl: 10 }]);
  });
});

describe('an answer by a wildcard', () => {
  test('repeats the name of the question in its own case (0x20)', () => {
    expect(ask('sHOp.Apps', 'A').answers).toMatchObject([
      { name: 'sHOp.Apps.openstack.test', type: 'A', ttl: 60, data: '100.64.0.5' },
    ]);
  });

  test('repeats every octet of the question, and the SOA if there is no data', () => {
    const labels = Buffer.from('\x05a\x00.\xff\\\x04apps\x09openstack\x04test\x00', 'latin1');
    for (const [type, records] of [
      [1, 'c00c 0001 0001 0000003c 0004 64400005'],
      [16, `c017 0006 0001 0000000a`],
    ] as const) {
      const asked = Buffer.concat([
        Buffer.from('123401000001000000000000', 'hex'),
        labels,
        Buffer.from([0, type, 0, 1]),
      ]);
      const bytes = resolve(asked);
      expect(bytes.subarray(12, asked.length)).toEqual(asked.subarray(12));
      expect(bytes.toString('hex', asked.length)).toMatch(
        new RegExp(`^${records.replaceAll(' ', '')}`)
      );
    }
  });

  test('says whether the name or only the type is missing', () => {
    expect(ask('shop.apps', 'TXT')).toMatchObject({ rcode: 'NOERROR', answers: [] });
    expect(ask('x.web.apps', 'A')).toMatchObject({ rcode: 'NXDOMAIN', answers: [] });
    expect(ask('apps.x', 'A')).toMatchObject({ rcode: 'NXDOMAIN', answers: [] });
    for (const name of ['shop.apps', 'x.web.apps']) {
      expect(ask(name, 'TXT').authorities).toMatchObject([{ name: 'openstack.test', type: 'SOA' }]);
    }
  });

  test('counts against the rate of the client, whatever the name is', () => {
    const limited = new SiteResolver({
      zone: ZONE,
      allow: ['10.0.0.0/8'],
      rateLimit: { responsesPerSecond: 10 },
      clock: new FakeClock(),
    });
    for (let i = 0; i < 30; i++) {
      const name = `${i}.${i % 2 === 0 ? 'apps' : 'sites'}.openstack.test`;
      limited.resolve(query(name, 'A'), 'udp', '10.0.0.5');
    }
    expect(limited.counters).toMatchObject({ success: 10, rateSlipped: 20 });
  });

  test('has the addresses of an HTTPS record as additional records, if they fit', () => {
    const owner = 'shop.apps.openstack.test';
    const { answers, additionals } = ask('shop.apps', 'UNKNOWN_65', 1232);
    expect(answers).toMatchObject([{ name: owner, type: 'UNKNOWN_65' }]);
    expect(additionals).toMatchObject([
      { name: owner, type: 'A', data: '100.64.0.5' },
      { name: owner, type: 'AAAA', data: '2001:db8:64::5' },
      { type: 'OPT' },
    ]);
  });
});
