/**
 * The connections in TIME-WAIT: what is left of a connection so that late segments of it are answered or dropped, and
 * do not reach the next connection between the same ends.
 *
 * An entry is 76 bytes in two typed arrays, without an object of its own. The arrays grow with the number of entries and
 * are given up with the last one. When the table is full, the oldest entry goes: a connection may then be opened again
 * between the same ends too early, as if the system had restarted.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import { ApiMisuseError } from '../errors.ts';
import type { Flow } from './flow.ts';

/** All connections in TIME-WAIT of an endpoint. Entries are numbered; a number stays the same until the entry goes. */
export class TimeWaitTable {
  /** The number of entries. */
  size = 0;

  readonly #limit: number;
  /** `WORDS` words for each entry. */
  #words: Int32Array = NOTHING;
  /** When each entry ends, in ms. */
  #until: Float64Array = NO_TIMES;
  /** The first entry of each bucket, or -1. Its length is a power of two. */
  #buckets: Int32Array = NOTHING;
  /** How many entries there is space for. */
  #capacity = 0;
  /** The first number of the list of those that are not in use, or -1. */
  #free = -1;
  /** The entries from the oldest to the newest: those that began or were restarted first go first. */
  #oldest = -1;
  #newest = -1;

  /** @throws {ApiMisuseError} if the limit is not a positive integer. */
  constructor(limit: number = DEFAULT_LIMIT) {
    if (!Number.isSafeInteger(limit) || limit < 1) {
      throw new ApiMisuseError(`the limit is a positive integer, not ${limit}`);
    }
    this.#limit = limit;
  }

  /** When the oldest entry ends, in ms; Infinity if there is none. */
  get deadline(): number {
    return this.#oldest < 0 ? Number.POSITIVE_INFINITY : this.#until[this.#oldest]!;
  }

  /** When an entry ends, in ms. */
  untilMs(i: number): number {
    return this.#until[i]!;
  }

