/** The metrics of running gateways, against the table, the dashboard and the alert rules; readiness. */
import { readFileSync } from 'node:fs';
import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { StoreConflictError } from '../../src/errors.ts';
import type { CloudGateway, EdgeGateway } from '../../src/gateway/index.ts';
import { MeasuredStore } from '../../src/gateway/measured-store.ts';
import {
  encodeMetrics,
  METRIC_PREFIX,
  METRICS,
  type MetricFamily,
  type MetricName,
} from '../../src/observe/index.ts';
import { MemorySecrets, MemoryStore, type Write } from '../../src/store/index.ts';
import type { WorkerStatus } from '../../src/worker/index.ts';
import { PoolStatus } from '../../src/worker/pool-status.ts';
import { prometheusMissing, promtool } from '../e2e/prometheus-server.ts';
import { ANY_PORT, desired, Gateways, Hosts, memory } from '../gateway/scene.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { titled } from '../support/namespace.ts';

const gateways = new Gateways();
afterEach(() => gateways.close());
const PATIENCE = { signal: AbortSignal.timeout(600_000) };

/** Returns a cloud and the edge of site-a, which is online and has carried a packet; site-b has no edge. */
async function pair(): Promise<{ cloud: CloudGateway; edge: EdgeGateway }> {
  const behindCloud = new Hosts();
  behindCloud.serve(() => 'yes');
  const cloud = await gateways.cloud({
    device: behindCloud.device,
    desired: desired('site-a', 'site-b'),
    dns: { listen: ANY_PORT },
  });
  const hosts = new Hosts();
  const edge = await gateways.edge({
    device: hosts.device,
    dns: { listen: ANY_PORT },
    token: await cloud.createToken({ site: 'site-a' }),
  });
  await edge.ready(PATIENCE);
  await hosts.request(edge.lookup('bus')[0]!.addresses[0]!, 'hello?');
  return { cloud, edge };
}

/** Returns the value of one series; undefined if there is none. */
function seriesOf(
  families: readonly MetricFamily[],
  name: MetricName,
  labels: Readonly<Record<string, string>> = {}
): number | undefined {
  const family = families.find((each) => each.name === `${METRIC_PREFIX}${name}`);
  const wanted = JSON.stringify(labels);
  for (const sample of family?.samples ?? []) {
    if (JSON.stringify(sample.labels) !== wanted) continue;
    return 'value' in sample ? sample.value : sample.count;
  }
  return undefined;
}

