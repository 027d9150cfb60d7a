/** The etcd of two machines is restored from a backup, which knows nothing of the last clients and of a revocation. */
import { expect } from 'vitest';
import { describeMachines, eachRound } from './several-machines-kit.ts';
import { askedAt } from './several-processes-scene.ts';

describeMachines(
  'two machines whose etcd is restored',
  { sites: 2, nameTtlSeconds: 5 },
  (fixture) => {
    eachRound('clients keep their addresses, and the revocation stays in effect', async (round) => {
      const { scene, service } = fixture();
      const { machines, client, sites, holder } = scene;
      const [etcd] = scene.etcdHosts;
      const [, revoked] = sites;
      await etcd!.backUp();
      const had = await askedAt(client, service, addresses(2 * round));
      expect(
        await scene.ask(holder, 'POST', '/v1/revocations', { site: revoked!.name })
      ).toMatchObject({ status: 201 });
      await fixture().isUnnoticed(async (transfer) => {
        await fixture().detaches(machines, () => etcd!.kill());
        await etcd!.restore(`restored-${round}`);
        await transfer.flows();
        await fixture().attaches(machines, async () => {
          etcd!.start();
          await etcd!.ready();
        });
      });
      expect(scene.holder.name).toBe(holder.name);
      const have = await askedAt(client, service, [
        ...addresses(2 * round),
        ...addresses(2 * round + 1),
      ]);
      expect(have).toMatchObject(had);
      expect(new Set(Object.values(have)).size).toBe(2 * CLIENTS);
      for (const machine of machines) {
        const { body } = await scene.ask(machine, 'GET', `/v1/revocations?site=${revoked!.name}`);
        expect(JSON.stringify(body)).toContain(revoked!.name);
      }
      await scene.enrolAgain(revoked!);
    });
  }
);

/** Returns addresses of clients that are asked for once. */
function addresses(which: number): string[] {
  return Array.from({ length: CLIENTS }, (_, at) => `10.0.${which}.${at + 1}`);
}

const CLIENTS = 5;
