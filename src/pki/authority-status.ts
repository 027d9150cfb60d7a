/**
 * What an operator wants to know of the CAs: their certificates, the step of a rollover, and which sites still have a
 * certificate of another CA than the current one.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import type { Ca } from './ca.ts';
import type { CaRollover, RolloverState } from './ca-rollover.ts';
import type { CrlStatus } from './revocation-list.ts';
import type { Revocations } from './revocations.ts';

export interface CaCertificateStatus {
  /** The distinguished name with escapes as in RFC 2253, its parts in their order: `O=Example, CN=Gateways`. */
  readonly subject: string;
  /** Lower-case hex. */
  readonly serial: string;
  /** SHA-256 of the certificate, as `openssl x509 -fingerprint -sha256` prints it. */
  readonly fingerprint: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
}

export interface CaStatus {
  /** SHA-256 of the root's SubjectPublicKeyInfo, base64url: what enrolment tokens pin. */
  readonly spki: string;
  readonly root: CaCertificateStatus;
  /** The certificates between the root and those of gateways, the one that signs first; none if the root signs. */
  readonly intermediates: readonly CaCertificateStatus[];
  /** When the first of these certificates expires, and all that the CA has issued. */
  readonly notAfter: Date;
}

/** Sites, sorted by name. */
export interface SiteList {
  readonly count: number;
  /** The first 100 at most. */
  readonly names: readonly string[];
}

export interface AuthorityStatus {
  readonly rollover: RolloverState;
  /** The CA that signs. */
  readonly current: CaStatus;
  /** The CA that is prepared. */
  readonly next: CaStatus | undefined;
  /** The CA that signed before, until it is retired. */
  readonly previous: CaStatus | undefined;
  /** The latest CRL of this process; undefined if nobody has asked for one since it started. */
  readonly crl: CrlStatus | undefined;
  /**
   * The sites whose newest certificate is valid and of the previous CA. When that is retired, they have to enrol again.
   * Without a previous CA there are none.
   */
  readonly outdated: SiteList;
}

/** Returns the status. While there is a previous CA it costs as much as there are certificates. */
export function statusOf(
  rollover: CaRollover,
  revocations: Revocations,
  crl: CrlStatus | undefined
): AuthorityStatus {
  const { state, current, next, previous } = rollover;
  return {
    rollover: state,
    current: caStatusOf(current),
    next: next && caStatusOf(next),
    previous: previous && caStatusOf(previous),
    crl,
    outdated: siteList(previous === undefined ? [] : outdatedSites(current, revocations)),
  };
}

/** Sorts the names, and keeps the first 100. */
function siteList(names: Iterable<string>): SiteList {
  const sorted = [...names].sort();
  return { count: sorted.length, names: sorted.slice(0, MAX_NAMES) };
}

function* outdatedSites({ id }: Ca, { ledgers, table }: Revocations): Generator<string> {
  const { certificates } = ledgers;
  for (const [site, record] of certificates.newest()) {
    if (record.issuer === id || !certificates.isUnexpired(record)) continue;
    const { serial, spkiHash } = record;
    if (table.sites.has(site) || table.serials.has(serial) || table.spkis.has(spkiHash)) continue;
    yield site;
  }
}

function caStatusOf({ rootId, chain, root, notAfterMs }: Ca): CaStatus {
  return {
    spki: rootId,
    root: certificateStatusOf(root.x509),
    intermediates: chain.slice(0, -1).map(({ x509 }) => certificateStatusOf(x509)),
    notAfter: new Date(notAfterMs),
  };
}

function certificateStatusOf(x509: X509Certificate): CaCertificateStatus {
  return {
    subject: x509.subject.replaceAll('\n', ', '),
    serial: x509.serialNumber.toLowerCase(),
    fingerprint: x509.fingerprint256,
    notBefore: new Date(x509.validFrom),
    notAfter: new Date(x509.validTo),
  };
}

const MAX_NAMES = 100;
