/**
 * A change reads, stores and sends only what it touches, however many other sites there are. It is counted, not timed.
 */
import { expect, test } from 'vitest';
import { IpAddress } from '../../src/base/address.ts';
import { IpPrefix } from '../../src/base/prefix.ts';
import { PresenceController, type Snapshot } from '../../src/control/index.ts';
import type { PlanChanges } from '../../src/translator/index.ts';
import { PortRange } from '../../src/translator/index.ts';
import { SceneClock, ScriptedStore } from './scene.ts';
import { SourceDouble } from './source-double.ts';

const SERVICES = 20;
const PORTS = [PortRange.from('tcp/80', 'ports')];
const nameOf = (index: number): string => `site-${index}`;

function siteOf(name: string, pool: string) {
  const sources = [IpPrefix.parse('10.0.0.0/12')];
  const limits = { maxClients: 100, maxNames: 4096 };
  return { name, sources, pools: [IpPrefix.parse(pool)], reserved: [], zone: 'test', ...limits };
}

/** What one change has read of the desired state, written to the store, sent to the translator, and published. */
interface Cost {
  readonly reads: number;
  readonly writes: number;
  readonly changes: readonly (readonly number[])[];
  readonly snapshots: readonly string[];
}

/** The cloud exposes its services to each site, and each site one service to the cloud. Each site has two clients. */
async function cloudOf(count: number) {
  const source = new SourceDouble();
  const indexes = Array.from({ length: count }, (_, i) => i);
  const service = (name: string, site: string, host: number) => {
    return { name, site, address: IpAddress.parse(`10.0.0.${host}`), ports: PORTS };
  };
  const names = Array.from({ length: SERVICES }, (_, i) => `service-${i}`);
  source.put(
    [siteOf('cloud', '100.64.0.0/10'), ...indexes.map((i) => siteOf(nameOf(i), '100.64.0.0/24'))],
    [
      ...[...names, 'extra'].map((name, i) => service(name, 'cloud', i + 1)),
      ...indexes.map((i) => service(`own-${i}`, nameOf(i), 1)),
    ],
    indexes.flatMap((i) => [
      ...names.map((name) => ({ service: name, site: nameOf(i) })),
      { service: `own-${i}`, site: 'cloud' },
    ])
  );
  const sent: PlanChanges[] = [];
  const translator = {
    load: () => {},
    bind: () => {},
    apply: (changes: PlanChanges) => sent.push(changes),
  };
  let writes = 0;
  const store = new ScriptedStore();
  store.watch('lease/', (changes) => {
    writes += changes.length;
  });
  const clock = new SceneClock();
  const { registry } = source;
  // The audit reads everything now and then.
  const auditMs = Number.POSITIVE_INFINITY;
  const controller = await PresenceController.start({
    registry,
    store,
    translator,
    clock,
    auditMs,
  });
  const snapshots: Snapshot[] = [];
  controller.on('snapshot', (snapshot) => snapshots.push(snapshot));
  await Promise.all(
    indexes.flatMap((i) =>
      ['10.0.1.1', '10.0.1.2'].map((host) => controller.admit(nameOf(i), host, 'cloud', 4))
    )
  );
  await clock.pass(5000);
  const costOf = async (change: () => unknown): Promise<Cost> => {
    source.reads = 0;
    writes = 0;
    sent.length = 0;
    snapshots.length = 0;
    await change();
    await controller.settled();
    await clock.pass(5000);
    const sizesOf = ({ realms = [], presences = [], permits = [] }: PlanChanges) => [
      realms.length,
      presences.length,
      permits.length,
    ];
    const names = snapshots.map(({ site }) => site).sort();
    return { reads: source.reads, writes, changes: sent.map(sizesOf), snapshots: names };
  };
  return { source, controller, costOf };
}

async function costsOf(count: number): Promise<Record<string, Cost>> {
  const { source, controller, costOf } = await cloudOf(count);
  const extra = { service: 'extra', site: nameOf(3) };
  const costs = {
    expose: await costOf(() => source.put([], [], [extra])),
    unexpose: await costOf(() => source.unexpose(extra)),
    site: await costOf(() => source.put([siteOf('new', '100.64.0.0/24')], [], [])),
    pool: await costOf(() => source.put([siteOf(nameOf(4), '100.65.0.0/24')], [], [])),
    admit: await costOf(() => controller.admit(nameOf(5), '10.0.1.3', 'cloud', 4)),
    suspend: await costOf(() => controller.suspend(nameOf(6), true)),
    resume: await costOf(() => controller.suspend(nameOf(6), false)),
    releaseClients: await costOf(() => controller.releaseClients(nameOf(6))),
  };
  await controller.close();
  return costs;
}

test('each change costs the same with 10 sites and with 300', async () => {
  const few = await costsOf(10);
  expect(await costsOf(300)).toEqual(few);
  expect(few).toMatchObject({
    expose: { writes: 1, changes: [[0, 1, 1]], snapshots: ['site-3'] },
    // The host may use the service of that site, and so keeps its presence as a client.
    unexpose: { writes: 1, changes: [[0, 0, 1]], snapshots: ['site-3'] },
    site: { writes: 0, changes: [[1, 0, 0]], snapshots: ['new'] },
    admit: { writes: 1, changes: [[0, 1, 0]], snapshots: ['cloud'] },
    // Two clients and a service in the cloud, and what the cloud may reach there.
    suspend: { writes: 0, changes: [[1, 3, 1]], snapshots: ['cloud'] },
    resume: {
      writes: 0,
      changes: [[1, SERVICES + 3, SERVICES + 1]],
      snapshots: ['cloud', 'site-6'],
    },
    releaseClients: { writes: 2, changes: [[0, 2, 0]], snapshots: ['cloud'] },
  });
  for (const { reads } of Object.values(few)) expect(reads).toBeLessThan(200);
}, 60_000);
