/**
 * `CertificateRenewer` renews the certificate of a gateway before it expires. It decides when to ask for the next one,
 * checks the answer, passes it to `apply`, and tries again if any of these fails. Its owner provides the way to the CA.
 *
 * 1. A certificate is due at two thirds of its lifetime, or earlier by a random part of up to a tenth of the lifetime,
 *    so that edges that enrolled together do not renew together. It is due at once if it is not valid yet, because
 *    then a clock that was fast has issued it.
 * 2. After a failure it waits one second, then twice as long each time, up to a twentieth of the remaining lifetime.
 *    Each wait is shortened at random by up to half.
 * 3. It continues to ask, at long intervals, after the certificate has expired: the cloud may still accept it, or an
 *    operator may provide a token (`replace`).
 * 4. When the CA changes, `renewIn` starts a renewal at a time that the cloud has chosen.
 * 5. A trust bundle that could not be applied is tried again as in 2, until it or a newer one is in use.
 *
 * The present credentials stay in use until new ones have been checked and applied.
 * @module
 */
import type { KeyObject } from 'node:crypto';
import { EventEmitter } from 'eventemitter3';
import type { Clock } from '../base/clock.ts';
import { ApiMisuseError, PeerProtocolError } from '../errors.ts';
import type { Credentials } from './credentials.ts';
import {
  checkGranted,
  formatCertificates,
  type RenewedCertificate,
  readCredentials,
  readTrustBundle,
} from './credentials-check.ts';
import { generateGatewayKey, readPrivateKey } from './keys.ts';
import { type GatewayIdentity, identityOfCertificate } from './names.ts';
import {
  type CertificateRenewerOptions,
  LONGEST_WAIT_MS,
  type RenewalEvents,
  type RenewalState,
  resolveCertificateRenewer,
} from './renewal-options.ts';
import { createSigningRequest } from './signing-request.ts';

/** Renews the certificate of a gateway in time and applies new trust bundles. */
export class CertificateRenewer extends EventEmitter<RenewalEvents> {
  readonly #renew: CertificateRenewerOptions['renew'];
  readonly #apply: CertificateRenewerOptions['apply'];
  readonly #newKey: boolean;
  readonly #timeoutMs: number;
  readonly #random: () => number;
  readonly #clock: Clock;
  #current: Current;
  /** The state that was emitted last. */
  #state: RenewalState = 'valid';
  #hasEmittedExpiry = false;
  #renewal: Promise<void> | undefined;
  /** Settles when nothing is being applied. */
  #applied: Promise<void> = Promise.resolve();
  /** Whether the last `apply` failed, so that the stored credentials may differ from those in use. */
  #isInDoubt = false;
  readonly #renewalRetry: Retry = { failures: 0, atMs: undefined };
  readonly #trustRetry: Retry = { failures: 0, atMs: undefined };
  /** When the renewal asked for by `renewIn` must begin, by the monotonic clock. */
  #wantedAtMs: number | undefined;
  /** The bundle given last to `setTrust`, until it is in use. */
  #wantedTrust: string | undefined;
  /** How often `replace` and `setTrust` were called. */
  #replaceCount = 0;
  #trustCount = 0;
  #cancelTimer: () => void = () => {};
  #isClosed = false;
  #closing: Promise<void> | undefined;

  /**
   * Starts at once: a certificate that is already due is renewed as soon as the caller returns to the event loop.
   *
   * @throws {CertificateError} if the credentials cannot be read or do not belong together. Expired credentials are
   * accepted.
   * @throws {ApiMisuseError} if an option is invalid; the message names it.
   */
  constructor(options: CertificateRenewerOptions) {
    super();
    const settings = resolveCertificateRenewer(options);
    this.#renew = settings.renew;
    this.#apply = settings.apply;
    this.#newKey = settings.newKey;
    this.#timeoutMs = settings.timeoutMs;
    this.#random = settings.random;
    this.#clock = settings.clock;
    this.#current = this.#read(settings.credentials);
    this.#plan();
  }

  /** The credentials in use. */
  get credentials(): Credentials {
    return this.#current.credentials;
  }

