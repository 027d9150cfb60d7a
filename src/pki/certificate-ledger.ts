/**
 * The certificates that were issued, as the store keeps them: `certificate/<serial>`, until they expire.
 * What adds an entry is returned as a write, for the authority to commit together with its guards.
 * @module
 */
import { CertificateError } from '../errors.ts';
import type { Entry, Store, Write } from '../store/store.ts';

/** What the CA remembers of a certificate it issued. */
export type CertificateRecord = {
  /** Lower-case hex. */
  readonly serial: string;
  /** `spiffe://...`. */
  readonly identity: string;
  /** SHA-256 of the public key's SubjectPublicKeyInfo, base64url. */
  readonly spkiHash: string;
  /** The same of the key that signed it. Entries that are older than rollovers have none. */
  readonly issuer?: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
};

export class CertificateLedger {
  readonly #store: Store;
  readonly #now: () => number;

  constructor(store: Store, now: () => number) {
    this.#store = store;
    this.#now = now;
  }

  /** The write of a new entry. */
  entry(record: CertificateRecord): Write {
    return { key: CERTIFICATES + record.serial, value: record, expect: 0 };
  }

  /**
   * Finds a certificate by its serial number, in hex of either case.
   *
   * @throws {CertificateError} if there is none.
   */
  async find(serial: string): Promise<CertificateRecord> {
    const hex = serial.toLowerCase();
    const entry = SERIAL.test(hex) ? await this.#store.get(CERTIFICATES + hex) : undefined;
    if (entry === undefined) throw new CertificateError(`no certificate has serial "${serial}"`);
    return recordOf(entry);
  }

  /** All that have not expired. */
  async unexpired(): Promise<CertificateRecord[]> {
    const nowMs = this.#now();
    const records = (await this.#store.list(CERTIFICATES)).map(recordOf);
    return records.filter(({ notAfterMs }) => notAfterMs > nowMs);
  }

  async expiredKeys(): Promise<string[]> {
    const nowMs = this.#now();
    const entries = await this.#store.list(CERTIFICATES);
    return entries.filter((it) => recordOf(it).notAfterMs <= nowMs).map(({ key }) => key);
  }
}

function recordOf(entry: Entry): CertificateRecord {
  return entry.value as CertificateRecord;
}

const CERTIFICATES = 'certificate/';
const SERIAL = /^[0-9a-f]{1,40}$/;
