/**
 * A bounded first-in first-out queue of packets, which are copied in and out. A slot is allocated at its
 * first use and then kept, so that a queue in steady use allocates nothing.
 * @module
 */
export class PacketQueue {
  readonly capacity: number;
  readonly #slots: Buffer[] = [];
  readonly #lengths: number[] = [];
  /** When each packet is due, in ms. */
  readonly #dues: number[] = [];
  #head = 0;
  #length = 0;

  constructor(capacity: number) {
    this.capacity = capacity;
  }

  /** The number of packets that wait. */
  get length(): number {
    return this.#length;
  }

  /** When the first packet is due, in ms of the caller's clock; Infinity if none waits. */
  get dueMs(): number {
    return this.#length === 0 ? Number.POSITIVE_INFINITY : this.#dues[this.#head]!;
  }

  /**
   * Copies `buffer[offset .. offset + length)` to the end. Returns false if the queue is full.
   *
   * @param dueMs for `dueMs` of the queue, which does not act on it itself
   */
  push(buffer: Buffer, offset: number, length: number, dueMs: number = 0): boolean {
    if (this.#length === this.capacity) return false;
    const index = this.#index(this.#length);
    let slot = this.#slots[index];
    if (slot === undefined || slot.length < length) {
      slot = Buffer.allocUnsafeSlow(Math.max(length, SLOT_LENGTH));
      this.#slots[index] = slot;
    }
    buffer.copy(slot, 0, offset, offset + length);
    this.#lengths[index] = length;
    this.#dues[index] = dueMs;
    this.#length++;
    return true;
  }

  /** Moves the first packet to `buffer` at `offset`. Returns its length, or 0 if none waits. */
  shift(buffer: Buffer, offset: number): number {
    if (this.#length === 0) return 0;
    const length = this.#lengths[this.#head]!;
    this.#slots[this.#head]!.copy(buffer, offset, 0, length);
    this.#head = this.#index(1);
    this.#length--;
    return length;
  }

  /** Exchanges the last two packets, not the times at which they are due. Returns false if fewer wait. */
  swapLast(): boolean {
    if (this.#length < 2) return false;
    const last = this.#index(this.#length - 1);
    const before = this.#index(this.#length - 2);
    const slot = this.#slots[last]!;
    const length = this.#lengths[last]!;
    this.#slots[last] = this.#slots[before]!;
    this.#lengths[last] = this.#lengths[before]!;
    this.#slots[before] = slot;
    this.#lengths[before] = length;
    return true;
  }

  /** Inverts one bit of the last packet, which must exist and have that bit. */
  flipLast(bit: number): void {
    this.#slots[this.#index(this.#length - 1)]![bit >>> 3]! ^= 1 << (bit & 7);
  }

  /** Drops all packets and frees the slots. */
  clear(): void {
    this.#length = 0;
    this.#head = 0;
    this.#slots.length = 0;
  }

  /** Returns the slot `steps` behind the head. Slots are created in order, so the arrays have no holes. */
  #index(steps: number): number {
    const index = this.#head + steps;
    return index < this.capacity ? index : index - this.capacity;
  }
}

/** Enough for a packet of the usual MTU of 1500; a longer packet gets a slot of its own length. */
const SLOT_LENGTH = 2048;
