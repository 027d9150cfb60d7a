/**
 * `Revocations`: who is cut off. It follows the store, so what one process revokes is known in all, and
 * needs no CA: gateways whose certificates come from elsewhere are revoked by their site or their key.
 *
 * Entries: `revocation/site/<site>` until the site is reinstated; `revocation/serial/<hex>` for a
 * certificate that was issued here, and `revocation/spki/<base64url>` for a key, both for ever: an entry that is
 * removed because the certificate has run out by the clock is missing when that clock was wrong. An entry is
 * durable before it counts, and counts before anyone is told.
 *
 * What the watch brings and what this process writes meet here in any order: an entry's version says
 * which is newer. A store whose watch comes late puts nothing back.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import { EventEmitter } from 'eventemitter3';
import type { Clock } from '../base/clock.ts';
import { checkClock, checkMethods, checkObject } from '../base/option-check.ts';
import { ApiMisuseError, CertificateError, StoreConflictError } from '../errors.ts';
import type { Change, Entry, Store, Write } from '../store/store.ts';
import { CertificateLedger, type CertificateRecord } from './certificate-ledger.ts';
import { commitInParts, deletionOf } from './commits.ts';
import { spkiHashOfCertificate } from './keys.ts';
import { checkSite, identityOfCertificate, parseIdentity } from './names.ts';
import {
  REASON_CODES,
  REVOCATIONS,
  RevocationIndex,
  type RevocationReason,
  type RevocationRecord,
  type RevocationScope,
  type RevocationTable,
  serialRevocationKey,
  siteRevocationKey,
  spkiRevocationKey,
} from './revocation-index.ts';
import { RunningTime } from './running-time.ts';
import { TokenLedger } from './token-ledger.ts';

export interface RevocationsOptions {
  readonly store: Store;
  /** Default: that of the system. */
  readonly clock?: Clock;
}

export interface RevocationEvents {
  /** Revoked here or by another process on the same store; `isRevoked` knows already. */
  revoked: [scope: RevocationScope];
  /** The site may enrol again. */
  reinstated: [site: { readonly site: string }];
}

/** What a revocation took. */
export interface RevocationReport {
  /** Every certificate in question; one that was revoked before keeps its time and reason. */
  readonly certificates: RevocationRecord[];
  /** Enrolment tokens that were good until then. */
  readonly tokensVoided: number;
  /** Whom it concerns, as far as that is known: of a key that was never seen it is not. */
  readonly sites: string[];
  /**
   * Serial numbers, in lower-case hex, of certificates of these sites that are still good. Who has stolen
   * a key may have renewed onto another before: then only revoking the site cuts him off.
   */
  readonly unexpired: string[];
}

/**
 * Whether a certificate is revoked: by its serial number, by its key under any certificate, or with its
 * whole site. Also true if it does not name a gateway.
 */
export function isRevokedBy(table: RevocationTable, certificate: X509Certificate): boolean {
  if (table.serials.has(serialOf(certificate))) return true;
  try {
    const identity = identityOfCertificate(certificate);
    if (identity.role === 'site' && table.sites.has(identity.site)) return true;
    return table.spkis.has(spkiHashOfCertificate(certificate));
  } catch {
    return true;
  }
}

/** The serial number as the store and the table have it. */
export function serialOf(certificate: X509Certificate): string {
  return certificate.serialNumber.toLowerCase();
}

export class Revocations extends EventEmitter<RevocationEvents> {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #certificates: CertificateLedger;
  readonly #tokens: TokenLedger;
  readonly #index = new RevocationIndex();
  #unwatch: () => void = () => {};

  private constructor(store: Store, clock: Clock, running: RunningTime) {
    super();
    this.#store = store;
    this.#clock = clock;
    this.#certificates = new CertificateLedger(store, clock, running);
    this.#tokens = new TokenLedger(store, clock, running);
  }

  /**
   * Resolves when all that the store has is known.
   *
   * @throws {StoreError} if the store cannot be read.
   * @throws {ApiMisuseError} if an option is not what it must be.
   */
  static async open(options: RevocationsOptions): Promise<Revocations> {
    const { store } = checkObject('the options of Revocations', options);
    checkMethods('store', store, ['get', 'list', 'commit', 'watch']);
    const clock = checkClock(options.clock);
    const opened = new Revocations(store, clock, await RunningTime.open(store, clock));
    opened.#unwatch = store.watch(REVOCATIONS, (changes) => opened.#apply(changes));
    try {
      opened.#apply(await store.list(REVOCATIONS));
    } catch (error) {
      await opened.close();
      throw error;
    }
    return opened;
  }

