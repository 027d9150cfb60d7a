/**
 * A cloud of two machines on a real etcd: one of them dies or is cut off, while a transfer runs and a client keeps its
 * address. `several-machines-scene.ts` draws the networks.
 */
import { expect } from 'vitest';
import { describeMachines, eachRound } from './several-machines-kit.ts';
import { resolve, Transfer, whoami } from './several-processes-scene.ts';

describeMachines('two machines, of which one is lost', { hasIpv6: true }, (fixture) => {
  eachRound('no byte is lost when the machine that holds the site is killed', async () => {
    const { scene } = fixture();
    await fixture().isUnnoticed(async (transfer) => {
      const { holder } = scene;
      await fixture().takesOver((killed) => scene.kill(killed));
      await transfer.flows();
      await scene.restart(holder);
    });
  });

  eachRound('no byte is lost when the network of that machine is cut', async () => {
    const { scene } = fixture();
    await fixture().isUnnoticed(async (transfer) => {
      const { holder } = scene;
      await fixture().takesOver((cut) => scene.unplug(cut));
      await transfer.flows();
      await fixture().attaches([holder], () => scene.plugIn(holder));
    });
  });

  eachRound('IPv6 goes on as well: the next machine answers for its neighbours', async () => {
    const { scene } = fixture();
    const { client } = scene;
    const service = await resolve(client, 'service6', 6);
    const presence = await whoami(client, service);
    const transfer = new Transfer(client, service);
    await transfer.flows();
    await fixture().isUnnoticed(async () => {
      const { holder } = scene;
      await fixture().takesOver((killed) => scene.kill(killed));
      await transfer.flows();
      await scene.restart(holder);
    });
    expect(await transfer.end()).toMatchObject({ isWhole: true });
    expect(await whoami(client, service)).toBe(presence);
  });
});
