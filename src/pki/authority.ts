/**
 * `CertificateAuthority` decides which gateway gets a certificate, and until when. It records its decisions in the
 * store, so it may be restarted, and several gateways may run it with the same key over one store.
 *
 * It returns a certificate only after the commit that records it. That commit fails if the site or the key was
 * revoked or the token was used in the meantime. README.md lists the entries of the store.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import { EventEmitter } from 'eventemitter3';
import type { Clock } from '../base/clock.ts';
import { checkObject } from '../base/option-check.ts';
import { CertificateError, ConflictError, StoreConflictError } from '../errors.ts';
import type { Store } from '../store/store.ts';
import {
  type AuthorityEvents,
  type AuthoritySettings,
  type CertificateAuthorityOptions,
  checkMaterial,
  type IssuedCertificate,
  type IssueOptions,
  type KeepStep,
  type RedeemOptions,
  type Redemption,
  resolveAuthority,
  TOKEN_DEFAULTS,
  type TokenOptions,
} from './authority-options.ts';
import { type AuthorityStatus, statusOf } from './authority-status.ts';
import type { CaMaterial } from './ca.ts';
import { CaRollover, type CaRolloverMaterial, type RolloverState } from './ca-rollover.ts';
import { checkLifetime } from './certificate.ts';
import { Certifier } from './certifier.ts';
import { commitInParts, deletionOf, mustNotExist, refusedAs } from './commits.ts';
import { encryptPrivateKey } from './encrypted-key.ts';
import { spkiHashOfCertificate } from './keys.ts';
import type { Ledgers } from './ledgers.ts';
import type { ListQuery } from './list-query.ts';
import { checkSite, formatIdentity, type GatewayIdentity, identityOfCertificate } from './names.ts';
import {
  type RevocationReason,
  type RevocationScope,
  serialRevocationKey,
  siteRevocationKey,
  spkiRevocationKey,
} from './revocation-index.ts';
import { RevocationLists } from './revocation-list.ts';
import { type RevocationReport, Revocations, serialOf } from './revocations.ts';
import { verifySigningRequest } from './signing-request.ts';
import { formatToken } from './token.ts';
import { type TokenEntry, unknownToken } from './token-ledger.ts';

/**
 * A certificate authority for the gateways of one trust domain.
 *
 * A rollover replaces its CA in three steps, which are those of SPIRE. README.md says what to wait for before each
 * step, and which gateway trusts which CA after it:
 *
 * 1. `prepareCa` adds the next CA's root to the trust bundle
 * 2. `activateCa` lets the next CA sign; every gateway renews (`isCurrent`)
 * 3. `retireCa` removes the previous CA's root from the bundle
 *
 * Processes do not tell each other about these steps: keep the CAs' material where all can read it, call `follow` in the
 * others, and `open` with `next` or `previous` after a restart. Each step takes a function that stores the material
 * first. If that fails, for example because the disk is full, nothing has changed in memory either.
 */
export class CertificateAuthority extends EventEmitter<AuthorityEvents> {
  readonly trustDomain: string;
  /** What is revoked; it follows the store until the authority is closed. */
  readonly revocations: Revocations;

  readonly #rollover: CaRollover;
  readonly #store: Store;
  readonly #ledgers: Ledgers;
  readonly #clock: Clock;
  readonly #certificateLifetimeMs: number;
  readonly #crlLifetimeMs: number;
  readonly #certifier: Certifier;
  readonly #lists: RevocationLists;
  /** Whether a step of a rollover is being stored. */
  #isChanging = false;
  #closing: Promise<void> | undefined;

  private constructor(
    rollover: CaRollover,
    revocations: Revocations,
    lists: RevocationLists,
    settings: AuthoritySettings
  ) {
    super();
    const { trustDomain, store, clock, certificateLifetimeMs, crlLifetimeMs } = settings;
    this.trustDomain = trustDomain;
    this.revocations = revocations;
    this.#rollover = rollover;
    this.#store = store;
    this.#clock = clock;
    this.#ledgers = revocations.ledgers;
    this.#certificateLifetimeMs = certificateLifetimeMs;
    this.#crlLifetimeMs = crlLifetimeMs;
    this.#lists = lists;
    this.#certifier = new Certifier({ trustDomain, rollover, store, revocations, clock });
    revocations.on('revoked', (scope) => this.emit('revoked', scope));
  }

