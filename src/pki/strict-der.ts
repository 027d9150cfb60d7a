/**
 * A strict reader of DER ([X.690](https://www.itu.int/rec/T-REC-X.690)) for what unauthenticated peers send:
 * signing requests, public keys and certificates.
 *
 * It only finds where elements begin and end, and returns their original bytes, because a signature is checked over
 * those. OpenSSL reads their content. node-forge would not do: it accepts BER, does not keep the original bytes, and
 * its parser has had security faults.
 * @module
 */
import { CertificateError } from '../errors.ts';

/**
 * Splits an element into its children, each as its original bytes. The content of the children is not checked.
 *
 * @param tag the tag that the element must have; default SEQUENCE
 * @throws {CertificateError} unless `der` is exactly one element with this tag, its length is in definite and
 * shortest form, and its children fill it exactly.
 */
export function children(der: Buffer, tag: number = SEQUENCE): Buffer[] {
  const outer = readHeader(der, 0);
  if (der[0] !== tag) throw new CertificateError('DER: unexpected tag');
  if (outer.end !== der.length) throw new CertificateError('DER: trailing bytes');
  const found: Buffer[] = [];
  for (let at = outer.content; at < outer.end; ) {
    const { end } = readHeader(der, at);
    found.push(der.subarray(at, end));
    at = end;
  }
  return found;
}

/** Returns the content of one element, without its tag and length. */
export function contentOf(der: Buffer): Buffer {
  const { content, end } = readHeader(der, 0);
  return der.subarray(content, end);
}

/** Returns the offsets at which the content of the element at `start` begins and ends; both are within `der`. */
function readHeader(der: Buffer, start: number): { content: number; end: number } {
  if (start + 2 > der.length) throw new CertificateError('DER: truncated');
  if ((der[start]! & HIGH_TAG) === HIGH_TAG) throw new CertificateError('DER: tag too high');
  let content = start + 2;
  let length = der[start + 1]!;
  if (length > 0x80 && length <= 0x83) {
    const bytes = length & 0x7f;
    content += bytes;
    if (content > der.length) throw new CertificateError('DER: truncated');
    length = der.readUIntBE(start + 2, bytes);
    if (length < (bytes === 1 ? 0x80 : 1 << (8 * (bytes - 1)))) {
      throw new CertificateError('DER: length not in shortest form');
    }
  } else if (length >= 0x80) {
    throw new CertificateError('DER: length indefinite or too long');
  }
  const end = content + length;
  if (end > der.length) throw new CertificateError('DER: truncated');
  return { content, end };
}

const SEQUENCE = 0x30;
const HIGH_TAG = 0x1f;
