/**
 * Two machines of a cloud on a real etcd that is restored from a backup while they write: what `test/cluster/recall.test.ts`
 * shows on a store in memory.
 */
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { Election, Member, SiteClaims } from '../../src/cluster/index.ts';
import { EtcdStore } from '../../src/etcd/index.ts';
import { EtcdServer, whyNoEtcd } from '../support/etcd.ts';
import { Relay } from '../support/relay.ts';

const reason = whyNoEtcd();
const isSkipped = reason !== undefined && process.env.CI === undefined;

interface Machine {
  readonly store: EtcdStore;
  readonly member: Member;
  readonly election: Election;
  readonly claims: SiteClaims;
  readonly lost: string[];
  readonly problems: string[];
}

describe.skipIf(isSkipped)(`a restored etcd${isSkipped ? ` (skipped: ${reason})` : ''}`, () => {
  let etcd: EtcdServer;
  let relay: Relay;
  let machines: Machine[];

  beforeEach(async () => {
    etcd = await EtcdServer.start();
    relay = await Relay.open(etcd.port);
    machines = [];
  });
  afterEach(async () => {
    for (const { store, claims, election, member } of machines) {
      await claims.close();
      await election.close();
      await member.close();
      await store.close();
    }
    relay.close();
    await etcd.close();
  });

  async function start(name: string): Promise<Machine> {
    const store = await EtcdStore.open({
      endpoints: [`127.0.0.1:${relay.port}`],
      prefix: '/vp/cloud/',
    });
    const member = await Member.join({
      store,
      machine: name,
      endpoints: [{ host: `${name}.example.org`, port: 7443 }],
      ttlMs: 3000,
      dnsTtlMs: 500,
      recalled: { prefixes: ['lease/'], voidPrefix: 'token/', isVoid: () => true },
    });
    const election = await Election.open(member);
    const claims = await SiteClaims.open({
      member,
      liveness: { isAlive: () => Promise.resolve(true) },
    });
    const lost: string[] = [];
    const problems: string[] = [];
    claims.on('lost', ({ site }) => lost.push(site));
    member.on('problem', ({ error }) => problems.push(error.message));
    const machine = { store, member, election, claims, lost, problems };
    machines.push(machine);
    return machine;
  }

  /** Stops etcd and starts it with the data of a snapshot. */
  async function restore(snapshot: string, token: string): Promise<void> {
    relay.cut();
    await etcd.stop();
    await etcd.restore(snapshot, token);
    await etcd.start();
    relay.target = etcd.port;
  }

  test('has all that was written since the backup, and each site stays where its tunnel is', async () => {
    const one = await start('one');
    const two = await start('two');
    await one.member.store.commit([
      { key: 'lease/old', value: 1 },
      { key: 'token/a', value: 1 },
    ]);
    const snapshot = join(etcd.directory, 'snapshot');
    await etcd.ctl('snapshot', 'save', snapshot);
    await one.claims.claim('site-a');
    await two.claims.claim('site-b');
    const before = two.claims.held.get('site-b')!.epoch;
    await one.member.store.commit([{ key: 'lease/old', value: undefined }]);
    // They write until etcd is gone: what was stored then is there afterwards.
    const stored: string[] = [];
    const end = new AbortController();
    const load = [one, two].map(async ({ member }, machine) => {
      for (let i = 0; !end.signal.aborted && member.state === 'attached'; i++) {
        const keys = Array.from({ length: 50 }, (_, k) => `lease/${machine}/${i}/${k}`);
        try {
          await member.store.commit(keys.map((key) => ({ key, value: i })));
          stored.push(...keys);
        } catch {
          // It is not there, or in doubt.
        }
      }
    });
    await vi.waitFor(() => expect(stored.length).toBeGreaterThan(300));
    await restore(snapshot, 'presence-2');
    end.abort();
    await Promise.all(load);
    const patience = { timeout: 50_000, interval: 50 };
    await vi.waitFor(() => {
      for (const { member } of [one, two]) expect(member.state).toBe('attached');
      expect(one.claims.holderOf('site-a')).toMatchObject({ isCurrent: true });
      expect(two.claims.holderOf('site-b')).toMatchObject({ isCurrent: true });
      expect([one, two].filter(({ election }) => election.guards !== undefined)).toHaveLength(1);
    }, patience);
    expect([one.lost, two.lost]).toEqual([[], []]);
    const after = two.claims.held.get('site-b')!.epoch;
    expect(after.number).toBeGreaterThan(before.number);
    expect(after.cluster).not.toBe(before.cluster);
    for (const { store } of [one, two]) {
      const keys = new Set((await store.list('lease/')).map(({ key }) => key));
      expect(stored.filter((key) => !keys.has(key))).toEqual([]);
      expect(keys).not.toContain('lease/old');
      expect(await store.list('token/')).toEqual([]);
    }
    await vi.waitFor(async () => expect(await one.store.list('recall')).toEqual([]));
    // Another process has the same versions.
    const three = await start('three');
    expect(await three.store.list('lease/')).toEqual(await one.store.list('lease/'));
    expect(three.claims.holderOf('site-b')?.epoch).toEqual(after);
  });

  test('is taken by machines that start then, when all of them are there', async () => {
    const before = [await start('one'), await start('two')];
    await before[0]!.member.store.commit([
      { key: 'lease/a', value: 1 },
      { key: 'token/a', value: 1 },
    ]);
    const snapshot = join(etcd.directory, 'snapshot');
    await etcd.ctl('snapshot', 'save', snapshot);
    for (const { store, claims, election, member } of before) {
      await claims.close();
      await election.close();
      await member.close();
      await store.close();
    }
    machines = [];
    await restore(snapshot, 'presence-3');
    const [one, two] = await Promise.all([start('one'), start('two')]);
    expect([one.member.state, two.member.state]).toEqual(['attached', 'attached']);
    expect(one.store).toMatchObject({ state: 'connected', clusterId: two.store.clusterId });
    expect((await one.store.list('lease/')).map(({ key }) => key)).toEqual(['lease/a']);
    expect(await two.store.list('token/')).toEqual([]);
    // Both have the same versions, which are later than those of before.
    const [entry] = await one.store.list('lease/');
    expect(await two.store.get('lease/a')).toEqual(entry);
    expect(entry!.version).toBeGreaterThan(before[0]!.store.version);
    await one.member.store.commit([{ key: 'lease/a', value: 2, expect: entry!.version }]);
    await vi.waitFor(async () => expect((await two.store.get('lease/a'))?.value).toBe(2));
  });

  test('that has the same cluster id as before is refused by machines that live', async () => {
    const one = await start('one');
    const snapshot = join(etcd.directory, 'snapshot');
    await etcd.ctl('snapshot', 'save', snapshot);
    await one.claims.claim('site-a');
    // So its revision is lower than that of before for a while, by which it is noticed.
    for (let i = 0; i < 50; i++) await one.member.store.commit([{ key: 'lease/x', value: i }]);
    await restore(snapshot, DEFAULT_TOKEN);
    await vi.waitFor(() => expect(one.problems.join()).toMatch(/another --initial-cluster-token/));
    expect(one.member.state).toBe('detached');
    expect([...one.claims.held.keys()]).toEqual(['site-a']);
  });
});

/** With it, the cluster has the id that it had before. */
const DEFAULT_TOKEN = 'etcd-cluster';
