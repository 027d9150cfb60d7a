import { describe, expect, test } from 'vitest';
import { IpAddress } from '../../src/base/address.ts';
import { ApiMisuseError } from '../../src/errors.ts';
import { type SiteAddresses, SiteFilter, VERDICT_NAMES } from '../../src/translator/index.ts';
import {
  type Ends,
  echoPacket,
  icmpError,
  icmpMessage,
  ipPacket,
  TCP,
  tcpPacket,
  UDP,
  udpPacket,
} from '../support/packets.ts';
import { ADDRESSES, FAMILIES } from './scene.ts';

const SITE: SiteAddresses = {
  // One of the pools is a part of the site's own prefix.
  sources: ['10.0.0.0/24', 'fd00::/64'],
  pools: ['100.64.0.0/24', '10.0.0.192/26', 'fd64::/64', 'fd00::ff00/120'],
};

type Direction = 'outbound' | 'inbound';

function filter(addresses: SiteAddresses | undefined = SITE): SiteFilter {
  const filter = new SiteFilter();
  filter.setAddresses(addresses);
  return filter;
}

/** Checks the packet between other bytes, and expects that none has changed. */
function check(filter: SiteFilter, direction: Direction, packet: Uint8Array): string {
  const buffer = new Uint8Array(packet.length + 20).fill(0xa5);
  buffer.set(packet, 9);
  const before = buffer.slice();
  const range = [9, 9 + packet.length] as const;
  const verdict =
    direction === 'outbound'
      ? filter.checkOutbound(buffer, ...range)
      : filter.checkInbound(buffer, ...range);
  expect(buffer).toEqual(before);
  return VERDICT_NAMES[verdict]!;
}

const tcp = (ends: Ends): Uint8Array => tcpPacket(ends, { sourcePort: 1, destinationPort: 2 });
const udp = (ends: Ends): Uint8Array => udpPacket(ends, { sourcePort: 1, destinationPort: 2 });
const echo = (ends: Ends): Uint8Array => echoPacket(ends, {});
const BUILDERS = [tcp, udp, echo];

describe.each(FAMILIES)('IPv%i', (family) => {
  const { host, cloud: presence, foreign, router } = ADDRESSES[family];
  const lanPresence = family === 4 ? '10.0.0.200' : 'fd00::ff05';

  test.each([
    ['a host to a presence', host, presence, 'Forward'],
    ['a host to a presence out of the LAN', host, lanPresence, 'Forward'],
    ['a host to a host', host, router, 'DropNoPresence'],
    ['a host to the rest of the world', host, foreign, 'DropNoPresence'],
    ['a foreign address to a presence', foreign, presence, 'DropSpoofed'],
    ['a presence to a presence', presence, presence, 'DropSpoofed'],
    ['a presence out of the LAN to a presence', lanPresence, presence, 'DropSpoofed'],
    ['a foreign address to a foreign one', foreign, foreign, 'DropNoPresence'],
  ])('outbound from %s', (_name, source, destination, verdict) => {
    for (const build of BUILDERS) {
      expect(check(filter(), 'outbound', build({ source, destination }))).toBe(verdict);
    }
  });

  test('outbound to a barred presence, and to its neighbours', () => {
    const barred = filter();
    const text = family === 4 ? '100.64.0.7' : 'fd64::7:0:0:7';
    const other = family === 4 ? '100.64.0.8' : 'fd64::7';
    barred.setBarred([IpAddress.parse(text)]);
    const to = (destination: string): string =>
      check(barred, 'outbound', tcp({ source: host, destination }));
    expect([to(text), to(other), barred.barredPackets]).toEqual(['DropNoPresence', 'Forward', 1]);
    expect(check(barred, 'inbound', tcp({ source: text, destination: host }))).toBe('Forward');
    barred.setBarred([]);
    expect([to(text), barred.barredPackets]).toEqual(['Forward', 1]);
  });

  test.each([
    ['a presence to a host', presence, host, 'Forward'],
    ['a presence out of the LAN to a host', lanPresence, host, 'Forward'],
    ['a host to a host', router, host, 'DropSpoofed'],
    ['a foreign address to a host', foreign, host, 'DropSpoofed'],
    ['a presence to a presence', presence, presence, 'DropNoPresence'],
    ['a presence to a presence out of the LAN', presence, lanPresence, 'DropNoPresence'],
    ['a presence to the rest of the world', presence, foreign, 'DropNoPresence'],
    ['a foreign address to a foreign one', foreign, foreign, 'DropSpoofed'],
  ])('inbound from %s', (_name, source, destination, verdict) => {
    for (const build of BUILDERS) {
      expect(check(filter(), 'inbound', build({ source, destination }))).toBe(verdict);
    }
  });

  const error = (ends: Ends, quoted: Ends): Uint8Array =>
    icmpError(ends, { type: family === 4 ? 11 : 3, quoted: udp(quoted) });

  test.each([
    ['a router of the site', router],
    ['a router with any address', foreign],
    ['a router that has the address of a presence', presence],
  ])('an ICMP error of %s passes outbound', (_name, source) => {
    const packet = error(
      { source, destination: presence },
      { source: presence, destination: host }
    );
    expect(check(filter(), 'outbound', packet)).toBe('Forward');
  });

  test('an ICMP error to no presence is dropped', () => {
    const packet = error(
      { source: router, destination: host },
      { source: host, destination: host }
    );
    expect(check(filter(), 'outbound', packet)).toBe('DropNoPresence');
  });

  test('an ICMP error passes inbound only from a presence', () => {
    const quoted = { source: host, destination: presence };
    const from = (source: string): string =>
      check(filter(), 'inbound', error({ source, destination: host }, quoted));
    expect([from(presence), from(router), from(foreign)]).toEqual([
      'Forward',
      'DropSpoofed',
      'DropSpoofed',
    ]);
  });
});

