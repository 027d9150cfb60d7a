/**
 * `CertificateAuthority`: decides who gets a certificate, for whom, and until when. It keeps what it
 * decided in the store, so that it may be restarted, or run in several gateways at once over one
 * store with the same key.
 *
 * Entries: `certificate/<serial>` for every certificate until it expires, `token/<id>` for every
 * enrolment token until it expires, `revocation/serial/<serial>` and `revocation/site/<site>`.
 * A certificate is handed out only after the commit that recorded it; and that commit holds only if
 * the site was not revoked and the token not used meanwhile.
 * @module
 */
import type { KeyObject, X509Certificate } from 'node:crypto';
import { EventEmitter } from 'eventemitter3';
import { ApiMisuseError, CertificateError, StoreConflictError } from '../errors.ts';
import type { Entry, Store, Write } from '../store/store.ts';
import type {
  AuthorityEvents,
  AuthorityOptions,
  CreateAuthorityOptions,
  IssuedCertificate,
  LoadAuthorityOptions,
  Redemption,
  TokenOptions,
} from './authority-options.ts';
import {
  type Issuer,
  issuerOf,
  randomSerial,
  readCaCertificate,
  signEndEntity,
  signRoot,
  type Validity,
} from './certificate.ts';
import { generateGatewayKey, readPrivateKey, spkiHashOf } from './keys.ts';
import {
  checkSite,
  checkTrustDomain,
  formatIdentity,
  type GatewayIdentity,
  identityOfCertificate,
} from './names.ts';
import { signRevocationList } from './revocation-list.ts';
import {
  type CertificateRecord,
  REVOCATIONS,
  RevocationIndex,
  type RevocationReason,
  type RevocationRecord,
  type RevocationScope,
  serialRevocationKey,
  siteRevocationKey,
} from './revocations.ts';
import { verifySigningRequest } from './signing-request.ts';
import { formatToken } from './token.ts';
import { TokenLedger, unknownToken } from './token-ledger.ts';

/** A certificate authority for the gateways of one trust domain. */
export class CertificateAuthority extends EventEmitter<AuthorityEvents> {
  readonly trustDomain: string;
  /** The CA's own certificate. */
  readonly certificatePem: string;
  /** SHA-256 of its SubjectPublicKeyInfo, base64url: what an enrolment token pins. */
  readonly spkiHash: string;

  readonly #certificate: X509Certificate;
  readonly #issuer: Issuer;
  readonly #store: Store;
  readonly #tokens: TokenLedger;
  readonly #now: () => number;
  readonly #certificateLifetimeMs: number;
  readonly #crlLifetimeMs: number;
  readonly #revocations = new RevocationIndex();
  #lastCrlNumber = 0;
  #unwatch: () => void = () => {};

