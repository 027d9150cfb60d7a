/**
 * The Internet checksum ([RFC 1071](https://www.rfc-editor.org/rfc/rfc1071)) and its incremental update
 * ([RFC 1624](https://www.rfc-editor.org/rfc/rfc1624)).
 *
 * With HC the checksum, m a 16-bit word it covers and m' that word's new value, RFC 1624 equation 3
 * gives
 *
 *     HC' = ~(~HC + ~m + m')
 *
 * where `+` is one's complement addition. The part `~m + m'`, summed over all words that change, is
 * the *delta*. It depends only on the addresses, so each path stores its delta. A *partial* checksum
 * holds the pseudo-header sum, not complemented (`VNET_F_NEEDS_CSUM`), so the delta is added to it.
 *
 * One's complement has two zeros. A sum of words that are not all zero never folds to 0x0000, only
 * to 0xffff. Adding a delta keeps that, so an incremental update gives the same number as a full
 * computation. A delta of 0x0000 changes nothing, not even a wrong sum.
 * @module
 */

/** Folds a sum below 2^32 - 2^16 to 16 bits with end-around carry. */
export function fold(sum: number): number {
  sum = (sum & 0xffff) + (sum >>> 16);
  return ((sum & 0xffff) + (sum >>> 16)) & 0xffff;
}

/** Applies a delta to a complete checksum (RFC 1624 equation 3). */
export function adjustChecksum(checksum: number, delta: number): number {
  return ~fold((~checksum & 0xffff) + delta) & 0xffff;
}

/** Applies a delta to a partial checksum, which is a sum and not its complement. */
export function adjustPartialChecksum(sum: number, delta: number): number {
  return fold(sum + delta);
}

/** Returns the delta of one changed 16-bit word. Deltas can be added before `foldDelta`. */
export function wordDelta(before: number, after: number): number {
  return (~before & 0xffff) + after;
}

/** Returns the delta of one changed 32-bit word. Deltas can be added before `foldDelta`. */
export function longDelta(before: number, after: number): number {
  return wordDelta(before >>> 16, after >>> 16) + wordDelta(before & 0xffff, after & 0xffff);
}

/** Folds a sum of deltas. Returns 0 for 0xffff: both mean "no change", but only 0 keeps a wrong sum. */
export function foldDelta(sum: number): number {
  const delta = fold(sum);
  return delta === 0xffff ? 0 : delta;
}

/**
 * Adds `buffer[start .. end)`, at most 64 KiB, to `sum` as big-endian 16-bit words; an odd last byte is
 * padded with zero. The checksum is `~fold(sum)`.
 */
export function sumBytes(buffer: Uint8Array, start: number, end: number, sum: number): number {
  const even = end - ((end - start) & 1);
  for (let i = start; i < even; i += 2) sum += (buffer[i]! << 8) | buffer[i + 1]!;
  return even < end ? sum + (buffer[even]! << 8) : sum;
}

/** Does the same as `sumBytes` through a view. */
export function sumView(view: DataView, start: number, end: number, sum: number): number {
  const even = end - ((end - start) & 1);
  for (let at = start; at < even; at += 2) sum += view.getUint16(at);
  return even < end ? sum + (view.getUint8(even) << 8) : sum;
}
