import { describe, expect, test } from 'vitest';
import { StoreUnavailableError } from '../../src/errors.ts';
import { MemoryStore } from '../../src/store/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { describeStore } from './conformance.ts';
import { describeLeasingStore } from './leasing-conformance.ts';

const TTL_MS = 2000;

describeStore('MemoryStore', async () => new MemoryStore());
describeLeasingStore(
  'MemoryStore',
  async () => {
    const clock = new FakeClock();
    const first = new MemoryStore({ clock });
    const second = first.handle();
    return {
      first,
      second,
      async cutOff() {
        first.disconnect();
        clock.advance(TTL_MS);
      },
      connect: async () => first.reconnect(),
      close: async () => {
        await Promise.all([first.close(), second.close()]);
      },
    };
  },
  TTL_MS
);

describe('MemoryStore', () => {
  test('keeps the leases of a handle that is disconnected for a shorter time', async () => {
    const clock = new FakeClock();
    const store = new MemoryStore({ clock });
    const lease = await store.grant(TTL_MS);
    await store.commit([{ key: 'a', value: 1, lease }]);
    for (let round = 0; round < 3; round++) {
      store.disconnect();
      clock.advance(TTL_MS - 1);
      store.reconnect();
    }
    expect(lease.ended.aborted).toBe(false);
    store.disconnect();
    clock.advance(TTL_MS);
    expect(lease.ended.aborted).toBe(true);
    expect(await store.handle().list('')).toEqual([]);
  });

  test('tells each change once to a watcher that connects its handle in another one’s watch', async () => {
    const store = new MemoryStore();
    const other = store.handle();
    const seen: number[] = [];
    store.watch('', ([change]) => {
      if (change!.version === 2) other.reconnect();
    });
    other.watch('', (changes) => seen.push(...changes.map(({ version }) => version)));
    other.disconnect();
    for (const value of [1, 2, 3]) await store.commit([{ key: `k/${value}`, value }]);
    expect(seen).toEqual([1, 2, 3]);
  });

  test('deletes the entries of a lease that was revoked while it was disconnected when it expires', async () => {
    const clock = new FakeClock();
    const store = new MemoryStore({ clock });
    const lease = await store.grant(TTL_MS);
    await store.commit([{ key: 'a', value: 1, lease }]);
    store.disconnect();
    await expect(store.commit([])).rejects.toThrow(StoreUnavailableError);
    await lease.revoke();
    expect(lease.ended.aborted).toBe(true);
    const other = store.handle();
    expect(await other.list('')).toHaveLength(1);
    clock.advance(TTL_MS);
    expect(await other.list('')).toEqual([]);
  });
});
