/**
 * Packets in a byte stream, each behind its length as 32-bit big-endian number: the framing of QEMU's
 * [`-netdev stream`](https://www.qemu.org/docs/master/system/invocation.html) and of passt.
 * @module
 */
import { MAX_PACKET_LENGTH } from '../packet/virtio.ts';

/** Bytes of the length in front of each packet. */
export const LENGTH_PREFIX = 4;

/** Takes a stream apart, wherever its chunks are cut. */
export class LengthPrefixReader {
  readonly #onPacket: (buffer: Buffer, offset: number, length: number) => void;
  /** A packet, with its prefix, that began in one chunk and did not end there; made when needed. */
  #partial: Buffer | undefined;
  #partialLength = 0;

  /** @param onPacket gets a range of a chunk, or of memory that is used again after the call. */
  constructor(onPacket: (buffer: Buffer, offset: number, length: number) => void) {
    this.#onPacket = onPacket;
  }

  /** Takes the next chunk; false if it holds a length of 0 or above 65,535: the stream is lost. */
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

  /** Adds to the partial packet; returns where the chunk goes on, -1 if its length is not one. */
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
