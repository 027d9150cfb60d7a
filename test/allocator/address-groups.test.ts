/**
 * Keys that belong to groups: where their addresses are taken from.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BlockMap } from '../../src/allocator/block-map.ts';
import { AddressAllocator, type AddressAllocatorOptions } from '../../src/allocator/index.ts';
import { IpAddress } from '../../src/base/address.ts';
import { IpPrefix } from '../../src/base/prefix.ts';
import { ApiMisuseError, PoolExhaustedError } from '../../src/errors.ts';
import { FakeClock } from '../support/fake-clock.ts';

const QUARANTINE_MS = 1000;
const groupOf = (key: string): string => key.split('/')[0]!;

function allocatorOf(pools: readonly string[], options: Partial<AddressAllocatorOptions> = {}) {
  const clock = new FakeClock({ wallMs: 1_000_000 });
  const settings = { pools, quarantineMs: QUARANTINE_MS, clock, groupOf };
  return { allocator: new AddressAllocator({ ...settings, ...options }), clock };
}

describe('groups', () => {
  test('each have blocks of their own, filled one after the other', () => {
    const { allocator } = allocatorOf(['10.0.0.128/25']);
    const addresses = (group: string, count: number) =>
      Array.from({ length: count }, (_, i) => allocator.allocate(`${group}/${i}`).address);
    expect(addresses('a', 2)).toEqual(['10.0.0.129', '10.0.0.130']);
    expect(addresses('b', 2)).toEqual(['10.0.0.144', '10.0.0.145']);
    // The first block has 15: the network's own address is not handed out.
    expect(addresses('a', 17).slice(14)).toEqual(['10.0.0.143', '10.0.0.160', '10.0.0.161']);
  });

  test('have blocks of IPv6', () => {
    const { allocator } = allocatorOf(['2001:db8::/112']);
    expect(allocator.allocate('a/1', 6).address).toEqual('2001:db8::1');
    expect(allocator.allocate('b/1', 6).address).toEqual('2001:db8::10');
  });

  test('share blocks when no free block is left, until the last address is leased', () => {
    const { allocator } = allocatorOf(['192.0.2.0/28'], { blockSize: 8 });
    const taken = ['a/1', 'b/1', 'c/1'].map((key) => allocator.allocate(key).address);
    expect(taken).toEqual(['192.0.2.1', '192.0.2.8', '192.0.2.2']);
    for (let i = 0; i < 11; i++) allocator.allocate(`c/more-${i}`);
    expect(() => allocator.allocate('c/one-too-many')).toThrow(PoolExhaustedError);
    expect(allocator.stats).toMatchObject({ capacity: 14, leased: 14 });
  });

  test('leave a block to others only after the quarantine of its last address', () => {
    const { allocator, clock } = allocatorOf(['192.0.2.0/28'], { blockSize: 8 });
    allocator.allocate('a/1');
    allocator.allocate('b/1');
    allocator.release('a/1');
    clock.advance(QUARANTINE_MS - 1);
    expect(allocator.allocate('c/1').address).toEqual('192.0.2.2');
    allocator.release('c/1');
    clock.advance(QUARANTINE_MS);
    // Both are empty now; in the one that is c's, what was never used goes first.
    expect(allocator.allocate('c/2').address).toEqual('192.0.2.3');
    expect(allocator.allocate('b/2').address).toEqual('192.0.2.9');
  });

  test('get a block back that had become shared', () => {
    const { allocator, clock } = allocatorOf(['192.0.2.0/29'], { blockSize: 8 });
    allocator.allocate('a/1');
    allocator.allocate('b/1');
    allocator.release('b/1');
    clock.advance(QUARANTINE_MS);
    const order: string[] = [];
    for (let i = 2; i <= 6; i++) order.push(`${allocator.allocate(`a/${i}`).address}`);
    expect(order).toEqual(['192.0.2.3', '192.0.2.4', '192.0.2.5', '192.0.2.6', '192.0.2.2']);
  });

  test('are known again after a restart, by the leases alone', () => {
    const { allocator } = allocatorOf(['10.0.0.128/25']);
    for (const key of ['a/1', 'b/1']) allocator.allocate(key);
    allocator.release('b/1');
    const { allocator: again } = allocatorOf(['10.0.0.128/25']);
    again.restore(allocator.leases());
    expect(again.allocate('c/1').address).toEqual('10.0.0.160');
    expect(again.allocate('b/2').address).toEqual('10.0.0.145');
    expect(again.allocate('a/2').address).toEqual('10.0.0.130');
  });

  test('use empty blocks of a huge pool again when there are many of them', () => {
    const blocks = new BlockMap(16, 2 ** 32 - 1);
    const first = () => blocks.search('b', (index) => index / 16);
    for (let block = 0; block <= 65_536; block++) {
      if (first() !== block) throw new Error(`block ${block} is passed by`);
      blocks.hold(16 * block, 'a');
      blocks.free(16 * block);
    }
    expect(first()).toBe(0);
  });

  test('skip blocks that are reserved as a whole', () => {
    const { allocator } = allocatorOf(['10.0.0.128/25'], { reserved: ['10.0.0.128/28'] });
    expect(allocator.allocate('a/1').address).toEqual('10.0.0.144');
  });

  test.each([0, 3, 2.5, -4, Number.NaN])('cannot have blocks of %d addresses', (blockSize) => {
    expect(() => allocatorOf(['10.0.0.0/24'], { blockSize })).toThrow(ApiMisuseError);
  });
});

const BLOCK_SIZE = 4;
const KEYS = ['a', 'b', 'c'].flatMap((group) =>
  Array.from({ length: 8 }, (_, i) => `${group}/${i}`)
);
type Step =
  | { readonly key: string; readonly do: 'allocate' | 'release' }
  | { readonly wait: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      key: fc.constantFrom(...KEYS),
      do: fc.constantFrom<('allocate' | 'release')[]>('allocate', 'allocate', 'release'),
    }),
  },
  { weight: 1, arbitrary: fc.record({ wait: fc.constantFrom(1, 500, QUARANTINE_MS) }) }
);

/** What an address is good for, found by looking at every lease. */
class Naive {
  readonly #allocator: AddressAllocator;
  readonly #pools: readonly IpPrefix[];
  readonly #reserved: IpPrefix;
  readonly #now: () => number;

