/**
 * Bytes in network order.
 * @module
 */

export const NOTHING: Uint8Array = new Uint8Array(0);

export function bytes(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

export function u8(value: number): Uint8Array {
  return Uint8Array.of(value);
}

export function u16(value: number): Uint8Array {
  return Uint8Array.of(value >> 8, value & 255);
}

export function u32(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255);
}

/** `length` bytes, all of them different from their neighbours. */
export function counting(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 7 + 3) & 255);
}

/** The bytes, filled up with zeros to a multiple of `unit`. */
export function padded(part: Uint8Array, unit: number): Uint8Array {
  return bytes(part, new Uint8Array(Math.ceil(part.length / unit) * unit - part.length));
}
