/**
 * How long an edge keeps a snapshot without contact with its cloud, by both clocks, in one process and across restarts.
 */
import { expect, test } from 'vitest';
import { ControlClient, type ControlClientOptions } from '../../src/control/index.ts';
import { SnapshotExpiredError } from '../../src/errors.ts';
import { type Json, MemoryStore } from '../../src/store/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { FakeChannel } from './link.ts';

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;
const START_MS = 1_700_000_000_000;

function snapshotOf(revision: number): Json {
  return {
    revision,
    site: 'site-a',
    sources: ['10.0.0.0/24'],
    pools: ['10.0.0.128/25'],
    zone: 'a.test',
    ttlSeconds: 30,
    hosts: [],
    pointers: [],
  };
}

/** An edge over its restarts: one store, and a clock for each process. */
class Edge {
  readonly store: MemoryStore;
  readonly channel: FakeChannel = new FakeChannel();
  readonly clock: FakeClock;
  readonly client: ControlClient;
  readonly expired: Error[] = [];

  private constructor(store: MemoryStore, clock: FakeClock, client: ControlClient) {
    this.store = store;
    this.clock = clock;
    this.client = client;
    client.attach(this.channel);
    client.on('expired', ({ error }) => this.expired.push(error));
  }

  static async start(
    store: MemoryStore = new MemoryStore(),
    wallMs: number = START_MS,
    options: Partial<ControlClientOptions> = {}
  ): Promise<Edge> {
    const clock = new FakeClock({ wallMs });
    const client = await ControlClient.open({
      site: 'site-a',
      store,
      clock,
      statusIntervalMs: DAY_MS,
      ...options,
    });
    return new Edge(store, clock, client);
  }

  /** The tunnel comes up, and the cloud sends a snapshot. */
  connect(revision: number): void {
    this.client.linkChanged(true);
    this.channel.receive({ type: 'snapshot', snapshot: snapshotOf(revision) });
  }

  get revision(): number | undefined {
    return this.client.snapshot?.revision;
  }

  /** The process ends, and the next one starts when the wall clock shows this. */
  async restart(wallMs: number, options: Partial<ControlClientOptions> = {}): Promise<Edge> {
    await this.client.close();
    return Edge.start(this.store, wallMs, options);
  }
}

test('a snapshot holds for seven days after the tunnel went down, and the next one is in force at once', async () => {
  const edge = await Edge.start();
  expect(edge.client.validUntil).toBeUndefined();
  edge.connect(7);
  edge.clock.advance(30 * DAY_MS);
  expect(edge.client.validUntil).toEqual(new Date(START_MS + 37 * DAY_MS));
  edge.client.linkChanged(false);
  edge.clock.advance(7 * DAY_MS - 1);
  expect([edge.revision, edge.expired]).toEqual([7, []]);
  edge.clock.advance(1);
  expect([edge.revision, edge.client.expiry?.snapshot.revision]).toEqual([undefined, 7]);
  expect(edge.client.validUntil).toEqual(new Date(edge.clock.wallMs()));
  const lastContact = new Date(START_MS + 30 * DAY_MS);
  expect(edge.expired).toEqual([new SnapshotExpiredError('site-a', lastContact, 7 * DAY_MS)]);
  expect(edge.client.expiry!.error).toMatchObject({
    code: 'ERR_PRESENCE_SNAPSHOT_EXPIRED',
    lastContact,
  });

  // It says so once, and the tunnel alone does not bring back what is as old as that.
  edge.clock.advance(DAY_MS);
  edge.client.linkChanged(true);
  expect([edge.revision, edge.expired.length]).toEqual([undefined, 1]);
  edge.connect(8);
  expect([edge.revision, edge.client.expiry]).toEqual([8, undefined]);
  edge.clock.advance(8 * DAY_MS);
  expect(edge.revision).toBe(8);
});

test('each message is a contact where nobody says whether the tunnel is up', async () => {
  const edge = await Edge.start();
  edge.channel.receive({ type: 'snapshot', snapshot: snapshotOf(7) });
  edge.clock.advance(6 * DAY_MS);
  edge.channel.receive({ type: 'trust', caPem: 'ca', renew: false });
  edge.clock.advance(6 * DAY_MS);
  expect(edge.revision).toBe(7);
  edge.clock.advance(DAY_MS);
  expect(edge.revision).toBeUndefined();
});

test('time without a process counts, and a longer option brings an expired snapshot back', async () => {
  let edge = await Edge.start();
  edge.connect(7);
  edge.clock.advance(DAY_MS);
  edge = await edge.restart(START_MS + 7 * DAY_MS);
  expect(edge.revision).toBe(7);
  expect(edge.client.validUntil).toEqual(new Date(START_MS + 8 * DAY_MS));
  edge.clock.advance(DAY_MS);
  expect([edge.revision, edge.expired.length]).toEqual([undefined, 1]);

  edge = await edge.restart(START_MS + 9 * DAY_MS);
  expect(edge.revision).toBeUndefined();
  expect(edge.client.expiry?.error.lastContact).toEqual(new Date(START_MS + DAY_MS));
  edge = await edge.restart(START_MS + 10 * DAY_MS, { snapshotValidMs: 14 * DAY_MS });
  expect(edge.revision).toBe(7);
  edge = await edge.restart(START_MS + 11 * DAY_MS, { snapshotValidMs: DAY_MS });
  expect(edge.revision).toBeUndefined();
});

