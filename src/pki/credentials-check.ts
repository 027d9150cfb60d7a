/**
 * Checks a certificate that a gateway receives before it replaces the one in use: OpenSSL can read it, it is for this
 * key and this gateway, it is valid now, and every link up to a trust anchor is signed
 * ([RFC 5280](https://www.rfc-editor.org/rfc/rfc5280#section-6.1)). Every TLS handshake checks this and more again.
 * @module
 */
import { type KeyObject, X509Certificate } from 'node:crypto';
import { CertificateError } from '../errors.ts';
import type { Credentials } from './credentials.ts';
import { readPrivateKey } from './keys.ts';
import { formatIdentity, type GatewayIdentity, identityOfCertificate } from './names.ts';

/** A certificate and the trust anchors to verify peers with, as PEM texts. */
export interface RenewedCertificate {
  /** The gateway's certificate, then the intermediates up to a trust anchor, without the anchor. */
  readonly certificatePem: string;
  /** The trust anchors, one or more. */
  readonly caPem: string;
}

/**
 * Reads all certificates in a text and ignores what is between them.
 *
 * @throws {CertificateError} if there is none, there are more than 16, or one cannot be read.
 */
export function readCertificates(pem: string): X509Certificate[] {
  if (pem.length > MAX_PEM_LENGTH) {
    throw new CertificateError(
      `a text of ${pem.length} bytes is too long for certificates: ${MAX_PEM_LENGTH} at most`
    );
  }
  const blocks = pem.match(CERTIFICATE_BLOCK) ?? [];
  if (blocks.length < 1 || blocks.length > MAX_CERTIFICATES) {
    throw new CertificateError(
      `expected 1 to ${MAX_CERTIFICATES} certificates, found ${blocks.length}`
    );
  }
  return blocks.map((block) => {
    try {
      return new X509Certificate(block);
    } catch (cause) {
      throw new CertificateError('a certificate cannot be read', { cause });
    }
  });
}

/**
 * Reads the trust anchors in a text.
 *
 * @throws {CertificateError} if there is none, or one is not a CA certificate.
 */
export function readTrustBundle(pem: string): X509Certificate[] {
  const anchors = readCertificates(pem);
  if (!anchors.every(({ ca }) => ca)) {
    throw new CertificateError('among the trust anchors is one that is not a CA certificate');
  }
  return anchors;
}

/** Writes certificates as one PEM text. */
export function formatCertificates(certificates: readonly X509Certificate[]): string {
  return certificates.map(String).join('');
}

/**
 * Checks a certificate that was granted to `identity` for `privateKey`.
 *
 * @returns the same certificates, without any text between them.
 * @throws {CertificateError} if it is for another key or gateway, is not valid now, or does not lead to one of its
 * trust anchors.
 */
export function checkGranted(
  granted: RenewedCertificate,
  privateKey: KeyObject,
  identity: GatewayIdentity,
  nowMs: number
): RenewedCertificate {
  const anchors = readTrustBundle(granted.caPem);
  const [leaf, ...chain] = readCertificates(granted.certificatePem) as [X509Certificate];
  const found = formatIdentity(identityOfCertificate(leaf));
  const wanted = formatIdentity(identity);
  if (found !== wanted) throw new CertificateError(`is ${found}, not ${wanted}`);
  if (!leaf.checkPrivateKey(privateKey)) {
    throw new CertificateError('the certificate is for another key');
  }
  const fault = clockFault([leaf], nowMs);
  if (fault !== undefined) throw new CertificateError(fault);
  checkChain(leaf, chain, anchors, nowMs);
  return {
    certificatePem: formatCertificates([leaf, ...chain]),
    caPem: formatCertificates(anchors),
  };
}

/** The certificates of a gateway's credentials. */
export interface ReadCredentials {
  readonly leaf: X509Certificate;
  /** The intermediates between `leaf` and an anchor. */
  readonly chain: readonly X509Certificate[];
  readonly anchors: readonly X509Certificate[];
}

/**
 * Reads the credentials of a gateway. It does not check whether the certificate leads to an anchor or is valid now.
 *
 * @throws {CertificateError} if something cannot be read, or the certificate is for another key.
 */
export function readCredentials(credentials: Credentials): ReadCredentials {
  const anchors = readTrustBundle(credentials.ca);
  const [leaf, ...chain] = readCertificates(credentials.cert) as [X509Certificate];
  if (!leaf.checkPrivateKey(readPrivateKey(credentials.key))) {
    throw new CertificateError('the certificate is for another key than the one beside it');
  }
  return { leaf, chain, anchors };
}

/**
 * Reads the identity of a gateway from its credentials when it starts. It reports what a peer would refuse, so that
 * the operator can correct it. It does not check whether the certificate is valid now.
 *
 * @throws {CertificateError} if something cannot be read, the certificate is for another key, names no gateway, or
 * does not lead to one of its trust anchors.
 */
export function identityOfCredentials(credentials: Credentials): GatewayIdentity {
  const { leaf, chain, anchors } = readCredentials(credentials);
  checkChain(leaf, chain, anchors);
  return identityOfCertificate(leaf);
}

/**
 * Describes the first of the certificates that is not valid now; undefined if all are. The cause is as often a wrong
 * clock as a wrong certificate.
 */
export function clockFault(
  certificates: readonly X509Certificate[],
  nowMs: number
): string | undefined {
  const wrong = certificates.find((certificate) => !isValidAt(certificate, nowMs));
  if (wrong === undefined) return undefined;
  const here = new Date(nowMs).toISOString();
  return `certificate valid from ${wrong.validFrom} to ${wrong.validTo}, but the clock here says ${here}`;
}

/**
 * Checks that a path of certificates leads from `leaf` to an anchor. There may be several, because during a rollover
 * the old CA certifies the new one; one valid path is enough.
 *
 * @param nowMs when the path must be valid; absent: at any time
 * @throws {CertificateError} if no path leads to an anchor.
 */
function checkChain(
  leaf: X509Certificate,
  chain: readonly X509Certificate[],
  anchors: readonly X509Certificate[],
  nowMs?: number
): void {
  const isGood = (it: X509Certificate) => it.ca && (nowMs === undefined || isValidAt(it, nowMs));
  const reached = new Set([leaf]);
  for (const certificate of reached) {
    const issuers = (of: readonly X509Certificate[]) =>
      of.filter((it) => isGood(it) && isIssuedBy(certificate, it));
    if (issuers(anchors).length > 0) return;
    for (const issuer of issuers(chain)) reached.add(issuer);
  }
  const fault = nowMs === undefined ? undefined : clockFault([...chain, ...anchors], nowMs);
  throw new CertificateError(
    `does not lead to one of the trust anchors beside it${fault === undefined ? '' : ` (${fault})`}`
  );
}

/** Whether `issuer` has issued the certificate: checks name, key identifier, key usage and signature. */
export function isIssuedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
}

function isValidAt({ validFrom, validTo }: X509Certificate, nowMs: number): boolean {
  return nowMs >= Date.parse(validFrom) && nowMs <= Date.parse(validTo);
}

const CERTIFICATE_BLOCK = /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/g;
const MAX_CERTIFICATES = 16;
/** Twice the length of 16 certificates for RSA-4096. */
const MAX_PEM_LENGTH = 65_536;
