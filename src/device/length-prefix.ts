/**
 * Packets in a byte stream, each behind its length as a 32-bit big-endian number. This is the framing of QEMU's
 * [`-netdev stream`](https://www.qemu.org/docs/master/system/invocation.html) and of passt.
 * @module
 */
import { MAX_PACKET_LENGTH } from '../packet/virtio.ts';

/** Bytes of the length in front of each packet. */
export const LENGTH_PREFIX = 4;

/** Splits a stream into packets, wherever its chunks begin and end. */
export class LengthPrefixReader {
  readonly #onPacket: (buffer: Buffer, offset: number, length: number) => void;
  /** A packet, with its prefix, that began in one chunk and does not end there; allocated when needed. */
  #partial: Buffer | undefined;
  #partialLength = 0;

  /** @param onPacket gets a range of a chunk, or of memory that is reused after the call. */
  constructor(onPacket: (buffer: Buffer, offset: number, length: number) => void) {
    this.#onPacket = onPacket;
  }

  /** Takes the next chunk. Returns false if a length is 0 or above 65,535: the stream cannot be read on. */
  push(chunk: Buffer): boolean {
    let at = 0;
    while (at < chunk.length) {
      if (this.#partialLength === 0 && chunk.length - at >= LENGTH_PREFIX) {
        const length = chunk.readUInt32BE(at);
        if (!isPacketLength(length)) return false;
        if (chunk.length - at - LENGTH_PREFIX >= length) {
          this.#onPacket(chunk, at + LENGTH_PREFIX, length);
          at += LENGTH_PREFIX + length;
          continue;
        }
      }
      at = this.#collect(chunk, at);
      if (at < 0) return false;
    }
    return true;
  }

  /** Adds to the partial packet. Returns the offset where the chunk goes on, or -1 if the length is invalid. */
  #collect(chunk: Buffer, at: number): number {
    this.#partial ??= Buffer.allocUnsafeSlow(LENGTH_PREFIX + MAX_PACKET_LENGTH);
    const partial = this.#partial;
    const isPrefixKnown = this.#partialLength >= LENGTH_PREFIX;
    const wanted = LENGTH_PREFIX + (isPrefixKnown ? partial.readUInt32BE(0) : 0);
    const taken = Math.min(wanted - this.#partialLength, chunk.length - at);
    chunk.copy(partial, this.#partialLength, at, at + taken);
    this.#partialLength += taken;
    if (this.#partialLength === wanted) {
      if (!isPrefixKnown) return isPacketLength(partial.readUInt32BE(0)) ? at + taken : -1;
      this.#partialLength = 0;
      this.#onPacket(partial, LENGTH_PREFIX, wanted - LENGTH_PREFIX);
    }
    return at + taken;
  }
}

function isPacketLength(length: number): boolean {
  return length > 0 && length <= MAX_PACKET_LENGTH;
}