  clear(): void {
    while (this.#oldest >= 0) this.remove(this.#oldest);
  }

  /**
   * Adds an entry, whose flow is not in the table, and returns its number. Entries end in the order in which they were
   * added, so the caller adds all of them with the same time to live.
   *
   * @param timestamps whether the connection used the timestamps option: `tsRecent` and `tsOffset` count only then
   * @param untilMs when it ends
   */
  add(
    flow: Flow,
    sndNxt: number,
    rcvNxt: number,
    timestamps: boolean,
    tsRecent: number,
    tsOffset: number,
    untilMs: number
  ): number {
    if (this.size === this.#limit) this.remove(this.#oldest);
    if (this.#free < 0) this.#grow();
    const i = this.#free;
    const words = this.#words;
    const at = i * WORDS;
    this.#free = words[at + NEXT_OF_BUCKET]!;
    writeAddress(words, at + LOCAL, flow.local);
    writeAddress(words, at + REMOTE, flow.remote);
    words[at + PORTS] = portsOf(flow);
    words[at + HASH] = hashOf(flow) | (timestamps ? HAS_TIMESTAMPS : 0);
    words[at + SND_NXT] = sndNxt;
    words[at + RCV_NXT] = rcvNxt;
    words[at + TS_RECENT] = tsRecent;
    words[at + TS_OFFSET] = tsOffset;
    const bucket = flow.hash & (this.#buckets.length - 1);
    words[at + NEXT_OF_BUCKET] = this.#buckets[bucket]!;
    this.#buckets[bucket] = i;
    this.#append(i, untilMs);
    this.size++;
    return i;
  }

  /** Returns the number of the entry with these ends, or -1. */
  find(flow: Flow): number {
    if (this.size === 0) return -1;
    const words = this.#words;
    const ports = portsOf(flow);
    const hash = hashOf(flow);
    let i = this.#buckets[flow.hash & (this.#buckets.length - 1)]!;
    for (; i >= 0; i = words[i * WORDS + NEXT_OF_BUCKET]!) {
      const at = i * WORDS;
      if (
        words[at + PORTS] === ports &&
        (words[at + HASH]! & ~HAS_TIMESTAMPS) === hash &&
        hasAddress(words, at + REMOTE, flow.remote) &&
        hasAddress(words, at + LOCAL, flow.local)
      ) {
        return i;
      }
    }
    return -1;
  }

  sndNxt(i: number): number {
    return this.#words[i * WORDS + SND_NXT]!;
  }

  rcvNxt(i: number): number {
    return this.#words[i * WORDS + RCV_NXT]!;
  }

  hasTimestamps(i: number): boolean {
    return (this.#words[i * WORDS + HASH]! & HAS_TIMESTAMPS) !== 0;
  }

  tsRecent(i: number): number {
    return this.#words[i * WORDS + TS_RECENT]!;
  }

  tsOffset(i: number): number {
    return this.#words[i * WORDS + TS_OFFSET]!;
  }

  /** Sets the time at which an entry ends, as when the peer sends its FIN again; it is the newest then. */
  restart(i: number, untilMs: number): void {
    this.#unlink(i);
    this.#append(i, untilMs);
  }

  remove(i: number): void {
    const words = this.#words;
    const at = i * WORDS;
    const bucket = words[at + HASH]! & HASH_BITS & (this.#buckets.length - 1);
    const next = words[at + NEXT_OF_BUCKET]!;
    let other = this.#buckets[bucket]!;
    if (other === i) {
      this.#buckets[bucket] = next;
    } else {
      while (words[other * WORDS + NEXT_OF_BUCKET] !== i) {
        other = words[other * WORDS + NEXT_OF_BUCKET]!;
      }
      words[other * WORDS + NEXT_OF_BUCKET] = next;
    }
    this.#unlink(i);
    words[at + NEXT_OF_BUCKET] = this.#free;
    this.#free = i;
    this.size--;
    if (this.size === 0) this.#giveUp();
  }

  /** Removes the entries that have ended, and returns how many. */
  expire(now: number): number {
    let removed = 0;
    while (this.deadline <= now) {
      this.remove(this.#oldest);
      removed++;
    }
    return removed;
  }

  /** Makes entry `i` the newest. */
  #append(i: number, untilMs: number): void {
    const words = this.#words;
    this.#until[i] = untilMs;
    words[i * WORDS + NEWER] = -1;
    words[i * WORDS + OLDER] = this.#newest;
    if (this.#newest < 0) this.#oldest = i;
    else words[this.#newest * WORDS + NEWER] = i;
    this.#newest = i;
  }

  /** Takes entry `i` out of the order of ages. */
  #unlink(i: number): void {
    const words = this.#words;
    const older = words[i * WORDS + OLDER]!;
    const newer = words[i * WORDS + NEWER]!;
    if (older < 0) this.#oldest = newer;
    else words[older * WORDS + NEWER] = newer;
    if (newer < 0) this.#newest = older;
    else words[newer * WORDS + OLDER] = older;
  }

  /** Doubles the space, at most up to the limit, and distributes the entries over the new buckets. */
  #grow(): void {
    const before = this.#capacity;
    this.#capacity = Math.min(Math.max(before * 2, INITIAL_ENTRIES), this.#limit);
    const words = new Int32Array(this.#capacity * WORDS);
    words.set(this.#words);
    this.#words = words;
    const until = new Float64Array(this.#capacity);
    until.set(this.#until);
    this.#until = until;
    const bucketCount = 2 ** Math.ceil(Math.log2(this.#capacity));
    const buckets = new Int32Array(bucketCount).fill(-1);
    this.#buckets = buckets;
    // All numbers are in use: it grows only when the list of free ones is empty.
    for (let i = 0; i < before; i++) {
      const bucket = words[i * WORDS + HASH]! & HASH_BITS & (bucketCount - 1);
      words[i * WORDS + NEXT_OF_BUCKET] = buckets[bucket]!;
      buckets[bucket] = i;
    }
    for (let i = before; i < this.#capacity; i++) {
      words[i * WORDS + NEXT_OF_BUCKET] = i + 1 < this.#capacity ? i + 1 : -1;
    }
    this.#free = before;
  }

  #giveUp(): void {
    if (this.#capacity <= INITIAL_ENTRIES) return;
    this.#words = NOTHING;
    this.#until = NO_TIMES;
    this.#buckets = NOTHING;
    this.#capacity = 0;
    this.#free = -1;
  }
}

/** Both ports in one word. */
function portsOf(flow: Flow): number {
  return (flow.localPort << 16) | flow.remotePort;
}

/** The hash, and whether it is an IPv6 flow. */
function hashOf(flow: Flow): number {
  return (flow.hash & HASH_BITS) | (flow.family === 6 ? IS_IPV6 : 0);
}

function writeAddress(words: Int32Array, at: number, address: IpAddress): void {
  const source = address.words;
  for (let i = 0; i < source.length; i++) words[at + i] = source[i]!;
}

function hasAddress(words: Int32Array, at: number, address: IpAddress): boolean {
  const other = address.words;
  for (let i = 0; i < other.length; i++) if (words[at + i] !== other[i]) return false;
  return true;
}

// The words of an entry.
const LOCAL = 0;
const REMOTE = 4;
/** The local port in the upper half, the remote one in the lower. */
const PORTS = 8;
/** The flow's hash of 30 bits, with two flags above it. */
const HASH = 9;
const SND_NXT = 10;
const RCV_NXT = 11;
const TS_RECENT = 12;
const TS_OFFSET = 13;
/** The next entry of the bucket, or the next number that is not in use; -1 if there is none. */
const NEXT_OF_BUCKET = 14;
const OLDER = 15;
const NEWER = 16;
const WORDS = 17;

const HASH_BITS = 0x3fff_ffff;
const HAS_TIMESTAMPS = 0x4000_0000;
const IS_IPV6 = 0x8000_0000 | 0;

/** As Linux's `TCP_TIMEWAIT_LEN`; RFC 9293 has two minutes. */
export const TIME_WAIT_MS = 60_000;
const DEFAULT_LIMIT = 16_384;
const INITIAL_ENTRIES = 16;

const NOTHING: Int32Array = new Int32Array(0);
const NO_TIMES: Float64Array = new Float64Array(0);
