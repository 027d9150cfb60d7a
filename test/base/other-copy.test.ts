/**
 * Values that another copy of this package has made, and things that only look like values.
 */
import { describe, expect, test, vi } from 'vitest';
import { AddressAllocator } from '../../src/allocator/index.ts';
import { IpAddress } from '../../src/base/address.ts';
import { Endpoint } from '../../src/base/endpoint.ts';
import { PortRange } from '../../src/base/port-range.ts';
import { IpPrefix } from '../../src/base/prefix.ts';
import { AddressText, PortText, PrefixText, parseSchema } from '../../src/base/schema.ts';
import { ApiMisuseError, ConfigError } from '../../src/errors.ts';
import { PacketTranslator, type TranslationPlanInput } from '../../src/translator/index.ts';

const PLAN = {
  realms: [
    { name: 'cloud', sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'] },
    { name: 'site-a', sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'] },
  ],
  presences: [
    { realm: 'site-a', address: '10.0.0.129', of: { realm: 'cloud', address: '10.0.0.5' } },
  ],
  permits: [{ realm: 'site-a', service: { realm: 'cloud', address: '10.0.0.5' }, ports: ['icmp'] }],
} as const satisfies TranslationPlanInput;

function load(plan: object): void {
  new PacketTranslator().load({ ...PLAN, ...plan });
}

describe('values of another copy', async () => {
  vi.resetModules();
  const other = {
    ...(await import('../../src/base/address.ts')),
    ...(await import('../../src/base/prefix.ts')),
    ...(await import('../../src/base/port-range.ts')),
    ...(await import('../../src/base/endpoint.ts')),
  };
  const address = other.IpAddress.parse('2001:DB8::5') as unknown as IpAddress;
  const prefix = other.IpPrefix.parse('2001:DB8::/64') as unknown as IpPrefix;
  const ports = other.PortRange.parse('tcp/080') as unknown as PortRange;

  test('become values of this copy, with the text that they were parsed from', () => {
    expect(address).not.toBeInstanceOf(IpAddress);
    for (const [value, type, text] of [
      [IpAddress.from(address), IpAddress, '2001:DB8::5'],
      [parseSchema(AddressText, address), IpAddress, '2001:DB8::5'],
      [IpPrefix.from(prefix), IpPrefix, '2001:DB8::/64'],
      [parseSchema(PrefixText, prefix), IpPrefix, '2001:DB8::/64'],
      [PortRange.from(ports), PortRange, 'tcp/080'],
      [parseSchema(PortText, ports), PortRange, 'tcp/080'],
    ] as const) {
      expect(value).toBeInstanceOf(type);
      expect(value.toJSON()).toBe(text);
    }
    const endpoint = Endpoint.from(new other.Endpoint('cloud', address as never));
    expect(endpoint).toBeInstanceOf(Endpoint);
    expect(endpoint.address).toBeInstanceOf(IpAddress);
  });

  test('are pools of an allocator', () => {
    const allocator = new AddressAllocator({ pools: [prefix], quarantineMs: 0 });
    expect(`${allocator.allocate('a', 6).address}`).toBe('2001:db8::1');
  });
});

describe('what is no value', () => {
  const clones = [IpAddress.parse('10.0.0.5'), IpPrefix.parse('10.0.0.0/24')].map((value) =>
    structuredClone(value)
  );
  const things = [...clones, 5, null, undefined, {}, JSON.parse('{"__proto__":{"family":4}}')];

  test.each(things)('%j is refused where an address or a prefix is expected', (thing) => {
    expect(() => IpAddress.from(thing as never)).toThrow(ApiMisuseError);
    expect(() => IpPrefix.from(thing as never)).toThrow(ApiMisuseError);
    expect(() => PortRange.from(thing as never, 'x')).toThrow(ConfigError);
  });

  test.each(things)('%j is refused in a plan, which names the place', (thing) => {
    const [presence] = PLAN.presences;
    const [permit] = PLAN.permits;
    const isRefused = (plan: object, path: string): void => {
      expect(() => load(plan)).toThrow(expect.objectContaining({ name: 'ConfigError', path }));
    };
    isRefused({ presences: [{ ...presence, address: thing }] }, 'presences[0].address');
    const of = { realm: 'cloud', address: thing };
    isRefused({ presences: [{ ...presence, of }] }, 'presences[0].of.address');
    isRefused({ permits: [{ ...permit, service: of }] }, 'permits[0].service.address');
    isRefused({ permits: [{ ...permit, ports: [thing] }] }, 'permits[0].ports[0]');
    isRefused({ permits: [{ ...permit, clients: [thing] }] }, 'permits[0].clients[0]');
    isRefused({ realms: [{ name: 'cloud', sources: [thing] }] }, 'realms[0].sources[0]');
  });
});
