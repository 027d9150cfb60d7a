import { Resolver } from 'node:dns/promises';
import { afterEach, describe, expect, test } from 'vitest';
import {
  DnsListener,
  type ResponseRateOptions,
  SiteResolver,
  type SiteResolverOptions,
} from '../../src/dns/index.ts';
import { ConfigError } from '../../src/errors.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { decodeAnswer, query, ZONE } from './scene.ts';

const open: DnsListener[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((listener) => listener.close()));
});

type Outcome = 'whole' | 'truncated' | 'refused' | 'formerr' | 'silence';

/** A resolver for 10.0.0.0/8 and 2001:db8::/32, and a clock that only the test advances. */
class Site {
  readonly resolver: SiteResolver;
  readonly clock = new FakeClock();

  constructor(rateLimit: ResponseRateOptions, options: SiteResolverOptions = {}) {
    const allow = ['10.0.0.0/8', '2001:db8::/32', 'loopback'];
    this.resolver = new SiteResolver({
      zone: ZONE,
      allow,
      rateLimit,
      clock: this.clock,
      ...options,
    });
  }

  ask(address: string, transport: 'udp' | 'tcp' = 'udp', bytes = ASKED): Outcome {
    const answer = this.resolver.resolve(bytes, transport, address);
    if (answer instanceof Promise) throw new Error('nothing is forwarded here');
    if (answer === undefined) return 'silence';
    const { rcode, flag_tc, flag_ra, answers } = decodeAnswer(answer);
    if (rcode === 'FORMERR') return 'formerr';
    if (rcode === 'REFUSED') return 'refused';
    if (!flag_tc) return 'whole';
    expect(answers).toEqual([]);
    expect(flag_ra).toBe(true);
    expect(answer.length).toBeLessThanOrEqual(bytes.length);
    return 'truncated';
  }

  /** Asks `count` times. Returns the number of times of each outcome. */
  flood(address: string, count: number, bytes = ASKED): Partial<Record<Outcome, number>> {
    const seen: Partial<Record<Outcome, number>> = {};
    for (let i = 0; i < count; i++) {
      const outcome = this.ask(address, 'udp', bytes);
      seen[outcome] = (seen[outcome] ?? 0) + 1;
    }
    return seen;
  }
}

const ASKED = query('large.openstack.test', 'A', 4096);
/** Two questions. */
const MALFORMED = Buffer.from('12340100000200000000000000000100010000010001', 'hex');

