/**
 * What is revoked, in memory, so that the question can be asked in every handshake: serial numbers,
 * keys, and whole sites. The store's entries under `revocation/` are the truth; this follows them.
 * @module
 */
import type { Change } from '../store/store.ts';
import type { CertificateRecord } from './certificate-ledger.ts';

/** Reason codes of RFC 5280 section 5.3.1, as far as they fit a gateway. */
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
 * What a revocation is about: every certificate of a site; one, by its serial number in hex; or a key
 * under whatever certificate, by the SHA-256 of its SubjectPublicKeyInfo in base64url.
 */
export type RevocationScope =
  | { readonly site: string }
  | { readonly serial: string }
  | { readonly spki: string };

/** What is revoked, as plain data that may be sent to another process (structured clone). */
export interface RevocationTable {
  readonly sites: ReadonlySet<string>;
  /** Lower-case hex. */
  readonly serials: ReadonlySet<string>;
  /** Keys that were revoked by themselves, and those of revoked certificates. */
  readonly spkis: ReadonlySet<string>;
}

/** What an entry of the store has changed. */
export type RevocationChange =
  | { readonly revoked: RevocationScope }
  | { readonly reinstated: string };

export class RevocationIndex {
  readonly #sites = new Set<string>();
  readonly #serials = new Set<string>();
  readonly #spkis = new Set<string>();
  readonly #records = new Map<string, RevocationRecord>();
  /** Keys with an entry of their own. */
  readonly #named = new Set<string>();
  /** How many entries make each key a revoked one; a count, for certificates are pruned one by one. */
  readonly #uses = new Map<string, number>();
  /**
   * The version of each entry; deleted ones stay, so that nothing older brings them back. That is one
   * number for each revocation that was taken back or pruned since the process began.
   */
  readonly #versions = new Map<string, number>();
  readonly table: RevocationTable = {
    sites: this.#sites,
    serials: this.#serials,
    spkis: this.#spkis,
  };

  /**
   * Takes in entries of the store, each any number of times and in any order: what is older than what is
   * known of an entry changes nothing.
   *
   * @returns what they changed.
   */
  apply(changes: readonly Change[]): RevocationChange[] {
    const changed: RevocationChange[] = [];
    for (const { key, value, version } of changes) {
      const [, kind, name] = ENTRY.exec(key) ?? [];
      if (name === undefined || version <= this.versionOf(key)) continue;
      this.#versions.set(key, version);
      if (kind === 'site') {
        if (value !== undefined && !this.#sites.has(name)) {
          this.#sites.add(name);
          changed.push({ revoked: { site: name } });
        } else if (value === undefined && this.#sites.delete(name)) {
          changed.push({ reinstated: name });
        }
      } else if (kind === 'serial') {
        if (value === undefined) this.#removeSerial(name);
        else if (!this.#serials.has(name)) {
          this.#addSerial(value as unknown as RevocationRecord);
          changed.push({ revoked: { serial: name } });
        }
      } else if (value === undefined) {
        if (this.#named.delete(name)) this.#releaseKey(name);
      } else if (!this.#named.has(name)) {
        this.#named.add(name);
        this.#useKey(name);
        changed.push({ revoked: { spki: name } });
      }
    }
    return changed;
  }

  /** The version of the last change that is known of an entry; 0 if there is none. */
  versionOf(key: string): number {
    return this.#versions.get(key) ?? 0;
  }

  get(serial: string): RevocationRecord | undefined {
    return this.#records.get(serial);
  }

  records(): RevocationRecord[] {
    return [...this.#records.values()];
  }

  #addSerial(record: RevocationRecord): void {
    this.#serials.add(record.serial);
    this.#records.set(record.serial, record);
    this.#useKey(record.spkiHash);
  }

  #removeSerial(serial: string): void {
    const record = this.#records.get(serial);
    if (record === undefined) return;
    this.#serials.delete(serial);
    this.#records.delete(serial);
    this.#releaseKey(record.spkiHash);
  }

  #useKey(spkiHash: string): void {
    this.#spkis.add(spkiHash);
    this.#uses.set(spkiHash, (this.#uses.get(spkiHash) ?? 0) + 1);
  }

  #releaseKey(spkiHash: string): void {
    const left = this.#uses.get(spkiHash)! - 1;
    if (left > 0) {
      this.#uses.set(spkiHash, left);
    } else {
      this.#uses.delete(spkiHash);
      this.#spkis.delete(spkiHash);
    }
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

/** Prefix of the store. */
export const REVOCATIONS = 'revocation/';
const ENTRY = /^revocation\/(site|serial|spki)\/(.+)$/;
