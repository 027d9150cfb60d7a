/**
 * A queue of datagrams that is bounded by the memory it takes.
 * @module
 */

/** A datagram in a queue. */
export interface Queued {
  readonly payload: Uint8Array;
}

/** First in, first out. An empty queue holds no memory. */
export class DatagramQueue<T extends Queued> {
  /** The bound in bytes, as `bytes` counts them. */
  limit: number;
  #items: T[] | undefined;
  #head = 0;
  #bytes = 0;

  constructor(limit: number = QUEUE_LIMIT) {
    this.limit = limit;
  }

  /** The bytes of all payloads, and `DATAGRAM_OVERHEAD` for each datagram. */
  get bytes(): number {
    return this.#bytes;
  }

  get length(): number {
    return this.#items === undefined ? 0 : this.#items.length - this.#head;
  }

  /** Whether a datagram with a payload of this length would fit. */
  fits(length: number): boolean {
    return this.#bytes + length + DATAGRAM_OVERHEAD <= this.limit;
  }

  /** Takes the datagram if it fits. */
  push(item: T): boolean {
    if (!this.fits(item.payload.length)) return false;
    this.#items ??= [];
    this.#items.push(item);
    this.#bytes += item.payload.length + DATAGRAM_OVERHEAD;
    return true;
  }

  peek(): T | undefined {
    return this.#items?.[this.#head];
  }

  shift(): T | undefined {
    const items = this.#items;
    const item = items?.[this.#head];
    if (items === undefined || item === undefined) return undefined;
    this.#bytes -= item.payload.length + DATAGRAM_OVERHEAD;
    this.#head++;
    if (this.#head === items.length) {
      this.#items = undefined;
      this.#head = 0;
    } else if (this.#head >= COMPACT_AT && this.#head * 2 >= items.length) {
      items.splice(0, this.#head);
      this.#head = 0;
    }
    return item;
  }

  /** Returns the datagrams that wait, in their order. */
  values(): readonly T[] {
    return this.#items?.slice(this.#head) ?? [];
  }

  clear(): void {
    this.#items = undefined;
    this.#head = 0;
    this.#bytes = 0;
  }
}

/** The bound of each queue of a socket in bytes. */
export const QUEUE_LIMIT: number = 256 * 1024;

/** What the objects of one datagram take in bytes, about: without it, empty datagrams would have no bound. */
export const DATAGRAM_OVERHEAD = 256;

const COMPACT_AT = 64;
