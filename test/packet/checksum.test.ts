import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  adjustChecksum,
  adjustPartialChecksum,
  fold,
  foldDelta,
  longDelta,
  sumBytes,
  wordDelta,
} from '../../src/packet/index.ts';
import { checksumOf, incremented, onesSum, wordsOf } from '../support/checksum.ts';

/** Words with both zeros, both sides of the sign bit, and nothing special. */
const WORDS = [0x0000, 0x0001, 0x3285, 0x5555, 0x7fff, 0x8000, 0xdd2f, 0xfffe, 0xffff];
const RUNS = { numRuns: 2_000 };

const word = (): fc.Arbitrary<number> => fc.integer({ min: 0, max: 0xffff });
const long = (): fc.Arbitrary<number> => fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });

function checksum(bytes: Uint8Array): number {
  return ~fold(sumBytes(bytes, 0, bytes.length, 0)) & 0xffff;
}

describe('numerical examples', () => {
  // RFC 1071 section 3
  const bytes = Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7);

  test('RFC 1071 section 3: the words sum to 0x2ddf0, which folds to 0xddf2', () => {
    expect(sumBytes(bytes, 0, 8, 0)).toBe(0x2_ddf0);
    expect(fold(0x2_ddf0)).toBe(0xddf2);
  });

  test('RFC 1624 section 4: equation 3 gives 0x0000 where equation 2 gives 0xffff', () => {
    const [before, m, after] = [0xdd2f, 0x5555, 0x3285];
    expect(adjustChecksum(before, wordDelta(m, after))).toBe(0x0000);
    expect(adjustChecksum(before, foldDelta(wordDelta(m, after)))).toBe(0x0000);
  });

  test('RFC 1624 section 4: the reverse change of 0x0000 gives 0xdd2f again', () => {
    expect(adjustChecksum(0x0000, foldDelta(wordDelta(0x3285, 0x5555)))).toBe(0xdd2f);
  });
});

describe('sumBytes', () => {
  test.each([
    { length: 0, sum: 0 },
    { length: 1, sum: 0xab00 },
    { length: 2, sum: 0xabcd },
    { length: 3, sum: 0xabcd + 0xef00 },
    { length: 4, sum: 0xabcd + 0xef12 },
  ])('sums $length bytes to $sum, an odd one filled up with zero', ({ length, sum }) => {
    expect(sumBytes(Uint8Array.of(0xab, 0xcd, 0xef, 0x12), 0, length, 0)).toBe(sum);
  });

  test('sums words from an odd start, and nothing around them', () => {
    const bytes = Uint8Array.of(0xff, 0x12, 0x34, 0x56, 0xff);
    expect(sumBytes(bytes, 1, 4, 0)).toBe(0x1234 + 0x5600);
  });

  test('adds to the sum it is given', () => {
    expect(sumBytes(Uint8Array.of(0x00, 0x02), 0, 2, 0x1_0000)).toBe(0x1_0002);
  });

  test.each([65_534, 65_535, 65_536])('does not overflow on %i bytes of 0xff', (length) => {
    const bytes = new Uint8Array(length).fill(0xff);
    const sum = sumBytes(bytes, 0, length, 0xffff);
    expect(sum).toBe(Math.floor(length / 2) * 0xffff + (length % 2) * 0xff00 + 0xffff);
    expect(fold(sum)).toBe(onesSum([...wordsOf(bytes), 0xffff]));
  });
});

describe('fold', () => {
  test.each([
    [0x0000_0000, 0x0000],
    [0x0000_ffff, 0xffff],
    [0x0001_0000, 0x0001],
    [0x0001_ffff, 0x0001],
    [0xffff_0000, 0xffff],
    [0xffff_ffff, 0xffff],
  ])('folds %i to %i', (sum, folded) => {
    expect(fold(sum)).toBe(folded);
  });

  test('agrees with end-around carry for any 32-bit sum', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 0xffff_ffff }), (sum) => {
        expect(fold(sum)).toBe(onesSum([sum]));
      }),
      RUNS
    );
  });
});

