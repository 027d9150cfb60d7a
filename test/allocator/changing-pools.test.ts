/**
 * Pools that change while their addresses are leased, and addresses that are kept for a key.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { AddressAllocator, type Lease } from '../../src/allocator/index.ts';
import { IpPrefix } from '../../src/base/prefix.ts';
import { AddressUnavailableError, ApiMisuseError, PoolExhaustedError } from '../../src/errors.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { PlainAllocator } from './plain-allocator.ts';

const QUARANTINE_MS = 1000;

function allocatorOf(pools: readonly string[], onRested?: (lease: Lease) => void) {
  const clock = new FakeClock({ wallMs: 1_000_000 });
  const settings = { pools, quarantineMs: QUARANTINE_MS, clock, onRested };
  return { allocator: new AddressAllocator(settings), clock };
}

describe('setPools', () => {
  test('lets a key have both addresses while its pool is replaced, until the old one is released', () => {
    const rested: string[] = [];
    const { allocator, clock } = allocatorOf(['192.0.2.0/29'], ({ address }) =>
      rested.push(`${address}`)
    );
    allocator.allocate('a');
    expect(allocator.setPools(['198.51.100.0/29'])).toEqual([{ key: 'a', address: '192.0.2.1' }]);
    expect(allocator.lookup('a')?.address).toEqual('192.0.2.1');
    expect(allocator.allocate('a').address).toEqual('198.51.100.1');
    expect(allocator.lookup('a')?.address).toEqual('198.51.100.1');
    expect(allocator.former('a')).toEqual([{ key: 'a', address: '192.0.2.1' }]);
    expect(allocator.holder('192.0.2.1')?.key).toBe('a');
    expect(allocator.stats).toEqual({ capacity: 6, leased: 1, quarantined: 0 });

    expect(allocator.releaseAddress('192.0.2.1')?.releasedAt).toBe(clock.wallMs());
    expect(allocator.former('a')).toEqual([]);
    expect(allocator.outside()).toEqual([]);
    expect(allocator.holder('192.0.2.1')).toBeUndefined();
    expect(allocator.isResting('192.0.2.1')).toBe(true);
    clock.advance(QUARANTINE_MS);
    allocator.endRests();
    expect(rested).toEqual(['192.0.2.1']);
    expect(allocator.leases()).toEqual([{ key: 'a', address: '198.51.100.1' }]);
  });

  test('keeps an old address in quarantine if its pool comes back', () => {
    const { allocator, clock } = allocatorOf(['192.0.2.1/32']);
    allocator.allocate('a');
    allocator.setPools(['198.51.100.0/29']);
    allocator.allocate('a');
    allocator.releaseAddress('192.0.2.1');
    allocator.setPools(['192.0.2.1/32']);
    expect(() => allocator.allocate('b')).toThrow(PoolExhaustedError);
    clock.advance(QUARANTINE_MS);
    expect(allocator.allocate('b').address).toEqual('192.0.2.1');
  });

  test('makes the old address the present one again if the change is taken back', () => {
    const { allocator } = allocatorOf(['192.0.2.0/29']);
    allocator.allocate('a');
    allocator.setPools(['198.51.100.0/29']);
    allocator.allocate('a');
    expect(allocator.setPools(['192.0.2.0/29'])).toEqual([{ key: 'a', address: '198.51.100.1' }]);
    expect(allocator.allocate('a').address).toEqual('192.0.2.1');
    expect(allocator.former('a')).toEqual([{ key: 'a', address: '198.51.100.1' }]);
  });

  test('leaves leases where they are while a pool grows, shrinks or gets reservations', () => {
    const { allocator } = allocatorOf(['192.0.2.0/30']);
    for (const key of ['a', 'b']) allocator.allocate(key);
    expect(() => allocator.allocate('c')).toThrow(PoolExhaustedError);
    expect(allocator.setPools(['192.0.2.0/29'])).toEqual([]);
    expect(allocator.allocate('c').address).toEqual('192.0.2.3');
    expect(allocator.stats).toEqual({ capacity: 6, leased: 3, quarantined: 0 });
    const outside = allocator.setPools(['192.0.2.0/29'], ['192.0.2.2']);
    expect(outside).toEqual([{ key: 'b', address: '192.0.2.2' }]);
    expect(allocator.allocate('b').address).toEqual('192.0.2.4');
    expect(
      allocator
        .setPools(['192.0.2.0/30'], ['192.0.2.2'])
        .map(({ key }) => key)
        .sort()
    ).toEqual(['b', 'b', 'c']);
  });

  test('takes leases outside of the pools from an earlier process', () => {
    const { allocator: before } = allocatorOf(['192.0.2.0/29']);
    before.allocate('a');
    before.setPools(['198.51.100.0/29']);
    before.allocate('a');
    const { allocator } = allocatorOf(['198.51.100.0/29']);
    allocator.retain(allocator.restore(before.leases()));
    expect(allocator.lookup('a')?.address).toEqual('198.51.100.1');
    expect(allocator.former('a')).toEqual([{ key: 'a', address: '192.0.2.1' }]);
  });

  test('refuses what is no list of disjoint prefixes, and changes nothing', () => {
    const { allocator } = allocatorOf(['192.0.2.0/30']);
    for (const pools of [['192.0.2.0/24', '192.0.2.0/25'], ['x'], 5]) {
      expect(() => allocator.setPools(pools as string[])).toThrow(ApiMisuseError);
    }
    expect(() => allocator.setPools([], ['x'])).toThrow(ApiMisuseError);
    expect(allocator.stats.capacity).toBe(2);
  });
});

describe('keep', () => {
  test('keeps an address for a key, which gets it whatever it had', () => {
    const { allocator } = allocatorOf(['192.0.2.0/29']);
    allocator.keep('192.0.2.1', 'a');
    expect(allocator.allocate('b').address).toEqual('192.0.2.2');
    expect(() => allocator.assign('b2', '192.0.2.1')).toThrow('192.0.2.1 is kept for a');
    expect(allocator.allocate('a').address).toEqual('192.0.2.1');
    allocator.keep('192.0.2.5', 'b');
    expect(allocator.allocate('b').address).toEqual('192.0.2.5');
    expect(allocator.former('b')).toEqual([{ key: 'b', address: '192.0.2.2' }]);
  });

  test('waits for another key that has the address, and for its quarantine', () => {
    const { allocator, clock } = allocatorOf(['192.0.2.0/29']);
    allocator.allocate('a');
    allocator.keep('192.0.2.1', 'b');
    expect(allocator.allocate('a').address).toEqual('192.0.2.1');
    expect(() => allocator.allocate('b')).toThrow('192.0.2.1 belongs to a');
    allocator.release('a');
    expect(() => allocator.allocate('b')).toThrow('192.0.2.1 is in quarantine after a');
    expect(allocator.allocate('a').address).toEqual('192.0.2.2');
    clock.advance(QUARANTINE_MS);
    for (const key of ['c', 'd', 'e', 'f']) allocator.allocate(key);
    expect(() => allocator.allocate('g')).toThrow(PoolExhaustedError);
    expect(allocator.allocate('b').address).toEqual('192.0.2.1');
  });

  test('ends, and others may have the address', () => {
    const { allocator } = allocatorOf(['192.0.2.0/30']);
    allocator.keep('192.0.2.2', 'a');
    allocator.allocate('b');
    expect(() => allocator.allocate('c')).toThrow(
      'pool 192.0.2.0/30 exhausted: 1 of 2 addresses leased, 0 in quarantine, 1 kept for other keys'
    );
    allocator.unkeep('a');
    allocator.unkeep('a');
    expect(allocator.allocate('c').address).toEqual('192.0.2.2');
  });

  test('refuses an address outside of the pools, one that is reserved or kept, and a second one', () => {
    const { allocator } = allocatorOf(['192.0.2.0/29']);
    allocator.setPools(['192.0.2.0/29'], ['192.0.2.4']);
    for (const address of ['192.0.2.4', '192.0.2.7', '198.51.100.1']) {
      expect(() => allocator.keep(address, 'a')).toThrow(AddressUnavailableError);
    }
    allocator.keep('192.0.2.1', 'a');
    allocator.keep('192.0.2.1', 'a');
    expect(() => allocator.keep('192.0.2.1', 'b')).toThrow('192.0.2.1 is kept for a');
    expect(() => allocator.keep('192.0.2.2', 'a')).toThrow('192.0.2.1 is kept for a already');
    expect(() => allocator.keep('x', 'a')).toThrow(ApiMisuseError);
    allocator.setPools(['198.51.100.0/29']);
    expect(() => allocator.allocate('a')).toThrow(AddressUnavailableError);
    allocator.setPools(['192.0.2.0/29']);
    expect(allocator.allocate('b').address).toEqual('192.0.2.2');
    expect(allocator.allocate('a').address).toEqual('192.0.2.1');
  });
});

const POOLS = [
  ['192.0.2.0/30'],
  ['192.0.2.0/30', '198.51.100.0/30'],
  ['198.51.100.0/30'],
  ['192.0.2.0/29'],
  ['198.51.100.0/29', '192.0.2.0/29'],
  [],
];
const RESERVED = [[], [], ['192.0.2.2'], ['192.0.2.4/30', '198.51.100.2']];
// Two are too long for a record.
const KEYS = ['a', 'b', 'c'.repeat(40), 'd'.repeat(40)];
const ADDRESSES = ['192.0.2.1', '192.0.2.2', '192.0.2.5', '198.51.100.1'];

const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constant('allocate'), key: fc.constantFrom(...KEYS) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant('release'), key: fc.constantFrom(...KEYS) }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('releaseAddress'), at: fc.nat(20) }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('wait'), ms: fc.constantFrom(1, 600, 1000) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constantFrom('keep', 'unkeep'),
      key: fc.constantFrom(...KEYS),
      address: fc.constantFrom(...ADDRESSES),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('setPools'),
      pools: fc.constantFrom(...POOLS),
      reserved: fc.constantFrom(...RESERVED),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('restart') }) }
) as fc.Arbitrary<Step>;

type Step = { readonly do: string } & Partial<{
  readonly key: string;
  readonly at: number;
  readonly ms: number;
  readonly address: string;
  readonly pools: readonly string[];
  readonly reserved: readonly string[];
}>;

test('whatever the history, each key has the leases that the plain allocator gives it', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
      const clock = new FakeClock({ wallMs: 1_000_000 });
      let pools: readonly string[] = POOLS[0]!;
      let reserved: readonly string[] = RESERVED[0]!;
      const start = () =>
        new AddressAllocator({ pools, reserved, quarantineMs: QUARANTINE_MS, clock });
      let allocator = start();
      const plain = new PlainAllocator(QUARANTINE_MS, () => clock.wallMs());
      const prefixes = (texts: readonly string[]) => texts.map((text) => IpPrefix.parse(text));
      plain.setPools(prefixes(pools), prefixes(reserved));
      for (const each of steps) {
        const { key = '', at = 0, address = '' } = each;
        clock.advance(each.ms ?? 1);
        if (each.do === 'allocate') {
          const choices = plain.choices(key);
          if (choices.length === 0) {
            const kind = plain.kept.has(key) ? AddressUnavailableError : PoolExhaustedError;
            expect(() => allocator.allocate(key)).toThrow(kind);
          } else {
            const { address: got } = allocator.allocate(key);
            expect(choices).toContain(`${got}`);
            plain.take(key, `${got}`);
          }
        } else if (each.do === 'release') {
          expect(allocator.release(key)?.address).toEqual(plain.lookup(key)?.address);
          plain.release(plain.lookup(key));
        } else if (each.do === 'releaseAddress') {
          const lease = plain.leases[at];
          const isInUse = lease !== undefined && lease.releasedAt === undefined;
          if (lease !== undefined) {
            expect(allocator.releaseAddress(lease.address) !== undefined).toBe(isInUse);
          }
          plain.release(lease);
        } else if (each.do === 'keep') {
          const may = plain.keep(address, key);
          const keep = () => allocator.keep(address, key);
          if (may) keep();
          else expect(keep).toThrow(AddressUnavailableError);
        } else if (each.do === 'unkeep') {
          allocator.unkeep(key);
          plain.kept.delete(key);
        } else if (each.do === 'setPools') {
          pools = each.pools!;
          reserved = each.reserved!;
          allocator.setPools(pools, reserved);
          plain.setPools(prefixes(pools), prefixes(reserved));
        } else if (each.do === 'restart') {
          const kept = [...plain.kept];
          // An address outside of the pools cannot be kept from the start.
          if (!kept.every(([, address]) => plain.isUsable(address))) continue;
          const next = start();
          next.retain(allocator.leases());
          for (const [keeper, address] of kept) next.keep(address, keeper);
          // Which of several leases in use a key has is only known to the process that made them.
          const isSame = KEYS.every(
            (each) =>
              `${next.lookup(each)?.address}` === `${allocator.lookup(each)?.address}` &&
              next.resting(each)?.releasedAt === allocator.resting(each)?.releasedAt
          );
          if (isSame) allocator = next;
        }
        allocator.endRests();
        const inUse = plain.leases.filter(({ releasedAt }) => releasedAt === undefined);
        for (const lease of inUse) expect(allocator.holder(lease.address)?.key).toBe(lease.key);
        for (const each of KEYS) {
          const present = plain.lookup(each);
          expect(allocator.lookup(each)?.address).toEqual(present?.address);
          const former = inUse.filter((lease) => lease.key === each && lease !== present);
          const found = allocator.former(each).map((lease) => `${lease.address}`);
          expect(found.sort()).toEqual(former.map((lease) => lease.address).sort());
        }
        const outside = inUse.filter((lease) => !plain.isUsable(lease.address));
        const usable = plain.leases.filter((lease) => plain.isUsable(lease.address));
        expect(allocator.outside().length).toBe(outside.length);
        expect(allocator.stats).toEqual({
          capacity: plain.capacity,
          leased: inUse.length - outside.length,
          quarantined: usable.filter((lease) => plain.isInQuarantine(lease)).length,
        });
      }
    }),
    { numRuns: 300 }
  );
});
