import fc from 'fast-check';
import { expect, test } from 'vitest';
import { IntLists } from '../../src/translator/int-lists.ts';

const step = fc.record({
  kind: fc.constantFrom('add', 'add', 'remove', 'renumber'),
  list: fc.nat({ max: 40 }),
  member: fc.nat({ max: 80 }),
  to: fc.nat({ max: 80 }),
});

test('agree with arrays after any steps', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
      const lists = new IntLists();
      const expected = new Map<number, number[]>();
      const listOf = new Map<number, number>();
      let most = -1;
      for (const { kind, list, member, to } of steps) {
        const of = listOf.get(member);
        if (kind === 'add' && of === undefined) {
          lists.add(list, member);
          expected.set(list, [member, ...(expected.get(list) ?? [])]);
          listOf.set(member, list);
          most = Math.max(most, member);
        } else if (kind === 'remove' && of !== undefined) {
          lists.remove(of, member);
          expected.set(
            of,
            expected.get(of)!.filter((each) => each !== member)
          );
          listOf.delete(member);
        } else if (kind === 'renumber' && of !== undefined && to <= most && !listOf.has(to)) {
          lists.renumber(of, member, to);
          expected.set(
            of,
            expected.get(of)!.map((each) => (each === member ? to : each))
          );
          listOf.delete(member);
          listOf.set(to, of);
        }
      }
      for (let list = 0; list <= 41; list++) {
        const members = expected.get(list) ?? [];
        expect(lists.membersOf(list)).toEqual(members);
        expect(lists.length(list)).toBe(members.length);
        expect(lists.first(list)).toBe(members[0] ?? -1);
      }
      expect(lists.first(10_000)).toBe(-1);
      expect(lists.length(10_000)).toBe(0);
    }),
    { numRuns: 300, seed: 1 }
  );
});
