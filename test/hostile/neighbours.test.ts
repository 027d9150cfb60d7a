/**
 * A neighbour of the gateways in the network between them: it reaches nothing through their machines that it
 * did not reach before the gateways were started, and cannot impersonate a host. Afterwards the machines are
 * unchanged.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { killGateways, Workspace } from '../support/gateway-process.ts';
import { Network, whatIsMissing } from '../support/network.ts';
import {
  type Family,
  GATEWAY,
  HOST,
  NEIGHBOUR,
  NeighboursScene,
  PING,
  requestsAt,
  type Side,
  stateOf,
} from './neighbours-scene.ts';

const skipReason = whatIsMissing({ nft: 'nftables', ping: 'iputils-ping' });
const isSkipped = skipReason !== undefined && process.env.CI === undefined;
const workspace = new Workspace();

const SIDES: readonly Side[] = ['cloud', 'site-a'];
const FAMILIES: readonly Family[] = [4, 6];

/** Both IP versions at once, because most of the time of an attack is the wait for answers. */
function ofBoth<T>(attack: (family: Family) => Promise<T>): Promise<T[]> {
  return Promise.all(FAMILIES.map(attack));
}

describe.skipIf(isSkipped)(
  `a neighbour of the gateways${isSkipped ? ` (skipped: ${skipReason})` : ''}`,
  () => {
    let network: Network | undefined;
    let scene: NeighboursScene;

    beforeAll(async () => {
      if (skipReason !== undefined) throw new Error(skipReason);
      network = await Network.create(workspace.newDirectory());
      scene = await NeighboursScene.start(network, workspace.newDirectory());
    });

    afterAll(async () => {
      await killGateways();
      await network?.close();
      workspace.remove();
    });

    const other = (side: Side): Side => (side === 'cloud' ? 'site-a' : 'cloud');

    test.each(SIDES)('%s: the host in the LAN is served', async (side) => {
      const { host } = scene.machines[side];
      const there = scene.machines[other(side)].host;
      for (const family of FAMILIES) {
        const before = await requestsAt(there);
        await host.get(['ping', '-c', '3', '-i', '0.2', '-W', '5', scene.presenceOn(side, family)]);
        expect((await requestsAt(there)) - before, `IPv${family}`).toBe(3);
      }
    });

    test.each(SIDES)('%s: does not reach the host in the LAN', async (side) => {
      const { host } = scene.machines[side];
      const before = await requestsAt(host);
      await ofBoth((family) => scene.ping(side, family, [HOST[family]]));
      expect((await requestsAt(host)) - before).toBe(0);
    });

    test.each(SIDES)('%s: cannot impersonate a host of the other side', async (side) => {
      const { gateway, host } = scene.machines[side];
      const before = [await requestsAt(host), await requestsAt(gateway)];
      await ofBoth((family) => {
        const source = scene.presenceOn(side, family);
        return scene.ping(side, family, [HOST[family], GATEWAY[family]], source);
      });
      expect([await requestsAt(host), await requestsAt(gateway)]).toEqual(before);
    });

    test.each(SIDES)(
      '%s: cannot impersonate the host in the LAN to the other side',
      async (side) => {
        const there = scene.machines[other(side)].host;
        const before = await requestsAt(there);
        await ofBoth((family) =>
          scene.ping(side, family, [scene.presenceOn(side, family)], HOST[family])
        );
        expect((await requestsAt(there)) - before).toBe(0);
      }
    );

    test.each(SIDES)('%s: is not reachable from the LAN', async (side) => {
      const before = await requestsAt(scene.neighbour);
      const { host } = scene.machines[side];
      await ofBoth((family) => host.run([...PING, NEIGHBOUR[family]]));
      expect((await requestsAt(scene.neighbour)) - before).toBe(0);
    });

    test.each(SIDES)('%s: reaches no more while the gateway is dead by kill -9', async (side) => {
      const { host } = scene.machines[side];
      await scene.endGateway(side, 'SIGKILL');
      try {
        const before = await requestsAt(host);
        await ofBoth((family) =>
          Promise.all([
            scene.ping(side, family, [HOST[family]]),
            scene.ping(side, family, [HOST[family]], scene.presenceOn(side, family)),
          ])
        );
        expect((await requestsAt(host)) - before).toBe(0);
      } finally {
        await scene.startGateway(side);
      }
    });

    test.each(['site-a', 'cloud'] as const)('%s: the machine is unchanged', async (side) => {
      const { gateway, before } = scene.machines[side];
      expect(await stateOf(gateway)).not.toBe(before);
      const { code, complaint } = await scene.endGateway(side, 'SIGTERM');
      expect({ code, complaint }).toEqual({ code: 0, complaint: '' });
      expect(await stateOf(gateway)).toBe(before);
    });
  }
);
