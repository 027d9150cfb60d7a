/**
 * What a pool does while a worker's process is down, and when it is restarted. No process is started: a worker is the
 * other end of a channel.
 */
import type { ChildProcess } from 'node:child_process';
import { EventEmitter } from 'node:events';
import { afterEach, expect, test, vi } from 'vitest';
import { IpAddress } from '../../src/base/address.ts';
import { Endpoint } from '../../src/base/endpoint.ts';
import { PortRange } from '../../src/base/port-range.ts';
import { EnvironmentError } from '../../src/errors.ts';
import { type PresenceUse, VERSION } from '../../src/index.ts';
import type { PlanChangesInput } from '../../src/translator/index.ts';
import { CloseCode } from '../../src/tunnel/index.ts';
import { type AccessChange, type WorkerOptions, WorkerPool } from '../../src/worker/index.ts';
import { Rpc, type RpcPort } from '../../src/worker/rpc.ts';
import { HOST_NOTIFICATIONS, type WorkerHost } from '../../src/worker/worker.ts';
import { FakeClock } from '../support/fake-clock.ts';

const HOST = '127.0.0.1';

/** A process that does not listen, but reports that it does. */
class FakeWorker extends EventEmitter {
  connected = true;
  exitCode: number | null = null;
  killed = false;
  hangs = false;
  readonly signalCode: string | null = null;
  number: number | undefined;
  readonly changes: PlanChangesInput[] = [];
  /** Where it knows the others to listen. */
  ports: ReadonlyMap<number, number> = new Map();
  uses: PresenceUse[] = [];
  readonly #far = new EventEmitter();

  constructor() {
    super();
    const port: RpcPort = {
      send: (message) => setImmediate(() => this.emit('message', message)) !== undefined,
      on: (event, listener) => this.#far.on(event, listener),
    };
    const calls = {
      version: () => VERSION,
      open: ({ number, tunnel: { port: wanted } }: WorkerOptions) => {
        this.number = number;
        if (taken.has(wanted)) {
          throw new EnvironmentError(`cannot listen on ${HOST}:${wanted}: it is in use`);
        }
        return { tunnel: { host: HOST, port: wanted === 0 ? nextPort++ : wanted } };
      },
      load: () => {},
      apply: (changes: PlanChangesInput) => void this.changes.push(changes),
      updateAccess: ({ ports = this.ports }: AccessChange) => {
        this.ports = ports;
      },
      setCredentials: () => {},
      presenceUses: () => this.uses.splice(0),
      settled: () => this.#unlessHanging(undefined),
      paths: () => this.#unlessHanging([]),
      explain: () => this.#unlessHanging({ step: 'destination' }),
      terminate: () => this.#unlessHanging({ tunnelsClosed: 1, pathsRemoved: 2 }),
      close: () => {},
    };
    new Rpc<WorkerHost>(port, HOST_NOTIFICATIONS).serve(calls);
  }

  #unlessHanging<T>(answer: T): T | Promise<never> {
    return this.hangs ? new Promise(() => {}) : answer;
  }

  kill(): void {
    this.killed = true;
    this.end();
  }

  send(message: unknown): boolean {
    return setImmediate(() => this.#far.emit('message', message)) !== undefined;
  }

  disconnect(): void {
    if (!this.connected) return;
    this.connected = false;
    this.end();
  }

  end(): void {
    this.exitCode = 1;
    setImmediate(() => this.emit('exit', 1, null));
  }
}

/** Ports that other programs use. */
const taken = new Set<number>();
let nextPort = 40_000;
/** The workers in the order of their start. */
const started: FakeWorker[] = [];
let pool: WorkerPool | undefined;

vi.mock('node:child_process', async (original) => ({
  ...(await original<typeof import('node:child_process')>()),
  fork: () => {
    const worker = new FakeWorker();
    started.push(worker);
    return worker as unknown as ChildProcess;
  },
}));

afterEach(async () => {
  await pool?.close();
  taken.clear();
  started.length = 0;
});

vi.mock('../../src/device/index.ts', async (original) => ({
  ...(await original<typeof import('../../src/device/index.ts')>()),
  forgetRoutes: async () => {},
  changeRoutes: async () => {},
  configureTun: async () => ({ problems: [], close: async () => {} }),
}));