  /**
   * Opens an authority with a CA that `generateCa` has made, or an operator's own. An expired CA can be opened too:
   * it signs no certificates, but a rollover can replace it.
   *
   * @throws {CertificateError} if a certificate is not a CA's or belongs to another key or trust domain, the chain
   * does not lead to a root, the key cannot be read, or the trust domain is not a lower-case DNS name.
   * @throws {ApiMisuseError} if an option is invalid, or both `next` and `previous` are given.
   */
  static async open(options: CertificateAuthorityOptions): Promise<CertificateAuthority> {
    const settings = resolveAuthority(options);
    const { next, previous } = options;
    const rollover = await CaRollover.open(
      { current: options, next, previous },
      settings.trustDomain
    );
    const revocations = await Revocations.open(settings);
    try {
      const lists = await RevocationLists.open(settings.store, settings.crlLifetimeMs);
      return new CertificateAuthority(rollover, revocations, lists, settings);
    } catch (error) {
      await revocations.close();
      throw error;
    }
  }

  /** The chain of the current CA: the signing certificate first, the root last. */
  get certificatePem(): string {
    return this.#rollover.current.intermediatesPem + this.#rollover.current.rootPem;
  }

  /** When the first certificate in the current CA's chain expires; nothing that it has issued outlives that. */
  get notAfter(): Date {
    return new Date(this.#rollover.current.notAfterMs);
  }

  /** The trust anchors: the root of the current CA, and of the next or previous one during a rollover. */
  get trustBundlePem(): string {
    return this.#rollover.trustBundlePem;
  }

  /**
   * The certificates that a gateway presents after its own: the intermediates and, while a rollover is active, the
   * cross certificate (`activateCa`), without the root. It may be empty.
   */
  get chainPem(): string {
    return this.#rollover.chainPem;
  }

  /** SHA-256 of the current root's SubjectPublicKeyInfo, base64url. An enrolment token pins it. */
  get spkiHash(): string {
    return this.#rollover.current.rootId;
  }

  /** The private key of the current CA, PKCS#8, not encrypted. Its holder can impersonate every gateway. */
  get privateKeyPem(): string {
    const { privateKey } = this.#rollover.current.issuer;
    return privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
  }

  /**
   * Returns the same key, encrypted with a passphrase. `open` accepts it.
   *
   * @throws {ApiMisuseError} if the passphrase is empty or has more than 1,023 bytes.
   */
  encryptedPrivateKeyPem(passphrase: string): Promise<string> {
    return encryptPrivateKey(this.privateKeyPem, passphrase);
  }

  /**
   * Issues a certificate to `identity` for the key of a signing request. The rest of the request is ignored.
   *
   * @throws {CertificateError} if the request is not acceptable, its key or the site is revoked, the identity
   * is of another trust domain, or the CA has expired and `evenIfExpired` is not set.
   */
  async issue(
    csrPem: string,
    identity: GatewayIdentity,
    { lifetimeMs = this.#certificateLifetimeMs, evenIfExpired = false }: IssueOptions = {}
  ): Promise<IssuedCertificate> {
    const publicKey = verifySigningRequest(csrPem);
    try {
      return await this.#certifier.certify(publicKey, identity, lifetimeMs, { evenIfExpired });
    } catch (error) {
      throw identity.role === 'site' ? refusedAs(error, () => siteRevoked(identity.site)) : error;
    }
  }

  /**
   * Makes a token with which a site can enrol once.
   *
   * @returns the text to carry to the site; it is a secret.
   * @throws {CertificateError} if the site id is invalid or the site is revoked.
   * @throws {ApiMisuseError} if an endpoint or the lifetime is invalid.
   */
  async createToken(options: TokenOptions): Promise<string> {
    const {
      site,
      endpoints,
      lifetimeMs = TOKEN_DEFAULTS.lifetimeMs,
    } = checkObject('the options of createToken', options);
    checkSite(site);
    checkLifetime('lifetimeMs', lifetimeMs);
    const { tokens } = this.#ledgers;
    const { id, secret, write } = tokens.draft(site, lifetimeMs);
    const { trustDomain, spkiHash: caSpkiHash } = this;
    const text = formatToken({ endpoints, caSpkiHash, trustDomain, site, id, secret });
    try {
      await this.#store.commit([write, mustNotExist(siteRevocationKey(site))]);
    } catch (error) {
      throw refusedAs(error, () => siteRevoked(site));
    }
    await tokens.refresh(id);
    return text;
  }

  /**
   * Returns the tokens that the store has, in the order of their ids; their secrets are not known. Expired tokens are
   * among them until `prune`. Reads memory only: a token that another process has made may come a moment later.
   *
   * @throws {ApiMisuseError} if the query is invalid.
   */
  tokens(query: ListQuery): TokenEntry[] {
    return this.#ledgers.tokens.page(query);
  }

  /**
   * Deletes a token by its id: nobody can enrol with it any more. A certificate that it has brought stays valid.
   *
   * @returns the token as it was; `usedAt` says whether a site has enrolled with it before.
   * @throws {NotFoundError} if there is no such token.
   * @throws {StoreError} if it cannot be deleted.
   */
  deleteToken(id: string): Promise<TokenEntry> {
    return this.#ledgers.tokens.delete(id);
  }

  /**
   * Redeems a token: issues a certificate to the site that the token names. The token stays valid if the request is
   * not acceptable or not authorized.
   *
   * @throws {CertificateError} if the signing request is not acceptable or its key is revoked.
   * @throws {EnrolmentError} with fault `unknown` (also if the secret is wrong or the site has since been
   * revoked), `expired` or `used`.
   * @throws the error with which `authorize` rejects.
   */
  async enrol(
    { tokenId, secret, csrPem }: Redemption,
    { authorize }: RedeemOptions = {}
  ): Promise<IssuedCertificate> {
    const { tokens } = this.#ledgers;
    let { site, write } = await tokens.redeemable(tokenId, secret);
    // The request is read after the token was checked, so that without a valid token it is not parsed at all.
    const publicKey = verifySigningRequest(csrPem);
    if (authorize !== undefined) {
      if (this.isSiteRevoked(site)) throw unknownToken();
      this.#certifier.check(publicKey);
      await authorize(site);
      // The token may have expired or been used in the meantime.
      ({ site, write } = await tokens.redeemable(tokenId, secret));
    }
    try {
      const identity: GatewayIdentity = { trustDomain: this.trustDomain, role: 'site', site };
      return await this.#certifier.certify(publicKey, identity, this.#certificateLifetimeMs, {
        write,
      });
    } catch (error) {
      // Either another process has used the token, which this reports, or the site was revoked.
      if (error instanceof StoreConflictError) await tokens.redeemable(tokenId, secret);
      throw refusedAs(error, unknownToken);
    }
  }

