import { describe, expect, test } from 'vitest';
import { IpAddress } from '../../../src/base/address.ts';
import { IpPrefix } from '../../../src/base/prefix.ts';
import { SiteView, type StackSite } from '../../../src/sockets/site/site-view.ts';
import { Random } from '../../support/random.ts';

const ip = IpAddress.parse;
const SITE: StackSite = {
  sources: ['10.0.0.0/24', '2001:db8::/64'],
  pools: ['10.0.0.128/25', '2001:db8::1:0/112'],
  zone: 'Example.test',
  hosts: [
    { name: 'bus.example.test', addresses: ['10.0.0.129'], ports: ['tcp/5672', 'udp/7'] },
    { name: 'api.example.test', addresses: ['10.0.0.130', '2001:db8::1:2'], ports: ['tcp/80-89'] },
    { name: 'www.example.test', addresses: ['10.0.0.130'], ports: ['tcp/443', 'icmp'] },
    { name: '10-0-0-7.cloud.example.test', addresses: ['10.0.0.140'], ports: [] },
  ],
};

function view(
  change: Partial<StackSite> = {},
  given: string[] = [],
  previous?: SiteView
): SiteView {
  return new SiteView({ ...SITE, ...change }, given.map(ip), previous);
}

function ownOf(sources: string[], pools: string[]): string[] {
  const made = view({ sources, pools });
  return [made.localAddress(4), made.localAddress(6)].map(String);
}

describe('the own address', () => {
  test.each([
    ['the address behind the network', ['10.0.0.0/24'], ['10.0.0.128/25'], '10.0.0.1'],
    ['behind a pool at the beginning', ['10.0.0.0/24'], ['10.0.0.0/25'], '10.0.0.128'],
    ['behind several pools', ['10.0.0.0/24'], ['10.0.0.4/30', '10.0.0.0/30'], '10.0.0.8'],
    ['a single host', ['10.0.0.0/32'], [], '10.0.0.0'],
    ['the first of two', ['10.0.0.0/31'], [], '10.0.0.0'],
    ['in the second prefix', ['10.0.0.0/24', '10.1.0.0/16'], ['10.0.0.0/24'], '10.1.0.1'],
    ['not the broadcast address', ['10.0.0.0/30'], ['10.0.0.1/32', '10.0.0.2/32'], 'undefined'],
    ['at the end of all addresses', ['255.255.255.254/31'], ['255.255.255.254/31'], 'undefined'],
    ['of the other family', ['2001:db8::/64'], [], 'undefined'],
    ['of no source', [], [], 'undefined'],
  ])('is by default %s', (_, sources, pools, expected) => {
    expect(ownOf(sources, pools)[0]).toBe(expected);
  });

  test.each([
    [['2001:db8::/64'], [], '2001:db8::1'],
    [['2001:db8::/64'], ['2001:db8::/112'], '2001:db8::1:0'],
    [['2001:db8::/127'], ['2001:db8::/128'], '2001:db8::1'],
    [['2001:db8::5/128'], [], '2001:db8::5'],
  ])('of the sources %j without %j is %s', (sources, pools, expected) => {
    expect(ownOf(sources, pools)[1]).toBe(expected);
  });

  test('is the first one that a host may have, for any sources and pools', () => {
    const seed = 20_261_130;
    const random = new Random(seed);
    const number = (below: number): number => random.below(below);
    const prefix = (): IpPrefix => IpPrefix.around(ip(`10.0.0.${number(256)}`), 24 + number(9));
    for (let i = 0; i < 300; i++) {
      const sources = [prefix(), prefix()].slice(number(2));
      const pools = Array.from({ length: number(5) }, prefix);
      const possible = sources.flatMap((source) =>
        Array.from({ length: source.size }, (_, at) => source.at(at)).filter((address, at) => {
          const isEdge = source.length < 31 && (at === 0 || at === source.size - 1);
          return !isEdge && !pools.some((pool) => pool.contains(address));
        })
      );
      const own = view({ sources, pools }).localAddress(4);
      expect(String(own), `seed ${seed}: ${sources} without ${pools}`).toBe(String(possible[0]));
    }
  });

  test('is what the option says, for its family, also if the cloud will not let it pass', () => {
    const made = view({}, ['10.0.0.9']);
    expect([made.localAddress(4), made.localAddress(6)].map(String)).toEqual([
      '10.0.0.9',
      '2001:db8::1',
    ]);
    expect(made.refusedAddresses).toEqual([]);
    const refused = view({}, ['10.0.0.129', '2001:db9::1']).refusedAddresses;
    expect(refused.map(String)).toEqual(['10.0.0.129', '2001:db9::1']);
  });

  test('stays when the site changes, as long as it is possible', () => {
    const before = view();
    const wider = view({ sources: ['9.0.0.0/24', '10.0.0.0/24'] }, [], before);
    expect(String(wider.localAddress(4))).toBe('10.0.0.1');
    const moved = view({ sources: ['9.0.0.0/24'] }, [], wider);
    expect(String(moved.localAddress(4))).toBe('9.0.0.1');
    expect(moved.localAddress(6)).toBeUndefined();
  });

  test('is compared with words of a packet', () => {
    const made = view();
    expect(made.isOwn(4, [0, ...ip('10.0.0.1').words], 1)).toBe(true);
    expect(made.isOwn(4, ip('10.0.0.2').words, 0)).toBe(false);
    expect(made.isOwn(6, ip('2001:db8::1').words, 0)).toBe(true);
    expect(SiteView.NONE.isOwn(4, [0], 0)).toBe(false);
  });
});