async function open(clock?: FakeClock): Promise<WorkerPool> {
  pool = new WorkerPool({
    workers: 2,
    ...(clock && { clock }),
    device: { name: 'vp0' },
    tunnel: { host: HOST, port: 0 },
    credentials: () => ({}) as never,
    access: () => ({
      sites: [],
      revocations: { sites: new Set(), serials: new Set(), spkis: new Set() },
      retired: [],
    }),
    admit: async () => {},
  });
  await pool.open();
  return pool;
}

/** The ports where the workers listen. */
const portsOf = (opened: WorkerPool): unknown[] => [0, 1].map((number) => opened.portOf(number));

const workerOf = (number: number): FakeWorker =>
  started.findLast((worker) => worker.number === number)!;

test('a change of the plan reaches the process that holds the site, as text', async () => {
  const opened = await open();
  const lan = { sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'] };
  const realms = ['cloud', 'site-a', 'site-b'].map((name) => ({ name, ...lan }));
  opened.load({ realms, presences: [], permits: [] });
  const of = new Endpoint('cloud', IpAddress.parse('10.0.0.5'));
  const presence = { realm: 'site-b', address: IpAddress.parse('10.0.0.129') };
  const permit = { realm: 'site-b', service: of, ports: [PortRange.parse('tcp/80')] };
  opened.apply({
    presences: [{ ...presence, of }],
    permits: [{ realm: 'site-b', service: of, permits: [permit] }],
  });
  opened.apply({ presences: [{ ...presence, of: undefined }] });
  const holder = workerOf(opened.holderOf('site-b'));
  await vi.waitFor(() => expect(holder.changes).toHaveLength(2), 20_000);
  const service = { realm: 'cloud', address: '10.0.0.5' };
  expect(holder.changes).toEqual([
    {
      realms: [],
      presences: [{ realm: 'site-b', address: '10.0.0.129', of: service }],
      permits: [
        { realm: 'site-b', service, permits: [{ realm: 'site-b', service, ports: ['tcp/80'] }] },
      ],
    },
    { realms: [], presences: [{ realm: 'site-b', address: '10.0.0.129' }], permits: [] },
  ]);
  const other = workerOf(1 - opened.holderOf('site-b'));
  expect(other.changes).toEqual([]);
});

test('a restarted process listens on its previous port', async () => {
  const opened = await open();
  const ports = portsOf(opened);
  workerOf(1).end();
  await vi.waitFor(() => expect(started).toHaveLength(3), 20_000);
  await vi.waitFor(() => expect(workerOf(1)).toBe(started[2]), 20_000);
  expect(portsOf(opened)).toEqual(ports);
});

test('the pool reports that a process has ended, and that it was restarted', async () => {
  const opened = await open();
  const reports: unknown[] = [];
  opened.on('workers', (workers) => reports.push({ ...workers, now: opened.running }));
  expect(opened.running).toBe(2);
  workerOf(1).end();
  await vi.waitFor(() => expect(reports).toHaveLength(2), 20_000);
  expect(reports).toEqual([
    { running: 1, total: 2, now: 1 },
    { running: 2, total: 2, now: 2 },
  ]);
  await opened.close();
  // Processes that end because the pool is closed are not reported.
  expect(reports).toHaveLength(2);
});

test('a restarted process whose port is in use takes a free one, which the other workers receive', async () => {
  const opened = await open();
  const before = opened.portOf(1)!;
  taken.add(before);
  workerOf(1).end();
  await vi.waitFor(() => {
    const known = workerOf(0).ports.get(1);
    expect(known).toBeGreaterThan(0);
    expect(known).not.toBe(before);
    expect(opened.portOf(1)).toBe(known);
    expect(opened.addresses[1]!.tunnel.port).toBe(known);
  }, 20_000);
});

test('presenceUses rejects while a process is down, and loses no use', async () => {
  const opened = await open();
  const use = { realm: 'cloud', address: '10.0.0.129' };
  workerOf(0).uses.push(use);
  taken.add(opened.portOf(1)!);
  workerOf(1).end();
  await vi.waitFor(async () => {
    await expect(opened.presenceUses()).rejects.toThrow(/process 1/);
  }, 20_000);
  await vi.waitFor(async () => expect(await opened.presenceUses()).toEqual([use]), 20_000);
  expect(await opened.presenceUses()).toEqual([]);
});

test.each([
  ['before a worker is restarted', 2],
  ['while a worker is being restarted', 3],
])('closing %s leaves no process behind', async (_, processes) => {
  const opened = await open();
  workerOf(1).end();
  await vi.waitFor(() => expect(started.length).toBeGreaterThanOrEqual(processes), 20_000);
  await opened.close();
  const all = started.length;
  expect(started.map(({ exitCode }) => exitCode)).toEqual(Array(all).fill(1));
  await new Promise((resolve) => setImmediate(resolve));
  expect(started).toHaveLength(all);
});

test('open rejects with the message and the code of a worker that cannot be opened', async () => {
  // Both workers request a free port first; port 0 stands for no other port here.
  taken.add(0);
  const fault = await open().catch((error) => error);
  expect(fault).toMatchObject({
    code: 'ERR_PRESENCE_ENVIRONMENT',
    message: `cannot listen on ${HOST}:0: it is in use`,
  });
  expect(started.map(({ exitCode }) => exitCode)).toEqual([1, 1]);
});

test('a worker that hangs is left out, and killed when packets have to stop', async () => {
  const clock = new FakeClock();
  const opened = await open(clock);
  const [other, hanging] = started as [FakeWorker, FakeWorker];
  hanging.hangs = true;
  const settled = Promise.all([opened.settled(), opened.paths()]);
  const explained = expect(opened.explain(new Uint8Array(20), 'cloud')).rejects.toThrow(
    'a worker does not answer'
  );
  await vi.waitFor(() => expect(clock.delays).toEqual([2000, 5000, 5000, 5000]));
  clock.advance(5000);
  expect(await settled).toEqual([undefined, []]);
  await explained;
  // It is known to hang, so that nobody waits again.
  await opened.settled();
  expect(hanging.killed).toBe(false);

  const close = { code: CloseCode.Revoked, reason: 'a test' };
  const terminated = opened.terminate({ unwanted: true }, close);
  clock.advance(0);
  // The receipt counts what has answered; the tunnels of the other process have ended with it.
  expect(await terminated).toEqual({ tunnelsClosed: 1, pathsRemoved: 2 });
  expect([other.killed, hanging.killed]).toEqual([false, true]);
  await vi.waitFor(() => expect(started).toHaveLength(3), 20_000);
  await vi.waitFor(() => expect(opened.running).toBe(2), 20_000);
  await opened.settled();
});

test('a worker that begins to hang has 5000 ms to end tunnels', async () => {
  const clock = new FakeClock();
  const opened = await open(clock);
  const [, hanging] = started as [FakeWorker, FakeWorker];
  hanging.hangs = true;
  const terminated = opened.terminate({ site: 'site-a' }, { code: CloseCode.Revoked, reason: '' });
  await vi.waitFor(() => expect(clock.delays).toEqual([2000, 5000]));
  clock.advance(4999);
  expect(hanging.killed).toBe(false);
  clock.advance(1);
  expect(hanging.killed).toBe(true);
  expect(await terminated).toMatchObject({ tunnelsClosed: 1 });
});

test('a worker that does not answer five checks is killed, and started again', async () => {
  const clock = new FakeClock();
  const opened = await open(clock);
  const [other, hanging] = started as [FakeWorker, FakeWorker];
  /** A call and its answer take a turn of the event loop each. */
  const answered = async (): Promise<void> => {
    for (let turn = 0; turn < 4; turn++) await new Promise((resolve) => setImmediate(resolve));
  };
  clock.advance(2000);
  await answered();
  hanging.hangs = true;
  // The check that asks, and four that find no answer.
  for (let check = 0; check < 5; check++) {
    clock.advance(2000);
    await answered();
  }
  expect([hanging.killed, opened.diagnosis.killed]).toEqual([false, 0]);
  clock.advance(2000);
  expect([other.killed, hanging.killed, opened.diagnosis.killed]).toEqual([false, true, 1]);
  await vi.waitFor(() => expect(started).toHaveLength(3), 20_000);
  await vi.waitFor(() => expect(opened.running).toBe(2), 20_000);
});
