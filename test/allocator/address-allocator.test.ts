import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  ADDRESS_ALLOCATOR_DEFAULTS,
  AddressAllocator,
  type AddressAllocatorOptions,
  type Lease,
  type LeaseInput,
} from '../../src/allocator/index.ts';
import { AddressUnavailableError, ApiMisuseError, PoolExhaustedError } from '../../src/errors.ts';
import { FakeClock } from '../support/fake-clock.ts';

function allocatorOf(pool: string, options: { reserved?: string[]; quarantineMs?: number } = {}) {
  const clock = new FakeClock({ wallMs: 1_000_000 });
  const allocator = new AddressAllocator({
    pools: [pool],
    quarantineMs: options.quarantineMs ?? 1000,
    reserved: options.reserved ?? [],
    clock,
  });
  return { allocator, clock };
}

describe('AddressAllocator', () => {
  test('gives a key the same address every time it asks', () => {
    const { allocator } = allocatorOf('100.64.0.0/24');
    const first = allocator.allocate('site-a/10.0.0.5');
    expect(`${allocator.allocate('site-b/10.0.0.5').address}`).not.toBe(`${first.address}`);
    expect(allocator.allocate('site-a/10.0.0.5')).toEqual(first);
    expect(allocator.holder(first.address)?.key).toBe('site-a/10.0.0.5');
  });

  test('knows an address as a value and in every spelling', () => {
    const { allocator } = allocatorOf('2001:db8::/64');
    const { address } = allocator.allocate('site-a/10.0.0.5', 6);
    const spellings = [address, '2001:db8::1', '2001:DB8::1', '2001:db8:0:0::0001'];
    for (const spelling of spellings) {
      expect(allocator.holder(spelling)?.key).toBe('site-a/10.0.0.5');
      expect(allocator.isResting(spelling)).toBe(false);
    }
    allocator.release('site-a/10.0.0.5');
    for (const spelling of spellings) {
      expect(allocator.holder(spelling)).toBeUndefined();
      expect(allocator.isResting(spelling)).toBe(true);
    }
    for (const wrong of ['', '2001:db8::/64', 5]) {
      expect(() => allocator.holder(wrong as string)).toThrow(ApiMisuseError);
      expect(() => allocator.isResting(wrong as string)).toThrow(ApiMisuseError);
    }
  });

  test('leaves out the network, broadcast and reserved addresses', () => {
    const { allocator } = allocatorOf('100.64.0.0/29', {
      reserved: ['100.64.0.2', '100.64.0.4/31'],
    });
    const addresses = ['a', 'b', 'c'].map((key) => allocator.allocate(key).address);
    expect(addresses).toEqual(['100.64.0.1', '100.64.0.3', '100.64.0.6']);
    expect(() => allocator.allocate('d')).toThrow(PoolExhaustedError);
  });

  test.each([
    ['192.0.2.1/32', 1],
    ['192.0.2.0/31', 2],
    ['192.0.2.0/30', 2],
    ['2001:db8::/126', 3],
    ['2001:db8::1/128', 1],
  ])('leases from %s %i addresses and then says that it is exhausted', (pool, count) => {
    const { allocator } = allocatorOf(pool);
    const family = pool.includes(':') ? 6 : 4;
    const addresses = new Set<string>();
    for (let i = 0; i < count; i++)
      addresses.add(`${allocator.allocate(`key-${i}`, family).address}`);
    expect(addresses.size).toBe(count);
    expect(allocator.stats.capacity).toBe(count);
    expect(() => allocator.allocate('one-more', family)).toThrow(
      `pool ${pool} exhausted: ${count} of ${count} addresses leased, 0 in quarantine`
    );
  });

  test('leases a released address to another key only after its quarantine', () => {
    const { allocator, clock } = allocatorOf('192.0.2.1/32');
    allocator.allocate('a');
    expect(allocator.release('a')?.releasedAt).toBe(clock.wallMs());
    expect(allocator.stats).toEqual({ capacity: 1, leased: 0, quarantined: 1 });
    clock.advance(999);
    expect(() => allocator.allocate('b')).toThrow(PoolExhaustedError);
    clock.advance(1);
    expect(allocator.allocate('b').address).toEqual('192.0.2.1');
    expect(allocator.lookup('a')).toBeUndefined();
  });

  test('gives a released address back to its own key during the quarantine and after it', () => {
    const { allocator, clock } = allocatorOf('192.0.2.0/24');
    const { address } = allocator.allocate('a');
    allocator.release('a');
    expect(allocator.allocate('a').address).toEqual(address);
    allocator.release('a');
    clock.advance(10_000);
    expect(`${allocator.allocate('b').address}`).not.toBe(`${address}`);
    expect(allocator.allocate('a').address).toEqual(address);
  });

  test('re-uses the address that has been free the longest', () => {
    const { allocator, clock } = allocatorOf('192.0.2.0/30');
    allocator.allocate('a');
    allocator.allocate('b');
    allocator.release('b');
    clock.advance(10);
    allocator.release('a');
    clock.advance(5000);
    expect(allocator.allocate('c').address).toEqual('192.0.2.2');
    expect(allocator.allocate('d').address).toEqual('192.0.2.1');
  });

  test('changes nothing when a key is released twice, or has no lease', () => {
    const { allocator, clock } = allocatorOf('192.0.2.1/32');
    allocator.allocate('a');
    allocator.release('a');
    clock.advance(500);
    expect(allocator.release('a')).toBeUndefined();
    expect(allocator.release('never')).toBeUndefined();
    clock.advance(500);
    expect(allocator.allocate('b').address).toEqual('192.0.2.1');
  });

  test('assigns a certain address unless it is taken, in quarantine, reserved or foreign', () => {
    const { allocator, clock } = allocatorOf('192.0.2.0/29', { reserved: ['192.0.2.6'] });
    expect(allocator.assign('a', '192.0.2.3').address).toEqual('192.0.2.3');
    expect(allocator.assign('a', '192.0.2.3').address).toEqual('192.0.2.3');
    expect(() => allocator.assign('b', '192.0.2.3')).toThrow('192.0.2.3 belongs to a');
    expect(() => allocator.assign('a', '192.0.2.4')).toThrow('a has 192.0.2.3 already');
    for (const address of ['192.0.2.0', '192.0.2.6', '192.0.2.7', '198.51.100.1']) {
      expect(() => allocator.assign('b', address)).toThrow(AddressUnavailableError);
    }
    allocator.release('a');
    expect(() => allocator.assign('b', '192.0.2.3')).toThrow(AddressUnavailableError);
    clock.advance(1000);
    expect(allocator.assign('b', '192.0.2.3').key).toBe('b');
  });

  test('keeps leases and quarantines across a restart, and returns those outside the pools', () => {
    const before = allocatorOf('192.0.2.0/29');
    before.allocator.allocate('a');
    before.allocator.allocate('b');
    before.allocator.release('b');
    const { allocator, clock } = allocatorOf('192.0.2.0/30');
    const foreign: LeaseInput = { key: 'x', address: '192.0.2.5' };
    expect(allocator.restore([...before.allocator.leases(), foreign])).toEqual([foreign]);
    expect(allocator.lookup('a')?.address).toEqual('192.0.2.1');
    expect(() => allocator.allocate('c')).toThrow(PoolExhaustedError);
    clock.advance(1000);
    expect(allocator.allocate('c').address).toEqual('192.0.2.2');
  });

  test('keeps the IP versions apart', () => {
    const allocator = new AddressAllocator({
      pools: ['192.0.2.0/30', '2001:db8::/64'],
      quarantineMs: 0,
    });
    expect(allocator.allocate('a', 4).address).toEqual('192.0.2.1');
    expect(allocator.allocate('b', 6).address).toEqual('2001:db8::1');
    const v4Only = new AddressAllocator({ pools: ['192.0.2.0/30'], quarantineMs: 0 });
    expect(() => v4Only.allocate('a', 6)).toThrow('there is no IPv6 pool');
  });

  test('has the defaults that the docs state', () => {
    expect(ADDRESS_ALLOCATOR_DEFAULTS).toEqual({ reserved: [], blockSize: 16 });
  });

  test.each<[options: object | undefined, message: string]>([
    [{ pools: ['192.0.2.0/24', '192.0.2.128/25'], quarantineMs: 0 }, 'overlap'],
    [{ pools: ['192.0.2.0'.repeat(2)], quarantineMs: 0 }, 'not an IP prefix'],
    [{ pools: [], quarantineMs: -1 }, 'quarantineMs'],
    [{ pools: [], quarantineMs: Number.NaN }, 'quarantineMs'],
    [undefined, 'options must be an object, not undefined'],
    [{ quarantineMs: 0 }, 'pools must be a list of IP prefixes, not undefined'],
    [{ pools: '192.0.2.0/24', quarantineMs: 0 }, 'pools must be a list of IP prefixes, not "'],
    [{ pools: [5], quarantineMs: 0 }, 'pools[0] must be a text, not 5'],
    [{ pools: ['x'], quarantineMs: 0 }, 'pools[0]: "x" is not an IP prefix'],
    [{ pools: [], reserved: ['x'], quarantineMs: 0 }, 'reserved[0]: "x" is not an IP prefix'],
    [{ pools: [], quarantineMs: '5' }, 'quarantineMs must not be negative: 5'],
    [{ pools: [], quarantineMs: 0, blockSize: '8' }, 'blockSize must be a power of two: 8'],
    [{ pools: [], quarantineMs: 0, groupOf: 5 }, 'groupOf must be a function, not 5'],
    [{ pools: [], quarantineMs: 0, onRested: 5 }, 'onRested must be a function, not 5'],
    [{ pools: [], quarantineMs: 0, clock: 5 }, 'clock must be an object with the methods wallMs'],
  ])('refuses the options %j', (options, message) => {
    const make = () => new AddressAllocator(options as unknown as AddressAllocatorOptions);
    expect(make).toThrow(ApiMisuseError);
    expect(make).toThrow(message);
  });

  test('never leases one address to two keys, nor re-uses one in quarantine, whatever happens', () => {
    const step = fc.record({
      what: fc.constantFrom('allocate', 'release', 'wait', 'restart'),
      key: fc.integer({ min: 0, max: 9 }).map(String),
      waitMs: fc.integer({ min: 0, max: 1500 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        let { allocator, clock } = allocatorOf('192.0.2.0/29');
        const lastUse = new Map<string, { key: string; releasedAt: number | undefined }>();
        for (const { what, key, waitMs } of steps) {
          if (what === 'wait') clock.advance(waitMs);
          if (what === 'restart') {
            const next = allocatorOf('192.0.2.0/29');
            next.clock.setWall(clock.wallMs());
            expect(next.allocator.restore(allocator.leases())).toEqual([]);
            ({ allocator, clock } = next);
          }
          if (what === 'release') {
            const lease = allocator.release(key);
            if (lease) lastUse.set(`${lease.address}`, { key, releasedAt: clock.wallMs() });
          }
          if (what === 'allocate') {
            let lease: Lease;
            try {
              lease = allocator.allocate(key);
            } catch (error) {
              expect(error).toBeInstanceOf(PoolExhaustedError);
              continue;
            }
            const last = lastUse.get(`${lease.address}`);
            if (last && last.key !== key) {
              expect(last.releasedAt).toBeDefined();
              expect(clock.wallMs() - last.releasedAt!).toBeGreaterThanOrEqual(1000);
            }
            lastUse.set(`${lease.address}`, { key, releasedAt: undefined });
          }
          const held = allocator.leases().filter((lease) => lease.releasedAt === undefined);
          expect(new Set(held.map((lease) => `${lease.address}`)).size).toBe(held.length);
          expect(allocator.stats.leased).toBe(held.length);
        }
      })
    );
  });
});
