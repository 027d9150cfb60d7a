import fc from 'fast-check';
import { IPv4, IPv6 } from 'ip-num';
import { describe, expect, test } from 'vitest';
import { IpAddress } from '../../src/base/address.ts';
import { ApiMisuseError } from '../../src/errors.ts';

describe('IpAddress', () => {
  test.each([
    ['0.0.0.0', '0.0.0.0'],
    ['255.255.255.255', '255.255.255.255'],
    ['192.0.2.1', '192.0.2.1'],
    ['::', '::'],
    ['::1', '::1'],
    ['2001:0DB8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['2001:db8:0:0:0:0:0:0', '2001:db8::'],
    ['::ffff:192.0.2.1', '::ffff:192.0.2.1'],
    ['1:0:0:2:0:0:0:3', '1:0:0:2::3'],
  ])('parses %s and prints it as %s (RFC 5952)', (text, canonical) => {
    const address = IpAddress.parse(text);
    expect(address.toString()).toBe(canonical);
    expect(IpAddress.parse(canonical).equals(address)).toBe(true);
    expect(IpAddress.fromBigInt(address.family, address.toBigInt()).equals(address)).toBe(true);
  });

  test.each([
    '',
    '1.2.3',
    '1.2.3.4.5',
    '256.0.0.1',
    '1.2.3.-4',
    '10.0.0.1 ',
    'fe80::1%eth0',
    '1::2::3',
    '12345::',
    ':',
    '1:2:3:4:5:6:7:8:9',
    'localhost',
    '0x7f.0.0.1',
    '::'.repeat(40),
  ])('refuses %j', (text) => {
    expect(() => IpAddress.parse(text)).toThrow(ApiMisuseError);
  });

  test('takes the same texts as ip-num for the same addresses', () => {
    const decimal = fc.oneof(fc.nat(300).map(String), fc.constantFrom('00', '01', '', '-1', ' 1'));
    const quad = fc.array(decimal, { minLength: 3, maxLength: 5 }).map((parts) => parts.join('.'));
    const group = fc.oneof(
      fc.nat(0xffff).map((n) => n.toString(16)),
      fc.constantFrom('', '0000', '12345', 'G')
    );
    const groups = fc.array(group, { minLength: 6, maxLength: 9 }).map((parts) => parts.join(':'));
    const parsed = (text: string): bigint | undefined => {
      try {
        return IpAddress.parse(text).toBigInt();
      } catch {
        return undefined;
      }
    };
    const parsedByIpNum = (text: string): bigint | undefined => {
      if (!/^[0-9a-fA-F:.]+$/.test(text)) return undefined;
      try {
        return (text.includes(':') ? new IPv6(text) : new IPv4(text)).getValue();
      } catch {
        return undefined;
      }
    };
    let taken = 0;
    fc.assert(
      fc.property(fc.oneof(quad, groups, fc.ipV4(), fc.ipV6()), (text) => {
        const value = parsed(text);
        if (value !== undefined) taken++;
        expect([text, value]).toEqual([text, parsedByIpNum(text)]);
      }),
      { numRuns: 5000 }
    );
    expect(taken).toBeGreaterThan(1000);
  });

  test('writes and reads its bytes in network order', () => {
    const bytes = new Uint8Array(20).fill(0xa5);
    IpAddress.parse('192.0.2.1').writeTo(bytes, 1);
    expect([...bytes.subarray(0, 6)]).toEqual([0xa5, 192, 0, 2, 1, 0xa5]);
    expect(IpAddress.fromBytes(4, bytes, 1).toString()).toBe('192.0.2.1');
    IpAddress.parse('2001:db8::f').writeTo(bytes, 2);
    expect(IpAddress.fromBytes(6, bytes, 2).toString()).toBe('2001:db8::f');
  });
});
