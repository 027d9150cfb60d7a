/**
 * The revoked serial numbers, keys and sites in memory, for a check in every handshake. They follow the entries under
 * `revocation/` in the store, which decide.
 * @module
 */
import { SortedMap } from '../base/sorted-map.ts';
import type { Change } from '../store/store.ts';
import { type CertificateRecord, siteOf } from './certificate-ledger.ts';
import { checkListQuery, type ListQuery } from './list-query.ts';
import { LiveRevocationTable } from './revocation-table.ts';

/** The reason codes of RFC 5280 section 5.3.1 that can apply to a gateway. */
export const REASON_CODES = {
  unspecified: 0,
  keyCompromise: 1,
  affiliationChanged: 3,
  superseded: 4,
  cessationOfOperation: 5,
  privilegeWithdrawn: 9,
} as const;

export type RevocationReason = keyof typeof REASON_CODES;

export type RevocationRecord = CertificateRecord & {
  readonly revokedAtMs: number;
  readonly reason: RevocationReason;
};

/**
 * The subject of a revocation: every certificate of a site; one certificate, by its serial number in hex; or a key in
 * any certificate, by the SHA-256 of its SubjectPublicKeyInfo in base64url.
 */
export type RevocationScope =
  | { readonly site: string }
  | { readonly serial: string }
  | { readonly spki: string };

/** A revocation in force, as an operator sees it. */
export interface RevocationEntry {
  /** Names the revocation: `serial/5f01…`, `site/site-a` or `spki/n4bQ…`. */
  readonly key: string;
  readonly scope: RevocationScope;
  readonly revokedAt: Date;
  readonly reason: RevocationReason;
  /** The site that is revoked, or whose certificate is; undefined for the cloud's, and for a key. */
  readonly site: string | undefined;
  /** The certificate, if one is revoked. */
  readonly certificate: CertificateRecord | undefined;
}

/** The effect of a changed entry in the store. */
export type RevocationChange =
  | { readonly revoked: RevocationScope }
  | { readonly reinstated: string };

export class RevocationIndex {
  readonly table: LiveRevocationTable = new LiveRevocationTable();
  /** The entries in force, by the key of `RevocationEntry`. */
  readonly #entries = new SortedMap<RevocationRecord | SinceWhen>();
  /** The keys of the entries of each site. */
  readonly #ofSite = new Map<string, Set<string>>();
  /**
   * The version of each entry. Versions of deleted entries stay, so that no older change brings the entry back; that
   * is one number for each site that was reinstated since the process started.
   */
  readonly #versions = new Map<string, number>();

  /**
   * Applies changes of entries, each any number of times and in any order. A change that is older than the known
   * version of its entry has no effect.
   *
   * @returns the effects.
   */
  apply(changes: readonly Change[]): RevocationChange[] {
    const changed: RevocationChange[] = [];
    for (const { key, value, version } of changes) {
      const [, kind, name] = ENTRY.exec(key) ?? [];
      if (name === undefined || version <= this.versionOf(key)) continue;
      this.#versions.set(key, version);
      const change = this.#applyOne(kind as Kind, name, value as unknown as SinceWhen | undefined);
      if (change !== undefined) changed.push(change);
    }
    return changed;
  }

  /** Returns the version of the last known change of an entry; 0 if there is none. */
  versionOf(key: string): number {
    return this.#versions.get(key) ?? 0;
  }

  get(serial: string): RevocationRecord | undefined {
    return this.#entries.get(`serial/${serial}`) as RevocationRecord | undefined;
  }

  records(): RevocationRecord[] {
    const serials = [...this.#entries.entries()].filter(([key]) => key.startsWith('serial/'));
    return serials.map(([, value]) => value as RevocationRecord);
  }

  /** Returns entries in the order of their keys. @throws {ApiMisuseError} if the query is invalid. */
  page(query: ListQuery): RevocationEntry[] {
    const { after, limit, site } = checkListQuery(query);
    const page: RevocationEntry[] = [];
    const keys =
      site === undefined
        ? this.#entries.keysAfter(after)
        : [...(this.#ofSite.get(site) ?? [])].filter((key) => key > after).sort();
    for (const key of keys) {
      page.push(entryOf(key, this.#entries.get(key)!));
      if (page.length === limit) break;
    }
    return page;
  }

  #applyOne(kind: Kind, name: string, value: SinceWhen | undefined): RevocationChange | undefined {
    const key = `${kind}/${name}`;
    if (value === undefined) {
      // A certificate or a key stays revoked, even if its entry is deleted.
      if (kind !== 'site') return undefined;
      this.#entries.delete(key);
      this.#forget(name, key);
      return this.table.reinstate(name) ? { reinstated: name } : undefined;
    }
    if (kind !== 'site' && this.#entries.get(key) !== undefined) return undefined;
    this.#entries.set(key, value);
    if (kind === 'site') {
      this.#note(name, key);
      return this.table.add('sites', name) ? { revoked: { site: name } } : undefined;
    }
    if (kind === 'spki') {
      this.table.add('spkis', name);
      return { revoked: { spki: name } };
    }
    const record = value as RevocationRecord;
    this.table.add('serials', name);
    this.table.add('spkis', record.spkiHash);
    const site = siteOfRecord(record);
    if (site !== undefined) this.#note(site, key);
    return { revoked: { serial: name } };
  }

  #note(site: string, key: string): void {
    const keys = this.#ofSite.get(site) ?? new Set();
    this.#ofSite.set(site, keys.add(key));
  }

  #forget(site: string, key: string): void {
    const keys = this.#ofSite.get(site);
    keys?.delete(key);
    if (keys?.size === 0) this.#ofSite.delete(site);
  }
}

type Kind = 'site' | 'serial' | 'spki';

/** What is stored of a revoked site or key, and of a certificate beside its record. */
type SinceWhen = Pick<RevocationRecord, 'revokedAtMs' | 'reason'>;

function entryOf(key: string, value: RevocationRecord | SinceWhen): RevocationEntry {
  const slash = key.indexOf('/');
  const [kind, name] = [key.slice(0, slash) as Kind, key.slice(slash + 1)];
  const { revokedAtMs, reason, ...rest } = value;
  const certificate = kind === 'serial' ? (rest as CertificateRecord) : undefined;
  const scopes = { site: { site: name }, serial: { serial: name }, spki: { spki: name } };
  const site = kind === 'site' ? name : certificate && siteOfRecord(certificate);
  return { key, scope: scopes[kind], revokedAt: new Date(revokedAtMs), reason, site, certificate };
}

/** Returns the site of a certificate; undefined also if its identity cannot be read. */
function siteOfRecord(record: CertificateRecord): string | undefined {
  try {
    return siteOf(record);
  } catch {
    return undefined;
  }
}

export function serialRevocationKey(serial: string): string {
  return `${REVOCATIONS}serial/${serial}`;
}

export function siteRevocationKey(site: string): string {
  return `${REVOCATIONS}site/${site}`;
}

export function spkiRevocationKey(spkiHash: string): string {
  return `${REVOCATIONS}spki/${spkiHash}`;
}

/** Prefix of the entries in the store. */
export const REVOCATIONS = 'revocation/';
const ENTRY = /^revocation\/(site|serial|spki)\/(.+)$/;