describe('the rate of answers by UDP', () => {
  test('allows a burst of one second, then as many answers as the time brings', () => {
    const site = new Site({ responsesPerSecond: 10 });
    expect(site.flood('10.0.0.5', 30)).toEqual({ whole: 10, truncated: 20 });
    site.clock.advance(300);
    expect(site.flood('10.0.0.5', 30)).toEqual({ whole: 3, truncated: 27 });
    site.clock.advance(3_600_000);
    expect(site.flood('10.0.0.5', 30)).toEqual({ whole: 10, truncated: 20 });
    expect(site.resolver.counters).toMatchObject({ success: 23, rateSlipped: 67, rateDropped: 0 });
  });

  test.each([
    [0, { whole: 10, silence: 60 }],
    [1, { whole: 10, truncated: 60 }],
    [2, { whole: 10, truncated: 30, silence: 30 }],
    [10, { whole: 10, truncated: 6, silence: 54 }],
  ])('truncates and drops answers by a slip of %d', (slip, expected) => {
    const site = new Site({ responsesPerSecond: 10, slip });
    expect(site.flood('10.0.0.5', 70)).toEqual(expected);
  });

  test('counts an IPv4 /24 or an IPv6 /56, and a mapped address as IPv4', () => {
    const site = new Site({ responsesPerSecond: 1 });
    for (const [address, expected] of [
      ['10.0.0.5', 'whole'],
      ['10.0.0.250', 'truncated'],
      ['::ffff:10.0.0.6', 'truncated'],
      ['10.0.1.5', 'whole'],
      ['2001:db8:0:1200::1', 'whole'],
      ['2001:db8:0:12ff:ffff::1', 'truncated'],
      ['2001:db8:0:1300::1', 'whole'],
    ] as const) {
      expect(site.ask(address), address).toBe(expected);
    }
  });

  test('does not limit TCP, loopback and exempt clients', () => {
    const site = new Site({ responsesPerSecond: 1 });
    for (let i = 0; i < 100; i++) {
      expect(site.ask('10.0.0.5', 'tcp')).toBe('whole');
      expect(site.ask('127.0.0.1')).toBe('whole');
      expect(site.ask('::1')).toBe('whole');
    }
    const exempt = new Site({ responsesPerSecond: 1, exempt: ['10.0.0.5'] });
    expect(exempt.flood('10.0.0.5', 100)).toEqual({ whole: 100 });
    expect(exempt.flood('127.0.0.1', 100)).toEqual({ whole: 1, truncated: 99 });
  });

  test('counts errors separately, and drops them beyond the rate without truncation', () => {
    const site = new Site({ responsesPerSecond: 10, errorsPerSecond: 3 });
    expect(site.flood('192.0.2.1', 20)).toEqual({ refused: 3, silence: 17 });
    expect(site.flood('10.0.0.5', 20, MALFORMED)).toEqual({ formerr: 3, silence: 17 });
    expect(site.ask('10.0.0.5')).toBe('whole');
    expect(site.resolver.counters).toMatchObject({
      notAllowed: 3,
      malformed: 3,
      rateDropped: 34,
      rateSlipped: 0,
    });
  });

  test('costs no upstream a query beyond it', () => {
    let asked = 0;
    const exchange = (): Promise<undefined> => {
      asked++;
      return Promise.resolve(undefined);
    };
    const site = new Site(
      { responsesPerSecond: 5 },
      { forward: [{ suffix: '.', upstreams: ['192.0.2.53'] }], forwarder: { exchange } }
    );
    for (let i = 0; i < 50; i++) {
      void site.resolver.resolve(query(`n${i}.example.org`, 'A'), 'udp', '10.0.0.5');
    }
    expect(asked).toBe(5);
  });

  test('is 1000 answers and 50 errors per second by default', () => {
    const site = new Site({});
    expect(site.flood('10.0.0.5', 2000)).toEqual({ whole: 1000, truncated: 1000 });
    expect(site.flood('192.0.2.1', 100)).toEqual({ refused: 50, silence: 50 });
  });

  test('does not limit a new network while more networks flood than it remembers', () => {
    const site = new Site({ responsesPerSecond: 2, errorsPerSecond: 1 });
    for (let i = 0; i < 40_000; i++) site.ask(`172.${16 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`);
    for (let i = 0; i < 40_000; i++) site.ask(`11.${i >> 8}.${i & 255}.1`);
    expect(site.flood('10.0.0.5', 3)).toEqual({ whole: 2, truncated: 1 });
  });

  test.each<[string, ResponseRateOptions]>([
    ['rateLimit.responsesPerSecond', { responsesPerSecond: 0 }],
    ['rateLimit.errorsPerSecond', { errorsPerSecond: 0.5 }],
    ['rateLimit.slip', { slip: 11 }],
  ])('is refused out of its range: %s', (path, rateLimit) => {
    expect(() => new SiteResolver({ rateLimit })).toThrow(ConfigError);
    expect(() => new SiteResolver({ rateLimit })).toThrow(expect.objectContaining({ path }));
  });

  test("makes Node's own resolver ask by TCP, where it gets the whole answer", async () => {
    const { resolver } = new Site({ responsesPerSecond: 1, exempt: [] });
    const listener = await DnsListener.listen({ resolver, listen: '127.0.0.1:0' });
    open.push(listener);
    const client = new Resolver({ tries: 1 });
    client.setServers([`127.0.0.1:${listener.address.port}`]);
    for (let i = 0; i < 5; i++) {
      expect(await client.resolve4('keystone.openstack.test')).toEqual(['100.64.0.2']);
    }
    expect(resolver.counters).toMatchObject({ rateSlipped: 4 });
    expect(listener.counters.tcpConnections).toBeGreaterThan(0);
  });
});
