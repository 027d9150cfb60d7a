/**
 * `CertificateRenewer`: keeps the certificate of a gateway from running out. It decides when to ask
 * for the next one, checks what comes, hands it over to be stored and used, and tries again when
 * any of that fails. How the question reaches the CA is its owner's matter.
 *
 * 1. It is due at two thirds of its lifetime, or up to a tenth of the lifetime sooner, by chance: a
 *    thousand edges that enrolled together do not renew together. It is due at once if it is not valid yet,
 *    as after an issue by a clock that was fast.
 * 2. After a failure it waits a second, then twice as long each time, up to a twentieth of what is
 *    left; again with some chance in it.
 * 3. When the certificate has run out it goes on asking, seldom: the cloud may be lenient, or an
 *    operator brings a token (`replace`).
 * 4. When the CA changes, `renewIn` has it renewed at the time that its cloud has chosen.
 * 5. A trust bundle that could not be applied is kept and tried again by the rule of 2, until it, or
 *    one that is newer, is in use.
 *
 * What is in use stays so until what is new has been checked and applied.
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

export class CertificateRenewer extends EventEmitter<RenewalEvents> {
  readonly #renew: CertificateRenewerOptions['renew'];
  readonly #apply: CertificateRenewerOptions['apply'];
  readonly #newKey: boolean;
  readonly #timeoutMs: number;
  readonly #random: () => number;
  readonly #clock: Clock;
  #current: Current;
  /** As it was told last. */
  #state: RenewalState = 'valid';
  #hasToldExpiry = false;
  #underWay: Promise<void> | undefined;
  /** Settles when nothing is being applied. */
  #applied: Promise<void> = Promise.resolve();
  /** What was applied last failed: what is stored may be other than what is in use. */
  #isInDoubt = false;
  readonly #renewalRetry: Retry = { failures: 0, atMs: undefined };
  readonly #trustRetry: Retry = { failures: 0, atMs: undefined };
  /** When `renewIn` wants a renewal to begin, by the monotonic clock. */
  #wantedAtMs: number | undefined;
  /** The bundle told last, until it is in use. */
  #wantedTrust: string | undefined;
  /** How often the credentials were replaced, and a trust bundle was told. */
  #replaced = 0;
  #trusted = 0;
  #cancelTimer: () => void = () => {};
  #isClosed = false;
  #closing: Promise<void> | undefined;

  /**
   * Begins at once: a certificate that is due already is renewed as soon as the caller is done.
   *
   * @throws {CertificateError} if the credentials cannot be read or do not fit together. That they
   * have run out is no error.
   * @throws {ApiMisuseError} if an option is not what it must be; the message names it.
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

  /** What is in use. */
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
   * Renews now, due or not; joins a renewal that is under way. It rejects with what went wrong,
   * which `problem` tells too, and is tried again all the same.
   *
   * @throws {ApiMisuseError} if it is closed.
   */
  renewNow(): Promise<void> {
    if (this.#isClosed) return Promise.reject(new ApiMisuseError('the renewer is closed'));
    if (this.#underWay !== undefined) return this.#underWay;
    this.#renewalRetry.atMs = undefined;
    this.#wantedAtMs = undefined;
    this.#underWay = this.#attempt().finally(() => {
      this.#underWay = undefined;
      this.#plan();
    });
    return this.#underWay;
  }

  /**
   * Has a renewal begin after `delayMs` at the latest. One that is under way already does not count, for it
   * may be of the CA before; one that begins meanwhile does. What goes wrong is told as `problem`.
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
   * Goes on from other credentials, as after an enrolment anew; the caller has stored them and put
   * them to use. A renewal under way is forgotten.
   *
   * @throws {CertificateError} if they cannot be read or do not fit together.
   */
  replace(credentials: Credentials): void {
    this.#current = this.#read(credentials);
    this.#replaced++;
    this.#wantedAtMs = undefined;
    this.#begin();
    this.#settleTrust();
    this.#plan();
  }

  /**
   * Takes a new trust bundle for the same certificate, and applies it unless it is the same. The
   * certificate itself need not lead to it: when a CA is retired, one that has not been renewed does
   * not, and the bundle is about whom this gateway trusts.
   *
   * What cannot be applied is told as `problem` too, and tried again until it is, or until a newer bundle
   * comes: by this call, by `replace`, or with a renewal. So a renewal that is wanted besides may be
   * asked for whether or not this rejects.
   *
   * @throws {CertificateError} if it is empty or has anything but CA certificates; nothing changes.
   * @throws {ApiMisuseError} if it is closed.
   * @throws what `apply` throws the first time; the bundle before stays in use meanwhile.
   */
  async setTrust(caPem: string): Promise<void> {
    if (this.#isClosed) throw new ApiMisuseError('the renewer is closed');
    const bundle = formatCertificates(readTrustBundle(caPem));
    this.#trusted++;
    this.#wantedTrust = bundle;
    return this.#applyTrust(bundle);
  }

  /**
   * Stops, and resolves when nothing is being applied any more. Any other renewal that is under way is forgotten. Safe
   * to call twice.
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

  /** One renewal, from request to use. */
  async #attempt(): Promise<void> {
    const replaced = this.#replaced;
    let renewed: Credentials | undefined;
    try {
      renewed = await this.#obtain(replaced);
    } catch (error) {
      if (this.#isClosed || replaced !== this.#replaced) return;
      const delayMs = this.#failed(this.#renewalRetry);
      this.emit('problem', { error: error as Error, retryInMs: delayMs });
      throw error;
    }
    if (renewed === undefined) return;
    this.#begin();
    this.emit('renewed', renewed);
  }

  /** Resolves with undefined when other credentials have come in the meantime. */
  async #obtain(replaced: number): Promise<Credentials | undefined> {
    const { credentials, identity } = this.#current;
    const trusted = this.#trusted;
    const key = this.#newKey ? generateGatewayKey().privateKeyPem : credentials.key;
    const answer = await this.#answer(createSigningRequest(key));
    const granted = usable(answer, readPrivateKey(key), identity, this.#clock.wallMs());
    let renewed: Credentials | undefined;
    await this.#exclusively(async () => {
      if (this.#isClosed || replaced !== this.#replaced) return;
      // Every change of the bundle is told, so one that was told since is no older than the answer's.
      const told = this.#wantedTrust ?? this.credentials.ca;
      const ca = trusted === this.#trusted ? granted.caPem : told;
      const trustedNow = this.#trusted;
      renewed = { key, cert: granted.certificatePem, ca };
      await this.#put(renewed);
      if (replaced === this.#replaced) {
        this.#current = this.#read(renewed, true);
        if (trustedNow === this.#trusted) this.#settleTrust();
        return;
      }
      renewed = undefined;
      await this.#put(this.credentials);
    });
    return renewed;
  }

  /** Applies the bundle unless it is not wanted any more; when that fails, it is tried again. */
  async #applyTrust(bundle: string): Promise<void> {
    this.#trustRetry.atMs = undefined;
    try {
      await this.#exclusively(async () => {
        if (bundle !== this.#wantedTrust) return;
        const current = this.#current;
        const credentials = { ...current.credentials, ca: bundle };
        const replaced = this.#replaced;
        if (bundle !== current.credentials.ca || this.#isInDoubt) await this.#put(credentials);
        if (replaced !== this.#replaced) return this.#put(this.credentials);
        this.#current = { ...current, credentials };
        if (bundle === this.#wantedTrust) this.#settleTrust();
      });
    } catch (error) {
      if (bundle === this.#wantedTrust) {
        const delayMs = this.#failed(this.#trustRetry);
        this.#plan();
        this.emit('problem', { error: error as Error, retryInMs: delayMs });
      }
      throw error;
    }
  }

  /** The bundle in use is the newest that is known. */
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

  /** What `renew` says, or that it says nothing for too long. */
  #answer(csrPem: string): Promise<RenewedCertificate> {
    return new Promise((resolve, reject) => {
      const cancel = this.#clock.after(
        this.#timeoutMs,
        () => reject(new PeerProtocolError(`no certificate within ${this.#timeoutMs} ms`)),
        true
      );
      // A throw before there is a promise is a failure like any other.
      (async () => this.#renew(csrPem))().then(resolve, reject).finally(cancel);
    });
  }

  /** Runs when everything before it is done. */
  #exclusively(run: () => Promise<void>): Promise<void> {
    const result = this.#applied.then(run);
    this.#applied = result.catch(() => {});
    return result;
  }

  /** There is another certificate. */
  #begin(): void {
    this.#hasToldExpiry = false;
    this.#renewalRetry.failures = 0;
    this.#renewalRetry.atMs = undefined;
  }

  /** Returns after how many ms it is tried again. */
  #failed(retry: Retry): number {
    const { notBeforeMs, notAfterMs } = this.#current;
    const leftMs = notAfterMs - this.#clock.wallMs();
    // Run out: seldom, but by the measure of its lifetime.
    const longestMs = bounded((leftMs > 0 ? leftMs : notAfterMs - notBeforeMs) / 20);
    const wishedMs = leftMs > 0 ? MIN_RETRY_MS * 2 ** retry.failures : longestMs;
    const delayMs = Math.min(wishedMs, longestMs) * (1 - this.#random() / 2);
    retry.failures++;
    retry.atMs = this.#clock.monotonicMs() + delayMs;
    return delayMs;
  }

  /** Tells what has changed by time, starts what is due, and sets the timer for the next of either. */
  #plan(): void {
    this.#cancelTimer();
    if (this.#isClosed) return;
    const nowMs = this.#clock.wallMs();
    const { dueAtMs, notAfterMs } = this.#current;
    const waits = [dueAtMs - nowMs, notAfterMs - nowMs + 1].filter((ms) => ms > 0);
    if (this.#isTime() || this.#state !== this.state) waits.push(0);
    // It waits for the end of a renewal that is under way.
    const wantedAtMs = this.#underWay === undefined ? this.#wantedAtMs : undefined;
    for (const atMs of [this.#renewalRetry.atMs, this.#trustRetry.atMs, wantedAtMs]) {
      if (atMs !== undefined) waits.push(atMs - this.#clock.monotonicMs());
    }
    // Clocks are set and machines sleep, so it looks now and then.
    const delayMs = Math.max(0, Math.min(LONGEST_WAIT_MS, ...waits));
    this.#cancelTimer = this.#clock.after(delayMs, () => this.#look(), true);
  }

  #look(): void {
    this.#tellState();
    if (this.#isClosed) return;
    // What goes wrong is told as `problem`.
    const { atMs } = this.#trustRetry;
    if (
      this.#wantedTrust !== undefined &&
      atMs !== undefined &&
      this.#clock.monotonicMs() >= atMs
    ) {
      this.#applyTrust(this.#wantedTrust).catch(() => {});
    }
    if (this.#isTime()) this.renewNow().catch(() => {});
    this.#plan();
  }

  #isTime(): boolean {
    if (this.#underWay !== undefined) return false;
    if (this.#wantedAtMs !== undefined && this.#clock.monotonicMs() >= this.#wantedAtMs)
      return true;
    const { atMs } = this.#renewalRetry;
    if (atMs !== undefined) return this.#clock.monotonicMs() >= atMs;
    const nowMs = this.#clock.wallMs();
    return nowMs >= this.#current.dueAtMs || nowMs < this.#current.notBeforeMs;
  }

  #tellState(): void {
    const { state } = this;
    if (state !== this.#state) {
      const previous = this.#state;
      this.#state = state;
      this.emit('state', { state, previous });
    }
    if (state !== 'expired' || this.#hasToldExpiry) return;
    this.#hasToldExpiry = true;
    this.emit('expired', { notAfter: this.notAfter });
  }

  /**
   * @param isNew came by renewal just now: it is not due again at once, however little time the CA
   * had left to give.
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

/** Credentials, and what they say about time; ms since 1970. */
interface Current {
  readonly credentials: Credentials;
  readonly identity: GatewayIdentity;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly dueAtMs: number;
}

/** What failed and is to be tried again. */
interface Retry {
  failures: number;
  /** By the monotonic clock; undefined when nothing has failed, or it is being tried again. */
  atMs: number | undefined;
}

/** A certificate that is not valid yet is due: the clock by which it was issued was fast. */
function stateOf({ notBeforeMs, dueAtMs, notAfterMs }: Current, nowMs: number): RenewalState {
  if (nowMs > notAfterMs) return 'expired';
  return nowMs >= notBeforeMs && nowMs < dueAtMs ? 'valid' : 'due';
}

/** @throws {PeerProtocolError} if what was granted is not to be used. */
function usable(
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
