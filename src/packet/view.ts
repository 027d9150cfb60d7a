/**
 * Caches the `DataView` of a buffer. A batch of packets is in one buffer, so a new view is needed only when
 * the buffer changes.
 * @module
 */
export class PacketView {
  #buffer: Uint8Array = EMPTY;
  #view: DataView = new DataView(EMPTY.buffer);

  /** Returns a view of the buffer, and keeps a reference to it until the next call with another buffer. */
  of(buffer: Uint8Array): DataView {
    if (buffer !== this.#buffer) {
      this.#buffer = buffer;
      this.#view = new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
    }
    return this.#view;
  }
}

const EMPTY: Uint8Array = new Uint8Array(0);