describe('adjustChecksum', () => {
  test('agrees with RFC 1624 equation 3 for every checksum and words of every sort', () => {
    for (const before of WORDS) {
      for (const after of WORDS) {
        const delta = wordDelta(before, after);
        for (let old = 0; old <= 0xffff; old++) {
          const expected = 0xffff - onesSum([0xffff - old, 0xffff - before, after]);
          if (adjustChecksum(old, delta) !== expected) {
            expect({ old, before, after, adjusted: adjustChecksum(old, delta) }).toBe(expected);
          }
        }
      }
    }
  });

  test('gives the result of a full computation, for every new value of a word', () => {
    const bytes = Uint8Array.of(0x45, 0x00, 0x55, 0x55, 0xab, 0xcd);
    const old = checksum(bytes);
    for (let after = 0; after <= 0xffff; after++) {
      bytes[2] = after >>> 8;
      bytes[3] = after;
      const adjusted = adjustChecksum(old, foldDelta(wordDelta(0x5555, after)));
      if (adjusted !== checksum(bytes)) expect({ after, adjusted }).toBe(checksum(bytes));
    }
  });

  test('gives the result of a full computation, for any words that change at once', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(word(), word()), { minLength: 1, maxLength: 20 }),
        fc.array(word(), { maxLength: 10 }),
        (changes, rest) => {
          const before = [0x4500, ...rest, ...changes.map(([m]) => m)];
          const after = [0x4500, ...rest, ...changes.map(([, m]) => m)];
          const sum = changes.reduce((total, [m, n]) => total + wordDelta(m, n), 0);
          const adjusted = adjustChecksum(checksumOf(before), foldDelta(sum));
          expect(adjusted).toBe(checksumOf(after));
        }
      ),
      RUNS
    );
  });

  test.each([0x0000, 0xffff])('does not change %i when no word changes', (zero) => {
    expect(adjustChecksum(zero, foldDelta(wordDelta(0x1234, 0x1234)))).toBe(zero);
    expect(adjustChecksum(zero, 0)).toBe(zero);
  });

  test('treats a word that changes from one zero to the other as unchanged', () => {
    expect(adjustChecksum(0xffff, foldDelta(wordDelta(0x0000, 0xffff)))).toBe(0xffff);
    expect(adjustChecksum(0x0000, foldDelta(wordDelta(0xffff, 0x0000)))).toBe(0x0000);
  });

  test('treats both zeros as the same sum when a word changes', () => {
    const delta = foldDelta(wordDelta(0x0a00, 0x6440));
    expect(adjustChecksum(0x0000, delta)).toBe(adjustChecksum(0xffff, delta));
  });

  test('keeps a wrong checksum wrong by the same amount', () => {
    const words = [0x4500, 0x1234, 0x0a00];
    const changed = [0x4500, 0x1234, 0x6440];
    const adjusted = adjustChecksum(checksumOf(words) ^ 0x0001, wordDelta(0x0a00, 0x6440));
    const error = (checksum: number, from: number[]): number => onesSum([...from, checksum]);
    expect(error(adjusted, changed)).toBe(error(checksumOf(words) ^ 0x0001, words));
    expect(error(adjusted, changed)).not.toBe(0xffff);
  });
});

describe('adjustPartialChecksum', () => {
  test('gives the sum of the new words, not its complement', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(word(), word()), { minLength: 1, maxLength: 16 }),
        word(),
        (changes, length) => {
          const before = [6, length, ...changes.map(([m]) => m)];
          const after = [6, length, ...changes.map(([, m]) => m)];
          const sum = changes.reduce((total, [m, n]) => total + wordDelta(m, n), 0);
          expect(adjustPartialChecksum(onesSum(before), foldDelta(sum))).toBe(onesSum(after));
        }
      ),
      RUNS
    );
  });

  test('is the complement of the same change to a complete checksum, for every sum', () => {
    for (const delta of WORDS) {
      for (let sum = 0; sum <= 0xffff; sum++) {
        const complete = adjustChecksum(0xffff - sum, delta);
        const partial = adjustPartialChecksum(sum, delta);
        if (partial !== 0xffff - complete) expect({ sum, delta, partial }).toBe(0xffff - complete);
      }
    }
  });
});

describe('deltas', () => {
  test('a 32-bit word changes a checksum as its two halves do, whatever its sign', () => {
    fc.assert(
      fc.property(long(), long(), (before, after) => {
        const halves = (value: number): number[] => [value >>> 16, value & 0xffff];
        const expected = incremented(0x1234, halves(before), halves(after));
        expect(adjustChecksum(0x1234, foldDelta(longDelta(before, after)))).toBe(expected);
      }),
      RUNS
    );
  });

  test('foldDelta gives 0 for both sums that change nothing', () => {
    expect([0, 0xffff, 2 * 0xffff, 16 * 0xffff].map(foldDelta)).toEqual([0, 0, 0, 0]);
  });

  test('foldDelta gives any other sum as fold does', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 32 * 0xffff }), (sum) => {
        expect(foldDelta(sum)).toBe(sum % 0xffff);
      }),
      RUNS
    );
  });

  test('two addresses that are exchanged change nothing', () => {
    const [a, b] = [0x0a00_0005, 0x6440_0001];
    expect(foldDelta(longDelta(a, b) + longDelta(b, a))).toBe(0);
  });
});
