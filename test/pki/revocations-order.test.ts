import { describe, expect, test } from 'vitest';
import { Revocations } from '../../src/pki/index.ts';
import { type Change, type Entry, MemoryStore, type Write } from '../../src/store/index.ts';

/** What one process sees of a store that it shares: a commit, and its watch, may come late. */
class Seen extends MemoryStore {
  readonly #shared: MemoryStore;
  readonly #late: (() => void)[] = [];
  /** The watch waits for `deliver`. */
  isWatchLate = false;
  /** After a commit is in the store, before it resolves. */
  onStored: () => Promise<unknown> = async () => {};
  /** After an entry or the list was read, before that resolves. */
  onRead: () => Promise<unknown> = async () => {};

  constructor(shared: MemoryStore) {
    super();
    this.#shared = shared;
  }

  override async get(key: string): Promise<Entry | undefined> {
    const entry = await this.#shared.get(key);
    await this.onRead();
    return entry;
  }

  override async list(prefix: string): Promise<Entry[]> {
    const entries = await this.#shared.list(prefix);
    await this.onRead();
    return entries;
  }

  override async commit(writes: readonly Write[]): Promise<void> {
    await this.#shared.commit(writes);
    await this.onStored();
  }

  override watch(prefix: string, listener: (changes: readonly Change[]) => void): () => void {
    return this.#shared.watch(prefix, (changes) => {
      if (this.isWatchLate) this.#late.push(() => listener(changes));
      else listener(changes);
    });
  }

  /** Brings what the watch has kept back, change by change. */
  deliver(between: () => void): void {
    for (const bring of this.#late.splice(0)) {
      bring();
      between();
    }
  }
}

async function twoProcesses() {
  const shared = new MemoryStore();
  const seen = new Seen(shared);
  const here = await Revocations.open({ store: seen });
  const there = await Revocations.open({ store: shared });
  const told: string[] = [];
  here.on('revoked', (scope) => told.push(`revoked ${Object.values(scope)[0]}`));
  here.on('reinstated', ({ site }) => told.push(`reinstated ${site}`));
  return { shared, seen, here, there, told };
}

const SITE = 'site-a';

describe('the newer of two changes wins', () => {
  test('when a site is revoked elsewhere before its reinstatement here resolves', async () => {
    const { seen, here, there, told } = await twoProcesses();
    await here.revoke({ site: SITE });
    seen.onStored = () => there.revoke({ site: SITE });
    await here.reinstate(SITE);
    expect(here.isSiteRevoked(SITE)).toBe(true);
    expect(told.at(-1)).toBe(`revoked ${SITE}`);
  });

  test('when a site is reinstated elsewhere before its revocation here resolves', async () => {
    const { seen, here, there, told } = await twoProcesses();
    seen.onStored = () => there.reinstate(SITE);
    await here.revoke({ site: SITE });
    expect(here.isSiteRevoked(SITE)).toBe(false);
    expect(told).toEqual([`revoked ${SITE}`, `reinstated ${SITE}`]);
  });

  test('when a site is reinstated elsewhere while its entry is read', async () => {
    const { seen, here, there } = await twoProcesses();
    await there.revoke({ site: SITE });
    seen.onRead = () => there.reinstate(SITE);
    await here.revoke({ site: SITE });
    expect(here.isSiteRevoked(SITE)).toBe(false);
  });

  test('when a site is reinstated elsewhere while all is read at first', async () => {
    const { shared, seen, there } = await twoProcesses();
    await there.revoke({ site: SITE });
    seen.onRead = () => there.reinstate(SITE);
    const later = await Revocations.open({ store: seen });
    expect(later.isSiteRevoked(SITE)).toBe(false);
    expect(await shared.list('')).toEqual([]);
  });

  test('when two processes write the same entry at once: the first keeps its reason', async () => {
    const { shared, seen, here, there } = await twoProcesses();
    let reads = 0;
    seen.onRead = async () => {
      if (reads++ === 0) await there.revoke({ site: SITE }, 'keyCompromise');
    };
    await here.revoke({ site: SITE }, 'superseded');
    expect(await shared.get(`revocation/site/${SITE}`)).toMatchObject({
      value: { reason: 'keyCompromise' },
    });
    expect(here.isSiteRevoked(SITE)).toBe(true);
  });

  test('when a reinstatement meets a revocation that is newer than what it read', async () => {
    const { seen, shared, here, there } = await twoProcesses();
    await here.revoke({ site: SITE });
    let reads = 0;
    seen.onRead = async () => {
      if (reads++ > 0) return;
      await there.reinstate(SITE);
      await there.revoke({ site: SITE });
    };
    await here.reinstate(SITE);
    expect([here.isSiteRevoked(SITE), there.isSiteRevoked(SITE)]).toEqual([false, false]);
    expect(await shared.list('')).toEqual([]);
  });
});

describe('a watch that comes late', () => {
  test('does not take back a revocation that is newer than what it brings', async () => {
    const { seen, here, there, told } = await twoProcesses();
    seen.isWatchLate = true;
    await there.revoke({ site: SITE });
    await there.reinstate(SITE);
    await here.revoke({ site: SITE });
    const states = [here.isSiteRevoked(SITE)];
    seen.deliver(() => states.push(here.isSiteRevoked(SITE)));
    expect(states).toEqual([true, true, true, true]);
    expect(told).toEqual([`revoked ${SITE}`]);
  });

  test('does not take back a reinstatement that is newer than what it brings', async () => {
    const { seen, here, there, told } = await twoProcesses();
    seen.isWatchLate = true;
    await there.revoke({ site: SITE });
    await here.reinstate(SITE);
    const states = [here.isSiteRevoked(SITE)];
    seen.deliver(() => states.push(here.isSiteRevoked(SITE)));
    expect(states).toEqual([false, false, false]);
    expect(told).toEqual([]);
    await there.revoke({ site: SITE });
    seen.deliver(() => {});
    expect([here.isSiteRevoked(SITE), told]).toEqual([true, [`revoked ${SITE}`]]);
  });
});
