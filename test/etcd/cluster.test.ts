/**
 * Two machines of a cloud on a real etcd: what `test/cluster` shows on a store in memory.
 */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { drain, Election, Member, SiteClaims } from '../../src/cluster/index.ts';
import { EtcdStore } from '../../src/etcd/index.ts';
import { EtcdServer, whyNoEtcd } from '../support/etcd.ts';

const reason = whyNoEtcd();
const isSkipped = reason !== undefined && process.env.CI === undefined;

interface Machine {
  readonly store: EtcdStore;
  readonly member: Member;
  readonly election: Election;
  readonly claims: SiteClaims;
  readonly tunnels: Set<string>;
  readonly lost: string[];
}

describe.skipIf(isSkipped)(`machines on etcd${isSkipped ? ` (skipped: ${reason})` : ''}`, () => {
  let etcd: EtcdServer;
  let clouds = 0;
  let machines: Machine[];

  beforeAll(async () => {
    etcd = await EtcdServer.start();
  });
  afterAll(() => etcd.close());

  beforeEach(() => {
    clouds++;
    machines = [];
  });
  afterEach(async () => {
    for (const { store, claims, election, member } of machines) {
      await claims.close();
      await election.close();
      await member.close();
      await store.close();
    }
  });

  async function start(name: string): Promise<Machine> {
    const store = await EtcdStore.open({
      endpoints: [`127.0.0.1:${etcd.port}`],
      prefix: `/vp/cloud-${clouds}/`,
    });
    const endpoints = [{ host: `${name}.example.org`, port: 7443 }];
    const member = await Member.join({ store, machine: name, endpoints, ttlMs: 1000 });
    const election = await Election.open(member);
    const tunnels = new Set<string>();
    const liveness = { isAlive: (site: string) => Promise.resolve(tunnels.has(site)) };
    const claims = await SiteClaims.open({ member, liveness });
    const lost: string[] = [];
    claims.on('lost', ({ site }) => {
      tunnels.delete(site);
      lost.push(site);
    });
    const machine = { store, member, election, claims, tunnels, lost };
    machines.push(machine);
    return machine;
  }

  async function dial(machine: Machine, site: string): Promise<number> {
    for (;;) {
      const claim = await machine.claims.claim(site);
      if (claim.kind === 'busy') continue;
      expect(claim.kind).toBe('held');
      machine.tunnels.add(site);
      return claim.kind === 'held' ? claim.epoch.number : 0;
    }
  }

  test('elect one controller, claim, ask, and hand over', async () => {
    const m1 = await start('m1');
    const m2 = await start('m2');
    await vi.waitFor(() => expect(m2.election.controller).toBe('m1'));
    expect(m2.election.guards).toBeUndefined();
    const first = await dial(m1, 'site-a');
    m1.tunnels.delete('site-a');
    const second = await dial(m2, 'site-a');
    expect(second).toBeGreaterThan(first);
    await vi.waitFor(() => expect(m1.lost).toEqual(['site-a']));
    expect(await drain(m2.member, m2.claims)).toEqual({ handedOver: 1, kept: [] });
    expect(m2.lost).toEqual(['site-a']);
    const third = await dial(m1, 'site-a');
    expect(third).toBeGreaterThan(second);
    // The key is under the lease of m1 now.
    await m2.member.close();
    expect(m1.claims.holderOf('site-a')).toMatchObject({ isCurrent: true });
  });

  test('take over from a machine whose process has ended', async () => {
    const m1 = await start('m1');
    const m2 = await start('m2');
    await vi.waitFor(() => expect(m2.election.controller).toBe('m1'));
    const { epoch } = m1.election;
    const first = await dial(m1, 'site-a');
    await m1.store.close();
    expect(await dial(m2, 'site-a')).toBeGreaterThan(first);
    await vi.waitFor(() => expect(m2.election.epoch).toBeGreaterThan(epoch!));
  });

  test('keep their sites while etcd is away, and write their keys again', async () => {
    const m1 = await start('m1');
    const first = await dial(m1, 'site-a');
    await etcd.pause();
    await vi.waitFor(() => expect(m1.member.state).toBe('detached'));
    expect(m1.tunnels).toContain('site-a');
    await expect(m1.member.store.commit([{ key: 'desired/x', value: 1 }])).rejects.toMatchObject({
      code: 'ERR_PRESENCE_STORE_UNAVAILABLE',
    });
    etcd.resume();
    await vi.waitFor(() => {
      expect(m1.member.state).toBe('attached');
      expect(m1.claims.holderOf('site-a')).toMatchObject({ isCurrent: true });
    });
    expect(m1.claims.held.get('site-a')!.epoch.number).toBeGreaterThan(first);
    expect(m1.tunnels).toContain('site-a');
    await vi.waitFor(() => expect(m1.election.guards).toBeDefined());
  });
});