describe('the metrics of a pair', () => {
  test('are those of the table, with its labels, and tell of the first packet', async () => {
    const { cloud, edge } = await pair();
    await cloud.revoke({ site: 'site-b' });
    const found = { cloud: await cloud.metrics(), edge: await edge.metrics() };
    for (const at of ['cloud', 'edge'] as const) {
      const names = Object.entries(METRICS).filter(([, metric]) => metric.at.includes(at));
      expect(found[at].map(({ name }) => name)).toEqual(
        names.map(([name]) => `${METRIC_PREFIX}${name}`)
      );
      for (const { name, type, help, samples } of found[at]) {
        const metric = METRICS[name.slice(METRIC_PREFIX.length) as MetricName];
        expect({ type, help }).toEqual({ type: metric.type, help: metric.help });
        for (const { labels } of samples) expect(Object.keys(labels)).toEqual(metric.labels);
      }
    }
    const of = (...series: Parameters<typeof seriesOf> extends [unknown, ...infer R] ? R : never) =>
      seriesOf(found.cloud, ...series);
    expect(of('packets_total', { site: 'site-a', verdict: 'forward' })).toBeGreaterThan(0);
    expect(of('packets_total', { site: 'site-a', verdict: 'needs_presence' })).toBe(1);
    // An IPv4 header, a UDP header, and the text.
    expect(of('path_bytes_total', { site: 'site-a' })! % 34).toBe(0);
    expect(of('tunnel_bytes_total', { site: 'site-a', direction: 'received' })).toBeGreaterThan(0);
    expect(of('tunnel_up', { site: 'site-a' })).toBe(1);
    expect(of('tunnel_up', { site: 'site-b' })).toBeUndefined();
    expect(of('revoked_sites')).toBe(1);
    expect(of('admissions_total', { result: 'admitted' })).toBe(1);
    expect(of('enrolments_total', { result: 'enrolled' })).toBe(1);
    expect(of('exposures', { condition: 'Allocated', status: 'True' })).toBe(2);
    expect(of('exposures', { condition: 'Programmed', status: 'False' })).toBe(1);
    expect(of('exposures', { condition: 'Acknowledged', status: 'False' })).toBe(1);
    const pool = { site: 'site-a', family: '4' };
    expect(of('pool_addresses', { ...pool, state: 'leased' })).toBe(1);
    expect(of('pool_addresses', { ...pool, state: 'free' })).toBe(125);
    expect(of('pool_addresses', { ...pool, state: 'reserved' })).toBe(2);
    const outbound = { site: 'site-a', direction: 'outbound', verdict: 'forward' };
    expect(seriesOf(found.edge, 'edge_packets_total', outbound)).toBeGreaterThan(0);
    expect(seriesOf(found.edge, 'handshakes_total', { result: 'accepted' })).toBe(1);
  });

  test('go on when a tunnel was replaced: no counter falls', async () => {
    const { cloud, edge } = await pair();
    const bytes = async () =>
      seriesOf(await cloud.metrics(), 'tunnel_bytes_total', {
        site: 'site-a',
        direction: 'received',
      });
    const before = await bytes();
    expect(before).toBeGreaterThan(0);
    await edge.close();
    expect(await bytes()).toBe(before);
    const after = await gateways.edge({ token: await cloud.createToken({ site: 'site-a' }) });
    await after.ready(PATIENCE);
    expect(await bytes()).toBe(before);
  });

  test('have the same reasons of drops while all workers are down, also in the first scrape', async () => {
    const none = { listener: {}, dataPlane: {}, device: {}, verdicts: {}, traffic: {} };
    const down: WorkerStatus = { pid: 0, ...none };
    const up = (pid: number): WorkerStatus => ({ ...down, pid, dataPlane: { dropUncut: pid } });
    const statuses = vi.spyOn(PoolStatus.prototype, 'each');
    onTestFinished(() => void statuses.mockRestore());
    const cloud = await gateways.cloud({ desired: desired('site-a') });
    const drops = async (...workers: WorkerStatus[]) => {
      statuses.mockResolvedValue(workers);
      const families = await cloud.metrics();
      const dropped = `${METRIC_PREFIX}dropped_packets_total`;
      const { samples = [] } = families.find(({ name }) => name === dropped) ?? {};
      const uncut = seriesOf(families, 'dropped_packets_total', { reason: 'uncut' });
      return { reasons: samples.map(({ labels }) => labels.reason), uncut };
    };
    const reasons = [
      'device_full',
      'no_tunnel',
      'not_admitted',
      'tunnel_full',
      'uncut',
      'waiting_full',
    ];
    expect(await drops(down, down)).toEqual({ reasons, uncut: 0 });
    expect(await drops(up(1), up(2))).toEqual({ reasons, uncut: 3 });
    expect(await drops(down, down)).toEqual({ reasons, uncut: 3 });
    expect(await drops(down, up(5))).toEqual({ reasons, uncut: 8 });
  });

  const skipReason = prometheusMissing();
  test.skipIf(skipReason !== undefined)(titled('pass promtool', skipReason), async () => {
    const { cloud, edge } = await pair();
    for (const gateway of [cloud, edge]) {
      promtool(['check', 'metrics'], String(await encodeMetrics(await gateway.metrics())));
    }
    promtool(['check', 'rules', 'prometheus/virtual-presence.rules.yml']);
  });

  test('are not read any more when the gateway is closed', async () => {
    const { cloud, edge } = await pair();
    await edge.close();
    await cloud.close();
    await expect(cloud.metrics()).rejects.toMatchObject({ code: 'ERR_PRESENCE_API_MISUSE' });
    await expect(edge.metrics()).rejects.toMatchObject({ code: 'ERR_PRESENCE_API_MISUSE' });
    expect(cloud.readiness()).toMatchObject({ ready: false, reasons: [{ subject: 'listener' }] });
    expect(edge.readiness()).toMatchObject({ ready: false, reasons: [{ subject: 'listener' }] });
  });
});

test.each(['grafana/virtual-presence.json', 'prometheus/virtual-presence.rules.yml'])(
  '%s names no other metrics than the table, and no other labels',
  (path) => {
    const text = readFileSync(path, 'utf8');
    const names = [...text.matchAll(/virtual_presence_(\w+)(?:\{([^}]*)\})?/g)];
    expect(names.length).toBeGreaterThan(10);
    for (const [, name, selector = ''] of names) {
      const base = name!.replace(/_bucket$/, '');
      expect(Object.keys(METRICS)).toContain(base);
      const labels = [...selector.matchAll(/(\w+)(?:=~|!=|=)/g)].map(([, label]) => label!);
      const known = [...METRICS[base as MetricName].labels, 'instance', 'job'];
      expect(labels.filter((label) => !known.includes(label))).toEqual([]);
    }
  }
);

describe('docs/monitoring.md', () => {
  const text = readFileSync('docs/monitoring.md', 'utf8');

  test('has the table of metrics', () => {
    const rows = Object.entries(METRICS).map(
      ([name, { type, labels, at, help }]) =>
        `| \`${name}\` | ${type} | ${labels.join(', ')} | ${at.join(', ')} | ${help} |`
    );
    const head = '| metric | type | labels | at | meaning |\n| --- | --- | --- | --- | --- |\n';
    expect(text).toContain(`${head}${rows.join('\n')}\n\n`);
  });

  test('says of each alert what to do', () => {
    const rules = readFileSync('prometheus/virtual-presence.rules.yml', 'utf8');
    const alerts = [...rules.matchAll(/- alert: (\w+)/g)].map(([, name]) => name);
    const rows = [...text.matchAll(/^\| `(VirtualPresence\w+)` \|/gm)].map(([, name]) => name);
    expect(rows).toEqual(alerts);
  });
});

