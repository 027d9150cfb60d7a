/** The machine that allocates addresses is killed while many clients get theirs. */
import { expect } from 'vitest';
import { eventually } from '../support/gateway-process.ts';
import { describeMachines, eachRound } from './several-machines-kit.ts';
import { answersOf, ask, asking } from './several-processes-scene.ts';

describeMachines('two machines, of which the controller is killed', {}, (fixture) => {
  /** What all clients so far have. */
  const have = new Map<string, string>();

  eachRound(
    'clients that come meanwhile wait, and none has the address of another',
    async (round) => {
      const { scene, service } = fixture();
      const { client } = scene;
      const clients = Array.from({ length: CLIENTS }, (_, at) => `10.0.${round}.${at + 1}`);
      await client.sh(clients.map((each) => `ip address add ${each}/16 dev eth0`).join('\n'));
      const controller = await scene.controller();
      await fixture().isUnnoticed(async () => {
        const program = asking(client, service, clients);
        await eventually(
          'some have an address',
          () => Object.keys(answersOf(program.stdout)).length >= CLIENTS / 5 || undefined
        );
        await scene.kill(controller);
        const answered = Object.keys(answersOf(program.stdout)).length;
        const { stdout } = await program.ended;
        const answers = answersOf(stdout);
        expect(answered).toBeLessThan(CLIENTS);
        expect(Object.keys(answers)).toHaveLength(CLIENTS);
        for (const [each, address] of Object.entries(answers)) have.set(each, address);
        // The rules of the pool have no more than these texts: no error was printed.
        for (const address of Object.values(answers)) expect(address).toMatch(/^10\.0\.\d+\.\d+$/);
        expect((await scene.controller()).name).not.toBe(controller.name);
        await scene.restart(controller);
        expect(await ask(client, service, clients)).toEqual(answers);
      });
      expect(new Set(have.values()).size).toBe(have.size);
      expect(have.size).toBe(round * CLIENTS);
    }
  );
});

const CLIENTS = 60;
