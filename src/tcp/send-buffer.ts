/**
 * The bytes that the application wrote and that the peer has not yet acknowledged.
 * @module
 */
import { type BufferMemory, LARGE_SLAB, MAX_BUFFER } from './memory.ts';
import { SlabQueue } from './slab-queue.ts';

/** One per connection. Its front is the byte with the sequence number SND.UNA. It holds no slab while it is empty. */
export class SendBuffer {
  /** The bytes held. */
  length = 0;

  readonly #slabs: SlabQueue;
  #capacity: number = LARGE_SLAB;

  constructor(memory: BufferMemory) {
    this.#slabs = new SlabQueue(memory);
  }

  /** How many bytes it may hold: 64 KiB at first, at most 4 MiB. Less than `length` only stops further writes. */
  get capacity(): number {
    return this.#capacity;
  }

  set capacity(bytes: number) {
    this.#capacity = Math.min(bytes, MAX_BUFFER);
  }

  /** How many more bytes the capacity allows; `write` may take less when the memory of the endpoint is used up. */
  get room(): number {
    return Math.max(0, this.#capacity - this.length);
  }

  /** The bytes of the slabs held. */
  get charged(): number {
    return this.#slabs.charged;
  }

  /** The bytes of the large slabs held. */
  get large(): number {
    return this.#slabs.large;
  }

  /**
   * Copies bytes[from..] as far as there is room and memory, and returns how many bytes it took. It takes at least one
   * byte if it is empty.
   */
  write(bytes: Uint8Array, from: number): number {
    const wanted = Math.min(bytes.length - from, this.room);
    if (wanted <= 0) return 0;
    const taken = this.#slabs.hold(this.length, this.length + wanted) - this.length;
    if (taken === 0) return 0;
    this.#slabs.copyIn(bytes, from, from + taken, this.length);
    this.length += taken;
    return taken;
  }

  /** Copies the bytes offset..offset + length to `target` from `at` on; requires offset + length <= this.length. */
  copy(offset: number, length: number, target: Uint8Array, at: number): void {
    if (length > 0) this.#slabs.copyOut(offset, length, target, at);
  }

  /** Forgets `count` bytes at the front, which were acknowledged; requires count <= this.length. */
  drop(count: number): void {
    this.length -= count;
    if (this.length === 0) this.#slabs.truncate(0);
    else this.#slabs.consume(count);
  }

  /** Gives all memory back. The buffer is empty then. */
  destroy(): void {
    this.length = 0;
    this.#slabs.destroy();
  }
}
