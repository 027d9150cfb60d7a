/**
 * A hierarchical timer wheel (Varghese and Lauck, 1987, scheme 7) with a tick of one millisecond.
 *
 * Six levels have 64 slots each; a slot of level n is 64^n ticks long. An item is in the lowest level at which its tick
 * and the current one are in different slots, and moves down when the current tick enters its slot. Scheduling and
 * cancelling cost the same however many items there are, and allocate nothing. Ticks are signed 32-bit integers modulo
 * 2^32.
 * @module
 */

/** What an item of a wheel carries. Only the wheel writes these fields; `timerSlot` is -1 at first. */
export interface Timed {
  timerNext: Timed | undefined;
  timerPrevious: Timed | undefined;
  /** Where it is scheduled; -1 if it is not. */
  timerSlot: number;
  /** When it is due, in ms; it means nothing while it is not scheduled. */
  timerAtMs: number;
}

/** Items with deadlines. An item fires at most a millisecond after its deadline, and never before it. */
export class TimerWheel<T extends Timed> {
  /** The number of items scheduled. */
  size = 0;

  /** The first item of each slot of each level. The `timerPrevious` of a first item is the last one of the slot. */
  readonly #slots: (Timed | undefined)[] = new Array(LEVELS * SLOTS).fill(undefined);
  /** Two words for each level: a bit for each slot that is not empty. */
  readonly #occupied: Int32Array = new Int32Array(LEVELS * 2);
  /** The current tick as a time in ms. Every item that was due before it has fired. */
  #now: number;
  /** While `expire` runs: the time before which nothing can be scheduled. */
  #notBefore = Number.NEGATIVE_INFINITY;

  /** @param now the time in ms */
  constructor(now: number) {
    this.#now = Math.floor(now);
  }

  /** Schedules an item, or moves one that is scheduled already; Infinity cancels it. A past time counts as now. */
  schedule(item: T, atMs: number): void {
    if (item.timerSlot >= 0) this.#unlink(item);
    if (atMs === Number.POSITIVE_INFINITY) return;
    item.timerAtMs = Math.max(atMs, this.#notBefore);
    this.#link(item);
  }

  /** Takes an item out; it may be one that is not scheduled. */
  cancel(item: T): void {
    if (item.timerSlot >= 0) this.#unlink(item);
  }

  /**
   * Calls `fire` with each item that is due, in the order of their ticks. The item is not scheduled then. `fire` may
   * schedule and cancel any item; what it schedules for a time up to `now` is due at the next call.
   */
  expire(now: number, fire: (item: T) => void): void {
    const end = Math.floor(now);
    this.#notBefore = end + 1;
    try {
      while (this.size > 0) {
        const slot = this.#nextSlot();
        const start = this.#startOf(slot);
        if (start > end) break;
        this.#now = start;
        if (slot < SLOTS) {
          for (let item = this.#slots[slot]; item !== undefined; item = this.#slots[slot]) {
            this.#unlink(item);
            fire(item as T);
          }
        } else {
          this.#moveDown(slot);
        }
      }
    } finally {
      this.#notBefore = Number.NEGATIVE_INFINITY;
    }
    if (end > this.#now) this.#now = end;
  }

  /**
   * When `expire` has something to do, in ms; Infinity if nothing is scheduled. It is early, by less than the length of
   * a slot, while the next item is in a higher level: the call then moves items down.
   */
  get deadline(): number {
    return this.size === 0 ? Number.POSITIVE_INFINITY : this.#startOf(this.#nextSlot());
  }

  #link(item: Timed): void {
    // An item that is further away than the wheel reaches is put where it reaches, and is moved on from there.
    const at = Math.min(Math.max(Math.ceil(item.timerAtMs), this.#now), this.#now + MAX_TICKS);
    const tick = at | 0;
    const differing = tick ^ (this.#now | 0);
    const level = differing === 0 ? 0 : ((31 - Math.clz32(differing)) / LEVEL_BITS) | 0;
    const index = (tick >>> (level * LEVEL_BITS)) & (SLOTS - 1);
    const slot = level * SLOTS + index;
    item.timerSlot = slot;
    item.timerNext = undefined;
    const first = this.#slots[slot];
    if (first === undefined) {
      item.timerPrevious = item;
      this.#slots[slot] = item;
      this.#occupied[slot >>> 5] = this.#occupied[slot >>> 5]! | (1 << (slot & 31));
    } else {
      const last = first.timerPrevious!;
      last.timerNext = item;
      item.timerPrevious = last;
      first.timerPrevious = item;
    }
    this.size++;
  }

  #unlink(item: Timed): void {
    const slot = item.timerSlot;
    const next = item.timerNext;
    const previous = item.timerPrevious!;
    const first = this.#slots[slot]!;
    if (item === first) {
      this.#slots[slot] = next;
      if (next === undefined) {
        this.#occupied[slot >>> 5] = this.#occupied[slot >>> 5]! & ~(1 << (slot & 31));
      } else {
        next.timerPrevious = previous;
      }
    } else {
      previous.timerNext = next;
      if (next === undefined) first.timerPrevious = previous;
      else next.timerPrevious = previous;
    }
    item.timerNext = undefined;
    item.timerPrevious = undefined;
    item.timerSlot = -1;
    this.size--;
  }

  /** Distributes the items of a slot that the current tick has entered over the lower levels. */
  #moveDown(slot: number): void {
    for (let item = this.#slots[slot]; item !== undefined; item = this.#slots[slot]) {
      this.#unlink(item);
      this.#link(item);
    }
  }

  /**
   * Returns the slot that comes next. It is in the lowest level that is not empty: the items of a level are in the same
   * slot as the current tick at all higher levels.
   */
  #nextSlot(): number {
    const occupied = this.#occupied;
    for (let level = 0; level < LEVELS; level++) {
      const low = occupied[2 * level]!;
      const high = occupied[2 * level + 1]!;
      if ((low | high) === 0) continue;
      const current = this.#indexAt(level);
      // Only the highest level wraps around; in the others nothing is in front of the current slot.
      const ahead = firstBit(low, high, current);
      return level * SLOTS + (ahead >= 0 ? ahead : firstBit(low, high, 0));
    }
    return -1;
  }

  /** The time at which a slot begins; now for the current slot of the lowest level. */
  #startOf(slot: number): number {
    const level = (slot / SLOTS) | 0;
    const shift = level * LEVEL_BITS;
    const current = this.#now | 0;
    const levelsAbove = shift + LEVEL_BITS;
    const block = level === LEVELS - 1 ? 0 : (current >>> levelsAbove) << levelsAbove;
    const start = block | ((slot & (SLOTS - 1)) << shift);
    return this.#now + ((start - current) | 0);
  }

  #indexAt(level: number): number {
    return ((this.#now | 0) >>> (level * LEVEL_BITS)) & (SLOTS - 1);
  }
}

/** Returns the number of the first bit from `from` on that is set in 64 bits; -1 if there is none. */
function firstBit(low: number, high: number, from: number): number {
  if (from < 32) {
    const bits = low & (-1 << from);
    if (bits !== 0) return 31 - Math.clz32(bits & -bits);
    from = 32;
  }
  const bits = high & (-1 << (from - 32));
  return bits === 0 ? -1 : 63 - Math.clz32(bits & -bits);
}

const LEVEL_BITS = 6;
const SLOTS = 1 << LEVEL_BITS;

/** Six levels of six bits cover the 32 bits of a tick; the highest one uses only four of its slots. */
const LEVELS = 6;

/** How far ahead an item is put at most: less than a slot of the highest level, 12 days. */
const MAX_TICKS = 2 ** 30 - 1;
