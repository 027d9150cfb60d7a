/**
 * A cloud gateway with two workers, each a process with a TUN, in a network namespace of its own.
 */
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import { MemorySecrets } from '../../src/store/index.ts';
import { ip, titled, useNamespace } from '../support/namespace.ts';
import { desired, Gateways, memory } from './scene.ts';

const skipReason = await useNamespace();
const gateways = new Gateways();
// The program of the workers is TypeScript in this test.
beforeAll(() => void vi.stubEnv('NODE_OPTIONS', '--import tsx'));
afterAll(() => void vi.unstubAllEnvs());
afterEach(() => gateways.close());
const PATIENCE = { signal: AbortSignal.timeout(600_000) };

const title =
  'a killed worker makes the cloud degraded until it is restarted, and revokes as before; nothing is left at the end';
test.skipIf(skipReason !== undefined)(titled(title, skipReason), async () => {
  ip('link', 'set', 'lo', 'up');
  const cloud = await gateways.cloud({
    device: { type: 'tun', name: 'vp' },
    workers: 2,
    desired: desired('site-a'),
  });
  expect(cloud).toMatchObject({ state: 'ready', workerCount: 2 });
  const { tunnels } = cloud.addresses;
  expect(tunnels).toHaveLength(2);
  const secrets = new MemorySecrets();
  const edge = await gateways.edge({
    store: memory().store,
    secrets,
    token: await cloud.createToken({ site: 'site-a' }),
  });
  await edge.ready(PATIENCE);
  // The edge receives the endpoints of all workers: each worker redirects an edge to the one that holds its site.
  const stored = JSON.parse(Buffer.from((await secrets.get('cloud.json'))!).toString());
  expect(stored).toEqual({ tunnels: tunnels.map(({ host, port }) => `${host}:${port}`) });

  const changes: unknown[] = [];
  const readiness: unknown[] = [];
  cloud.on('state', ({ state, reasons }) => {
    changes.push([state, reasons]);
    readiness.push(cloud.readiness().reasons.map(({ subject }) => subject));
  });
  /** The values of a metric by those of its labels. */
  const measured = async (name: string): Promise<Record<string, number>> => {
    const family = (await cloud.metrics()).find((each) => each.name.endsWith(name));
    const samples = (family?.samples ?? []).map((each): [string, number] => [
      Object.values(each.labels).join(' '),
      'value' in each ? each.value : each.count,
    ]);
    return Object.fromEntries(samples);
  };
  expect(await measured('_workers')).toEqual({ up: 2, down: 0 });
  expect(Object.keys(await measured('event_loop_delay_seconds'))).toEqual(['0', '1', 'host']);
  expect(await measured('tunnel_up')).toEqual({ 'site-a': 1 });
  const handshakes = await measured('handshakes_total');
  expect(handshakes.accepted).toBe(1);
  const { workers } = await cloud.status();
  process.kill(workers[1]!.pid, 'SIGKILL');
  await vi.waitFor(() => expect(changes).toHaveLength(2));
  expect(changes).toEqual([
    ['degraded', ['1 of 2 workers are down']],
    ['ready', []],
  ]);
  expect(readiness).toEqual([['worker'], []]);
  await edge.ready(PATIENCE);
  await cloud.moveSite('site-a', 1);
  await edge.ready(PATIENCE);
  await expect(cloud.moveSite('site-a', 2)).rejects.toMatchObject({ path: 'worker' });

  // What the process before has counted stays in the sum.
  const later = await measured('handshakes_total');
  expect(later.accepted).toBeGreaterThanOrEqual(2);
  expect(later.refused).toBeGreaterThanOrEqual(handshakes.refused!);

  // The restarted process, which holds the site now, learns of a revocation like the others.
  expect(await cloud.revoke({ site: 'site-a' })).toMatchObject({ tunnelsClosed: 1 });

  const pids = (await cloud.status()).workers.map(({ pid }) => pid);

  // A process that hangs is killed, and started again.
  process.kill(pids[1]!, 'SIGSTOP');
  const inTime = (check: () => Promise<void> | void) => vi.waitFor(check, 60_000);
  await inTime(() => expect(() => process.kill(pids[1]!, 0)).toThrow(/ESRCH/));
  await inTime(() => expect(cloud.readiness().ready).toBe(true));
  await inTime(async () => expect(await measured('_workers')).toEqual({ up: 2, down: 0 }));
  const killed = (await cloud.metrics()).find(({ name }) => /workers_killed_total$/.test(name));
  expect(killed!.samples).toEqual([{ labels: {}, value: 1 }]);

  pids.push(...(await cloud.status()).workers.map(({ pid }) => pid));
  await cloud.close();
  expect(ip('-o', 'link')).not.toMatch(/vp/);
  expect(ip('route')).toBe('');
  for (const pid of pids) expect(() => process.kill(pid, 0)).toThrow(/ESRCH/);
});
