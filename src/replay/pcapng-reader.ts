/**
 * Reads pcapng ([draft-ietf-opsawg-pcapng](https://datatracker.ietf.org/doc/html/draft-ietf-opsawg-pcapng)): any number
 * of sections, each in its byte order, with any number of interfaces; enhanced and simple packet blocks, and the obsolete
 * packet block. All other blocks are passed over without being kept, however long they are.
 *
 * ```
 * block: type (4), total length (4), body, total length (4)
 * ```
 * @module
 */
import { CaptureError } from '../errors.ts';
import type { ByteQueue } from './byte-queue.ts';
import { type CapturedPacket, MAX_CAPTURED_BYTES } from './captured-packet.ts';

interface CaptureInterface {
  readonly linkType: number;
  /** The most bytes of a packet that were captured; 0 if there is no limit. */
  readonly snapLength: number;
  /** How long a unit of a timestamp is, in ms. */
  readonly unitMs: number;
  /** What is added to each time, in ms. */
  readonly offsetMs: number;
}

export class PcapngReader {
  readonly name = 'pcapng';
  readonly #queue: ByteQueue;
  readonly #packet: CapturedPacket;
  #isLittleEndian = true;
  /** The interfaces of the section. */
  #interfaces: CaptureInterface[] = [];
  /** The total length of the block that the reader is in, as it begins; 0 between blocks. */
  #blockLength = 0;
  /** The offset of that block, or of the last one, in the file. */
  #blockOffset = 0;

  constructor(queue: ByteQueue, packet: CapturedPacket) {
    this.#queue = queue;
    this.#packet = packet;
  }

  /** Whether a file may end where the reader is. */
  get isBetweenRecords(): boolean {
    return this.#blockLength === 0;
  }

  /** What the reader is in, for the message about a cut file. */
  get inside(): string {
    if (this.#blockLength === 0) return 'the beginning of a block';
    return `the block of ${this.#blockLength} bytes that begins at byte ${this.#blockOffset}`;
  }

  /**
   * Reads on. Returns true if a packet was read, and false if the queue has too few bytes.
   *
   * @throws {CaptureError} if the bytes are not those of a capture.
   */
  next(): boolean {
    const queue = this.#queue;
    for (;;) {
      if (this.#blockLength > 0) {
        // The body of the last block was taken or passed over.
        if (!queue.has(TRAILER)) return false;
        this.#endBlock();
      }
      // The first field of the body of a section header is needed to read the length.
      if (!queue.has(HEADER + 4)) return false;
      const type = queue.view.getUint32(queue.at, this.#isLittleEndian);
      const little = type === SECTION_HEADER ? this.#byteOrder() : this.#isLittleEndian;
      const length = queue.view.getUint32(queue.at + 4, little);
      this.#checkLength(type, length);
      if (!this.#hasFixedPart(type, length)) return false;
      this.#blockOffset = queue.offset;
      this.#blockLength = length;
      this.#isLittleEndian = little;
      const isPacket = this.#read(type, length);
      queue.skip(this.#blockOffset + length - TRAILER - queue.offset);
      if (isPacket) return true;
    }
  }

  /** Returns whether the bytes of a block that are read are there. The rest of it is passed over. */
  #hasFixedPart(type: number, length: number): boolean {
    const queue = this.#queue;
    const body = length - HEADER - TRAILER;
    switch (type) {
      case SECTION_HEADER:
        return queue.has(HEADER + SECTION_FIELDS);
      case INTERFACE_DESCRIPTION:
        return queue.has(HEADER + Math.min(body, MAX_INTERFACE_BYTES));
      case ENHANCED_PACKET:
      case OBSOLETE_PACKET: {
        if (!queue.has(HEADER + PACKET_FIELDS)) return false;
        const captured = this.#u32(HEADER + 12);
        this.#checkCaptured(captured, body - PACKET_FIELDS);
        return queue.has(HEADER + PACKET_FIELDS + captured);
      }
      case SIMPLE_PACKET: {
        const captured = this.#simpleLength();
        this.#checkCaptured(captured, body - SIMPLE_FIELDS);
        return queue.has(HEADER + SIMPLE_FIELDS + captured);
      }
      default:
        return true;
    }
  }

  /** Reads a block of which all that is read is there. Returns whether it is a packet. */
  #read(type: number, length: number): boolean {
    switch (type) {
      case SECTION_HEADER:
        this.#interfaces = [];
        return false;
      case INTERFACE_DESCRIPTION:
        this.#readInterface(length);
        return false;
      case ENHANCED_PACKET:
        this.#readPacket(this.#u32(HEADER));
        return true;
      case OBSOLETE_PACKET:
        this.#readPacket(this.#queue.view.getUint16(this.#queue.at + HEADER, this.#isLittleEndian));
        return true;
      case SIMPLE_PACKET:
        this.#readSimplePacket();
        return true;
      default:
        return false;
    }
  }

  #readPacket(index: number): void {
    const from = this.#interfaceAt(index);
    const time = this.#u32(HEADER + 4) * 2 ** 32 + this.#u32(HEADER + 8);
    this.#give(from, HEADER + PACKET_FIELDS, this.#u32(HEADER + 12), this.#u32(HEADER + 16));
    this.#packet.timeMs = time * from.unitMs + from.offsetMs;
  }

  /** A simple packet is one of the first interface, and has no time. */
  #readSimplePacket(): void {
    const from = this.#interfaceAt(0);
    this.#give(from, HEADER + SIMPLE_FIELDS, this.#simpleLength(), this.#u32(HEADER));
    this.#packet.timeMs = 0;
  }

