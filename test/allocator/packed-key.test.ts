import { expect, test } from 'vitest';
import { AddressAllocator } from '../../src/allocator/index.ts';

const FULL = 'x'.repeat(32);
const KEYS: readonly string[] = [
  '',
  'a',
  'site-1/10.0.0.1',
  FULL.slice(1),
  FULL,
  `${FULL}y`,
  `${FULL}z`,
  `${FULL}${FULL}`,
  '\0',
  'a\0',
  '\0\0\0\0a',
  'zürich/10.0.0.1',
  'zÿ',
  'żabno/10.0.0.1',
  '東京/10.0.0.1',
  'Āa',
  '\ud800',
];

test('keys of any length and any characters have a lease each, and get their text back', () => {
  const allocator = new AddressAllocator({ pools: ['10.0.0.0/27'], quarantineMs: 0 });
  const addresses = KEYS.map((key) => allocator.allocate(key).address);
  expect(new Set(addresses.map(String)).size).toBe(KEYS.length);
  for (const [i, key] of KEYS.entries()) {
    expect(allocator.lookup(key)).toEqual({ key, address: addresses[i] });
    expect(allocator.holder(addresses[i]!)).toEqual({ key, address: addresses[i] });
  }
  expect(allocator.leases().map(({ key }) => key)).toEqual(KEYS);
});

test('an address that goes from one key to another takes on the text of the new one, whatever fits', () => {
  for (const [i, first] of KEYS.entries()) {
    const second = KEYS[(i + 1) % KEYS.length]!;
    const allocator = new AddressAllocator({ pools: ['10.0.0.1/32'], quarantineMs: 0 });
    for (const key of [first, second, first]) {
      const { address } = allocator.allocate(key);
      expect(allocator.leases()).toEqual([{ key, address }]);
      expect(allocator.lookup(key === first ? second : first)).toBeUndefined();
      expect(allocator.releaseAddress(address)?.key).toBe(key);
    }
  }
});

test('a buffer of records that grows keeps the texts of all keys', () => {
  const allocator = new AddressAllocator({ pools: ['10.0.0.0/20'], quarantineMs: 0 });
  const keys = Array.from({ length: 4000 }, (_, i) => (i % 7 === 0 ? `${FULL}-${i}` : `key-${i}`));
  for (const key of keys) allocator.allocate(key);
  expect(allocator.leases().map(({ key }) => key)).toEqual(keys);
});
