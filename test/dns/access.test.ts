import { describe, expect, test } from 'vitest';
import { SiteResolver, type SiteResolverOptions } from '../../src/dns/index.ts';
import { ConfigError } from '../../src/errors.ts';
import { type Answer, decodeAnswer, query, ZONE } from './scene.ts';

/** Asks for a name of the zone; returns undefined if there is no answer. */
function ask(
  resolver: SiteResolver,
  address: string,
  transport: 'udp' | 'tcp' = 'udp'
): Answer | undefined {
  const bytes = resolver.resolve(query('keystone.openstack.test', 'A'), transport, address);
  if (bytes instanceof Promise) throw new Error('nothing is forwarded here');
  return bytes && decodeAnswer(bytes);
}

function rcodes(resolver: SiteResolver, addresses: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(addresses.map((address) => [address, ask(resolver, address)?.rcode]));
}

describe('the clients that may ask', () => {
  test('are loopback only before the sources are set, then also the current sources', () => {
    const resolver = new SiteResolver({ zone: ZONE });
    const clients = ['127.0.0.1', '127.8.8.8', '::1', '10.0.0.5', '10.0.1.5', '2001:db8::5'];
    expect(rcodes(resolver, clients)).toEqual({
      '127.0.0.1': 'NOERROR',
      '127.8.8.8': 'NOERROR',
      '::1': 'NOERROR',
      '10.0.0.5': 'REFUSED',
      '10.0.1.5': 'REFUSED',
      '2001:db8::5': 'REFUSED',
    });
    resolver.setSources(['10.0.0.0/24', '2001:db8::/64']);
    expect(rcodes(resolver, clients)).toMatchObject({
      '127.0.0.1': 'NOERROR',
      '10.0.0.5': 'NOERROR',
      '10.0.1.5': 'REFUSED',
      '2001:db8::5': 'NOERROR',
    });
    resolver.setSources(['10.0.1.0/24']);
    expect(rcodes(resolver, clients)).toMatchObject({
      '127.0.0.1': 'NOERROR',
      '10.0.0.5': 'REFUSED',
      '10.0.1.5': 'NOERROR',
      '2001:db8::5': 'REFUSED',
    });
    expect(resolver.counters).toMatchObject({ notAllowed: 3 + 1 + 2, refused: 0 });
  });

  test('are those of `allow` and no others', () => {
    const fixed = new SiteResolver({ zone: ZONE, allow: ['192.0.2.0/24', '2001:db8::5'] });
    fixed.setSources(['10.0.0.0/24']);
    const clients = ['192.0.2.9', '2001:db8::5', '2001:db8::6', '10.0.0.5', '127.0.0.1', '::1'];
    expect(clients.filter((address) => fixed.mayAsk(address))).toEqual([
      '192.0.2.9',
      '2001:db8::5',
    ]);
    const more = new SiteResolver({ zone: ZONE, allow: ['sources', '192.0.2.0/24'] });
    more.setSources(['10.0.0.0/24']);
    expect(clients.filter((address) => more.mayAsk(address))).toEqual(['192.0.2.9', '10.0.0.5']);
  });

  test('are found by the IPv4 part of a mapped address, and without the interface of a link-local one', () => {
    const resolver = new SiteResolver({ zone: ZONE, allow: ['10.0.0.0/24', 'fe80::/64'] });
    expect(resolver.mayAsk('::ffff:10.0.0.5')).toBe(true);
    expect(resolver.mayAsk('::ffff:10.0.1.5')).toBe(false);
    expect(resolver.mayAsk('fe80::1%lan0')).toBe(true);
    for (const text of ['', '%', '10.0.0', 'a host', '10.0.0.5 ']) {
      expect(resolver.mayAsk(text), text).toBe(false);
    }
  });

  test('are the only ones: others get REFUSED, no longer than the query, and neither zone nor upstream is asked', () => {
    const resolver = new SiteResolver({
      zone: ZONE,
      forward: [{ suffix: '.', upstreams: ['192.0.2.53'] }],
    });
    for (const name of ['large.openstack.test', 'example.org']) {
      const asked = query(name, 'A', 4096);
      const answer = resolver.resolve(asked, 'udp', '10.0.0.5') as Uint8Array;
      expect(decodeAnswer(answer)).toMatchObject({ id: 0x1234, rcode: 'REFUSED', answers: [] });
      expect(answer.length).toBeLessThanOrEqual(asked.length);
    }
    expect(ask(resolver, '10.0.0.5', 'tcp')?.rcode).toBe('REFUSED');
    expect(resolver.counters).toMatchObject({ notAllowed: 3, success: 0, failed: 0 });
  });

  test.each<[string, SiteResolverOptions, string]>([
    ['an unknown word', { allow: ['sources', 'everybody'] }, 'allow[1]'],
    ['host bits', { allow: ['10.0.0.5/24'] }, 'allow[0]'],
    [
      'an exemption that is no prefix',
      { rateLimit: { exempt: ['10.0.0.0/33'] } },
      'rateLimit.exempt[0]',
    ],
  ])('cannot be configured with %s', (_, options, path) => {
    expect(() => new SiteResolver(options)).toThrow(ConfigError);
    expect(() => new SiteResolver(options)).toThrow(expect.objectContaining({ path }));
  });

  test('stay the same when a new source is not a prefix', () => {
    const resolver = new SiteResolver({ zone: ZONE });
    resolver.setSources(['10.0.0.0/24']);
    expect(() => resolver.setSources(['10.0.1.0/24', '10.0.0'])).toThrow(
      expect.objectContaining({ path: 'sources[1]' })
    );
    expect(resolver.mayAsk('10.0.0.5')).toBe(true);
    expect(resolver.mayAsk('10.0.1.5')).toBe(false);
  });

  test('are right for more addresses than the table remembers', () => {
    const resolver = new SiteResolver({ zone: ZONE, allow: ['10.0.0.0/17'] });
    for (let round = 0; round < 2; round++) {
      for (let i = 0; i < 10_000; i++) {
        const address = `10.0.${i % 256}.${i >> 8}`;
        expect(resolver.mayAsk(address), address).toBe(i % 256 < 128);
      }
    }
  });
});
