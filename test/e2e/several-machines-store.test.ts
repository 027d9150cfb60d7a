/**
 * A cloud of two machines whose etcd is away for a while, or loses all power together with the gateways: what is there
 * goes on, and nobody gets another one's address.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'vitest';
import { eventually } from '../support/gateway-process.ts';
import { describeMachines, eachRound, isShort } from './several-machines-kit.ts';
import { askedAt, resolve, whoami } from './several-processes-scene.ts';

/** For how long the store is away after the leases of the machines have ended. */
const AWAY_MS = isShort ? 0 : 30_000;
const STOPPED_MS = isShort ? 0 : 10_000;

describeMachines('two machines, without etcd for a while', { sites: 2 }, (fixture) => {
  eachRound(
    'etcd is away, and compacts meanwhile: nothing can be changed until it is back',
    async (round) => {
      const { scene, service } = fixture();
      const { machines, client, holder } = scene;
      const [etcd] = scene.etcdHosts;
      const name = `later-${round}`;
      const change = () =>
        scene.ask(holder, 'PUT', `/v1/services/${name}`, {
          site: 'cloud',
          address: '10.0.0.7',
          ports: ['tcp/80'],
        });
      await fixture().isUnnoticed(async (transfer) => {
        await fixture().detaches(machines, () => scene.unplug(etcd!));
        expect(await change()).toMatchObject({
          status: 503,
          body: { code: 'ERR_PRESENCE_STORE_UNAVAILABLE' },
        });
        await eventually(
          'the keys of the machines end with their leases',
          async () => (await etcd!.keys('holder/')).length === 0 || undefined
        );
        await delay(AWAY_MS);
        await etcd!.compact();
        await transfer.flows();
        expect(await resolve(client, 'service')).toBe(service);
        await fixture().attaches(machines, () => scene.plugIn(etcd!));
      });
      expect(scene.holder.name).toBe(holder.name);
      await eventually(
        'the keys are made again',
        async () => (await etcd!.keys('holder/')).length === 2 || undefined
      );
      expect(await change()).toMatchObject({ status: 200 });
    }
  );

  eachRound(
    'etcd stops for longer than a lease: tunnels stay, and the keys are made again',
    async () => {
      const { scene } = fixture();
      const { machines, holder } = scene;
      const keyOf = (site: string) => scene.etcdHosts[0]!.value(`holder/${site}`);
      const before = await Promise.all(['site-a', 'site-b'].map(keyOf));
      await fixture().isUnnoticed(async () => {
        await fixture().detaches(machines, () => scene.signalEtcd('STOP'));
        await delay(STOPPED_MS);
        await fixture().attaches(machines, () => scene.signalEtcd('CONT'));
      });
      expect(scene.holder.name).toBe(holder.name);
      await eventually('the keys are under the new lease', async () => {
        const now = await Promise.all(['site-a', 'site-b'].map(keyOf));
        return now.every((key, at) => key !== '' && key !== before[at]) || undefined;
      });
    }
  );

  eachRound(
    'all gateways and etcd lose power at once: every client has its address again',
    async (round) => {
      const { scene, service } = fixture();
      const { machines, sites, etcdHosts, client } = scene;
      const before = addresses(2 * round);
      const had = await askedAt(client, service, before);
      await fixture().isUnnoticed(async () => {
        await Promise.all([
          ...machines.map((machine) => scene.kill(machine)),
          ...sites.map((site) => scene.killEdge(site)),
          ...etcdHosts.map((etcd) => etcd.kill()),
        ]);
        for (const etcd of etcdHosts) etcd.start();
        await Promise.all(etcdHosts.map((etcd) => etcd.ready()));
        await Promise.all([
          ...machines.map((machine) => scene.restart(machine)),
          ...sites.map((site) => scene.restartEdge(site)),
        ]);
      });
      await fixture().isAsBefore(sites[1]!);
      const after = addresses(2 * round + 1);
      const have = await askedAt(client, service, [...after, ...before]);
      expect(have).toMatchObject(had);
      const others = await Promise.all(sites.map((site) => whoami(site.client, service)));
      expect(new Set([...Object.values(have), ...others]).size).toBe(2 * CLIENTS + sites.length);
    }
  );
});

/** Returns addresses of clients that are asked for once. */
function addresses(which: number): string[] {
  return Array.from({ length: CLIENTS }, (_, at) => `10.0.${which}.${at + 1}`);
}

const CLIENTS = 5;
