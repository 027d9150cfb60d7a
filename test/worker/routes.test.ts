/**
 * What a pool tells its machine when the prefixes that lead to its TUNs change. The machine and the processes are
 * stand-ins: what counts is what they are told, and in which order.
 */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { MemoryDevice } from '../../src/device/index.ts';
import { ConfigError, EnvironmentError } from '../../src/errors.ts';
import { type LogFields, silentLogger } from '../../src/observe/index.ts';
import { WorkerPool, type WorkerPoolOptions } from '../../src/worker/index.ts';

const { calls, machine, restarts } = vi.hoisted(() => ({
  calls: [] as string[],
  machine: { fault: undefined as Error | undefined, gate: Promise.resolve() as Promise<unknown> },
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
    bind() {}
    setAccess() {}
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
    setAccess() {}
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
    await machine.gate;
    calls.push(`open with ${routes}`);
    return {
      setRoutes: async (prefixes: readonly string[]) => told(`device: ${prefixes}`),
      close: async () => void calls.push('device closed'),
    };
  },
  configureTun: async ({ unreachable }: { unreachable: readonly string[] }) => {
    await machine.gate;
    calls.push(`configure ${unreachable}`);
    return {
      problems: [],
      setRoutes: async (to: { routes: readonly string[]; unreachable: readonly string[] }) =>
        told(`setup: ${to.routes} ${to.unreachable}`),
      close: async () => void calls.push('undone'),
    };
  },
}));

/** The machine is told something, and says what it lacks. */
function told(what: string): string[] {
  if (machine.fault !== undefined) throw machine.fault;
  calls.push(what);
  return ['there is no nft'];
}

const [A, B, C] = ['10.0.0.128/25', '10.1.0.0/24', 'fd00::/64'];
const log: string[] = [];
let pool: WorkerPool | undefined;

beforeEach(() => {
  for (const list of [calls, restarts, log]) list.length = 0;
  machine.fault = undefined;
  machine.gate = Promise.resolve();
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

test('one worker: its device is told, and says what the machine lacks', async () => {
  const one = newPool({});
  await one.open();
  await one.setRoutes([A!, B!]);
  await one.setRoutes([]);
  await one.close();
  expect(calls).toEqual([`open with ${A}`, `device: ${A},${B}`, 'device: ', 'device closed']);
  expect(log).toEqual(['device: there is no nft', 'device: there is no nft']);
});

test('several workers: the setup of all is told, and closing leaves nothing of any prefix', async () => {
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

test('a worker that is back finds the last prefixes', async () => {
  const two = newPool({ workers: 2 });
  await two.open();
  await two.setRoutes([B!]);
  const told = new Promise((resolve) => two.once('workers', resolve));
  restarts[1]!({ tunnel: { host: '127.0.0.1', port: 1 } });
  expect(await told).toEqual({ running: 2, total: 2 });
  expect(calls.at(-1)).toBe(`configure ${B}`);
});

test.each([1, 2])(
  '%d: what is asked for before or while it opens is what it has then',
  async (workers) => {
    let go = (): void => {};
    machine.gate = new Promise<void>((resolve) => {
      go = resolve;
    });
    const early = newPool({ workers });
    await early.setRoutes([B!]);
    const opening = early.open();
    // The machine is being asked.
    await new Promise(setImmediate);
    const later = early.setRoutes([C!]);
    go();
    await Promise.all([opening, later]);
    const last = calls.at(-1);
    expect(last).toBe(workers === 1 ? `device: ${C}` : `setup:  ${C}`);
    expect(calls.filter((call) => call.includes(A!))).toEqual([]);
  }
);

test.each([1, 2])('%d: a machine that refuses has the prefixes of before', async (workers) => {
  const some = newPool({ workers });
  await some.open();
  machine.fault = new EnvironmentError('ip refuses');
  await expect(some.setRoutes([B!])).rejects.toThrow('ip refuses');
  machine.fault = undefined;
  await some.setRoutes([C!]);
  expect(calls.filter((call) => call.includes(B!))).toEqual([]);
});

test('a pool that is closed sets nothing any more', async () => {
  const two = newPool({ workers: 2 });
  await two.open();
  const closing = two.close();
  await expect(two.setRoutes([B!])).rejects.toThrow(EnvironmentError);
  await closing;
  expect(calls.filter((call) => call.includes(B!))).toEqual([]);
});

test('a device that is no TUN has no routes', async () => {
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