  constructor(
    allocator: AddressAllocator,
    pools: readonly string[],
    reserved: string,
    now: () => number
  ) {
    this.#allocator = allocator;
    this.#pools = pools.map((text) => IpPrefix.parse(text));
    this.#reserved = IpPrefix.parse(reserved);
    this.#now = now;
  }

  /** Addresses that may be handed out now, by the block they are in. */
  free(): { address: string; groups: Set<string> }[] {
    const held = new Map<string, string>();
    for (const { key, address, releasedAt } of this.#allocator.leases()) {
      if (releasedAt === undefined || releasedAt > this.#now() - QUARANTINE_MS) {
        held.set(`${address}`, groupOf(key));
      }
    }
    return this.#pools.flatMap((pool) => {
      const indices = Array.from({ length: pool.size }, (_, i) => i);
      const groupsOf = (index: number): Set<string> => {
        const block = Math.floor(index / BLOCK_SIZE);
        const groups = new Set<string>();
        for (const other of indices) {
          const group = held.get(pool.at(other).toString());
          if (Math.floor(other / BLOCK_SIZE) === block && group !== undefined) groups.add(group);
        }
        return groups;
      };
      return indices
        .slice(1, -1)
        .map((index) => ({ address: pool.at(index).toString(), groups: groupsOf(index) }))
        .filter(({ address }) => !held.has(address))
        .filter(({ address }) => !this.#reserved.contains(IpAddress.parse(address)));
    });
  }
}

test('whatever the history, a group shares a block only when no other address is free', () => {
  const pools = ['192.0.2.0/28', '198.51.100.8/29'];
  const reserved = '192.0.2.4/30';
  fc.assert(
    fc.property(
      fc.array(step, { maxLength: 120 }),
      fc.option(fc.nat({ max: 119 }), { nil: undefined }),
      (steps, restartAt) => {
        const clock = new FakeClock({ wallMs: 1_000_000 });
        const start = () =>
          new AddressAllocator({
            pools,
            reserved: [reserved],
            quarantineMs: QUARANTINE_MS,
            clock,
            groupOf,
            blockSize: BLOCK_SIZE,
          });
        let allocator = start();
        for (const [i, each] of steps.entries()) {
          if (i === restartAt) {
            const leases = allocator.leases();
            allocator = start();
            expect(allocator.restore(leases)).toEqual([]);
          }
          clock.advance(1);
          if ('wait' in each) {
            clock.advance(each.wait);
            continue;
          }
          const { key } = each;
          if (each.do === 'release') {
            allocator.release(key);
            continue;
          }
          const last = allocator.leases().find((lease) => lease.key === key);
          const free = new Naive(allocator, pools, reserved, () => clock.wallMs()).free();
          if (last !== undefined) {
            expect(allocator.allocate(key).address).toEqual(last.address);
          } else if (free.length === 0) {
            expect(() => allocator.allocate(key)).toThrow(PoolExhaustedError);
          } else {
            const address = allocator.allocate(key).address.toString();
            const found = free.find((other) => other.address === address);
            expect(found).toBeDefined();
            const rank = ({ groups }: { groups: Set<string> }): number => {
              if (groups.size === 0) return 1;
              return groups.size === 1 && groups.has(groupOf(key)) ? 0 : 2;
            };
            // Blocks of the first pool go before those of the second: own or nobody's, both are clean.
            if (rank(found!) === 2) expect(Math.min(...free.map(rank))).toBe(2);
            if (rank(found!) === 1) {
              const pool = IpPrefix.parse(pools[0]!).contains(IpAddress.parse(address)) ? 0 : 1;
              const inPool = free.filter((other) =>
                IpPrefix.parse(pools[pool]!).contains(IpAddress.parse(other.address))
              );
              expect(Math.min(...inPool.map(rank))).toBe(1);
            }
          }
        }
      }
    ),
    { numRuns: 300 }
  );
});
