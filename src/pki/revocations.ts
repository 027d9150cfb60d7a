/**
 * What is revoked, in memory, so that the question can be asked in every handshake: serial numbers,
 * keys, and whole sites. The store's entries under `revocation/` are the truth; this follows them.
 * @module
 */
import type { Change } from '../store/store.ts';

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

/** What the CA remembers of a certificate it issued. */
export type CertificateRecord = {
  /** Lower-case hex. */
  readonly serial: string;
  /** `spiffe://...`. */
  readonly identity: string;
  /** SHA-256 of the public key's SubjectPublicKeyInfo, base64url. */
  readonly spkiHash: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
};

export type RevocationRecord = CertificateRecord & {
  readonly revokedAtMs: number;
  readonly reason: RevocationReason;
};

/** What a revocation is about: every certificate of a site, or one. */
export type RevocationScope = { readonly site: string } | { readonly serial: string };

export class RevocationIndex {
  readonly #records = new Map<string, RevocationRecord>();
  /** How many revoked certificates each key has; a count, for they are pruned one by one. */
  readonly #keys = new Map<string, number>();
  readonly #sites = new Set<string>();

  /** Takes in entries of the store, each any number of times; returns what is revoked anew. */
  apply(changes: readonly Pick<Change, 'key' | 'value'>[]): RevocationScope[] {
    const revoked: RevocationScope[] = [];
    for (const { key, value } of changes) {
      if (key.startsWith(SITE_REVOCATIONS)) {
        const site = key.slice(SITE_REVOCATIONS.length);
        if (value === undefined) this.#sites.delete(site);
        else if (!this.#sites.has(site)) {
          this.#sites.add(site);
          revoked.push({ site });
        }
      } else if (key.startsWith(SERIAL_REVOCATIONS)) {
        const serial = key.slice(SERIAL_REVOCATIONS.length);
        if (value === undefined) this.#remove(serial);
        else if (!this.#records.has(serial)) {
          this.#add(value as unknown as RevocationRecord);
          revoked.push({ serial });
        }
      }
    }
    return revoked;
  }

  get(serial: string): RevocationRecord | undefined {
    return this.#records.get(serial);
  }

  records(): IterableIterator<RevocationRecord> {
    return this.#records.values();
  }

  hasKey(spkiHash: string): boolean {
    return this.#keys.has(spkiHash);
  }

  hasSite(site: string): boolean {
    return this.#sites.has(site);
  }

  #add(record: RevocationRecord): void {
    this.#records.set(record.serial, record);
    this.#keys.set(record.spkiHash, (this.#keys.get(record.spkiHash) ?? 0) + 1);
  }

  #remove(serial: string): void {
    const record = this.#records.get(serial);
    if (record === undefined) return;
    this.#records.delete(serial);
    const left = this.#keys.get(record.spkiHash)! - 1;
    if (left === 0) this.#keys.delete(record.spkiHash);
    else this.#keys.set(record.spkiHash, left);
  }
}

/** Under this prefix of the store: `serial/<hex>` and `site/<id>`. */
export const REVOCATIONS = 'revocation/';
const SERIAL_REVOCATIONS: string = `${REVOCATIONS}serial/`;
const SITE_REVOCATIONS: string = `${REVOCATIONS}site/`;

export function serialRevocationKey(serial: string): string {
  return SERIAL_REVOCATIONS + serial;
}

export function siteRevocationKey(site: string): string {
  return SITE_REVOCATIONS + site;
}
