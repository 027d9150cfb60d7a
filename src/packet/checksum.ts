/**
 * The Internet checksum ([RFC 1071](https://www.rfc-editor.org/rfc/rfc1071)) and its change by
 * increment ([RFC 1624](https://www.rfc-editor.org/rfc/rfc1624)).
 *
 * With HC the checksum, m a 16-bit word it covers and m' that word's new value, RFC 1624 equation 3
 * gives
 *
 *     HC' = ~(~HC + ~m + m')
 *
 * where `+` is one's complement addition. The part `~m + m'`, summed over all words that change, is
 * the *delta*: it depends on the addresses alone, so a path carries it ready made. A *partial*
 * checksum holds the pseudo-header sum, not complemented (`VNET_F_NEEDS_CSUM`), so there the delta
 * is simply added.
 *
 * One's complement has two zeros. A sum of words that are not all zero never folds to 0x0000, only
 * to 0xffff; adding a delta keeps that, so a checksum changed by increment is the very number that
 * a computation from nothing would give. A delta of 0x0000 changes nothing, not even a wrong sum.
 * @module
 */

/** Folds a sum below 2^32 - 2^16 to 16 bits with end-around carry. */
export function fold(sum: number): number {
  sum = (sum & 0xffff) + (sum >>> 16);
  return ((sum & 0xffff) + (sum >>> 16)) & 0xffff;
}

/** Changes a complete checksum by a delta (RFC 1624 equation 3). */
export function adjustChecksum(checksum: number, delta: number): number {
  return ~fold((~checksum & 0xffff) + delta) & 0xffff;
}

/** Changes a partial checksum, which is a sum and not its complement, by a delta. */
export function adjustPartialChecksum(sum: number, delta: number): number {
  return fold(sum + delta);
}

/** The delta of one 16-bit word that changes; add several and `foldDelta`. */
export function wordDelta(before: number, after: number): number {
  return (~before & 0xffff) + after;
}

/** The delta of one 32-bit word that changes; add several and `foldDelta`. */
export function longDelta(before: number, after: number): number {
  return wordDelta(before >>> 16, after >>> 16) + wordDelta(before & 0xffff, after & 0xffff);
}

/** Folds a sum of deltas; of the two that say "no change", gives the one that changes nothing. */
export function foldDelta(sum: number): number {
  const delta = fold(sum);
  return delta === 0xffff ? 0 : delta;
}

/**
 * Sums the bytes `start` to `end` as big-endian 16-bit words, an odd last byte padded with zero, on
 * top of `sum`; up to 64 KiB. The checksum is `~fold(sum)`.
 */
export function sumBytes(buffer: Uint8Array, start: number, end: number, sum: number): number {
  const even = end - ((end - start) & 1);
  for (let i = start; i < even; i += 2) sum += (buffer[i]! << 8) | buffer[i + 1]!;
  return even < end ? sum + (buffer[even]! << 8) : sum;
}

/** The same through a view. */
export function sumView(view: DataView, start: number, end: number, sum: number): number {
  const even = end - ((end - start) & 1);
  for (let at = start; at < even; at += 2) sum += view.getUint16(at);
  return even < end ? sum + (view.getUint8(even) << 8) : sum;
}
