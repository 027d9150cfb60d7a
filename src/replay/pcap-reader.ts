/**
 * Reads the classic pcap format
 * ([draft-ietf-opsawg-pcap](https://datatracker.ietf.org/doc/html/draft-ietf-opsawg-pcap)) in both byte orders, with
 * times in microseconds or nanoseconds. `capture-reader.ts` finds out which format a file has.
 *
 * ```
 * file:   magic (4), version (2 + 2), reserved (8), snap length (4), link type (4)
 * packet: seconds (4), fraction (4), captured length (4), length on the wire (4), the captured bytes
 * ```
 * @module
 */
import { CaptureError } from '../errors.ts';
import type { ByteQueue } from './byte-queue.ts';
import { type CapturedPacket, MAX_CAPTURED_BYTES } from './captured-packet.ts';

export class PcapReader {
  readonly name = 'pcap';
  readonly #queue: ByteQueue;
  readonly #packet: CapturedPacket;
  readonly #isLittleEndian: boolean;
  /** How many of the units in which fractions are given make a millisecond. */
  readonly #unitsPerMs: number;
  /** The link type; undefined before the header of the file was read. */
  #linkType: number | undefined;

  constructor(queue: ByteQueue, packet: CapturedPacket, isLittleEndian: boolean, isNano: boolean) {
    this.#queue = queue;
    this.#packet = packet;
    this.#isLittleEndian = isLittleEndian;
    this.#unitsPerMs = isNano ? 1e6 : 1e3;
  }

  /** Whether a file may end where the reader is. */
  get isBetweenRecords(): boolean {
    return this.#linkType !== undefined;
  }

  /** What the reader is in, for the message about a cut file. */
  get inside(): string {
    return this.#linkType === undefined
      ? 'the header of the file'
      : `packet ${this.#packet.number + 1}`;
  }

  /**
   * Reads on. Returns true if a packet was read, and false if the queue has too few bytes.
   *
   * @throws {CaptureError} if the bytes are not those of a capture.
   */
  next(): boolean {
    if (this.#linkType === undefined && !this.#readHeader()) return false;
    const queue = this.#queue;
    if (!queue.has(RECORD_HEADER)) return false;
    const { view, at } = queue;
    const little = this.#isLittleEndian;
    const captured = view.getUint32(at + 8, little);
    const wire = view.getUint32(at + 12, little);
    if (captured > MAX_CAPTURED_BYTES) {
      throw new CaptureError(
        queue.offset,
        `packet ${this.#packet.number + 1}, at byte ${queue.offset}, claims ${captured} captured bytes, and a packet ` +
          `has at most ${MAX_CAPTURED_BYTES}: the capture is damaged; take it again`
      );
    }
    if (!queue.has(RECORD_HEADER + captured)) return false;
    const packet = this.#packet;
    packet.number++;
    packet.timeMs =
      view.getUint32(at, little) * 1000 + view.getUint32(at + 4, little) / this.#unitsPerMs;
    packet.linkType = this.#linkType!;
    packet.bytes = queue.bytes;
    packet.view = view;
    packet.start = at + RECORD_HEADER;
    packet.end = packet.start + captured;
    packet.wireLength = Math.max(wire, captured);
    queue.skip(RECORD_HEADER + captured);
    return true;
  }

  #readHeader(): boolean {
    const queue = this.#queue;
    if (!queue.has(FILE_HEADER)) return false;
    const major = queue.view.getUint16(queue.at + 4, this.#isLittleEndian);
    if (major !== 2) {
      throw new CaptureError(
        queue.offset + 4,
        `the capture has version ${major} of the pcap format, and only version 2 is known: ` +
          'write it anew with editcap -F pcapng'
      );
    }
    // The upper bits say whether frames end with a check sequence, which is behind the IP packet.
    this.#linkType = queue.view.getUint32(queue.at + 20, this.#isLittleEndian) & 0xffff;
    queue.skip(FILE_HEADER);
    return true;
  }
}

const FILE_HEADER = 24;
const RECORD_HEADER = 16;
