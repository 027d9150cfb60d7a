/**
 * Two cloud gateways on a real etcd that is restored from a backup while they run: what has happened since the backup is
 * there again, and traffic goes on all the time.
 */
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { EtcdStore } from '../../src/etcd/index.ts';
import type { CloudGateway, EdgeGateway } from '../../src/gateway/index.ts';
import { EtcdServer, whyNoEtcd } from '../support/etcd.ts';
import { Relay } from '../support/relay.ts';
import { desired, Gateways, Hosts } from './scene.ts';

const reason = whyNoEtcd();
const isSkipped = reason !== undefined && process.env.CI === undefined;

const BUS = '10.0.0.129';
/** A restored store takes some seconds, and more on a busy machine. */
const PATIENCE = { timeout: 50_000, interval: 50 };

describe.skipIf(isSkipped)(`a restored etcd${isSkipped ? ` (skipped: ${reason})` : ''}`, () => {
  let etcd: EtcdServer;
  let relay: Relay;
  let gateways: Gateways;
  let stores: EtcdStore[];

  beforeEach(async () => {
    etcd = await EtcdServer.start();
    relay = await Relay.open(etcd.port);
    gateways = new Gateways();
    stores = [];
  });
  afterEach(async () => {
    await gateways.close();
    for (const store of stores) await store.close();
    relay.close();
    await etcd.close();
  });

  async function startMachine(name: string): Promise<CloudGateway> {
    const store = await EtcdStore.open({
      endpoints: [`127.0.0.1:${relay.port}`],
      prefix: '/vp/cloud/',
    });
    stores.push(store);
    const hosts = new Hosts();
    hosts.serve(({ source }) => `${name} ${source}`);
    return gateways.cloud({
      store: undefined,
      secrets: undefined,
      device: hosts.device,
      ttlSeconds: 1,
      trust: { passphrase: 'of both machines' },
      cluster: { store, machine: name, ttlMs: 3000 },
    });
  }

  async function enrol(
    token: string
  ): Promise<{ readonly edge: EdgeGateway; readonly hosts: Hosts }> {
    const hosts = new Hosts();
    const edge = await gateways.edge({ device: hosts.device });
    await edge.enrol(token);
    await edge.ready();
    return { edge, hosts };
  }

  async function backup(): Promise<string> {
    const snapshot = join(etcd.directory, 'snapshot');
    await etcd.ctl('snapshot', 'save', snapshot);
    return snapshot;
  }

  async function restore(snapshot: string): Promise<void> {
    relay.cut();
    await etcd.stop();
    await etcd.restore(snapshot, 'presence-2');
    await etcd.start();
    relay.target = etcd.port;
  }

  const isReady = (cloud: CloudGateway): Promise<void> =>
    vi.waitFor(() => expect(cloud.state).toBe('ready'), PATIENCE);
  const isDegraded = (cloud: CloudGateway): Promise<void> =>
    vi.waitFor(() => expect(cloud.state).toBe('degraded'), PATIENCE);

  test('loses nothing that the machines knew, and traffic goes on', async () => {
    const one = await startMachine('one');
    const two = await startMachine('two');
    await one.apply(desired('site-a', 'site-b', 'site-c'));
    const used = await two.createToken({ site: 'site-b' });
    const unused = await two.createToken({ site: 'site-c' });
    const snapshot = await backup();

    const a = await enrol(await one.createToken({ site: 'site-a' }));
    const before = await a.hosts.request(BUS, 'admitted after the backup');
    const b = await enrol(used);
    await b.hosts.request(BUS, 'the token was used after the backup');
    await two.revoke({ site: 'site-b' });
    await two.apply(desired('site-a', 'site-b', 'site-c', 'site-d'));

    const degraded = Promise.all([one, two].map(isDegraded));
    await restore(snapshot);
    await degraded;
    expect(await a.hosts.request(BUS, 'while the store is restored')).toBe(before);
    await Promise.all([one, two].map(isReady));
    expect(await a.hosts.request(BUS, 'afterwards')).toBe(before);
    expect(gateways.log.join('\n')).toContain('the store was restored from a backup');

    const [, address] = before.split(' ') as [string, string];
    for (const cloud of [one, two]) {
      expect(cloud.whois('cloud', address)).toMatchObject({ site: 'site-a' });
      expect(cloud.authority.isSiteRevoked('site-b')).toBe(true);
      expect(cloud.registry.site('site-d')).toBeDefined();
    }
    const late = await gateways.edge({ device: new Hosts().device });
    for (const token of [used, unused]) {
      await expect(late.enrol(token)).rejects.toThrow('the enrolment token is not known');
    }
    // The certificate from after the backup is known: it is revoked with its site for ever.
    await one.reinstate('site-b');
    expect(one.authority.revocations.page({ site: 'site-b', limit: 10 })).toMatchObject([
      { certificate: { identity: 'spiffe://example.test/site/site-b' } },
    ]);
    const c = await enrol(await two.createToken({ site: 'site-c' }));
    const [, other] = (await c.hosts.request(BUS, 'a new client')).split(' ');
    expect(other).not.toBe(address);
    await expect(two.revoke({ site: 'site-a' })).resolves.toMatchObject({
      confirmed: ['one', 'two'],
      unconfirmed: [],
    });
  });

  test('waits for a machine that is off until it is removed; one that starts then has all', async () => {
    const one = await startMachine('one');
    const two = await startMachine('two');
    await one.apply(desired('site-a'));
    const snapshot = await backup();
    const { hosts } = await enrol(await one.createToken({ site: 'site-a' }));
    const before = await hosts.request(BUS, 'before');
    await two.close();
    const degraded = isDegraded(one);
    await restore(snapshot);
    await degraded;
    await vi.waitFor(
      () => expect(gateways.log.join('\n')).toMatch(/one waits .* for two: /),
      PATIENCE
    );
    await expect(one.createToken({ site: 'site-a' })).rejects.toMatchObject({
      code: 'ERR_PRESENCE_STORE_UNAVAILABLE',
    });
    await one.removeMachine('two');
    await isReady(one);
    expect(await hosts.request(BUS, 'after')).toBe(before);
    expect(one.machines().machines.map(({ name }) => name)).toEqual(['one']);
    const again = await startMachine('two');
    const [, address] = before.split(' ') as [string, string];
    expect(again.whois('cloud', address)).toMatchObject({ site: 'site-a' });
  });
});