describe('resolve', () => {
  test.each([
    ['bus.example.test', 0, ['10.0.0.129']],
    ['BUS.Example.Test.', 0, ['10.0.0.129']],
    ['bus', 4, ['10.0.0.129']],
    ['bus', 6, []],
    ['api', 0, ['10.0.0.130', '2001:db8::1:2']],
    ['api', 6, ['2001:db8::1:2']],
    ['10-0-0-7.cloud', 0, ['10.0.0.140']],
    ['example.test', 0, []],
    ['localhost', 0, []],
    ['', 0, []],
    ['.', 0, []],
    ['192.0.2.1', 0, ['192.0.2.1']],
    ['192.0.2.1', 6, ['192.0.2.1']],
    ['2001:DB8::0', 4, ['2001:db8::']],
    ['fe80::1%eth0', 0, []],
    ['010.0.0.1', 0, []],
  ] as const)('finds for %j of family %i %j', (host, family, expected) => {
    expect(view().resolve(host, family).map(String)).toEqual(expected);
  });

  test('finds the host of an alias and of a wildcard', () => {
    const [bus, api] = SITE.hosts;
    const hosts = [
      { ...bus!, aliases: ['Queue.example.test'] },
      { ...api!, wildcard: true },
    ];
    const resolve = (name: string): string[] => view({ hosts }).resolve(name, 4).map(String);
    expect(resolve('queue')).toEqual(['10.0.0.129']);
    expect(resolve('v1.api.example.test')).toEqual(['10.0.0.130']);
    expect(resolve('v1.bus.example.test')).toEqual([]);
  });

  test('knows nothing before the first snapshot', () => {
    expect(SiteView.NONE.resolve('bus', 0)).toEqual([]);
    expect(SiteView.NONE.localAddress(4)).toBeUndefined();
  });
});