  /** How many bytes of a simple packet were captured: it does not say so itself. */
  #simpleLength(): number {
    const wire = this.#u32(HEADER);
    const { snapLength } = this.#interfaceAt(0);
    return snapLength === 0 ? wire : Math.min(wire, snapLength);
  }

  #give(from: CaptureInterface, at: number, captured: number, wire: number): void {
    const { bytes, view, at: block } = this.#queue;
    const packet = this.#packet;
    packet.number++;
    packet.linkType = from.linkType;
    packet.bytes = bytes;
    packet.view = view;
    packet.start = block + at;
    packet.end = packet.start + captured;
    packet.wireLength = Math.max(wire, captured);
  }

  #readInterface(length: number): void {
    const { view, at } = this.#queue;
    const little = this.#isLittleEndian;
    if (this.#interfaces.length === MAX_INTERFACES) {
      this.#fail(
        `is the description of one more interface than the ${MAX_INTERFACES} that a section may have`
      );
    }
    let unitMs = 1e-3;
    let offsetMs = 0;
    const body = Math.min(length - HEADER - TRAILER, MAX_INTERFACE_BYTES);
    const end = at + HEADER + body;
    let option = at + HEADER + INTERFACE_FIELDS;
    while (option + OPTION_HEADER <= end) {
      const code = view.getUint16(option, little);
      const size = view.getUint16(option + 2, little);
      const value = option + OPTION_HEADER;
      if (code === END_OF_OPTIONS) break;
      if (value + size > end) {
        // Options that go on behind what is read of a very long block do not matter.
        if (body === MAX_INTERFACE_BYTES) break;
        this.#fail(`has an option of ${size} bytes, which is more than the block has`);
      }
      if (code === IF_TSRESOL && size >= 1) unitMs = unitOf(view.getUint8(value));
      if (code === IF_TSOFFSET && size >= 8)
        offsetMs = Number(view.getBigInt64(value, little)) * 1e3;
      option = value + ((size + 3) & ~3);
    }
    const linkType = view.getUint16(at + HEADER, little);
    const snapLength = view.getUint32(at + HEADER + 4, little);
    this.#interfaces.push({ linkType, snapLength, unitMs, offsetMs });
  }

  #interfaceAt(index: number): CaptureInterface {
    const found = this.#interfaces[index];
    if (found !== undefined) return found;
    return this.#fail(
      `is a packet of interface ${index}, and its section has described ${this.#interfaces.length} interfaces before it`
    );
  }

  /** Whether a section is little-endian. */
  #byteOrder(): boolean {
    const { view, at } = this.#queue;
    if (view.getUint32(at + 8, true) === BYTE_ORDER_MAGIC) return true;
    if (view.getUint32(at + 8, false) === BYTE_ORDER_MAGIC) return false;
    return this.#fail('is the header of a section without the magic number of a byte order');
  }

  #checkLength(type: number, length: number): void {
    const least = HEADER + TRAILER + (LEAST_BODY.get(type) ?? 0);
    if (length < least || length % 4 !== 0) {
      this.#fail(`claims a length of ${length} bytes, and needs a multiple of 4 from ${least} on`);
    }
  }

  #checkCaptured(captured: number, room: number): void {
    if (captured > MAX_CAPTURED_BYTES) {
      this.#fail(
        `claims ${captured} captured bytes, and a packet has at most ${MAX_CAPTURED_BYTES}`
      );
    }
    if (captured > room) this.#fail(`claims ${captured} captured bytes, and has room for ${room}`);
  }

  /** Compares the length at the end of a block with that at its beginning. */
  #endBlock(): void {
    const queue = this.#queue;
    const again = this.#u32(0);
    if (again !== this.#blockLength) {
      const offset = this.#blockOffset;
      throw new CaptureError(
        offset,
        `the block at byte ${offset} has the length ${this.#blockLength} at its beginning and ${again} at its end: ${DAMAGED}`
      );
    }
    queue.skip(TRAILER);
    this.#blockLength = 0;
  }

  /** The number at an offset from where the queue is. */
  #u32(at: number): number {
    return this.#queue.view.getUint32(this.#queue.at + at, this.#isLittleEndian);
  }

  #fail(what: string): never {
    const { offset } = this.#queue;
    throw new CaptureError(offset, `the block at byte ${offset} ${what}: ${DAMAGED}`);
  }
}

