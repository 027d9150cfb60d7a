/**
 * How many bytes a queue holds, and how old the first of them are. What came within a millisecond
 * counts as of one age, and when there are too many ages, the youngest bytes count as older than they
 * are.
 * @module
 */

export class QueueAge {
  /** A ring: how many bytes came at which time. */
  readonly #bytes = new Float64Array(SLOTS);
  readonly #sinceMs = new Float64Array(SLOTS);
  #first = 0;
  #count = 0;
  #total = 0;

  get bytes(): number {
    return this.#total;
  }

  /** How long the first byte has been in the queue, in ms; 0 if it is empty. */
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

  /** Takes bytes from the front; no more than there are. */
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

  /** Leaves the first `bytes` only. */
  clear(bytes: number): void {
    const sinceMs = this.#sinceMs[this.#first]!;
    this.#count = 0;
    this.#total = 0;
    if (bytes > 0) this.add(bytes, sinceMs);
  }
}

/** A power of two. */
const SLOTS = 32;
