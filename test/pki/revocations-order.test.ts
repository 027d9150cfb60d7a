import { describe, expect, test } from 'vitest';
import { Revocations } from '../../src/pki/index.ts';
import { type Change, type Entry, MemoryStore, type Write } from '../../src/store/index.ts';

/** A shared store as one process sees it: a commit and its watch may be late. */
class Seen extends MemoryStore {
  readonly #shared: MemoryStore;
  readonly #late: { readonly prefix: string; readonly bring: () => void }[] = [];
  /** Whether the watch waits for `deliver`. */
  isWatchLate = false;
  /** Called after a commit is in the store, before it resolves. */
  onStored: () => Promise<unknown> = async () => {};
  /** Called after an entry or the list was read, before that resolves. */
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
      if (this.isWatchLate) this.#late.push({ prefix, bring: () => listener(changes) });
      else listener(changes);
    });
  }

  /** Delivers the changes that the watch has held back, one by one. @param between called after each of a revocation */
  deliver(between: () => void): void {
    for (const { prefix, bring } of this.#late.splice(0)) {
      bring();
      if (prefix === 'revocation/') between();
    }
  }
}

async function twoProcesses() {
  const shared = new MemoryStore();
  const seen = new Seen(shared);
  const here = await Revocations.open({ store: seen });
  const there = await Revocations.open({ store: shared });
  const emitted: string[] = [];
  here.on('revoked', (scope) => emitted.push(`revoked ${Object.values(scope)[0]}`));
  here.on('reinstated', ({ site }) => emitted.push(`reinstated ${site}`));
  return { shared, seen, here, there, emitted };
}

const SITE = 'site-a';

describe('the newer of two changes', () => {
  test('decides when a site is revoked elsewhere before its reinstatement here resolves', async () => {
    const { seen, here, there, emitted } = await twoProcesses();
    await here.revoke({ site: SITE });
    seen.onStored = () => there.revoke({ site: SITE });
    await here.reinstate(SITE);
    expect(here.isSiteRevoked(SITE)).toBe(true);
    expect(emitted.at(-1)).toBe(`revoked ${SITE}`);
  });

  test('decides when a site is reinstated elsewhere before its revocation here resolves', async () => {
    const { seen, here, there, emitted } = await twoProcesses();
    seen.onStored = () => there.reinstate(SITE);
    await here.revoke({ site: SITE });
    expect(here.isSiteRevoked(SITE)).toBe(false);
    expect(emitted).toEqual([`revoked ${SITE}`, `reinstated ${SITE}`]);
  });

  test('decides when a site is reinstated elsewhere while its entry is read', async () => {
    const { seen, here, there } = await twoProcesses();
    await there.revoke({ site: SITE });
    seen.onRead = () => there.reinstate(SITE);
    await here.revoke({ site: SITE });
    expect(here.isSiteRevoked(SITE)).toBe(false);
  });

  test('decides when a site is reinstated elsewhere while all entries are read for the first time', async () => {
    const { shared, seen, there } = await twoProcesses();
    await there.revoke({ site: SITE });
    seen.onRead = () => there.reinstate(SITE);
    const later = await Revocations.open({ store: seen });
    expect(later.isSiteRevoked(SITE)).toBe(false);
    expect(await shared.list('revocation/')).toEqual([]);
  });

  test('decides when two processes write the same entry at once: the first keeps its reason', async () => {
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

  test('decides when a reinstatement finds a revocation that is newer than the one it read', async () => {
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
    expect(await shared.list('revocation/')).toEqual([]);
  });
});

describe('a late watch', () => {
  test('does not undo a revocation that is newer than its change', async () => {
    const { seen, here, there, emitted } = await twoProcesses();
    seen.isWatchLate = true;
    await there.revoke({ site: SITE });
    await there.reinstate(SITE);
    await here.revoke({ site: SITE });
    const states = [here.isSiteRevoked(SITE)];
    seen.deliver(() => states.push(here.isSiteRevoked(SITE)));
    expect(states).toEqual([true, true, true, true]);
    expect(emitted).toEqual([`revoked ${SITE}`]);
  });

  test('does not undo a reinstatement that is newer than its change', async () => {
    const { seen, here, there, emitted } = await twoProcesses();
    seen.isWatchLate = true;
    await there.revoke({ site: SITE });
    await here.reinstate(SITE);
    const states = [here.isSiteRevoked(SITE)];
    seen.deliver(() => states.push(here.isSiteRevoked(SITE)));
    expect(states).toEqual([false, false, false]);
    expect(emitted).toEqual([]);
    await there.revoke({ site: SITE });
    seen.deliver(() => {});
    expect([here.isSiteRevoked(SITE), emitted]).toEqual([true, [`revoked ${SITE}`]]);
  });

  test('hides neither a certificate nor a token that another process has issued', async () => {
    const { shared, seen, here, there } = await twoProcesses();
    await issue(shared, 'aa', 'key-a');
    seen.isWatchLate = true;
    await issue(shared, 'ab', 'key-b');
    await shared.commit([{ key: 'token/t1', value: TOKEN, expect: 0 }]);
    const report = await here.revoke({ site: SITE });
    expect(report.certificates.map(({ serial }) => serial).sort()).toEqual(['aa', 'ab']);
    expect(report.tokensVoided).toBe(1);
    expect(await shared.list('token/')).toEqual([]);

    // The one that was hidden stays revoked when the site comes back.
    await here.reinstate(SITE);
    expect([...here.table.serials].sort()).toEqual(['aa', 'ab']);
    await issue(shared, 'ac', 'key-b');
    const { certificates } = await here.revoke({ serial: 'ab' });
    expect(certificates.map(({ serial }) => serial)).toEqual(['ab', 'ac']);
    await issue(shared, 'ad', 'key-d');
    await issue(shared, 'ae', 'key-d');
    const onKey = await here.revoke({ spki: SPKI });
    expect(onKey.certificates).toEqual([]);
    seen.deliver(() => {});
    for (const each of [here, there]) {
      expect([...each.table.serials].sort()).toEqual(['aa', 'ab', 'ac']);
    }
    const all = await here.revoke({ site: SITE });
    expect(all.certificates.map(({ serial }) => serial).sort()).toEqual(SERIALS);
  });
});

const SERIALS = ['aa', 'ab', 'ac', 'ad', 'ae'];
const SPKI = 'A'.repeat(43);
const TOKEN = { site: SITE, usedAtMs: null, expiresAtMs: Date.now() + 86_400_000 };

function issue(store: MemoryStore, serial: string, spkiHash: string): Promise<void> {
  const notBeforeMs = Date.now();
  const validity = { notBeforeMs, notAfterMs: notBeforeMs + 86_400_000 };
  const value = { serial, identity: `spiffe://example.org/site/${SITE}`, spkiHash, ...validity };
  return store.commit([{ key: `certificate/${serial}`, value, expect: 0 }]);
}
