import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { QueueAge } from '../../src/tunnel/codel.ts';

describe('QueueAge', () => {
  test('knows how long the first byte has been there', () => {
    const age = new QueueAge();
    expect([age.bytes, age.waitMs(50)]).toEqual([0, 0]);
    age.add(100, 10);
    age.add(50, 15);
    expect([age.bytes, age.waitMs(20)]).toEqual([150, 10]);
    age.remove(99);
    expect([age.bytes, age.waitMs(20)]).toEqual([51, 10]);
    age.remove(1);
    expect([age.bytes, age.waitMs(20)]).toEqual([50, 5]);
    age.remove(50);
    expect([age.bytes, age.waitMs(20)]).toEqual([0, 0]);
  });

  test('leaves the first bytes when the rest is cleared', () => {
    const age = new QueueAge();
    age.add(100, 10);
    age.add(100, 20);
    age.clear(30);
    expect([age.bytes, age.waitMs(40)]).toEqual([30, 30]);
    age.clear(0);
    expect([age.bytes, age.waitMs(40)]).toEqual([0, 0]);
    age.add(1, 50);
    expect(age.waitMs(60)).toBe(10);
  });

  test('is never off by more than a millisecond while there are few ages, and never below', () => {
    const step = fc.record({ add: fc.nat(9), remove: fc.nat(9), passMs: fc.nat(3) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const age = new QueueAge();
        const bytes: number[] = [];
        let nowMs = 0;
        for (const { add, remove, passMs } of steps) {
          nowMs += passMs / 2;
          if (add > 0) age.add(add, nowMs);
          for (let i = 0; i < add; i++) bytes.push(nowMs);
          const count = Math.min(remove, bytes.length);
          if (count > 0) age.remove(count);
          bytes.splice(0, count);
          expect(age.bytes).toBe(bytes.length);
          const exact = bytes.length === 0 ? 0 : nowMs - bytes[0]!;
          expect(age.waitMs(nowMs)).toBeGreaterThanOrEqual(exact);
          expect(age.waitMs(nowMs)).toBeLessThan(exact + 1);
        }
      })
    );
  });

  test('takes any number of ages, and then calls the youngest bytes too old', () => {
    const age = new QueueAge();
    for (let i = 0; i < 1_000; i++) age.add(10, i * 2);
    expect([age.bytes, age.waitMs(2_000)]).toEqual([10_000, 2_000]);
    age.remove(9_995);
    expect(age.bytes).toBe(5);
    expect(age.waitMs(2_000)).toBeGreaterThan(2);
    age.remove(5);
    age.add(1, 3_000);
    expect(age.waitMs(3_001)).toBe(1);
  });
});
