/**
 * The two kinds of certificate the CA signs, a root and an end entity, in the profile of
 * [RFC 5280](https://www.rfc-editor.org/rfc/rfc5280#section-4).
 * @module
 */
import crypto, { type KeyObject, X509Certificate } from 'node:crypto';
import { CertificateError } from '../errors.ts';
import {
  type Asn1,
  bitString,
  boolean,
  children,
  commonName,
  contentOf,
  embed,
  encode,
  encodePem,
  extension,
  integer,
  octetString,
  oid,
  sequence,
  tagged,
  taggedBytes,
  time,
} from './der.ts';
import { signatureAlgorithmOf, signed, spkiDigest, spkiOf } from './keys.ts';
import { formatIdentity, type GatewayIdentity } from './names.ts';

/** What a CA signs with: its key, and how certificates and CRLs refer to it. */
export interface Issuer {
  readonly privateKey: KeyObject;
  /** Its subject, a DER `Name`. */
  readonly name: Asn1;
  /** Content of its subject key identifier. */
  readonly keyId: Buffer;
}

/** From and until when a certificate holds, in ms since 1970; the encoding keeps whole seconds. */
export interface Validity {
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/** Draws a positive serial number of 16 bytes, 126 bits of them random, as lower-case hex. */
export function randomSerial(): string {
  const bytes = crypto.randomBytes(16);
  // Neither negative nor with a leading zero, which encoders treat differently.
  bytes[0] = (bytes[0]! & 0x7f) | 0x40;
  return bytes.toString('hex');
}

/** Makes a self-signed root that may sign end entities and CRLs, but no further CA. */
export function signRoot(privateKey: KeyObject, trustDomain: string, validity: Validity): string {
  const publicKey = crypto.createPublicKey(privateKey);
  const keyId = spkiDigest(publicKey);
  const name = commonName(`${trustDomain} gateways`);
  return signCertificate({ privateKey, name, keyId }, publicKey, name, randomSerial(), validity, [
    extension(BASIC_CONSTRAINTS, sequence(boolean(true), integer(0n)), true),
    extension(KEY_USAGE, bitString(CERTIFICATES_AND_CRLS, 1), true),
    extension(SUBJECT_KEY_ID, octetString(keyId)),
    extension(SUBJECT_ALT_NAME, uriName(trustDomainUri(trustDomain))),
  ]);
}

/** Makes the certificate of a gateway, both a client's and a server's. */
export function signEndEntity(
  issuer: Issuer,
  publicKey: KeyObject,
  identity: GatewayIdentity,
  serial: string,
  validity: Validity
): string {
  const name = commonName(identity.role === 'cloud' ? 'cloud' : identity.site);
  return signCertificate(issuer, publicKey, name, serial, validity, [
    extension(BASIC_CONSTRAINTS, sequence(), true),
    extension(KEY_USAGE, bitString(SIGNATURES, 7), true),
    extension(EXTENDED_KEY_USAGE, sequence(oid(SERVER_AUTH), oid(CLIENT_AUTH))),
    extension(SUBJECT_KEY_ID, octetString(spkiDigest(publicKey))),
    authorityKeyId(issuer.keyId),
    extension(SUBJECT_ALT_NAME, uriName(formatIdentity(identity))),
  ]);
}

/**
 * Reads from a CA certificate how to refer to it.
 *
 * @throws {CertificateError} if it has no subject key identifier.
 */
export function issuerOf(certificate: X509Certificate, privateKey: KeyObject): Issuer {
  const fields = children(children(certificate.raw)[0]!);
  const wanted = encode(oid(SUBJECT_KEY_ID));
  for (const item of children(children(fields.at(-1)!, EXTENSIONS)[0]!)) {
    const [id, ...rest] = children(item);
    if (!id!.equals(wanted)) continue;
    const keyId = contentOf(contentOf(rest.at(-1)!));
    return { privateKey, name: embed(fields[5]!), keyId };
  }
  throw new CertificateError('the CA certificate has no subject key identifier');
}

/**
 * Reads the certificate of an existing CA.
 *
 * @throws {CertificateError} if it is not one, or is of another key or trust domain.
 */
export function readCaCertificate(
  pem: string,
  privateKey: KeyObject,
  trustDomain: string
): X509Certificate {
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(pem);
  } catch (cause) {
    throw new CertificateError('the CA certificate cannot be read', { cause });
  }
  if (!certificate.ca) throw new CertificateError('the certificate is not a CA certificate');
  if (!certificate.checkPrivateKey(privateKey)) {
    throw new CertificateError('the private key is not that of the CA certificate');
  }
  const names = certificate.subjectAltName;
  if (names !== undefined && names !== `URI:${trustDomainUri(trustDomain)}`) {
    throw new CertificateError(`the CA certificate is for ${names}, not for ${trustDomain}`);
  }
  return certificate;
}

/** The extension by which certificates and CRLs name the key that signed them. */
export function authorityKeyId(keyId: Buffer): Asn1 {
  return extension(AUTHORITY_KEY_ID, sequence(taggedBytes(0, keyId)));
}

/** How a root that we made says which trust domain it is for. */
function trustDomainUri(trustDomain: string): string {
  return `spiffe://${trustDomain}`;
}

function signCertificate(
  issuer: Issuer,
  publicKey: KeyObject,
  subject: Asn1,
  serial: string,
  validity: Validity,
  extensions: readonly Asn1[]
): string {
  const tbs = sequence(
    tagged(0, integer(V3)),
    integer(BigInt(`0x${serial}`)),
    signatureAlgorithmOf(issuer.privateKey),
    issuer.name,
    sequence(time(validity.notBeforeMs), time(validity.notAfterMs)),
    subject,
    embed(spkiOf(publicKey)),
    tagged(3, sequence(...extensions))
  );
  return encodePem('CERTIFICATE', signed(tbs, issuer.privateKey));
}

function uriName(uri: string): Asn1 {
  return sequence(taggedBytes(6, Buffer.from(uri)));
}

const V3 = 2n;
/** The tag `[3]`. */
const EXTENSIONS = 0xa3;
const SUBJECT_KEY_ID = '2.5.29.14';
const KEY_USAGE = '2.5.29.15';
const SUBJECT_ALT_NAME = '2.5.29.17';
const BASIC_CONSTRAINTS = '2.5.29.19';
const AUTHORITY_KEY_ID = '2.5.29.35';
const EXTENDED_KEY_USAGE = '2.5.29.37';
const SERVER_AUTH = '1.3.6.1.5.5.7.3.1';
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2';
/** KeyUsage bits, most significant first: digitalSignature; keyCertSign and cRLSign. */
const SIGNATURES: Uint8Array = Uint8Array.of(0x80);
const CERTIFICATES_AND_CRLS: Uint8Array = Uint8Array.of(0x06);
