/** A cloud of three machines with a member of etcd each: the machine is lost that holds the site and has etcd's leader. */
import { expect } from 'vitest';
import { FAST_ETCD } from './several-machines-etcd.ts';
import { describeMachines, eachRound } from './several-machines-kit.ts';

const OPTIONS = { machines: 3, members: 3, etcd: FAST_ETCD };

describeMachines("three machines, of which one has etcd's leader", OPTIONS, (fixture) => {
  eachRound('no byte is lost when that machine is lost', async (round) => {
    const { scene } = fixture();
    const { machines, etcdHosts, sites } = scene;
    const at = await scene.leader();
    const machine = machines[at]!;
    const etcd = etcdHosts[at]!;
    await scene.moveTo(sites[0]!, machine);
    await fixture().isUnnoticed(async (transfer) => {
      const isCut = round % 2 === 0;
      await fixture().takesOver(async () => {
        if (isCut) await Promise.all([scene.unplug(machine), scene.unplug(etcd)]);
        else await Promise.all([scene.kill(machine), etcd.kill()]);
      });
      await transfer.flows();
      expect(await scene.leader()).not.toBe(at);
      if (isCut) {
        await fixture().attaches([machine], () =>
          Promise.all([scene.plugIn(machine), scene.plugIn(etcd)]).then(() => {})
        );
      } else {
        etcd.start();
        await etcd.ready();
        await scene.restart(machine);
      }
    });
  });
});
