/**
 * Whether a certificate that somebody hands us may be put to use: read from PEM by OpenSSL, for our
 * key, for the right gateway, valid now, and every link up to a trust anchor signed
 * ([RFC 5280](https://www.rfc-editor.org/rfc/rfc5280#section-6.1)). TLS checks again, and more, in
 * every handshake; this is so that a gateway does not give up what works for what does not.
 * @module
 */
import { type KeyObject, X509Certificate } from 'node:crypto';
import { CertificateError } from '../errors.ts';
import type { Credentials } from './credentials.ts';
import { readPrivateKey } from './keys.ts';
import { formatIdentity, type GatewayIdentity, identityOfCertificate } from './names.ts';

/** A certificate and what its peers are checked against, as PEM texts. */
export interface RenewedCertificate {
  /** The gateway's own, then what leads from it to a trust anchor; no anchor. */
  readonly certificatePem: string;
  /** The trust anchors, one or more. */
  readonly caPem: string;
}

/**
 * Reads every certificate of a text; what stands between them does not count.
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
 * Reads a text of trust anchors.
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

/** The PEM text of certificates, without what stood between them. */
export function formatCertificates(certificates: readonly X509Certificate[]): string {
  return certificates.map(String).join('');
}

/**
 * Checks what was granted to `identity` for `privateKey`.
 *
 * @returns the same without anything but certificates.
 * @throws {CertificateError} if it is not usable: for another key or gateway, does not hold now, or
 * does not lead to one of its trust anchors.
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

/** Credentials that fit together. */
export interface ReadCredentials {
  readonly leaf: X509Certificate;
  /** What leads from it to an anchor. */
  readonly chain: readonly X509Certificate[];
  readonly anchors: readonly X509Certificate[];
}

/**
 * Reads what a gateway has; where the certificate leads, and whether it holds, is not looked at.
 *
 * @throws {CertificateError} if something cannot be read, or the key is another one's.
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
 * Reads who a gateway is from what it was given, at its start: whatever a peer would refuse is told here,
 * where it can be mended. Whether the certificate holds now is not looked at.
 *
 * @throws {CertificateError} if something cannot be read, the key is another one's, or the certificate names
 * no gateway or does not lead to one of its trust anchors.
 */
export function identityOfCredentials(credentials: Credentials): GatewayIdentity {
  const { leaf, chain, anchors } = readCredentials(credentials);
  checkChain(leaf, chain, anchors);
  return identityOfCertificate(leaf);
}

/**
 * Says so if one of the certificates does not hold now: as often a wrong clock as a wrong
 * certificate.
 */
export function clockFault(
  certificates: readonly X509Certificate[],
  nowMs: number
): string | undefined {
  const wrong = certificates.find((certificate) => !holds(certificate, nowMs));
  if (wrong === undefined) return undefined;
  const here = new Date(nowMs).toISOString();
  return `certificate valid from ${wrong.validFrom} to ${wrong.validTo}, but the clock here says ${here}`;
}

/**
 * There may be more than one way up, for a CA that is being replaced has its successor certified;
 * one that holds is enough.
 *
 * @param nowMs when it is to hold; not looked at if absent
 * @throws {CertificateError} if no way up from `leaf` reaches an anchor.
 */
function checkChain(
  leaf: X509Certificate,
  chain: readonly X509Certificate[],
  anchors: readonly X509Certificate[],
  nowMs?: number
): void {
  const isGood = (it: X509Certificate) => it.ca && (nowMs === undefined || holds(it, nowMs));
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

/** By name, key identifier, permitted key usage and signature. */
export function isIssuedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
}

function holds({ validFrom, validTo }: X509Certificate, nowMs: number): boolean {
  return nowMs >= Date.parse(validFrom) && nowMs <= Date.parse(validTo);
}

const CERTIFICATE_BLOCK = /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/g;
const MAX_CERTIFICATES = 16;
/** What 16 certificates for RSA-4096 take, and as much again. */
const MAX_PEM_LENGTH = 65_536;
