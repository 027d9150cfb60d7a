/**
 * `CertificateAuthority`: decides who gets a certificate, for whom, and until when. It keeps what it
 * decided in the store, so that it may be restarted, or run in several gateways at once over one
 * store with the same key.
 *
 * A certificate is handed out only after the commit that recorded it; and that commit holds only if
 * neither the site nor the key was revoked and the token not used meanwhile. The entries are told in
 * README.md.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import { EventEmitter } from 'eventemitter3';
import type { Clock } from '../base/clock.ts';
import { checkObject } from '../base/option-check.ts';
import { ApiMisuseError, CertificateError, StoreConflictError } from '../errors.ts';
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
import type { CaMaterial } from './ca.ts';
import { CaRollover, type RolloverState } from './ca-rollover.ts';
import { checkLifetime } from './certificate.ts';
import { CertificateLedger } from './certificate-ledger.ts';
import { Certifier } from './certifier.ts';
import { commitInParts, deletionOf, mustNotExist, refusedAs } from './commits.ts';
import { decryptPrivateKey, encryptPrivateKey } from './encrypted-key.ts';
import { spkiHashOfCertificate } from './keys.ts';
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
import { RunningTime } from './running-time.ts';
import { verifySigningRequest } from './signing-request.ts';
import { formatToken } from './token.ts';
import { TokenLedger, unknownToken } from './token-ledger.ts';

/**
 * A certificate authority for the gateways of one trust domain.
 *
 * Its CA is followed by another in the steps of SPIRE's authorities, each of which waits for the gateways
 * (who trusts what after each is told in README.md):
 *
 * 1. `prepareCa`: the next CA's root joins the trust bundle
 * 2. `activateCa`: it signs from now on, and every gateway renews (`isCurrent`)
 * 3. `retireCa`: the previous CA's root leaves the bundle
 *
 * What was decided by one process is not known to others: keep the CAs' material where all find it, call
 * the steps in each, and `open` with `next` or `previous` after a restart. Each step takes a function that
 * stores the material first, so that a full disk leaves the step undone in memory too.
 */
export class CertificateAuthority extends EventEmitter<AuthorityEvents> {
  readonly trustDomain: string;
  /** What is revoked; follows the store as long as the authority does. */
  readonly revocations: Revocations;

  readonly #ring: CaRollover;
  readonly #store: Store;
  readonly #certificates: CertificateLedger;
  readonly #tokens: TokenLedger;
  readonly #clock: Clock;
  readonly #running: RunningTime;
  readonly #certificateLifetimeMs: number;
  readonly #crlLifetimeMs: number;
  readonly #certifier: Certifier;
  readonly #lists: RevocationLists;
  /** A step of a change of CA is being stored. */
  #isChanging = false;

  private constructor(
    ring: CaRollover,
    revocations: Revocations,
    running: RunningTime,
    settings: AuthoritySettings
  ) {
    super();
    const { trustDomain, store, clock, certificateLifetimeMs, crlLifetimeMs } = settings;
    this.trustDomain = trustDomain;
    this.revocations = revocations;
    this.#ring = ring;
    this.#store = store;
    this.#clock = clock;
    this.#running = running;
    this.#certificates = new CertificateLedger(store, clock, running);
    this.#tokens = new TokenLedger(store, clock, running);
    this.#certificateLifetimeMs = certificateLifetimeMs;
    this.#crlLifetimeMs = crlLifetimeMs;
    this.#lists = new RevocationLists(crlLifetimeMs);
    this.#certifier = new Certifier({ trustDomain, ring, store, revocations, clock, running });
    revocations.on('revoked', (scope) => this.emit('revoked', scope));
  }

  /**
   * Takes up a CA: one that `generateCa` has made, or an operator's own. One that has run out is taken up too, so
   * that it can be followed by another, but signs no certificates.
   *
   * @throws {CertificateError} if a certificate is not a CA's, or of another key or trust domain; if the
   * chain does not lead to a root; if the key cannot be read; or if the trust domain is not a lower-case DNS name.
   * @throws {ApiMisuseError} if an option is not what it must be, or both `next` and `previous` are given.
   */
  static async open(options: CertificateAuthorityOptions): Promise<CertificateAuthority> {
    const settings = resolveAuthority(options);
    const [current, next, previous] = await Promise.all([
      decrypted(options),
      options.next && decrypted(options.next),
      options.previous && decrypted(options.previous),
    ]);
    const ring = new CaRollover({ current, next, previous }, settings.trustDomain);
    const running = await RunningTime.open(settings.store, settings.clock);
    const revocations = await Revocations.open(settings);
    return new CertificateAuthority(ring, revocations, running, settings);
  }

  /** Of the CA that signs now: the signing certificate, then upwards, the root last. */
  get certificatePem(): string {
    return this.#ring.current.intermediatesPem + this.#ring.current.rootPem;
  }

