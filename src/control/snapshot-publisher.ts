/**
 * Says when the snapshot of a site has changed, and makes snapshots. A changed view gets the next revision; changes at
 * the same time make one snapshot. Of each site it keeps the revision and a hash of the view, not the snapshot.
 *
 * A change is published as soon as the event loop turns. After that, changes are collected for `coalesceMs`. Where no
 * view has changed, the next change is published as soon, once in this time: an exposure changes the view only with the
 * lease of its address, which a store of several machines shows a commit later. Many sites are published in slices, so
 * that packets go on.
 * @module
 */
import { createHash } from 'node:crypto';
import type { Clock } from '../base/clock.ts';
import { type Slices, slicesOf } from '../base/slices.ts';
import type { SiteView } from './site-view.ts';
import type { Snapshot } from './snapshot.ts';

export interface SnapshotPublisherOptions {
  /** Returns a site's current view; undefined for a site without one. */
  readonly viewOf: (site: string) => SiteView | undefined;
  readonly onSnapshot: (snapshot: Snapshot) => void;
  /** A site whose changes are not published. */
  readonly ownSite?: string | undefined;
  /** How long the changes of a site are collected, in ms. */
  readonly coalesceMs: number;
  /** Its monotonic clock measures the slices; its wall clock begins the revisions. */
  readonly clock: Clock;
}

export class SnapshotPublisher {
  readonly #options: SnapshotPublisherOptions;
  readonly #slices: Slices;
  readonly #published = new Map<string, Published>();
  readonly #dirty = new Set<string>();
  #revision: number;
  /** Ends the wait for the first slice, or for the end of `coalesceMs`; undefined while there is nothing to wait for. */
  #endWait: (() => void) | undefined;
  /** Whether a view has changed since changes were last collected. */
  #hasNews = false;
  /** When changes were last not collected because no view had changed, on the monotonic clock. */
  #sparedAtMs = Number.NEGATIVE_INFINITY;
  #isClosed = false;

  constructor(options: SnapshotPublisherOptions) {
    this.#options = options;
    this.#slices = slicesOf(options.clock);
    this.#revision = Math.floor(options.clock.wallMs());
  }

  /** Marks a site whose view may have changed. */
  mark(site: string): void {
    if (site === this.#options.ownSite) return;
    this.#dirty.add(site);
    if (this.#endWait === undefined) this.#publishSoon();
  }

  /** Marks these sites, and all sites that have a snapshot. */
  markAll(sites: Iterable<string>): void {
    for (const name of sites) this.mark(name);
    for (const name of this.#published.keys()) this.mark(name);
  }

  /** Returns whether the snapshot of a site is that of its view now, or is to be made. It makes the view. */
  isCurrent(site: string): boolean {
    if (site === this.#options.ownSite || this.#dirty.has(site)) return true;
    const view = this.#options.viewOf(site);
    return (view && hashOf(view)) === this.#published.get(site)?.hash;
  }

  /** Returns the revision of the last snapshot of a site; undefined if there is none, or its view may have changed since. */
  revisionOf(site: string): number | undefined {
    return this.#dirty.has(site) ? undefined : this.#published.get(site)?.revision;
  }

  /**
   * Returns the snapshot of a site as it is now; undefined for a site without one. If it has changed, this publishes
   * it, and nothing of other sites.
   */
  snapshot(site: string): Snapshot | undefined {
    this.#dirty.delete(site);
    return this.#publish(site);
  }

  close(): void {
    this.#isClosed = true;
    this.#endWait?.();
  }

  /** The event loop turns before it. */
  #publishSoon(): void {
    if (this.#isClosed) return;
    this.#endWait = this.#options.clock.after(0, () => this.#publishSlice(), true);
  }

  #publishSlice(): void {
    if (this.#isClosed) return;
    const isDone = this.#slices.run(this.#publishDirty());
    const { clock, coalesceMs } = this.#options;
    if (this.#isClosed) return;
    if (!isDone) {
      this.#slices.later(() => this.#publishSlice());
      return;
    }
    const nowMs = clock.monotonicMs();
    if (!this.#hasNews && nowMs - this.#sparedAtMs > coalesceMs) {
      this.#sparedAtMs = nowMs;
      this.#endWait = undefined;
      return;
    }
    this.#hasNews = false;
    this.#endWait = clock.after(coalesceMs, () => this.#publishCollected(), true);
  }

  *#publishDirty(): Generator<void> {
    for (const site of this.#dirty) {
      this.#dirty.delete(site);
      this.#publish(site);
      yield;
    }
  }

  #publishCollected(): void {
    this.#endWait = undefined;
    if (this.#dirty.size > 0) this.#publishSlice();
  }

  /** Makes the snapshot of a site. Publishes it if it is not the last one. */
  #publish(site: string): Snapshot | undefined {
    const view = this.#options.viewOf(site);
    if (view === undefined) {
      if (this.#published.delete(site)) this.#hasNews = true;
      return undefined;
    }
    const hash = hashOf(view);
    const before = this.#published.get(site);
    if (before?.hash === hash) return { revision: before.revision, ...view };
    const snapshot = { revision: ++this.#revision, ...view };
    this.#published.set(site, { revision: snapshot.revision, hash });
    this.#hasNews = true;
    this.#options.onSnapshot(snapshot);
    return snapshot;
  }
}

/** Returns the SHA-256 of a view as JSON. */
function hashOf(view: SiteView): string {
  return createHash('sha256').update(JSON.stringify(view)).digest('base64');
}

interface Published {
  readonly revision: number;
  /** The SHA-256 of the view as JSON. */
  readonly hash: string;
}
