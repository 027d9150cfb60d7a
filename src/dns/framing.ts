/**
 * Messages on a TCP stream: each follows its length in two bytes
 * ([RFC 7766 section 8](https://www.rfc-editor.org/rfc/rfc7766#section-8)).
 * @module
 */

/** Puts the length in front of `message`; both are in one buffer, so that they leave in one segment. */
export function encodeFrame(message: Uint8Array): Uint8Array {
  const frame = Buffer.allocUnsafe(LENGTH_BYTES + message.length);
  frame.writeUInt16BE(message.length);
  frame.set(message, LENGTH_BYTES);
  return frame;
}

/**
 * Splits a stream, which arrives in arbitrary pieces, into messages. It keeps all bytes from `push`
 * until `next` takes them, so stop pushing while messages wait.
 */
export class FrameDecoder {
  #chunks: Buffer[] = [];
  #length = 0;

  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#length += chunk.length;
  }

  /** Takes the next whole message; returns `undefined` if it has not arrived yet. */
  next(): Buffer | undefined {
    if (this.#length < LENGTH_BYTES) return undefined;
    const frameLength = LENGTH_BYTES + this.#peekLength();
    if (this.#length < frameLength) return undefined;
    // The chunks are joined only when a frame is whole: single bytes would else be copied again and again.
    const buffer = this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks);
    this.#length -= frameLength;
    this.#chunks = this.#length === 0 ? [] : [buffer.subarray(frameLength)];
    return buffer.subarray(LENGTH_BYTES, frameLength);
  }

  #peekLength(): number {
    const first = this.#chunks[0]!;
    const low = first.length > 1 ? first[1]! : this.#chunks[1]![0]!;
    return (first[0]! << 8) | low;
  }
}

const LENGTH_BYTES = 2;
