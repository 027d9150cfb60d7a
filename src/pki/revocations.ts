/**
 * `Revocations` revokes sites, certificates and keys. It follows the store, so every process knows what one revokes.
 * It needs no CA: gateways whose certificates another CA issues are revoked by their site or their key.
 *
 * The entries are `revocation/site/<site>` until the site is reinstated, `revocation/serial/<hex>` for a certificate
 * that was issued here, and `revocation/spki/<base64url>` for a key. The last two stay for ever, because an entry that
 * was removed by a fast clock would take the revocation back. An entry is durable before it takes effect, and takes
 * effect before any event is emitted.
 *
 * Changes from the watch and writes of this process arrive in any order; the version of an entry decides which is
 * newer. So a late watch does not undo anything.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import { EventEmitter } from 'eventemitter3';
import type { Clock } from '../base/clock.ts';
import { checkClock, checkMethods, checkObject } from '../base/option-check.ts';
import { ApiMisuseError, CertificateError, StoreConflictError } from '../errors.ts';
import type { Change, Entry, Store, Write } from '../store/store.ts';
import { type CertificateRecord, siteOf } from './certificate-ledger.ts';
import { commitInParts, deletionOf } from './commits.ts';
import { spkiHashOfCertificate } from './keys.ts';
import { type Ledgers, openLedgers } from './ledgers.ts';
import type { ListQuery } from './list-query.ts';
import { checkSite, identityOfCertificate } from './names.ts';
import {
  REASON_CODES,
  REVOCATIONS,
  type RevocationEntry,
  RevocationIndex,
  type RevocationReason,
  type RevocationRecord,
  type RevocationScope,
  serialRevocationKey,
  siteRevocationKey,
  spkiRevocationKey,
} from './revocation-index.ts';
import type { RevocationTable } from './revocation-table.ts';

export interface RevocationsOptions {
  readonly store: Store;
  /** Default: the system's clock. */
  readonly clock?: Clock;
}

export interface RevocationEvents {
  /** Revoked here or by another process on the same store. `isRevoked` already returns true. */
  revoked: [scope: RevocationScope];
  /** The site may enrol again. */
  reinstated: [site: { readonly site: string }];
}

/** The effect of a revocation. */
export interface RevocationReport {
  /** Every certificate concerned; one that was revoked before keeps its time and reason. */
  readonly certificates: RevocationRecord[];
  /** How many valid enrolment tokens were removed. */
  readonly tokensVoided: number;
  /** The sites concerned, as far as known; none for a key of which no certificate was issued here. */
  readonly sites: string[];
  /**
   * Serial numbers, in lower-case hex, of certificates of these sites that are still valid. A thief of a key may have
   * renewed with another key before; then only revoking the site stops the thief.
   */
  readonly unexpired: string[];
}

/**
 * Whether a certificate is revoked: by its serial number, by its key in any certificate, or with its site. Returns true
 * also for a certificate that names no gateway.
 */
export function isRevokedBy(table: RevocationTable, certificate: X509Certificate): boolean {
  let keys = KEYS.get(certificate);
  if (keys === undefined) {
    keys = keysOf(certificate);
    KEYS.set(certificate, keys);
  }
  const { serial, site, spki } = keys;
  if (table.serials.has(serial)) return true;
  if (site !== undefined && table.sites.has(site)) return true;
  return spki === undefined || table.spkis.has(spki);
}

/** What a table may name of a certificate. */
interface RevocationKeys {
  readonly serial: string;
  readonly site: string | undefined;
  /** Undefined if the certificate has no identity or key that can be read. */
  readonly spki: string | undefined;
}

/** Each revocation asks about the certificates of all tunnels. */
const KEYS = new WeakMap<X509Certificate, RevocationKeys>();

function keysOf(certificate: X509Certificate): RevocationKeys {
  const serial = serialOf(certificate);
  try {
    const identity = identityOfCertificate(certificate);
    const site = identity.role === 'site' ? identity.site : undefined;
    return { serial, site, spki: spkiHashOfCertificate(certificate) };
  } catch {
    return { serial, site: undefined, spki: undefined };
  }
}

/** Returns the serial number in the form of the store and the table. */
export function serialOf(certificate: X509Certificate): string {
  return certificate.serialNumber.toLowerCase();
}

/** The revoked sites, certificates and keys of one store. */
export class Revocations extends EventEmitter<RevocationEvents> {
  readonly #store: Store;
  readonly #clock: Clock;
  /** @internal */
  readonly ledgers: Ledgers;
  readonly #index = new RevocationIndex();
  #unwatch: () => void = () => {};

  private constructor(store: Store, clock: Clock, ledgers: Ledgers) {
    super();
    this.#store = store;
    this.#clock = clock;
    this.ledgers = ledgers;
  }

