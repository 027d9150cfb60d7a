/**
 * The option `authorize` of a pool, with one worker in this process, and with two in a process each. The tunnels are
 * real; the devices are in memory, and no settings are made on the machine.
 */
import { X509Certificate } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { MemoryDevice } from '../../src/device/index.ts';
import { silentLogger } from '../../src/observe/index.ts';
import {
  type CloseCause,
  CloseCode,
  type Credentials,
  MtlsTunnel,
  type TunnelRefusal,
} from '../../src/tunnel/index.ts';
import { WorkerPool, type WorkerPoolOptions } from '../../src/worker/index.ts';
import { CLOUD, site, TestCa } from '../support/certificates.ts';
import { buildMemoryWorker, type WorkerProgram } from './memory-worker-build.ts';

vi.mock('../../src/device/index.ts', async (original) => ({
  ...(await original<typeof import('../../src/device/index.ts')>()),
  forgetRoutes: async () => {},
  changeRoutes: async () => {},
  configureTun: async () => ({ problems: [], close: async () => {} }),
}));

const HOST = '127.0.0.1';
type Authorize = NonNullable<WorkerPoolOptions['authorize']>;
type Answer = ReturnType<Authorize>;

let ca: TestCa;
let cloud: Credentials;
let siteA: Credentials;
let program: WorkerProgram;
const cleanUp: (() => unknown)[] = [];

beforeAll(async () => {
  ca = await TestCa.create();
  cloud = await ca.issue(CLOUD);
  siteA = await ca.issue(site('site-a'));
  program = await buildMemoryWorker();
});
afterAll(() => program.remove());
afterEach(async () => {
  for (const step of cleanUp.splice(0).reverse()) await step();
});

class Scene {
  readonly pool: WorkerPool;
  readonly revoked = new Set<string>();
  sites = ['site-a'];
  /** The sites whose tunnels came up, in order. */
  readonly up: string[] = [];
  readonly refused: string[] = [];
  readonly log: string[] = [];

  constructor(workers: number, authorize: Authorize | undefined) {
    const [memory] = MemoryDevice.pair();
    this.pool = new WorkerPool({
      workers,
      device: workers === 1 ? async () => memory : { name: 'vp0' },
      tunnel: { host: HOST, port: 0 },
      credentials: () => cloud,
      access: () => ({
        sites: this.sites,
        revocations: { sites: new Set(), serials: this.revoked, spkis: new Set() },
        retired: [],
      }),
      admit: async () => {},
      logger: { ...silentLogger, error: (_fields, message) => this.log.push(message) },
      workerMain: program.path,
      ...(authorize && { authorize }),
    });
    this.pool.on('tunnel', (tunnel) => this.up.push(tunnel.site));
    this.pool.on('refused', ({ code, site }) => this.refused.push(`${site} ${code}`));
  }

  static async open(workers: number, authorize?: Authorize): Promise<Scene> {
    const scene = new Scene(workers, authorize);
    cleanUp.push(() => scene.pool.close());
    await scene.pool.open();
    return scene;
  }

  /** Resolves with `up`, or with the cause of a failure. */
  async dial(credentials = siteA): Promise<'up' | CloseCause> {
    const worker = this.pool.holderOf('site-a');
    const tunnel = MtlsTunnel.dial({
      endpoints: [{ host: HOST, port: this.pool.portOf(worker)! }],
      expectedPeer: CLOUD,
      ...credentials,
    });
    cleanUp.push(() => tunnel.destroy());
    return new Promise((resolve) => {
      tunnel.once('up', () => resolve('up'));
      tunnel.once('waiting', ({ cause }) => resolve(cause));
    });
  }
}

const REFUSAL: TunnelRefusal = { code: 'device-unhealthy', reason: 'its disk is not encrypted' };

