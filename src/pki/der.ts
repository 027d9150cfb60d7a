/**
 * DER, the encoding of certificates ([X.690](https://www.itu.int/rec/T-REC-X.690)), written and read by
 * `forge.asn1`. It reads trusted bytes only: `strict-der.ts` reads what an unauthenticated peer sends.
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

/** A UTCTime until 2049 and a GeneralizedTime after, as RFC 5280 section 4.1.2.5 requires. */
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

/**
 * Reads DER that OpenSSL has written or an operator has provided, never bytes of an unauthenticated peer.
 *
 * @throws {CertificateError} unless `der` is exactly one complete element.
 */
export function decode(der: Uint8Array): Asn1 {
  try {
    return asn1.fromDer(binary(der));
  } catch (cause) {
    throw new CertificateError('the DER is malformed', { cause });
  }
}

/**
 * Follows `path` down from `node`; each number is the index of a child in its parent.
 *
 * @throws {CertificateError} if there is no such element.
 */
export function elementAt(node: Asn1, ...path: readonly number[]): Asn1 {
  let found: Asn1 | undefined = node;
  for (const index of path) found = childrenOf(found)[index];
  if (found === undefined) throw new CertificateError('an element is missing in the DER');
  return found;
}

/** Returns the children of a constructed element; a primitive element has none. */
export function childrenOf(node: Asn1 | undefined): readonly Asn1[] {
  return Array.isArray(node?.value) ? node.value : [];
}

/** Returns the content of a primitive element. */
export function bytesOf({ value }: Asn1): Buffer {
  return Buffer.from(typeof value === 'string' ? value : '', 'latin1');
}

/** @throws {Error} if the INTEGER has more than 32 bits. */
export function numberOf(node: Asn1): number {
  return asn1.derToInteger(binary(bytesOf(node)));
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

/** The fields that forge sets for the extensions that we read. */
interface ExtensionFields {
  /** The identifier as hexadecimal digits. */
  readonly subjectKeyIdentifier?: string;
  readonly keyCertSign?: boolean;
  readonly cRLSign?: boolean;
  readonly pathLenConstraint?: number;
}

/**
 * Reads one extension of a trusted certificate.
 *
 * @param id its object identifier
 * @returns undefined if the certificate has no such extension.
 * @throws {CertificateError} if the extension is malformed.
 */
export function readExtension(
  extensions: readonly Asn1[],
  id: string
): ExtensionFields | undefined {
  const wanted = bytesOf(oid(id));
  const found = extensions.find((it) => bytesOf(elementAt(it, 0)).equals(wanted));
  if (found === undefined) return undefined;
  try {
    return certificateExtensionFromAsn1(found);
  } catch (cause) {
    throw new CertificateError(`the extension ${id} is malformed`, { cause });
  }
}

/** A `Name` of one attribute, the common name. */
export function commonName(text: string): Asn1 {
  return sequence(set(sequence(oid('2.5.4.3'), utf8String(text.slice(0, MAX_COMMON_NAME)))));
}

/** Writes PEM ([RFC 7468](https://www.rfc-editor.org/rfc/rfc7468)), about ten times as fast as `forge.pem`. */
export function encodePem(label: string, der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}

function constructed(type: forge.asn1.Type, items: readonly Asn1[]): Asn1 {
  return asn1.create(Class.UNIVERSAL, type, true, [...items]);
}

function primitive(type: forge.asn1.Type, content: Uint8Array): Asn1 {
  return asn1.create(Class.UNIVERSAL, type, false, binary(content));
}

/** Converts bytes to the form that forge uses: a string with one character per byte. */
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
/** `@types/node-forge` lacks this function. */
const { certificateExtensionFromAsn1 } = forge.pki as unknown as {
  certificateExtensionFromAsn1(extension: Asn1): ExtensionFields;
};
/** ub-common-name, RFC 5280 appendix A.1. */
const MAX_COMMON_NAME = 64;