  /** When the CA that signs now runs out, with the first certificate of its chain, and all that it has issued. */
  get notAfter(): Date {
    return new Date(this.#ring.current.notAfterMs);
  }

  /** The trust anchors in force: the roots of the current CA and of the next or previous one. */
  get trustBundlePem(): string {
    return this.#ring.trustBundlePem;
  }

  /**
   * What goes behind a gateway's certificate: the intermediates, and while a rollover is active the cross
   * certificate (`activateCa`); no root. Empty if there is nothing.
   */
  get chainPem(): string {
    return this.#ring.chainPem;
  }

  /** SHA-256 of the SubjectPublicKeyInfo of the current root, base64url: what an enrolment token pins. */
  get spkiHash(): string {
    return this.#ring.current.rootId;
  }

  /** The private key of the CA that signs now, PKCS#8, not encrypted. Whoever reads it can be anyone. */
  get privateKeyPem(): string {
    const { privateKey } = this.#ring.current.issuer;
    return privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
  }

  /**
   * The same key under a passphrase, for `open`.
   *
   * @throws {ApiMisuseError} if the passphrase is empty or has more than 1,023 bytes.
   */
  encryptedPrivateKeyPem(passphrase: string): Promise<string> {
    return encryptPrivateKey(this.privateKeyPem, passphrase);
  }

  /**
   * Issues a certificate to `identity` for the key of a signing request, whatever else it asks for.
   *
   * @throws {CertificateError} if the request is not acceptable, its key or the site is revoked, the identity
   * is not of this trust domain, or the CA has run out and `evenIfExpired` is not set.
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
   * @throws {CertificateError} if the site id is not one, or the site is revoked.
   * @throws {ApiMisuseError} if an endpoint or the lifetime is not usable.
   */
  async createToken(options: TokenOptions): Promise<string> {
    const {
      site,
      endpoints,
      lifetimeMs = TOKEN_DEFAULTS.lifetimeMs,
    } = checkObject('the options of createToken', options);
    checkSite(site);
    checkLifetime('lifetimeMs', lifetimeMs);
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
   * acceptable, or is not authorized, leaves the token as it was.
   *
   * @throws {CertificateError} if the signing request is not acceptable, or its key is revoked.
   * @throws {EnrolmentError} with fault `unknown` (also for a wrong secret, and when the site has
   * been revoked since), `expired` or `used`.
   * @throws what `authorize` rejects with.
   */
  async enrol(
    { tokenId, secret, csrPem }: Redemption,
    { authorize }: RedeemOptions = {}
  ): Promise<IssuedCertificate> {
    let { site, write } = await this.#tokens.redeemable(tokenId, secret);
    // Behind the token: what an unauthenticated peer sends is not even looked at.
    const publicKey = verifySigningRequest(csrPem);
    if (authorize !== undefined) {
      if (this.isSiteRevoked(site)) throw unknownToken();
      this.#certifier.check(publicKey);
      await authorize(site);
      // The token may have expired or been used meanwhile.
      ({ site, write } = await this.#tokens.redeemable(tokenId, secret));
    }
    try {
      const identity: GatewayIdentity = { trustDomain: this.trustDomain, role: 'site', site };
      return await this.#certifier.certify(publicKey, identity, this.#certificateLifetimeMs, {
        write,
      });
    } catch (error) {
      // Another was quicker with the token, or the site was revoked; say which.
      if (error instanceof StoreConflictError) await this.#tokens.redeemable(tokenId, secret);
      throw refusedAs(error, unknownToken);
    }
  }

  /**
   * Issues the next certificate to the holder of `current`, which TLS has verified. The key may be
   * the same or a new one; `current` may be of the current CA, the next or the previous one.
   *
   * @throws {CertificateError} if `current` is revoked, expired or not ours, or the request is not
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

  /** Whether the CA that signs now has issued it; else its holder ought to renew. */
  isCurrent(certificate: X509Certificate): boolean {
    return this.#ring.current.hasIssued(certificate);
  }

  /** Whether the current, the next or the previous CA has issued it, whether it holds or not. */
  hasIssued(certificate: X509Certificate): boolean {
    return this.#ring.hasIssued(certificate);
  }

  /** `Revocations.revoke`. When it resolves, `isRevoked` knows and `revoked` has been emitted. */
  revoke(scope: RevocationScope, reason?: RevocationReason): Promise<RevocationReport> {
    return this.revocations.revoke(scope, reason);
  }

  /** Lets a revoked site enrol again, with a new token and a new key; what was revoked stays so. */
  reinstate(site: string): Promise<void> {
    return this.revocations.reinstate(site);
  }

  /**
   * Tells whether a certificate that chains to this CA is revoked: by its serial number, by its key
   * under any certificate, or with its whole site. Also true if it does not name a gateway.
   * Asks memory only.
   */
  isRevoked(certificate: X509Certificate): boolean {
    return this.revocations.isRevoked(certificate);
  }

  /** Whether the site is revoked and not reinstated. */
  isSiteRevoked(site: string): boolean {
    return this.revocations.isSiteRevoked(site);
  }

  /** How far the change to another CA has come. */
  get rollover(): RolloverState {
    return this.#ring.rollover;
  }

  /**
   * Takes in the CA that is to follow. Its root is in the trust bundle from now on; it signs nothing yet.
   * With the same root, for a new intermediate, the bundle stays as it is, and `retireCa` takes nobody's
   * trust away.
   *
   * A key that is encrypted is read on the event loop, where a passphrase that is stretched as it should be
   * takes about 0.2 s.
   *
   * @param keep stores what the step changes. It is called when the step cannot fail any more, before
   * anything has changed. What it throws is thrown on, nothing has changed then, and the step can be repeated.
   * Without it, the step is in force when the method returns, before its promise is looked at.
   * @throws {ApiMisuseError} if one is prepared already, the previous one is not retired, or another step is
   * being stored.
   * @throws {CertificateError} as `open`; also if it has run out, or signs with the current one's key.
   */
  async prepareCa(next: CaMaterial, keep?: KeepStep): Promise<void> {
    checkMaterial('next.', checkObject('next', next));
    return this.#change(() => this.#ring.prepare(next, this.#clock.wallMs()), keep);
  }

  /**
   * Lets the prepared CA sign from now on. The current one stays trusted, as the previous one, and signs
   * its own CRL.
   *
   * Behind new certificates goes a cross certificate, the new root signed by the old CA, for those who
   * trust the old root alone (RFC 4210 section 4.4, "NewWithOld"). It is left out where a path length
   * forbids it: of CAs by `generateCa`, where either of the two has an intermediate. Then every gateway
   * must have heard of the new bundle before.
   *
   * @param keep as of `prepareCa`
   * @throws {ApiMisuseError} if none is prepared, or another step is being stored.
   * @throws {CertificateError} if it has run out.
   */
  async activateCa(keep?: KeepStep): Promise<void> {
    return this.#change(() => this.#ring.activate(this.#clock.wallMs()), keep);
  }

  /**
   * Lets go of the previous CA. Who takes the new bundle refuses certificates of it, and its CRL is
   * signed no more.
   *
   * @param keep as of `prepareCa`
   * @throws {ApiMisuseError} if there is none, or another step is being stored.
   */
  async retireCa(keep?: KeepStep): Promise<void> {
    return this.#change(() => this.#ring.retire(), keep);
  }

  /** One step of a change of CA: checked, then stored, then in force. */
  async #change(check: () => () => void, keep: KeepStep | undefined): Promise<void> {
    if (this.#isChanging) {
      throw new ApiMisuseError('another step of the change of CA is being stored: wait for it');
    }
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
   * Signs a CRL as of now for each CA that has signed certificates and whose key is here, PEM texts one
   * after the other: the current one's, then the previous one's. Each lists what that CA has issued, and
   * what was issued before the store kept the issuer. A certificate that has run out is listed for one CRL's
   * lifetime more, so that every CRL user has seen it (RFC 5280 section 3.3). Each has a higher number than
   * the one before, across restarts too, unless the clock was set back meanwhile.
   */
  crlPem(): string {
    const nowMs = this.#clock.wallMs();
    const listed = this.revocations
      .records()
      .filter(({ notAfterMs }) => nowMs < notAfterMs + this.#crlLifetimeMs);
    return this.#lists.sign(this.#ring.signers, listed, nowMs);
  }

  /**
   * Removes from the store what has lost its meaning by time: expired tokens, and the records of certificates
   * that have certainly run out. Revocations stay for ever, for a clock that is wrong once would take them
   * back. Call it at the start and every hour: it also stores for how long the gateway has run, and a record
   * goes only when both that and the clock say that its certificate has run out.
   *
   * @returns how many entries went.
   */
  async prune(): Promise<number> {
    await this.#running.save();
    const expired = await this.#tokens.expiredKeys();
    expired.push(...(await this.#certificates.expiredKeys()));
    await commitInParts(this.#store, expired.map(deletionOf));
    return expired.length;
  }

  /** Stops following the store, which stays open. Safe to call twice. */
  close(): Promise<void> {
    this.removeAllListeners();
    return this.revocations.close();
  }

  /** The same as `close`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** The same without a passphrase. */
async function decrypted({
  certificatePem,
  privateKeyPem,
  passphrase,
}: CaMaterial): Promise<CaMaterial> {
  return { certificatePem, privateKeyPem: await decryptPrivateKey(privateKeyPem, passphrase) };
}

function siteRevoked(site: string): CertificateError {
  return new CertificateError(`site "${site}" is revoked; reinstate it first`);
}
