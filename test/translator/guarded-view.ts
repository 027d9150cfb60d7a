/**
 * A view that throws when a byte outside of the packet is read.
 * @module
 */
export class GuardedView extends (DataView as new (
  buffer: ArrayBufferLike,
  offset: number,
  length: number
) => DataView) {
  readonly #start: number;
  readonly #end: number;

  /** Makes a view of the whole buffer; reading outside of `start` to `end` throws. */
  constructor(buffer: Uint8Array, start: number, end: number) {
    super(buffer.buffer, buffer.byteOffset, buffer.byteLength);
    this.#start = start;
    this.#end = end;
  }

  override getUint8(at: number): number {
    this.#check(at, 1);
    return super.getUint8(at);
  }

  override getUint16(at: number, littleEndian?: boolean): number {
    this.#check(at, 2);
    return super.getUint16(at, littleEndian);
  }

  override getInt32(at: number, littleEndian?: boolean): number {
    this.#check(at, 4);
    return super.getInt32(at, littleEndian);
  }

  override getUint32(at: number, littleEndian?: boolean): number {
    this.#check(at, 4);
    return super.getUint32(at, littleEndian);
  }

  #check(at: number, length: number): void {
    if (at >= this.#start && at + length <= this.#end) return;
    throw new Error(
      `bytes ${at} to ${at + length} read, outside of ${this.#start} to ${this.#end}`
    );
  }
}