  get notAfter(): Date {
    return new Date(this.#current.notAfterMs);
  }

  get state(): RenewalState {
    return stateOf(this.#current, this.#clock.wallMs());
  }

  /**
   * Renews now, whether due or not; returns the promise of a renewal that is in progress. A failure rejects, is emitted
   * as `problem`, and is tried again.
   *
   * @throws {ApiMisuseError} if the renewer is closed.
   */
  renewNow(): Promise<void> {
    if (this.#isClosed) return Promise.reject(new ApiMisuseError('the renewer is closed'));
    if (this.#renewal !== undefined) return this.#renewal;
    this.#renewalRetry.atMs = undefined;
    this.#wantedAtMs = undefined;
    this.#renewal = this.#attempt().finally(() => {
      this.#renewal = undefined;
      this.#plan();
    });
    return this.#renewal;
  }

  /**
   * Starts a renewal after `delayMs` at the latest. A renewal that is already in progress does not count, because the
   * previous CA may answer it; one that begins later does. A failure is emitted as `problem`.
   *
   * @throws {ApiMisuseError} if the delay is not 0 ms to an hour.
   */
  renewIn(delayMs: number): void {
    if (!(delayMs >= 0 && delayMs <= LONGEST_WAIT_MS)) {
      throw new ApiMisuseError(`delayMs must be 0 to ${LONGEST_WAIT_MS}, not ${delayMs}`);
    }
    const atMs = this.#clock.monotonicMs() + delayMs;
    this.#wantedAtMs = Math.min(this.#wantedAtMs ?? atMs, atMs);
    this.#plan();
  }

  /**
   * Continues with other credentials, for example after a new enrolment. The caller has stored them and put them to
   * use. The result of a renewal in progress is ignored.
   *
   * @throws {CertificateError} if the credentials cannot be read or do not belong together.
   */
  replace(credentials: Credentials): void {
    this.#current = this.#read(credentials);
    this.#replaceCount++;
    this.#wantedAtMs = undefined;
    this.#resetRetry();
    this.#settleTrust();
    this.#plan();
  }

  /**
   * Sets a new trust bundle for the same certificate, and applies it unless it is in use already. The certificate need
   * not lead to the bundle: after a CA is retired, a certificate that was not renewed does not.
   *
   * If applying fails, that is also emitted as `problem` and tried again, until it succeeds or a newer bundle arrives
   * through this method, `replace` or a renewal.
   *
   * @throws {CertificateError} if the bundle is empty or has anything other than CA certificates; nothing changes.
   * @throws {ApiMisuseError} if the renewer is closed.
   * @throws the error of the first `apply`; the bundle before stays in use.
   */
  async setTrust(caPem: string): Promise<void> {
    if (this.#isClosed) throw new ApiMisuseError('the renewer is closed');
    const bundle = formatCertificates(readTrustBundle(caPem));
    this.#trustCount++;
    this.#wantedTrust = bundle;
    return this.#applyTrust(bundle);
  }

  /**
   * Stops, and resolves when nothing is being applied any more. The result of any other renewal in progress is ignored.
   * Safe to call twice.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** The same as `close`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#isClosed = true;
    this.#wantedTrust = undefined;
    this.#cancelTimer();
    this.removeAllListeners();
    await this.#applied;
  }

  /** Makes one renewal, from the request until the certificate is in use. */
  async #attempt(): Promise<void> {
    const replaceCount = this.#replaceCount;
    let renewed: Credentials | undefined;
    try {
      renewed = await this.#obtain(replaceCount);
    } catch (error) {
      if (this.#isClosed || replaceCount !== this.#replaceCount) return;
      const delayMs = this.#scheduleRetry(this.#renewalRetry);
      this.emit('problem', { error: error as Error, retryInMs: delayMs });
      throw error;
    }
    if (renewed === undefined) return;
    this.#resetRetry();
    this.emit('renewed', renewed);
  }

  /** Obtains and applies new credentials. Resolves with undefined if `replace` was called in the meantime. */
  async #obtain(replaceCount: number): Promise<Credentials | undefined> {
    const { credentials, identity } = this.#current;
    const trustCount = this.#trustCount;
    const key = this.#newKey ? generateGatewayKey().privateKeyPem : credentials.key;
    const answer = await this.#request(createSigningRequest(key));
    const granted = checked(answer, readPrivateKey(key), identity, this.#clock.wallMs());
    let renewed: Credentials | undefined;
    await this.#exclusively(async () => {
      if (this.#isClosed || replaceCount !== this.#replaceCount) return;
      // `setTrust` is called for every change of the bundle, so a bundle set since the request is no older than the
      // one in the answer.
      const latest = this.#wantedTrust ?? this.credentials.ca;
      const ca = trustCount === this.#trustCount ? granted.caPem : latest;
      const countBefore = this.#trustCount;
      renewed = { key, cert: granted.certificatePem, ca };
      await this.#put(renewed);
      if (replaceCount === this.#replaceCount) {
        this.#current = this.#read(renewed, true);
        if (countBefore === this.#trustCount) this.#settleTrust();
        return;
      }
      renewed = undefined;
      await this.#put(this.credentials);
    });
    return renewed;
  }

  /** Applies the bundle if it is still wanted, and schedules another try if that fails. */
  async #applyTrust(bundle: string): Promise<void> {
    this.#trustRetry.atMs = undefined;
    try {
      await this.#exclusively(async () => {
        if (bundle !== this.#wantedTrust) return;
        const current = this.#current;
        const credentials = { ...current.credentials, ca: bundle };
        const replaceCount = this.#replaceCount;
        if (bundle !== current.credentials.ca || this.#isInDoubt) await this.#put(credentials);
        if (replaceCount !== this.#replaceCount) return this.#put(this.credentials);
        this.#current = { ...current, credentials };
        if (bundle === this.#wantedTrust) this.#settleTrust();
      });
    } catch (error) {
      if (bundle === this.#wantedTrust) {
        const delayMs = this.#scheduleRetry(this.#trustRetry);
        this.#plan();
        this.emit('problem', { error: error as Error, retryInMs: delayMs });
      }
      throw error;
    }
  }

  /** Records that the bundle in use is the newest known. */
  #settleTrust(): void {
    this.#wantedTrust = undefined;
    this.#trustRetry.failures = 0;
    this.#trustRetry.atMs = undefined;
  }

  async #put(credentials: Credentials): Promise<void> {
    this.#isInDoubt = true;
    await this.#apply(credentials);
    this.#isInDoubt = false;
  }

  /** Calls `renew`; rejects if it does not answer in time. */
  #request(csrPem: string): Promise<RenewedCertificate> {
    return new Promise((resolve, reject) => {
      const cancel = this.#clock.after(
        this.#timeoutMs,
        () => reject(new PeerProtocolError(`no certificate within ${this.#timeoutMs} ms`)),
        true
      );
      // The async function turns an error that `renew` throws synchronously into a rejection.
      (async () => this.#renew(csrPem))().then(resolve, reject).finally(cancel);
    });
  }

  /** Calls `run` when all earlier calls have ended. */
  #exclusively(run: () => Promise<void>): Promise<void> {
    const result = this.#applied.then(run);
    this.#applied = result.catch(() => {});
    return result;
  }

