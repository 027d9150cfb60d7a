/** Registries of several machines on one store. */
import { describe, expect, test } from 'vitest';
import {
  ConfigError,
  StoreConflictError,
  StoreError,
  VersionMismatchError,
} from '../../src/errors.ts';
import { Registry } from '../../src/registry/index.ts';
import { type Change, type Json, MemoryStore, type Write } from '../../src/store/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { DESIRED } from './scene.ts';

/** A store whose watch may be late. */
class LateStore extends MemoryStore {
  readonly #late: (() => void)[] = [];
  isLate = false;
  /** Called before each commit. */
  beforeCommit: () => Promise<void> = async () => {};

  override async commit(writes: readonly Write[]): Promise<void> {
    await this.beforeCommit();
    await super.commit(writes);
  }

  override watch(prefix: string, listener: (changes: readonly Change[]) => void): () => void {
    return super.watch(prefix, (changes) => {
      if (this.isLate) this.#late.push(() => listener(changes));
      else listener(changes);
    });
  }

  bring(): void {
    this.isLate = false;
    for (const bring of this.#late.splice(0)) bring();
  }
}

async function twoMachines(clock?: FakeClock) {
  const store = new LateStore();
  const here = await Registry.open(store, { clock });
  await here.apply(DESIRED, 'file');
  const there = await Registry.open(store, { clock });
  return { store, here, there };
}

const MQ = { service: 'mq', site: 'site-a', dnsName: 'x' };
const WEB = { service: 'web', site: 'site-a', dnsName: 'x' };

describe('two machines that write at once', () => {
  test('do not both store what does not fit together', async () => {
    const { here, there } = await twoMachines();
    const results = await Promise.allSettled([
      here.expose(MQ, 'admin'),
      there.expose(WEB, 'admin'),
    ]);
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
    const { reason } = results[1] as PromiseRejectedResult;
    expect(reason).toBeInstanceOf(ConfigError);
    expect(reason.message).toContain('x.site-a.test is the name of "mq" in "site-a" already');
    expect([...there.exposures()]).toHaveLength(1);
  });

  test('both store what fits together', async () => {
    const { here, there } = await twoMachines();
    await Promise.all([
      here.expose(MQ, 'admin'),
      there.expose({ ...WEB, dnsName: 'y' }, 'admin'),
      here.expose({ service: 'mq', site: 'site-b' }, 'admin'),
      there.expose({ service: 'web', site: 'site-b' }, 'admin'),
    ]);
    expect([...here.exposures()]).toHaveLength(4);
    expect(there.state).toEqual(here.state);
  });

  test('do not overwrite what an operator has not seen', async () => {
    const { here, there } = await twoMachines();
    await here.expose(MQ, 'admin');
    const { version } = here.record({ kind: 'exposure', service: 'mq', site: 'site-a' })!;
    const results = await Promise.allSettled([
      here.expose({ ...MQ, dnsName: 'y' }, 'admin', { expect: version }),
      there.expose({ ...MQ, dnsName: 'z' }, 'admin', { expect: version }),
    ]);
    const { reason } = results[1] as PromiseRejectedResult;
    expect(reason).toBeInstanceOf(VersionMismatchError);
    expect([...there.exposures()].map(({ dnsName }) => dnsName)).toEqual(['y']);
  });

  test('do not refuse what the other one makes possible while it is checked', async () => {
    const { store, here, there } = await twoMachines();
    await here.expose(MQ, 'admin');
    store.isLate = true;
    await here.unexpose(MQ, 'admin');
    // The change comes while the check is under way, which begins in the next microtasks.
    const written = there.expose(WEB, 'admin');
    store.bring();
    await written;
    expect([...there.exposures()].map(({ service }) => service)).toEqual(['web']);
  });
});

describe('a machine whose watch is behind', () => {
  test('waits until it has seen the change of the other one', async () => {
    const { store, here, there } = await twoMachines();
    store.isLate = true;
    await here.expose(MQ, 'admin');
    const written = there.expose(WEB, 'admin');
    const settled = written.then(
      () => 'written',
      () => 'refused'
    );
    for (let i = 0; i < 20; i++) await Promise.resolve();
    expect(await Promise.race([settled, 'waiting'])).toBe('waiting');
    store.bring();
    await expect(written).rejects.toThrow(ConfigError);
  });

  test('rejects if the change does not come', async () => {
    const clock = new FakeClock();
    const { store, here, there } = await twoMachines(clock);
    store.isLate = true;
    await here.expose(MQ, 'admin');
    const written = there.expose(WEB, 'admin');
    const refused = expect(written).rejects.toThrow(StoreError);
    while (!clock.delays.includes(5000)) await Promise.resolve();
    clock.advance(5000);
    await refused;
    await expect(written).rejects.toThrow('the store has not told what has changed');
  });

  test('rejects if others overtake it again and again', async () => {
    const { store, here, there } = await twoMachines();
    let overtaken = 0;
    let isOther = false;
    store.beforeCommit = async () => {
      if (isOther) return;
      isOther = true;
      await here.expose({ ...MQ, dnsName: `x${overtaken++}` }, 'admin');
      isOther = false;
    };
    await expect(there.expose(WEB, 'admin')).rejects.toThrow(StoreConflictError);
    expect(overtaken).toBe(20);
  });
});

describe('the generation of the desired state', () => {
  test('is counted up by each commit, and by nothing else', async () => {
    const { store, here } = await twoMachines();
    expect(await store.get('desired-generation')).toMatchObject({ value: 1 });
    await here.expose(MQ, 'admin');
    await here.apply(DESIRED, 'file');
    expect(await store.get('desired-generation')).toMatchObject({ value: 2 });
  });

  test.each([
    ['is absent', undefined],
    ['is garbage', { no: 'number' }],
    ['is too large', Number.MAX_VALUE],
  ])('may be wrong: %s', async (_name, value) => {
    const { store, here, there } = await twoMachines();
    await store.commit([{ key: 'desired-generation', value }]);
    await here.expose(MQ, 'admin');
    await there.expose({ ...WEB, dnsName: 'y' }, 'admin');
    expect(await store.get('desired-generation')).toMatchObject({ value: 2 });
  });
});

describe('what is no record', () => {
  const GARBAGE: readonly (readonly [string, Json])[] = [
    ['desired/site/site-a', 'text'],
    ['desired/site/site-d', { owner: 'file', spec: { name: 'site-d', from: 'a newer version' } }],
    ['desired/unknown/x', { owner: 'file', spec: {} }],
    ['desired/exposure/site-a/mq', { owner: 'nobody', spec: { service: 'mq', site: 'site-a' } }],
    ['desired/service/mq', { owner: 'file', spec: DESIRED.services[1] as Json }],
  ];
  test.each(GARBAGE)(
    'is a problem while a machine runs, and an error at its start: %s',
    async (key, value) => {
      const { store, here, there } = await twoMachines();
      const problems: string[] = [];
      here.on('problem', ({ error }) => problems.push(error.message));
      await store.commit([{ key, value }]);
      expect(problems).toEqual([expect.stringContaining(`${key} in the store is not a record`)]);
      await expect(Registry.open(store)).rejects.toThrow(StoreError);
      await there.putSite({ ...DESIRED.sites[3]!, maxNames: 5 }, 'file');
      expect(here.site('site-c')?.maxNames).toBe(5);
    }
  );

  test('is left alone beside the records', async () => {
    const { store, here } = await twoMachines();
    here.on('problem', ({ error }) => expect.fail(error.message));
    await store.commit([
      { key: 'desired', value: 1 },
      { key: 'desired-other/site/x', value: 1 },
    ]);
    await here.expose(MQ, 'admin');
    await using fresh = await Registry.open(store);
    expect(fresh.state).toEqual(here.state);
  });

  test('records of a version that had no generation are read', async () => {
    const { store, here } = await twoMachines();
    await store.commit([{ key: 'desired-generation', value: undefined }]);
    await using fresh = await Registry.open(store);
    expect(fresh.state).toEqual(here.state);
    await fresh.expose(MQ, 'admin');
    await here.expose({ ...WEB, dnsName: 'y' }, 'admin');
    expect([...fresh.exposures()]).toHaveLength(2);
  });
});
