/**
 * The certificates that were issued, as the store keeps them: `certificate/<serial>`, until they have
 * certainly run out.
 *
 * What a clock says that is wrong once must not lose them, for a certificate without a record holds all the
 * same, and is not revoked with its site. So the time for which the gateway has run must agree with the clock.
 *
 * What adds an entry is returned as a write, for the authority to commit together with its guards.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { CertificateError } from '../errors.ts';
import type { Entry, Store, Write } from '../store/store.ts';
import { DAY_MS } from './certificate.ts';
import type { RunningTime } from './running-time.ts';

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
  /** `RunningTime` when it was recorded, in ms. Entries that are older than this measure have none. */
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

  /** The write of a new entry. */
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

  /** All that have not expired by the clock, right or wrong: to be shown, not to be acted on. */
  async unexpired(): Promise<CertificateRecord[]> {
    const nowMs = this.#clock.wallMs();
    return (await this.#all()).filter(({ notAfterMs }) => notAfterMs > nowMs);
  }

  /** All that may hold when the clock is right. */
  async mayHold(): Promise<CertificateRecord[]> {
    return (await this.#all()).filter((record) => !this.#hasRunOut(record));
  }

  /** Keys of the entries of all others. */
  async expiredKeys(): Promise<string[]> {
    const gone = (await this.#all()).filter((record) => this.#hasRunOut(record));
    return gone.map(({ serial }) => CERTIFICATES + serial);
  }

  async #all(): Promise<CertificateRecord[]> {
    return (await this.#store.list(CERTIFICATES)).map(recordOf);
  }

  #hasRunOut({ notBeforeMs, notAfterMs, recordedRunMs = 0 }: CertificateRecord): boolean {
    const ranMs = this.#running.ms - recordedRunMs;
    return this.#clock.wallMs() >= notAfterMs && ranMs >= notAfterMs - notBeforeMs + MARGIN_MS;
  }
}

function recordOf(entry: Entry): CertificateRecord {
  return entry.value as CertificateRecord;
}

const CERTIFICATES = 'certificate/';
const SERIAL = /^[0-9a-f]{1,40}$/;
/** More than what processes on one store may differ by in their running time: they save it every hour. */
const MARGIN_MS = DAY_MS;
