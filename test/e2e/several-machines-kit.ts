/** What the tests of a cloud of several machines have in common: the scene, rounds, and what no fault may change. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { eventually, killGateways, Workspace } from '../support/gateway-process.ts';
import { Network, whatIsMissing } from '../support/network.ts';
import {
  type Machine,
  MachinesScene,
  type SceneOptions,
  type Site,
} from './several-machines-scene.ts';
import { resolve, Transfer, whoami } from './several-processes-scene.ts';

/** A scene, and the addresses with which it began. */
export class Fixture {
  readonly scene: MachinesScene;
  /** The address that the service has in the first site. */
  readonly service: string;
  /** The addresses that the clients have in the cloud, by their sites. */
  readonly #presences: ReadonlyMap<Site, string>;

  private constructor(scene: MachinesScene, service: string, presences: Map<Site, string>) {
    this.scene = scene;
    this.service = service;
    this.#presences = presences;
  }

  static async of(scene: MachinesScene): Promise<Fixture> {
    const presences = new Map<Site, string>();
    for (const site of scene.sites) {
      presences.set(site, await whoami(site.client, await resolve(site.client, 'service')));
    }
    return new Fixture(scene, await resolve(scene.client, 'service'), presences);
  }

  /**
   * Does something beside a transfer of the first site. The transfer must not be reset and lose no byte, and afterwards the
   * client has the address that it had, and each block is at one machine, which is that of its site.
   */
  async isUnnoticed(fault: (transfer: Transfer) => Promise<void>): Promise<void> {
    const transfer = new Transfer(this.scene.client, this.service);
    await transfer.flows();
    await fault(transfer);
    await transfer.flows();
    expect(await transfer.end()).toMatchObject({ isWhole: true });
    await this.isAsBefore(this.scene.sites[0]!);
  }

  /** Expects that the client of a site has the address that it had, and that the machine of the site has the only route. */
  async isAsBefore(site: Site): Promise<void> {
    const presence = this.#presences.get(site)!;
    expect(await whoami(site.client, this.service)).toBe(presence);
    await eventually(`the holder of ${site.name} has its block`, async () => {
      const machines = await this.scene.quiet();
      return machines.get(blockOf(presence)) === this.scene.holderOf(site).name || undefined;
    });
  }

  /** Does something, and waits until the edge of the first site is up at another machine, which is returned. */
  async takesOver(fault: (holder: Machine) => Promise<void>): Promise<Machine> {
    const { scene } = this;
    const { holder, edge } = scene;
    const since = edge.output.length;
    await fault(holder);
    await edge.logged(/: up to /, since);
    expect(scene.holder.name).not.toBe(holder.name);
    return scene.holder;
  }

  /** Does something, and waits until these machines have lost the store. */
  async detaches(machines: readonly Machine[], fault: () => Promise<void>): Promise<void> {
    await logs(machines, /does not reach the store/, fault);
  }

  /** Does something, and waits until these machines have the store again. */
  async attaches(machines: readonly Machine[], repair: () => Promise<void>): Promise<void> {
    await logs(machines, /reaches the store again/, repair);
  }
}

/** Describes what a cloud of some machines does, which is skipped where there can be none. */
export function describeMachines(
  title: string,
  options: SceneOptions,
  rows: (fixture: () => Fixture) => void
): void {
  const skipReason = whatIsMissing(PROGRAMS);
  const isSkipped = skipReason !== undefined && process.env.CI === undefined;
  const reason = isSkipped ? ` (skipped: ${skipReason})` : '';
  describe.skipIf(isSkipped)(`${title}${reason}`, () => {
    let workspace: Workspace | undefined;
    let network: Network | undefined;
    let fixture: Fixture | undefined;

    beforeAll(async () => {
      if (skipReason !== undefined) throw new Error(skipReason);
      workspace = new Workspace();
      network = await Network.create(workspace.newDirectory());
      const scene = await MachinesScene.start(network, workspace.newDirectory(), {
        etcdData: 'memory',
        lifetimeSeconds: 60 * (10 + ROUNDS),
        ...options,
      });
      fixture = await Fixture.of(scene);
    });

    afterAll(async () => {
      await network?.close();
      await killGateways();
      workspace?.remove();
    });

    rows(() => fixture!);
  });
}

/** A row of the failure table, in each round. */
export const eachRound: (title: string, row: (round: number) => Promise<void>) => void = (
  title,
  row
) => test.each(rounds)(`round %i: ${title}`, row);

/** Whether only one round is done, with faults that last no longer than it takes to notice them. */
export const isShort: boolean = process.env.VP_CLUSTER_ROUNDS === undefined;

/** Waits until each of these machines has logged a line after the start of something. */
async function logs(
  machines: readonly Machine[],
  pattern: RegExp,
  something: () => Promise<void>
): Promise<void> {
  const since = machines.map(({ gateway }) => gateway.output.length);
  await something();
  await Promise.all(machines.map(({ gateway }, at) => gateway.logged(pattern, since[at])));
}

/** Returns the block of 16 addresses that has this one. */
function blockOf(address: string): string {
  const parts = address.split('.').map(Number);
  return `${[...parts.slice(0, 3), parts[3]! & ~15].join('.')}/28`;
}

/** `npm run test:cluster` has 50. */
const ROUNDS = Number(process.env.VP_CLUSTER_ROUNDS ?? 1);
const rounds = Array.from({ length: ROUNDS }, (_, at) => at + 1);
const PROGRAMS = { bash: 'bash', etcd: 'etcd-server', etcdctl: 'etcd-client', nft: 'nftables' };
