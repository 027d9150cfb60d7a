/**
 * Which path makes room for a new one: one that no packet has taken for a while. Paths are kept as long
 * as there is room, for a TCP connection may be silent for hours; so idle ones end only when their
 * realm's share, or the table, is full.
 *
 * Packets note nothing but their count. Time is divided into ticks, a quarter of `pathIdleMs` each. In
 * every tick each path is looked at once, some at a time, whether its count has changed (`look`). The
 * search for room goes on where the last one ended, looks at a bounded number of paths, and takes the one
 * that has been idle longest; a full round without a result is not repeated in the same tick.
 * @module
 */
import type { PathTable } from './path-table.ts';

export class IdlePaths {
  /** What `find` has found. */
  table: PathTable | undefined;
  path = -1;
  /** The present tick; it grows without end. */
  tick = 0;

  readonly #tickMs: number;
  #scannedAtMs = 0;
  /** The next path to look at, of all tables one behind the other. */
  #next = 0;
  readonly #searches = new Map<number, Search>();

  /** @param pathIdleMs how long a path must have been idle before it makes room */
  constructor(pathIdleMs: number) {
    this.#tickMs = pathIdleMs / TICKS_OF_IDLENESS;
  }

  /** Tells the time, and looks at as many paths as it is time for. */
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
   * Looks for a path of one of the tables that may end; `table` and `path` name it.
   *
   * @param who tells searches apart: what is looked for, as a number
   * @param isCandidate whether the path is one of those that are looked for
   */
  find(
    who: number,
    v4: PathTable,
    v6: PathTable,
    isCandidate: (table: PathTable, path: number) => boolean
  ): boolean {
    let search = this.#searches.get(who);
    if (search === undefined) {
      search = { next: 0, failedChecks: 0, tick: this.tick };
      this.#searches.set(who, search);
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
    // There may be others, and what was looked for may be rare further on.
    search.next = begin;
    search.failedChecks = 0;
    return true;
  }

  /** Forgets where searches were: the tables are new. */
  reset(): void {
    this.#searches.clear();
  }
}

interface Search {
  /** The next path to look at. */
  next: number;
  /** How many were looked at without a result in this tick. */
  failedChecks: number;
  tick: number;
}

/** A path is idle when more ticks than these have passed, so for `pathIdleMs` at least. */
const TICKS_OF_IDLENESS = 4;
/** How often paths are looked at, and how many of them at once: 80,000 a second at most. */
const SCAN_INTERVAL_MS = 50;
const MAX_SCANNED = 4096;
/** Paths that one packet may have looked at to find room: some tens of microseconds. */
const MAX_STEPS = 256;