  private constructor(certificatePem: string, privateKey: KeyObject, options: AuthorityOptions) {
    super();
    checkTrustDomain(options.trustDomain);
    const certificate = readCaCertificate(certificatePem, privateKey, options.trustDomain);
    this.trustDomain = options.trustDomain;
    this.certificatePem = certificate.toString();
    this.spkiHash = spkiHashOf(certificate.publicKey);
    this.#certificate = certificate;
    this.#issuer = issuerOf(certificate, privateKey);
    this.#store = options.store;
    this.#now = options.now ?? Date.now;
    this.#tokens = new TokenLedger(this.#store, this.#now);
    this.#certificateLifetimeMs = lifetime(
      'certificateLifetimeMs',
      options.certificateLifetimeMs ?? 30 * DAY_MS
    );
    this.#crlLifetimeMs = lifetime('crlLifetimeMs', options.crlLifetimeMs ?? 7 * DAY_MS);
  }

  /**
   * Makes a CA with a new key and a self-signed root certificate. Keep `certificatePem` and
   * `privateKeyPem`, the latter readable by nobody else, and `load` them next time.
   *
   * @throws {CertificateError} if the trust domain is not a lower-case DNS name.
   */
  static async create(options: CreateAuthorityOptions): Promise<CertificateAuthority> {
    checkTrustDomain(options.trustDomain);
    const privateKey = readPrivateKey(generateGatewayKey(options.keyType).privateKeyPem);
    const nowMs = (options.now ?? Date.now)();
    const certificatePem = signRoot(privateKey, options.trustDomain, {
      notBeforeMs: nowMs - BACKDATE_MS,
      notAfterMs: nowMs + lifetime('rootLifetimeMs', options.rootLifetimeMs ?? 3650 * DAY_MS),
    });
    return new CertificateAuthority(certificatePem, privateKey, options).#open();
  }

  /**
   * Takes up an existing CA.
   *
   * @throws {CertificateError} if the certificate is not a CA's, is of another key or trust domain,
   * or the key cannot be read.
   */
  static async load(options: LoadAuthorityOptions): Promise<CertificateAuthority> {
    const privateKey = readPrivateKey(options.privateKeyPem, options.passphrase);
    return new CertificateAuthority(options.certificatePem, privateKey, options).#open();
  }

  /** The CA's private key, PKCS#8, not encrypted. Whoever reads it can be anyone. */
  get privateKeyPem(): string {
    return this.#issuer.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
  }

  /** The same under a passphrase, for `load`. */
  encryptedPrivateKeyPem(passphrase: string): string {
    const cipher = 'aes-256-cbc';
    return this.#issuer.privateKey.export({
      type: 'pkcs8',
      format: 'pem',
      cipher,
      passphrase,
    }) as string;
  }

  /**
   * Issues a certificate to `identity` for the key of a signing request, whatever else it asks for.
   *
   * @throws {CertificateError} if the request is not acceptable, its key or the site is revoked, or
   * the identity is not of this trust domain.
   */
  async issue(
    csrPem: string,
    identity: GatewayIdentity,
    options: { readonly lifetimeMs?: number } = {}
  ): Promise<IssuedCertificate> {
    const publicKey = verifySigningRequest(csrPem);
    try {
      return await this.#certify(publicKey, identity, [], options.lifetimeMs);
    } catch (error) {
      throw identity.role === 'site' ? refusedAs(error, () => siteRevoked(identity.site)) : error;
    }
  }

  /**
   * Makes a token with which a site can enrol once.
   *
   * @returns the text to carry to the site; it is a secret.
   * @throws {CertificateError} if the site id is not one, or the site is revoked.
   * @throws {ApiMisuseError} if an endpoint or the lifetime is not usable.
   */
  async createToken(options: TokenOptions): Promise<string> {
    const { site, endpoints } = options;
    checkSite(site);
    const lifetimeMs = lifetime('lifetimeMs', options.lifetimeMs ?? HOUR_MS);
    const { id, secret, write } = this.#tokens.draft(site, lifetimeMs);
    const { trustDomain, spkiHash: caSpkiHash } = this;
    const text = formatToken({ endpoints, caSpkiHash, trustDomain, site, id, secret });
    try {
      await this.#store.commit([write, mustNotExist(siteRevocationKey(site))]);
    } catch (error) {
      throw refusedAs(error, () => siteRevoked(site));
    }
    return text;
  }

  /**
   * Redeems a token: issues a certificate for the site that the token names. A request that is not
   * acceptable leaves the token as it was.
   *
   * @throws {CertificateError} if the signing request is not acceptable.
   * @throws {EnrolmentError} with fault `unknown` (also for a wrong secret, and when the site has
   * been revoked since), `expired` or `used`.
   */
  async enrol({ tokenId, secret, csrPem }: Redemption): Promise<IssuedCertificate> {
    const publicKey = verifySigningRequest(csrPem);
    const { site, write } = await this.#tokens.redeemable(tokenId, secret);
    try {
      return await this.#certify(publicKey, this.#siteIdentity(site), [write]);
    } catch (error) {
      // Another was quicker with the token, or the site was revoked; say which.
      if (error instanceof StoreConflictError) await this.#tokens.redeemable(tokenId, secret);
      throw refusedAs(error, unknownToken);
    }
  }

  /**
   * Issues the next certificate to the holder of `current`, which TLS has verified. The key may be
   * the same or a new one.
   *
   * @throws {CertificateError} if `current` is revoked, expired or not ours, or the request is not
   * acceptable.
   */
  async renew(current: X509Certificate, csrPem: string): Promise<IssuedCertificate> {
    if (!current.checkIssued(this.#certificate) || !current.verify(this.#certificate.publicKey)) {
      throw new CertificateError('the certificate to renew was not issued by this CA');
    }
    const identity = identityOfCertificate(current);
    const refused = () => new CertificateError(`${formatIdentity(identity)} is revoked`);
    if (this.isRevoked(current)) throw refused();
    if (!(this.#now() <= Date.parse(current.validTo))) {
      throw new CertificateError(`the certificate to renew expired at ${current.validTo}`);
    }
    const publicKey = verifySigningRequest(csrPem);
    try {
      return await this.#certify(publicKey, identity, [
        mustNotExist(serialRevocationKey(serialOf(current))),
      ]);
    } catch (error) {
      throw refusedAs(error, refused);
    }
  }

  /**
   * Revokes one certificate; or a site, with every unexpired certificate and outstanding token of
   * it: nothing is issued to the site from then on, until `reinstate`. When it resolves, `isRevoked`
   * knows and `revoked` has been emitted.
   *
   * @returns the record of every certificate in question; one that was revoked before keeps its
   * time and reason.
   * @throws {CertificateError} if there is no certificate with that serial, or the site id is not one.
   */
  async revoke(
    scope: RevocationScope,
    reason: RevocationReason = 'unspecified'
  ): Promise<RevocationRecord[]> {
    if ('serial' in scope) return this.#revokeAll([await this.#record(scope.serial)], reason);
    const { site } = scope;
    checkSite(site);
    const blockKey = siteRevocationKey(site);
    if ((await this.#store.get(blockKey)) === undefined) {
      await this.#commit([{ key: blockKey, value: { revokedAtMs: this.#now(), reason } }]);
    }
    // From here on no new certificate or token of the site can come, so the lists are complete.
    await this.#delete(await this.#tokens.keysOf(site));
    const identity = formatIdentity(this.#siteIdentity(site));
    const certificates = (await this.#store.list(CERTIFICATES)).map(certificateRecord);
    return this.#revokeAll(
      certificates.filter((it) => it.identity === identity && it.notAfterMs > this.#now()),
      reason
    );
  }

  /** Lets a revoked site enrol again, with a new token and a new key; what was revoked stays so. */
  async reinstate(site: string): Promise<void> {
    checkSite(site);
    await this.#delete([siteRevocationKey(site)]);
  }

  /**
   * Tells whether a certificate that chains to this CA is revoked: by its serial number, by its key
   * under any certificate, or with its whole site. Also true if it does not name a gateway.
   * Asks memory only.
   */
  isRevoked(certificate: X509Certificate): boolean {
    if (this.#revocations.get(serialOf(certificate)) !== undefined) return true;
    try {
      const identity = identityOfCertificate(certificate);
      if (identity.role === 'site' && this.#revocations.hasSite(identity.site)) return true;
      return this.#revocations.hasKey(spkiHashOf(certificate.publicKey));
    } catch {
      return true;
    }
  }

  /** Whether the site is revoked and not reinstated. */
  isSiteRevoked(site: string): boolean {
    return this.#revocations.hasSite(site);
  }

  /** Signs a CRL as of now, PEM. Each has a higher number than the one before, across restarts. */
  crlPem(): string {
    const nowMs = this.#now();
    const number = Math.max(this.#lastCrlNumber + 1, Math.floor(nowMs));
    this.#lastCrlNumber = number;
    return signRevocationList(this.#issuer, [...this.#revocations.records()], {
      number: BigInt(number),
      thisUpdateMs: nowMs - BACKDATE_MS,
      nextUpdateMs: nowMs + this.#crlLifetimeMs,
    });
  }

  /**
   * Removes from the store what has lost its meaning by time: expired tokens and certificates. A
   * revocation stays one CRL's lifetime longer, so that every CRL user has seen it (RFC 5280
   * section 3.3).
   *
   * @returns how many entries went.
   */
  async prune(): Promise<number> {
    const nowMs = this.#now();
    const certificates = await this.#store.list(CERTIFICATES);
    const stale = await this.#tokens.expiredKeys();
    for (const entry of certificates) {
      if (certificateRecord(entry).notAfterMs <= nowMs) stale.push(entry.key);
    }
    for (const record of this.#revocations.records()) {
      if (record.notAfterMs + this.#crlLifetimeMs <= nowMs) {
        stale.push(serialRevocationKey(record.serial));
      }
    }
    await this.#delete(stale);
    return stale.length;
  }

  /** Stops following the store, which stays open. Safe to call twice. */
  close(): void {
    this.#unwatch();
    this.removeAllListeners();
  }

  async #open(): Promise<this> {
    const heard = new Set<string>();
    this.#unwatch = this.#store.watch(REVOCATIONS, (changes) => {
      for (const { key } of changes) heard.add(key);
      this.#apply(changes);
    });
    // What the watch brought meanwhile is newer than the list.
    const entries = await this.#store.list(REVOCATIONS);
    this.#apply(entries.filter(({ key }) => !heard.has(key)));
    return this;
  }

  #apply(changes: readonly Pick<Write, 'key' | 'value'>[]): void {
    for (const scope of this.#revocations.apply(changes)) this.emit('revoked', scope);
  }

  /** Commits in parts that every store takes, and does not wait for the watch to bring it back. */
  async #commit(writes: readonly Write[]): Promise<void> {
    for (let at = 0; at < writes.length; at += MAX_WRITES) {
      const part = writes.slice(at, at + MAX_WRITES);
      await this.#store.commit(part);
      this.#apply(part);
    }
  }

  async #delete(keys: readonly string[]): Promise<void> {
    await this.#commit(keys.map((key) => ({ key, value: undefined })));
  }

  #siteIdentity(site: string): GatewayIdentity {
    return { trustDomain: this.trustDomain, role: 'site', site };
  }

  /** Signs, and records together with `guards`; throws StoreConflictError if one does not hold. */
  async #certify(
    publicKey: KeyObject,
    identity: GatewayIdentity,
    guards: readonly Write[],
    lifetimeMs: number = this.#certificateLifetimeMs
  ): Promise<IssuedCertificate> {
    if (identity.trustDomain !== this.trustDomain) {
      throw new CertificateError(
        `this CA is for ${this.trustDomain}, not for ${identity.trustDomain}`
      );
    }
    const spkiHash = spkiHashOf(publicKey);
    if (this.#revocations.hasKey(spkiHash)) {
      throw new CertificateError('the key belongs to a revoked certificate; make a new one');
    }
    const validity = this.#validity(lifetime('lifetimeMs', lifetimeMs));
    const serial = randomSerial();
    const certificatePem = signEndEntity(this.#issuer, publicKey, identity, serial, validity);
    const record: CertificateRecord = {
      serial,
      identity: formatIdentity(identity),
      spkiHash,
      ...validity,
    };
    await this.#store.commit([
      { key: CERTIFICATES + serial, value: record, expect: 0 },
      ...(identity.role === 'site' ? [mustNotExist(siteRevocationKey(identity.site))] : []),
      ...guards,
    ]);
    return {
      certificatePem,
      serial,
      notBefore: new Date(validity.notBeforeMs),
      notAfter: new Date(validity.notAfterMs),
      identity,
    };
  }

  /** Whole seconds, as a certificate keeps them; never longer than the CA's own. */
  #validity(lifetimeMs: number): Validity {
    const nowMs = this.#now();
    const caNotAfterMs = Date.parse(this.#certificate.validTo);
    if (!(nowMs < caNotAfterMs)) {
      throw new CertificateError(`the CA certificate expired at ${this.#certificate.validTo}`);
    }
    return {
      notBeforeMs: wholeSeconds(nowMs - BACKDATE_MS),
      notAfterMs: Math.min(wholeSeconds(nowMs + lifetimeMs), caNotAfterMs),
    };
  }

  async #record(serial: string): Promise<CertificateRecord> {
    const hex = serial.toLowerCase();
    const entry = SERIAL.test(hex) ? await this.#store.get(CERTIFICATES + hex) : undefined;
    if (entry === undefined) throw new CertificateError(`no certificate has serial "${serial}"`);
    return certificateRecord(entry);
  }

  async #revokeAll(
    certificates: readonly CertificateRecord[],
    reason: RevocationReason
  ): Promise<RevocationRecord[]> {
    const revokedAtMs = this.#now();
    const fresh = certificates
      .filter(({ serial }) => this.#revocations.get(serial) === undefined)
      .map((record): RevocationRecord => ({ ...record, revokedAtMs, reason }));
    await this.#commit(
      fresh.map((record) => ({ key: serialRevocationKey(record.serial), value: record }))
    );
    return certificates.map(({ serial }) => this.#revocations.get(serial)!);
  }
}

