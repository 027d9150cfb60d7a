/**
 * The packets of a capture that are timed: as they enter the translator, one behind the other in one buffer. Its size is
 * bounded, whatever the capture's is. Of a longer capture it has runs of consecutive packets from all parts.
 * @module
 */
import { Verdict } from '../translator/index.ts';

/** The classes by which times are given. */
export const SIZE_CLASSES: readonly string[] = [
  'up to 128 bytes',
  '129 to 512 bytes',
  '513 to 1024 bytes',
  '1025 to 1518 bytes',
  'above 1518 bytes',
  'fragments',
  'refused',
];

export class PacketSample {
  /** The packets, and in front of them the slots in which they are translated. */
  readonly buffer: Uint8Array;
  readonly starts: Int32Array = new Int32Array(MAX_PACKETS);
  readonly lengths: Int32Array = new Int32Array(MAX_PACKETS);
  /** How many bytes from the beginning the translator may look at. */
  readonly headLengths: Int32Array = new Int32Array(MAX_PACKETS);
  readonly realms: Uint8Array = new Uint8Array(MAX_PACKETS);
  readonly verdicts: Uint8Array = new Uint8Array(MAX_PACKETS);
  /** The index in `SIZE_CLASSES`. */
  readonly classes: Uint8Array = new Uint8Array(MAX_PACKETS);
  size = 0;
  #bytes = 0;
  #seen = 0;
  /** Of so many runs one is taken. */
  readonly #stride: number;

  /**
   * @param packets how many packets the capture has
   * @param bytes how many bytes they have
   */
  constructor(packets: number, bytes: number) {
    this.buffer = new Uint8Array(SLOTS_BYTES + Math.min(bytes, SAMPLE_BYTES));
    this.#stride = Math.max(1, Math.ceil(packets / MAX_PACKETS), Math.ceil(bytes / SAMPLE_BYTES));
  }

  /** Whether it is the turn of the next packet, and there is room for it. */
  wants(length: number): boolean {
    const run = Math.floor(this.#seen++ / RUN_PACKETS);
    return (
      run % this.#stride === 0 &&
      this.size < MAX_PACKETS &&
      SLOTS_BYTES + this.#bytes + length <= this.buffer.length
    );
  }

  /** Adds the packet `bytes[start .. end)`. `judged` gives its verdict. */
  add(bytes: Uint8Array, start: number, end: number, headLength: number, realm: number): void {
    const length = end - start;
    const at = SLOTS_BYTES + this.#bytes;
    this.buffer.set(bytes.subarray(start, end), at);
    this.starts[this.size] = at;
    this.lengths[this.size] = length;
    this.headLengths[this.size] = Math.min(length, headLength);
    this.realms[this.size] = realm;
    this.#bytes += length;
    this.size++;
  }

  /** Sets the verdict on the packet that was added last. */
  judged(verdict: Verdict, isFragment: boolean): void {
    const index = this.size - 1;
    this.verdicts[index] = verdict;
    this.classes[index] =
      verdict !== Verdict.Forward
        ? REFUSED
        : isFragment
          ? FRAGMENTS
          : sizeClass(this.lengths[index]!);
  }

  /** Returns the numbers of the packets of a class, in their order. */
  ofClass(index: number): Int32Array {
    const all = this.classes.subarray(0, this.size);
    return Int32Array.from(all.keys()).filter((i) => all[i] === index);
  }
}

function sizeClass(length: number): number {
  const found = SIZE_LIMITS.findIndex((limit) => length <= limit);
  return found < 0 ? SIZE_LIMITS.length : found;
}

const SIZE_LIMITS: readonly number[] = [128, 512, 1024, 1518];
const FRAGMENTS = 5;
const REFUSED = 6;

const MAX_PACKETS = 65_536;
const SAMPLE_BYTES: number = 32 << 20;
const RUN_PACKETS = 1024;
/** Room for a batch of packets in slots, or for one that is longer. */
export const SLOTS_BYTES: number = 128 << 10;
