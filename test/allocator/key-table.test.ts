import fc from 'fast-check';
import { expect, test } from 'vitest';
import { KeyTable } from '../../src/allocator/key-table.ts';
import { PackedKey } from '../../src/allocator/packed-key.ts';

const ALL = Array.from({ length: 41 }, (_, i) => `site-${i}`);

test('finds what a map finds, while keys come and go', () => {
  const step = fc.record({ key: fc.constantFrom(...ALL), isThere: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { minLength: 100, maxLength: 300 }), fc.nat(2), (steps, bits) => {
      const keys = [''];
      const packed = new PackedKey();
      const table = new KeyTable((record) => keys[record] === packed.text);
      const map = new Map<string, number>();
      // With few different hashes, most keys collide, and the slots go round the end of the table.
      const hash = (key: string) => {
        packed.pack(key);
        return bits === 0 ? packed.hash : packed.hash | (-1 << bits);
      };
      for (const { key, isThere } of steps) {
        const record = map.get(key);
        if (isThere && record === undefined) {
          map.set(key, keys.push(key) - 1);
          table.set(keys.length - 1, hash(key));
        } else if (!isThere && record !== undefined) {
          map.delete(key);
          table.delete(record, hash(key));
          table.delete(record, hash(key));
        }
        const wrong = ALL.filter((each) => table.get(hash(each)) !== (map.get(each) ?? 0));
        expect(wrong).toEqual([]);
      }
    }),
    { numRuns: 50 }
  );
});
