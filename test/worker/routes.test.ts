/**
 * The settings that a pool makes on its machine when the prefixes of its TUNs change. Mocks replace the machine and the
 * processes; the tests check the calls and their order.
 */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { MemoryDevice } from '../../src/device/index.ts';
import { ConfigError, EnvironmentError } from '../../src/errors.ts';
import { type LogFields, silentLogger } from '../../src/observe/index.ts';
import { WorkerPool, type WorkerPoolOptions } from '../../src/worker/index.ts';

const { calls, machine, restarts } = vi.hoisted(() => ({
  calls: [] as string[],
  machine: {
    fault: undefined as Error | undefined,
    /** Opening a TUN waits for this. */
    isReady: Promise.resolve() as Promise<unknown>,
  },
  restarts: [] as ((addresses: object) => void)[],
}));

vi.mock('../../src/worker/worker-process.ts', () => ({
  WorkerProcess: class {
    constructor({ onRestart }: { onRestart: (addresses: object) => void }) {
      restarts.push(onRestart);
    }
    async open() {
      return { tunnel: { host: '127.0.0.1', port: 1 } };
    }
    load() {}
    apply() {}
    updateAccess() {}
    async close() {}
  },
}));

vi.mock('../../src/worker/local-worker.ts', () => ({
  LocalWorker: class {
    readonly #openDevice: () => Promise<{ close(): Promise<void> }>;
    #device: { close(): Promise<void> } | undefined;
    constructor(_host: unknown, openDevice: () => Promise<{ close(): Promise<void> }>) {
      this.#openDevice = openDevice;
    }
    async open() {
      this.#device = await this.#openDevice();
      return { tunnel: { host: '127.0.0.1', port: 1 } };
    }
    updateAccess() {}
    setCredentials() {}
    async close() {
      await this.#device?.close();
    }
  },
}));

vi.mock('../../src/device/index.ts', async (original) => ({
  ...(await original<typeof import('../../src/device/index.ts')>()),
  forgetRoutes: async (prefix: string) => void calls.push(`forget ${prefix}`),
  changeRoutes: async () => {},
  openTun: async ({ routes = [] }: { routes?: readonly string[] }) => {
    await machine.isReady;
    calls.push(`open with ${routes}`);
    return {
      setRoutes: async (prefixes: readonly string[]) => apply(`device: ${prefixes}`),
      close: async () => void calls.push('device closed'),
    };
  },
  configureTun: async ({ unreachable }: { unreachable: readonly string[] }) => {
    await machine.isReady;
    calls.push(`configure ${unreachable}`);
    return {
      problems: [],
      setRoutes: async (to: { routes: readonly string[]; unreachable: readonly string[] }) =>
        apply(`setup: ${to.routes} ${to.unreachable}`),
      close: async () => void calls.push('undone'),
    };
  },
}));

/** Records a setting, and returns what is missing on the machine. */
function apply(setting: string): string[] {
  if (machine.fault !== undefined) throw machine.fault;
  calls.push(setting);
  return ['there is no nft'];
}

const [A, B, C] = ['10.0.0.128/25', '10.1.0.0/24', 'fd00::/64'];
const log: string[] = [];
let pool: WorkerPool | undefined;

beforeEach(() => {
  for (const list of [calls, restarts, log]) list.length = 0;
  machine.fault = undefined;
  machine.isReady = Promise.resolve();
});
afterEach(() => pool?.close());

function newPool(options: Partial<WorkerPoolOptions>): WorkerPool {
  pool = new WorkerPool({
    device: { name: 'vp0', routes: [A!] },
    tunnel: '127.0.0.1:0',
    credentials: () => ({ key: '', cert: '', ca: '' }),
    access: () => ({
      sites: [],
      revocations: { sites: new Set(), serials: new Set(), spkis: new Set() },
      retired: [],
    }),
    admit: async () => {},
    logger: { ...silentLogger, warn: (_: LogFields, line: string) => void log.push(line) },
    ...options,
  });
  return pool;
}

test('one worker: sets the routes of its device, and logs what is missing on the machine', async () => {
  const one = newPool({});
  await one.open();
  await one.setRoutes([A!, B!]);
  await one.setRoutes([]);
  await one.close();
  expect(calls).toEqual([`open with ${A}`, `device: ${A},${B}`, 'device: ', 'device closed']);
  expect(log).toEqual(['device: there is no nft', 'device: there is no nft']);
});

test('several workers: sets the routes of all TUNs, and close removes every prefix', async () => {
  const two = newPool({ workers: 2 });
  await two.open();
  await two.setRoutes([B!]);
  await two.close();
  expect(calls).toEqual([
    `forget ${A}`,
    `configure ${A}`,
    `setup:  ${B}`,
    'undone',
    `forget ${A}`,
    `forget ${B}`,
  ]);
});

test('a restarted worker has the last prefixes', async () => {
  const two = newPool({ workers: 2 });
  await two.open();
  await two.setRoutes([B!]);
  const restarted = new Promise((resolve) => two.once('workers', resolve));
  restarts[1]!({ tunnel: { host: '127.0.0.1', port: 1 } });
  expect(await restarted).toEqual({ running: 2, total: 2 });
  expect(calls.at(-1)).toBe(`configure ${B}`);
});

test.each([1, 2])(
  '%d workers: prefixes that are set before or during open are in force after it',
  async (workers) => {
    let go = (): void => {};
    machine.isReady = new Promise<void>((resolve) => {
      go = resolve;
    });
    const early = newPool({ workers });
    await early.setRoutes([B!]);
    const opening = early.open();
    // Opening has reached the machine.
    await new Promise(setImmediate);
    const later = early.setRoutes([C!]);
    go();
    await Promise.all([opening, later]);
    const last = calls.at(-1);
    expect(last).toBe(workers === 1 ? `device: ${C}` : `setup:  ${C}`);
    expect(calls.filter((call) => call.includes(A!))).toEqual([]);
  }
);

test.each([1, 2])(
  '%d workers: previous prefixes stay when the machine refuses',
  async (workers) => {
    const some = newPool({ workers });
    await some.open();
    machine.fault = new EnvironmentError('ip refuses');
    await expect(some.setRoutes([B!])).rejects.toThrow('ip refuses');
    machine.fault = undefined;
    await some.setRoutes([C!]);
    expect(calls.filter((call) => call.includes(B!))).toEqual([]);
  }
);

test('a closed pool changes no routes', async () => {
  const two = newPool({ workers: 2 });
  await two.open();
  const closing = two.close();
  await expect(two.setRoutes([B!])).rejects.toThrow(EnvironmentError);
  await closing;
  expect(calls.filter((call) => call.includes(B!))).toEqual([]);
});

test('setRoutes does nothing if the device is not a TUN', async () => {
  const [memory] = MemoryDevice.pair();
  const one = newPool({ device: async () => memory });
  await one.open();
  await one.setRoutes([B!]);
  expect(calls).toEqual([]);
});

test.each<[unknown, string]>([
  ['10.0.0.0/8', 'routes: expected a list of prefixes, got "10.0.0.0/8"'],
  [undefined, 'routes: expected a list of prefixes, got undefined'],
  [[A, 7], 'routes[1]: expected a string, got 7'],
  [['10.0.0.1/8'], 'routes[0]: '],
])('refuses the prefixes %j', async (prefixes, says) => {
  const fault: unknown = await newPool({})
    .setRoutes(prefixes as never)
    .catch((error) => error);
  expect(fault).toBeInstanceOf(ConfigError);
  expect((fault as Error).message.startsWith(says)).toBe(true);
});