describe('an edge', () => {
  test('is not ready before its first snapshot, and ready without its tunnel afterwards', async () => {
    const state = { store: new MemoryStore(), secrets: new MemorySecrets() };
    const edge = await gateways.edge(state);
    expect(edge.readiness()).toMatchObject({
      ready: false,
      reasons: [{ subject: 'snapshot', message: expect.stringContaining('no snapshot') }],
    });
    const cloud = await gateways.cloud({ desired: desired('site-a') });
    await edge.enrol(await cloud.createToken({ site: 'site-a' }));
    await edge.ready(PATIENCE);
    expect(edge.readiness()).toEqual({ ready: true, reasons: [] });
    await edge.close();
    await cloud.close();
    const again = await gateways.edge({ ...state, metrics: { listen: ANY_PORT } });
    expect(again.state).not.toBe('online');
    const { port } = again.addresses.metrics!;
    expect((await fetch(`http://127.0.0.1:${port}/readyz`)).status).toBe(200);
    const families = await again.metrics();
    expect(seriesOf(families, 'tunnel_up', { site: 'site-a' })).toBe(0);
    expect(seriesOf(families, 'ready', { subject: 'snapshot' })).toBe(1);
    expect(seriesOf(families, 'ready', { subject: 'tunnel' })).toBe(1);
  });

  test('is not ready while the cloud rejects it, although it has a snapshot in force', async () => {
    const { cloud, edge } = await pair();
    await cloud.revoke({ site: 'site-a' });
    await vi.waitFor(() => expect(edge.state).toBe('rejected'), 60_000);
    expect(edge.status().revision).toBeDefined();
    const { message } = edge.failure!.error;
    expect(edge.readiness()).toEqual({ ready: false, reasons: [{ subject: 'tunnel', message }] });
    const families = await edge.metrics();
    expect(seriesOf(families, 'ready', { subject: 'snapshot' })).toBe(1);
    expect(seriesOf(families, 'ready', { subject: 'tunnel' })).toBe(0);
  });
});

describe('a measured store', () => {
  class FaultyStore extends MemoryStore {
    error: Error | undefined;
    /** Whether commits do not end. */
    hangs = false;
    commits = 0;

    override async commit(writes: readonly Write[]): Promise<void> {
      this.commits++;
      if (this.hangs) await new Promise(() => {});
      if (this.error !== undefined) throw this.error;
      await super.commit(writes);
    }
  }

  test('is at fault after a commit that failed, until one succeeds, which it tries once a second', async () => {
    const clock = new FakeClock();
    const faulty = new FaultyStore();
    const store = new MeasuredStore(faulty, clock);
    faulty.error = new StoreConflictError('taken');
    await expect(store.commit([{ key: 'a', value: 1 }])).rejects.toThrow('taken');
    expect(store.fault()).toBeUndefined();
    faulty.error = new Error('the disk is full');
    await expect(store.commit([{ key: 'a', value: 1 }])).rejects.toThrow('the disk is full');
    expect(store.fault()).toContain('the last commit to the store has failed, the disk is full');
    store.fault();
    expect(faulty.commits).toBe(3);
    faulty.error = undefined;
    await new Promise((resolve) => setImmediate(resolve));
    expect(store.fault()).toBeDefined();
    clock.advance(1000);
    store.fault();
    await new Promise((resolve) => setImmediate(resolve));
    expect(store.fault()).toBeUndefined();
    expect(await faulty.list('')).toEqual([]);
    expect(store.durations.count).toBe(4);
  });

  test('is at fault while a commit does not end', () => {
    const clock = new FakeClock();
    const faulty = new FaultyStore();
    const store = new MeasuredStore(faulty, clock);
    faulty.hangs = true;
    void store.commit([]);
    clock.advance(10_000);
    expect(store.fault()).toBeUndefined();
    clock.advance(1);
    expect(store.fault()).toBe(
      'a commit to the store has not ended for 10 s: check its disk or its server'
    );
  });
});

test('a cloud gateway whose store has failed is not ready', async () => {
  const store = new MemoryStore();
  const cloud = await gateways.cloud({ ...memory(), store, desired: desired('site-a') });
  expect(cloud.readiness()).toEqual({ ready: true, reasons: [] });
  store.commit = () => Promise.reject(new Error('the disk is full'));
  await expect(cloud.createToken({ site: 'site-a' })).rejects.toThrow('the disk is full');
  expect(cloud.readiness()).toMatchObject({ ready: false, reasons: [{ subject: 'store' }] });
  expect(seriesOf(await cloud.metrics(), 'ready', { subject: 'store' })).toBe(0);
});
