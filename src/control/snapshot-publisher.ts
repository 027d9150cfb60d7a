/**
 * Keeps every site's newest snapshot. A changed view gets a revision and is published; changes at the same time make one
 * snapshot.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import type { SiteView } from './site-view.ts';
import type { Snapshot } from './snapshot.ts';

export interface SnapshotPublisherOptions {
  /** Returns a site's current view; undefined for a site without one. */
  readonly viewOf: (site: string) => SiteView | undefined;
  readonly onSnapshot: (snapshot: Snapshot) => void;
  /** How long the changes of a site are collected, in ms. */
  readonly coalesceMs: number;
  readonly clock: Clock;
}

export class SnapshotPublisher {
  readonly #options: SnapshotPublisherOptions;
  readonly #published = new Map<string, Published>();
  readonly #dirty = new Set<string>();
  #revision: number;
  #endTimer: (() => void) | undefined;
  #pauseMs = 0;
  #isClosed = false;

  constructor(options: SnapshotPublisherOptions) {
    this.#options = options;
    this.#revision = Math.floor(options.clock.wallMs());
  }

  /** Marks a site whose view may have changed. */
  mark(site: string): void {
    this.#dirty.add(site);
    if (this.#endTimer !== undefined || this.#isClosed) return;
    const delayMs = Math.max(this.#options.coalesceMs, this.#pauseMs);
    this.#endTimer = this.#options.clock.after(delayMs, () => this.publish(), true);
  }

  /** Marks these sites, and all sites that have a snapshot. */
  markAll(sites: Iterable<string>): void {
    for (const name of [...sites, ...this.#published.keys()]) this.mark(name);
  }

  get(site: string): Snapshot | undefined {
    return this.#published.get(site)?.snapshot;
  }

  /**
   * Renews the snapshots of the marked sites. The next renewal waits several times as long as this one took, including
   * its listeners, so that many names do not delay packets.
   */
  publish(): void {
    this.#endTimer?.();
    this.#endTimer = undefined;
    const sites = [...this.#dirty];
    this.#dirty.clear();
    const { clock } = this.#options;
    const startMs = clock.monotonicMs();
    for (const name of sites) this.#publishSite(name);
    const tookMs = clock.monotonicMs() - startMs;
    this.#pauseMs = Math.min(PAUSE_FACTOR * tookMs, MAX_PAUSE_MS);
  }

  close(): void {
    this.#isClosed = true;
    this.#endTimer?.();
  }

  #publishSite(name: string): void {
    const view = this.#options.viewOf(name);
    if (view === undefined) {
      this.#published.delete(name);
      return;
    }
    const text = JSON.stringify(view);
    if (this.#published.get(name)?.text === text) return;
    const snapshot = { revision: ++this.#revision, ...view };
    this.#published.set(name, { snapshot, text });
    this.#options.onSnapshot(snapshot);
  }
}

interface Published {
  readonly snapshot: Snapshot;
  /** The view in it as JSON, for the comparison with the next view. */
  readonly text: string;
}

/** Publishing takes at most a tenth of the time. */
const PAUSE_FACTOR = 9;
const MAX_PAUSE_MS = 2000;
