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
import { NotFoundError } from '../errors.ts';
import type { Entry, Json, Store, Write } from '../store/store.ts';
import { DAY_MS } from './certificate.ts';
import { EntryIndex } from './entry-index.ts';
import { parseIdentity } from './names.ts';
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
  readonly #index: EntryIndex;

  private constructor(store: Store, clock: Clock, running: RunningTime, index: EntryIndex) {
    this.#store = store;
    this.#clock = clock;
    this.#running = running;
    this.#index = index;
  }

  /** @throws {StoreError} if the store cannot be read. */
  static async open(store: Store, clock: Clock, running: RunningTime): Promise<CertificateLedger> {
    const index = await EntryIndex.open(store, AREA, namesOf);
    return new CertificateLedger(store, clock, running, index);
  }

  /** The write that marks a commit for `ofSite` and `ofKey`. */
  get mark(): Write {
    return this.#index.mark;
  }

  /** Returns the write that adds an entry. */
  entry(record: Omit<CertificateRecord, 'recordedRunMs'>): Write {
    const value = { ...record, recordedRunMs: Math.floor(this.#running.ms) };
    return { key: CERTIFICATES + record.serial, value, expect: 0 };
  }

  /**
   * Finds a certificate by its serial number, in hex of either case.
   *
   * @throws {NotFoundError} if there is none.
   */
  async find(serial: string): Promise<CertificateRecord> {
    const hex = serial.toLowerCase();
    const entry = SERIAL.test(hex) ? await this.#store.get(CERTIFICATES + hex) : undefined;
    if (entry === undefined) throw new NotFoundError(`no certificate has serial "${serial}"`);
    return recordOf(entry);
  }

  /** Returns the certificates of a site; see `EntryIndex.find`. */
  async ofSite(site: string, version: number): Promise<CertificateRecord[]> {
    return (await this.#index.find(nameOfSite(site), version)).map(recordOf);
  }

  /** Returns the certificates for a key, by its hash; see `EntryIndex.find`. */
  async ofKey(spkiHash: string, version: number): Promise<CertificateRecord[]> {
    return (await this.#index.find(nameOfKey(spkiHash), version)).map(recordOf);
  }

  /** The certificate of each site that was recorded last. It costs as much as there are certificates. */
  *newest(): Generator<readonly [site: string, record: CertificateRecord]> {
    for (const [name, entries] of this.#index.named()) {
      if (!name.startsWith(SITE)) continue;
      let newest = entries[0]!;
      for (const entry of entries) if (entry.version > newest.version) newest = entry;
      yield [name.slice(SITE.length), recordOf(newest)];
    }
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

  /** Stops following the store. Safe to call twice. */
  close(): void {
    this.#index.close();
  }

  #hasExpired({ notBeforeMs, notAfterMs, recordedRunMs = 0 }: CertificateRecord): boolean {
    const ranMs = this.#running.ms - recordedRunMs;
    return this.#clock.wallMs() >= notAfterMs && ranMs >= notAfterMs - notBeforeMs + MARGIN_MS;
  }
}

/** Returns the site of a certificate; undefined for that of the cloud. */
export function siteOf({ identity }: CertificateRecord): string | undefined {
  const parsed = parseIdentity(identity);
  return parsed.role === 'site' ? parsed.site : undefined;
}

function recordOf(entry: Entry): CertificateRecord {
  return entry.value as CertificateRecord;
}

/** Returns the names by which the record of a certificate is found. */
function namesOf(value: Json): string[] {
  const record = value as unknown as CertificateRecord;
  const names = [nameOfKey(record.spkiHash)];
  try {
    const site = siteOf(record);
    if (site !== undefined) names.push(nameOfSite(site));
  } catch {
    // A record whose identity cannot be read belongs to no site.
  }
  return names;
}

function nameOfSite(site: string): string {
  return SITE + site;
}

function nameOfKey(spkiHash: string): string {
  return `key ${spkiHash}`;
}

const SITE = 'site ';
/** The area of the store. */
const AREA = 'certificate';
const CERTIFICATES = `${AREA}/`;
const SERIAL = /^[0-9a-f]{1,40}$/;
/** Exceeds the difference in running time between processes on one store, which save it every hour. */
const MARGIN_MS = DAY_MS;
