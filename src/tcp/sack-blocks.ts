/**
 * Reads the SACK blocks of an ACK as they came: nothing about them is taken for granted
 * ([RFC 2018 section 4](https://www.rfc-editor.org/rfc/rfc2018#section-4),
 * [RFC 2883 section 4](https://www.rfc-editor.org/rfc/rfc2883#section-4)).
 * @module
 */
import { seqAtMost, seqBefore, seqDistance } from './sequence.ts';

/** The usable blocks of the ACK read last, as pairs (left, right) in the order of sequence numbers. */
export const usableBlocks: Int32Array = new Int32Array(8);

/**
 * Returns whether the first block reports data that arrived twice: it is below the ACK number or inside the second
 * block.
 */
export function isDsack(ack: number, sack: Int32Array, count: number): boolean {
  if (count < 1 || sack.length < 2) return false;
  const left = sack[0]!;
  const right = sack[1]!;
  if (!seqBefore(left, right)) return false;
  if (seqAtMost(right, ack)) return true;
  return count > 1 && sack.length >= 4 && seqAtMost(sack[2]!, left) && seqAtMost(right, sack[3]!);
}

/**
 * Sorts the blocks from index `first` on that are within (`una`, `next`] into `usableBlocks`, and returns their number.
 * Others are old or invented. A block that begins at SND.UNA is impossible: the ACK number would cover it.
 *
 * They are in order, so that what one ACK reports does not look like reordering (RFC 8985, section 6.2, step 3).
 */
export function readBlocks(
  sack: Int32Array,
  first: number,
  count: number,
  una: number,
  next: number
): number {
  const end = Math.min(count, sack.length >>> 1, usableBlocks.length >>> 1);
  let usable = 0;
  for (let i = first; i < end; i++) {
    const left = sack[2 * i]!;
    const right = sack[2 * i + 1]!;
    const from = seqDistance(una, left);
    const to = seqDistance(una, right);
    // Three comparisons of two numbers each would let a block pass that goes once around.
    if (from <= 0 || to <= from || to > seqDistance(una, next)) continue;
    let at = usable++;
    for (; at > 0 && seqBefore(left, usableBlocks[2 * at - 2]!); at--) {
      usableBlocks[2 * at] = usableBlocks[2 * at - 2]!;
      usableBlocks[2 * at + 1] = usableBlocks[2 * at - 1]!;
    }
    usableBlocks[2 * at] = left;
    usableBlocks[2 * at + 1] = right;
  }
  return usable;
}
