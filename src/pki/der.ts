/**
 * DER, the encoding of certificates ([X.690](https://www.itu.int/rec/T-REC-X.690)): short names for
 * building it with `forge.asn1`, and a strict splitter for reading it.
 *
 * Reading is kept apart from forge on purpose: a signing request comes from an unauthenticated peer, and all we
 * need of one is where its outer elements begin and end. What is inside them goes to OpenSSL.
 * @module
 */
import forge from 'node-forge';
import { CertificateError } from '../errors.ts';

export type Asn1 = forge.asn1.Asn1;

export function sequence(...items: readonly Asn1[]): Asn1 {
  return constructed(Type.SEQUENCE, items);
}

export function set(...items: readonly Asn1[]): Asn1 {
  return constructed(Type.SET, items);
}

/** A non-negative INTEGER in its shortest form. */
export function integer(value: bigint): Asn1 {
  return primitive(Type.INTEGER, unsignedBytes(value));
}

export function enumerated(value: number): Asn1 {
  return primitive(Type.ENUMERATED, unsignedBytes(BigInt(value)));
}

export function boolean(value: boolean): Asn1 {
  return primitive(Type.BOOLEAN, Uint8Array.of(value ? 0xff : 0));
}

export function nothing(): Asn1 {
  return primitive(Type.NULL, new Uint8Array());
}

export function oid(dotted: string): Asn1 {
  return asn1.create(Class.UNIVERSAL, Type.OID, false, asn1.oidToDer(dotted).getBytes());
}

export function utf8String(text: string): Asn1 {
  return primitive(Type.UTF8, Buffer.from(text));
}

export function octetString(content: Uint8Array | Asn1): Asn1 {
  return primitive(Type.OCTETSTRING, content instanceof Uint8Array ? content : encode(content));
}

/** A BIT STRING whose last byte leaves `unusedBits` unused. */
export function bitString(content: Uint8Array, unusedBits = 0): Asn1 {
  return primitive(Type.BITSTRING, Buffer.concat([Uint8Array.of(unusedBits), content]));
}

/** UTCTime until 2049, GeneralizedTime after, as RFC 5280 section 4.1.2.5 demands. */
export function time(ms: number): Asn1 {
  const date = new Date(ms);
  return date.getUTCFullYear() < 2050
    ? asn1.create(Class.UNIVERSAL, Type.UTCTIME, false, asn1.dateToUtcTime(date))
    : asn1.create(Class.UNIVERSAL, Type.GENERALIZEDTIME, false, asn1.dateToGeneralizedTime(date));
}

/** `[tag] EXPLICIT`, or `[tag] IMPLICIT` of a constructed type. */
export function tagged(tag: number, ...items: readonly Asn1[]): Asn1 {
  return asn1.create(Class.CONTEXT_SPECIFIC, tag, true, [...items]);
}

/** `[tag] IMPLICIT` of a primitive type. */
export function taggedBytes(tag: number, content: Uint8Array): Asn1 {
  return asn1.create(Class.CONTEXT_SPECIFIC, tag, false, binary(content));
}

/** Takes in DER that OpenSSL wrote or that we trust; never bytes of an unauthenticated peer. */
export function embed(der: Uint8Array): Asn1 {
  return asn1.fromDer(binary(der));
}

export function encode(node: Asn1): Buffer {
  return Buffer.from(asn1.toDer(node).getBytes(), 'latin1');
}

/** An `Extension` of RFC 5280 section 4.1. */
export function extension(id: string, value: Asn1, critical = false): Asn1 {
  return critical
    ? sequence(oid(id), boolean(true), octetString(value))
    : sequence(oid(id), octetString(value));
}

/** A `Name` of one attribute, the common name. */
export function commonName(text: string): Asn1 {
  return sequence(set(sequence(oid('2.5.4.3'), utf8String(text.slice(0, MAX_COMMON_NAME)))));
}

/** The text armour of [RFC 7468](https://www.rfc-editor.org/rfc/rfc7468). */
export function encodePem(label: string, der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}

/**
 * Splits an element, a SEQUENCE if not told otherwise, into its children, each as its own original
 * bytes.
 *
 * @throws {CertificateError} unless `der` is exactly one element with this tag, in definite, shortest
 * form, filled exactly by its children. The children's own content is not looked at.
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

/** The content of one element, without tag and length. */
export function contentOf(der: Buffer): Buffer {
  const { content, end } = readHeader(der, 0);
  return der.subarray(content, end);
}

/** Offsets of the content and of the end of the element at `start`, which lies within `der`. */
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

function constructed(type: forge.asn1.Type, items: readonly Asn1[]): Asn1 {
  return asn1.create(Class.UNIVERSAL, type, true, [...items]);
}

function primitive(type: forge.asn1.Type, content: Uint8Array): Asn1 {
  return asn1.create(Class.UNIVERSAL, type, false, binary(content));
}

/** forge keeps bytes as strings of one character a byte. */
function binary(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
}

/** Big-endian two's complement; a leading zero keeps the number positive. */
function unsignedBytes(value: bigint): Buffer {
  const hex = value.toString(16);
  const bytes = Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, 'hex');
  return bytes[0]! < 0x80 ? bytes : Buffer.concat([Uint8Array.of(0), bytes]);
}

const { asn1 } = forge;
const { Class, Type } = asn1;
const SEQUENCE = 0x30;
const HIGH_TAG = 0x1f;
/** ub-common-name, RFC 5280 appendix A.1. */
const MAX_COMMON_NAME = 64;
