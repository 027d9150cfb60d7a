import { afterEach, describe, expect, test } from 'vitest';
import { ApiMisuseError, CertificateError, NotFoundError, StoreError } from '../../src/errors.ts';
import type { CertificateRecord } from '../../src/pki/certificate-ledger.ts';
import { Revocations } from '../../src/pki/revocations.ts';
import { MemoryStore, type Write } from '../../src/store/index.ts';
import { Revoker, type TerminationReport } from '../../src/trust/index.ts';
import { clockOf } from '../support/clock-of.ts';

const cleanUp: (() => void)[] = [];
afterEach(() => {
  for (const step of cleanUp.splice(0).reverse()) step();
});

/** A store that reports each commit and can fail. */
class ObservedStore extends MemoryStore {
  isFailing = false;
  onStored: (writes: readonly Write[]) => void = () => {};

  override async commit(writes: readonly Write[]): Promise<void> {
    if (this.isFailing) throw new StoreError('the disk is full');
    await super.commit(writes);
    this.onStored(writes);
  }
}

interface World {
  readonly store: ObservedStore;
  readonly revocations: Revocations;
  readonly revoker: Revoker;
  /** The suspended sites. */
  readonly suspended: Set<string>;
  /** The steps, in order. */
  readonly steps: string[];
  readonly errors: Error[];
  /** The next results of terminations; nothing is closed when the list is empty. */
  readonly terminations: TerminationReport[];
  /** Called at the start of each termination. */
  readonly hook: { onTerminate: () => Promise<void> | void };
  readonly clock: { nowMs: number };
}

async function newWorld(store = new ObservedStore()): Promise<World> {
  const revocations = await Revocations.open({ store, clock: clockOf(() => NOW_MS) });
  const suspended = new Set<string>();
  const steps: string[] = [];
  const errors: Error[] = [];
  const terminations: TerminationReport[] = [];
  const hook: World['hook'] = { onTerminate: () => {} };
  const clock = { nowMs: 0 };
  const revoker = new Revoker({
    revocations,
    controller: {
      suspend: (site, isSuspended) => {
        if (isSuspended === suspended.has(site)) return;
        steps.push(`${site} ${isSuspended ? 'out of' : 'back in'} the plan`);
        if (isSuspended) suspended.add(site);
        else suspended.delete(site);
      },
    },
    terminateRevoked: async (reason) => {
      await hook.onTerminate();
      steps.push(`terminated: ${reason}`);
      return terminations.shift() ?? NOTHING_TERMINATED;
    },
    clock: clockOf(Date.now, () => clock.nowMs),
  });
  revoker.on('problem', ({ error }) => errors.push(error));
  cleanUp.push(() => {
    revoker.close();
    revocations.close();
  });
  return { store, revocations, revoker, suspended, steps, errors, terminations, hook, clock };
}

function certificate(serial: string, site: string, key = `key of ${serial}`): CertificateRecord {
  return {
    serial,
    identity: `spiffe://example.org/site/${site}`,
    spkiHash: key,
    notBeforeMs: 0,
    notAfterMs: NOW_MS + 1_000,
  };
}

function issue(store: MemoryStore, ...records: readonly CertificateRecord[]): Promise<void> {
  return store.commit(records.map((value) => ({ key: `certificate/${value.serial}`, value })));
}

