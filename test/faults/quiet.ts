/**
 * What has to hold when nothing is in progress: all machines say the same, one of them has each site with the routes of its
 * blocks, one allocates addresses, and what each has derived by and by is what a full derivation says.
 *
 * Full derivations are of two kinds: the audit of each machine, which compares site by site with the records and the store
 * and has begun after the last fault, and a machine that has just been started, whose answers the others must give too.
 * @module
 */
import { isDeepStrictEqual } from 'node:util';
import type { MachinesAnswer } from '../../src/admin/machines.ts';
import type { CloudStatusAnswer } from '../../src/admin/status.ts';
import type { Machine, MachinesScene } from '../e2e/several-machines-scene.ts';
import { eventually } from '../support/gateway-process.ts';
import { inTime } from './in-time.ts';
import type { StoreWatch } from './store-watch.ts';

/** What a machine says of the cloud. */
interface View {
  readonly machines: MachinesAnswer;
  readonly status: CloudStatusAnswer;
}

interface Presence {
  readonly realm: string;
  readonly address: string;
  readonly of: { readonly realm: string; readonly address: string };
}

/**
 * Waits until all machines say the same, and checks the rules.
 *
 * @throws {Error} that says what does not hold, when it has not held for a minute.
 */
export async function checkQuiet(scene: MachinesScene, watch: StoreWatch): Promise<void> {
  const holders = await settled(scene);
  await watch.caughtUp();
  await holds('the presences of all machines', async () => {
    const { leases } = watch;
    for (const machine of scene.machines) {
      const { items } = await ask<{ items: Presence[] }>(
        scene,
        machine,
        '/v1/presences?limit=1000'
      );
      const presences = new Map(
        items.map(({ realm, address, of }) => [`${realm}/${address}`, `${of.realm}/${of.address}`])
      );
      const fault = differenceOf(presences, leases);
      if (fault !== undefined) return `${machine.name} differs from the leases in etcd: ${fault}`;
    }
    return undefined;
  });
  await holds('the routes of blocks', () => faultOfRoutes(scene, watch, holders));
  await holds('the pools and exposures of all machines', async () => {
    const [first, ...others] = await Promise.all(
      scene.machines.map(async (machine) => ({
        exposures: (await ask<{ items: unknown[] }>(scene, machine, '/v1/exposures?limit=1000'))
          .items,
        leased: (await ask<CloudStatusAnswer>(scene, machine, '/v1/status')).sites.map(
          ({ name, pool }) => ({ name, leased: pool?.leased })
        ),
      }))
    );
    return others.every((each) => isDeepStrictEqual(each, first))
      ? undefined
      : JSON.stringify([first, ...others]);
  });
  await audited(scene);
}

/** Waits until all machines agree on what each of them is; returns the holder of each site. */
async function settled(scene: MachinesScene): Promise<ReadonlyMap<string, string>> {
  let holders = new Map<string, string>();
  await holds('the machines', async () => {
    const views = await Promise.all(scene.machines.map((each) => viewOf(scene, each)));
    for (const {
      machines: { machine, machines },
    } of views) {
      if (machine.state !== 'attached') return `${machine.name} is ${machine.state}`;
      const out = machines.find(({ isLive, isDraining }) => !isLive || isDraining);
      if (out !== undefined) return `${out.name} is draining, or not alive, at ${machine.name}`;
    }
    const [first, ...others] = views.map(({ machines: { machines }, status: { sites } }) => ({
      machines,
      sites: sites.map(({ name, machine, epoch }) => ({ name, machine, epoch })),
    }));
    const different = others.find((each) => !isDeepStrictEqual(each, first));
    if (different !== undefined) return JSON.stringify([first, different]);
    const controllers = first!.machines.filter(({ isController }) => isController);
    const own = views.filter(({ machines }) => machines.machine.isController);
    if (
      controllers.length !== 1 ||
      own.length !== 1 ||
      own[0]!.machines.machine.name !== controllers[0]!.name
    ) {
      return `${controllers.length} machines are said to allocate addresses, and ${own.length} say it`;
    }
    holders = new Map();
    for (const { name, machine } of first!.sites) {
      if (name === 'cloud') continue;
      if (machine === undefined) return `nobody holds ${name}`;
      holders.set(name, machine);
      const view = views.find(({ machines }) => machines.machine.name === machine);
      const edge = view?.status.sites.find((site) => site.name === name)?.edge;
      if (edge === undefined || edge.appliedRevision !== edge.sentRevision) {
        return `the edge of ${name} has not taken what ${machine} has sent`;
      }
    }
    return undefined;
  });
  return holders;
}

