/**
 * A CA certificate as it is read: what a CA may sign, and how it is referred to. Node tells neither, so
 * the extensions are taken from the DER; the bytes are an operator's, never an unauthenticated peer's.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import { CertificateError } from '../errors.ts';
import {
  BASIC_CONSTRAINTS,
  CERTIFICATES_AND_CRLS,
  KEY_USAGE,
  SUBJECT_KEY_ID,
  trustDomainUri,
} from './certificate.ts';
import { isIssuedBy } from './credentials-check.ts';
import { children, contentOf, encode, oid } from './der.ts';

export class CaCertificate {
  readonly x509: X509Certificate;
  /** DER `Name`s. */
  readonly subject: Buffer;
  readonly issuer: Buffer;
  /** Content of the subject key identifier. */
  readonly keyId: Buffer;
  /** How many further CAs may stand below it, those that issued themselves not counted; RFC 5280 section 4.2.1.9. */
  readonly pathLength: number;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;

  /** @throws {CertificateError} if it is not one that may sign certificates and CRLs of this trust domain. */
  constructor(x509: X509Certificate, trustDomain: string) {
    if (!x509.ca) throw new CertificateError('the certificate is not a CA certificate');
    const foreign = x509.subjectAltName?.split(', ').find((name) => name.startsWith(SPIFFE));
    if (foreign !== undefined && foreign !== `URI:${trustDomainUri(trustDomain)}`) {
      throw new CertificateError(`the CA certificate is for ${foreign}, not for ${trustDomain}`);
    }
    const fields = children(children(x509.raw)[0]!);
    const extensions = readExtensions(fields.at(-1)!);
    const keyId = extensions.get(idOf(SUBJECT_KEY_ID));
    if (keyId === undefined) {
      throw new CertificateError('the CA certificate has no subject key identifier');
    }
    const usage = extensions.get(idOf(KEY_USAGE));
    if (usage !== undefined && !mayCertify(contentOf(usage))) {
      throw new CertificateError('the CA certificate may not sign both certificates and CRLs');
    }
    this.x509 = x509;
    this.issuer = fields[3]!;
    this.subject = fields[5]!;
    this.keyId = contentOf(keyId);
    this.pathLength = pathLengthOf(extensions.get(idOf(BASIC_CONSTRAINTS))!);
    this.notBeforeMs = Date.parse(x509.validFrom);
    this.notAfterMs = Date.parse(x509.validTo);
  }

  /** Issued under its own name, though perhaps by another key. */
  get isSelfIssued(): boolean {
    return this.subject.equals(this.issuer);
  }

  /** Whether this key has signed the certificate under this name. */
  hasIssued(certificate: X509Certificate): boolean {
    return isIssuedBy(certificate, this.x509);
  }
}

/** What of a CA certificate counts for the length of a path. */
export type PathElement = Pick<CaCertificate, 'pathLength' | 'isSelfIssued'>;

/** Whether the CAs of a path, root first, may stand below each other; RFC 5280 section 6.1.4 (l), (m). */
export function fitsPathLengths(path: readonly PathElement[]): boolean {
  return path.every(({ pathLength }, at) => {
    const below = path.slice(at + 1).filter(({ isSelfIssued }) => !isSelfIssued);
    return below.length <= pathLength;
  });
}

/** By the hex of the identifier's DER; values as they are within the octet string. */
function readExtensions(field: Buffer): Map<string, Buffer> {
  const extensions = children(field, EXTENSIONS)[0]!;
  return new Map(
    children(extensions).map((extension) => {
      const [id, ...rest] = children(extension);
      return [id!.toString('hex'), contentOf(rest.at(-1)!)];
    })
  );
}

function idOf(dotted: string): string {
  return encode(oid(dotted)).toString('hex');
}

/** `SEQUENCE { cA BOOLEAN, pathLenConstraint INTEGER OPTIONAL }`. */
function pathLengthOf(basicConstraints: Buffer): number {
  const length = children(basicConstraints)[1];
  if (length === undefined) return Number.POSITIVE_INFINITY;
  return Number(BigInt(`0x${contentOf(length).toString('hex')}`));
}

/** The first byte of a BIT STRING tells how many bits of the last are unused. */
function mayCertify(bitString: Buffer): boolean {
  const wanted = CERTIFICATES_AND_CRLS[0]!;
  return (bitString.readUInt8(1) & wanted) === wanted;
}

/** The tag `[3]`. */
const EXTENSIONS = 0xa3;
const SPIFFE = 'URI:spiffe://';