  /**
   * Revokes a site, with every certificate of it that may still hold and every outstanding token: nothing is
   * issued to it from then on, until `reinstate`. Or a key, known or not, for ever. Or one certificate, and
   * with it the others on its key: whoever has one has the key to all of them. When it resolves, that is durable,
   * `isRevoked` knows, and `revoked` has been emitted, unless another process has reinstated the site by
   * then. If it fails, part of it may be in force: call again.
   *
   * @throws {CertificateError} if no certificate with that serial number was issued here, or the site id
   * or the hash is not one.
   * @throws {ApiMisuseError} if there is no such reason.
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
    const one = await this.#certificates.find(scope.serial);
    const onSameKey = ({ spkiHash, serial }: CertificateRecord) =>
      spkiHash === one.spkiHash && serial !== one.serial;
    const others = (await this.#certificates.mayHold()).filter(onSameKey);
    return this.#reportOf(await this.#revokeAll([one, ...others], reason));
  }

  /**
   * Lets a revoked site enrol again, with a new token and a new key; what was revoked stays so.
   *
   * @throws {CertificateError} if the site id is not one.
   * @throws {StoreError} if it cannot be stored.
   */
  async reinstate(site: string): Promise<void> {
    checkSite(site);
    const key = siteRevocationKey(site);
    let there: Entry | undefined;
    do {
      there = await this.#store.get(key);
      if (there === undefined) return;
    } while (!(await this.#isCommitted({ ...deletionOf(key), expect: there.version })));
    // Nothing came between the two, so any version between theirs puts it in its place.
    this.#apply([{ key, value: undefined, version: there.version + 1 }]);
  }

  /** `isRevokedBy` with what is revoked now. Asks memory only. */
  isRevoked(certificate: X509Certificate): boolean {
    return isRevokedBy(this.table, certificate);
  }

  /** Whether the site is revoked and not reinstated. */
  isSiteRevoked(site: string): boolean {
    return this.table.sites.has(site);
  }

  /** Whether the key is revoked, by itself or with a certificate. */
  hasKey(spkiHash: string): boolean {
    return this.table.spkis.has(spkiHash);
  }

  /** A live view. */
  get table(): RevocationTable {
    return this.#index.table;
  }

  /** The revoked certificates that were issued here, for a CRL. */
  records(): RevocationRecord[] {
    return this.#index.records();
  }

  /** Stops following the store, which stays open. Safe to call twice. */
  close(): Promise<void> {
    this.#unwatch();
    this.removeAllListeners();
    return CLOSED;
  }

  /** The same as `close`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #revokeSite(site: string, reason: RevocationReason): Promise<RevocationReport> {
    checkSite(site);
    await this.#block(siteRevocationKey(site), reason);
    // From here on no new certificate or token of the site can come, so the lists are complete.
    const [{ keys, outstanding }, issued] = await Promise.all([
      this.#tokens.ofSite(site),
      this.#certificates.mayHold(),
    ]);
    const ofSite = issued.filter((it) => siteOf(it) === site);
    const certificates = await this.#revokeAll(ofSite, reason, keys.map(deletionOf));
    return { certificates, tokensVoided: outstanding, sites: [site], unexpired: [] };
  }

  async #revokeKey(spki: string, reason: RevocationReason): Promise<RevocationReport> {
    if (!SPKI.test(spki) || Buffer.from(spki, 'base64url').toString('base64url') !== spki) {
      throw new CertificateError(`"${spki}" is not a SHA-256 in base64url`);
    }
    await this.#block(spkiRevocationKey(spki), reason);
    // Likewise for the key.
    const onKey = (await this.#certificates.mayHold()).filter((it) => it.spkiHash === spki);
    return this.#reportOf(await this.#revokeAll(onKey, reason));
  }

  /** Of a revocation that is in force: nothing comes from those certificates any more. */
  async #reportOf(certificates: RevocationRecord[]): Promise<RevocationReport> {
    const sites = new Set(certificates.map(siteOf).filter((site) => site !== undefined));
    const issued = sites.size === 0 ? [] : await this.#certificates.unexpired();
    const good = issued.filter((it) => sites.has(siteOf(it)!) && !this.#isGone(it));
    const unexpired = good.map(({ serial }) => serial);
    return { certificates, tokensVoided: 0, sites: [...sites], unexpired };
  }

  /** `isRevoked` for a certificate of a site, by its record. */
  #isGone(record: CertificateRecord): boolean {
    const { serials, spkis, sites } = this.table;
    return (
      serials.has(record.serial) || spkis.has(record.spkiHash) || sites.has(siteOf(record) ?? '')
    );
  }

  /** Writes the entry, unless it is there. */
  async #block(key: string, reason: RevocationReason): Promise<void> {
    let there: Entry | undefined;
    do {
      there = await this.#store.get(key);
      if (there !== undefined) return this.#apply([there]);
    } while (
      !(await this.#isCommitted({
        key,
        value: { revokedAtMs: this.#clock.wallMs(), reason },
        expect: 0,
      }))
    );
    await this.#readBack([key]);
  }

  /** @param besides what is to be written with it */
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
    await commitInParts(this.#store, [...revoked, ...besides], (part) => {
      const own = part.filter(({ key }) => key.startsWith(REVOCATIONS));
      return this.#readBack(own.map(({ key }) => key));
    });
    const written = new Map(fresh.map((record) => [record.serial, record]));
    return certificates.map(({ serial }) => this.#index.get(serial) ?? written.get(serial)!);
  }

  /** Returns whether it was written; not if the entry is no longer as expected. */
  async #isCommitted(write: Write): Promise<boolean> {
    try {
      await this.#store.commit([write]);
      return true;
    } catch (error) {
      if (error instanceof StoreConflictError) return false;
      throw error;
    }
  }

  /**
   * Takes in what was written here, which the watch may bring later, with its version, which a commit does
   * not tell. What was deleted since is left to the watch.
   */
  async #readBack(keys: readonly string[]): Promise<void> {
    const entries = await Promise.all(keys.map((key) => this.#store.get(key)));
    this.#apply(entries.filter((entry) => entry !== undefined));
  }

  #apply(changes: readonly Change[]): void {
    for (const change of this.#index.apply(changes)) {
      if ('revoked' in change) this.emit('revoked', change.revoked);
      else this.emit('reinstated', { site: change.reinstated });
    }
  }
}

function siteOf({ identity }: CertificateRecord): string | undefined {
  const parsed = parseIdentity(identity);
  return parsed.role === 'site' ? parsed.site : undefined;
}

const CLOSED: Promise<void> = /* @__PURE__ */ Promise.resolve();
/** 32 bytes as base64url. */
const SPKI = /^[A-Za-z0-9_-]{43}$/;
