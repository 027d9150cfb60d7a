/**
 * Who may come up where: what a member asks at every handshake, in the same way whether it is in the
 * controller's process or has a copy of what that knows.
 * @module
 */
import { X509Certificate } from 'node:crypto';
import {
  CLOUD,
  CloseCode,
  isIssuedBy,
  isRevokedBy,
  type RevocationTable,
  type TunnelCandidate,
  type TunnelRefusal,
} from 'virtual-presence';

export interface Access {
  isRevoked(certificate: X509Certificate): boolean;
  /** By a CA that has gone out of use. */
  isRetired(certificate: X509Certificate): boolean;
  /** Number of the member that holds a site; undefined if there is no such site. */
  holderOf(site: string): number | undefined;
}

/** The copy, as it is sent. */
export interface AccessTable {
  /** Member by site. */
  readonly holders: ReadonlyMap<string, number>;
  readonly revocations: RevocationTable;
  /** Signing certificates of CAs that have gone out of use, PEM. */
  readonly retired: readonly string[];
}

export function accessBy({ holders, revocations, retired }: AccessTable): Access {
  const cas = retired.map((pem) => new X509Certificate(pem));
  return {
    isRevoked: (certificate) => isRevokedBy(revocations, certificate),
    isRetired: (certificate) => isIssuedByOne(cas, certificate),
    holderOf: (site) => holders.get(site),
  };
}

export function isIssuedByOne(
  cas: readonly X509Certificate[],
  certificate: X509Certificate
): boolean {
  return cas.some((ca) => isIssuedBy(certificate, ca));
}

/**
 * Says why a candidate may not come up at a member; undefined if it may.
 *
 * @param firstPort the one of member 0; the others follow
 */
export function refusalOf(
  { identity, certificate }: TunnelCandidate,
  access: Access,
  member: number,
  firstPort: number
): TunnelRefusal | undefined {
  const site = identity.role === 'site' ? identity.site : CLOUD;
  if (access.isRevoked(certificate)) {
    return { code: CloseCode.Revoked, reason: `the certificate of ${site} is revoked` };
  }
  if (access.isRetired(certificate)) {
    return { code: CloseCode.Untrusted, reason: `the CA of the certificate of ${site} is retired` };
  }
  const holder = site === CLOUD ? undefined : access.holderOf(site);
  if (holder === undefined) {
    return { code: CloseCode.UnknownSite, reason: `there is no site "${site}" here` };
  }
  return holder === member ? undefined : movedTo(site, holder, firstPort);
}

/** Sends an edge to the member that holds its site. */
export function movedTo(site: string, holder: number, firstPort: number): TunnelRefusal {
  const endpoint = { port: firstPort + holder };
  return { code: CloseCode.Moved, reason: `process ${holder} holds ${site}`, endpoint };
}
