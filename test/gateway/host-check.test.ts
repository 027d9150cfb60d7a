/**
 * Which of a machine's prefixes are in conflict with a pool, and which are not.
 */
import { describe, expect, test } from 'vitest';
import { IpAddress } from '../../src/base/address.ts';
import { IpPrefix } from '../../src/base/prefix.ts';
import type { HostPrefixes, HostRoute } from '../../src/device/host-prefixes.ts';
import { hostConflicts } from '../../src/gateway/host-check.ts';

interface Machine {
  /** `device address/length`. */
  readonly interfaces?: readonly string[];
  /** `prefix device via`; a route without a device leads nowhere. */
  readonly routes?: readonly string[];
  readonly resolvers?: readonly string[];
}

function host({ interfaces = [], routes = [], resolvers = [] }: Machine): HostPrefixes {
  return {
    interfaces: interfaces.map((line) => {
      const [device, text] = line.split(' ') as [string, string];
      const [address, length] = text.split('/');
      const parsed = IpAddress.parse(address!);
      return { device, address: parsed, network: IpPrefix.around(parsed, Number(length)) };
    }),
    routes: routes.map((line): HostRoute => {
      const [prefix, device, via] = line.split(' ');
      return { prefix: IpPrefix.parse(prefix!), device, via };
    }),
    resolvers: resolvers.map(IpAddress.parse),
    unread: [],
  };
}

/** Returns the kind and the subject of each conflict. */
function conflicts(pool: string, machine: Machine, lans: readonly string[] = []): string[] {
  return hostConflicts([IpPrefix.parse(pool)], host(machine), lans).map(
    ({ kind, subject }) => `${kind} ${subject}`
  );
}

describe('hostConflicts', () => {
  const LAN: Machine = { interfaces: ['lan0 10.0.0.1/24'], routes: ['10.0.0.0/24 lan0'] };
  const none: string[] = [];

  test.each<[string, string, Machine, string[], string[]]>([
    ['nothing in common', '10.9.0.0/24', LAN, [], none],
    [
      'a network in the pool, with its route',
      '10.0.0.0/16',
      LAN,
      [],
      ['interface 10.0.0.1 (lan0)'],
    ],
    ['the same network', '10.0.0.0/24', LAN, ['lan0'], ['interface 10.0.0.1 (lan0)']],
    [
      'an address in a part of its LAN',
      '10.0.0.0/25',
      LAN,
      ['lan0'],
      ['interface 10.0.0.1 (lan0)'],
    ],
    ['a part of a LAN that the gateway serves', '10.0.0.128/25', LAN, ['lan0'], none],
    ['a part of another network', '10.0.0.128/25', LAN, [], ['interface 10.0.0.0/24 (lan0)']],
    [
      'the network of an interface without a carrier, which has a route only',
      '172.17.1.0/24',
      { routes: ['172.17.0.0/16 docker0'] },
      [],
      ['route 172.17.0.0/16 (docker0)'],
    ],
    [
      'a longer route, and one that leads nowhere',
      '10.9.0.0/16',
      { routes: ['10.9.1.0/24 wan0 192.0.2.1', '10.9.2.0/24'] },
      ['wan0'],
      ['route 10.9.1.0/24 (wan0)', 'route 10.9.2.0/24'],
    ],
    [
      'an equal route',
      '10.9.0.0/16',
      { routes: ['10.9.0.0/16 wan0 192.0.2.1'] },
      ['wan0'],
      ['route 10.9.0.0/16 (wan0)'],
    ],
    [
      'the longest of the shorter routes',
      '10.9.1.0/24',
      { routes: ['10.0.0.0/8 wan0 192.0.2.1', '10.9.0.0/16 wan1 192.0.2.9'] },
      [],
      ['route 10.9.0.0/16 (wan1)'],
    ],
    [
      'a part of a served LAN within a longer prefix of a router',
      '10.0.0.128/25',
      { ...LAN, routes: [...LAN.routes!, '10.0.0.0/8 lan0 10.0.0.9'] },
      ['lan0'],
      none,
    ],
    [
      'a router in a served LAN',
      '10.9.0.0/24',
      { ...LAN, routes: [...LAN.routes!, '10.0.0.0/8 lan0 10.0.0.9'] },
      ['lan0'],
      ['route 10.0.0.0/8 (lan0)'],
    ],
    ['a shorter route that leads nowhere', '10.9.0.0/24', { routes: ['10.0.0.0/8'] }, [], none],
    [
      'default routes in halves, and all public addresses',
      '10.9.0.0/24',
      { routes: ['0.0.0.0/1 tun0 10.8.0.1', '128.0.0.0/1 tun0 10.8.0.1', '2000::/3 wan0 fe80::1'] },
      [],
      none,
    ],
    ['a public IPv6 pool', '2001:db8::/64', { routes: ['2000::/3 wan0 fe80::1'] }, [], none],
    ['the other IP version', '::/0', LAN, [], none],
    [
      'IPv6',
      'fd00:1::/48',
      { interfaces: ['lan0 fd00:1:0:2::1/64'], routes: ['fd00:1:0:2::/64 lan0'] },
      [],
      ['interface fd00:1:0:2::1 (lan0)'],
    ],
    [
      'resolvers, one of them in the pool',
      '10.9.0.0/24',
      { resolvers: ['127.0.0.53', '10.9.0.53'] },
      [],
      ['resolver 10.9.0.53'],
    ],
    [
      'a stub at loopback',
      '127.0.0.0/25',
      { resolvers: ['127.0.0.53'] },
      [],
      ['resolver 127.0.0.53'],
    ],
  ])('%s', (_, pool, machine, lans, expected) => {
    expect(conflicts(pool, machine, lans)).toEqual(expected);
  });

  test('a message names the pool, the thing and the remedy', () => {
    const pools = ['10.8.0.0/24', '10.9.0.0/16'].map(IpPrefix.parse);
    const routes = ['10.9.1.0/24 wan0 192.0.2.1'];
    expect(hostConflicts(pools, host({ routes }))).toEqual([
      {
        kind: 'route',
        pool: '10.9.0.0/16',
        subject: '10.9.1.0/24 (wan0)',
        message:
          'the pool 10.9.0.0/16 contains 10.9.1.0/24, for which this host has a route to wan0 via 192.0.2.1: packets to presences there take that route; take another pool, or remove the route',
      },
    ]);
  });
});