function certificateRecord(entry: Entry): CertificateRecord {
  return entry.value as CertificateRecord;
}

/** A write that changes nothing, but lets the commit fail if the entry is there. */
function mustNotExist(key: string): Write {
  return { key, value: undefined, expect: 0 };
}

/** What to throw when a commit failed: a conflict is a refusal, all else is as it is. */
function refusedAs(error: unknown, refusal: () => Error): unknown {
  return error instanceof StoreConflictError ? refusal() : error;
}

function siteRevoked(site: string): CertificateError {
  return new CertificateError(`site "${site}" is revoked; reinstate it first`);
}

function serialOf(certificate: X509Certificate): string {
  return certificate.serialNumber.toLowerCase();
}

function lifetime(name: string, ms: number): number {
  if (!(ms >= SECOND_MS && ms <= MAX_LIFETIME_MS)) {
    throw new ApiMisuseError(`${name} must be 1 s to 100 years, in ms, not ${ms}`);
  }
  return ms;
}

function wholeSeconds(ms: number): number {
  return Math.floor(ms / SECOND_MS) * SECOND_MS;
}

const SECOND_MS = 1000;
const HOUR_MS: number = 3600 * SECOND_MS;
const DAY_MS: number = 24 * HOUR_MS;
const MAX_LIFETIME_MS: number = 36_525 * DAY_MS;
/** For gateways whose clock is a little slow. */
const BACKDATE_MS: number = 5 * 60 * SECOND_MS;
const CERTIFICATES = 'certificate/';
const SERIAL = /^[0-9a-f]{1,40}$/;
/** etcd takes 128 operations in a transaction. */
const MAX_WRITES = 100;
