/**
 * Arithmetic of sequence numbers modulo 2^32
 * ([RFC 9293 section 3.4](https://www.rfc-editor.org/rfc/rfc9293#section-3.4)).
 *
 * A sequence number is a signed 32-bit integer, which V8 keeps unboxed. Two numbers are compared by their distance,
 * which is meaningful while they are less than 2^31 apart.
 * @module
 */

/** Returns the number that is `count` behind `sequence`. */
export function seqAdd(sequence: number, count: number): number {
  return (sequence + count) | 0;
}

/** Returns how far `to` is behind `from`; negative if it is in front of it. */
export function seqDistance(from: number, to: number): number {
  return (to - from) | 0;
}

/** Returns whether `a` comes before `b`. */
export function seqBefore(a: number, b: number): boolean {
  return ((a - b) | 0) < 0;
}

/** Returns whether `a` comes before `b` or is equal to it. */
export function seqAtMost(a: number, b: number): boolean {
  return ((a - b) | 0) <= 0;
}

/** Returns the later of two numbers. */
export function seqMax(a: number, b: number): number {
  return ((a - b) | 0) > 0 ? a : b;
}

/** Returns the earlier of two numbers. */
export function seqMin(a: number, b: number): number {
  return ((a - b) | 0) < 0 ? a : b;
}
