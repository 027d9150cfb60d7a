/**
 * A receive buffer as one would write it without a thought of cost: an array with a mark for each byte that is held. It
 * is the oracle for `ReceiveBuffer`.
 * @module
 */

const MAX_RANGES = 256;
const MAX_BUFFER = 4 * 1024 * 1024;

export class NaiveReceiver {
  /** The bytes received in order so far: RCV.NXT as a place in the stream. */
  received = 0;
  available = 0;
  /** The first bytes of the last insertion that were stored already, as offsets; -1 if there were none. */
  duplicate: [from: number, to: number] = [-1, -1];

  /** The bytes from the first unread one on; all that is not held is 0. */
  #values = Buffer.alloc(0);
  #isHeld = Buffer.alloc(0);
  /** The places of the first bytes of insertions out of order, the most recent first. */
  #recent: number[] = [];

  get outOfOrder(): number {
    return this.#ranges().reduce((sum, [from, to]) => sum + to - from, 0);
  }

  insert(bytes: Uint8Array, offset: number): number {
    this.duplicate = [-1, -1];
    const begin = this.available + offset;
    const length = Math.min(bytes.length, MAX_BUFFER - begin);
    if (length <= 0) return 0;
    const missing = Math.max(0, begin + length - this.#values.length);
    const values = Buffer.concat([this.#values, Buffer.alloc(missing)]);
    const isHeld = Buffer.concat([this.#isHeld, Buffer.alloc(missing)]);
    let isDuplicate = false;
    let duplicate: [number, number] = [-1, -1];
    for (let i = 0; i < length; i++) {
      if (isHeld[begin + i] === 0) {
        values[begin + i] = bytes[i]!;
        isHeld[begin + i] = 1;
        isDuplicate = false;
      } else if (isDuplicate) {
        duplicate[1]++;
      } else if (duplicate[0] < 0) {
        duplicate = [offset + i, offset + i + 1];
        isDuplicate = true;
      }
    }
    if (offset > 0 && rangesOf(isHeld, this.available).length > MAX_RANGES) return 0;
    this.#values = values;
    this.#isHeld = isHeld;
    this.duplicate = duplicate;
    const first = this.received + offset;
    this.#recent = [first, ...this.#recent.filter((place) => place !== first)];
    const inOrder = isHeld.indexOf(0);
    const advance = (inOrder < 0 ? isHeld.length : inOrder) - this.available;
    this.available += advance;
    this.received += advance;
    this.#recent = this.#recent.filter((place) => place >= this.received);
    return advance;
  }

  read(length: number): Uint8Array {
    const count = Math.min(length, this.available);
    const bytes = this.#values.subarray(0, count);
    this.#values = this.#values.subarray(count);
    this.#isHeld = this.#isHeld.subarray(count);
    this.available -= count;
    return bytes;
  }

  discardOutOfOrder(): void {
    this.#values = this.#values.subarray(0, this.available);
    this.#isHeld = this.#isHeld.subarray(0, this.available);
    this.#recent = [];
  }

  /** The SACK blocks as offsets from RCV.NXT, the most recent first. */
  blocks(max: number): number[] {
    const blocks: [from: number, to: number][] = [];
    const ranges = this.#ranges();
    for (const place of this.#recent) {
      const at = place - this.received + this.available;
      const range = ranges.find(([from, to]) => from <= at && at < to)!;
      if (!blocks.includes(range)) blocks.push(range);
    }
    return blocks
      .slice(0, max)
      .flat()
      .map((at) => at - this.available);
  }

  #ranges(): [from: number, to: number][] {
    return rangesOf(this.#isHeld, this.available);
  }
}

/** The ranges of bytes that are held, from `at` on. */
function rangesOf(isHeld: Buffer, at: number): [from: number, to: number][] {
  const ranges: [from: number, to: number][] = [];
  for (;;) {
    const from = isHeld.indexOf(1, at);
    if (from < 0) return ranges;
    const end = isHeld.indexOf(0, from);
    at = end < 0 ? isHeld.length : end;
    ranges.push([from, at]);
    if (at === isHeld.length) return ranges;
  }
}
