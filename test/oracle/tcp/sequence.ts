/**
 * Arithmetic of sequence numbers (RFC 9293 section 3.4): "all arithmetic dealing with sequence numbers must be
 * performed modulo 2^32". A sequence number is a plain number of [0, 2^32).
 * @module
 */

export const MODULUS: number = 2 ** 32;

/** `a + count`, where `count` may be negative. */
export function plus(a: number, count: number): number {
  return (((a + count) % MODULUS) + MODULUS) % MODULUS;
}

/** How many numbers one has to count from `b` on to come to `a`: a number of [0, 2^32). */
export function minus(a: number, b: number): number {
  return plus(a, -b);
}

/** `a < b` ("The symbol "=<" means "less than or equal" (modulo 2^32)"): `b` is less than half a turn ahead. */
export function isLess(a: number, b: number): boolean {
  return a !== b && minus(b, a) < MODULUS / 2;
}

/** `a =< b`. */
export function isAtMost(a: number, b: number): boolean {
  return a === b || isLess(a, b);
}

/** `left =< x < left + size`, the form of all tests against a window. */
export function isWithin(x: number, left: number, size: number): boolean {
  return minus(x, left) < size;
}

/** `low < x =< high`, where `low =< high`. */
export function isAfterUpTo(low: number, x: number, high: number): boolean {
  return x !== low && minus(x, low) <= minus(high, low);
}

/** `low =< x =< high`, where `low =< high`. */
export function isFromUpTo(low: number, x: number, high: number): boolean {
  return minus(x, low) <= minus(high, low);
}
