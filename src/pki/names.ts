/**
 * The identity of a gateway: the only URI in its certificate, a
 * [SPIFFE ID](https://spiffe.io/docs/latest/spiffe-about/spiffe-concepts/#spiffe-id):
 * `spiffe://<trust domain>/cloud` or `spiffe://<trust domain>/site/<site id>`.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import { CertificateError } from '../errors.ts';

export type GatewayIdentity =
  | { readonly trustDomain: string; readonly role: 'cloud' }
  | { readonly trustDomain: string; readonly role: 'site'; readonly site: string };

/**
 * Writes the identity as a URI.
 *
 * @throws {CertificateError} if the trust domain is not a lower-case DNS name, or the site id is not one label of
 * lower-case letters, digits and inner hyphens.
 */
export function formatIdentity(identity: GatewayIdentity): string {
  checkTrustDomain(identity.trustDomain);
  if (identity.role === 'cloud') return `spiffe://${identity.trustDomain}/cloud`;
  checkSite(identity.site);
  return `spiffe://${identity.trustDomain}/site/${identity.site}`;
}

/**
 * Reads a URI as `formatIdentity` writes it; each identity has only this spelling.
 *
 * @throws {CertificateError} if the text is anything else.
 */
export function parseIdentity(uri: string): GatewayIdentity {
  const match = uri.length <= MAX_URI_LENGTH ? IDENTITY.exec(uri) : null;
  if (match === null) {
    throw new CertificateError(`${quote(uri)} is not the identity of a gateway`);
  }
  const [, trustDomain, site] = match as unknown as [string, string, string | undefined];
  const identity: GatewayIdentity =
    site === undefined ? { trustDomain, role: 'cloud' } : { trustDomain, role: 'site', site };
  formatIdentity(identity);
  return identity;
}

/**
 * Reads the identity of an end-entity certificate, whose subject alternative name must be exactly one URI. The caller
 * must have verified the certificate.
 *
 * @throws {CertificateError} if the certificate is a CA's or names anything other than one gateway.
 */
export function identityOfCertificate(certificate: X509Certificate): GatewayIdentity {
  if (certificate.ca) throw new CertificateError('a CA certificate is not a gateway');
  // Node joins several names with ", " and quotes a name with a comma or a quote (CVE-2021-44532). An identity has
  // neither of these characters nor a space, so a certificate with a second name is refused.
  const names = certificate.subjectAltName;
  if (names === undefined) throw new CertificateError('the certificate names no gateway');
  if (!names.startsWith(URI_NAME)) {
    throw new CertificateError(`${quote(names)} is not the identity of a gateway`);
  }
  return parseIdentity(names.slice(URI_NAME.length));
}

/** @throws {CertificateError} if `site` is not a site id. */
export function checkSite(site: string): void {
  if (typeof site !== 'string' || !SITE.test(site)) {
    throw new CertificateError(
      `${quote(site)} is not a site id: 1 to 63 of a-z, 0-9 and inner hyphens`
    );
  }
}

/** @throws {CertificateError} if `name` is not a lower-case DNS name. */
export function checkTrustDomain(name: string): void {
  const isName =
    typeof name === 'string' &&
    name.length <= MAX_DNS_NAME &&
    name.split('.').every((label) => SITE.test(label));
  if (!isName) {
    throw new CertificateError(`${quote(name)} is not a lower-case DNS name`);
  }
}

/** Quotes the text of an unauthenticated peer: short and on one line. */
function quote(value: unknown): string {
  const text = String(value);
  return JSON.stringify(text.length <= MAX_QUOTED ? text : `${text.slice(0, MAX_QUOTED)}...`);
}

const URI_NAME = 'URI:';
const IDENTITY = /^spiffe:\/\/([a-z0-9.-]+)\/(?:cloud|site\/([a-z0-9-]+))$/;
const SITE = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
const MAX_DNS_NAME = 253;
const MAX_URI_LENGTH = 2048;
const MAX_QUOTED = 100;
