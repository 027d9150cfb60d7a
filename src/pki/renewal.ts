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
import { createSigningRequest } from './signing-request.ts';

export interface CertificateRenewerOptions {
  /** What is in use now. */
  readonly credentials: Credentials;
  /** Has the CA answer a signing request, for example over the control channel. */
  readonly renew: (csrPem: string) => Promise<RenewedCertificate>;
  /**
   * Stores credentials, then puts them to use. What it throws is a failure, and it is tried again.
   * It is never called a second time before the first is done, so it must come to an end.
   */
  readonly apply: (credentials: Credentials) => Promise<void> | void;
  /** Whether each certificate is for a new P-256 key; default true. False keeps the key there is. */
  readonly newKey?: boolean;
  /** How long `renew` may take, in ms; default 30 s. */
  readonly timeoutMs?: number;
  /** Time in ms since 1970, by which certificates hold; default `Date.now`. */
  readonly now?: () => number;
  /** Numbers from 0 to below 1; default `Math.random`. */
  readonly random?: () => number;
  /** Time by which it waits; default `performance.now` and `setTimeout`, which keeps no process alive. */
  readonly timers?: RenewalTimers;
}

export interface RenewalTimers {
  /** Milliseconds from any fixed point; never goes back. */
  now(): number;
  /** Calls once after `delayMs`, unless the function it returns is called before. */
  after(delayMs: number, callback: () => void): () => void;
}

/** `due`: it ought to be renewed, and that is under way or waits to be tried again. */
export type RenewalState = 'valid' | 'due' | 'expired';

export interface RenewalEvents {
  /** A new certificate is in use. */
  renewed: (credentials: Credentials) => void;
  /** A renewal or a trust bundle failed; the next try is in so many ms if nobody asks before. */
  failed: (error: Error, retryInMs: number) => void;
  /** The certificate has run out; once for each. */
  expired: (notAfter: Date) => void;
  state: (state: RenewalState) => void;
}

export class CertificateRenewer extends EventEmitter<RenewalEvents> {
  readonly #renew: CertificateRenewerOptions['renew'];
  readonly #apply: CertificateRenewerOptions['apply'];
  readonly #newKey: boolean;
  readonly #timeoutMs: number;
  readonly #now: () => number;
  readonly #random: () => number;
  readonly #timers: RenewalTimers;
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
  /** When `renewIn` wants a renewal to begin, by the timers' clock. */
  #wantedAtMs: number | undefined;
  /** The bundle told last, until it is in use. */
  #wantedTrust: string | undefined;
  /** How often the credentials were replaced, and a trust bundle was told. */
  #replaced = 0;
  #trusted = 0;
  #cancelTimer: () => void = () => {};
  #isClosed = false;

