import { describe, expect, test } from 'vitest';
import { ErrorMapping, hasLengthAttribute } from '../../src/translator/icmp-mapping.ts';

/** [type, code, second word] of an error, or nothing. */
type Mapped = readonly [type: number, code: number, rest: number] | undefined;

function toIpv6(
  type: number,
  code: number,
  { pointer = 0, mtu = 0, totalLength = 0 } = {}
): Mapped {
  const mapping = new ErrorMapping();
  if (!mapping.toIpv6(type, code, pointer, mtu, totalLength)) return undefined;
  return [mapping.type, mapping.code, mapping.rest >>> 0];
}

function toIpv4(type: number, code: number, rest = 0): Mapped {
  const mapping = new ErrorMapping();
  if (!mapping.toIpv4(type, code, rest)) return undefined;
  return [mapping.type, mapping.code, mapping.rest >>> 0];
}

describe('RFC 7915 section 4.2: ICMP to ICMPv6', () => {
  test.each<[name: string, code: number, mapped: Mapped]>([
    ['network unreachable', 0, [1, 0, 0]],
    ['host unreachable', 1, [1, 0, 0]],
    ['protocol unreachable: a parameter problem, at the next header', 2, [4, 1, 6]],
    ['port unreachable', 3, [1, 4, 0]],
    ['source route failed', 5, [1, 0, 0]],
    ['network unknown', 6, [1, 0, 0]],
    ['host unknown', 7, [1, 0, 0]],
    ['source host isolated', 8, [1, 0, 0]],
    ['network prohibited', 9, [1, 1, 0]],
    ['host prohibited', 10, [1, 1, 0]],
    ['network unreachable for this type of service', 11, [1, 0, 0]],
    ['host unreachable for this type of service', 12, [1, 0, 0]],
    ['communication prohibited', 13, [1, 1, 0]],
    ['host precedence violation', 14, undefined],
    ['precedence cutoff', 15, [1, 1, 0]],
    ['unknown', 16, undefined],
    ['unknown', 255, undefined],
  ])('unreachable, %s (code %i)', (_name, code, mapped) => {
    expect(toIpv6(3, code)).toEqual(mapped);
  });

  test.each([
    [1500, 1520],
    [1280, 1300],
    [1261, 1281],
    [1260, 1280],
    [1259, 1280],
    [576, 1280],
    [1, 1280],
    [65_535, 65_555],
  ])('fragmentation needed, MTU %i: packet too big, MTU %i', (mtu, mapped) => {
    expect(toIpv6(3, 4, { mtu, totalLength: 1500 })).toEqual([2, 0, mapped]);
  });

  test.each([
    [65_535, 32_000],
    [32_001, 32_000],
    [32_000, 17_914],
    [17_914, 8166],
    [8166, 4352],
    [4352, 2002],
    [2003, 2002],
    [2002, 1492],
    [1500, 1492],
    [1493, 1492],
    [1492, 1280],
    [1006, 1280],
    [68, 1280],
    [0, 1280],
  ])(
    'fragmentation needed without an MTU, of %i bytes: the plateau below (RFC 1191), %i',
    (...row) => {
      const [totalLength, mapped] = row;
      expect(toIpv6(3, 4, { totalLength })).toEqual([2, 0, mapped]);
    }
  );

  test.each<[number, Mapped]>([
    [0, [3, 0, 0]],
    [1, [3, 1, 0]],
    [2, [3, 2, 0]],
  ])('time exceeded: the code, here %i, is unchanged', (code, mapped) => {
    expect(toIpv6(11, code)).toEqual(mapped);
  });

  test.each<[field: string, pointer: number, mapped: number | undefined]>([
    ['version and header length', 0, 0],
    ['type of service', 1, 1],
    ['total length', 2, 4],
    ['total length', 3, 4],
    ['identification', 4, undefined],
    ['identification', 5, undefined],
    ['flags', 6, undefined],
    ['fragment offset', 7, undefined],
    ['time to live', 8, 7],
    ['protocol', 9, 6],
    ['header checksum', 10, undefined],
    ['header checksum', 11, undefined],
    ['source', 12, 8],
    ['source', 15, 8],
    ['destination', 16, 24],
    ['destination', 19, 24],
    ['options', 20, undefined],
    ['far behind', 255, undefined],
  ])('parameter problem, pointer to %s (%i): %s', (_field, pointer, mapped) => {
    const expected: Mapped = mapped === undefined ? undefined : [4, 0, mapped];
    expect(toIpv6(12, 0, { pointer })).toEqual(expected);
    expect(toIpv6(12, 2, { pointer })).toEqual(expected);
    expect(toIpv6(12, 1, { pointer })).toBeUndefined();
    expect(toIpv6(12, 3, { pointer })).toBeUndefined();
  });

  test('no other type has a counterpart', () => {
    const types = Array.from({ length: 256 }, (_, type) => type);
    const mapped = types.filter((type) => toIpv6(type, 0) !== undefined);
    expect(mapped).toEqual([3, 11, 12]);
  });
});

