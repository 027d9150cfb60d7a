/**
 * The Internet checksum of [RFC 1071](https://www.rfc-editor.org/rfc/rfc1071), always computed in full over a
 * list of 16-bit words; and the incremental update of
 * [RFC 1624](https://www.rfc-editor.org/rfc/rfc1624) equation 3, one word at a time.
 * @module
 */

/** The bytes as big-endian 16-bit words; an odd last byte is padded with a zero byte. */
export function wordsOf(bytes: Uint8Array): number[] {
  const words: number[] = [];
  for (let i = 0; i < bytes.length; i += 2) words.push((bytes[i]! << 8) | (bytes[i + 1] ?? 0));
  return words;
}

/** Ones' complement sum. */
export function onesSum(words: readonly number[]): number {
  let sum = 0;
  for (const word of words) sum += word;
  while (sum > 0xffff) sum = (sum % 0x10000) + Math.floor(sum / 0x10000);
  return sum;
}

/** The checksum to send for these words. */
export function checksumOf(words: readonly number[]): number {
  return 0xffff - onesSum(words);
}

/** Whether a receiver that sums the words and the checksum accepts them. */
export function isRight(words: readonly number[], checksum: number): boolean {
  return onesSum([...words, checksum]) === 0xffff;
}

/** RFC 1624 equation 3, `HC' = ~(~HC + ~m + m')`, for each word that changed. */
export function incremented(
  checksum: number,
  before: readonly number[],
  after: readonly number[]
): number {
  for (let i = 0; i < before.length; i++) {
    if (before[i] === after[i]) continue;
    checksum = 0xffff - onesSum([0xffff - checksum, 0xffff - before[i]!, after[i]!]);
  }
  return checksum;
}

/** What both kinds of IP put in front of the covered bytes (RFC 9293 section 3.1, RFC 8200 section 8.1). */
export function pseudoHeader(
  source: Uint8Array,
  destination: Uint8Array,
  protocol: number,
  length: number
): number[] {
  return [
    ...wordsOf(source),
    ...wordsOf(destination),
    Math.floor(length / 0x10000),
    length % 0x10000,
    protocol,
  ];
}
