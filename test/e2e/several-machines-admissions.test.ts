/** The machine that allocates addresses is killed while many clients get theirs. */
import { expect } from 'vitest';
import { eventually } from '../support/gateway-process.ts';
import { describeMachines, eachRound } from './several-machines-kit.ts';
import { askedAt, Clients } from './several-processes-scene.ts';

describeMachines('two machines, of which the controller is killed', {}, (fixture) => {
  /** What all clients so far have. */
  const have = new Map<string, string>();

  eachRound(
    'clients that come meanwhile wait, and none has the address of another',
    async (round) => {
      const { scene, service } = fixture();
      const ofRound = Array.from({ length: CLIENTS }, (_, at) => `10.0.${round}.${at + 1}`);
      const controller = await scene.controller();
      await fixture().isUnnoticed(async () => {
        const clients = new Clients(scene.client, service);
        await clients.ask(ofRound.slice(0, CLIENTS / 2));
        await eventually(
          'one has an address',
          () => Object.keys(clients.answers).length > 0 || undefined
        );
        await scene.kill(controller);
        await clients.ask(ofRound.slice(CLIENTS / 2));
        const answers = await clients.end();
        expect(Object.keys(answers).sort()).toEqual(ofRound.toSorted());
        expect((await scene.controller()).name).not.toBe(controller.name);
        await scene.restart(controller);
        expect(await askedAt(scene.client, service, ofRound)).toEqual(answers);
        for (const [client, address] of Object.entries(answers)) have.set(client, address);
      });
      const addresses = new Set(have.values());
      expect(addresses.size).toBe(round * CLIENTS);
      // No error is among them.
      for (const address of addresses) expect(address).toMatch(/^10\.0\.\d+\.\d+$/);
    }
  );
});

const CLIENTS = 60;
