/**
 * The connections of which a SYN arrived and whose handshake is not complete (SYN-RECEIVED).
 *
 * An entry is far smaller than a connection and has no buffers, so that a flood of SYNs costs little. Three bounds limit
 * it: one for all entries, a quarter of it for each group of clients, and one for each client once half of the table is
 * in use, so that one client does not take the place of all others, and may yet open many connections at once. When the table is full, the oldest entry goes: a
 * handshake needs one round trip, and the entries of a flood stay for a minute. There are no SYN cookies.
 * @module
 */
import { GroupCounts, quarterOf } from '../base/group-counts.ts';
import { type Flow, sameFlow } from './flow.ts';
import { type Timed, TimerWheel } from './timer-wheel.ts';

/** One handshake. All fields but those of the table are the endpoint's. */
export class HalfOpen implements Timed {
  readonly flow: Flow;
  /** Our initial sequence number, and the peer's. */
  iss = 0;
  irs = 0;
  /** The MSS option of the SYN, or its default, in bytes. */
  mss = 0;
  /** The shift of the peer's window; -1 if the SYN has no window scale option. */
  windowScale = -1;
  sackPermitted = false;
  /** Whether the SYN has the timestamps option; `tsRecent` and `tsOffset` mean something only then. */
  timestamps = false;
  tsRecent = 0;
  tsOffset = 0;
  /** The window that the SYN-ACK offers, in bytes: it is not scaled. */
  window = 0;
  /** When the SYN came, in ms. */
  openedAt = 0;
  /** How often the SYN-ACK was sent again. */
  retries = 0;
  /** When a segment that does not fit was answered last. */
  answeredAt: number = Number.NEGATIVE_INFINITY;
  /** When the SYN-ACK is due to be sent again, or the entry to be given up. Set it before `add`, then by `delay`. */
  deadlineMs: number = Number.POSITIVE_INFINITY;
  /** Whatever the endpoint wants to find here again. */
  listener: unknown = undefined;
  /** Whether no SYN-ACK may be sent yet (`pending-open.ts`). */
  isHeld = false;
  /** The group of the remote address, whose entries have a bound; undefined for none. */
  group: string | undefined = undefined;

  // The fields of the table.
  timerNext: Timed | undefined = undefined;
  timerPrevious: Timed | undefined = undefined;
  timerSlot = -1;
  timerAtMs = 0;
  /** The next entry with the same hash. */
  nextOfHash: HalfOpen | undefined = undefined;

  constructor(flow: Flow) {
    this.flow = flow;
  }
}

/** The bounds of a table. */
export interface HalfOpenBounds {
  /** The most entries. Default: 1,024. */
  readonly limit?: number;
  /** The most entries of one remote address, once half of the table is in use. Default: 128. */
  readonly perClient?: number;
}

/** All handshakes of an endpoint. */
export class HalfOpenTable {
  /** The number of entries. */
  size = 0;

  readonly #limit: number;
  readonly #perClient: number;
  /** The first entry of each hash. The hash is keyed, so that nobody can make a list long. */
  readonly #entries = new Map<number, HalfOpen>();
  /** How many entries each remote address has, by its text. */
  readonly #clients = new Map<string, number>();
  readonly #groups: GroupCounts;
  readonly #timers: TimerWheel<HalfOpen>;

  /** @param now the time in ms */
  constructor(now: number, bounds: HalfOpenBounds = {}) {
    this.#limit = bounds.limit ?? DEFAULT_LIMIT;
    this.#perClient = bounds.perClient ?? DEFAULT_PER_CLIENT;
    this.#groups = new GroupCounts(quarterOf(this.#limit));
    this.#timers = new TimerWheel(now);
  }

  /** When the next entry is due, in ms; Infinity if none is. It may be early (`TimerWheel.deadline`). */
  get deadline(): number {
    return this.#timers.deadline;
  }

