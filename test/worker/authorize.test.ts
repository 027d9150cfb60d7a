/**
 * A pool whose host decides about every edge: one worker in this process, and two in processes of their own. The
 * tunnels are real; the devices are in memory, and the machine's own settings are left out.
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
  /** What came up, in order. */
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

  /** Resolves with `up`, or with why the edge has to wait. */
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

const NO: TunnelRefusal = { code: 'device-unhealthy', reason: 'its disk is not encrypted' };

describe.each([1, 2])('the host of a pool of %d', (workers) => {
  test('is asked about the edge, by its certificate, and lets it in', async () => {
    const asked: Parameters<Authorize>[0][] = [];
    const scene = await Scene.open(workers, async (peer) => {
      asked.push(peer);
      return undefined;
    });
    expect(await scene.dial()).toBe('up');
    expect(asked).toEqual([
      { site: 'site-a', remoteAddress: HOST, certificate: expect.any(X509Certificate) },
    ]);
    const { serialNumber } = new X509Certificate(siteA.cert);
    expect(asked[0]!.certificate.serialNumber).toBe(serialNumber);
  });

  test.each<[string, Authorize]>([
    ['at once', () => NO],
    ['by a promise', async () => NO],
  ])('refuses the edge %s, which hears why', async (_, authorize) => {
    const scene = await Scene.open(workers, authorize);
    expect(await scene.dial()).toMatchObject({ by: 'peer', ...NO });
    await vi.waitFor(() => expect(scene.refused).toEqual(['site-a device-unhealthy']));
    expect([scene.up, scene.log]).toEqual([[], []]);
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
    ['answers null', async () => null, /, not null$/],
  ])('that %s lets nobody in, and the log says so', async (_, authorize, says) => {
    const scene = await Scene.open(workers, () => authorize() as Answer);
    expect(await scene.dial()).toMatchObject({ by: 'peer', code: CloseCode.NotAuthorized });
    await vi.waitFor(() => expect(scene.log).toHaveLength(1));
    expect(scene.log[0]).toMatch(/^site-a: authorize: /);
    expect(scene.log[0]).toMatch(says);
    expect(scene.up).toEqual([]);
  });

  test('is not asked about an edge that may not come up anyway', async () => {
    const authorize = vi.fn(() => undefined);
    const scene = await Scene.open(workers, authorize);
    expect(await scene.dial(await ca.issue(site('site-z')))).toMatchObject({
      code: CloseCode.UnknownSite,
    });
    expect(authorize).not.toHaveBeenCalled();
  });

  test.each<[string, string, (scene: Scene) => unknown]>([
    [
      'a certificate that was revoked meanwhile',
      CloseCode.Revoked,
      (scene) => {
        scene.revoked.add(new X509Certificate(siteA.cert).serialNumber.toLowerCase());
        scene.pool.refreshAccess();
      },
    ],
    [
      'a site that was removed meanwhile',
      CloseCode.UnknownSite,
      (scene) => {
        scene.sites = [];
        scene.pool.refreshAccess();
      },
    ],
  ])('does not let %s in', async (_, code, change) => {
    const asked = signal();
    const answered = signal();
    const scene = await Scene.open(workers, async () => {
      asked.tell();
      await answered.told;
      return undefined;
    });
    const outcome = scene.dial();
    await asked.told;
    await change(scene);
    answered.tell();
    expect(await outcome).toMatchObject({ by: 'peer', code });
    expect(scene.up).toEqual([]);
  });

  test('keeps nobody from ending what is unwanted, nor from closing the pool', async () => {
    const asked = signal();
    const scene = await Scene.open(workers, () => {
      asked.tell();
      return new Promise(() => {});
    });
    const outcome = scene.dial();
    await asked.told;
    scene.revoked.add(new X509Certificate(siteA.cert).serialNumber.toLowerCase());
    await scene.pool.terminate({ unwanted: true }, { code: CloseCode.Revoked, reason: 'a test' });
    expect(await outcome).toMatchObject({ by: 'network' });
    await vi.waitFor(() => expect(scene.refused).toEqual(['site-a revoked']));
    await scene.pool.close();
    expect(scene.up).toEqual([]);
  });
});

test('a host that decides about nobody is not asked', async () => {
  const scene = await Scene.open(2);
  expect(await scene.dial()).toBe('up');
  await vi.waitFor(() => expect(scene.up).toEqual(['site-a']));
});

/** Something that is told once. */
function signal(): { readonly told: Promise<void>; readonly tell: () => void } {
  let tell = (): void => {};
  const told = new Promise<void>((resolve) => {
    tell = resolve;
  });
  return { told, tell: () => tell() };
}
