/** What becomes of a store when its etcd is killed, hangs, is slow, full, compacted or restored. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import {
  StoreConflictError,
  StoreDoubtError,
  StoreError,
  StoreReplacedError,
  StoreUnavailableError,
} from '../../src/errors.ts';
import { EtcdStore } from '../../src/etcd/index.ts';
import type { Change, Json } from '../../src/store/index.ts';
import { META_KEY } from '../../src/store/meta.ts';
import { EtcdServer, whyNoEtcd } from '../support/etcd.ts';
import { Relay } from '../support/relay.ts';

const reason = whyNoEtcd();
const isSkipped = reason !== undefined && process.env.CI === undefined;

describe.skipIf(isSkipped)(`EtcdStore${isSkipped ? ` (skipped: ${reason})` : ''}`, () => {
  let etcd: EtcdServer;
  /** The address of etcd, which stays when etcd is started again. */
  let relay: Relay;
  let store: EtcdStore;
  let problems: Error[];
  const options = () => ({
    endpoints: [`127.0.0.1:${relay.port}`],
    prefix: '/vp/cloud/',
    requestTimeoutMs: 2000,
  });
  async function start(args: readonly string[] = []): Promise<void> {
    etcd = await EtcdServer.start({ args });
    relay = await Relay.open(etcd.port);
    store = await EtcdStore.open(options());
    problems = [];
    store.on('problem', ({ error }) => problems.push(error));
  }
  afterEach(async () => {
    await store.close();
    relay.close();
    await etcd.close();
  });

  const reaches = (state: string): Promise<void> =>
    vi.waitFor(() => expect(store.state).toBe(state));
  const valuesOf = async (each: EtcdStore): Promise<(readonly [string, Json])[]> =>
    (await each.list('')).map(({ key, value }) => [key, value] as const);

  describe('on one etcd', () => {
    beforeEach(() => start());

    test('goes on when etcd is killed and started again: its lease lives on, no change is lost', async () => {
      const lease = await store.grant(30_000);
      await store.commit([{ key: 'holder', value: 1, lease }]);
      const { clusterId, version } = store;
      relay.cut();
      await etcd.stop();
      await reaches('disconnected');
      await Promise.all([
        expect(store.commit([{ key: 'a', value: 1 }])).rejects.toThrow(StoreUnavailableError),
        expect(store.grant(1000)).rejects.toThrow(StoreUnavailableError),
      ]);
      expect(await valuesOf(store)).toEqual([['holder', 1]]);
      const states: string[] = [];
      store.on('state', ({ state }) => states.push(state));
      await etcd.start();
      relay.target = etcd.port;
      await reaches('connected');
      await store.commit([{ key: 'a', value: 2 }]);
      expect(states).toEqual(['connected']);
      expect(await valuesOf(store)).toEqual([
        ['a', 2],
        ['holder', 1],
      ]);
      expect(store.clusterId).toBe(clusterId);
      expect(store.version).toBeGreaterThan(version);
      expect(lease.ended.aborted).toBe(false);
      expect(problems).toEqual([]);
    });

    test('ends leases when etcd hangs, says that a commit is in doubt, and sends no more', async () => {
      const lease = await store.grant(1000);
      await store.commit([{ key: 'holder', value: 1, lease }]);
      await etcd.pause();
      const doubtful = store.commit([{ key: 'a', value: 1, expect: 0 }]);
      await Promise.all([
        vi.waitFor(() => expect(lease.ended.aborted).toBe(true)),
        expect(doubtful).rejects.toThrow(StoreDoubtError),
      ]);
      await reaches('disconnected');
      const unsent = store.commit([{ key: 'b', value: 1 }]);
      await expect(unsent).rejects.toThrow(StoreUnavailableError);
      etcd.resume();
      await reaches('connected');
      // What was in doubt may be there, what was not sent is not, and the lease has ended at etcd too.
      const other = await store.grant(30_000);
      await vi.waitFor(async () => expect(await store.get('holder')).toBeUndefined());
      await store.commit([{ key: 'holder', value: 2, lease: other }]);
      expect((await valuesOf(store)).filter(([key]) => key !== 'a')).toEqual([['holder', 2]]);
      expect(problems).toEqual([]);
    });

    test('is told the difference in one call when etcd was compacted meanwhile', async () => {
      await store.commit([
        { key: 'a', value: 1 },
        { key: 'b', value: 1 },
        { key: 'c', value: 1 },
      ]);
      const before = store.version;
      const calls: (readonly Change[])[] = [];
      store.watch('', (changes) => calls.push(changes));
      relay.cut();
      await reaches('disconnected');
      await etcd.ctl('put', '/vp/cloud/a', '2');
      await etcd.ctl('del', '/vp/cloud/b');
      await etcd.ctl('put', '/vp/cloud/d', '4');
      await etcd.ctl('put', '/vp/cloud/d', '5');
      await etcd.ctl('put', '/vp/elsewhere', '1');
      await etcd.ctl('compaction', String(before + 5));
      relay.target = etcd.port;
      await vi.waitFor(() => expect(store.version).toBe(before + 5));
      expect(calls).toEqual([
        [
          { key: 'a', value: 2, version: before + 1 },
          { key: 'd', value: 5, version: before + 4 },
          { key: 'b', value: undefined, version: before + 5 },
        ],
      ]);
      await store.commit([{ key: 'a', value: 3, expect: before + 1 }]);
      expect(await valuesOf(store)).toEqual([
        ['a', 3],
        ['c', 1],
        ['d', 5],
      ]);
    });

    test('notices a restored snapshot, keeps what it has seen, and is opened anew with it', async () => {
      await store.commit([{ key: 'a', value: 1 }]);
      const snapshot = join(etcd.directory, 'snapshot');
      await etcd.ctl('snapshot', 'save', snapshot);
      const lease = await store.grant(5000);
      await store.commit([{ key: 'a', value: 2 }]);
      const { clusterId } = store;
      relay.cut();
      await etcd.stop();
      await etcd.restore(snapshot, 'restored-once');
      await etcd.start();
      relay.target = etcd.port;
      await reaches('replaced');
      expect(lease.ended.aborted).toBe(true);
      expect(problems).toEqual([expect.any(StoreReplacedError)]);
      await expect(store.commit([{ key: 'b', value: 1 }])).rejects.toThrow(StoreReplacedError);
      expect(await valuesOf(store)).toEqual([['a', 2]]);
      const again = await store.openRestored();
      expect(await valuesOf(again)).toEqual([['a', 1]]);
      expect(again.clusterId).not.toBe(clusterId);
      await again.close();
    });

    test('goes over to a restored snapshot: all versions are later than before', async () => {
      await store.commit([
        { key: 'a', value: 1 },
        { key: 'b', value: 1 },
      ]);
      const snapshot = join(etcd.directory, 'snapshot');
      await etcd.ctl('snapshot', 'save', snapshot);
      for (let i = 0; i < 20; i++) await store.commit([{ key: 'a', value: 2 + i }]);
      await store.commit([{ key: 'c', value: 1 }]);
      const { clusterId, version } = store;
      const before = (await store.get('b'))!.version;
      relay.cut();
      await etcd.stop();
      await etcd.restore(snapshot, 'restored-again');
      await etcd.start();
      relay.target = etcd.port;
      await reaches('replaced');
      // The versions of the restored data are those of before.
      await expect(store.goOver()).rejects.toThrow('start it again');
      expect(store.state).toBe('replaced');
      const restored = await store.openRestored();
      expect((await restored.get('b'))!.version).toBe(before);
      const base = version + 1000;
      await restored.commit([{ key: META_KEY, value: { cluster: 'x', versionBase: base } }]);
      const raw = restored.version;
      await restored.close();
      const calls: (readonly Change[])[] = [];
      store.watch('', (changes) => calls.push(changes));
      await store.goOver();
      expect(calls).toEqual([
        [
          { key: 'a', value: 1, version: before + base },
          { key: 'b', value: 1, version: before + base },
          { key: 'meta', value: { cluster: 'x', versionBase: base }, version: raw + base },
          { key: 'c', value: undefined, version: raw + base },
        ],
      ]);
      expect(store).toMatchObject({ state: 'connected', version: raw + base });
      expect(store.clusterId).not.toBe(clusterId);
      // What compares versions and what the watch shows goes by the new ones.
      await expect(store.commit([{ key: 'a', value: 3, expect: before }])).rejects.toThrow(
        StoreConflictError
      );
      await store.commit([{ key: 'a', value: 3, expect: before + base }]);
      expect(await store.get('a')).toEqual({ key: 'a', value: 3, version: raw + base + 1 });
      const lease = await store.grant(1000);
      await store.commit([{ key: 'd', value: 1, expect: 0, lease }]);
      // A process that starts now has the same versions.
      const other = await EtcdStore.open(options());
      expect(await other.list('')).toEqual(await store.list(''));
      await other.close();
    });

    test('works with an etcd that takes 200 ms for each answer', async () => {
      const slow = await SlowRelay.open(etcd.port, 100);
      const far = await EtcdStore.open({ ...options(), endpoints: [`127.0.0.1:${slow.port}`] });
      const lease = await far.grant(30_000);
      const commits = Array.from({ length: 50 }, (_, i) =>
        far.commit([{ key: `k/${i}`, value: i, lease }])
      );
      await Promise.all(commits);
      expect(await far.list('')).toHaveLength(50);
      await vi.waitFor(async () => expect(await store.list('')).toHaveLength(50));
      expect(lease.ended.aborted).toBe(false);
      await far.close();
      slow.close();
    });
  });

  test('says that etcd is full, and writes again when there is room', async () => {
    await start(['--quota-backend-bytes=1000000']);
    const value = 'x'.repeat(100_000);
    let error: unknown;
    for (let i = 0; error === undefined && i < 40; i++) {
      error = await store.commit([{ key: 'big', value }]).catch((each) => each);
    }
    expect(error).toBeInstanceOf(StoreError);
    expect(error).not.toBeInstanceOf(StoreUnavailableError);
    expect(error).not.toBeInstanceOf(StoreDoubtError);
    expect((error as Error).message).toMatch(/space exceeded: .*`etcdctl alarm disarm`/);
    expect((await store.get('big'))?.value).toBe(value);
    await etcd.ctl('compaction', String(store.version));
    await etcd.ctl('defrag');
    await etcd.ctl('alarm', 'disarm');
    await store.commit([{ key: 'big', value: 'small' }]);
    expect(await valuesOf(store)).toEqual([['big', 'small']]);
  });
});

/** A port that hands each piece on after a delay, in either direction. */
class SlowRelay {
  readonly port: number;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server) {
    this.#server = server;
    this.port = (server.address() as AddressInfo).port;
  }

  static async open(target: number, delayMs: number): Promise<SlowRelay> {
    const server = createServer({ noDelay: true });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const relay = new SlowRelay(server);
    server.on('connection', (near) => {
      const far = connect({ host: '127.0.0.1', port: target, noDelay: true });
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        relay.#sockets.add(from);
        from.on('data', (piece) => setTimeout(() => to.write(piece), delayMs));
        from.on('error', () => {});
        from.on('close', () => to.destroy());
      }
    });
    return relay;
  }

  close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }
}