  /** Resets what belongs to the certificate before. */
  #resetRetry(): void {
    this.#hasEmittedExpiry = false;
    this.#renewalRetry.failures = 0;
    this.#renewalRetry.atMs = undefined;
  }

  /** Schedules the next try after a failure. @returns the wait in ms. */
  #scheduleRetry(retry: Retry): number {
    const { notBeforeMs, notAfterMs } = this.#current;
    const leftMs = notAfterMs - this.#clock.wallMs();
    // After expiry the wait depends on the whole lifetime.
    const longestMs = bounded((leftMs > 0 ? leftMs : notAfterMs - notBeforeMs) / 20);
    const wishedMs = leftMs > 0 ? MIN_RETRY_MS * 2 ** retry.failures : longestMs;
    const delayMs = Math.min(wishedMs, longestMs) * (1 - this.#random() / 2);
    retry.failures++;
    retry.atMs = this.#clock.monotonicMs() + delayMs;
    return delayMs;
  }

  /** Sets the timer for the next change of state, renewal or retry. */
  #plan(): void {
    this.#cancelTimer();
    if (this.#isClosed) return;
    const nowMs = this.#clock.wallMs();
    const { dueAtMs, notAfterMs } = this.#current;
    const waits = [dueAtMs - nowMs, notAfterMs - nowMs + 1].filter((ms) => ms > 0);
    if (this.#isDue() || this.#state !== this.state) waits.push(0);
    // A renewal in progress must end first.
    const wantedAtMs = this.#renewal === undefined ? this.#wantedAtMs : undefined;
    for (const atMs of [this.#renewalRetry.atMs, this.#trustRetry.atMs, wantedAtMs]) {
      if (atMs !== undefined) waits.push(atMs - this.#clock.monotonicMs());
    }
    // The clock may be set and the machine may sleep, so it checks at least every hour.
    const delayMs = Math.max(0, Math.min(LONGEST_WAIT_MS, ...waits));
    this.#cancelTimer = this.#clock.after(delayMs, () => this.#tick(), true);
  }

  #tick(): void {
    this.#emitState();
    if (this.#isClosed) return;
    // Failures are emitted as `problem`.
    const { atMs } = this.#trustRetry;
    if (
      this.#wantedTrust !== undefined &&
      atMs !== undefined &&
      this.#clock.monotonicMs() >= atMs
    ) {
      this.#applyTrust(this.#wantedTrust).catch(() => {});
    }
    if (this.#isDue()) this.renewNow().catch(() => {});
    this.#plan();
  }

  #isDue(): boolean {
    if (this.#renewal !== undefined) return false;
    if (this.#wantedAtMs !== undefined && this.#clock.monotonicMs() >= this.#wantedAtMs)
      return true;
    const { atMs } = this.#renewalRetry;
    if (atMs !== undefined) return this.#clock.monotonicMs() >= atMs;
    const nowMs = this.#clock.wallMs();
    return nowMs >= this.#current.dueAtMs || nowMs < this.#current.notBeforeMs;
  }

  #emitState(): void {
    const { state } = this;
    if (state !== this.#state) {
      const previous = this.#state;
      this.#state = state;
      this.emit('state', { state, previous });
    }
    if (state !== 'expired' || this.#hasEmittedExpiry) return;
    this.#hasEmittedExpiry = true;
    this.emit('expired', { notAfter: this.notAfter });
  }

  /**
   * @param isNew whether a renewal has just brought the credentials. They are then not due again at once, even if the
   * CA itself expires soon.
   */
  #read(credentials: Credentials, isNew = false): Current {
    const { leaf, chain, anchors } = readCredentials(credentials);
    const notBeforeMs = Date.parse(leaf.validFrom);
    const notAfterMs = Date.parse(leaf.validTo);
    const lifetimeMs = notAfterMs - notBeforeMs;
    const dueAtMs = notBeforeMs + (lifetimeMs * 2) / 3 - (this.#random() * lifetimeMs) / 10;
    const nowMs = this.#clock.wallMs();
    const restMs = Math.max((notAfterMs - nowMs) / 3, bounded(lifetimeMs / 20));
    return {
      credentials: {
        key: credentials.key,
        cert: formatCertificates([leaf, ...chain]),
        ca: formatCertificates(anchors),
      },
      identity: identityOfCertificate(leaf),
      notBeforeMs,
      notAfterMs,
      dueAtMs: isNew ? Math.max(dueAtMs, nowMs + restMs) : dueAtMs,
    };
  }
}

/** Credentials and their validity, in ms since 1970. */
interface Current {
  readonly credentials: Credentials;
  readonly identity: GatewayIdentity;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly dueAtMs: number;
}

/** Failures of a task that is tried again. */
interface Retry {
  failures: number;
  /** The next try, by the monotonic clock; undefined if nothing has failed or a try is in progress. */
  atMs: number | undefined;
}

/** A certificate that is not valid yet is due, because a clock that was fast has issued it. */
function stateOf({ notBeforeMs, dueAtMs, notAfterMs }: Current, nowMs: number): RenewalState {
  if (nowMs > notAfterMs) return 'expired';
  return nowMs >= notBeforeMs && nowMs < dueAtMs ? 'valid' : 'due';
}

/** @throws {PeerProtocolError} if the granted certificate is not usable. */
function checked(
  granted: RenewedCertificate,
  privateKey: KeyObject,
  identity: GatewayIdentity,
  nowMs: number
): RenewedCertificate {
  try {
    return checkGranted(granted, privateKey, identity, nowMs);
  } catch (cause) {
    const reason = (cause as Error).message;
    throw new PeerProtocolError(`the renewed certificate is not usable: ${reason}`, { cause });
  }
}

function bounded(ms: number): number {
  return Math.min(MAX_RETRY_MS, Math.max(MIN_RETRY_MS, ms));
}

const MIN_RETRY_MS = 1000;
const MAX_RETRY_MS = 3_600_000;
