/**
 * Writes pcapng files ([draft-ietf-opsawg-pcapng](https://datatracker.ietf.org/doc/html/draft-ietf-opsawg-pcapng)),
 * which Wireshark and tcpdump read: one section with any number of interfaces, little-endian.
 *
 * ```
 * +------------+--------------+------ ... ------+------ ... ------+--------------+
 * | block type | total length | fixed fields    | options         | total length |
 * +------------+--------------+------ ... ------+------ ... ------+--------------+
 *
 * an option: code (2), length (2), value, padded to a multiple of 4
 * ```
 * @module
 */
import { ApiMisuseError } from '../errors.ts';
import { MAX_PACKET_LENGTH } from './virtio.ts';

/** The direction of a packet at its interface: `inbound` came from there, `outbound` went there. */
export type PcapngDirection = 'inbound' | 'outbound';

export interface PcapngOptions {
  /**
   * Takes the next bytes of the file. The writer passes on what it throws. The array is made for this call
   * and may be kept, so `(bytes) => stream.write(bytes)` is enough.
   */
  write(bytes: Uint8Array): void;
  /** The number of bytes of each packet to write at most; by default all. */
  readonly snapLength?: number;
}

/** Writes one pcapng file. It keeps nothing that it has written, so its memory does not grow. */
export class PcapngWriter {
  readonly #write: (bytes: Uint8Array) => void;
  readonly #snapLength: number;
  #interfaces = 0;

  /**
   * Writes the section header, the beginning of the file.
   *
   * @throws {ApiMisuseError} if the snap length is not a whole number from 1 to 65535.
   */
  constructor({ write, snapLength = MAX_PACKET_LENGTH }: PcapngOptions) {
    if (!Number.isInteger(snapLength) || snapLength < 1 || snapLength > MAX_PACKET_LENGTH) {
      throw new ApiMisuseError(
        `snapLength must be a whole number from 1 to ${MAX_PACKET_LENGTH}, not ${snapLength}`
      );
    }
    this.#write = write;
    this.#snapLength = snapLength;
    const block = new Block(SECTION_HEADER, SECTION_HEADER_FIELDS);
    block.view.setUint32(8, BYTE_ORDER_MAGIC, true);
    block.view.setUint16(12, 1, true); // version 1.0
    block.view.setUint16(14, 0, true);
    block.view.setBigInt64(16, -1n, true); // section length: not known
    write(block.bytes);
  }

  /**
   * Adds an interface for IP packets without a link header. Returns its index for `packet`.
   *
   * @throws {ApiMisuseError} if the name is longer than 65535 bytes.
   */
  interface(name: string): number {
    const text = encodeText('interface name', name);
    const options = optionLength(text.length) + optionLength(1) + END_OF_OPTIONS;
    const block = new Block(INTERFACE_DESCRIPTION, INTERFACE_FIELDS + options);
    block.view.setUint16(8, LINKTYPE_RAW, true);
    block.view.setUint32(12, this.#snapLength, true);
    const next = block.option(HEADER + INTERFACE_FIELDS, IF_NAME, text);
    block.option(next, IF_TSRESOL, MICROSECONDS);
    this.#write(block.bytes);
    return this.#interfaces++;
  }

  /**
   * Writes the packet `buffer[start .. end)`, without a virtio-net header.
   *
   * @param timeMs time in ms since 1970, with fractions down to a microsecond.
   * @param originalLength the length of the packet, if the buffer has only its first bytes
   * @throws {ApiMisuseError} if there is no such interface, the range is outside of the buffer, or
   *   the comment is longer than 65535 bytes.
   */
  packet(
    interfaceIndex: number,
    timeMs: number,
    direction: PcapngDirection,
    buffer: Uint8Array,
    start: number,
    end: number,
    comment?: string,
    originalLength: number = end - start
  ): void {
    this.#checkInterface(interfaceIndex);
    if (!(start >= 0 && start <= end && end <= buffer.length)) {
      throw new ApiMisuseError(
        `packet from ${start} to ${end} is not within a buffer of ${buffer.length}`
      );
    }
    const length = end - start;
    const captured = Math.min(length, this.#snapLength);
    const text = comment === undefined ? undefined : encodeText('comment', comment);
    const options =
      optionLength(FLAGS_LENGTH) +
      (text === undefined ? 0 : optionLength(text.length)) +
      END_OF_OPTIONS;

    const block = new Block(ENHANCED_PACKET, PACKET_FIELDS + padded(captured) + options);
    const { view, bytes } = block;
    writeTime(view, interfaceIndex, timeMs);
    view.setUint32(20, captured, true);
    view.setUint32(24, originalLength, true);
    bytes.set(buffer.subarray(start, start + captured), HEADER + PACKET_FIELDS);
    const flags = direction === 'inbound' ? FLAGS_INBOUND : FLAGS_OUTBOUND;
    const next = block.option(HEADER + PACKET_FIELDS + padded(captured), EPB_FLAGS, flags);
    if (text !== undefined) block.option(next, OPT_COMMENT, text);
    this.#write(bytes);
  }

  /**
   * Writes how many packets of an interface came and how many of them were lost, an Interface Statistics Block. It
   * belongs at the end of a file.
   *
   * @param timeMs as in `packet`
   * @throws {ApiMisuseError} if there is no such interface.
   */
  statistics(interfaceIndex: number, timeMs: number, received: number, lost: number): void {
    this.#checkInterface(interfaceIndex);
    const options = 2 * optionLength(COUNTER_LENGTH) + END_OF_OPTIONS;
    const block = new Block(INTERFACE_STATISTICS, STATISTICS_FIELDS + options);
    const { view, bytes } = block;
    writeTime(view, interfaceIndex, timeMs);
    const next = block.option(HEADER + STATISTICS_FIELDS, ISB_IFRECV, counter(received));
    block.option(next, ISB_IFDROP, counter(lost));
    this.#write(bytes);
  }

  #checkInterface(index: number): void {
    if (index >>> 0 === index && index < this.#interfaces) return;
    throw new ApiMisuseError(`no interface ${index}: there are ${this.#interfaces}`);
  }
}

/** A block with its type and lengths; the rest is zero. */
class Block {
  readonly bytes: Uint8Array;
  readonly view: DataView;

