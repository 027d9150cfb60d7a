/**
 * Tunnels, round-trip times and captures of a pool, with one worker in this process, and with two in a process each. The
 * tunnels are real; the devices are in memory, and no settings are made on the machine.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { IpAddress } from '../../src/base/address.ts';
import { PortRange } from '../../src/base/port-range.ts';
import { IpPrefix } from '../../src/base/prefix.ts';
import { MemoryDevice } from '../../src/device/index.ts';
import { type CaptureFilter, Endpoint } from '../../src/translator/index.ts';
import { type Credentials, MtlsTunnel } from '../../src/tunnel/index.ts';
import { WorkerPool } from '../../src/worker/index.ts';
import { CLOUD, site, TestCa } from '../support/certificates.ts';
import { tcpPacket } from '../support/packets.ts';
import { framed } from '../support/vnet.ts';
import { buildMemoryWorker, type WorkerProgram } from './memory-worker-build.ts';

vi.mock('../../src/device/index.ts', async (original) => ({
  ...(await original<typeof import('../../src/device/index.ts')>()),
  forgetRoutes: async () => {},
  changeRoutes: async () => {},
  configureTun: async () => ({ problems: [], close: async () => {} }),
}));

const HOST = '127.0.0.1';
const SITES = ['site-a', 'site-b'];
const ALL: CaptureFilter = { from: {}, to: {}, isOneWay: false, snapLength: 64 };

let ca: TestCa;
let cloud: Credentials;
let program: WorkerProgram;
const cleanUp: (() => unknown)[] = [];

beforeAll(async () => {
  ca = await TestCa.create();
  cloud = await ca.issue(CLOUD);
  program = await buildMemoryWorker();
});
afterAll(() => program.remove());
afterEach(async () => {
  for (const step of cleanUp.splice(0).reverse()) await step();
});

/** Opens a pool in which each site's host 10.0.0.5 may use the cloud's, by the presence 10.0.0.129. */
async function open(workers: number): Promise<WorkerPool> {
  const [memory] = MemoryDevice.pair();
  const pool = new WorkerPool({
    workers,
    device: workers === 1 ? async () => memory : { name: 'vp0' },
    tunnel: { host: HOST, port: 0 },
    credentials: () => cloud,
    access: () => ({
      sites: SITES,
      revocations: { sites: new Set(), serials: new Set(), spkis: new Set() },
      retired: [],
    }),
    admit: async () => {},
    workerMain: program.path,
  });
  cleanUp.push(() => pool.close());
  const sources = [IpPrefix.parse('10.0.0.0/24')];
  const pools = [IpPrefix.parse('10.0.0.128/25')];
  const host = IpAddress.parse('10.0.0.5');
  const service = new Endpoint('cloud', host);
  pool.load({
    realms: ['cloud', ...SITES].map((name) => ({ name, sources, pools })),
    presences: SITES.flatMap((realm, i) => [
      { realm, address: IpAddress.parse('10.0.0.129'), of: service },
      {
        realm: 'cloud',
        address: IpAddress.parse(`10.0.0.${130 + i}`),
        of: new Endpoint(realm, host),
      },
    ]),
    permits: SITES.map((realm) => ({ realm, service, ports: [PortRange.parse('tcp/5672')] })),
  });
  await pool.open();
  return pool;
}

async function dial(pool: WorkerPool, name: string): Promise<MtlsTunnel> {
  const own = await ca.issue(site(name));
  const endpoints = [{ host: HOST, port: pool.portOf(pool.holderOf(name))! }];
  const tunnel = MtlsTunnel.dial({ endpoints, expectedPeer: CLOUD, ...own });
  cleanUp.push(() => tunnel.destroy());
  const isUp = new Promise((resolve) => pool.once('tunnel', resolve));
  await Promise.all([isUp, new Promise((resolve) => tunnel.once('up', resolve))]);
  return tunnel;
}

describe.each([1, 2])('a pool of %d', (workers) => {
  test('measures the round-trip time of a tunnel', async () => {
    const pool = await open(workers);
    expect(await pool.diagnosis.tunnelStatus('site-a')).toBeUndefined();
    expect(await pool.diagnosis.measure('site-a', 1000)).toBeUndefined();
    const tunnel = await dial(pool, 'site-a');
    expect(await pool.diagnosis.tunnelStatus('site-a')).toMatchObject({ connections: 1 });
    expect(await pool.diagnosis.measure('site-a', 10_000)).toEqual([expect.any(Number)]);
    expect(await tunnel.measure(10_000)).toEqual([expect.any(Number)]);
  });

  test('captures what each worker translates, until the capture ends', async () => {
    const pool = await open(workers);
    const { diagnosis } = pool;
    const tunnels = [await dial(pool, 'site-a'), await dial(pool, 'site-b')];
    const onlyA = { ...ALL, from: { realm: 'site-a' } };
    for (const [number, filter] of [ALL, onlyA].entries()) {
      expect(await diagnosis.takeCapture(number, filter)).toEqual({ packets: [], lost: {} });
    }
    const packet = tcpPacket(
      { source: '10.0.0.5', destination: '10.0.0.129' },
      { sourcePort: 40_000, destinationPort: 5672, payload: new Uint8Array(100) }
    );
    const send = (): void => {
      const frame = Buffer.from(framed(packet));
      for (const tunnel of tunnels) {
        tunnel.sendPacket(frame, 0, frame.length);
        tunnel.flush();
      }
    };
    send();
    const all: string[] = [];
    await vi.waitFor(async () => {
      for (const each of (await diagnosis.takeCapture(0, ALL)).packets) {
        expect([each.bytes.length, each.length]).toEqual([64, packet.length]);
        all.push(`${each.direction} ${each.realm}`);
      }
      expect(all).toHaveLength(4);
    });
    expect([...all].sort()).toEqual([
      'inbound site-a',
      'inbound site-b',
      'outbound cloud',
      'outbound cloud',
    ]);
    const listed: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await diagnosis.pathPage({ limit: 1, cursor });
      expect(page.items.length).toBeLessThanOrEqual(1);
      listed.push(...page.items.map(({ ingress }) => ingress));
      cursor = page.next;
    } while (cursor !== undefined);
    expect(listed.sort()).toEqual((await pool.paths()).map(({ ingress }) => ingress).sort());
    expect(listed).toEqual(['site-a', 'site-b']);
    const ofB = await diagnosis.pathPage({ limit: 9, site: 'site-b' });
    expect(ofB).toMatchObject({ items: [{ ingress: 'site-b' }] });
    await expect(diagnosis.pathPage({ limit: 1, cursor: '../1' })).rejects.toMatchObject({
      path: 'cursor',
    });
    const left = await diagnosis.endCapture(1);
    expect(left.packets.map(({ direction, realm }) => `${direction} ${realm}`)).toEqual([
      'inbound site-a',
      'outbound cloud',
    ]);
    await diagnosis.endCapture(0);
    expect(await diagnosis.endCapture(0)).toEqual({ packets: [], lost: {} });
  });
});

test('a connection without an answer is told apart', async () => {
  const pool = await open(1);
  const tunnel = await dial(pool, 'site-a');
  const measuring = tunnel.measure(60_000);
  tunnel.destroy();
  expect(await measuring).toEqual([undefined]);
  expect(await tunnel.measure(1)).toEqual([]);
});
