/**
 * The blocks of a pcapng file that comes in pieces of any length, so that a file that is cut off ends with a whole block.
 * @module
 */

/** Reads the little-endian file that a gateway writes. */
export class PcapngBlocks {
  #rest: Buffer = Buffer.alloc(0);
  #bytes = 0;
  #packets = 0;

  /** The bytes of all blocks that `take` has returned. */
  get bytes(): number {
    return this.#bytes;
  }

  /** How many of the blocks are packets. */
  get packets(): number {
    return this.#packets;
  }

  /**
   * Returns the blocks that are whole now.
   *
   * @throws {RangeError} if the bytes are no pcapng file.
   */
  take(piece: Uint8Array): Uint8Array {
    const bytes = Buffer.concat([this.#rest, piece]);
    let end = 0;
    while (end + HEADER_LENGTH <= bytes.length) {
      const type = bytes.readUInt32LE(end);
      const length = bytes.readUInt32LE(end + 4);
      if (length < SHORTEST || length > LONGEST) {
        throw new RangeError(`a block of the capture has ${length} bytes`);
      }
      if (end + length > bytes.length) break;
      if (type === ENHANCED_PACKET_BLOCK) this.#packets++;
      end += length;
    }
    this.#rest = bytes.subarray(end);
    this.#bytes += end;
    return bytes.subarray(0, end);
  }
}

/** The type and the length of a block. */
const HEADER_LENGTH = 8;
/** The type, the length, and the length again. */
const SHORTEST = 12;
/** No block of a gateway has more: a packet of 256 bytes with its options. */
const LONGEST = 2 ** 16;
const ENHANCED_PACKET_BLOCK = 6;