describe('refusal', () => {
  test.each([
    ['tcp', '10.0.0.129', 5672, undefined],
    ['tcp', '10.0.0.129', 5673, 'ECONNREFUSED'],
    ['tcp', '10.0.0.129', 7, 'ECONNREFUSED'],
    ['tcp', '10.0.0.130', 80, undefined],
    ['tcp', '10.0.0.130', 89, undefined],
    ['tcp', '10.0.0.130', 90, 'ECONNREFUSED'],
    ['tcp', '10.0.0.130', 443, undefined],
    ['tcp', '10.0.0.140', 443, 'ECONNREFUSED'],
    ['tcp', '10.0.0.200', 443, 'ECONNREFUSED'],
    ['tcp', '10.0.0.1', 443, 'ENETUNREACH'],
    ['tcp', '192.0.2.1', 443, 'ENETUNREACH'],
    ['tcp', '2001:db8::1:2', 80, undefined],
    ['udp', '10.0.0.129', 7, undefined],
    ['udp', '10.0.0.140', 40_000, undefined],
    ['udp', '192.0.2.1', 7, 'ENETUNREACH'],
    ['icmp', '10.0.0.130', 0, undefined],
    ['icmp', '10.0.0.129', 0, 'ECONNREFUSED'],
    ['icmp', '192.0.2.1', 0, 'ENETUNREACH'],
  ] as const)('of %s %s %i is %s', (protocol, remote, port, expected) => {
    expect(view().refusal(protocol, ip(remote), port)).toBe(expected);
  });

  test('is ENETUNREACH for a family in which the stack has no address', () => {
    const made = view({ sources: ['10.0.0.0/24'] });
    expect(made.refusal('tcp', ip('2001:db8::1:2'), 80)).toBe('ENETUNREACH');
  });
});

describe('withdrawalOf', () => {
  const before = view();
  const to = (remote: string, remotePort: number, local = '10.0.0.1') => ({
    local: ip(local),
    remote: ip(remote),
    remotePort,
  });
  const without = (name: string): StackSite['hosts'] =>
    SITE.hosts.filter((host) => host.name !== name);

  test('is undefined while nothing changes that matters to the connection', () => {
    expect(view().withdrawalOf('tcp', to('10.0.0.129', 5672), before)).toBeUndefined();
    const after = view({ hosts: without('www.example.test') });
    expect(after.withdrawalOf('tcp', to('10.0.0.130', 80), before)).toBeUndefined();
    expect(after.withdrawalOf('tcp', to('10.0.0.140', 33_000), before)).toBeUndefined();
  });

  test.each([
    ['its name is gone', { hosts: without('bus.example.test') }, to('10.0.0.129', 5672)],
    ['its port is gone', { hosts: without('www.example.test') }, to('10.0.0.130', 443)],
    ['its pool is gone', { pools: ['10.0.0.192/26'] }, to('10.0.0.129', 5672)],
    ['the pool of its client is gone', { pools: [] }, to('10.0.0.140', 33_000)],
    ['the own address has changed', { sources: ['10.0.1.0/24'] }, to('10.0.0.129', 5672)],
    [
      'another service has its address',
      {
        hosts: [{ name: 'log.example.test', addresses: ['10.0.0.129'], ports: ['tcp/5672'] }],
      },
      to('10.0.0.129', 5672),
    ],
    [
      'another client has its address',
      { hosts: [{ name: '10-0-0-8.cloud', addresses: ['10.0.0.140'], ports: [] }] },
      to('10.0.0.140', 33_000),
    ],
  ])('says why if %s', (_, change, connection) => {
    const reason = view(change, [], before).withdrawalOf('tcp', connection, before);
    expect(reason).toMatch(/withdrawn|no longer|any more/);
  });

  test('is undefined for a former address of a service, until that goes', () => {
    const renumbered = SITE.hosts.map((host) =>
      host.name === 'bus.example.test' ? { ...host, addresses: [], former: host.addresses } : host
    );
    const after = view({ hosts: renumbered });
    expect(after.resolve('bus.example.test', 4)).toEqual([]);
    expect(after.withdrawalOf('tcp', to('10.0.0.129', 5672), before)).toBeUndefined();
    expect(after.refusal('tcp', ip('10.0.0.129'), 5672)).toBeUndefined();
    const last = view({ hosts: renumbered.map(({ former: _, ...host }) => host) });
    expect(last.withdrawalOf('tcp', to('10.0.0.129', 5672), after)).toMatch(/withdrawn/);
  });

  test('is undefined for a client that the snapshot does not name, as it names only some', () => {
    const after = view({ hosts: without('10-0-0-7.cloud.example.test') });
    expect(after.withdrawalOf('tcp', to('10.0.0.140', 33_000), before)).toBeUndefined();
    expect(after.withdrawalOf('tcp', to('10.0.0.141', 33_000), before)).toBeUndefined();
  });
});
