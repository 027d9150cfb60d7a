/**
 * Finds idle paths, which a new path may replace. Paths are kept as long as there is room, because a TCP
 * connection may be silent for hours. So an idle path ends only when its realm's share, or the table, is
 * full.
 *
 * A packet only increments the counter of its path. Time is divided into ticks, a quarter of `pathIdleMs`
 * each. In every tick `scan` checks each path once, a few at a time, for a changed counter. `find` continues
 * where the last search ended, checks a bounded number of paths, and returns the one that has been idle
 * longest. After a full round without a result it does not search again in the same tick.
 * @module
 */
import type { PathTable } from './path-table.ts';

export class IdlePaths {
  /** The result of `find`: a path and its table. */
  table: PathTable | undefined;
  path = -1;
  /** The current tick; it never wraps around. */
  tick = 0;

  readonly #tickMs: number;
  #scannedAtMs = 0;
  /** The next path to check, counted through both tables. */
  #next = 0;
  readonly #searches = new Map<number, Search>();

  /** @param pathIdleMs how long a path must have been idle before another one may replace it */
  constructor(pathIdleMs: number) {
    this.#tickMs = pathIdleMs / TICKS_OF_IDLENESS;
  }

  /** Sets the time and checks as many paths as are due. */
  scan(nowMs: number, v4: PathTable, v6: PathTable): void {
    const elapsedMs = nowMs - this.#scannedAtMs;
    if (elapsedMs < SCAN_INTERVAL_MS) return;
    this.#scannedAtMs = nowMs;
    this.tick = Math.floor(nowMs / this.#tickMs);
    const total = v4.size + v6.size;
    const due = Math.min(Math.ceil((total * elapsedMs) / this.#tickMs), total, MAX_SCANNED);
    for (let n = 0; n < due; n++) {
      if (this.#next >= total) this.#next = 0;
      const table = this.#next < v4.size ? v4 : v6;
      table.noteUse(table === v4 ? this.#next : this.#next - v4.size, this.tick);
      this.#next++;
    }
  }

  /**
   * Searches both tables for an idle path and sets `table` and `path`. Returns whether it found one.
   *
   * @param searchKey identifies the search, so that each kind of search continues where it ended
   * @param isCandidate returns whether a path is one of those searched for
   */
  find(
    searchKey: number,
    v4: PathTable,
    v6: PathTable,
    isCandidate: (table: PathTable, path: number) => boolean
  ): boolean {
    let search = this.#searches.get(searchKey);
    if (search === undefined) {
      search = { next: 0, failedChecks: 0, tick: this.tick };
      this.#searches.set(searchKey, search);
    }
    if (search.tick !== this.tick) {
      search.tick = this.tick;
      search.failedChecks = 0;
    }
    const total = v4.size + v6.size;
    const begin = search.next;
    let longest = TICKS_OF_IDLENESS;
    this.path = -1;
    for (let n = Math.min(total - search.failedChecks, MAX_STEPS); n > 0; n--) {
      if (search.next >= total) search.next = 0;
      const table = search.next < v4.size ? v4 : v6;
      const path = table === v4 ? search.next : search.next - v4.size;
      search.next++;
      search.failedChecks++;
      const idle = table.idleTicks(path, this.tick);
      if (idle > longest && isCandidate(table, path)) {
        longest = idle;
        this.table = table;
        this.path = path;
      }
    }
    if (this.path < 0) return false;
    // There may be more in this part of the tables, and few candidates behind it.
    search.next = begin;
    search.failedChecks = 0;
    return true;
  }

  /** Forgets the positions of all searches. Call it when the tables are replaced. */
  reset(): void {
    this.#searches.clear();
  }
}

interface Search {
  /** The next path to check. */
  next: number;
  /** The number of paths checked without a result in this tick. */
  failedChecks: number;
  tick: number;
}

/** A path is idle when more ticks than this have passed, that is, at least `pathIdleMs`. */
const TICKS_OF_IDLENESS = 4;
/** How often `scan` checks paths, and how many at once: at most 80,000 a second. */
const SCAN_INTERVAL_MS = 50;
const MAX_SCANNED = 4096;
/** The number of paths that `find` checks for one packet: some tens of microseconds. */
const MAX_STEPS = 256;
