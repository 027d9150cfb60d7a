import fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import { ConnectionLimiter, resolveLimiterOptions } from '../../src/base/connection-limiter.ts';
import { ApiMisuseError } from '../../src/errors.ts';

const WIDE = { maxPending: 1000, maxRate: 1e6, burst: 1e6 };

function address(index: number): string {
  return `192.0.${index >> 8}.${index & 255}`;
}

describe('resolveLimiterOptions', () => {
  test('fills in 50 a second and four times as much at once', () => {
    expect(resolveLimiterOptions({}, 128)).toEqual({ maxPending: 128, maxRate: 50, burst: 200 });
    expect(resolveLimiterOptions({ maxRate: 3 }, 64)).toMatchObject({ maxPending: 64, burst: 12 });
    expect(resolveLimiterOptions({ maxRate: 0.1 }, 1).burst).toBe(1);
  });

  test.each([
    { maxPending: 0 },
    { maxPending: 1.5 },
    { maxPending: Number.NaN },
    { maxRate: 0 },
    { maxRate: Number.POSITIVE_INFINITY },
    { burst: 0.5 },
  ])('refuses %o', (limits) => {
    expect(() => resolveLimiterOptions(limits, 128)).toThrow(ApiMisuseError);
  });
});

describe('a connection limiter', () => {
  test('admits a burst of one address, and then no more than its rate', () => {
    const limiter = new ConnectionLimiter({ maxPending: 1000, maxRate: 10, burst: 40 });
    const admitted = (times: number, nowMs: number): number => {
      let count = 0;
      for (let i = 0; i < times; i++) {
        if (limiter.admit('192.0.2.1', nowMs, () => {}) !== undefined) count++;
      }
      return count;
    };
    expect(admitted(100, 0)).toBe(40);
    expect(admitted(100, 99)).toBe(0);
    expect(admitted(100, 100)).toBe(1);
    expect(admitted(100, 1_100)).toBe(10);
    expect(admitted(100, 3_600_000)).toBe(40);
    expect(limiter.counters).toEqual({ admitted: 91, rateLimited: 409, evicted: 0 });
  });

  test('does not let a flood of one address affect another', () => {
    const limiter = new ConnectionLimiter({ maxPending: 8, maxRate: 10, burst: 40 });
    for (let i = 0; i < 1000; i++) limiter.admit('192.0.2.1', 0, () => {});
    const terminate = vi.fn();
    expect(limiter.admit('192.0.2.2', 0, terminate)).toBeDefined();
    for (let i = 0; i < 1000; i++) limiter.admit('192.0.2.1', 1_000, () => {});
    expect(terminate).not.toHaveBeenCalled();
  });

  test.each([
    ['192.0.2.1', '::ffff:192.0.2.1'],
    ['2001:db8:1:2::1', '2001:db8:1:2:ffff:ffff:ffff:ffff'],
    ['fe80::1%eth0', 'fe80::2%eth1'],
    ['', 'no address'],
  ])('%s and %s are one address', (one, other) => {
    const limiter = new ConnectionLimiter({ maxPending: 8, maxRate: 1, burst: 1 });
    expect(limiter.admit(one, 0, () => {})).toBeDefined();
    expect(limiter.admit(other, 0, () => {})).toBeUndefined();
  });

  test.each([
    ['192.0.2.1', '192.0.2.2'],
    ['2001:db8:1:2::1', '2001:db8:1:3::1'],
    ['192.0.2.1', '::192.0.2.1'],
    ['0.0.0.0', 'no address'],
  ])('%s and %s are two', (one, other) => {
    const limiter = new ConnectionLimiter({ maxPending: 8, maxRate: 1, burst: 1 });
    expect(limiter.admit(one, 0, () => {})).toBeDefined();
    expect(limiter.admit(other, 0, () => {})).toBeDefined();
  });

  describe('that is told which connections are late', () => {
    const FULL = { ...WIDE, maxPending: 4 };
    const never = () => false;
    /** Returns the names of those that were ended. Those in upper case are late from the time 10 on. */
    const limiterOf = (...names: string[]) => {
      const limiter = new ConnectionLimiter(FULL);
      const ended: string[] = [];
      const enter = (name: string): void => {
        const isLate = name === name.toUpperCase() ? (nowMs: number) => nowMs >= 10 : never;
        limiter.enter(name[0]!.toLowerCase(), 0, () => ended.push(name), isLate);
      };
      for (const name of names) enter(name);
      return { limiter, ended, enter };
    };

    test('does not end the work of one address for itself', () => {
      const { limiter } = limiterOf('a1', 'a2', 'a3', 'a4');
      expect(limiter.hasRoom('a', 1e9)).toBe(false);
    });

    test('has room in place of one that is late, also if it is not the oldest', () => {
      const { limiter, ended } = limiterOf('a1', 'a2', 'A3', 'a4');
      expect([limiter.hasRoom('a', 9), limiter.hasRoom('a', 10)]).toEqual([false, true]);
      limiter.enter('a', 10, () => {});
      expect(ended).toEqual(['A3']);
    });

    test('always has room for the first connection of an address', () => {
      const { limiter, ended, enter } = limiterOf('a1', 'a2', 'a3', 'b1');
      expect(limiter.hasRoom('c', 0)).toBe(true);
      enter('c1');
      expect(ended).toEqual(['a1']);
      // Now two of one address are not at least two more than one of another.
      expect(['a', 'b', 'c', 'd'].map((key) => limiter.hasRoom(key, 0))).toEqual([
        false,
        false,
        false,
        true,
      ]);
    });

    test('has room for one of two addresses until they have about as much', () => {
      const { limiter, ended, enter } = limiterOf('a1', 'a2', 'a3', 'b1');
      expect(limiter.hasRoom('b', 0)).toBe(true);
      enter('b2');
      expect(ended).toEqual(['a1']);
      expect([limiter.hasRoom('a', 0), limiter.hasRoom('b', 0)]).toEqual([false, false]);
      expect(limiter.counters.evicted).toBe(1);
    });

    test('has room for one more address, also if none has more than one', () => {
      const { limiter, ended, enter } = limiterOf('a1', 'b1', 'c1', 'd1');
      expect([limiter.hasRoom('b', 0), limiter.hasRoom('e', 0)]).toEqual([false, true]);
      enter('e1');
      expect(ended).toEqual(['a1']);
    });

    test('has room again when one leaves', () => {
      const limiter = new ConnectionLimiter({ ...FULL, maxPending: 1 });
      const { leave } = limiter.enter('a', 0, () => {}, never);
      expect(limiter.hasRoom('a', 0)).toBe(false);
      leave();
      expect(limiter.hasRoom('a', 0)).toBe(true);
    });
  });

  test('terminates the oldest connection of the address that has most, when it is full', () => {
    const limiter = new ConnectionLimiter({ ...WIDE, maxPending: 4 });
    const ended: string[] = [];
    const admit = (who: string, name: string, nowMs: number) =>
      limiter.admit(who, nowMs, () => ended.push(name));
    admit('192.0.2.1', 'a1', 0);
    admit('192.0.2.2', 'b1', 1);
    admit('192.0.2.2', 'b2', 2);
    admit('192.0.2.3', 'c1', 3);
    admit('192.0.2.4', 'd1', 4);
    expect(ended).toEqual(['b1']);
    expect(limiter.pending).toBe(4);
    expect(limiter.counters).toEqual({ admitted: 5, rateLimited: 0, evicted: 1 });
    // Each address has one now, so the oldest connection ends.
    admit('192.0.2.5', 'e1', 5);
    admit('192.0.2.5', 'e2', 6);
    expect(ended).toEqual(['b1', 'a1', 'b2']);
    admit('192.0.2.6', 'f1', 7);
    expect(ended).toEqual(['b1', 'a1', 'b2', 'e1']);
  });

  test('terminates the oldest connection when several addresses have the most', () => {
    const limiter = new ConnectionLimiter({ ...WIDE, maxPending: 3 });
    const ended: string[] = [];
    const first = limiter.admit('192.0.2.1', 0, () => ended.push('a1'));
    limiter.admit('192.0.2.2', 1, () => ended.push('b1'));
    limiter.admit('192.0.2.1', 2, () => ended.push('a2'));
    first?.leave();
    limiter.admit('192.0.2.3', 3, () => ended.push('c1'));
    limiter.admit('192.0.2.4', 4, () => ended.push('d1'));
    expect(ended).toEqual(['b1']);
  });

  test('does not count or terminate a connection that has left, which may leave twice', () => {
    const limiter = new ConnectionLimiter({ ...WIDE, maxPending: 2 });
    const terminate = vi.fn();
    const first = limiter.admit('192.0.2.1', 0, terminate)!;
    limiter.admit('192.0.2.1', 1, () => {});
    first.leave();
    first.leave();
    expect(limiter.pending).toBe(1);
    limiter.admit('192.0.2.1', 2, () => {});
    limiter.admit('192.0.2.1', 3, () => {});
    expect(terminate).not.toHaveBeenCalled();
    expect(limiter.pending).toBe(2);
  });

  test('does not count a terminated connection, whatever its owner does then', () => {
    const limiter = new ConnectionLimiter({ ...WIDE, maxPending: 1 });
    const first = limiter.admit('192.0.2.1', 0, () => first?.leave());
    const second = limiter.admit('192.0.2.1', 1, () => {});
    expect(limiter.pending).toBe(1);
    first?.leave();
    expect(limiter.pending).toBe(1);
    second?.leave();
    expect(limiter.pending).toBe(0);
  });

  test('never holds more than maxPending, whatever comes and goes', () => {
    const step = fc.tuple(fc.nat(5), fc.nat(3));
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const limiter = new ConnectionLimiter({ ...WIDE, maxPending: 7 });
        const open = new Set<() => void>();
        let ended = 0;
        for (const [nowMs, [host, action]] of steps.entries()) {
          const [oldest] = [...open];
          if (action === 0 && oldest !== undefined) {
            oldest();
            open.delete(oldest);
            continue;
          }
          const leave = () => admission.leave();
          const admission = limiter.admit(address(host), nowMs, () => {
            open.delete(leave);
            ended++;
          })!;
          open.add(leave);
          expect(limiter.pending).toBe(open.size);
          expect(open.size).toBeLessThanOrEqual(7);
        }
        expect(limiter.counters.evicted).toBe(ended);
      })
    );
  });
});
