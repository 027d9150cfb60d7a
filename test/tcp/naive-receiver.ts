/**
 * A receive buffer as one would write it without a thought of cost: a map from the place of each byte in the stream to
 * its value. It is the oracle for `ReceiveBuffer`.
 * @module
 */

const MAX_RANGES = 256;
const MAX_BUFFER = 4 * 1024 * 1024;

export class NaiveReceiver {
  /** The bytes received in order so far: RCV.NXT as a place in the stream. */
  received = 0;
  /** The first bytes of the last insertion that were stored already, as offsets; -1 if there were none. */
  duplicate: [from: number, to: number] = [-1, -1];

  readonly #unread: number[] = [];
  /** The place and value of each byte held out of order. */
  readonly #held = new Map<number, number>();
  /** The places of single bytes by which ranges were inserted, the most recent first. */
  #recent: number[] = [];

  get available(): number {
    return this.#unread.length;
  }

  get outOfOrder(): number {
    return this.#held.size;
  }

  insert(bytes: Uint8Array, offset: number): number {
    this.duplicate = [-1, -1];
    const room = MAX_BUFFER - this.available - offset;
    if (room <= 0) return 0;
    const length = Math.min(bytes.length, room);
    const first = this.received + offset;
    const before = new Map(this.#held);
    for (let i = 0; i < length; i++) {
      if (!this.#held.has(first + i)) this.#held.set(first + i, bytes[i]!);
    }
    if (offset > 0 && this.#ranges().length > MAX_RANGES) {
      this.#held.clear();
      for (const [place, value] of before) this.#held.set(place, value);
      return 0;
    }
    for (let i = 0; i < length; i++) {
      if (before.has(first + i)) {
        if (this.duplicate[0] < 0) this.duplicate[0] = offset + i;
        this.duplicate[1] = offset + i + 1;
      } else if (this.duplicate[0] >= 0) {
        break;
      }
    }
    this.#recent = [first, ...this.#recent.filter((place) => place !== first)];
    const start = this.received;
    for (;;) {
      const value = this.#held.get(this.received);
      if (value === undefined) break;
      this.#held.delete(this.received);
      this.#unread.push(value);
      this.received++;
    }
    this.#recent = this.#recent.filter((place) => this.#held.has(place));
    return this.received - start;
  }

  read(length: number): Uint8Array {
    return Uint8Array.from(this.#unread.splice(0, length));
  }

  discardOutOfOrder(): void {
    this.#held.clear();
    this.#recent = [];
  }

  /** The SACK blocks as offsets from RCV.NXT, the most recent first. */
  blocks(max: number): number[] {
    const blocks: [from: number, to: number][] = [];
    const ranges = this.#ranges();
    for (const place of this.#recent) {
      const range = ranges.find(([from, to]) => from <= place && place < to)!;
      if (!blocks.includes(range)) blocks.push(range);
    }
    return blocks
      .slice(0, max)
      .flat()
      .map((place) => place - this.received);
  }

  /** Sorted ranges of the places held out of order. */
  #ranges(): [from: number, to: number][] {
    const ranges: [from: number, to: number][] = [];
    for (const place of [...this.#held.keys()].sort((a, b) => a - b)) {
      const last = ranges.at(-1);
      if (last !== undefined && last[1] === place) last[1]++;
      else ranges.push([place, place + 1]);
    }
    return ranges;
  }
}
