/**
 * Bytes of an endless stream that tell where they are in it.
 * @module
 */

const PERIOD = 65_521;
const pattern = Buffer.alloc(8 * PERIOD);
for (let i = 0; i < PERIOD; i++) pattern[i] = Math.imul(i, 0x9e3779b1) >>> 24;
for (let i = 1; i < 8; i++) pattern.copy(pattern, i * PERIOD, 0, PERIOD);

/** The bytes from..from + length of the stream; at most 450,000. */
export function stream(from: number, length: number): Uint8Array {
  const at = ((from % PERIOD) + PERIOD) % PERIOD;
  return new Uint8Array(pattern.subarray(at, at + length));
}