test.each<[string, string, Uint8Array]>([
  ['a truncated packet', 'DropMalformed', tcp(allowed()).slice(0, 39)],
  ['a bad fragment', 'DropFragment', ipPacket(allowed(), TCP, new Uint8Array(8), { fragment: 1 })],
  ['DCCP', 'DropUnsupported', ipPacket(allowed(), 33, new Uint8Array(16))],
  ['an ICMP redirect', 'DropUnsupported', icmpMessage(allowed(), { type: 5 })],
])('%s is dropped in both directions: %s', (_name, verdict, packet) => {
  expect(check(filter(), 'outbound', packet)).toBe(verdict);
  expect(check(filter(), 'inbound', packet)).toBe(verdict);
});

test.each<[string, Uint8Array]>([
  ['a first fragment', ipPacket(allowed(), 47, new Uint8Array(16), { fragment: 0x2000 })],
  ['a later fragment', ipPacket(allowed(), UDP, new Uint8Array(8), { fragment: 3 })],
  ['SCTP', ipPacket(allowed(), 132, new Uint8Array(12))],
  ['an unknown protocol', ipPacket(allowed(), 200, new Uint8Array(0))],
])('%s is judged by its addresses', (_name, packet) => {
  expect(check(filter(), 'outbound', packet)).toBe('Forward');
  expect(check(filter(), 'inbound', packet)).toBe('DropSpoofed');
});

test('an address of the other IP version is in no prefix', () => {
  const onlyIpv4 = filter({ sources: ['0.0.0.0/0'], pools: ['100.64.0.0/10'] });
  const ends = { source: 'fd00::5', destination: 'fd64::1' };
  expect(check(onlyIpv4, 'outbound', tcp(ends))).toBe('DropNoPresence');
});

test('a filter without addresses lets no packet pass', () => {
  const closed = new SiteFilter();
  const { source, destination } = allowed();
  expect(check(closed, 'outbound', tcp({ source, destination }))).toBe('DropNoPresence');
  expect(check(closed, 'inbound', tcp({ source: destination, destination: source }))).toBe(
    'DropSpoofed'
  );
});

test('new addresses replace the old ones, and invalid ones change nothing', () => {
  const { source, destination } = allowed();
  const moved = filter();
  moved.setAddresses({ sources: ['192.168.0.0/16'], pools: ['100.65.0.0/24'] });
  expect(check(moved, 'outbound', tcp({ source, destination }))).toBe('DropNoPresence');
  const valid = { source: '192.168.9.9', destination: '100.65.0.1' };
  expect(check(moved, 'outbound', tcp(valid))).toBe('Forward');

  for (const wrong of [
    { sources: ['10.0.0.0/24', '10.0.0.0/40'], pools: ['100.64.0.0/24'] },
    { sources: ['10.0.0.0/24'], pools: ['pool'] },
  ]) {
    expect(() => moved.setAddresses(wrong)).toThrow(ApiMisuseError);
    expect(check(moved, 'outbound', tcp(valid))).toBe('Forward');
    expect(check(moved, 'outbound', tcp({ source, destination }))).toBe('DropNoPresence');
  }
});

test('verdicts are counted by direction', () => {
  const counted = filter();
  const { source, destination } = allowed();
  check(counted, 'outbound', tcp({ source, destination }));
  check(counted, 'outbound', tcp({ source, destination }));
  check(counted, 'outbound', tcp({ source: destination, destination }));
  check(counted, 'inbound', tcp({ source: destination, destination: source }));
  check(counted, 'inbound', new Uint8Array(0));
  const zeros = Object.fromEntries(VERDICT_NAMES.map((name) => [name, 0]));
  expect(counted.counters('outbound')).toEqual({ ...zeros, Forward: 2, DropSpoofed: 1 });
  expect(counted.counters('inbound')).toEqual({ ...zeros, Forward: 1, DropMalformed: 1 });
});

function allowed(): Ends {
  return { source: ADDRESSES[4].host, destination: ADDRESSES[4].cloud };
}
