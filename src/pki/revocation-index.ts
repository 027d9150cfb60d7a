/**
 * The revoked serial numbers, keys and sites in memory, for a check in every handshake. They follow the entries under
 * `revocation/` in the store, which decide.
 * @module
 */
import type { Change } from '../store/store.ts';
import type { CertificateRecord } from './certificate-ledger.ts';
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

/** The effect of a changed entry in the store. */
export type RevocationChange =
  | { readonly revoked: RevocationScope }
  | { readonly reinstated: string };

export class RevocationIndex {
  readonly table: LiveRevocationTable = new LiveRevocationTable();
  readonly #records = new Map<string, RevocationRecord>();
  /** Keys with their own entry. */
  readonly #named = new Set<string>();
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
      if (kind === 'site') {
        if (value !== undefined && this.table.add('sites', name)) {
          changed.push({ revoked: { site: name } });
        } else if (value === undefined && this.table.reinstate(name)) {
          changed.push({ reinstated: name });
        }
      } else if (value === undefined) {
        // A certificate or a key stays revoked, even if its entry is deleted.
      } else if (kind === 'serial') {
        if (!this.table.add('serials', name)) continue;
        const record = value as unknown as RevocationRecord;
        this.#records.set(name, record);
        this.table.add('spkis', record.spkiHash);
        changed.push({ revoked: { serial: name } });
      } else if (!this.#named.has(name)) {
        this.#named.add(name);
        this.table.add('spkis', name);
        changed.push({ revoked: { spki: name } });
      }
    }
    return changed;
  }

  /** Returns the version of the last known change of an entry; 0 if there is none. */
  versionOf(key: string): number {
    return this.#versions.get(key) ?? 0;
  }

  get(serial: string): RevocationRecord | undefined {
    return this.#records.get(serial);
  }

  records(): RevocationRecord[] {
    return [...this.#records.values()];
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
