/**
 * The settings that a pool makes on its machine when one of its processes is restarted, and the checks of its options.
 * Mocks replace the processes and the machine; the tests check the order of the calls.
 */
import { beforeEach, expect, test, vi } from 'vitest';
import { WorkerPool, type WorkerPoolOptions } from '../../src/worker/index.ts';

const { calls, restarts, steps } = vi.hoisted(() => ({
  calls: [] as string[],
  restarts: [] as (() => void)[],
  /** The promises that calls of `configureTun` wait for. */
  steps: [] as Promise<void>[],
}));

vi.mock('../../src/worker/worker-process.ts', () => ({
  WorkerProcess: class {
    constructor({ onRestart }: { onRestart: () => void }) {
      restarts.push(onRestart);
    }
    async open() {
      return { tunnel: { host: '127.0.0.1', port: 1 } };
    }
    load() {}
    apply() {}
    updateAccess() {}
    async close() {
      calls.push('worker closed');
    }
  },
}));

vi.mock('../../src/device/index.ts', async (original) => ({
  ...(await original<typeof import('../../src/device/index.ts')>()),
  forgetRoutes: async () => {},
  changeRoutes: async () => {},
  configureTun: async () => {
    calls.push('configure');
    await steps.shift();
    calls.push('configured');
    return { problems: [], close: async () => void calls.push('undone') };
  },
}));

beforeEach(() => {
  for (const list of [calls, restarts, steps]) list.length = 0;
});

const TUN = { name: 'vp0', routes: ['10.0.0.128/25'], lan: ['lan'] };
const OPTIONS: WorkerPoolOptions = {
  workers: 2,
  device: TUN,
  tunnel: { host: '127.0.0.1', port: 0 },
  credentials: () => ({ key: '', cert: '', ca: '' }),
  access: () => ({
    sites: [],
    revocations: { sites: new Set(), serials: new Set(), spkis: new Set() },
    retired: [],
  }),
  admit: async () => {},
};

const A_HOST = '10.0.0.1';

async function openPool(): Promise<WorkerPool> {
  const pool = new WorkerPool(OPTIONS);
  await pool.open();
  return pool;
}

test('removes the settings of a restart that is in progress when the pool closes', async () => {
  const pool = await openPool();
  let finish = () => {};
  steps.push(new Promise((resolve) => (finish = resolve)));
  restarts[1]!();
  await vi.waitFor(() => expect(calls).toEqual(['configure', 'configured', 'configure']));
  const closing = pool.close();
  // By now every step of closing that waits for nothing else is done.
  await new Promise((resolve) => setImmediate(resolve));
  finish();
  await closing;
  await new Promise((resolve) => setImmediate(resolve));
  expect(calls.indexOf('undone')).toBe(calls.length - 1);
});

test('makes no settings for a restart after close was called', async () => {
  const pool = await openPool();
  const closing = pool.close();
  restarts[0]!();
  await closing;
  await new Promise((resolve) => setImmediate(resolve));
  expect(calls).toEqual(['configure', 'configured', 'worker closed', 'worker closed', 'undone']);
});

test('closes once, however often close is called', async () => {
  const pool = await openPool();
  const closing = pool.close();
  expect(pool.close()).toBe(closing);
  await Promise.all([closing, pool[Symbol.asyncDispose]()]);
  expect(calls.filter((call) => call === 'worker closed')).toHaveLength(2);
});

test('leaves nothing open when open rejects', async () => {
  steps.push(Promise.reject(new Error('no such interface')));
  const pool = new WorkerPool(OPTIONS);
  await expect(pool.open()).rejects.toThrow('no such interface');
  expect(calls).toEqual(['configure', 'worker closed', 'worker closed']);
});

test('refuses to move a site to a worker that does not exist', async () => {
  const pool = await openPool();
  await expect(pool.move('site-a', 2)).rejects.toThrow('worker: there are 2, numbered from 0');
  await pool.close();
});

test.each<[what: Partial<Record<keyof WorkerPoolOptions, unknown>>, says: string]>([
  [{ workers: 0 }, 'workers: expected a whole number from 1 to 64, or auto, got 0'],
  [{ workers: 65 }, 'workers: expected a whole number from 1 to 64, or auto, got 65'],
  [{ workers: 1.5 }, 'workers: expected a whole number from 1 to 64, or auto, got 1.5'],
  [{ workers: 'many' }, 'workers: expected a whole number from 1 to 64, or auto, got "many"'],
  [{ device: async () => {} }, 'workers: 2 need a device of type tun, one for each'],
  [
    { tunnel: { host: '127.0.0.1', port: 65_535 } },
    'tunnel: 2 workers need as many ports, up to 65536',
  ],
  [{ tunnel: { host: '127.0.0.1', port: -1 } }, 'tunnel: expected a port from 0 to 65535, got -1'],
  [
    { tunnel: '127.0.0.1' },
    'tunnel: expected a host and port such as 192.0.2.1:7443, got "127.0.0.1"',
  ],
  [{ tunnel: undefined }, 'tunnel: is missing, expected a string'],
  [
    { device: 'vp0' },
    'device: expected a TUN with a name, or a function that opens a device, got "vp0"',
  ],
  [
    { device: { name: 'vp0', routes: A_HOST } },
    'device.routes: expected a list of prefixes, got "10.0.0.1"',
  ],
  [{ credentials: {} }, 'credentials: expected a function, got {}'],
  [{ access: undefined }, 'access: expected a function, got undefined'],
  [{ admit: 1 }, 'admit: expected a function, got 1'],
  [{ authorize: 'all' }, 'authorize: expected a function, got "all"'],
  [{ logger: {} }, 'logger: has no method debug'],
  [{ clock: null }, 'clock: has no method wallMs'],
  [{ limits: 5 }, 'limits: expected limits by name, got 5'],
  [
    { limits: { maxHandshakes: 0.5 } },
    'limits.maxHandshakes: expected a positive whole number, got 0.5',
  ],
  [{ limits: { maxTunnelRate: '2' } }, 'limits.maxTunnelRate: expected a number above 0, got "2"'],
  [{ workerMain: '/no/such/file.js' }, 'workerMain: there is no file /no/such/file.js'],
])('refuses %j', (change, says) => {
  const options = { ...OPTIONS, ...change } as WorkerPoolOptions;
  let fault: unknown;
  try {
    new WorkerPool(options);
  } catch (error) {
    fault = error;
  }
  expect(fault).toMatchObject({ code: 'ERR_PRESENCE_CONFIG', message: says });
});

test.each([undefined, null, 7])('refuses %j instead of options', (options) => {
  expect(() => new WorkerPool(options as never)).toThrow('expected the options of a worker pool');
});

test('accepts the tunnel endpoint as text', () => {
  const pool = new WorkerPool({ ...OPTIONS, tunnel: '192.0.2.1:7443' });
  expect([pool.portOf(0), pool.portOf(1)]).toEqual([7443, 7444]);
});