  /**
   * Opens the revocations of a store; resolves when all of them are in memory.
   *
   * @throws {StoreError} if the store cannot be read.
   * @throws {ApiMisuseError} if an option is invalid.
   */
  static async open(options: RevocationsOptions): Promise<Revocations> {
    const { store } = checkObject('the options of Revocations', options);
    checkMethods('store', store, ['get', 'list', 'commit', 'watch']);
    const clock = checkClock(options.clock);
    const opened = new Revocations(store, clock, await openLedgers(store, clock));
    await opened.#follow();
    return opened;
  }

  /**
   * Revokes one of:
   *
   * - a site, with all its certificates that may still be valid and all its outstanding tokens; nothing is issued to it
   *   until `reinstate`
   * - a key, known or not, for ever
   * - a certificate, and all others for the same key, for ever
   *
   * When it resolves, the revocation is durable, `isRevoked` returns true, and `revoked` has been emitted, unless another
   * process has reinstated the site in the meantime. If it rejects, part of it may be in effect: call it again.
   *
   * @throws {NotFoundError} if no certificate with this serial number was issued here.
   * @throws {CertificateError} if the site id or the hash is invalid.
   * @throws {ApiMisuseError} if the reason is unknown.
   * @throws {StoreError} if it cannot be stored.
   */
  async revoke(
    scope: RevocationScope,
    reason: RevocationReason = 'unspecified'
  ): Promise<RevocationReport> {
    if (!Object.hasOwn(REASON_CODES, reason)) {
      throw new ApiMisuseError(`"${reason}" is not a reason to revoke`);
    }
    if ('site' in scope) return this.#revokeSite(scope.site, reason);
    if ('spki' in scope) return this.#revokeKey(scope.spki, reason);
    const { certificates } = this.ledgers;
    const one = await certificates.find(scope.serial);
    const first = await this.#revokeAll([one], reason, [certificates.mark]);
    const version = this.#index.versionOf(serialRevocationKey(one.serial));
    const onSameKey = await this.#mayHold(certificates.ofKey(one.spkiHash, version));
    const others = onSameKey.filter(({ serial }) => serial !== one.serial);
    return this.#reportOf([...first, ...(await this.#revokeAll(others, reason))]);
  }

  /**
   * Lets a revoked site enrol again, with a new token and a new key. Its old certificates stay revoked.
   *
   * @throws {CertificateError} if the site id is invalid.
   * @throws {StoreError} if it cannot be stored.
   */
  async reinstate(site: string): Promise<void> {
    checkSite(site);
    const key = siteRevocationKey(site);
    let present: Entry | undefined;
    do {
      present = await this.#store.get(key);
      if (present === undefined) return;
    } while (!(await this.#isCommitted([{ ...deletionOf(key), expect: present.version }])));
    // The deletion directly followed this version, so the next number orders it correctly.
    this.#apply([{ key, value: undefined, version: present.version + 1 }]);
  }

  /** Returns `isRevokedBy` for the present table. Reads memory only. */
  isRevoked(certificate: X509Certificate): boolean {
    return isRevokedBy(this.table, certificate);
  }

  /** Whether the site is revoked and not reinstated. */
  isSiteRevoked(site: string): boolean {
    return this.table.sites.has(site);
  }

  /** Whether the key is revoked, itself or with a certificate. */
  hasKey(spkiHash: string): boolean {
    return this.table.spkis.has(spkiHash);
  }

  /** What is revoked, as a live view. */
  get table(): RevocationTable {
    return this.#index.table;
  }

  /** Returns the revoked certificates that were issued here, for a CRL. */
  records(): RevocationRecord[] {
    return this.#index.records();
  }

  /**
   * Returns what is revoked, in the order of the keys of `RevocationEntry`. Reads memory only.
   *
   * @param query its `site` selects the revocation of a site and those of its certificates
   * @throws {ApiMisuseError} if the query is invalid.
   */
  page(query: ListQuery): RevocationEntry[] {
    return this.#index.page(query);
  }

  /** Stops following the store, which stays open. Safe to call twice. */
  close(): Promise<void> {
    this.#unwatch();
    this.ledgers.certificates.close();
    this.ledgers.tokens.close();
    this.removeAllListeners();
    return CLOSED;
  }

  /** The same as `close`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Reads all revocations, and follows the store from then on. */
  async #follow(): Promise<void> {
    this.#unwatch = this.#store.watch(REVOCATIONS, (changes) => this.#apply(changes));
    try {
      this.#apply(await this.#store.list(REVOCATIONS));
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  async #revokeSite(site: string, reason: RevocationReason): Promise<RevocationReport> {
    checkSite(site);
    const version = await this.#markRevoked(siteRevocationKey(site), reason);
    // From now on nothing is issued to the site, so the lists are complete.
    const { certificates: ledger, tokens: tokenLedger } = this.ledgers;
    const [tokens, ofSite] = await Promise.all([
      tokenLedger.ofSite(site, version),
      this.#mayHold(ledger.ofSite(site, version)),
    ]);
    const tokensVoided = tokenLedger.countValid(tokens);
    const deletions = tokens.map(({ key }) => deletionOf(key));
    const certificates = await this.#revokeAll(ofSite, reason, deletions);
    return { certificates, tokensVoided, sites: [site], unexpired: [] };
  }

  async #revokeKey(spki: string, reason: RevocationReason): Promise<RevocationReport> {
    if (!SPKI.test(spki) || Buffer.from(spki, 'base64url').toString('base64url') !== spki) {
      throw new CertificateError(`"${spki}" is not a SHA-256 in base64url`);
    }
    const version = await this.#markRevoked(spkiRevocationKey(spki), reason);
    // From now on nothing is issued for the key, so the list is complete.
    const onKey = await this.#mayHold(this.ledgers.certificates.ofKey(spki, version));
    return this.#reportOf(await this.#revokeAll(onKey, reason));
  }

  /** Makes the report of a revocation of certificates that is already in effect. */
  async #reportOf(certificates: RevocationRecord[]): Promise<RevocationReport> {
    const sites = new Set(certificates.map(siteOf).filter((site) => site !== undefined));
    const { certificates: ledger } = this.ledgers;
    const ofSites = await Promise.all([...sites].map((site) => ledger.ofSite(site, ANY)));
    const unexpired = ofSites
      .flat()
      .filter((it) => ledger.isUnexpired(it) && !this.#isRevokedRecord(it))
      .map(({ serial }) => serial);
    return { certificates, tokensVoided: 0, sites: [...sites], unexpired };
  }

  /** Whether the certificate of a site is revoked, from its record. */
  #isRevokedRecord(record: CertificateRecord): boolean {
    const { serials, spkis, sites } = this.table;
    return (
      serials.has(record.serial) || spkis.has(record.spkiHash) || sites.has(siteOf(record) ?? '')
    );
  }

