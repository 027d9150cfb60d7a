/**
 * Random 32-bit numbers that nobody can predict, taken from the random source in blocks.
 * @module
 */

/** Takes a block of bytes at a time, because a call of the system's random source costs about a microsecond. */
export class RandomWords {
  readonly #random: (bytes: number) => Uint8Array;
  #view: DataView = new DataView(new ArrayBuffer(0));
  #at = 0;

  /** @param random returns so many random bytes. */
  constructor(random: (bytes: number) => Uint8Array) {
    this.#random = random;
  }

  /** Returns an unsigned 32-bit integer. */
  next(): number {
    if (this.#at + 4 > this.#view.byteLength) {
      const block = this.#random(BLOCK_LENGTH);
      this.#view = new DataView(block.buffer, block.byteOffset, block.byteLength);
      this.#at = 0;
    }
    const word = this.#view.getUint32(this.#at);
    this.#at += 4;
    return word;
  }
}

const BLOCK_LENGTH = 256;