  /** Returns the entry with these ends. */
  find(flow: Flow): HalfOpen | undefined {
    let entry = this.#entries.get(flow.hash);
    while (entry !== undefined && !sameFlow(entry.flow, flow)) entry = entry.nextOfHash;
    return entry;
  }

  /** Returns whether one more entry of this flow's remote address, which is in the group, may be added. */
  hasRoomFor(flow: Flow, group?: string | undefined): boolean {
    const hasRoom = 2 * this.size < this.#limit || this.countOf(flow) < this.#perClient;
    return hasRoom && this.#groups.hasRoom(group);
  }

  /** How many remote addresses have entries. */
  get clients(): number {
    return this.#clients.size;
  }

  /** How many entries the remote address of this flow has. */
  countOf(flow: Flow): number {
    return this.#clients.get(flow.remote.toString()) ?? 0;
  }

  /**
   * Adds an entry whose flow is not in the table; in a full table it takes the place of the oldest one. Returns the entry
   * that had to go for it: the new one itself, if its client or its group has too many.
   */
  add(entry: HalfOpen): HalfOpen | undefined {
    const { flow } = entry;
    if (!this.hasRoomFor(flow, entry.group)) return entry;
    const oldest = this.size < this.#limit ? undefined : this.#oldest();
    if (oldest !== undefined) this.remove(oldest);
    entry.nextOfHash = this.#entries.get(flow.hash);
    this.#entries.set(flow.hash, entry);
    this.#clients.set(flow.remote.toString(), this.countOf(flow) + 1);
    this.#groups.add(entry.group);
    this.#timers.schedule(entry, entry.deadlineMs);
    this.size++;
    return oldest;
  }

  /** The entry that was added first, or nearly so: a hash keeps its place while it has entries. */
  #oldest(): HalfOpen | undefined {
    for (let entry of this.#entries.values()) {
      while (entry.nextOfHash !== undefined) entry = entry.nextOfHash;
      return entry;
    }
    return undefined;
  }

  /** Moves the deadline of an entry that is in the table. */
  delay(entry: HalfOpen, deadlineMs: number): void {
    entry.deadlineMs = deadlineMs;
    this.#timers.schedule(entry, deadlineMs);
  }

  /** Removes an entry; returns false if it is not in the table. */
  remove(entry: HalfOpen): boolean {
    if (!this.#unlink(entry)) return false;
    this.#timers.cancel(entry);
    const client = entry.flow.remote.toString();
    const left = this.countOf(entry.flow) - 1;
    if (left === 0) this.#clients.delete(client);
    else this.#clients.set(client, left);
    this.#groups.remove(entry.group);
    this.size--;
    return true;
  }

  /**
   * Calls `due` with each entry whose deadline is past, in the order of the deadlines. It stays in the table, without a
   * timer: `due` calls `delay` or `remove`.
   */
  expire(now: number, due: (entry: HalfOpen) => void): void {
    this.#timers.expire(now, due);
  }

  /** All entries, in no particular order. The one it has come to may be removed, no other be added or removed. */
  *[Symbol.iterator](): IterableIterator<HalfOpen> {
    for (let entry of this.#entries.values()) {
      for (;;) {
        const next = entry.nextOfHash;
        yield entry;
        if (next === undefined) break;
        entry = next;
      }
    }
  }

  /** Takes an entry out of the list of its hash; returns false if it is not there. */
  #unlink(entry: HalfOpen): boolean {
    const { hash } = entry.flow;
    const next = entry.nextOfHash;
    let other = this.#entries.get(hash);
    if (other === entry) {
      if (next === undefined) this.#entries.delete(hash);
      else this.#entries.set(hash, next);
    } else {
      while (other !== undefined && other.nextOfHash !== entry) other = other.nextOfHash;
      if (other === undefined) return false;
      other.nextOfHash = next;
    }
    entry.nextOfHash = undefined;
    return true;
  }
}

const DEFAULT_LIMIT = 1_024;
const DEFAULT_PER_CLIENT = 128;
