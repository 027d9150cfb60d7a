/**
 * The bytes of a file that a reader has not taken yet. What it holds is bounded by what the reader asks for at once.
 * @module
 */

export class ByteQueue {
  bytes: Uint8Array = new Uint8Array(0);
  view: DataView = new DataView(this.bytes.buffer);
  /** The offset in `bytes` of the next byte. */
  at = 0;
  /** The offset in the file of the next byte. */
  offset = 0;
  /** Bytes that are to be passed over before the next one, and are not there yet. */
  #toSkip = 0;

  /** Adds bytes. They are not kept beyond `keep`. */
  add(chunk: Uint8Array): void {
    const rest = this.bytes.subarray(this.at);
    if (rest.length === 0) {
      this.bytes = chunk;
    } else {
      this.bytes = new Uint8Array(rest.length + chunk.length);
      this.bytes.set(rest);
      this.bytes.set(chunk, rest.length);
    }
    this.at = 0;
    this.view = new DataView(this.bytes.buffer, this.bytes.byteOffset, this.bytes.byteLength);
    const toSkip = this.#toSkip;
    this.#toSkip = 0;
    this.skip(toSkip);
  }

  /** Copies what has not been taken, so that the caller may use the memory of the last chunk again. */
  keep(): void {
    this.bytes = this.bytes.slice(this.at);
    this.at = 0;
    this.view = new DataView(this.bytes.buffer);
  }

  /** Whether so many bytes can be read at `at`. */
  has(count: number): boolean {
    return this.#toSkip === 0 && this.bytes.length - this.at >= count;
  }

  /** Passes over so many bytes, also those that are still to come. */
  skip(count: number): void {
    const there = Math.min(count, this.bytes.length - this.at);
    this.at += there;
    this.offset += there;
    this.#toSkip += count - there;
  }

  /** Whether everything that was added has been taken, and nothing is to be passed over any more. */
  get isEmpty(): boolean {
    return this.#toSkip === 0 && this.at === this.bytes.length;
  }

  /** The offset behind the last byte that was added, in the file. */
  get endOffset(): number {
    return this.offset + this.bytes.length - this.at;
  }
}
