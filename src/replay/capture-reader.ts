/**
 * Reads a capture from its bytes, in pieces of any size: finds out the format by the first four bytes and gives one
 * packet after the other. It keeps no more than the packet that is not complete yet.
 * @module
 */
import { CaptureError } from '../errors.ts';
import { ByteQueue } from './byte-queue.ts';
import { CapturedPacket } from './captured-packet.ts';
import { PcapReader } from './pcap-reader.ts';
import { PcapngReader } from './pcapng-reader.ts';

export class CaptureReader {
  readonly #take: (packet: CapturedPacket) => void;
  readonly #queue = new ByteQueue();
  readonly #packet = new CapturedPacket();
  #reader: PcapReader | PcapngReader | undefined;

  /** @param take takes each packet, which is valid only during the call */
  constructor(take: (packet: CapturedPacket) => void) {
    this.#take = take;
  }

  /** The format, `pcap` or `pcapng`; undefined before the first four bytes were read. */
  get format(): 'pcap' | 'pcapng' | undefined {
    return this.#reader?.name;
  }

  /**
   * Takes the next bytes of the file. The caller may use their memory again afterwards.
   *
   * @throws {CaptureError} if they are not those of a capture.
   */
  push(chunk: Uint8Array): void {
    const queue = this.#queue;
    queue.add(chunk);
    this.#reader ??= this.#detect();
    while (this.#reader?.next()) this.#take(this.#packet);
    queue.keep();
  }

  /**
   * Ends the file.
   *
   * @param path for the command that the error proposes
   * @throws {CaptureError} if it is empty, or ends within a packet or a block.
   */
  end(path = 'cut.pcapng'): void {
    const { isEmpty, endOffset } = this.#queue;
    if (endOffset === 0) {
      throw new CaptureError(0, 'the capture is empty: it has not even the header of a file');
    }
    const isComplete = this.#reader !== undefined && isEmpty && this.#reader.isBetweenRecords;
    if (isComplete) return;
    const inside = this.#reader?.inside ?? 'the header of the file';
    throw new CaptureError(
      endOffset,
      `the capture is cut: it ends at byte ${endOffset}, in ${inside}. Take it again, or keep the ` +
        `${this.#packet.number} whole packets: editcap ${quoted(path)} whole.pcapng`
    );
  }

  /** Returns the reader by the magic number; undefined if that is not complete yet. */
  #detect(): PcapReader | PcapngReader | undefined {
    const queue = this.#queue;
    if (!queue.has(4)) return undefined;
    const magic = queue.view.getUint32(queue.at, false);
    const [isLittle, isNano] = PCAP_MAGICS.get(magic) ?? [];
    if (isNano !== undefined) return new PcapReader(queue, this.#packet, isLittle!, isNano);
    if (magic === PCAPNG_MAGIC) return new PcapngReader(queue, this.#packet);
    const compression = COMPRESSIONS.find(
      ([number, bits]) => magic >>> (32 - bits) === number
    )?.[2];
    throw new CaptureError(
      0,
      compression === undefined
        ? 'the file is neither a pcap nor a pcapng capture: tcpdump -w writes one, and editcap -F pcapng converts ' +
            'those of other programs'
        : `the file is compressed: unpack it first, with ${compression}`
    );
  }
}

/** Returns a path as a word for a shell. */
function quoted(path: string): string {
  return /^[\w./+@-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`;
}

/** The first four bytes of a pcap file, and whether it is little-endian and has nanoseconds. */
const PCAP_MAGICS: ReadonlyMap<number, readonly [boolean, boolean]> = /* @__PURE__ */ new Map([
  [0xa1b2_c3d4, [false, false]],
  [0xd4c3_b2a1, [true, false]],
  [0xa1b2_3c4d, [false, true]],
  [0x4d3c_b2a1, [true, true]],
]);
const PCAPNG_MAGIC = 0x0a0d_0d0a;
/** The first bits of compressed files, how many they are, and what unpacks them. */
const COMPRESSIONS: readonly (readonly [number, number, string])[] = [
  [0x1f8b, 16, 'gunzip'],
  [0x28b5_2ffd, 32, 'unzstd'],
  [0xfd37_7a58, 32, 'unxz'],
  [0x04224d18, 32, 'unlz4'],
];