describe.each([1, 2])('authorize, in a pool of %d', (workers) => {
  test('receives the certificate of the edge, and admits it', async () => {
    const peers: Parameters<Authorize>[0][] = [];
    const scene = await Scene.open(workers, async (peer) => {
      peers.push(peer);
      return undefined;
    });
    expect(await scene.dial()).toBe('up');
    expect(peers).toEqual([
      { site: 'site-a', remoteAddress: HOST, certificate: expect.any(X509Certificate) },
    ]);
    const { serialNumber } = new X509Certificate(siteA.cert);
    expect(peers[0]!.certificate.serialNumber).toBe(serialNumber);
  });

  test.each<[string, Authorize]>([
    ['at once', () => REFUSAL],
    ['by a promise', async () => REFUSAL],
  ])('refuses an edge %s, which receives the reason', async (_, authorize) => {
    const scene = await Scene.open(workers, authorize);
    expect(await scene.dial()).toMatchObject({ by: 'peer', ...REFUSAL });
    await vi.waitFor(() => expect(scene.refused).toEqual(['site-a device-unhealthy']));
    expect([scene.up, scene.log]).toEqual([[], []]);
  });

  test('may name an epoch and endpoints, and receives the epoch again', async () => {
    const epoch = { cluster: 'c1', number: 5 };
    const last: unknown[] = [];
    const scene = await Scene.open(workers, ({ lastEpoch }) => {
      last.push(lastEpoch);
      return { epoch, endpoints: [] };
    });
    expect(await scene.dial()).toBe('up');
    await vi.waitFor(() => expect(scene.up).toEqual(['site-a']));
    expect([await scene.pool.isAlive('site-a'), await scene.pool.isAlive('site-z')]).toEqual([
      true,
      false,
    ]);
    // It is sent here again.
    const port = scene.pool.portOf(scene.pool.holderOf('site-a'))!;
    const endpoints = [{ host: HOST, port }];
    const close = { code: CloseCode.Moved, reason: 'a test', endpoints, drain: true };
    await scene.pool.terminate({ site: 'site-a' }, close);
    await vi.waitFor(() => expect(scene.up).toEqual(['site-a', 'site-a']));
    expect(last).toEqual([undefined, epoch]);
  });

  test('may send an edge elsewhere', async () => {
    const moved = [{ host: 'b.example.org', port: 7443 }];
    const scene = await Scene.open(workers, async () => ({ moved }));
    expect(await scene.dial()).toMatchObject({
      by: 'peer',
      code: CloseCode.Moved,
      endpoints: moved,
    });
  });

  test.each<[string, () => unknown, RegExp]>([
    [
      'throws',
      () => {
        throw new Error('the identity provider is down');
      },
      /the identity provider is down/,
    ],
    ['rejects', () => Promise.reject(new Error('no route')), /no route/],
    ['returns null', async () => null, /, not null$/],
  ])('refuses every edge and logs it when it %s', async (_, authorize, says) => {
    const scene = await Scene.open(workers, () => authorize() as Answer);
    expect(await scene.dial()).toMatchObject({ by: 'peer', code: CloseCode.NotAuthorized });
    await vi.waitFor(() => expect(scene.log).toHaveLength(1));
    expect(scene.log[0]).toMatch(/^site-a: authorize: /);
    expect(scene.log[0]).toMatch(says);
    expect(scene.up).toEqual([]);
  });

  test('is not called for an edge that the access table refuses', async () => {
    const authorize = vi.fn(() => undefined);
    const scene = await Scene.open(workers, authorize);
    expect(await scene.dial(await ca.issue(site('site-z')))).toMatchObject({
      code: CloseCode.UnknownSite,
    });
    expect(authorize).not.toHaveBeenCalled();
  });

  test.each<[string, string, (scene: Scene) => unknown]>([
    [
      'a certificate that is revoked during the call',
      CloseCode.Revoked,
      (scene) => {
        scene.revoked.add(new X509Certificate(siteA.cert).serialNumber.toLowerCase());
        scene.pool.refreshAccess();
      },
    ],
    [
      'a site that is removed during the call',
      CloseCode.UnknownSite,
      (scene) => {
        scene.sites = [];
        scene.pool.refreshAccess();
      },
    ],
  ])('does not admit %s', async (_, code, change) => {
    const called = signal();
    const returned = signal();
    const scene = await Scene.open(workers, async () => {
      called.set();
      await returned.isSet;
      return undefined;
    });
    const outcome = scene.dial();
    await called.isSet;
    await change(scene);
    returned.set();
    expect(await outcome).toMatchObject({ by: 'peer', code });
    expect(scene.up).toEqual([]);
  });

  test('delays neither terminate nor close', async () => {
    const called = signal();
    const scene = await Scene.open(workers, () => {
      called.set();
      return new Promise(() => {});
    });
    const outcome = scene.dial();
    await called.isSet;
    scene.revoked.add(new X509Certificate(siteA.cert).serialNumber.toLowerCase());
    await scene.pool.terminate({ unwanted: true }, { code: CloseCode.Revoked, reason: 'a test' });
    expect(await outcome).toMatchObject({ by: 'network' });
    await vi.waitFor(() => expect(scene.refused).toEqual(['site-a revoked']));
    await scene.pool.close();
    expect(scene.up).toEqual([]);
  });
});

test('a pool without the option authorize admits an edge', async () => {
  const scene = await Scene.open(2);
  expect(await scene.dial()).toBe('up');
  await vi.waitFor(() => expect(scene.up).toEqual(['site-a']));
});

/** Returns a promise, and the function that resolves it. */
function signal(): { readonly isSet: Promise<void>; readonly set: () => void } {
  let set = (): void => {};
  const isSet = new Promise<void>((resolve) => {
    set = resolve;
  });
  return { isSet, set: () => set() };
}
