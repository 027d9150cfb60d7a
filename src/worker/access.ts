/**
 * Which sites a worker admits: the access table, a copy of what the host knows, which a worker checks at every
 * handshake.
 * @module
 */
import { X509Certificate } from 'node:crypto';
import { isIssuedBy, isRevokedBy, type RevocationTable } from '../pki/index.ts';
import { CLOUD } from '../registry/index.ts';
import { CloseCode, type TunnelCandidate, type TunnelRefusal } from '../tunnel/index.ts';

/** What a host knows about the sites that may connect. */
export interface AccessRules {
  /** The sites that have an edge gateway. */
  readonly sites: Iterable<string>;
  readonly revocations: RevocationTable;
  /** Signing certificates of retired CAs, PEM. */
  readonly retired: readonly string[];
}

/** The same as a worker receives it, with the worker that holds each site. */
export interface AccessTable extends Omit<AccessRules, 'sites'> {
  /** The number of the worker that holds a site, by site. */
  readonly holders: ReadonlyMap<string, number>;
  /** The port where a worker listens for tunnels, by worker; absent until the worker has reported it. */
  readonly ports: ReadonlyMap<number, number>;
}

/** Answers questions about one access table. */
export class Access {
  readonly #table: AccessTable;
  readonly #retired: readonly X509Certificate[];

  constructor(table: AccessTable) {
    this.#table = table;
    this.#retired = table.retired.map((pem) => new X509Certificate(pem));
  }

  /** Whether a certificate is revoked, or was issued by a retired CA. */
  isUnwanted(certificate: X509Certificate): boolean {
    return isRevokedBy(this.#table.revocations, certificate) || this.#isRetired(certificate);
  }

  /** Returns why a worker refuses a candidate; undefined if it admits it. */
  refusalOf(
    { identity, certificate }: Pick<TunnelCandidate, 'identity' | 'certificate'>,
    worker: number
  ): TunnelRefusal | undefined {
    const site = identity.role === 'site' ? identity.site : CLOUD;
    if (isRevokedBy(this.#table.revocations, certificate)) {
      return { code: CloseCode.Revoked, reason: `the certificate of ${site} is revoked` };
    }
    if (this.#isRetired(certificate)) {
      const reason = `the CA of the certificate of ${site} is retired`;
      return { code: CloseCode.Untrusted, reason };
    }
    const holder = site === CLOUD ? undefined : this.#table.holders.get(site);
    if (holder === undefined) {
      return { code: CloseCode.UnknownSite, reason: `there is no site "${site}" here` };
    }
    return holder === worker ? undefined : redirect(site, holder, this.#table.ports.get(holder));
  }

  #isRetired(certificate: X509Certificate): boolean {
    return this.#retired.some((ca) => isIssuedBy(certificate, ca));
  }
}

/**
 * Redirects an edge to the worker that holds its site. If the port of that worker is not known yet, the edge dials
 * again later.
 */
export function redirect(site: string, holder: number, port: number | undefined): TunnelRefusal {
  const reason = `process ${holder} holds ${site}`;
  if (port === undefined) {
    return { code: CloseCode.Shutdown, reason: `${reason} and does not listen yet` };
  }
  return { code: CloseCode.Moved, reason, endpoint: { port } };
}
