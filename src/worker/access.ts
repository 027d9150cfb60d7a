/**
 * Which sites a worker admits: the access table, a copy of what the host knows, which a worker checks at every
 * handshake. The host sends it once, and then what changes in it.
 * @module
 */
import { X509Certificate } from 'node:crypto';
import {
  isIssuedBy,
  isRevokedBy,
  type RevocationChanges,
  type RevocationTable,
} from '../pki/index.ts';
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

/** A change of what a worker knows of them. What is absent stays as it is. */
export interface AccessChange extends Partial<Omit<AccessRules, 'sites'>> {
  /** The number of the worker that holds a site, by site; undefined for a site that may not connect any more. */
  readonly holders?: ReadonlyMap<string, number | undefined>;
  /** What has changed in the revocations, instead of the whole table. */
  readonly revocationChanges?: RevocationChanges;
  /** The port where a worker listens for tunnels, by worker; absent until the worker has reported it. */
  readonly ports?: ReadonlyMap<number, number>;
}

/** Answers questions about an access table. It is empty at first: no site may connect. */
export class Access {
  readonly #holders = new Map<string, number>();
  #ports: ReadonlyMap<number, number> = new Map();
  #revocations: RevocationTable = copyOf({});
  /** The same table if it is a copy of this object's own, to which changes are applied. */
  #copy: ReturnType<typeof copyOf> | undefined;
  #retired: readonly X509Certificate[] = [];
  /** Whether a certificate was issued by a retired CA: many tunnels are asked about at once. */
  #isOfRetired = new WeakMap<X509Certificate, boolean>();

  /** Takes over a change, from the next question on. */
  update({
    holders = new Map(),
    ports,
    revocations,
    revocationChanges,
    retired,
  }: AccessChange): void {
    for (const [site, holder] of holders) {
      if (holder === undefined) this.#holders.delete(site);
      else this.#holders.set(site, holder);
    }
    if (ports !== undefined) this.#ports = ports;
    if (revocations !== undefined) {
      this.#revocations = revocations;
      this.#copy = undefined;
    }
    if (revocationChanges !== undefined) this.#apply(revocationChanges);
    if (retired === undefined) return;
    this.#retired = retired.map((pem) => new X509Certificate(pem));
    this.#isOfRetired = new WeakMap();
  }

  /** Whether there is such a site. */
  has(site: string): boolean {
    return this.#holders.has(site);
  }

  /** How many sites each worker holds, on average. */
  get sitesPerWorker(): number {
    return this.#holders.size / Math.max(1, this.#ports.size);
  }

  /** Whether a certificate is revoked, or was issued by a retired CA. */
  isUnwanted(certificate: X509Certificate): boolean {
    return isRevokedBy(this.#revocations, certificate) || this.#isRetired(certificate);
  }

  /** Returns why a worker refuses a candidate; undefined if it admits it. */
  refusalOf(
    { identity, certificate }: Pick<TunnelCandidate, 'identity' | 'certificate'>,
    worker: number
  ): TunnelRefusal | undefined {
    const site = identity.role === 'site' ? identity.site : CLOUD;
    if (isRevokedBy(this.#revocations, certificate)) {
      return { code: CloseCode.Revoked, reason: `the certificate of ${site} is revoked` };
    }
    if (this.#isRetired(certificate)) {
      const reason = `the CA of the certificate of ${site} is retired`;
      return { code: CloseCode.Untrusted, reason };
    }
    const holder = site === CLOUD ? undefined : this.#holders.get(site);
    if (holder === undefined) {
      return { code: CloseCode.UnknownSite, reason: `there is no site "${site}" here` };
    }
    return holder === worker ? undefined : redirect(site, holder, this.#ports.get(holder));
  }

  #apply({ sites, serials, spkis }: RevocationChanges): void {
    this.#copy ??= copyOf(this.#revocations);
    const copy = this.#copy;
    this.#revocations = copy;
    for (const [site, isRevoked] of sites) {
      if (isRevoked) copy.sites.add(site);
      else copy.sites.delete(site);
    }
    for (const serial of serials) copy.serials.add(serial);
    for (const spki of spkis) copy.spkis.add(spki);
  }

  #isRetired(certificate: X509Certificate): boolean {
    let isOfRetired = this.#isOfRetired.get(certificate);
    if (isOfRetired === undefined) {
      isOfRetired = this.#retired.some((ca) => isIssuedBy(certificate, ca));
      this.#isOfRetired.set(certificate, isOfRetired);
    }
    return isOfRetired;
  }
}

function copyOf({ sites, serials, spkis }: Partial<RevocationTable>) {
  return {
    sites: new Set(sites),
    serials: new Set(serials),
    spkis: new Set(spkis),
  } satisfies RevocationTable;
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
