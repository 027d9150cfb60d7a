/**
 * The receive window of one connection: what the peer may send
 * ([RFC 9293 section 3.8.6](https://www.rfc-editor.org/rfc/rfc9293#section-3.8.6)).
 *
 * - The right edge never moves back, because the peer may have sent up to it already.
 * - The edge advances in steps that are worth a segment (silly window avoidance, section 3.8.6.2.2).
 * - The capacity begins at 64 KiB. It grows to twice what the application read in a round trip, so that a sender with
 *   a full congestion window is not held back, and never shrinks.
 * @module
 */
import { SMALL_SLAB } from './memory.ts';
import { seqDistance } from './sequence.ts';

export class ReceiveWindow {
  /** RCV.NXT. */
  next = 0;
  /** The right edge that was offered: RCV.NXT + RCV.WND. */
  edge = 0;
  /** The shift count that the peer applies to the window field; 0 without the option. */
  scale = 0;
  /** How many bytes are offered when nothing is stored. */
  capacity: number = INITIAL_CAPACITY;
  /** The largest payload that was received, in bytes: what a step of the edge should be worth. */
  largest = 0;
  /** The most that may be offered when nothing is stored; rounding may add `ROUNDING_SLACK`. */
  readonly #maxCapacity: number;
  /** The bytes that were read since `#roundStart`. */
  #read = 0;
  #roundStart = 0;

  /** @param bufferBytes the most that the receive buffer may hold */
  constructor(bufferBytes: number) {
    this.#maxCapacity = bufferBytes - ROUNDING_SLACK;
  }

  /** Returns the window field of our SYN, which is not scaled. Later ones do not take back what the first has offered. */
  offerFirst(spare: number): number {
    if (this.size === 0) this.edge = (this.next + Math.min(spare, FIRST_WINDOW)) | 0;
    return this.size;
  }

  /** Begins with the peer's first sequence number behind its SYN; our SYN has offered a window. */
  open(next: number, offered: number): void {
    this.next = next;
    this.edge = (next + offered) | 0;
  }

  /** RCV.WND in bytes. */
  get size(): number {
    return seqDistance(this.next, this.edge);
  }

  /**
   * Advances the edge, if that is worth it, and returns the window field of a segment that is sent now.
   *
   * @param stored the bytes that the application has not read
   * @param spare the bytes behind RCV.NXT for which there is memory; Infinity while memory is not tight
   */
  offer(stored: number, spare: number): number {
    const wanted = this.#wanted(stored, spare);
    const { size } = this;
    const window = wanted - size >= this.#step(spare) ? wanted : size;
    // The field rounds up, so that the edge does not seem to move back. That may not creep beyond what the buffer may
    // hold, of which nothing, or less than nothing, may be left.
    const unit = 2 ** this.scale;
    const roundedUp = Math.ceil(window / unit);
    const left = Math.min(this.#most - stored, spare) + ROUNDING_SLACK;
    const field = roundedUp * unit <= left ? roundedUp : Math.floor(window / unit);
    const offered = Math.min(field, MAX_FIELD);
    if (offered * unit > size) this.edge = (this.next + offered * unit) | 0;
    return offered;
  }

  /**
   * Returns whether the application has read so much that the peer should learn it now: the peer has at most half of
   * the window left, and the edge can advance by a step.
   */
  isUpdateDue(stored: number, spare: number): boolean {
    const { size } = this;
    return size <= this.#most / 2 && this.#wanted(stored, spare) - size >= this.#step(spare);
  }

  /**
   * Counts bytes that the application has read. Once in a round trip the capacity follows
   * (dynamic right-sizing, as Linux does it).
   *
   * @param rttMs the round-trip time, 0 if it is not known
   * @param mayGrow whether there is memory for a larger window
   */
  onRead(count: number, now: number, rttMs: number, mayGrow: boolean): void {
    this.#read += count;
    if (now - this.#roundStart < Math.max(rttMs, MIN_ROUND_MS)) return;
    const wanted = Math.min(2 * this.#read, this.#maxCapacity);
    if (mayGrow && wanted > this.capacity) this.capacity = wanted;
    this.#read = 0;
    this.#roundStart = now;
  }

  /** What the peer may be offered. */
  #wanted(stored: number, spare: number): number {
    return Math.max(Math.min(this.#most - stored, spare), 0);
  }

  /** `capacity`, as far as the buffer and the window field allow. */
  get #most(): number {
    return Math.min(this.capacity, this.#maxCapacity, MAX_FIELD * 2 ** this.scale);
  }

  /**
   * Returns by how much the edge advances at least. Where memory bounds the window, the small slab that every buffer may
   * have is the buffer, half of which is enough (section 3.8.6.2.2): super-segments are larger than all of it.
   */
  #step(spare: number): number {
    const half = (spare === Number.POSITIVE_INFINITY ? this.#most : SMALL_SLAB) / 2;
    return Math.max(Math.min(half, this.largest), 1);
  }
}

/** The largest window of a SYN or SYN-ACK, which is not scaled. */
export const FIRST_WINDOW = 65_535;
/** The shift count that we offer: windows of up to 8 MiB. */
export const WINDOW_SCALE = 7;
const INITIAL_CAPACITY = 65_536;
const MAX_FIELD = 65_535;
/** The largest shift count that is offered rounds by less than this. */
const ROUNDING_SLACK = 4_096;
const MIN_ROUND_MS = 1;