  /**
   * Begins at once: a certificate that is due already is renewed as soon as the caller is done.
   *
   * @throws {CertificateError} if the credentials cannot be read or do not fit together. That they
   * have run out is no error.
   * @throws {ApiMisuseError} if `timeoutMs` is not positive, or more than an hour.
   */
  constructor(options: CertificateRenewerOptions) {
    super();
    const { timeoutMs = 30_000 } = options;
    if (!(timeoutMs > 0 && timeoutMs <= LONGEST_WAIT_MS)) {
      throw new ApiMisuseError(`timeoutMs must be above 0 and at most an hour, not ${timeoutMs}`);
    }
    this.#renew = options.renew;
    this.#apply = options.apply;
    this.#newKey = options.newKey ?? true;
    this.#timeoutMs = timeoutMs;
    this.#now = options.now ?? Date.now;
    this.#random = options.random ?? Math.random;
    this.#timers = options.timers ?? systemTimers;
    this.#current = this.#read(options.credentials);
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
    return stateOf(this.#current, this.#now());
  }

  /**
   * Renews now, due or not; joins a renewal that is under way. It rejects with what went wrong,
   * which `failed` tells too, and is tried again all the same.
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
   * may be of the CA before; one that begins meanwhile does. What goes wrong is told as `failed`.
   *
   * @throws {ApiMisuseError} if the delay is not 0 ms to an hour.
   */
  renewIn(delayMs: number): void {
    if (!(delayMs >= 0 && delayMs <= LONGEST_WAIT_MS)) {
      throw new ApiMisuseError(`delayMs must be 0 to ${LONGEST_WAIT_MS}, not ${delayMs}`);
    }
    const atMs = this.#timers.now() + delayMs;
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
   * What cannot be applied is told as `failed` too, and tried again until it is, or until a newer bundle
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

  /** Stops; what is under way is forgotten, unless it is being applied. Safe to call twice. */
  close(): void {
    this.#isClosed = true;
    this.#wantedTrust = undefined;
    this.#cancelTimer();
    this.removeAllListeners();
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
      this.emit('failed', error as Error, delayMs);
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
    const granted = usable(answer, readPrivateKey(key), identity, this.#now());
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
        this.emit('failed', error as Error, delayMs);
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
      const cancel = this.#timers.after(this.#timeoutMs, () => {
        reject(new PeerProtocolError(`no certificate within ${this.#timeoutMs} ms`));
      });
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
    const leftMs = notAfterMs - this.#now();
    // Run out: seldom, but by the measure of its lifetime.
    const longestMs = bounded((leftMs > 0 ? leftMs : notAfterMs - notBeforeMs) / 20);
    const wishedMs = leftMs > 0 ? MIN_RETRY_MS * 2 ** retry.failures : longestMs;
    const delayMs = Math.min(wishedMs, longestMs) * (1 - this.#random() / 2);
    retry.failures++;
    retry.atMs = this.#timers.now() + delayMs;
    return delayMs;
  }

  /** Tells what has changed by time, starts what is due, and sets the timer for the next of either. */
  #plan(): void {
    this.#cancelTimer();
    if (this.#isClosed) return;
    const nowMs = this.#now();
    const { dueAtMs, notAfterMs } = this.#current;
    const waits = [dueAtMs - nowMs, notAfterMs - nowMs + 1].filter((ms) => ms > 0);
    if (this.#isTime() || this.#state !== this.state) waits.push(0);
    // It waits for the end of a renewal that is under way.
    const wantedAtMs = this.#underWay === undefined ? this.#wantedAtMs : undefined;
    for (const atMs of [this.#renewalRetry.atMs, this.#trustRetry.atMs, wantedAtMs]) {
      if (atMs !== undefined) waits.push(atMs - this.#timers.now());
    }
    // Clocks are set and machines sleep, so it looks now and then.
    const delayMs = Math.max(0, Math.min(LONGEST_WAIT_MS, ...waits));
    this.#cancelTimer = this.#timers.after(delayMs, () => this.#look());
  }

  #look(): void {
    this.#tellState();
    if (this.#isClosed) return;
    // What goes wrong is told as `failed`.
    const { atMs } = this.#trustRetry;
    if (this.#wantedTrust !== undefined && atMs !== undefined && this.#timers.now() >= atMs) {
      this.#applyTrust(this.#wantedTrust).catch(() => {});
    }
    if (this.#isTime()) this.renewNow().catch(() => {});
    this.#plan();
  }

  #isTime(): boolean {
    if (this.#underWay !== undefined) return false;
    if (this.#wantedAtMs !== undefined && this.#timers.now() >= this.#wantedAtMs) return true;
    const { atMs } = this.#renewalRetry;
    if (atMs !== undefined) return this.#timers.now() >= atMs;
    const nowMs = this.#now();
    return nowMs >= this.#current.dueAtMs || nowMs < this.#current.notBeforeMs;
  }

  #tellState(): void {
    const { state } = this;
    if (state !== this.#state) {
      this.#state = state;
      this.emit('state', state);
    }
    if (state !== 'expired' || this.#hasToldExpiry) return;
    this.#hasToldExpiry = true;
    this.emit('expired', this.notAfter);
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
    const nowMs = this.#now();
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
  /** By the timers' clock; undefined when nothing has failed, or it is being tried again. */
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

const systemTimers: RenewalTimers = {
  now: () => performance.now(),
  after: (delayMs, callback) => {
    const timer = setTimeout(callback, delayMs);
    timer.unref();
    return () => clearTimeout(timer);
  },
};

const MIN_RETRY_MS = 1000;
const MAX_RETRY_MS = 3_600_000;
/** Far below what `setTimeout` can count, 2^31 ms. */
const LONGEST_WAIT_MS = 3_600_000;
