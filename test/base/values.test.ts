/**
 * What values print, and what they make of themselves in JSON.
 */
import { describe, expect, test } from 'vitest';
import { IpAddress } from '../../src/base/address.ts';
import { Endpoint } from '../../src/base/endpoint.ts';
import { PortRange } from '../../src/base/port-range.ts';
import { IpPrefix } from '../../src/base/prefix.ts';
import { AddressText, PortText, PrefixText, parseSchema } from '../../src/base/schema.ts';
import { ApiMisuseError, ConfigError } from '../../src/errors.ts';

describe('the JSON of a value', () => {
  test.each([
    [IpAddress.parse('2001:DB8::5'), '2001:DB8::5', '2001:db8::5'],
    [IpAddress.parse('2001:DB8::5').canonical(), '2001:db8::5', '2001:db8::5'],
    [IpAddress.fromWords([1]), '0.0.0.1', '0.0.0.1'],
    [IpPrefix.parse('10.0.0.5'), '10.0.0.5', '10.0.0.5/32'],
    [IpPrefix.parse('2001:DB8::/32'), '2001:DB8::/32', '2001:db8::/32'],
    [IpPrefix.around(IpAddress.parse('10.0.0.5'), 24), '10.0.0.0/24', '10.0.0.0/24'],
    [PortRange.parse('tcp/00080'), 'tcp/00080', 'tcp/00080'],
  ])('%s is the text that it was parsed from', (value, json, text) => {
    expect(JSON.stringify({ value })).toBe(JSON.stringify({ value: json }));
    expect(`${value}`).toBe(text);
  });

  test('has an endpoint as its realm and its address', () => {
    const endpoint = Endpoint.parse('site-a/2001:db8::5');
    expect(JSON.stringify(endpoint)).toBe('{"realm":"site-a","address":"2001:db8::5"}');
    expect(endpoint.key).toBe('site-a/2001:db8::5');
  });
});

describe('an input', () => {
  test('may be the value itself, which is taken as it is', () => {
    const [address, prefix, ports] = [
      IpAddress.parse('10.0.0.5'),
      IpPrefix.parse('10.0.0.0/24'),
      PortRange.parse('icmp'),
    ];
    expect(IpAddress.from(address)).toBe(address);
    expect(IpPrefix.from(prefix)).toBe(prefix);
    expect(PortRange.from(ports)).toBe(ports);
    expect(parseSchema(AddressText, address)).toBe(address);
    expect(parseSchema(PrefixText, prefix)).toBe(prefix);
    expect(parseSchema(PortText, ports)).toBe(ports);
  });

  test('is parsed by its schema, which says what is wrong with it', () => {
    expect(parseSchema(AddressText, '10.0.0.5')).toBeInstanceOf(IpAddress);
    expect(() => parseSchema(AddressText, 'x', 'dns')).toThrow('dns: "x" is not an IP address');
    expect(() => parseSchema(PrefixText, 5)).toThrow('expected a string, got 5');
    expect(() => parseSchema(PortText, IpAddress.parse('10.0.0.5'))).toThrow(ConfigError);
  });

  test.each(['', 'site-a', '/10.0.0.5', 'site-a/', 'site-a/x'])('%j is no endpoint', (text) => {
    expect(() => Endpoint.parse(text)).toThrow(ApiMisuseError);
  });
});
