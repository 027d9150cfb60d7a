/**
 * A store that is restored from a backup while machines run: what they knew is there again before anything is allocated,
 * claimed or written.
 */
import { beforeEach, describe, expect, test } from 'vitest';
import { Member, type MemberOptions, type RecallWait } from '../../src/cluster/index.ts';
import type { Entry, Json } from '../../src/store/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { DNS_TTL_MS, MAX_DETACHED_MS, TTL_MS } from './cloud.ts';
import { Backups, RestorableHandle } from './restorable-store.ts';

interface Machine {
  readonly store: RestorableHandle;
  readonly member: Member;
  readonly waits: RecallWait[];
  stops: number;
}

let clock: FakeClock;
let backups: Backups;

beforeEach(() => {
  clock = new FakeClock();
  backups = new Backups(clock);
});

async function settle(): Promise<void> {
  for (let turn = 0; turn < 40; turn++) await new Promise((resolve) => setImmediate(resolve));
}

async function pass(ms: number): Promise<void> {
  for (let leftMs = ms; leftMs > 0; leftMs -= STEP_MS) {
    clock.advance(Math.min(leftMs, STEP_MS));
    await settle();
  }
}

/** Starts to join; `machine` is there when that has ended. */
async function begin(
  name: string,
  options: Partial<MemberOptions> = {}
): Promise<{ readonly waits: RecallWait[]; machine?: Machine; error?: Error }> {
  const store = await RestorableHandle.open(backups);
  const waits: RecallWait[] = [];
  const joining: { readonly waits: RecallWait[]; machine?: Machine; error?: Error } = { waits };
  void Member.join({
    store,
    machine: name,
    endpoints: [],
    ttlMs: TTL_MS,
    maxDetachedMs: MAX_DETACHED_MS,
    dnsTtlMs: DNS_TTL_MS,
    cloud: 'example.org',
    recalled: {
      prefixes: ['lease/', 'revocation/'],
      voidPrefix: 'token/',
      isVoid: ({ value }) => value === 'unused',
    },
    onRecall: (wait) => waits.push(wait),
    clock,
    ...options,
  }).then(
    (member) => {
      const machine = { store, member, waits, stops: 0 };
      member.on('stop', () => machine.stops++);
      joining.machine = machine;
    },
    (error: Error) => {
      joining.error = error;
    }
  );
  await settle();
  return joining;
}

async function start(name: string, options: Partial<MemberOptions> = {}): Promise<Machine> {
  const joining = await begin(name, options);
  while (joining.machine === undefined) {
    if (joining.error !== undefined) throw joining.error;
    await pass(STEP_MS);
  }
  return joining.machine;
}

async function write({ member }: Machine, key: string, value: Json | undefined): Promise<void> {
  await member.store.commit([{ key, value }]);
}

/** Replaces the data by a backup. The leases of the restored store have ended. */
async function restore(backup: readonly Entry[]): Promise<void> {
  const durable = /^(meta|machine\/|lease\/|revocation\/|token\/|recall)/;
  await backups.restore(backup.filter(({ key }) => durable.test(key)));
  await settle();
}

async function kill({ store }: Machine): Promise<void> {
  await store.close();
}

async function shown(prefix: string, { store }: Machine): Promise<Record<string, Json>> {
  const entries = await store.list(prefix);
  return Object.fromEntries(entries.map(({ key, value }) => [key.slice(prefix.length), value]));
}

