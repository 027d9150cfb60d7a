/**
 * The tests that every implementation of `Store` must pass.
 * @module
 */
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { ApiMisuseError, StoreConflictError, StoreError } from '../../src/errors.ts';
import type { Change, Guard, Json, Store, Write } from '../../src/store/index.ts';

/**
 * Defines the tests.
 *
 * @param open returns an empty store
 * @param maxWrites that of the store; default: any number
 */
export function describeStore(
  name: string,
  open: () => Promise<Store>,
  maxWrites: number = Number.POSITIVE_INFINITY
): void {
  describe(`${name} as a store`, () => {
    let store: Store;
    beforeEach(async () => {
      store = await open();
    });
    afterEach(() => store.close());

    test('has no entry before the first commit', async () => {
      expect(await store.get('a')).toBeUndefined();
      expect(await store.list('')).toEqual([]);
    });

    test('returns what was committed, with the version of its commit', async () => {
      await store.commit([
        { key: 'a', value: { deep: [1, 'two', null, { three: true }] } },
        { key: 'b', value: null },
      ]);
      const a = await store.get('a');
      const b = await store.get('b');
      expect(a?.value).toEqual({ deep: [1, 'two', null, { three: true }] });
      expect(b?.value).toBeNull();
      expect(a?.version).toBe(b?.version);
      expect(a?.version).toBeGreaterThan(0);
    });

    test('gives an entry a greater version each time it is written', async () => {
      const versions: number[] = [];
      for (const value of [1, undefined, 2, 2]) {
        await store.commit([{ key: 'a', value }]);
        versions.push((await store.get('a'))?.version ?? 0);
      }
      expect(versions[1]).toBe(0);
      expect(versions[2]).toBeGreaterThan(versions[0]!);
      expect(versions[3]).toBeGreaterThan(versions[2]!);
    });

    test('lists the entries under a prefix, sorted by key', async () => {
      const keys = ['site/b', 'site/a', 'site/a/x', 'sites', 'lease/z', 'site/ä'];
      for (const key of keys) await store.commit([{ key, value: key }]);
      expect((await store.list('site/')).map((entry) => entry.key)).toEqual([
        'site/a',
        'site/a/x',
        'site/b',
        'site/ä',
      ]);
      expect(await store.list('')).toHaveLength(keys.length);
    });

    test('deletes an entry, and lets an absent one be deleted again', async () => {
      await store.commit([{ key: 'a', value: 1 }]);
      await store.commit([{ key: 'a', value: undefined }]);
      expect(await store.get('a')).toBeUndefined();
      await store.commit([{ key: 'a', value: undefined }]);
    });

    test('refuses a commit with a wrong expected version, and writes none of it', async () => {
      await store.commit([{ key: 'a', value: 1 }]);
      const { version } = (await store.get('a'))!;
      const refused: Write[][] = [
        [{ key: 'a', value: 2, expect: 0 }],
        [{ key: 'a', value: 2, expect: version + 1 }],
        [{ key: 'absent', value: 2, expect: version }],
        [
          { key: 'b', value: 1 },
          { key: 'a', value: undefined, expect: 0 },
        ],
      ];
      for (const writes of refused) {
        await expect(store.commit(writes)).rejects.toThrow(StoreConflictError);
      }
      expect(await store.list('')).toEqual([{ key: 'a', value: 1, version }]);
    });

    test('accepts a commit with the right expected version, also that of an absent entry', async () => {
      await store.commit([{ key: 'a', value: 1, expect: 0 }]);
      const { version } = (await store.get('a'))!;
      await store.commit([
        { key: 'a', value: 2, expect: version },
        { key: 'b', value: 1, expect: 0 },
      ]);
      await store.commit([{ key: 'b', value: undefined }]);
      await store.commit([{ key: 'b', value: 2, expect: 0 }]);
      expect((await store.list('')).map((entry) => entry.value)).toEqual([2, 2]);
    });

    test('lets exactly one of many concurrent writers win a version', async () => {
      const attempts = Array.from({ length: 20 }, (_, value) =>
        store.commit([{ key: 'a', value, expect: 0 }])
      );
      const outcomes = await Promise.allSettled(attempts);
      const winners = outcomes.flatMap((outcome, i) => (outcome.status === 'fulfilled' ? [i] : []));
      expect(winners).toHaveLength(1);
      expect((await store.get('a'))?.value).toBe(winners[0]);
    });

    test('counts correctly when many writers read, add one and retry on conflict', async () => {
      const increment = async (): Promise<void> => {
        for (;;) {
          const entry = await store.get('n');
          const next = ((entry?.value as number | undefined) ?? 0) + 1;
          try {
            return await store.commit([{ key: 'n', value: next, expect: entry?.version ?? 0 }]);
          } catch (error) {
            if (!(error instanceof StoreConflictError)) throw error;
          }
        }
      };
      await Promise.all(Array.from({ length: 12 }, increment));
      expect((await store.get('n'))?.value).toBe(12);
    });

    test('refuses a commit with a wrong guard, and writes none of it', async () => {
      await store.commit([{ key: 'epoch', value: 1 }]);
      const { version } = (await store.get('epoch'))!;
      const refused: Guard[][] = [
        [{ key: 'epoch', version: 0 }],
        [{ key: 'epoch', version: version + 1 }],
        [
          { key: 'absent', version: 0 },
          { key: 'epoch', version: version + 1 },
        ],
        [{ key: 'absent', version }],
      ];
      for (const guards of refused) {
        await expect(store.commit([{ key: 'a', value: 1 }], guards)).rejects.toThrow(
          StoreConflictError
        );
      }
      expect(await store.list('')).toEqual([{ key: 'epoch', value: 1, version }]);
    });

    test('accepts a commit with right guards, whose entries stay as they are', async () => {
      await store.commit([{ key: 'epoch', value: 1 }]);
      const epoch = (await store.get('epoch'))!;
      const guards = [
        { key: 'epoch', version: epoch.version },
        { key: 'fence', version: 0 },
      ];
      await store.commit([{ key: 'a', value: 1, expect: 0 }], guards);
      await store.commit([], guards);
      expect(await store.get('epoch')).toEqual(epoch);
      expect((await store.list('')).map(({ key }) => key)).toEqual(['a', 'epoch']);
    });

    test('compares a guard with what the commits before have written', async () => {
      await store.commit([{ key: 'epoch', value: 1 }]);
      const guard = { key: 'epoch', version: (await store.get('epoch'))!.version };
      const outcomes = await Promise.allSettled([
        store.commit([{ key: 'a', value: 1 }], [guard]),
        store.commit([{ key: 'epoch', value: undefined }]),
        store.commit([{ key: 'b', value: 1 }], [guard]),
        store.commit([{ key: 'c', value: 1 }], [{ key: 'epoch', version: 0 }]),
      ]);
      expect(outcomes.map(({ status }) => status)).toEqual([
        'fulfilled',
        'fulfilled',
        'rejected',
        'fulfilled',
      ]);
      expect((await store.list('')).map(({ key }) => key)).toEqual(['a', 'c']);
    });

    test('refuses a guard with an empty key', async () => {
      const commit = store.commit([{ key: 'a', value: 1 }], [{ key: '', version: 0 }]);
      await expect(commit).rejects.toThrow(ApiMisuseError);
      expect(await store.list('')).toEqual([]);
    });

    test.each<[string, Write[]]>([
      ['an empty key', [{ key: '', value: 1 }]],
      ['a key written twice', [{ key: 'a', value: 1 }, { key: 'a' } as Write]],
      ['NaN', [{ key: 'a', value: Number.NaN }]],
      ['a function', [{ key: 'a', value: (() => 1) as unknown as Json }]],
      ['a Date', [{ key: 'a', value: new Date(0) as unknown as Json }]],
      ['a nested bigint', [{ key: 'a', value: { b: [1n as unknown as Json] } }]],
    ])('refuses %s and writes nothing', async (_, writes) => {
      await expect(store.commit([{ key: 'first', value: 1 }, ...writes])).rejects.toThrow(
        ApiMisuseError
      );
      expect(await store.list('')).toEqual([]);
    });

    test('keeps its own copy, which neither writer nor reader can change', async () => {
      const value = { list: [1] };
      const committed = store.commit([{ key: 'a', value }]);
      value.list.push(2);
      await committed;
      const read = (await store.get('a'))?.value as { list: number[] };
      try {
        read.list.push(3);
      } catch {
        // A frozen value cannot be changed, so this fails too.
      }
      expect((await store.get('a'))?.value).toEqual({ list: [1] });
    });

    test('calls watchers with the changes under their prefix, once for each commit, in order', async () => {
      const calls: Change[][] = [];
      store.watch('a/', (changes) => calls.push([...changes]));
      await Promise.all([
        store.commit([
          { key: 'a/1', value: 1 },
          { key: 'a/2', value: 2 },
          { key: 'b/1', value: 3 },
        ]),
        store.commit([{ key: 'b/2', value: 4 }]),
        store.commit([{ key: 'a/1', value: undefined }]),
        // Commits that have a key in common keep their order.
        store.commit([
          { key: 'a/1', value: undefined },
          { key: 'a/3', value: 5 },
        ]),
      ]);
      await vi.waitFor(() => expect(calls).toHaveLength(3));
      expect(calls.map((call) => call.map(({ key, value }) => [key, value]))).toEqual([
        [
          ['a/1', 1],
          ['a/2', 2],
        ],
        [['a/1', undefined]],
        [['a/3', 5]],
      ]);
      const versions = calls.map((call) => call[0]!.version);
      expect(versions).toEqual([...versions].sort((x, y) => x - y));
      expect((await store.get('a/3'))?.version).toBe(versions[2]);
    });

    test('calls no watcher for refused commits, nor after the watch has ended', async () => {
      const calls: string[] = [];
      const unwatch = store.watch('', (changes) => calls.push(changes[0]!.key));
      await store.commit([{ key: 'a', value: 1 }]);
      await store.commit([{ key: 'a', value: 2, expect: 0 }]).catch(() => {});
      await store.commit([{ key: 'absent', value: undefined }]);
      await store.commit([{ key: 'b', value: 1 }]);
      await vi.waitFor(() => expect(calls).toEqual(['a', 'b']));
      unwatch();
      await store.commit([{ key: 'c', value: 1 }]);
      await store.commit([{ key: 'd', value: 1 }]);
      expect(calls).toEqual(['a', 'b']);
    });

    test('keeps commit order for every watcher when a watcher commits', async () => {
      const first: string[] = [];
      const second: string[] = [];
      let nested: Promise<void> | undefined;
      store.watch('', (changes) => {
        first.push(changes[0]!.key);
        if (changes[0]!.key === 'a') nested = store.commit([{ key: 'b', value: 1 }]);
      });
      store.watch('', (changes) => second.push(changes[0]!.key));
      await store.commit([{ key: 'a', value: 1 }]);
      await vi.waitFor(() => expect(nested).toBeDefined());
      await nested;
      await vi.waitFor(() => expect(second).toHaveLength(2));
      expect(first).toEqual(['a', 'b']);
      expect(second).toEqual(['a', 'b']);
    });

    if (maxWrites < Number.POSITIVE_INFINITY) {
      test('accepts as many writes and guards as it says, and refuses more', async () => {
        expect(store.maxWrites).toBe(maxWrites);
        const writes = (count: number): Write[] =>
          Array.from({ length: count }, (_, i) => ({ key: `k/${i}`, value: i, expect: 0 }));
        const guards = [{ key: 'absent', version: 0 }];
        await expect(store.commit(writes(maxWrites), guards)).rejects.toThrow(ApiMisuseError);
        expect(await store.list('')).toEqual([]);
        await store.commit(writes(maxWrites - 1), guards);
        const entries = await store.list('');
        expect(entries).toHaveLength(maxWrites - 1);
        expect(new Set(entries.map(({ version }) => version)).size).toBe(1);
      });
    } else {
      test('applies many writes at one moment, leaves the event loop free, and calls a watcher once', async () => {
        await store.commit([
          { key: 'k/0', value: 'old' },
          { key: 'other', value: 'old' },
        ]);
        const calls: [size: number, key: string, first: Json | undefined][] = [];
        for (const prefix of ['k/', '', 'absent/']) {
          store.watch(prefix, (changes) => {
            calls.push([changes.length, changes[0]!.key, changes[0]!.value]);
          });
        }
        const writes: Write[] = Array.from({ length: MANY }, (_, i) => ({
          key: `k/${i}`,
          value: 1,
        }));
        let isDone = false;
        const committed = store.commit([...writes, { key: 'other', value: undefined }]).then(() => {
          isDone = true;
        });
        const next = store.commit([{ key: `k/${MANY}`, value: 2 }]);
        const states = new Set<string>();
        let turns = 0;
        while (!isDone) {
          const entries = [await store.get('k/0'), await store.get(`k/${MANY - 1}`)];
          entries.push(await store.get('other'));
          states.add(entries.map((entry) => entry?.value ?? 'none').join());
          turns++;
          await new Promise((resolve) => setImmediate(resolve));
        }
        await Promise.all([committed, next]);
        states.delete('1,1,none');
        expect([...states]).toEqual(['old,none,old']);
        // Each slice takes about 2 ms.
        expect(turns).toBeGreaterThan(3);
        expect(calls).toEqual([
          [MANY, 'k/0', 1],
          [MANY + 1, 'k/0', 1],
          [1, `k/${MANY}`, 2],
          [1, `k/${MANY}`, 2],
        ]);
        const entries = await store.list('k/');
        expect(entries).toHaveLength(MANY + 1);
        expect(new Set(entries.map(({ version }) => version)).size).toBe(2);
      });
    }

    test.each<[string, Write, typeof ApiMisuseError | typeof StoreConflictError]>([
      ['a key twice', { key: 'k/7', value: 1 }, ApiMisuseError],
      ['NaN', { key: 'nan', value: Number.NaN }, ApiMisuseError],
      ['a wrong version', { key: 'absent', value: 1, expect: 5 }, StoreConflictError],
    ])('refuses many writes with %s, and keeps the order of commits', async (_, wrong, type) => {
      const length = Math.min(2000, maxWrites - 1);
      const writes: Write[] = Array.from({ length }, (_, i) => ({ key: `k/${i}`, value: 1 }));
      const refused = store.commit([...writes, wrong]);
      const accepted = store.commit([{ key: 'k/0', value: 2, expect: 0 }]);
      await expect(refused).rejects.toThrow(type);
      await accepted;
      const version = expect.any(Number);
      expect(await store.list('')).toEqual([{ key: 'k/0', value: 2, version }]);
    });

    test('close waits for a commit with many writes', async () => {
      const length = Math.min(2000, maxWrites);
      const writes: Write[] = Array.from({ length }, (_, i) => ({ key: `k/${i}`, value: 1 }));
      let seen = 0;
      store.watch('', (changes) => {
        seen = changes.length;
      });
      const committed = store.commit(writes);
      await store.close();
      await committed;
      expect(seen).toBe(length);
    });

    test('refuses everything after close, which may be called twice', async () => {
      await store.commit([{ key: 'a', value: 1 }]);
      await store.close();
      await store.close();
      await expect(store.get('a')).rejects.toThrow(StoreError);
      await expect(store.list('')).rejects.toThrow(StoreError);
      await expect(store.commit([{ key: 'a', value: 1 }])).rejects.toThrow(StoreError);
      expect(() => store.watch('', () => {})).toThrow(StoreError);
    });

    test('agrees with a plain map over any sequence of commits', async () => {
      const key = fc.constantFrom('a', 'a/b', 'a/c', 'b');
      const write = fc.record({
        key,
        value: fc.option(fc.jsonValue() as fc.Arbitrary<Json>, { nil: undefined }),
        absent: fc.boolean(),
      });
      const commits = fc.array(fc.uniqueArray(write, { selector: (w) => w.key }), { maxLength: 6 });
      await fc.assert(
        fc.asyncProperty(commits, async (sequence) => {
          for (const { key } of await store.list(''))
            await store.commit([{ key, value: undefined }]);
          const model = new Map<string, string>();
          for (const writes of sequence) {
            const holds = writes.every((w) => !w.absent || !model.has(w.key));
            const outcome = store.commit(
              writes.map((w) => ({ key: w.key, value: w.value, ...(w.absent && { expect: 0 }) }))
            );
            if (!holds) {
              await expect(outcome).rejects.toThrow(StoreConflictError);
              continue;
            }
            await outcome;
            for (const w of writes) {
              if (w.value === undefined) model.delete(w.key);
              else model.set(w.key, JSON.stringify(w.value));
            }
          }
          const entries = await store.list('');
          expect(entries.map((e) => [e.key, JSON.stringify(e.value)])).toEqual([...model].sort());
        }),
        { numRuns: 50 }
      );
    });
  });
}

const MANY = 10_000;
