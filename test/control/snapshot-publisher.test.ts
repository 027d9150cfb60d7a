/**
 * When snapshots are published: at once, then collected, in slices; and what is known of them without keeping them.
 */
import { beforeEach, describe, expect, test } from 'vitest';
import type { SiteView } from '../../src/control/site-view.ts';
import { SnapshotPublisher } from '../../src/control/snapshot-publisher.ts';
import { FakeClock } from '../support/fake-clock.ts';

const COALESCE_MS = 20;

/** A clock on which work takes time. */
class BusyClock extends FakeClock {
  spentMs = 0;

  override monotonicMs(): number {
    return super.monotonicMs() + this.spentMs;
  }
}

let clock: BusyClock;
/** The TTL in the view of each site; a site that is not there has no view. */
let ttls: Map<string, number>;
/** How often a view was made. */
let views: number;
let published: string[];
let publisher: SnapshotPublisher;
/** What making a view takes, in ms. */
let viewMs: number;

/** Lets the event loop turn once. */
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function viewOf(site: string): SiteView | undefined {
  const ttlSeconds = ttls.get(site);
  if (ttlSeconds === undefined) return undefined;
  views++;
  clock.spentMs += viewMs;
  return { site, sources: [], pools: [], zone: 'a.test', ttlSeconds, hosts: [], pointers: [] };
}

beforeEach(() => {
  clock = new BusyClock();
  ttls = new Map([
    ['a', 1],
    ['b', 1],
  ]);
  views = 0;
  viewMs = 0;
  published = [];
  publisher = new SnapshotPublisher({
    viewOf,
    onSnapshot: ({ site, ttlSeconds }) => void published.push(`${site} ${ttlSeconds}`),
    coalesceMs: COALESCE_MS,
    clock,
  });
});

describe('a marked site', () => {
  test('is published when the event loop turns, and later marks after coalesceMs', () => {
    publisher.mark('a');
    expect(published).toEqual([]);
    clock.advance(0);
    expect(published).toEqual(['a 1']);
    for (const ttl of [2, 3]) {
      ttls.set('a', ttl);
      publisher.mark('a');
    }
    publisher.mark('b');
    clock.advance(COALESCE_MS - 1);
    expect(published).toHaveLength(1);
    clock.advance(1);
    expect(published).toEqual(['a 1', 'a 3', 'b 1']);
    clock.advance(COALESCE_MS);
    ttls.set('b', 2);
    publisher.mark('b');
    clock.advance(0);
    expect(published.at(-1)).toBe('b 2');
  });

  test('is published as soon after a mark that has changed no view, once in coalesceMs', () => {
    publisher.mark('a');
    clock.advance(2 * COALESCE_MS);
    publisher.mark('a');
    clock.advance(0);
    ttls.set('a', 2);
    publisher.mark('a');
    clock.advance(0);
    expect(published).toEqual(['a 1', 'a 2']);
    clock.advance(COALESCE_MS);
    publisher.mark('a');
    clock.advance(0);
    ttls.set('a', 3);
    publisher.mark('a');
    clock.advance(COALESCE_MS - 1);
    expect(published).toHaveLength(2);
    clock.advance(1);
    expect(published.at(-1)).toBe('a 3');
  });

  test('is not published if its view is the last one, and is again after it had none', () => {
    publisher.mark('a');
    clock.advance(COALESCE_MS);
    publisher.mark('a');
    clock.advance(COALESCE_MS);
    ttls.delete('a');
    publisher.mark('a');
    clock.advance(COALESCE_MS);
    expect(published).toEqual(['a 1']);
    ttls.set('a', 1);
    publisher.mark('a');
    clock.advance(COALESCE_MS);
    expect(published).toEqual(['a 1', 'a 1']);
  });

  test('is not published after close', () => {
    publisher.mark('a');
    publisher.close();
    publisher.mark('b');
    clock.advance(1000);
    expect(published).toEqual([]);
    expect(clock.delays).toEqual([]);
  });
});

describe('many sites', () => {
  const SITES = Array.from({ length: 10 }, (_, i) => `site-${i}`);

  beforeEach(() => {
    for (const site of SITES) ttls.set(site, 1);
    viewMs = 1.5;
  });

  test('are published in slices, between which the event loop turns', async () => {
    publisher.markAll(SITES);
    clock.advance(0);
    const counts = [published.length];
    for (let left = 20; left > 0 && published.length < SITES.length; left--) {
      await turn();
      if (counts.at(-1) !== published.length) counts.push(published.length);
    }
    expect(counts).toEqual([2, 4, 6, 8, 10]);
  });

  test('are not published after close, and a site that is marked meanwhile is', async () => {
    publisher.markAll(SITES);
    clock.advance(0);
    ttls.set('site-0', 2);
    publisher.mark('site-0');
    for (let left = 20; left > 0; left--) await turn();
    expect(published).toHaveLength(SITES.length + 1);
    expect(published.at(-1)).toBe('site-0 2');
    publisher.markAll(SITES);
    for (const site of SITES) ttls.set(site, 3);
    clock.advance(COALESCE_MS);
    const before = published.length;
    publisher.close();
    for (let left = 20; left > 0; left--) await turn();
    expect(published).toHaveLength(before);
  });
});

describe('snapshot', () => {
  test('publishes a marked site, and no other', () => {
    publisher.mark('a');
    publisher.mark('b');
    expect(publisher.snapshot('a')).toMatchObject({ site: 'a', ttlSeconds: 1 });
    expect(published).toEqual(['a 1']);
    expect(views).toBe(1);
    clock.advance(0);
    expect(published).toEqual(['a 1', 'b 1']);
    expect(views).toBe(2);
  });

  test('is the same with the same revision as long as nothing changes, and newer after that', () => {
    const first = publisher.snapshot('a');
    const other = publisher.snapshot('b')!;
    expect(publisher.snapshot('a')).toEqual(first);
    ttls.set('a', 2);
    expect(publisher.snapshot('a')!.revision).toBeGreaterThan(other.revision);
    expect(published).toEqual(['a 1', 'b 1', 'a 2']);
    expect(publisher.snapshot('nowhere')).toBeUndefined();
  });
});
