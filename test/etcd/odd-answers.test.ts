/** What a real etcd answers rarely, by a server that a test tells what to answer. */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import {
  ApiMisuseError,
  ConfigError,
  StoreConflictError,
  StoreDoubtError,
  StoreError,
  StoreReplacedError,
  StoreUnavailableError,
} from '../../src/errors.ts';
import { EtcdStore, type EtcdStoreOptions } from '../../src/etcd/index.ts';
import type { Change } from '../../src/store/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { FakeEtcd, pair } from './fake-etcd.ts';

const UNAVAILABLE = 14;
const RESOURCE_EXHAUSTED = 8;

let etcd: FakeEtcd;
let clock: FakeClock;
/** Its time passes when a test says so, but gRPC's deadlines and answers are of the real time. */
let store: EtcdStore;
let problems: Error[];
const options = (): EtcdStoreOptions => ({
  endpoints: [`127.0.0.1:${etcd.port}`],
  prefix: '/vp/fake/',
});
beforeEach(async () => {
  etcd = await FakeEtcd.start();
  clock = new FakeClock();
  store = await EtcdStore.open({ ...options(), clock });
  problems = [];
  store.on('problem', ({ error }) => problems.push(error));
});
afterEach(async () => {
  await store.close();
  etcd.close();
});

describe('a watch', () => {
  test('calls a watcher once for a revision whose events come in several messages', async () => {
    const calls: (readonly Change[])[] = [];
    store.watch('', (changes) => calls.push(changes));
    const event = (key: string, revision: number): object => ({ kv: pair(key, 1, revision) });
    etcd.tell({ events: [event('a', 8), event('b', 8)], fragment: true });
    etcd.tell({ events: [event('c', 8)], fragment: true });
    etcd.tell({ events: [event('d', 8), event('e', 9), event('f', 9)] });
    await vi.waitFor(() => expect(calls).toHaveLength(2));
    expect(calls.map((changes) => changes.map(({ key }) => key))).toEqual([
      ['a', 'b', 'c', 'd'],
      ['e', 'f'],
    ]);
    expect(store.version).toBe(9);
  });

  test('that is not answered for the time of a lease ends the lease, at etcd too', async () => {
    const lease = await store.grant(1000);
    await vi.waitFor(() => expect(etcd.watches.size).toBe(1));
    etcd.answersProgress = false;
    await pass(() => expect(lease.ended.aborted).toBe(true));
    expect(String(lease.ended.reason)).toMatch(/the watch has shown nothing for 1000 ms/);
    await vi.waitFor(() => expect(etcd.revoked).toEqual([lease.id]));
    // It is given up later, and begins anew when etcd answers.
    await pass(() => expect(store.state).toBe('disconnected'));
    etcd.answersProgress = true;
    await pass(() => expect(store.state).toBe('connected'));
  });

  test('reports a value that is not JSON, once, and shows the entry as absent', async () => {
    const calls: (readonly Change[])[] = [];
    store.watch('', (changes) => calls.push(changes));
    etcd.tell({ events: [{ kv: pair('a', 1, 8) }] });
    etcd.tell({ events: [{ kv: pair('a', 'no JSON', 9) }, { kv: pair('b', 2, 9) }] });
    await vi.waitFor(() => expect(store.version).toBe(9));
    expect(calls.flat().map(({ key, value }) => [key, value])).toEqual([
      ['a', 1],
      ['a', undefined],
      ['b', 2],
    ]);
    expect(problems.map(({ message }) => message)).toEqual([
      'etcd has a value at /vp/fake/a that is not JSON: write it again, delete the key with etcdctl, or use another prefix',
    ]);
  });

  test('that etcd refuses is reported once, and commits say so', async () => {
    etcd.refusal = 'etcdserver: permission denied';
    for (const watch of etcd.watches) watch.end();
    await pass(() => expect(etcd.refusals).toBeGreaterThan(2));
    expect(problems.map(({ message }) => message)).toEqual(['etcd: permission denied']);
    const commit = expect(store.commit([])).rejects.toThrow(
      'etcd cannot be watched: etcd: permission denied'
    );
    await settle();
    clock.advance(5000);
    await commit;
  });
});