/** Each block has one machine, and the block of each client's presence is at the holder of the client's site. */
async function faultOfRoutes(
  scene: MachinesScene,
  watch: StoreWatch,
  holders: ReadonlyMap<string, string>
): Promise<string | undefined> {
  const blocks: { readonly block: string; readonly machine: string }[] = [];
  for (const machine of scene.machines) {
    for (const block of await scene.blocksAt(machine)) {
      const other = blocks.find((each) => each.block === block);
      if (other !== undefined)
        return `${other.machine} and ${machine.name} have routes of ${block}`;
      blocks.push({ block, machine: machine.name });
    }
  }
  for (const [place, host] of watch.leases) {
    const [realm, address] = place.split('/') as [string, string];
    const [site] = host.split('/') as [string];
    if (realm !== 'cloud' || site === 'cloud') continue;
    const own = blocks.filter(({ block }) => contains(block, address));
    const at = own.map(({ block, machine }) => `${machine} (${block})`).join(', ');
    if (own.length === 0 || own.some(({ machine }) => machine !== holders.get(site))) {
      return `routes of ${address}, of ${host}, are at ${at || 'no machine'}, and its holder is ${holders.get(site)}`;
    }
  }
  return undefined;
}

/** Waits until the audit of each machine has compared all sites anew, and has found no difference. */
async function audited(scene: MachinesScene): Promise<void> {
  for (const machine of scene.machines) {
    const before = await ask<CloudStatusAnswer>(scene, machine, '/v1/status');
    // What has begun before may end first.
    const until = before.derivation.checkedSites + 2 * before.sites.length;
    await holds(`the audit of ${machine.name}`, async () => {
      const { derivation } = await ask<CloudStatusAnswer>(scene, machine, '/v1/status');
      if (derivation.differences > 0)
        throw new Error(`${machine.name} differs from a full derivation`);
      return derivation.checkedSites >= until
        ? undefined
        : `${derivation.checkedSites} of ${until}`;
    });
  }
}

async function viewOf(scene: MachinesScene, machine: Machine): Promise<View> {
  const [machines, status] = await Promise.all([
    ask<MachinesAnswer>(scene, machine, '/v1/machines'),
    ask<CloudStatusAnswer>(scene, machine, '/v1/status'),
  ]);
  return { machines, status };
}

/** Asks a machine that has to answer. */
export async function ask<T>(scene: MachinesScene, machine: Machine, path: string): Promise<T> {
  const what = `${machine.name}: ${path}`;
  const { status, body } = await inTime(scene.ask(machine, 'GET', path), what, ANSWER_MS);
  if (status !== 200) throw new Error(`${what}: ${status} ${body.detail}`);
  return body as T;
}

/** Waits until `fault` finds nothing; says what it has found last. */
async function holds(what: string, fault: () => Promise<string | undefined>): Promise<void> {
  let last: string | undefined;
  await eventually(
    what,
    async () => {
      last = await fault();
      return last === undefined || undefined;
    },
    SETTLE_MS
  ).catch((error: Error) => {
    throw new Error(last === undefined ? error.message : `${error.message}: ${last}`);
  });
}

function differenceOf(
  one: ReadonlyMap<string, string>,
  other: ReadonlyMap<string, string>
): string | undefined {
  for (const key of new Set([...one.keys(), ...other.keys()])) {
    if (one.get(key) !== other.get(key)) return `${key}: ${one.get(key)}, ${other.get(key)}`;
  }
  return undefined;
}

function contains(block: string, address: string): boolean {
  const [first, length = '32'] = block.split('/') as [string, string?];
  const shift = 2 ** (32 - Number(length));
  return Math.floor(numberOf(first) / shift) === Math.floor(numberOf(address) / shift);
}

function numberOf(address: string): number {
  return address.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);
}

const SETTLE_MS = 60_000;
const ANSWER_MS = 30_000;
