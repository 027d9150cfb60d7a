/**
 * What a party may take of a pool, and what that leaves to the others.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { AddressAllocator, FairShare, type FairShareRules } from '../../src/allocator/index.ts';
import { FakeClock } from '../support/fake-clock.ts';

function sharesOf(capacity: number, names: string, more: Partial<FairShareRules> = {}): FairShare {
  const shares = new FairShare();
  const parties = new Map([...names].map((name) => [name, 1024]));
  shares.define({ capacity, reserve: 0, parties, ...more });
  return shares;
}

/** Lets a party take all that it can get. Returns how many. */
function takeAll(shares: FairShare, party: string, most = 1_000_000): number {
  let taken = 0;
  for (; taken < most && shares.mayTake(party); taken++) shares.add(party);
  return taken;
}

describe('FairShare', () => {
  test('leaves each party its share, and one to come, whatever the first takes', () => {
    const shares = sharesOf(126, 'ab', { reserve: 15 });
    expect(shares.room).toBe(111);
    expect(shares.share).toBe(18);
    expect(shares.limitOf('a')).toBe(61);
    expect(takeAll(shares, 'a')).toBe(61);
    expect(shares.limitOf('b')).toBe(29);
    expect(takeAll(shares, 'b')).toBe(29);
    shares.define({
      capacity: 126,
      reserve: 15,
      parties: new Map('abc'.split('').map((p) => [p, 1024])),
    });
    expect(takeAll(shares, 'c')).toBeGreaterThanOrEqual(shares.share);
  });

  test('keeps the reserve, and what is nobody’s in particular, out of the room', () => {
    const shares = sharesOf(20, 'a', { reserve: 4 });
    for (let i = 0; i < 6; i++) shares.add(undefined);
    expect(shares.room).toBe(10);
    takeAll(shares, 'a');
    expect(shares.heldBy('a')).toBeLessThan(10);
    for (let i = 0; i < 6; i++) shares.remove(undefined);
    expect(shares.room).toBe(16);
  });

  test('lets a party keep what is above its new limit, and take no more', () => {
    const shares = sharesOf(100, 'a');
    const held = takeAll(shares, 'a');
    shares.define({
      capacity: 100,
      reserve: 0,
      parties: new Map([...'abcdefgh'].map((p) => [p, 99])),
    });
    expect(shares.heldBy('a')).toBe(held);
    expect(shares.mayTake('a')).toBe(false);
    for (const other of 'bcdefgh')
      expect(takeAll(shares, other, shares.share), other).toBeGreaterThan(0);
  });

  test('has an address for everybody where there are enough, and no share where there are not', () => {
    expect(sharesOf(4, 'abc').share).toBe(1);
    expect(sharesOf(3, 'abc').share).toBe(0);
  });

  test.each([
    [126, 15, 111],
    [6, 0, 6],
    [6, 0, 20],
    [2, 0, 2],
    [2, 0, 1],
    [1, 0, 2],
    [0, 0, 2],
  ])(
    'of %i addresses, %i in reserve, gives %i parties no second one while one has none',
    (...of) => {
      const [capacity, reserve, count] = of;
      const names = Array.from({ length: count }, (_, i) => `site-${i}`);
      const parties = new Map(names.map((name) => [name, 1024]));
      const shares = sharesOf(capacity, '', { reserve, parties });
      const taken = names.map((name) => takeAll(shares, name));
      const room = capacity - reserve;
      expect(taken).toEqual(names.map((_, i) => (i < room ? 1 : 0)));
    }
  );

  test.each([27, 200])('never lets a share of %i that is set eat the reserve', (share) => {
    const shares = sharesOf(126, 'abcde', { reserve: 15, share });
    expect(shares.share).toBe(18);
    const taken = [...'abcde'].map((party) => takeAll(shares, party));
    expect(Math.min(...taken)).toBeGreaterThanOrEqual(18);
    expect(taken.reduce((sum, count) => sum + count)).toBeLessThanOrEqual(111 - 18);
  });

  test('keeps the reserve also from those who are below their share, when others are above theirs', () => {
    const shares = sharesOf(126, 'a', { reserve: 15 });
    const held = takeAll(shares, 'a');
    const parties = new Map(Array.from({ length: 100 }, (_, i) => [`site-${i}`, 1024]));
    shares.define({ capacity: 126, reserve: 15, parties });
    expect(shares.share).toBe(1);
    let taken = 0;
    for (const party of parties.keys()) {
      expect(shares.limitOf(party)).toBe(shares.mayTake(party) ? 1 : 0);
      taken += takeAll(shares, party);
    }
    expect(held + taken).toBe(111);
  });

  test('takes another share instead of the computed one, and gives none more than it needs', () => {
    const shares = sharesOf(100, 'ab', { share: 33 });
    expect(takeAll(shares, 'a')).toBe(34); // what one address is common to all
    expect(takeAll(shares, 'b')).toBe(33);
    const parties = new Map([
      ['a', 5],
      ['b', 99],
    ]);
    const modest = sharesOf(100, '', { parties, share: 30 });
    takeAll(modest, 'b');
    expect(takeAll(modest, 'a', 5)).toBe(5);
    expect(modest.heldBy('b')).toBeGreaterThan(40);
  });

  test('gives nothing to who is no party, and takes back what such a one has', () => {
    const shares = sharesOf(100, 'ab');
    expect(shares.mayTake('x')).toBe(false);
    shares.add('x');
    expect(shares.heldBy('x')).toBe(1);
    const limit = shares.limitOf('a');
    shares.remove('x');
    expect(shares.limitOf('a')).toBeGreaterThanOrEqual(limit);
  });

  test('never lets what one party does take the share of another, in any order', () => {
    const seed = Number(process.env.VP_SEED ?? 1);
    const step = fc.record({ party: fc.constantFrom('a', 'b', 'c', 'd'), isTake: fc.boolean() });
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 150 }),
        fc.nat({ max: 20 }),
        fc.array(fc.tuple(step, fc.integer({ min: 1, max: 60 })), { maxLength: 40 }),
        (capacity, reserve, steps) => {
          const shares = sharesOf(capacity, 'abcd', { reserve });
          const heldOf = (): number => [...'abcd'].reduce((sum, p) => sum + shares.heldBy(p), 0);
          for (const [{ party, isTake }, times] of steps) {
            for (let i = 0; i < times; i++) {
              if (!isTake) {
                if (shares.heldBy(party) > 0) shares.remove(party);
                continue;
              }
              const limit = shares.limitOf(party);
              expect(limit > shares.heldBy(party)).toBe(shares.mayTake(party));
              if (shares.mayTake(party)) shares.add(party);
            }
            // What is free covers the reserve, and what is left of the share of everybody and one more.
            const unused = [...'abcd'].reduce(
              (sum, p) => sum + Math.max(0, shares.share - shares.heldBy(p)),
              shares.share
            );
            expect(capacity - heldOf()).toBeGreaterThanOrEqual(
              Math.min(capacity, reserve) + unused
            );
          }
        }
      ),
      { seed }
    );
  });
});

