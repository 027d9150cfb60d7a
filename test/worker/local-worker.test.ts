/**
 * A pool of one worker, in this process: real tunnels on loopback, with a device in memory.
 */
import { X509Certificate } from 'node:crypto';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { MemoryDevice } from '../../src/device/index.ts';
import { CloseCode, MtlsTunnel, type Tunnel } from '../../src/tunnel/index.ts';
import { type SiteTunnel, type TunnelFilter, WorkerPool } from '../../src/worker/index.ts';
import { CLOUD, site, TestCa } from '../support/certificates.ts';

const HOST = '127.0.0.1';
const SITES = ['site-a', 'site-b'];

let ca: TestCa;
let pool: WorkerPool;
let sites: string[];
/** Serial numbers, lower-case hex. */
let revoked: Set<string>;
let tunnels: Map<string, SiteTunnel>;
let edges: Map<string, Tunnel>;
const down: string[] = [];

beforeEach(async () => {
  ca = await TestCa.create();
  const [device] = MemoryDevice.pair({ mtu: 1500 });
  const credentials = await ca.issue(CLOUD);
  sites = [...SITES];
  revoked = new Set();
  tunnels = new Map();
  edges = new Map();
  down.length = 0;
  pool = new WorkerPool({
    device: async () => device,
    tunnel: { host: HOST, port: 0 },
    credentials: () => credentials,
    access: () => ({
      sites,
      revocations: { sites: new Set(), serials: revoked, spkis: new Set() },
      retired: [],
    }),
    admit: async () => {},
  });
  pool.on('tunnel', (tunnel) => {
    tunnels.set(tunnel.site, tunnel);
    tunnel.on('down', ({ code }) => down.push(`${tunnel.site} ${code}`));
  });
  const realms = ['cloud', ...SITES].map((name) => ({ name, sources: ['10.0.0.0/24'] }));
  pool.load({ realms, presences: [], permits: [] });
  await pool.open();
  const endpoints = [{ host: HOST, port: pool.portOf(0)! }];
  for (const name of SITES) {
    const own = await ca.issue(site(name));
    const edge = MtlsTunnel.dial({ endpoints, expectedPeer: CLOUD, ...own });
    edges.set(name, edge);
    await new Promise((resolve) => edge.once('up', resolve));
  }
  await vi.waitFor(() => expect([...tunnels.keys()]).toEqual(SITES));
});

afterEach(async () => {
  for (const edge of edges.values()) edge.destroy();
  await pool.close();
});

test('carries control messages both ways, and reports the peer of a tunnel', async () => {
  const edge = edges.get('site-a')!;
  const tunnel = tunnels.get('site-a')!;
  const received = new Promise((resolve) => tunnel.once('control', resolve));
  edge.sendControl({ type: 'question' });
  expect(await received).toEqual({ type: 'question' });
  const answer = new Promise((resolve) => edge.once('control', resolve));
  expect(tunnel.sendControl({ type: 'answer' })).toBe(true);
  expect(await answer).toEqual({ type: 'answer' });
  expect(tunnel).toMatchObject({ site: 'site-a', remoteAddress: HOST });
  expect(tunnel.certificate).toBeInstanceOf(X509Certificate);
});

test.each<[what: string, filter: () => Exclude<TunnelFilter, { tunnel: number }>]>([
  ['of one site', () => ({ site: 'site-a' })],
  [
    'whose certificate is revoked',
    () => {
      revoked.add(tunnels.get('site-a')!.certificate.serialNumber.toLowerCase());
      return { unwanted: true };
    },
  ],
])('terminates the tunnels %s, and no others', async (_, filter) => {
  const reported = new Promise((resolve) =>
    edges.get('site-a')!.once('refused', ({ code }) => resolve(code))
  );
  const report = await pool.terminate(filter(), { code: CloseCode.Revoked, reason: 'for a test' });
  expect(report).toEqual({ tunnelsClosed: 1, pathsRemoved: 0 });
  expect(await reported).toBe('revoked');
  await vi.waitFor(() => expect(down).toContain('site-a revoked'));
  expect(down.filter((line) => line.startsWith('site-b'))).toEqual([]);
  expect(edges.get('site-b')!.state).toBe('up');
  // A tunnel that is down accepts no message.
  expect(tunnels.get('site-a')!.sendControl({ type: 'late' })).toBe(false);
});

test('closes one tunnel, whose edge receives the reason', async () => {
  const reported = new Promise((resolve) => edges.get('site-b')!.once('down', resolve));
  tunnels.get('site-b')!.close(CloseCode.ProtocolError, 'for a test');
  expect(await reported).toMatchObject({ code: 'protocol-error', reason: 'for a test' });
  expect(edges.get('site-a')!.state).toBe('up');
});

test('ends the tunnels of a site that was removed, and reports the site no longer', async () => {
  const reported = new Promise((resolve) =>
    edges.get('site-a')!.once('refused', ({ code }) => resolve(code))
  );
  sites = ['site-b'];
  pool.refreshAccess();
  expect(await reported).toBe('unknown-site');
  expect((await pool.status([])).workers).toEqual([{ pid: process.pid, sites: ['site-b'] }]);
});

test('does not listen after close, and cannot be opened on a port that is in use', async () => {
  const listeners = () =>
    process.getActiveResourcesInfo().filter((each) => each === 'TCPServerWrap').length;
  const before = listeners();
  const [device] = MemoryDevice.pair({ mtu: 1500 });
  const credentials = await ca.issue(CLOUD);
  const other = new WorkerPool({
    device: async () => device,
    tunnel: { host: HOST, port: pool.portOf(0)! },
    credentials: () => credentials,
    access: () => ({
      sites: [],
      revocations: { sites: new Set(), serials: new Set(), spkis: new Set() },
      retired: [],
    }),
    admit: async () => {},
  });
  await expect(other.open()).rejects.toMatchObject({ code: 'ERR_PRESENCE_ENVIRONMENT' });
  await pool.close();
  expect(down.sort()).toEqual(['site-a shutdown', 'site-b shutdown']);
  await vi.waitFor(() => expect(listeners()).toBe(before - 1));
});
