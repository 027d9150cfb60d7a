/**
 * The `DataView` of the buffer that packets are in. A batch of packets is in one buffer, so it is made
 * anew only when the buffer changes.
 * @module
 */
export class PacketView {
  #buffer: Uint8Array = EMPTY;
  #view: DataView = new DataView(EMPTY.buffer);

  /** Keeps a reference to the buffer until the next call with another one. */
  of(buffer: Uint8Array): DataView {
    if (buffer !== this.#buffer) {
      this.#buffer = buffer;
      this.#view = new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
    }
    return this.#view;
  }
}

const EMPTY: Uint8Array = new Uint8Array(0);