test('a wall clock that is set back does not make a snapshot hold longer', async () => {
  const edge = await Edge.start();
  edge.connect(7);
  edge.client.linkChanged(false);
  edge.clock.advance(4 * DAY_MS);
  edge.clock.setWall(START_MS - 100 * DAY_MS);
  edge.clock.advance(3 * DAY_MS - 1);
  expect(edge.revision).toBe(7);
  edge.clock.advance(1);
  expect([edge.revision, edge.expired.length]).toEqual([undefined, 1]);
});

test('a wall clock that is set back after a restart does not take back the time without a process', async () => {
  let edge = await Edge.start();
  edge.connect(7);
  edge = await edge.restart(START_MS + 5 * DAY_MS);
  edge.clock.setWall(START_MS - 100 * DAY_MS);
  edge.clock.advance(2 * DAY_MS - 1);
  expect(edge.revision).toBe(7);
  edge.clock.advance(1);
  expect(edge.revision).toBeUndefined();
});

test('a wall clock that jumps beyond the end, as after a sleep of the machine, is noticed within a minute', async () => {
  const edge = await Edge.start();
  edge.connect(7);
  edge.clock.setWall(START_MS + 100 * DAY_MS);
  edge.clock.advance(HOUR_MS);
  // With the tunnel up it means nothing.
  expect(edge.revision).toBe(7);
  edge.client.linkChanged(false);
  edge.clock.advance(HOUR_MS);
  expect(edge.revision).toBe(7);
  edge.clock.setWall(START_MS + 107 * DAY_MS + HOUR_MS);
  edge.clock.advance(MINUTE_MS);
  expect([edge.revision, edge.expired.length]).toEqual([undefined, 1]);
});

test('a wall clock that begins at the same time in each process does not make a snapshot hold for ever', async () => {
  // The machine has no clock that goes on without power.
  let edge = await Edge.start();
  edge.connect(7);
  edge.client.linkChanged(false);
  for (const [days, revision] of [
    [3, 7],
    [6, 7],
    [9, undefined],
  ] as const) {
    edge.clock.advance(3 * DAY_MS);
    expect(edge.revision, `after ${days} days`).toBe(revision);
    edge = await edge.restart(0);
    expect(edge.revision, `after ${days} days and a restart`).toBe(revision);
  }
});

test('the contact is stored once an hour while the tunnel is up, and after a crash counts from there', async () => {
  const edge = await Edge.start();
  edge.connect(7);
  let commits = 0;
  edge.store.watch('', () => commits++);
  edge.clock.advance(10 * DAY_MS);
  edge.client.linkChanged(false);
  for (let i = 0; i < 100; i++) {
    edge.client.linkChanged(true);
    edge.client.linkChanged(false);
  }
  expect(commits).toBe(240);
  // The process has ended without `close`.
  const next = await Edge.start(edge.store, START_MS + 10 * DAY_MS + HOUR_MS);
  const validMs = next.client.validUntil!.getTime() - START_MS - 17 * DAY_MS;
  expect(validMs).toBeLessThanOrEqual(0);
  expect(validMs).toBeGreaterThan(-HOUR_MS - MINUTE_MS);
});

test.each<[string, Json]>([
  ['of an earlier version, which stores none', { revision: 6, lastContactMs: 0, awayMs: 0 }],
  ['that is damaged', { revision: 7, lastContactMs: 1e300, awayMs: 'long' }],
  ['that is no object', 5],
])('a snapshot holds from the start on beside a contact %s', async (_what, value) => {
  const store = new MemoryStore();
  await store.commit([
    { key: 'snapshot', value: snapshotOf(7) },
    { key: 'snapshot-contact', value },
  ]);
  let edge = await Edge.start(store);
  edge.clock.advance(7 * DAY_MS - 1);
  expect(edge.revision).toBe(7);
  // The start was stored, so that the next process continues to count.
  edge = await Edge.start(store, START_MS + 7 * DAY_MS);
  expect(edge.revision).toBeUndefined();
});

test('a contact that cannot be stored is a problem, and the snapshot stays in force', async () => {
  const edge = await Edge.start();
  edge.connect(7);
  await edge.store.close();
  const problems: Error[] = [];
  edge.client.on('problem', ({ error }) => problems.push(error));
  edge.clock.advance(HOUR_MS);
  await new Promise(setImmediate);
  expect(problems.map(({ message }) => message)).toEqual(['the store is closed']);
  expect(edge.revision).toBe(7);
});