  /**
   * Issues the next certificate to the holder of `current`, which TLS has verified. The key may be the same or a new
   * one. The current, the next or the previous CA may have issued `current`.
   *
   * @throws {CertificateError} if `current` is revoked, expired or issued by another CA, or the request is not
   * acceptable.
   */
  async renew(current: X509Certificate, csrPem: string): Promise<IssuedCertificate> {
    if (!this.hasIssued(current)) {
      throw new CertificateError('the certificate to renew was not issued by this CA');
    }
    const identity = identityOfCertificate(current);
    const refused = () => new CertificateError(`${formatIdentity(identity)} is revoked`);
    if (this.isRevoked(current)) throw refused();
    if (!(this.#clock.wallMs() <= Date.parse(current.validTo))) {
      throw new CertificateError(`the certificate to renew expired at ${current.validTo}`);
    }
    const publicKey = verifySigningRequest(csrPem);
    try {
      return await this.#certifier.certify(publicKey, identity, this.#certificateLifetimeMs, {
        absent: [
          serialRevocationKey(serialOf(current)),
          spkiRevocationKey(spkiHashOfCertificate(current)),
        ],
      });
    } catch (error) {
      throw refusedAs(error, refused);
    }
  }

  /** Whether the current CA has issued the certificate; if not, its holder should renew. */
  isCurrent(certificate: X509Certificate): boolean {
    return this.#rollover.current.hasIssued(certificate);
  }

  /** Whether the current, the next or the previous CA has issued the certificate; it may have expired. */
  hasIssued(certificate: X509Certificate): boolean {
    return this.#rollover.hasIssued(certificate);
  }

  /** Calls `Revocations.revoke`. When it resolves, `isRevoked` is up to date and `revoked` has been emitted. */
  revoke(scope: RevocationScope, reason?: RevocationReason): Promise<RevocationReport> {
    return this.revocations.revoke(scope, reason);
  }

  /** Lets a revoked site enrol again, with a new token and a new key. Its old certificates stay revoked. */
  reinstate(site: string): Promise<void> {
    return this.revocations.reinstate(site);
  }

  /**
   * Tells whether a certificate that chains to this CA is revoked: by its serial number, by its key in any
   * certificate, or with its site. Returns true also for a certificate that names no gateway. Reads memory only.
   */
  isRevoked(certificate: X509Certificate): boolean {
    return this.revocations.isRevoked(certificate);
  }

  /** Whether the site is revoked and not reinstated. */
  isSiteRevoked(site: string): boolean {
    return this.revocations.isSiteRevoked(site);
  }

  /** The step that the rollover has reached. */
  get rollover(): RolloverState {
    return this.#rollover.state;
  }

  /** Returns what the CAs are, and what a rollover waits for. */
  status(): AuthorityStatus {
    return statusOf(this.#rollover, this.revocations, this.#lists.latest);
  }

  /**
   * Prepares the next CA. Its root joins the trust bundle now; it signs nothing yet. If it has the same root, as a new
   * intermediate does, the bundle does not change, and `retireCa` takes no trust away.
   *
   * An encrypted key is read on the event loop. With 600,000 iterations that takes about 0.2 s.
   *
   * @param keep stores the CAs as they are after the step. It is called when all checks have passed and before
   * anything has changed. If it throws, the method throws the same error, nothing has changed, and the step can be
   * repeated. Without it, the step has taken effect when the method returns, even before its promise settles.
   * @throws {ConflictError} if a CA is already prepared, the previous one is not retired, or another step is
   * being stored.
   * @throws {CertificateError} as `open` does; also if the CA has expired or has the current CA's key.
   */
  async prepareCa(next: CaMaterial, keep?: KeepStep): Promise<void> {
    checkMaterial('next.', checkObject('next', next));
    return this.#change(() => this.#rollover.prepare(next, this.#clock.wallMs()), keep);
  }

  /**
   * Makes the prepared CA the current one, which signs from now on. The CA before it stays trusted as the previous one
   * and goes on signing its own CRL.
   *
   * A cross certificate follows new certificates: the new root signed by the old CA, for gateways that trust only the
   * old root (RFC 4210 section 4.4, "NewWithOld"). There is none if a path length forbids it: for CAs by `generateCa`,
   * if either of the two has an intermediate. In that case every gateway must have the new bundle before this step.
   *
   * @param keep as for `prepareCa`
   * @throws {ConflictError} if no CA is prepared, or another step is being stored.
   * @throws {CertificateError} if the prepared CA has expired.
   */
  async activateCa(keep?: KeepStep): Promise<void> {
    return this.#change(() => this.#rollover.activate(this.#clock.wallMs()), keep);
  }

  /**
   * Removes the previous CA. A gateway that has the new bundle refuses its certificates, and its CRL is no longer
   * signed.
   *
   * @param keep as for `prepareCa`
   * @throws {ConflictError} if there is no previous CA, or another step is being stored.
   */
  async retireCa(keep?: KeepStep): Promise<void> {
    return this.#change(() => this.#rollover.retire(), keep);
  }

  /**
   * Puts the CAs into effect that another process has stored, whatever steps led to them. If they are in effect already,
   * nothing happens.
   *
   * @throws {CertificateError} as `open` does; then nothing has changed.
   * @throws {ConflictError} if a step is being stored.
   */
  async follow(cas: CaRolloverMaterial): Promise<void> {
    const rollover = await CaRollover.open(cas, this.trustDomain);
    if (this.#isChanging) throw stepIsStored();
    if (this.#rollover.replace(rollover)) this.emit('trust');
  }

  /** Takes one step of a rollover: checks it, stores it, then puts it into effect. */
  async #change(check: () => () => void, keep: KeepStep | undefined): Promise<void> {
    if (this.#isChanging) throw stepIsStored();
    const putInForce = check();
    if (keep !== undefined) {
      this.#isChanging = true;
      try {
        await keep();
      } finally {
        this.#isChanging = false;
      }
    }
    putInForce();
    this.emit('trust');
  }

  /**
   * Signs a CRL for each CA that has signed certificates: the current CA's, then the previous one's, as PEM texts one
   * after another. Each lists the certificates that its CA has issued, and those from before the store recorded the
   * issuer. An expired certificate stays listed for one more CRL lifetime, so that every CRL user sees it
   * (RFC 5280 section 3.3). CRL numbers increase, also across restarts and the processes on one store.
   */
  crlPem(): string {
    const nowMs = this.#clock.wallMs();
    const listed = this.revocations
      .records()
      .filter(({ notAfterMs }) => nowMs < notAfterMs + this.#crlLifetimeMs);
    return this.#lists.sign(this.#rollover.signers, listed, nowMs);
  }

  /**
   * Removes expired tokens and the records of certificates that have certainly expired from the store. Revocations
   * stay for ever, because a clock that is wrong once would take them back. Call it at the start and every hour: it
   * also stores how long the gateway has run, and a record is removed only when both this time and the clock say that
   * its certificate has expired.
   *
   * @returns how many entries were removed.
   */
  async prune(): Promise<number> {
    const { running, tokens, certificates } = this.#ledgers;
    await running.save();
    const expired = await tokens.expiredKeys();
    expired.push(...(await certificates.expiredKeys()));
    await commitInParts(this.#store, expired.map(deletionOf));
    return expired.length;
  }

  /** Stops following the store, which stays open. Safe to call twice. */
  close(): Promise<void> {
    this.removeAllListeners();
    this.#closing ??= Promise.all([this.#lists.close(), this.revocations.close()]).then(() => {});
    return this.#closing;
  }

  /** The same as `close`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function stepIsStored(): ConflictError {
  return new ConflictError('another step of the change of CA is being stored: wait for it');
}

function siteRevoked(site: string): CertificateError {
  return new CertificateError(`site "${site}" is revoked; reinstate it first`);
}
