/**
 * Prefixes, against ip-num and plain arithmetic.
 */
import fc from 'fast-check';
import { IPv4, IPv4CidrRange, IPv4Prefix, IPv6, IPv6CidrRange, IPv6Prefix } from 'ip-num';
import { describe, expect, test } from 'vitest';
import { IpAddress } from '../../src/base/address.ts';
import { IpPrefix } from '../../src/base/prefix.ts';
import { ApiMisuseError } from '../../src/errors.ts';

describe('IpPrefix', () => {
  test.each([
    ['10.0.0.0/24', '10.0.0.255', '10.0.1.0'],
    ['0.0.0.0/0', '255.255.255.255', '::'],
    ['192.0.2.1/32', '192.0.2.1', '192.0.2.2'],
    ['128.0.0.0/1', '200.0.0.1', '127.255.255.255'],
    ['2001:db8::/33', '2001:db8:7fff::1', '2001:db8:8000::'],
    ['2001:db8::/64', '2001:db8::ffff:0:0:1', '2001:db8:0:1::'],
  ])('%s contains %s and not %s', (prefix, inside, outside) => {
    expect(IpPrefix.parse(prefix).contains(IpAddress.parse(inside))).toBe(true);
    expect(IpPrefix.parse(prefix).contains(IpAddress.parse(outside))).toBe(false);
  });

  test.each(['10.0.0.0/33', '10.0.0.0/-1', '10.0.0.0/', '10.0.0.0/8/8', '::/129', '/8', 'x/8'])(
    'refuses %j',
    (text) => {
      expect(() => IpPrefix.parse(text)).toThrow(ApiMisuseError);
    }
  );

  test('names the prefix that was probably meant when host bits are set', () => {
    expect(() => IpPrefix.parse('10.0.0.5/24')).toThrow('did you mean 10.0.0.0/24?');
  });

  test('a bare address is the prefix of that one address', () => {
    expect(IpPrefix.parse('10.0.0.5').toString()).toBe('10.0.0.5/32');
    expect(IpPrefix.parse('::1').size).toBe(1);
  });

  test('counts, indexes and finds its addresses', () => {
    const prefix = IpPrefix.parse('10.0.0.128/25');
    expect(prefix.size).toBe(128);
    expect(prefix.at(127).toString()).toBe('10.0.0.255');
    expect(prefix.indexOf(IpAddress.parse('10.0.0.130'))).toBe(2);
    expect(
      IpPrefix.parse('2001:db8::/32')
        .at(2 ** 40)
        .toString()
    ).toBe('2001:db8::100:0:0');
  });

  test('overlaps what it contains and what contains it', () => {
    const prefix = IpPrefix.parse('10.0.0.0/16');
    expect(prefix.overlaps(IpPrefix.parse('10.0.5.0/24'))).toBe(true);
    expect(prefix.overlaps(IpPrefix.parse('10.0.0.0/8'))).toBe(true);
    expect(prefix.overlaps(IpPrefix.parse('10.1.0.0/16'))).toBe(false);
  });

  test('agrees with ip-num on ranges, and with plain arithmetic on what is a prefix', () => {
    const arbitrary = fc.oneof(
      fc.record({ bits: fc.constant(32), value: fc.bigInt(0n, 2n ** 32n - 1n) }),
      fc.record({ bits: fc.constant(128), value: fc.bigInt(0n, 2n ** 128n - 1n) })
    );
    fc.assert(
      fc.property(arbitrary, arbitrary, fc.nat(128), fc.nat(128), (one, other, a, b) => {
        const [first, second] = [rangesOf(one, a), rangesOf(other, b)];
        for (const { prefix, range } of [first, second]) {
          expect(prefix.size).toBe(Number(range.getSize()));
          expect(prefix.base.toBigInt()).toBe(range.getFirst().getValue());
          expect(IpPrefix.parse(prefix.toString()).toString()).toBe(prefix.toString());
          const last = prefix.at(Math.min(prefix.size, 2 ** 32) - 1);
          expect(prefix.contains(last)).toBe(true);
          expect(prefix.indexOf(last)).toBe(Math.min(prefix.size, 2 ** 32) - 1);
        }
        const bits = one.bits;
        const length = Math.min(a, bits);
        const hostBits = one.value & ((1n << BigInt(bits - length)) - 1n);
        const text = `${IpAddress.fromBigInt(bits === 32 ? 4 : 6, one.value)}/${length}`;
        if (hostBits === 0n) expect(IpPrefix.parse(text).toString()).toBe(text);
        else expect(() => IpPrefix.parse(text)).toThrow(`did you mean ${first.prefix}?`);
        if (one.bits !== other.bits) {
          expect(first.prefix.overlaps(second.prefix)).toBe(false);
          return;
        }
        const doOverlap =
          first.range.contains(second.range as never) ||
          second.range.contains(first.range as never);
        expect(first.prefix.overlaps(second.prefix)).toBe(doOverlap);
      }),
      { numRuns: 500 }
    );
  });
});

/** The prefix of a length that an address is in, and the same range as ip-num has it. */
function rangesOf({ bits, value }: { bits: number; value: bigint }, wanted: number) {
  const length = Math.min(wanted, bits);
  const prefix = IpPrefix.around(IpAddress.fromBigInt(bits === 32 ? 4 : 6, value), length);
  const range =
    bits === 32
      ? new IPv4CidrRange(new IPv4(value), new IPv4Prefix(BigInt(length)))
      : new IPv6CidrRange(new IPv6(value), new IPv6Prefix(BigInt(length)));
  return { prefix, range };
}