describe('a lease', () => {
  test('is renewed three times in its time, and has an id that does not fit a number', async () => {
    const lease = await store.grant(1000);
    expect(lease.id).toBe('7587888999000111222');
    expect(lease.ttlMs).toBe(1000);
    for (let renewals = 1; renewals <= 6; renewals++) {
      clock.advance(334);
      await vi.waitFor(() => expect(etcd.renewals).toBe(renewals));
      // The answer comes no later than that to a later request.
      await store.commit([]);
    }
    expect(lease.ended.aborted).toBe(false);
  });

  test('that etcd does not renew ends', async () => {
    etcd.renewedTtl = undefined;
    const lease = await store.grant(1000);
    await pass(() => expect(lease.ended.aborted).toBe(true));
    expect(String(lease.ended.reason)).toMatch(/was not renewed for 1000 ms/);
    await expect(store.commit([{ key: 'a', value: 1, lease }])).rejects.toThrow(StoreError);
  });

  test('that etcd has forgotten ends with the next renewal', async () => {
    etcd.renewedTtl = '0';
    const lease = await store.grant(1000);
    await pass(() => expect(lease.ended.aborted).toBe(true));
    expect(String(lease.ended.reason)).toMatch(/was ended by etcd/);
  });
});

describe('a commit', () => {
  test('that is not answered is in doubt, and one that etcd cannot take now is not made', async () => {
    const answers: Record<string, { code: number; details: string }> = {
      '/vp/fake/reset': { code: UNAVAILABLE, details: 'reset' },
      '/vp/fake/slow': { code: UNAVAILABLE, details: 'etcdserver: request timed out' },
      '/vp/fake/leaderless': { code: UNAVAILABLE, details: 'etcdserver: no leader' },
      '/vp/fake/busy': { code: RESOURCE_EXHAUSTED, details: 'etcdserver: too many requests' },
    };
    etcd.onTxn = (reply, key) => {
      const answer = answers[key];
      if (answer !== undefined) reply(answer);
    };
    // Each attempt has half of the time at least.
    const patient = await EtcdStore.open({ ...options(), requestTimeoutMs: 2000 });
    const keys = ['silent', 'reset', 'slow', 'leaderless', 'busy'];
    const errors = await Promise.all(
      keys.map((key) => patient.commit([{ key, value: 1 }]).catch((error: Error) => error.name))
    );
    expect(errors).toEqual([
      StoreDoubtError.name,
      StoreDoubtError.name,
      StoreDoubtError.name,
      StoreUnavailableError.name,
      StoreUnavailableError.name,
    ]);
    await patient.close();
  });

  test('that is applied resolves when the watch has shown it', async () => {
    let isShown = false;
    etcd.onTxn = (reply) => {
      const header = { ...etcd.header, revision: '8' };
      reply(null, { header, succeeded: true, responses: [{ response_put: {} }] });
      setTimeout(() => {
        isShown = true;
        etcd.tell({ events: [{ kv: pair('a', 1, 8) }] });
      }, 50);
    };
    await store.commit([{ key: 'a', value: 1 }]);
    expect(isShown).toBe(true);
    expect(await store.get('a')).toEqual({ key: 'a', value: 1, version: 8 });
  });

  test('that is applied and never shown is in doubt, and the watch begins anew', async () => {
    const impatient = await EtcdStore.open({ ...options(), requestTimeoutMs: 1500 });
    const before = new Set(etcd.watches);
    etcd.onTxn = (reply) =>
      reply(null, {
        header: { ...etcd.header, revision: '8' },
        succeeded: true,
        responses: [{ response_put: {} }],
      });
    await expect(impatient.commit([{ key: 'a', value: 1 }])).rejects.toThrow(
      /applied the commit as revision 8, and its watch has not shown it/
    );
    etcd.header = { ...etcd.header, revision: '8' };
    await vi.waitFor(() => expect([...etcd.watches].some((each) => !before.has(each))).toBe(true));
    await impatient.close();
  });

  test('in conflict returns when the watch has shown what is in the way', async () => {
    etcd.onTxn = (reply) => {
      reply(null, {
        header: { ...etcd.header, revision: '9' },
        succeeded: false,
        responses: [{ response_range: { kvs: [pair('a', 1, 8)] } }],
      });
      setImmediate(() => etcd.tell({ events: [{ kv: pair('a', 1, 8) }] }));
    };
    await expect(store.commit([{ key: 'a', value: 2, expect: 0 }])).rejects.toThrow(
      StoreConflictError
    );
    expect(await store.get('a')).toEqual({ key: 'a', value: 1, version: 8 });
  });
});