describe('AddressAllocator', () => {
  test('counts the addresses that it hands out, without the reserved ones', () => {
    const pools = ['10.0.0.128/25', 'fd00::/120'];
    const reserved = ['10.0.0.128/31', '10.0.0.129', '10.0.0.200', '10.0.0.200', '192.0.2.0/24'];
    const allocator = new AddressAllocator({ pools, reserved, quarantineMs: 0 });
    // The network's own address is none of them in any case.
    expect(allocator.statsOf(4).capacity).toBe(126 - 2);
    expect(allocator.statsOf(6).capacity).toBe(255);
    let count = 0;
    while (count < 124) allocator.allocate(`key-${count++}`);
    expect(() => allocator.allocate('more')).toThrow(
      '124 of 124 addresses leased, 0 in quarantine'
    );
  });

  test('reports once when the rest of an address has ended, and not if its key has taken it back', () => {
    const clock = new FakeClock({ wallMs: 0 });
    const rested: string[] = [];
    const allocator = new AddressAllocator({
      pools: ['192.0.2.0/28'],
      quarantineMs: 100,
      clock,
      onRested: ({ key }) => rested.push(key),
    });
    for (const key of ['a', 'b']) {
      const { address } = allocator.allocate(key);
      allocator.release(key);
      expect(allocator.isResting(address)).toBe(true);
    }
    clock.setWall(50);
    allocator.allocate('a');
    clock.setWall(100);
    expect(allocator.stats).toMatchObject({ leased: 1, quarantined: 0 });
    expect(rested).toEqual(['b']);
    allocator.endRests();
    expect(rested).toEqual(['b']);
  });
});
