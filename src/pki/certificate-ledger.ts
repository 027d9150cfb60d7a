/**
 * The issued certificates in the store: `certificate/<serial>`, kept until they have certainly expired.
 *
 * A certificate without a record stays valid and is not revoked with its site. So a clock that is wrong for a while
 * must not remove records: one goes only when both the clock and the running time say that it has expired.
 *
 * A new entry is returned as a write, which the authority commits together with its guards.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { CertificateError } from '../errors.ts';
import type { Entry, Store, Write } from '../store/store.ts';
import { DAY_MS } from './certificate.ts';
import type { RunningTime } from './running-time.ts';

/** The stored record of an issued certificate. */
export type CertificateRecord = {
  /** Lower-case hex. */
  readonly serial: string;
  /** `spiffe://...`. */
  readonly identity: string;
  /** SHA-256 of the public key's SubjectPublicKeyInfo, base64url. */
  readonly spkiHash: string;
  /** The same hash for the key that signed it. Entries from before rollovers existed have none. */
  readonly issuer?: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** `RunningTime` when it was recorded, in ms. Entries from before this measure existed have none. */
  readonly recordedRunMs?: number;
};

export class CertificateLedger {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #running: RunningTime;

  constructor(store: Store, clock: Clock, running: RunningTime) {
    this.#store = store;
    this.#clock = clock;
    this.#running = running;
  }

  /** Returns the write that adds an entry. */
  entry(record: Omit<CertificateRecord, 'recordedRunMs'>): Write {
    const value = { ...record, recordedRunMs: Math.floor(this.#running.ms) };
    return { key: CERTIFICATES + record.serial, value, expect: 0 };
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

  /** Whether a certificate has not expired by the clock. It may be wrong: use this for display only. */
  isUnexpired({ notAfterMs }: CertificateRecord): boolean {
    return notAfterMs > this.#clock.wallMs();
  }

  /** Whether a certificate may still be valid, even if the clock is wrong. */
  mayHold(record: CertificateRecord): boolean {
    return !this.#hasExpired(record);
  }

  /** Returns the store keys of the certificates that have certainly expired. */
  async expiredKeys(): Promise<string[]> {
    const all = (await this.#store.list(CERTIFICATES)).map(recordOf);
    const gone = all.filter((record) => this.#hasExpired(record));
    return gone.map(({ serial }) => CERTIFICATES + serial);
  }

  #hasExpired({ notBeforeMs, notAfterMs, recordedRunMs = 0 }: CertificateRecord): boolean {
    const ranMs = this.#running.ms - recordedRunMs;
    return this.#clock.wallMs() >= notAfterMs && ranMs >= notAfterMs - notBeforeMs + MARGIN_MS;
  }
}

export function recordOf(entry: Entry): CertificateRecord {
  return entry.value as CertificateRecord;
}

/** The area of the store. */
export const CERTIFICATE_AREA = 'certificate';
const CERTIFICATES = `${CERTIFICATE_AREA}/`;
const SERIAL = /^[0-9a-f]{1,40}$/;
/** Exceeds the difference in running time between processes on one store, which save it every hour. */
const MARGIN_MS = DAY_MS;
