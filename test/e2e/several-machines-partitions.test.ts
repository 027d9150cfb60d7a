/** A cloud of two machines, of which one hangs, does not reach etcd, or is not reached by one edge. */
import { expect } from 'vitest';
import { describeMachines, eachRound } from './several-machines-kit.ts';
import {
  HOST_PROGRAM,
  LIFETIME_SECONDS,
  OPEN_PORT,
  resolve,
  whoami,
} from './several-processes-scene.ts';

describeMachines('two machines, of which one is half lost', { sites: 2 }, (fixture) => {
  eachRound(
    'the process hangs: another machine takes its site, and it gives it up when it goes on',
    async () => {
      const { scene } = fixture();
      await fixture().isUnnoticed(async (transfer) => {
        const { holder } = scene;
        await fixture().takesOver((hung) => scene.signal(hung, 'STOP'));
        await transfer.flows();
        await fixture().attaches([holder], () => scene.signal(holder, 'CONT'));
      });
    }
  );

  eachRound(
    'a machine without etcd goes on, and learns later what was changed meanwhile',
    async (round) => {
      const { scene } = fixture();
      const [a, b] = scene.sites;
      const { holder } = scene;
      const other = scene.other(holder);
      const name = `second-${round}`;
      const address = `10.0.${round}.6`;
      await scene.service.sh(`ip address add ${address}/16 dev lan0`);
      const program = scene.service.start(
        [...HOST_PROGRAM, address, `${OPEN_PORT}`],
        LIFETIME_SECONDS
      );
      await program.printed(/ready/);
      await scene.moveTo(b!, holder);
      await fixture().isUnnoticed(async () => {
        const etcds = scene.etcdHosts.map((etcd) => etcd.address);
        await fixture().detaches([holder], () => scene.cut(holder, etcds));
        const service = { site: 'cloud', address, ports: [`tcp/${OPEN_PORT}`] };
        expect(await scene.ask(other, 'PUT', `/v1/services/${name}`, service)).toMatchObject({
          status: 200,
        });
        expect(await scene.ask(other, 'PUT', `/v1/exposures/site-a/${name}`, {})).toMatchObject({
          status: 200,
        });
        expect(await scene.ask(other, 'POST', '/v1/revocations', { site: 'site-b' })).toMatchObject(
          {
            status: 202,
            body: {
              unconfirmed: [{ machine: holder.name, fencedBy: expect.stringMatching(/Z$/) }],
            },
          }
        );
        // It is not in effect there.
        await fixture().isAsBefore(b!);
        const since = b!.edge.output.length;
        await fixture().attaches([holder], () => scene.heal(holder));
        await b!.edge.logged(/revoked/, since);
      });
      expect(scene.holder.name).toBe(holder.name);
      await a!.edge.logged(/revision \d+, [2-9]/);
      expect(await whoami(a!.client, await resolve(a!.client, name))).toBe(
        await whoami(a!.client, fixture().service)
      );
      await scene.enrolAgain(b!);
      await scene.ask(other, 'DELETE', `/v1/exposures/site-a/${name}`);
      await scene.ask(other, 'DELETE', `/v1/services/${name}`);
    }
  );

  eachRound('an edge that is cut off from its machine goes to the next one', async () => {
    const { scene } = fixture();
    const [site] = scene.sites;
    await fixture().isUnnoticed(async (transfer) => {
      const { holder } = scene;
      const taker = await fixture().takesOver(() => scene.cut(site!, [holder.address]));
      await transfer.flows();
      // The old key is gone.
      const key = await scene.etcdHosts[0]!.value(`holder/${site!.name}`);
      expect(JSON.parse(key)).toMatchObject({ machine: taker.name });
      await scene.heal(site!);
    });
  });
});
