/**
 * The fragments of one datagram that have arrived, in the order of their offsets.
 * @module
 */

/** What `Pieces.add` did with a fragment. */
export const Placement = {
  Taken: 0,
  /** It is an exact copy of one that is there. */
  Copy: 1,
  /** It overlaps another one, or contradicts the length of the datagram. */
  Overlap: 2,
  /** The datagram has too many fragments. */
  TooMany: 3,
} as const;
export type Placement = (typeof Placement)[keyof typeof Placement];

export class Pieces {
  /** Sorted by offset; they do not overlap. */
  readonly #pieces: Piece[] = [];
  #received = 0;
  #total = -1;

  /** The length of the datagram in bytes, once its last fragment is there; before that -1. */
  get total(): number {
    return this.#total;
  }

  /** What this takes, in bytes. */
  get bytes(): number {
    return this.#received + this.#pieces.length * PIECE_OVERHEAD;
  }

  get isComplete(): boolean {
    return this.#received === this.#total;
  }

  /** Adds a copy of a fragment's payload, which begins at `from` in the datagram. */
  add(payload: Uint8Array, from: number, isMore: boolean): Placement {
    const pieces = this.#pieces;
    const to = from + payload.length;
    // Most fragments arrive in order, so the place is searched from the end on.
    let index = pieces.length;
    while (index > 0 && pieces[index - 1]!.from >= from) index--;
    const next = pieces[index];
    if (next !== undefined && next.from === from && endOf(next) === to) {
      const isLast = to === this.#total;
      return isLast === !isMore && isEqual(next.payload, payload)
        ? Placement.Copy
        : Placement.Overlap;
    }
    if (next !== undefined && next.from < to) return Placement.Overlap;
    const previous = pieces[index - 1];
    if (previous !== undefined && endOf(previous) > from) return Placement.Overlap;
    if (this.#total >= 0 && (to > this.#total || !isMore)) return Placement.Overlap;
    // The last fragment ends the datagram: nothing may be behind it.
    if (!isMore && next !== undefined) return Placement.Overlap;
    if (pieces.length === MAX_PIECES) return Placement.TooMany;
    if (!isMore) this.#total = to;
    pieces.splice(index, 0, { from, payload: new Uint8Array(payload) });
    this.#received += payload.length;
    return Placement.Taken;
  }

  /** Writes the payloads behind each other; the datagram must be complete. */
  copyTo(target: Uint8Array, at: number): void {
    for (const { from, payload } of this.#pieces) target.set(payload, at + from);
  }
}

interface Piece {
  readonly from: number;
  readonly payload: Uint8Array;
}

function endOf({ from, payload }: Piece): number {
  return from + payload.length;
}

function isEqual(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

/** A datagram of 64 KiB over the smallest MTU of IPv4 that is in use (552 bytes) has 124 fragments. */
const MAX_PIECES = 256;
/** What the objects of one fragment take, about. */
const PIECE_OVERHEAD = 160;
