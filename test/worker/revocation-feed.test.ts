/**
 * What the worker processes learn of the revocations: everything once, and then what changes.
 */
import { describe, expect, test } from 'vitest';
import { Revocations } from '../../src/pki/index.ts';
import { LiveRevocationTable } from '../../src/pki/revocation-table.ts';
import { MemoryStore } from '../../src/store/index.ts';
import type { AccessChange } from '../../src/worker/access.ts';
import { Access } from '../../src/worker/access.ts';
import { PoolAccess } from '../../src/worker/pool-access.ts';
import { RevocationFeed } from '../../src/worker/revocation-feed.ts';
import type { Worker } from '../../src/worker/worker.ts';
import { Random } from '../support/random.ts';

const SEED = 16;

/** A worker process: it gets clones. */
class Process {
  readonly messages: AccessChange[] = [];
  readonly access = new Access();
  #feed = new RevocationFeed();

  updateAccess({ revocations, ...change }: AccessChange): void {
    const news = revocations === undefined ? {} : this.#feed.next(revocations);
    const message = structuredClone({ ...change, ...news });
    this.messages.push(message);
    this.access.update(message);
  }
}

describe('RevocationFeed', () => {
  test('sends the whole table to a new worker, and then only what changes', async () => {
    const revocations = await Revocations.open({ store: new MemoryStore() });
    for (let i = 0; i < 50; i++) await revocations.revoke({ site: `old-${i}` });
    const feed = new RevocationFeed();
    const first = feed.next(revocations.table);
    expect(first.revocations?.sites.size).toBe(50);
    expect(feed.next(revocations.table)).toEqual({});

    await revocations.revoke({ site: 'site-a' });
    await revocations.revoke({ spki: 'A'.repeat(43) });
    await revocations.reinstate('old-7');
    const sites = new Map([
      ['site-a', true],
      ['old-7', false],
    ]);
    expect(feed.next(revocations.table)).toEqual({
      revocationChanges: { sites, serials: [], spkis: ['A'.repeat(43)] },
    });
    expect(feed.next(revocations.table)).toEqual({});
    // A worker that was started again knows nothing.
    const again = new RevocationFeed().next(revocations.table);
    expect(again.revocations?.sites.has('site-a')).toBe(true);
    await revocations.close();
  });

  test('sends a table whole that cannot tell what has changed', () => {
    const table = {
      sites: new Set(['site-a']),
      serials: new Set<string>(),
      spkis: new Set<string>(),
    };
    const feed = new RevocationFeed();
    expect(feed.next(table)).toEqual({ revocations: table });
    table.sites.add('site-b');
    expect(feed.next(table)).toEqual({ revocations: table });
  });

  test('keeps copies equal to the table, however late they follow, and remembers a bounded number of changes', () => {
    const random = new Random(SEED);
    const table = new LiveRevocationTable();
    const copies = [0, 0, 0].map(() => ({ feed: new RevocationFeed(), held: copyOf(undefined) }));
    let whole = 0;
    for (let step = 0; step < 8_000; step++) {
      const name = `${random.below(200)}`;
      if (random.chance(0.5)) table.add(random.pick(['serials', 'spkis'] as const), `${step}`);
      else if (!table.reinstate(name)) table.add('sites', name);
      for (const [number, copy] of copies.entries()) {
        // The third follows so rarely that it misses more than is remembered.
        if (step % [97, 301, 3_999][number]! !== 0) continue;
        const { revocations, revocationChanges } = structuredClone(copy.feed.next(table));
        if (revocations !== undefined) {
          whole++;
          copy.held = copyOf(revocations);
        }
        for (const [site, isRevoked] of revocationChanges?.sites ?? []) {
          if (isRevoked) copy.held.sites.add(site);
          else copy.held.sites.delete(site);
        }
        for (const serial of revocationChanges?.serials ?? []) copy.held.serials.add(serial);
        for (const spki of revocationChanges?.spkis ?? []) copy.held.spkis.add(spki);
        expect(textOf(copy.held), `copy ${number}, step ${step}, seed ${SEED}`).toBe(textOf(table));
      }
    }
    // Each copy once, and the third each time.
    expect(whole).toBe(5);
    expect(table.changesSince(0)).toBeUndefined();
    expect(table.changesSince(table.revision - 1000)).toBeDefined();
  });
});

test('a pool sends the retired CAs only when they change', async () => {
  const revocations = await Revocations.open({ store: new MemoryStore() });
  const worker = new Process();
  let retired: string[] = [];
  const access = new PoolAccess({
    rules: () => ({ sites: [], revocations: revocations.table, retired }),
    workers: () => [worker as unknown as Worker],
    holderOf: () => 0,
    portOf: () => 7443,
    onGone: () => {},
  });
  worker.updateAccess(access.all());
  await revocations.revoke({ site: 'site-a' });
  access.refreshRevocations();
  retired = [];
  access.refreshRevocations();
  const sites = new Map([['site-a', true]]);
  expect(worker.messages.slice(1)).toEqual([
    { revocationChanges: { sites, serials: [], spkis: [] } },
    {},
  ]);
  await revocations.close();
});

interface Sets {
  sites: Set<string>;
  serials: Set<string>;
  spkis: Set<string>;
}

function copyOf(table: { [K in keyof Sets]: ReadonlySet<string> } | undefined): Sets {
  const { sites, serials, spkis } = table ?? {};
  return { sites: new Set(sites), serials: new Set(serials), spkis: new Set(spkis) };
}

function textOf({ sites, serials, spkis }: { [K in keyof Sets]: ReadonlySet<string> }): string {
  return [sites, serials, spkis].map((set) => [...set].sort().join()).join(' ');
}