  /** Returns those of the certificates that may still be valid. */
  async #mayHold(certificates: Promise<CertificateRecord[]>): Promise<CertificateRecord[]> {
    return (await certificates).filter((record) => this.ledgers.certificates.mayHold(record));
  }

  /** Writes the entry, unless it exists. Returns its version, at which the areas have their marks. */
  async #markRevoked(key: string, reason: RevocationReason): Promise<number> {
    let present: Entry | undefined;
    do {
      present = await this.#store.get(key);
      if (present !== undefined) {
        this.#apply([present]);
        return present.version;
      }
    } while (
      !(await this.#isCommitted([
        { key, value: { revokedAtMs: this.#clock.wallMs(), reason }, expect: 0 },
        this.ledgers.certificates.mark,
        this.ledgers.tokens.mark,
      ]))
    );
    const [written] = await this.#readBack([key]);
    return written?.version ?? UNKNOWN;
  }

  /** Revokes the certificates. @param besides other writes of the same commits */
  async #revokeAll(
    certificates: readonly CertificateRecord[],
    reason: RevocationReason,
    besides: readonly Write[] = []
  ): Promise<RevocationRecord[]> {
    const revokedAtMs = this.#clock.wallMs();
    const fresh = certificates
      .filter(({ serial }) => this.#index.get(serial) === undefined)
      .map((record): RevocationRecord => ({ ...record, revokedAtMs, reason }));
    const revoked = fresh.map((record) => ({
      key: serialRevocationKey(record.serial),
      value: record,
    }));
    await commitInParts(this.#store, [...revoked, ...besides], async (part) => {
      const own = part.filter(({ key }) => key.startsWith(REVOCATIONS));
      await this.#readBack(own.map(({ key }) => key));
    });
    const written = new Map(fresh.map((record) => [record.serial, record]));
    return certificates.map(({ serial }) => this.#index.get(serial) ?? written.get(serial)!);
  }

  /** Returns whether the writes were committed; false if an entry is not in the expected version. */
  async #isCommitted(writes: readonly Write[]): Promise<boolean> {
    try {
      await this.#store.commit(writes);
      return true;
    } catch (error) {
      if (error instanceof StoreConflictError) return false;
      throw error;
    }
  }

  /**
   * Reads entries that this process has written, to learn their versions, which a commit does not return, and applies
   * them before the watch does. An entry that was deleted since is left to the watch.
   */
  async #readBack(keys: readonly string[]): Promise<Entry[]> {
    const found = await Promise.all(keys.map((key) => this.#store.get(key)));
    const entries = found.filter((entry) => entry !== undefined);
    this.#apply(entries);
    return entries;
  }

  #apply(changes: readonly Change[]): void {
    for (const change of this.#index.apply(changes)) {
      if ('revoked' in change) this.emit('revoked', change.revoked);
      else this.emit('reinstated', { site: change.reinstated });
    }
  }
}

/** A version that every index has reached. */
const ANY = 0;
/** The version of an entry that was deleted again before it was read: no index is known to have reached it. */
const UNKNOWN = Number.POSITIVE_INFINITY;
const CLOSED: Promise<void> = /* @__PURE__ */ Promise.resolve();
/** 32 bytes as base64url. */
const SPKI = /^[A-Za-z0-9_-]{43}$/;
