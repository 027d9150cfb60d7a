/**
 * Bounds the time that packets wait in a queue: `QueueAge` measures it, and `CoDel` (Controlled Delay,
 * [RFC 8289](https://www.rfc-editor.org/rfc/rfc8289)) says which packets to drop. The RFC drops at the head of the
 * queue. Here frames lie one behind the other in memory and are sent as they are, so the arriving packet is dropped.
 * The sender notices later by the length of the queue, which is what CoDel keeps short.
 * @module
 */

export class CoDel {
  /** When the wait was first seen to be above the target, plus the interval; 0 while it is below. */
  #dueMs = 0;
  #isDropping = false;
  #dropAtMs = 0;
  #drops = 0;
  #dropsBefore = 0;

  /**
   * Returns whether to drop a packet that arrives now.
   *
   * @param waitMs how long the packet at the head of the queue has waited
   */
  isTooLate(nowMs: number, waitMs: number): boolean {
    const isLong = this.#isLong(nowMs, waitMs);
    if (!this.#isDropping) {
      if (!isLong) return false;
      this.#isDropping = true;
      // RFC 8289 section 5.3: soon after the last time, it begins with the rate it had reached then.
      const isSoon = nowMs - this.#dropAtMs < 16 * INTERVAL_MS;
      const since = this.#drops - this.#dropsBefore;
      this.#drops = isSoon && since > 1 ? since : 1;
      this.#dropsBefore = this.#drops;
      this.#dropAtMs = nowMs + INTERVAL_MS / Math.sqrt(this.#drops);
      return true;
    }
    if (!isLong) {
      this.#isDropping = false;
      return false;
    }
    if (nowMs < this.#dropAtMs) return false;
    this.#drops++;
    this.#dropAtMs += INTERVAL_MS / Math.sqrt(this.#drops);
    return true;
  }

  #isLong(nowMs: number, waitMs: number): boolean {
    if (waitMs < TARGET_MS) {
      this.#dueMs = 0;
      return false;
    }
    if (this.#dueMs === 0) this.#dueMs = nowMs + INTERVAL_MS;
    return nowMs >= this.#dueMs;
  }
}

/**
 * How many bytes a queue holds, and how long the first of them have waited. Bytes that came within a millisecond count
 * as of one age. When there are too many ages, the youngest bytes count as older than they are.
 */
export class QueueAge {
  /** A circular buffer: how many bytes came at which time. */
  readonly #bytes = new Float64Array(SLOTS);
  readonly #sinceMs = new Float64Array(SLOTS);
  #first = 0;
  #count = 0;
  #total = 0;

  get bytes(): number {
    return this.#total;
  }

  /** Returns how long the first byte has been in the queue, in ms; 0 if the queue is empty. */
  waitMs(nowMs: number): number {
    return this.#count === 0 ? 0 : nowMs - this.#sinceMs[this.#first]!;
  }

  add(bytes: number, nowMs: number): void {
    let last = (this.#first + this.#count - 1) & (SLOTS - 1);
    const isNew = this.#count === 0 || nowMs - this.#sinceMs[last]! >= 1;
    if (isNew && this.#count < SLOTS) {
      last = (this.#first + this.#count++) & (SLOTS - 1);
      this.#bytes[last] = 0;
      this.#sinceMs[last] = nowMs;
    }
    this.#bytes[last]! += bytes;
    this.#total += bytes;
  }

  /** Removes bytes from the front; no more than there are. */
  remove(bytes: number): void {
    this.#total -= bytes;
    while (bytes > 0) {
      const here = Math.min(bytes, this.#bytes[this.#first]!);
      this.#bytes[this.#first]! -= here;
      bytes -= here;
      if (this.#bytes[this.#first]! > 0) return;
      this.#first = (this.#first + 1) & (SLOTS - 1);
      this.#count--;
    }
  }

  /** Removes everything after the first `bytes`. */
  clear(bytes: number): void {
    const sinceMs = this.#sinceMs[this.#first]!;
    this.#count = 0;
    this.#total = 0;
    if (bytes > 0) this.add(bytes, sinceMs);
  }
}

/** A wait that is always acceptable, because it keeps the connection busy. RFC 8289 section 4.4. */
const TARGET_MS = 5;
/** The order of magnitude of the round trip of the senders that are to slow down. RFC 8289 section 4.3. */
const INTERVAL_MS = 100;
/** The number of ages that are distinguished: a power of two. */
const SLOTS = 32;