/** How long a unit is in ms, by the option `if_tsresol`: a power of 10, or of 2 if the highest bit is set. */
function unitOf(resolution: number): number {
  const exponent = resolution & 0x7f;
  return 1e3 * ((resolution & 0x80) === 0 ? 10 : 2) ** -exponent;
}

const DAMAGED = 'the capture is damaged; take it again';

const SECTION_HEADER = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION = 1;
const OBSOLETE_PACKET = 2;
const SIMPLE_PACKET = 3;
const ENHANCED_PACKET = 6;

const HEADER = 8;
const TRAILER = 4;
const SECTION_FIELDS = 16;
const INTERFACE_FIELDS = 8;
const PACKET_FIELDS = 20;
const SIMPLE_FIELDS = 4;
/** The least length of a body, by type. */
const LEAST_BODY: ReadonlyMap<number, number> = /* @__PURE__ */ new Map([
  [SECTION_HEADER, SECTION_FIELDS],
  [INTERFACE_DESCRIPTION, INTERFACE_FIELDS],
  [OBSOLETE_PACKET, PACKET_FIELDS],
  [SIMPLE_PACKET, SIMPLE_FIELDS],
  [ENHANCED_PACKET, PACKET_FIELDS],
]);

const BYTE_ORDER_MAGIC = 0x1a2b_3c4d;
const OPTION_HEADER = 4;
const END_OF_OPTIONS = 0;
const IF_TSRESOL = 9;
const IF_TSOFFSET = 14;

/** How much of the description of an interface is read. */
const MAX_INTERFACE_BYTES = 65_536;
/** How many interfaces of a section are kept. */
const MAX_INTERFACES = 65_536;