describe('Revoker.revoke', () => {
  test('removes the site from the plan during the call, before anything is stored', async () => {
    const { revoker, suspended, store } = await newWorld();
    let stored = 0;
    store.onStored = () => stored++;
    const revoking = revoker.revoke({ site: 'site-a' });
    expect([...suspended]).toEqual(['site-a']);
    expect(stored).toBe(0);
    await revoking;
    expect(stored).toBeGreaterThan(0);
  });

  test('terminates only when handshakes already fail, and resolves only when that is done', async () => {
    const { revoker, store, steps, revocations, hook } = await newWorld();
    await issue(store, certificate('a1', 'site-a'));
    store.onStored = (writes) => steps.push(`stored ${writes.map(({ key }) => key).join()}`);
    const known: boolean[] = [];
    let finish!: () => void;
    const finished = new Promise<void>((resolve) => {
      finish = resolve;
    });
    hook.onTerminate = () => {
      known.push(revocations.isSiteRevoked('site-a'));
      return finished;
    };
    let isDone = false;
    const revoking = revoker.revoke({ site: 'site-a' }).then(() => {
      isDone = true;
    });
    await turn();
    expect(known).toContain(true);
    expect(known).not.toContain(false);
    expect(isDone).toBe(false);
    finish();
    await revoking;
    expect(steps.slice(0, 2)).toEqual([
      'site-a out of the plan',
      'stored revocation/site/site-a,certificate-mark,token-mark',
    ]);
    expect(steps.slice(2)).toContain('terminated: site site-a is revoked');
  });

  test('returns a receipt with what was revoked, what was terminated and the times', async () => {
    const { revoker, store, terminations, clock, hook } = await newWorld();
    await issue(store, certificate('a1', 'site-a'), certificate('b1', 'site-b'));
    await issue(store, certificate('a2', 'site-a'));
    await store.commit([
      { key: 'token/t1', value: { site: 'site-a', usedAtMs: null, expiresAtMs: NOW_MS + 1 } },
      { key: 'token/t2', value: { site: 'site-a', usedAtMs: null, expiresAtMs: NOW_MS - 1 } },
    ]);
    terminations.push({ tunnelsClosed: 2, pathsRemoved: 6 });
    store.onStored = () => {
      clock.nowMs += 10;
    };
    let count = 0;
    hook.onTerminate = () => {
      if (count++ === 0) clock.nowMs += 1;
    };
    const receipt = await revoker.revoke({ site: 'site-a' }, 'keyCompromise');
    expect(receipt).toEqual({
      scope: { site: 'site-a' },
      sites: ['site-a'],
      serials: ['a1', 'a2'],
      unexpired: [],
      tokensVoided: 1,
      tunnelsClosed: 2,
      pathsRemoved: 6,
      storedMs: 21, // two commits, with the first termination between them
      elapsedMs: 21,
    });
  });

  test.each([
    ['serial number', { serial: 'a1' }],
    ['key', { spki: KEY() }],
  ])('terminates by %s and leaves the site in the plan', async (_, scope) => {
    const { revoker, store, steps, terminations, suspended } = await newWorld();
    await issue(store, certificate('a1', 'site-a', KEY()), certificate('a2', 'site-a'));
    terminations.push({ tunnelsClosed: 1, pathsRemoved: 0 });
    const receipt = await revoker.revoke(scope);
    expect(receipt).toMatchObject({ scope, sites: ['site-a'], serials: ['a1'], tunnelsClosed: 1 });
    expect(receipt.unexpired).toEqual(['a2']);
    expect(suspended.size).toBe(0);
    expect(new Set(steps)).toEqual(new Set(['terminated: the certificate is revoked']));
  });

  test('terminates again for what is already revoked: something may have been left', async () => {
    const { revoker, steps, terminations } = await newWorld();
    await revoker.revoke({ site: 'site-a' });
    steps.length = 0;
    terminations.push({ tunnelsClosed: 1, pathsRemoved: 0 });
    expect(await revoker.revoke({ site: 'site-a' })).toMatchObject({ tunnelsClosed: 1 });
    expect(steps).toEqual(['terminated: site site-a is revoked']);
  });

  test('returns for each of two calls at once its own terminations, perhaps with those of the other', async () => {
    const { revoker, store, terminations, steps } = await newWorld();
    await issue(store, certificate('a1', 'site-a'), certificate('b1', 'site-b'));
    terminations.push({ tunnelsClosed: 1, pathsRemoved: 2 }, { tunnelsClosed: 1, pathsRemoved: 2 });
    const [a, b] = await Promise.all([
      revoker.revoke({ site: 'site-a' }),
      revoker.revoke({ site: 'site-b' }),
    ]);
    expect(a).toMatchObject({ sites: ['site-a'], serials: ['a1'] });
    expect(b).toMatchObject({ sites: ['site-b'], serials: ['b1'] });
    const done = steps.filter((step) => step.startsWith('terminated')).length;
    expect(done).toBeGreaterThanOrEqual(2);
    for (const { tunnelsClosed, pathsRemoved } of [a, b]) {
      expect([tunnelsClosed, pathsRemoved]).toEqual([2, 4]);
    }
  });

  test('returns nothing of earlier terminations', async () => {
    const { revoker, terminations } = await newWorld();
    terminations.push({ tunnelsClosed: 5, pathsRemoved: 5 });
    await revoker.revoke({ site: 'site-a' });
    const later = await revoker.revoke({ site: 'site-b' });
    expect(later).toMatchObject({ tunnelsClosed: 0, pathsRemoved: 0 });
  });
});

