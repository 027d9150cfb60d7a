/**
 * The tests that every implementation of `LeasingStore` must pass, with two processes on one store.
 * @module
 */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import {
  ApiMisuseError,
  StoreConflictError,
  StoreError,
  StoreUnavailableError,
} from '../../src/errors.ts';
import type { Change, Json, LeasingStore, StoreLease } from '../../src/store/index.ts';

/** Two processes on an empty store, the first of which can be cut off from it. */
export interface TwoProcesses {
  readonly first: LeasingStore;
  readonly second: LeasingStore;
  /** Cuts the first process off, and returns when its leases of `ttlMs` must have ended. */
  cutOff(): Promise<void>;
  /** Ends that. The process may notice it later. */
  connect(): Promise<void>;
  close(): Promise<void>;
}

/**
 * Defines the tests.
 *
 * @param ttlMs the shortest lease that the store grants
 */
export function describeLeasingStore(
  name: string,
  open: () => Promise<TwoProcesses>,
  ttlMs: number
): void {
  describe(`${name} as a store with leases`, () => {
    let processes: TwoProcesses;
    let first: LeasingStore;
    let second: LeasingStore;
    let lease: StoreLease;
    beforeEach(async () => {
      processes = await open();
      ({ first, second } = processes);
      lease = await first.grant(LONG_MS);
    });
    afterEach(() => processes.close());

    /** Records what the watchers of a store are told: for each call keys and values. */
    function record(store: LeasingStore): Record<string, Json | undefined>[] {
      const calls: Record<string, Json | undefined>[] = [];
      store.watch('', (changes: readonly Change[]) => {
        calls.push(Object.fromEntries(changes.map(({ key, value }) => [key, value])));
      });
      return calls;
    }

    test('names the same data in each process, and another store otherwise', async () => {
      expect(first.clusterId).not.toBe('');
      expect(second.clusterId).toBe(first.clusterId);
    });

    test('shows each process the changes of the other, and the version that its watchers have seen', async () => {
      const versions: [version: number, ofStore: number][] = [];
      second.watch('', ([change]) => versions.push([change!.version, second.version]));
      for (const value of [1, 2, 3]) {
        await first.commit([{ key: 'a', value }]);
        expect(first.version).toBeGreaterThanOrEqual((await first.get('a'))!.version);
      }
      await vi.waitFor(() => expect(versions).toHaveLength(3));
      for (const [version, ofStore] of versions) expect(ofStore).toBe(version);
      expect(await second.get('a')).toEqual(await first.get('a'));
      await second.commit([{ key: 'a', value: 4 }]);
      await vi.waitFor(async () => expect((await first.get('a'))?.value).toBe(4));
    });

    test('grants a lease that has not ended, for the asked time or longer', () => {
      expect(lease.id).not.toBe('');
      expect(lease.ttlMs).toBeGreaterThanOrEqual(LONG_MS);
      expect(lease.ended.aborted).toBe(false);
    });

    test.each([0, -1, Number.NaN, Number.POSITIVE_INFINITY])(
      'refuses a lease of %s ms',
      async (ms) => {
        await expect(first.grant(ms)).rejects.toThrow(ApiMisuseError);
      }
    );

    test('deletes the entries of a revoked lease in one change, and no others', async () => {
      const other = await first.grant(LONG_MS);
      await first.commit([
        { key: 'holder/a', value: 1, lease },
        { key: 'holder/b', value: 2, lease },
        { key: 'holder/c', value: 3, lease: other },
        { key: 'site/a', value: 4 },
      ]);
      await vi.waitFor(async () => expect(await second.list('')).toHaveLength(4));
      const calls = [record(first), record(second)];
      await lease.revoke();
      expect(lease.ended.aborted).toBe(true);
      for (const seen of calls) {
        await vi.waitFor(() =>
          expect(seen).toEqual([{ 'holder/a': undefined, 'holder/b': undefined }])
        );
      }
      expect(other.ended.aborted).toBe(false);
      expect((await first.list('')).map(({ key }) => key)).toEqual(['holder/c', 'site/a']);
      await lease.revoke();
    });

    test('keeps an entry that was written again without the lease or with another', async () => {
      const other = await second.grant(LONG_MS);
      await first.commit([
        { key: 'a', value: 1, lease },
        { key: 'b', value: 1, lease },
        { key: 'c', value: 1, lease },
        { key: 'd', value: 1, lease },
      ]);
      await second.commit([
        { key: 'b', value: 2 },
        { key: 'c', value: 2, lease: other },
        { key: 'd', value: undefined },
      ]);
      await lease.revoke();
      await vi.waitFor(async () => expect(await first.list('')).toHaveLength(2));
      expect((await first.list('')).map(({ key, value }) => [key, value])).toEqual([
        ['b', 2],
        ['c', 2],
      ]);
      await other.revoke();
      await vi.waitFor(async () => expect(await second.list('')).toHaveLength(1));
    });

    test('refuses a write with a lease that has ended, and writes nothing', async () => {
      await lease.revoke();
      const commit = first.commit([
        { key: 'a', value: 1 },
        { key: 'b', value: 1, lease },
      ]);
      await expect(commit).rejects.toThrow(StoreError);
      expect(await first.list('')).toEqual([]);
    });

    test('ends the leases of a process that is cut off, and tells the other in one change', async () => {
      const short = await first.grant(ttlMs);
      await first.commit([
        { key: 'holder/a', value: 1, lease: short },
        { key: 'holder/b', value: 2, lease: short },
        { key: 'site/a', value: 4 },
      ]);
      await vi.waitFor(async () => expect(await second.list('')).toHaveLength(3));
      const order: string[] = [];
      short.ended.addEventListener('abort', () => order.push('ended'));
      second.watch('holder/', (changes) => order.push(`${changes.length} deleted`));
      await processes.cutOff();
      await vi.waitFor(() => expect(order).toHaveLength(2));
      // The process that held it stops before others may take it over.
      expect(order).toEqual(['ended', '2 deleted']);
    });

    test('keeps what a process that is cut off has seen, and later tells it the difference at once', async () => {
      await first.commit([
        { key: 'a', value: 1 },
        { key: 'b', value: 1 },
        { key: 'c', value: 1 },
      ]);
      const { version } = first;
      await processes.cutOff();
      const calls = record(first);
      await second.commit([
        { key: 'a', value: 2 },
        { key: 'b', value: undefined },
        { key: 'd', value: 2 },
      ]);
      await second.commit([{ key: 'd', value: 3 }]);
      await Promise.all([
        expect(first.commit([{ key: 'a', value: 9 }])).rejects.toThrow(StoreUnavailableError),
        expect(first.grant(ttlMs)).rejects.toThrow(StoreUnavailableError),
      ]);
      expect((await first.list('')).map(({ key, value }) => [key, value])).toEqual([
        ['a', 1],
        ['b', 1],
        ['c', 1],
      ]);
      expect(first.version).toBe(version);
      await processes.connect();
      await vi.waitFor(async () => expect(await first.list('')).toEqual(await second.list('')));
      expect(first.version).toBe(second.version);
      const seen = Object.assign({}, ...calls) as Record<string, Json | undefined>;
      expect(seen).toEqual({ a: 2, b: undefined, d: 3 });
      const again = await first.grant(LONG_MS);
      await first.commit([{ key: 'a', value: 3, lease: again }]);
      await vi.waitFor(async () => expect((await second.get('a'))?.value).toBe(3));
    });

    test('guards a commit with the entry of a lease: after its end another process takes over', async () => {
      await first.commit([{ key: 'controller', value: 'first', expect: 0, lease }]);
      const epoch = (await first.get('controller'))!.version;
      await first.commit([{ key: 'x', value: 1 }], [{ key: 'controller', version: epoch }]);
      const taking = { key: 'controller', value: 'second', expect: 0 };
      await expect(second.commit([taking])).rejects.toThrow(StoreConflictError);
      await lease.revoke();
      const other = await second.grant(LONG_MS);
      await second.commit([{ ...taking, lease: other }]);
      const late = first.commit([{ key: 'x', value: 2 }], [{ key: 'controller', version: epoch }]);
      await expect(late).rejects.toThrow(StoreConflictError);
      expect((await second.get('x'))?.value).toBe(1);
    });

    test('ends the use of leases when it is closed', async () => {
      await first.close();
      expect(lease.ended.aborted).toBe(true);
      await expect(first.grant(ttlMs)).rejects.toThrow(StoreError);
      await second.commit([{ key: 'a', value: 1 }]);
    });
  });
}

/** The time of leases that do not end during a test. */
const LONG_MS = 60_000;
