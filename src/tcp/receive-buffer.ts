/**
 * The bytes that arrived and that the application has not yet read: those in order, and behind holes the ranges that
 * arrived out of order.
 *
 * Every byte is copied to its final place when it arrives, so filling a hole moves nothing. A slab that is held for one
 * byte costs as much as a full one, and is charged so; a hostile peer can thereby make a connection hold at most its
 * receive window, rounded up to whole slabs.
 * @module
 */
import { type BufferMemory, MAX_BUFFER } from './memory.ts';
import { RangeSet } from './ranges.ts';
import { SlabQueue } from './slab-queue.ts';

/**
 * One per connection. It holds no slab while it is empty.
 *
 * While `BufferMemory.isTight`, the window must not grow: its right edge stays where it is, or moves to
 * RCV.NXT + `spare` if that is further.
 */
export class ReceiveBuffer {
  /** The bytes in order that were not yet read. */
  available = 0;
  /**
   * The first bytes of the last insertion that were already stored, as offsets from the RCV.NXT before it; -1 if there
   * were none. They are for a DSACK block (RFC 2883).
   */
  duplicateFrom = -1;
  duplicateTo = -1;
  /** The last insertion would have made one range more than allowed. */
  hadTooManyRanges = false;

  readonly #slabs: SlabQueue;
  /** The position of RCV.NXT in `#ranges`, modulo 2^32. It is arbitrary, and need not move, while there are none. */
  #position = 0;
  /** Undefined while nothing is held out of order. */
  #ranges: RangeSet | undefined;

  constructor(memory: BufferMemory) {
    this.#slabs = new SlabQueue(memory);
  }

  /** The bytes held out of order. */
  get outOfOrder(): number {
    return this.#ranges === undefined ? 0 : this.#ranges.bytes;
  }

  /** The bytes of the slabs held. */
  get charged(): number {
    return this.#slabs.charged;
  }

  /** The bytes of the large slabs held. */
  get large(): number {
    return this.#slabs.large;
  }

  /** How many bytes from RCV.NXT on there is a place for without another large slab. */
  get spare(): number {
    return this.#slabs.spareAt(this.available);
  }

  /**
   * Stores source[start..end), which begins `offset` >= 0 bytes behind RCV.NXT, and returns by how many bytes RCV.NXT
   * advances. The result is 0 if the bytes are out of order or were not stored, and less than their number if the
   * memory ends within them. The caller has trimmed them to the window.
   *
   * Bytes that are stored already stay as they are. `duplicateFrom` and `duplicateTo` tell which those were.
   */
  insert(source: Uint8Array, start: number, end: number, offset: number): number {
    this.duplicateFrom = -1;
    this.duplicateTo = -1;
    this.hadTooManyRanges = false;
    if (start >= end) return 0;
    if (offset !== 0 || this.#ranges !== undefined) {
      return this.#insertAmongRanges(source, start, end, offset);
    }
    const { available } = this;
    const wanted = Math.min(available + end - start, MAX_BUFFER);
    if (wanted <= available) return 0;
    const count = this.#slabs.hold(available, wanted) - available;
    if (count === 0) return 0;
    this.#slabs.copyIn(source, start, start + count, available);
    this.available = available + count;
    return count;
  }

  /**
   * Writes the SACK blocks (RFC 2018 section 4) as pairs of left and right edge, given RCV.NXT, and returns how many it
   * wrote. The first is the range that the last insertion out of order belongs to; the others follow by age.
   */
  sackBlocks(target: Int32Array, rcvNxt: number, max: number): number {
    if (this.#ranges === undefined) return 0;
    return this.#ranges.writeRecent(target, max, (rcvNxt - this.#position) | 0);
  }

  /** Moves up to `length` bytes in order to `target` from `at` on, and returns how many. */
  read(target: Uint8Array, at: number, length: number): number {
    const count = Math.min(length, this.available);
    if (count <= 0) return 0;
    this.#slabs.copyOut(0, count, target, at);
    this.available -= count;
    if (this.available === 0 && this.#ranges === undefined) this.#slabs.truncate(0);
    else this.#slabs.consume(count);
    return count;
  }

  /**
   * Forgets what arrived out of order, and returns by how many bytes that reduces the slabs held. RFC 2018 section 8
   * allows it even for bytes that were reported in a SACK block.
   */
  discardOutOfOrder(): number {
    if (this.#ranges === undefined) return 0;
    const before = this.#slabs.charged;
    this.#ranges = undefined;
    this.#slabs.truncate(this.available);
    return before - this.#slabs.charged;
  }

  /** Gives all memory back. The buffer is empty then. */
  destroy(): void {
    this.available = 0;
    this.#ranges = undefined;
    this.#slabs.destroy();
  }

  #insertAmongRanges(source: Uint8Array, start: number, end: number, offset: number): number {
    const count = this.#makePlace(end - start, offset);
    if (count <= 0) return 0;
    this.#ranges ??= new RangeSet();
    const ranges = this.#ranges;
    const first = (this.#position + offset) | 0;
    const last = (first + count) | 0;

    let at = first;
    for (let i = ranges.search(first); i < ranges.count; i++) {
      const from = ranges.from(i);
      const to = ranges.to(i);
      if (((from - last) | 0) >= 0) break;
      if (((at - from) | 0) < 0) {
        this.#store(source, start, first, at, from, offset);
        at = from;
      }
      const stop = ((to - last) | 0) < 0 ? to : last;
      if (((at - stop) | 0) >= 0) continue;
      if (this.duplicateFrom < 0) {
        this.duplicateFrom = offset + ((at - first) | 0);
        this.duplicateTo = offset + ((stop - first) | 0);
      }
      at = stop;
    }
    if (at !== last) this.#store(source, start, first, at, last, offset);

    if (offset !== 0) {
      ranges.add(first, last);
      return 0;
    }
    const next = ranges.takeUpTo(last);
    if (ranges.count === 0) this.#ranges = undefined;
    const advance = (next - this.#position) | 0;
    this.#position = next;
    this.available += advance;
    return advance;
  }

  /**
   * Takes the slabs for `length` bytes at this offset, and returns for how many bytes from there on they suffice.
   *
   * Bytes in order take the place of those out of order when the memory is used up. Bytes out of order are stored as a
   * whole or not at all, and take no new slab while memory is tight.
   */
  #makePlace(length: number, offset: number): number {
    const from = this.available + offset;
    const to = Math.min(from + length, MAX_BUFFER);
    if (from >= to) return 0;
    if (offset === 0) {
      const held = this.#slabs.hold(from, to);
      if (held === to || this.#ranges === undefined) return held - from;
      this.discardOutOfOrder();
      return this.#slabs.hold(from, to) - from;
    }
    const first = (this.#position + offset) | 0;
    this.hadTooManyRanges = this.#ranges?.isFullFor(first, (first + to - from) | 0) ?? false;
    if (this.hadTooManyRanges || !this.#slabs.canHoldEasily(from, to)) return 0;
    return this.#slabs.hold(from, to) - from;
  }

  /** Stores the positions from..to of an insertion whose first byte is source[start], at position `first`. */
  #store(
    source: Uint8Array,
    start: number,
    first: number,
    from: number,
    to: number,
    offset: number
  ): void {
    const skipped = (from - first) | 0;
    const begin = start + skipped;
    const count = (to - from) | 0;
    this.#slabs.copyIn(source, begin, begin + count, this.available + offset + skipped);
  }
}