describe('a failed Revoker.revoke', () => {
  test('leaves the site suspended if the store fails, and can be called again', async () => {
    const { revoker, store, suspended, revocations, steps } = await newWorld();
    store.isFailing = true;
    await expect(revoker.revoke({ site: 'site-a' })).rejects.toThrow(StoreError);
    expect([...suspended]).toEqual(['site-a']);
    expect(revocations.isSiteRevoked('site-a')).toBe(false);
    store.isFailing = false;
    await revoker.revoke({ site: 'site-a' });
    expect(revocations.isSiteRevoked('site-a')).toBe(true);
    expect(steps.at(-1)).toBe('terminated: site site-a is revoked');
    await revoker.reinstate('site-a');
    expect(suspended.size).toBe(0);
  });

  test('is undone only by reinstate if the store fails', async () => {
    const { revoker, store, suspended } = await newWorld();
    store.isFailing = true;
    await expect(revoker.revoke({ site: 'site-a' })).rejects.toThrow(StoreError);
    store.isFailing = false;
    await revoker.reinstate('site-a');
    expect(suspended.size).toBe(0);
  });

  test('restores the site if the call is invalid', async () => {
    const { revoker, suspended, steps } = await newWorld();
    await expect(revoker.revoke({ site: 'no site!' })).rejects.toThrow(CertificateError);
    await expect(revoker.revoke({ serial: 'aa' })).rejects.toThrow(NotFoundError);
    await expect(revoker.revoke({ spki: 'short' })).rejects.toThrow(CertificateError);
    expect(suspended.size).toBe(0);
    expect(steps.filter((step) => step.startsWith('terminated'))).toEqual([]);
  });

  test('restores the site if the reason is unknown', async () => {
    const { revoker, suspended } = await newWorld();
    await expect(revoker.revoke({ site: 'site-a' }, 'whim' as never)).rejects.toThrow(
      ApiMisuseError
    );
    expect(suspended.size).toBe(0);
  });

  test('keeps a revoked site suspended if the reason is unknown', async () => {
    const { revoker, suspended } = await newWorld();
    await revoker.revoke({ site: 'site-a' });
    await expect(revoker.revoke({ site: 'site-a' }, 'whim' as never)).rejects.toThrow();
    expect([...suspended]).toEqual(['site-a']);
  });

  test('returns no receipt if the tunnels cannot be terminated, and the site stays suspended', async () => {
    const { revoker, suspended, hook, errors, revocations } = await newWorld();
    hook.onTerminate = () => Promise.reject(new Error('a process is gone'));
    await expect(revoker.revoke({ site: 'site-a' })).rejects.toThrow('a process is gone');
    expect([...suspended]).toEqual(['site-a']);
    expect(revocations.isSiteRevoked('site-a')).toBe(true);
    expect(errors.map(({ message }) => message)).toContain('a process is gone');
  });
});

describe('Revoker', () => {
  test('suspends the sites that were revoked before it from the start', async () => {
    const store = new ObservedStore();
    const { revoker } = await newWorld(store);
    await revoker.revoke({ site: 'site-a' });
    const later = await newWorld(store);
    expect([...later.suspended]).toEqual(['site-a']);
  });

  test('enforces what another process on the same store revokes', async () => {
    const store = new ObservedStore();
    const here = await newWorld(store);
    const there = await newWorld(store);
    await issue(store, certificate('b1', 'site-b'));
    await there.revoker.revoke({ site: 'site-a' });
    await turn();
    expect([...here.suspended]).toEqual(['site-a']);
    expect(here.steps.at(-1)).toBe('terminated: site site-a is revoked');
    here.steps.length = 0;
    await there.revoker.revoke({ serial: 'b1' });
    await turn();
    expect(here.steps).toEqual(['terminated: the certificate is revoked']);
    expect([...here.suspended]).toEqual(['site-a']);
  });

  test('emits a problem when it cannot terminate what another process has revoked', async () => {
    const store = new ObservedStore();
    const here = await newWorld(store);
    const there = await newWorld(store);
    here.hook.onTerminate = () => Promise.reject(new Error('a process is gone'));
    await there.revoker.revoke({ site: 'site-a' });
    await turn();
    expect(here.errors.map(({ message }) => message)).toContain('a process is gone');
    expect([...here.suspended]).toEqual(['site-a']);
  });

  test('restores a reinstated site to the plan, whichever process reinstates it', async () => {
    const store = new ObservedStore();
    const here = await newWorld(store);
    const there = await newWorld(store);
    await here.revoker.revoke({ site: 'site-a' });
    await there.revoker.reinstate('site-a');
    expect([here.suspended.size, there.suspended.size]).toEqual([0, 0]);
    expect(here.revocations.isSiteRevoked('site-a')).toBe(false);
  });

  test('keeps a site suspended whose reinstatement cannot be stored', async () => {
    const { revoker, store, suspended } = await newWorld();
    await revoker.revoke({ site: 'site-a' });
    store.isFailing = true;
    await expect(revoker.reinstate('site-a')).rejects.toThrow(StoreError);
    expect([...suspended]).toEqual(['site-a']);
  });

  test('stops following the store when it is closed', async () => {
    const store = new ObservedStore();
    const here = await newWorld(store);
    const there = await newWorld(store);
    here.revoker.close();
    await there.revoker.revoke({ site: 'site-a' });
    await turn();
    expect(here.steps).toEqual([]);
  });
});

/** Lets everything run that does not wait for a timer. */
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** A well-formed hash: 32 bytes as base64url. */
function KEY(): string {
  return Buffer.alloc(32, 7).toString('base64url');
}

const NOW_MS = 1_700_000_000_000;
const NOTHING_TERMINATED: TerminationReport = { tunnelsClosed: 0, pathsRemoved: 0 };
