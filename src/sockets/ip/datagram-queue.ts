/**
 * A queue of datagrams that is bounded by the memory it takes, and the memory that many queues share.
 * @module
 */

/** A datagram in a queue. */
export interface Queued {
  readonly payload: Uint8Array;
}

/** The bytes that many queues may hold together, as `DatagramQueue.bytes` counts them. */
export class QueueMemory {
  readonly limit: number;
  readonly #parent: QueueMemory | undefined;
  readonly #onRefused: () => void;
  #bytes = 0;

  /**
   * @param limit in bytes
   * @param onRefused called for each datagram for which there is no room
   * @param parent the memory of which this is a part
   */
  constructor(limit: number, onRefused: () => void, parent?: QueueMemory) {
    this.limit = limit;
    this.#onRefused = onRefused;
    this.#parent = parent;
  }

  /** How many bytes the queues hold. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Returns whether there is room for a datagram of so many bytes; if there is not, it counts as refused. */
  admits(bytes: number): boolean {
    if (this.#bytes + bytes > this.limit) {
      this.#onRefused();
      return false;
    }
    return this.#parent === undefined || this.#parent.admits(bytes);
  }

  /** Takes bytes; less than 0 gives them back. */
  take(bytes: number): void {
    this.#bytes += bytes;
    this.#parent?.take(bytes);
  }
}

/** First in, first out. An empty queue holds no memory. */
export class DatagramQueue<T extends Queued> {
  /** The bound in bytes, as `bytes` counts them. */
  limit: number = QUEUE_LIMIT;
  readonly #memory: QueueMemory | undefined;
  #items: T[] | undefined;
  #head = 0;
  #bytes = 0;

  /** @param memory what the queue shares with others; undefined: nothing */
  constructor(memory?: QueueMemory) {
    this.#memory = memory;
  }

  /** The bytes of all payloads, and `DATAGRAM_OVERHEAD` for each datagram. */
  get bytes(): number {
    return this.#bytes;
  }

  get length(): number {
    return this.#items === undefined ? 0 : this.#items.length - this.#head;
  }

  /** Returns whether a datagram with a payload of this length fits. */
  fits(length: number): boolean {
    const bytes = length + DATAGRAM_OVERHEAD;
    if (this.#bytes + bytes > this.limit) return false;
    return this.#memory === undefined || this.#memory.admits(bytes);
  }

  /** Takes the datagram if it fits. */
  push(item: T): boolean {
    if (!this.fits(item.payload.length)) return false;
    this.#items ??= [];
    this.#items.push(item);
    this.#count(item.payload.length + DATAGRAM_OVERHEAD);
    return true;
  }

  peek(): T | undefined {
    return this.#items?.[this.#head];
  }

  shift(): T | undefined {
    const items = this.#items;
    const item = items?.[this.#head];
    if (items === undefined || item === undefined) return undefined;
    this.#count(-(item.payload.length + DATAGRAM_OVERHEAD));
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
    this.#count(-this.#bytes);
  }

  #count(bytes: number): void {
    this.#bytes += bytes;
    this.#memory?.take(bytes);
  }
}

/** The bound of each queue of a socket in bytes. */
export const QUEUE_LIMIT: number = 256 * 1024;

/** The bound of the queues of all sockets of a stack in bytes, unless an option says otherwise. */
export const DEFAULT_QUEUE_BYTES: number = 16 * 1024 ** 2;

/** What the objects of one datagram take in bytes, about: without it, empty datagrams would have no bound. */
export const DATAGRAM_OVERHEAD = 256;

const COMPACT_AT = 64;