describe('other data', () => {
  const replacedWith = async (header: Partial<FakeEtcd['header']>): Promise<void> => {
    const lease = await store.grant(1000);
    await store.commit([]);
    etcd.header = { ...etcd.header, ...header };
    for (const watch of etcd.watches) watch.end();
    await pass(() => expect(store.state).toBe('replaced'));
    expect(lease.ended.aborted).toBe(true);
    expect(problems).toHaveLength(1);
    expect(problems[0]).toBeInstanceOf(StoreReplacedError);
    await expect(store.commit([{ key: 'a', value: 1 }])).rejects.toThrow(StoreReplacedError);
    await expect(store.grant(1000)).rejects.toThrow(StoreReplacedError);
    expect(await store.list('')).toEqual([]);
  };

  test('has another cluster id', () => replacedWith({ cluster_id: '5' }));
  test('has a lower revision', () => replacedWith({ revision: '6' }));
  test('has a lower raft term', () => replacedWith({ revision: '9', raft_term: '2' }));

  test('is noticed in the answer to a commit', async () => {
    etcd.header = { ...etcd.header, cluster_id: '5' };
    await expect(store.commit([{ key: 'a', value: 1 }])).rejects.toThrow(StoreReplacedError);
    expect(store.state).toBe('replaced');
  });
});

describe('several endpoints', () => {
  test('are used one after the other when one is lost', async () => {
    const next = await FakeEtcd.start();
    const endpoints = ['127.0.0.1:1', `127.0.0.1:${etcd.port}`, `127.0.0.1:${next.port}`];
    const other = await EtcdStore.open({ endpoints, prefix: '/vp/fake/' });
    const lease = await other.grant(30_000);
    await vi.waitFor(() => expect(etcd.watches.size).toBe(2));
    etcd.close();
    await vi.waitFor(() => expect(next.watches.size).toBe(1));
    await other.commit([]);
    expect(lease.ended.aborted).toBe(false);
    await other.close();
    next.close();
  });

  test('cannot be reached: many commits fail together', async () => {
    etcd.close();
    await vi.waitFor(() => expect(store.state).toBe('disconnected'));
    const commits = Array.from({ length: 1000 }, (_, i) =>
      store.commit([{ key: `k/${i}`, value: i }])
    );
    const settled = Promise.allSettled(commits);
    await settle();
    clock.advance(5000);
    const outcomes = await settled;
    for (const outcome of outcomes) {
      expect((outcome as PromiseRejectedResult).reason).toBeInstanceOf(StoreUnavailableError);
    }
  });

  test('refuse connections: a store is not opened', async () => {
    const none = { ...options(), endpoints: ['127.0.0.1:1'], requestTimeoutMs: 300 };
    await expect(EtcdStore.open(none)).rejects.toThrow(StoreUnavailableError);
  });
});

describe('options', () => {
  test.each<[string, Partial<EtcdStoreOptions>, typeof ApiMisuseError | typeof ConfigError]>([
    ['no endpoint', { endpoints: [] }, ApiMisuseError],
    ['an endpoint without a port', { endpoints: ['etcd.example.org'] }, ConfigError],
    ['a prefix without a slash at its end', { prefix: '/vp/cloud' }, ApiMisuseError],
    ['no prefix', { prefix: '' }, ApiMisuseError],
    ['a certificate without a key', { credentials: { ca: 'x', cert: 'x' } }, ApiMisuseError],
    ['a user without a password', { user: { name: 'u', password: '' } }, ApiMisuseError],
    ['a timeout of 0', { requestTimeoutMs: 0 }, ApiMisuseError],
  ])('refuses %s', async (_, wrong, type) => {
    await expect(EtcdStore.open({ ...options(), ...wrong })).rejects.toThrow(type);
  });
});

/** Lets everything happen that needs no answer. */
function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Lets time pass, no faster than the real one, until it is as expected. */
function pass(isAsExpected: () => void): Promise<void> {
  return vi.waitFor(() => {
    clock.advance(50);
    isAsExpected();
  });
}