describe('a restored store', () => {
  test('has what the machines knew, the newest of it, before they attach', async () => {
    const one = await start('one');
    const two = await start('two');
    await write(one, 'lease/X', 'K');
    await write(one, 'lease/U', 'same');
    await write(one, 'token/a', 'unused');
    const backup = await backups.save();
    await write(one, 'lease/Y', 'J');
    two.store.isCut = true;
    await write(one, 'lease/X', undefined);
    await write(one, 'lease/W', 'K');
    await write(one, 'revocation/site-a', 1);
    await write(one, 'token/a', 'used');
    const { version } = one.store;
    const { clusterId } = one.store;
    two.store.isCut = false;
    two.store.isCut = true;
    await restore(backup);
    expect(one.member.state).toBe('detached');
    expect(one.waits).toMatchObject([{ machines: ['two'] }]);
    await expect(write(one, 'lease/Z', 'L')).rejects.toThrow('detached');
    await pass(DNS_TTL_MS);
    expect(one.member.state).toBe('detached');
    two.store.isCut = false;
    await pass(1000);
    expect(one.waits.at(-1)).toEqual({ machines: [], leftMs: DNS_TTL_MS });
    await pass(DNS_TTL_MS - 1500);
    expect([one.member.state, two.member.state]).toEqual(['detached', 'detached']);
    await pass(2500);
    expect([one.member.state, two.member.state]).toEqual(['attached', 'attached']);
    for (const machine of [one, two]) {
      expect(await shown('lease/', machine)).toEqual({ U: 'same', Y: 'J', W: 'K' });
      expect(await shown('revocation/', machine)).toEqual({ 'site-a': 1 });
      expect(await shown('token/', machine)).toEqual({});
      expect(await shown('recall', machine)).toEqual({});
      expect(await shown('restored', machine)).toEqual({});
      expect(machine.stops).toBe(0);
    }
    expect(one.store.version).toBeGreaterThan(version);
    expect(one.store.clusterId).not.toBe(clusterId);
    await write(two, 'lease/Z', 'L');
  });

  test('waits until a machine that is off must have stopped, or is removed', async () => {
    const one = await start('one');
    const two = await start('two');
    const three = await start('three', { maxDetachedMs: Number.POSITIVE_INFINITY });
    const backup = await backups.save();
    await write(one, 'lease/X', 'K');
    await kill(two);
    await kill(three);
    await restore(backup);
    expect(one.waits).toEqual([{ machines: ['three', 'two'], leftMs: Number.POSITIVE_INFINITY }]);
    await expect(one.member.remove('one')).rejects.toThrow('has recalled');
    await expect(one.member.remove('four')).rejects.toThrow('there is no machine "four"');
    await one.member.remove('three');
    await pass(1000);
    expect(one.waits.at(-1)?.machines).toEqual(['two']);
    await pass(MAX_DETACHED_MS);
    // What it uses is in the store, so it need not stop.
    expect([one.member.state, one.stops]).toEqual(['detached', 0]);
    await pass(TTL_MS + DNS_TTL_MS);
    expect([one.member.state, one.stops]).toEqual(['attached', 0]);
    expect(await shown('lease/', one)).toEqual({ X: 'K' });
    expect(Object.keys(await shown('machine/', one))).toEqual(['one', 'two']);
  });

  test('is joined by machines that know nothing, which wait for each other', async () => {
    const one = await start('one');
    const two = await start('two');
    await write(one, 'lease/X', 'K');
    await write(one, 'token/a', 'unused');
    // A process has ended in the middle of an earlier recall.
    await write(one, 'recall/one/lease/Q', { value: 'M' });
    const backup = await backups.save();
    await kill(one);
    await kill(two);
    await restore(backup);
    const first = await begin('one');
    await pass(DNS_TTL_MS + 1000);
    expect(first).toEqual({ waits: [{ machines: ['two'], leftMs: expect.any(Number) }] });
    const second = await begin('two');
    await pass(DNS_TTL_MS + 1000);
    expect(first.machine?.member.state).toBe('attached');
    expect(second.machine?.member.state).toBe('attached');
    expect(await shown('lease/', first.machine!)).toEqual({ X: 'K' });
    expect(await shown('token/', first.machine!)).toEqual({});
    expect(await shown('recall', first.machine!)).toEqual({});
  });

  test('does not take a machine in that was removed meanwhile, and a start can be given up', async () => {
    const one = await start('one');
    const two = await start('two');
    const backup = await backups.save();
    two.store.isCut = true;
    await restore(backup);
    await one.member.remove('two');
    two.store.isCut = false;
    await pass(1000);
    expect([two.member.state, two.stops]).toEqual(['removed', 1]);
    const end = new AbortController();
    const joining = await begin('three', { signal: end.signal });
    end.abort(new Error('given up'));
    await settle();
    expect(joining.error?.message).toBe('given up');
    await pass(DNS_TTL_MS + 1000);
    expect(one.member.state).toBe('attached');
    expect(Object.keys(await shown('machine/', one))).toEqual(['one', 'three']);
  });

  test('keeps what a machine has recalled that starts again then', async () => {
    const one = await start('one');
    const two = await start('two');
    const backup = await backups.save();
    await write(one, 'revocation/site-a', 1);
    await kill(two);
    await restore(backup);
    await kill(one);
    const again = await begin('one');
    const other = await begin('two');
    await pass(DNS_TTL_MS + 1000);
    expect(again.machine?.member.state).toBe('attached');
    expect(await shown('revocation/', other.machine!)).toEqual({ 'site-a': 1 });
  });

  test('of another cloud is refused', async () => {
    const one = await start('one');
    const other = new Backups(clock);
    const mine = backups;
    backups = other;
    await start('one');
    const backup = await other.save();
    backups = mine;
    const problems: string[] = [];
    one.member.on('problem', ({ error }) => problems.push(error.message));
    await restore(backup);
    await pass(DNS_TTL_MS * 3);
    expect(problems).toEqual([expect.stringContaining('other data than this cloud had')]);
    expect(one.member.state).toBe('detached');
    const joining = await begin('two', { cloud: 'example.com' });
    expect(joining.error?.message).toContain('has the data of the cloud "example.org"');
  });

  test('may be restored once more, before it is in force and after', async () => {
    const one = await start('one');
    const two = await start('two');
    const backup = await backups.save();
    await write(one, 'lease/X', 'K');
    await restore(backup);
    const during = await backups.save();
    await restore(during);
    await pass(TTL_MS + DNS_TTL_MS + 1000);
    expect([one.member.state, two.member.state]).toEqual(['attached', 'attached']);
    await write(two, 'lease/Y', 'J');
    await restore(backup);
    await pass(TTL_MS + DNS_TTL_MS + 1000);
    expect([one.member.state, two.member.state]).toEqual(['attached', 'attached']);
    expect(await shown('lease/', two)).toEqual({ X: 'K', Y: 'J' });
  });
});

const STEP_MS = 250;
