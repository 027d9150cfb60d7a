/**
 * Copies bytes and sums them for the Internet checksum
 * ([RFC 1071](https://www.rfc-editor.org/rfc/rfc1071)) in one pass.
 *
 * It reads words of 32 bits in the machine's byte order and sums their halves separately, so that each sum
 * stays a small integer. RFC 1071 section 2 (B) allows swapping the bytes of the sum at the end. This takes a
 * third of the time of a loop over bytes.
 * @module
 */
import { fold } from './checksum.ts';

/**
 * Copies `length` bytes, at most 65,575, from offset `from` of `source` to `target` from index `word` on, and
 * pads the last word with zeros. Returns their sum as `fold` does.
 */
export function copySum(
  source: DataView,
  from: number,
  target: Int32Array,
  word: number,
  length: number
): number {
  const end = from + length;
  let low = 0;
  let high = 0;
  for (; from <= end - 16; from += 16, word += 4) {
    const a = source.getInt32(from, LITTLE_ENDIAN);
    const b = source.getInt32(from + 4, LITTLE_ENDIAN);
    const c = source.getInt32(from + 8, LITTLE_ENDIAN);
    const d = source.getInt32(from + 12, LITTLE_ENDIAN);
    target[word] = a;
    target[word + 1] = b;
    target[word + 2] = c;
    target[word + 3] = d;
    low = (low + (a & 0xffff) + (b & 0xffff) + (c & 0xffff) + (d & 0xffff)) | 0;
    high = (high + (a >>> 16) + (b >>> 16) + (c >>> 16) + (d >>> 16)) | 0;
  }
  for (; from < end; from += 4, word++) {
    const a =
      from <= end - 4 ? source.getInt32(from, LITTLE_ENDIAN) : lastWord(source, from, end - from);
    target[word] = a;
    low += a & 0xffff;
    high += a >>> 16;
  }
  const sum = fold(low + high);
  return LITTLE_ENDIAN ? ((sum & 0xff) << 8) | (sum >>> 8) : sum;
}

/** Returns the word of 1 to 3 bytes, padded with zeros. */
function lastWord(source: DataView, at: number, length: number): number {
  let word = 0;
  for (let i = 0; i < length; i++) {
    word |= source.getUint8(at + i) << (LITTLE_ENDIAN ? i << 3 : 24 - (i << 3));
  }
  return word;
}

const LITTLE_ENDIAN: boolean = /* @__PURE__ */ new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;