describe('RFC 7915 section 5.2: ICMPv6 to ICMP', () => {
  test.each<[name: string, code: number, mapped: Mapped]>([
    ['no route', 0, [3, 1, 0]],
    ['prohibited', 1, [3, 10, 0]],
    ['beyond scope', 2, [3, 1, 0]],
    ['address unreachable', 3, [3, 1, 0]],
    ['port unreachable', 4, [3, 3, 0]],
    ['ingress policy', 5, undefined],
    ['reject route', 6, undefined],
    ['unknown', 255, undefined],
  ])('unreachable, %s (code %i)', (_name, code, mapped) => {
    expect(toIpv4(1, code)).toEqual(mapped);
  });

  test.each([
    [1500, 1480],
    [1280, 1260],
    [1000, 980],
    [88, 68],
    [87, 68],
    [0, 68],
    [65_555, 65_535],
    [65_556, 65_535],
    [0xffffffff, 65_535],
    [0x80000000, 65_535],
  ])('packet too big, MTU %i: fragmentation needed, MTU %i', (mtu, mapped) => {
    expect(toIpv4(2, 0, mtu | 0)).toEqual([3, 4, mapped]);
  });

  test.each<[number, Mapped]>([
    [0, [11, 0, 0]],
    [1, [11, 1, 0]],
    [2, [11, 2, 0]],
  ])('time exceeded: the code, here %i, is unchanged', (code, mapped) => {
    expect(toIpv4(3, code)).toEqual(mapped);
  });

  test.each<[field: string, pointer: number, mapped: number | undefined]>([
    ['version and traffic class', 0, 0],
    ['traffic class and flow label', 1, 1],
    ['flow label', 2, undefined],
    ['flow label', 3, undefined],
    ['payload length', 4, 2],
    ['payload length', 5, 2],
    ['next header', 6, 9],
    ['hop limit', 7, 8],
    ['source', 8, 12],
    ['source', 23, 12],
    ['destination', 24, 16],
    ['destination', 39, 16],
    ['what follows the header', 40, undefined],
    ['far behind', 0x7fffffff, undefined],
    ['further than that', -1, undefined],
  ])('parameter problem, pointer to %s (%i): %s', (_field, pointer, mapped) => {
    expect(toIpv4(4, 0, pointer)).toEqual(
      mapped === undefined ? undefined : [12, 0, mapped * 2 ** 24]
    );
  });

  test('a parameter problem of an unknown next header becomes protocol unreachable', () => {
    expect(toIpv4(4, 1, 40)).toEqual([3, 2, 0]);
  });

  test('a parameter problem of an unknown option has no counterpart', () => {
    expect([toIpv4(4, 2, 40), toIpv4(4, 3, 0)]).toEqual([undefined, undefined]);
  });

  test('no other type has a counterpart', () => {
    const types = Array.from({ length: 256 }, (_, type) => type);
    expect(types.filter((type) => toIpv4(type, 0) !== undefined)).toEqual([1, 2, 3, 4]);
  });
});

test('a mapping does not depend on the one before', () => {
  const mapping = new ErrorMapping();
  mapping.toIpv6(3, 4, 0, 1500, 1500);
  mapping.toIpv6(3, 1, 0, 1500, 1500);
  expect([mapping.type, mapping.code, mapping.rest]).toEqual([1, 0, 0]);
});

test('hasLengthAttribute is true for the types of RFC 4884', () => {
  const types = Array.from({ length: 256 }, (_, type) => type);
  expect(types.filter((type) => hasLengthAttribute(4, type))).toEqual([3, 11, 12]);
  expect(types.filter((type) => hasLengthAttribute(6, type))).toEqual([1, 3]);
});
