/**
 * The ranges of bytes that arrived out of order, sorted, disjoint and not adjacent.
 *
 * A position is a signed 32-bit integer modulo 2^32, like a sequence number. All positions of a set are less than
 * 2^31 apart.
 * @module
 */

/** The most ranges that are kept. */
export const MAX_RANGES: number = 256;

/** A set of ranges. It is made when the first byte arrives out of order, and given up when the last hole is filled. */
export class RangeSet {
  /** The number of ranges. */
  count = 0;
  /** The bytes in all ranges. */
  bytes = 0;
  /** Three words for each range: its beginning, its end, and the time of its last insertion as a count. */
  #words: Int32Array = new Int32Array(INITIAL_RANGES * WORDS);
  #insertions = 0;

  /** Where range `i` begins. */
  from(i: number): number {
    return this.#words[i * WORDS]!;
  }

  /** The position behind the last byte of range `i`. */
  to(i: number): number {
    return this.#words[i * WORDS + 1]!;
  }

  /** Returns the first range that ends at `position` or behind it; `count` if there is none. */
  search(position: number): number {
    const words = this.#words;
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (((words[middle * WORDS + 1]! - position) | 0) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Returns whether a range that covers from..to would be one more than allowed. */
  isFullFor(from: number, to: number): boolean {
    if (this.count < MAX_RANGES) return false;
    const i = this.search(from);
    return i === this.count || ((this.from(i) - to) | 0) > 0;
  }

  /**
   * Adds from..to, merged with the ranges that it overlaps or touches. The range is the most recent one then. Requires
   * that the set is not full for it.
   */
  add(from: number, to: number): void {
    const first = this.search(from);
    let end = first;
    let merged = 0;
    let mergedFrom = from;
    let mergedTo = to;
    for (; end < this.count && ((this.from(end) - to) | 0) <= 0; end++) {
      const left = this.from(end);
      const right = this.to(end);
      if (((left - mergedFrom) | 0) < 0) mergedFrom = left;
      if (((right - mergedTo) | 0) > 0) mergedTo = right;
      merged += (right - left) | 0;
    }
    if (end === first) this.#open(first);
    else this.#close(first + 1, end);
    const words = this.#words;
    words[first * WORDS] = mergedFrom;
    words[first * WORDS + 1] = mergedTo;
    this.#insertions = (this.#insertions + 1) | 0;
    words[first * WORDS + 2] = this.#insertions;
    this.bytes += ((mergedTo - mergedFrom) | 0) - merged;
  }

  /**
   * Removes the ranges that begin at `position` or in front of it, and returns the end of the last of these if it is
   * behind `position`, otherwise `position`. No other range touches it, as ranges are not adjacent.
   */
  takeUpTo(position: number): number {
    let end = position;
    let i = 0;
    for (; i < this.count && ((this.from(i) - position) | 0) <= 0; i++) {
      const right = this.to(i);
      this.bytes -= (right - this.from(i)) | 0;
      if (((right - end) | 0) > 0) end = right;
    }
    if (i > 0) this.#close(0, i);
    return end;
  }

  /**
   * Writes up to `max` ranges as pairs (left, right), the most recent first, each number plus `shift`, and returns how
   * many it wrote.
   */
  writeRecent(target: Int32Array, max: number, shift: number): number {
    const words = this.#words;
    const wanted = Math.min(max, this.count);
    // Age counts from the last insertion; the next range is the youngest one that is older than the one before.
    let older = -1;
    for (let written = 0; written < wanted; written++) {
      let best = -1;
      let bestAge = 0;
      for (let i = 0; i < this.count; i++) {
        const age = (this.#insertions - words[i * WORDS + 2]!) | 0;
        if (age > older && (best < 0 || age < bestAge)) {
          best = i;
          bestAge = age;
        }
      }
      older = bestAge;
      target[2 * written] = (words[best * WORDS]! + shift) | 0;
      target[2 * written + 1] = (words[best * WORDS + 1]! + shift) | 0;
    }
    return wanted;
  }

  /** Makes room for one range at index `i`. */
  #open(i: number): void {
    const needed = (this.count + 1) * WORDS;
    if (needed > this.#words.length) {
      const larger = new Int32Array(Math.min(this.#words.length * 2, MAX_RANGES * WORDS));
      larger.set(this.#words);
      this.#words = larger;
    }
    this.#words.copyWithin((i + 1) * WORDS, i * WORDS, this.count * WORDS);
    this.count++;
  }

  /** Removes the ranges first..end - 1. */
  #close(first: number, end: number): void {
    if (first === end) return;
    this.#words.copyWithin(first * WORDS, end * WORDS, this.count * WORDS);
    this.count -= end - first;
  }
}

/** The words of one range. */
const WORDS = 3;

/** The ranges for which there is space at first. */
const INITIAL_RANGES = 8;
