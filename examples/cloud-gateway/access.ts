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
  /** The port where a member listens for tunnels; undefined while it has not said which one it took. */
  portOf(member: number): number | undefined;
}

/** The copy, as it is sent. */
export interface AccessTable {
  /** Member by site. */
  readonly holders: ReadonlyMap<string, number>;
  /** Port by member; a member that has not said which one it took is absent. */
  readonly ports: ReadonlyMap<number, number>;
  readonly revocations: RevocationTable;
  /** Signing certificates of CAs that have gone out of use, PEM. */
  readonly retired: readonly string[];
}

export function accessBy({ holders, ports, revocations, retired }: AccessTable): Access {
  const cas = retired.map((pem) => new X509Certificate(pem));
  return {
    isRevoked: (certificate) => isRevokedBy(revocations, certificate),
    isRetired: (certificate) => isIssuedByOne(cas, certificate),
    holderOf: (site) => holders.get(site),
    portOf: (member) => ports.get(member),
  };
}

export function isIssuedByOne(
  cas: readonly X509Certificate[],
  certificate: X509Certificate
): boolean {
  return cas.some((ca) => isIssuedBy(certificate, ca));
}

/** Returns why a candidate may not come up at a member; undefined if it may. */
export function refusalOf(
  { identity, certificate }: TunnelCandidate,
  access: Access,
  member: number
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
  return holder === member ? undefined : movedTo(site, holder, access.portOf(holder));
}

/**
 * Sends an edge to the member that holds its site. An edge that asks before the port of that member is known
 * is told to dial again.
 */
export function movedTo(site: string, holder: number, port: number | undefined): TunnelRefusal {
  const reason = `process ${holder} holds ${site}`;
  if (port === undefined) {
    return { code: CloseCode.Shutdown, reason: `${reason} and does not listen yet` };
  }
  return { code: CloseCode.Moved, reason, endpoint: { port } };
}
