/**
 * Reads a CA certificate: what it may sign, and how certificates and CRLs refer to it. Node exposes neither, so
 * node-forge reads the DER. The bytes come from an operator, never from an unauthenticated peer.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import { CertificateError } from '../errors.ts';
import { BASIC_CONSTRAINTS, KEY_USAGE, SUBJECT_KEY_ID, trustDomainUri } from './certificate.ts';
import { isIssuedBy } from './credentials-check.ts';
import { childrenOf, decode, elementAt, encode, readExtension } from './der.ts';

export class CaCertificate {
  readonly x509: X509Certificate;
  /** DER `Name`s. */
  readonly subject: Buffer;
  readonly issuer: Buffer;
  /** Content of the subject key identifier. */
  readonly keyId: Buffer;
  /** How many further CAs may be below it, not counting self-issued ones; RFC 5280 section 4.2.1.9. */
  readonly pathLength: number;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;

  /** @throws {CertificateError} if it may not sign certificates and CRLs of this trust domain. */
  constructor(x509: X509Certificate, trustDomain: string) {
    if (!x509.ca) throw new CertificateError('the certificate is not a CA certificate');
    const foreign = x509.subjectAltName?.split(', ').find((name) => name.startsWith(SPIFFE));
    if (foreign !== undefined && foreign !== `URI:${trustDomainUri(trustDomain)}`) {
      throw new CertificateError(`the CA certificate is for ${foreign}, not for ${trustDomain}`);
    }
    const tbs = elementAt(decode(x509.raw), 0);
    const extensions = childrenOf(elementAt(childrenOf(tbs).at(-1)!, 0));
    const keyId = readExtension(extensions, SUBJECT_KEY_ID)?.subjectKeyIdentifier;
    if (keyId === undefined) {
      throw new CertificateError('the CA certificate has no subject key identifier');
    }
    const usage = readExtension(extensions, KEY_USAGE);
    if (usage !== undefined && !(usage.keyCertSign && usage.cRLSign)) {
      throw new CertificateError('the CA certificate may not sign both certificates and CRLs');
    }
    const constraints = readExtension(extensions, BASIC_CONSTRAINTS);
    this.x509 = x509;
    this.issuer = encode(elementAt(tbs, ISSUER));
    this.subject = encode(elementAt(tbs, SUBJECT));
    this.keyId = Buffer.from(keyId, 'hex');
    this.pathLength = constraints?.pathLenConstraint ?? Number.POSITIVE_INFINITY;
    this.notBeforeMs = Date.parse(x509.validFrom);
    this.notAfterMs = Date.parse(x509.validTo);
  }

  /** Whether issuer and subject are the same name; the key that signed may be another. */
  get isSelfIssued(): boolean {
    return this.subject.equals(this.issuer);
  }

  /** Whether this CA has signed the certificate: checks both the name and the signature. */
  hasIssued(certificate: X509Certificate): boolean {
    return isIssuedBy(certificate, this.x509);
  }
}

/** The properties of a CA certificate that decide the permitted length of a path. */
export type PathElement = Pick<CaCertificate, 'pathLength' | 'isSelfIssued'>;

/** Whether a path of CAs, root first, observes every path length; RFC 5280 section 6.1.4 (l), (m). */
export function fitsPathLengths(path: readonly PathElement[]): boolean {
  return path.every(({ pathLength }, at) => {
    const below = path.slice(at + 1).filter(({ isSelfIssued }) => !isSelfIssued);
    return below.length <= pathLength;
  });
}

/** Indexes of the fields of a TBSCertificate that has a version. */
const ISSUER = 3;
const SUBJECT = 5;
const SPIFFE = 'URI:spiffe://';
