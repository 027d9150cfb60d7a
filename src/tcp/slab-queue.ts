/**
 * A queue of bytes in slabs: what a send buffer and a receive buffer have in common.
 *
 * Bytes are addressed by their offset from the front of the queue. Each offset belongs to one place in one slab, so a
 * byte that arrives out of order is copied to the place where it stays. The queue does not know which bytes were
 * written; its owner does.
 * @module
 */
import { type BufferMemory, LARGE_SLAB, SMALL_SLAB } from './memory.ts';

/** The slabs of one buffer. An empty queue holds no slab. */
export class SlabQueue {
  readonly memory: BufferMemory;
  /**
   * The first slab has `#firstSize` bytes, all others `LARGE_SLAB`. Elements that are undefined or absent are
   * places without a slab yet, in front of data that arrived out of order. The array is made at the first use, and keeps its first element
   * when the queue is empty, so that a connection that sends now and then allocates nothing.
   */
  #slabs: (Buffer | undefined)[] | undefined;
  #firstSize: number = LARGE_SLAB;
  /** Where the front of the queue is in the first slab, below `#firstSize`. */
  #front = 0;
  /** The number of slabs held. */
  #count = 0;

  constructor(memory: BufferMemory) {
    this.memory = memory;
  }

  /** The bytes of the slabs held: what this queue costs. */
  get charged(): number {
    return this.large + (this.#hasSmall() ? SMALL_SLAB : 0);
  }

  /** The bytes of the large slabs held: what counts in `BufferMemory.limit`. */
  get large(): number {
    return (this.#count - (this.#hasSmall() ? 1 : 0)) * LARGE_SLAB;
  }

  /**
   * Takes the slabs that the offsets from `from` up to `to` lack, and returns the offset up to which all are there,
   * which is less than `to` when the memory is used up. Requires from < to.
   */
  hold(from: number, to: number): number {
    if (this.#count === 0) {
      this.#begin(to);
    } else if (this.#isOnlySmall() && this.#front + to > SMALL_SLAB) {
      // Moving up to 4 KiB to the beginning of the slab is cheaper than holding a large slab for a few bytes.
      if (to <= SMALL_SLAB || !this.memory.canTakeLarge(1)) this.#compact();
    }
    const slabs = this.#slabs!;
    const last = this.#indexOf(to - 1);
    for (let i = this.#indexOf(from); i <= last; i++) {
      if (slabs[i] !== undefined) continue;
      const slab =
        i === 0 && this.#firstSize === SMALL_SLAB
          ? this.memory.takeSmall()
          : this.memory.takeLarge();
      if (slab === undefined) {
        // An empty queue gets its small slab in any case.
        if (this.#count === 0 && from < SMALL_SLAB) {
          this.#firstSize = SMALL_SLAB;
          slabs[0] = this.memory.takeSmall();
          slabs.length = 1;
          this.#count = 1;
          return Math.min(to, SMALL_SLAB);
        }
        return Math.max(from, this.#startOf(i));
      }
      slabs[i] = slab;
      this.#count++;
    }
    return to;
  }

  /** Returns whether `hold(from, to)` takes no large slab, or may take all it needs without making memory tight. */
  canHoldEasily(from: number, to: number): boolean {
    if (this.#count === 0 && to <= SMALL_SLAB) return true;
    const missing = this.#missing(from, to);
    return missing === 0 || (!this.memory.isTight && this.memory.canTakeLarge(missing));
  }

  /** Returns how many bytes from this offset on there is a place for without another large slab. */
  spareAt(offset: number): number {
    if (this.#count === 0) return Math.max(0, SMALL_SLAB - offset);
    if (this.#isOnlySmall()) return SMALL_SLAB - offset;
    const slabs = this.#slabs!;
    let i = this.#indexOf(offset);
    if (slabs[i] === undefined) return 0;
    while (slabs[i + 1] !== undefined) i++;
    return this.#startOf(i + 1) - offset;
  }

  /** Copies source[start..end) to the places from this offset on, for which `hold` has taken the slabs. */
  copyIn(source: Uint8Array, start: number, end: number, offset: number): void {
    const slabs = this.#slabs!;
    let i = this.#indexOf(offset);
    let at = this.#front + offset - this.#slabStart(i);
    for (;;) {
      const slab = slabs[i]!;
      const count = Math.min(end - start, slab.length - at);
      copyBytes(source, start, start + count, slab, at);
      start += count;
      if (start === end) return;
      i++;
      at = 0;
    }
  }

  /** Copies `length` bytes from this offset on, all of which were written, to `target` from `at` on. */
  copyOut(offset: number, length: number, target: Uint8Array, at: number): void {
    const slabs = this.#slabs!;
    let i = this.#indexOf(offset);
    let from = this.#front + offset - this.#slabStart(i);
    for (;;) {
      const slab = slabs[i]!;
      const count = Math.min(length, slab.length - from);
      copyBytes(slab, from, from + count, target, at);
      length -= count;
      if (length === 0) return;
      at += count;
      i++;
      from = 0;
    }
  }

  /** Takes `count` bytes from the front, and gives the slabs back that are in front of it then. */
  consume(count: number): void {
    this.#front += count;
    while (this.#front >= this.#firstSize) {
      const slabs = this.#slabs!;
      const slab = slabs[0];
      if (slab !== undefined) this.#give(slab);
      if (slabs.length === 1) slabs[0] = undefined;
      else slabs.shift();
      this.#front -= this.#firstSize;
      this.#firstSize = LARGE_SLAB;
    }
  }

  /** Gives the slabs back that hold none of the offsets below `length`; none are left if it is 0. */
  truncate(length: number): void {
    if (this.#count === 0) return;
    const slabs = this.#slabs!;
    const keep = length === 0 ? 0 : this.#indexOf(length - 1) + 1;
    for (let i = keep; i < slabs.length; i++) {
      const slab = slabs[i];
      if (slab === undefined) continue;
      this.#give(slab);
      slabs[i] = undefined;
    }
    slabs.length = Math.min(slabs.length, Math.max(keep, 1));
  }

  /** Gives everything back, the array too. */
  destroy(): void {
    this.truncate(0);
    this.#slabs = undefined;
  }

  /** Decides the size of the first slab of an empty queue, which is to hold the offsets below `to`. */
  #begin(to: number): void {
    this.#slabs ??= [undefined];
    this.#slabs.length = 1;
    this.#front = 0;
    this.#firstSize = to <= SMALL_SLAB ? SMALL_SLAB : LARGE_SLAB;
  }

  #hasSmall(): boolean {
    return this.#count > 0 && this.#firstSize === SMALL_SLAB && this.#slabs![0] !== undefined;
  }

  #isOnlySmall(): boolean {
    return this.#count === 1 && this.#hasSmall();
  }

  /** Moves the content of the only slab to its beginning. */
  #compact(): void {
    this.#slabs![0]!.copyWithin(0, this.#front);
    this.#front = 0;
  }

  #missing(from: number, to: number): number {
    const slabs = this.#slabs;
    // The first slab of an empty queue that begins with these offsets is a large one.
    if (this.#count === 0)
      return Math.floor((to - 1) / LARGE_SLAB) - Math.floor(from / LARGE_SLAB) + 1;
    if (this.#isOnlySmall() && to <= SMALL_SLAB) return 0;
    let missing = 0;
    const last = this.#indexOf(to - 1);
    for (let i = this.#indexOf(from); i <= last; i++) if (slabs![i] === undefined) missing++;
    return missing;
  }

  /** Which slab an offset is in. */
  #indexOf(offset: number): number {
    const behindFirst = this.#front + offset - this.#firstSize;
    return behindFirst < 0 ? 0 : 1 + ((behindFirst / LARGE_SLAB) | 0);
  }

  /** How far slab `i` begins behind the beginning of the first one. */
  #slabStart(i: number): number {
    return i === 0 ? 0 : this.#firstSize + (i - 1) * LARGE_SLAB;
  }

  /** The offset at which slab `i` begins; negative for the first one once bytes of it were taken out. */
  #startOf(i: number): number {
    return this.#slabStart(i) - this.#front;
  }

  #give(slab: Buffer): void {
    this.memory.give(slab);
    this.#count--;
  }
}

/**
 * Copies source[start..end) to `target` from `at` on.
 *
 * `Buffer.copy` costs less than `set`, which needs a view of the part that is to be copied; a loop costs less than
 * either for a few bytes.
 */
function copyBytes(
  source: Uint8Array,
  start: number,
  end: number,
  target: Uint8Array,
  at: number
): void {
  if (end - start > FEW_BYTES) {
    bufferCopy.call(source as Buffer, target, at, start, end);
    return;
  }
  while (start < end) target[at++] = source[start++]!;
}

/** It works on any Uint8Array. */
const bufferCopy = Buffer.prototype.copy;

/** Up to this many bytes a loop is faster. */
const FEW_BYTES = 32;
