/**
 * A cloud of two machines on a real etcd: one of them dies, is cut off, or loses etcd, while a transfer runs and a client
 * keeps its address. `several-machines-scene.ts` draws the networks.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { killGateways, Workspace } from '../support/gateway-process.ts';
import { Network, whatIsMissing } from '../support/network.ts';
import { MachinesScene } from './several-machines-scene.ts';
import { resolve, Transfer, whoami } from './several-processes-scene.ts';

/** `npm run test:cluster` has 50. */
const ROUNDS = Number(process.env.VP_CLUSTER_ROUNDS ?? 1);
const rounds = Array.from({ length: ROUNDS }, (_, round) => round + 1);

const skipReason = whatIsMissing({ bash: 'bash', etcd: 'etcd-server' });
const isSkipped = skipReason !== undefined && process.env.CI === undefined;
const reason = isSkipped ? ` (skipped: ${skipReason})` : '';

describe.skipIf(isSkipped)(`a cloud of two machines${reason}`, () => {
  let workspace: Workspace | undefined;
  let network: Network | undefined;
  let scene: MachinesScene;
  let service: string;
  /** The address that the client has in the cloud. */
  let client: string;

  beforeAll(async () => {
    if (skipReason !== undefined) throw new Error(skipReason);
    workspace = new Workspace();
    network = await Network.create(workspace.newDirectory());
    scene = await MachinesScene.start(network, workspace.newDirectory(), { etcdData: 'memory' });
    service = await resolve(scene.client, 'service');
    client = await whoami(scene.client, service);
  });

  afterAll(async () => {
    await network?.close();
    await killGateways();
    workspace?.remove();
  });

  test.each(rounds)(
    'round %i: loses no byte when the machine that holds the site is killed, and the client keeps its address',
    async () => {
      const transfer = new Transfer(scene.client, service);
      await transfer.flows();
      const { holder } = scene;
      const since = scene.edge.output.length;
      await scene.kill(holder);
      await scene.edge.logged(/: up to /, since);
      expect(scene.holder.name).toBe(scene.other(holder).name);
      await transfer.flows();
      expect(await transfer.end()).toMatchObject({ isWhole: true });
      expect(await whoami(scene.client, service)).toBe(client);
      await scene.restart(holder);
    }
  );

  test.each(rounds)(
    'round %i: loses no byte when the network of the machine that holds the site is cut',
    async () => {
      const transfer = new Transfer(scene.client, service);
      await transfer.flows();
      const { holder } = scene;
      const since = scene.edge.output.length;
      await scene.root.sh(`ip link set ${holder.wan} down`);
      await scene.edge.logged(/: up to /, since);
      expect(scene.holder.name).toBe(scene.other(holder).name);
      await transfer.flows();
      await scene.root.sh(`ip link set ${holder.wan} up`);
      await holder.gateway.logged(/reaches the store again/);
      await transfer.flows();
      expect(await transfer.end()).toMatchObject({ isWhole: true });
      expect(await whoami(scene.client, service)).toBe(client);
    }
  );

  test.each(rounds)('round %i: goes on while etcd does not answer', async () => {
    const transfer = new Transfer(scene.client, service);
    await transfer.flows();
    const { holder } = scene;
    const since = holder.gateway.output.length;
    await scene.signalEtcd('STOP');
    await holder.gateway.logged(/does not reach the store/, since);
    await transfer.flows();
    await scene.signalEtcd('CONT');
    await holder.gateway.logged(/reaches the store again/, since);
    await transfer.flows();
    expect(await transfer.end()).toMatchObject({ isWhole: true });
    expect(scene.holder.name).toBe(holder.name);
  });
});