  /** @param body bytes between the header and the trailing length, a multiple of 4. */
  constructor(type: number, body: number) {
    const length = HEADER + body + TRAILER;
    this.bytes = new Uint8Array(length);
    this.view = new DataView(this.bytes.buffer);
    this.view.setUint32(0, type, true);
    this.view.setUint32(4, length, true);
    this.view.setUint32(length - TRAILER, length, true);
  }

  /** Writes an option. Returns the offset behind it, where the end of options, four zeros, already is. */
  option(at: number, code: number, value: Uint8Array): number {
    this.view.setUint16(at, code, true);
    this.view.setUint16(at + 2, value.length, true);
    this.bytes.set(value, at + OPTION_HEADER);
    return at + optionLength(value.length);
  }
}

/** Writes the interface and the time, with which the blocks of packets and of statistics begin. */
function writeTime(view: DataView, interfaceIndex: number, timeMs: number): void {
  const time = Math.round(timeMs * 1000);
  view.setUint32(HEADER, interfaceIndex, true);
  view.setUint32(HEADER + 4, Math.floor(time / 2 ** 32), true);
  view.setUint32(HEADER + 8, time, true); // its low 32 bits
}

/** Returns a counter of 64 bits. */
function counter(value: number): Uint8Array {
  const bytes = new Uint8Array(COUNTER_LENGTH);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value), true);
  return bytes;
}

function encodeText(what: string, text: string): Uint8Array {
  const bytes = new TextEncoder().encode(text);
  if (bytes.length > MAX_OPTION) {
    throw new ApiMisuseError(`${what} of ${bytes.length} bytes is longer than ${MAX_OPTION}`);
  }
  return bytes;
}

function optionLength(value: number): number {
  return OPTION_HEADER + padded(value);
}

function padded(length: number): number {
  return (length + 3) & ~3;
}

const SECTION_HEADER = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION = 1;
const INTERFACE_STATISTICS = 5;
const ENHANCED_PACKET = 6;

const HEADER = 8; // type and total length
const TRAILER = 4; // total length once more
const SECTION_HEADER_FIELDS = 16;
const INTERFACE_FIELDS = 8;
const PACKET_FIELDS = 20;
const STATISTICS_FIELDS = 12;
const COUNTER_LENGTH = 8;

const BYTE_ORDER_MAGIC = 0x1a2b_3c4d;
/** IPv4 or IPv6 packets; their first four bits give the version. */
const LINKTYPE_RAW = 101;

const OPTION_HEADER = 4; // code and length
const END_OF_OPTIONS = 4;
const MAX_OPTION = 65_535;
const OPT_COMMENT = 1;
const IF_NAME = 2;
const IF_TSRESOL = 9;
const EPB_FLAGS = 2;
const ISB_IFRECV = 4;
const ISB_IFDROP = 5;

/** The resolution 10^-6 s. */
const MICROSECONDS: Uint8Array = /* @__PURE__ */ Uint8Array.of(6);

/** Bits 0 and 1 of the flags are the direction. */
const FLAGS_INBOUND: Uint8Array = /* @__PURE__ */ Uint8Array.of(1, 0, 0, 0);
const FLAGS_OUTBOUND: Uint8Array = /* @__PURE__ */ Uint8Array.of(2, 0, 0, 0);
const FLAGS_LENGTH = 4;
