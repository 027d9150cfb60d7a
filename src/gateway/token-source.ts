/**
 * The enrolment tokens of an edge gateway: which one is current, and what redeeming each of them brought. A token can
 * be redeemed once.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { checkText } from '../base/option-check.ts';
import type { ProxyOption } from '../base/proxy.ts';
import { EnrolmentError } from '../errors.ts';
import { type Enrolment, enrol } from '../pki/index.ts';
import { failureOf } from '../tunnel/index.ts';

export interface TokenSourceOptions {
  /** The host program's function, whose promise may never settle. */
  readonly token: (() => string | Promise<string>) | undefined;
  readonly proxy: ProxyOption | undefined;
  readonly clock: Clock;
  /** Rejects every call in progress with its reason. */
  readonly signal: AbortSignal;
}

/** A token that was passed to `EdgeGateway.enrol`, with the promise that the caller waits for. */
export interface GivenToken {
  readonly token: string;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** Tokens that were passed to `enrol` come first, oldest first; then the host program's function is called. */
export class TokenSource {
  /** The tokens that were sent to the cloud by result, cumulative. */
  readonly redemptions: { enrolled: number; refused: number; failed: number } = {
    enrolled: 0,
    refused: 0,
    failed: 0,
  };
  readonly #options: TokenSourceOptions;
  /** Tokens that were passed to `enrol` and not tried yet, oldest first. */
  readonly #given: GivenToken[] = [];
  /** The token that `take` returned last, until `drop`. */
  #taken: string | undefined;
  #cancelRequest: (reason: Error) => void = () => {};
  #isRemembering = true;
  /** The enrolment that the last token brought, in case it could not be stored. */
  #redeemed: { readonly token: string; readonly enrolment: Enrolment } | undefined;
  /** The last token that the cloud refused, and its error. The token is not sent again. */
  #refused: { readonly token: string; readonly error: EnrolmentError } | undefined;

  constructor(options: TokenSourceOptions) {
    this.#options = options;
    options.signal.addEventListener('abort', () => this.#cancelRequest(options.signal.reason));
  }

  /** Adds a token, and stops waiting for the host program's function. */
  offer(given: GivenToken): void {
    this.#given.push(given);
    this.interrupt();
  }

  /** Whether a token was offered and not taken. */
  get hasOffer(): boolean {
    return this.#given.length > 0;
  }

  /** Takes the oldest token that was offered. It is the current token until `drop` is called. */
  take(): GivenToken | undefined {
    const given = this.#given.shift();
    if (given !== undefined) this.#taken = given.token;
    return given;
  }

  /** Forgets the token that was taken, because it is used up or refused: the host program's function is called again. */
  drop(): void {
    this.#taken = undefined;
  }

  /** Rejects a call of `current` for which the host program's function has not returned yet. */
  interrupt(): void {
    this.#cancelRequest(new EnrolmentError('missing', 'another token has come meanwhile'));
  }

  /**
   * Returns the current token.
   *
   * @throws {EnrolmentError} if there is none, or another token was offered during the call.
   * @throws what the host program's function throws.
   */
  current(): Promise<string> {
    return new Promise((resolve, reject) => {
      this.#cancelRequest = reject;
      const { signal } = this.#options;
      if (signal.aborted) reject(signal.reason);
      else if (this.#taken === undefined && this.hasOffer) this.interrupt();
      else this.#requestToken().then(resolve, reject);
    });
  }

  /**
   * Redeems a token. Until `forget` is called, a second call with the same token returns the same enrolment, because
   * storing it may have failed.
   *
   * @throws what `enrol` of the library throws.
   */
  async redeem(token: string): Promise<Enrolment> {
    if (this.#redeemed?.token === token) return this.#redeemed.enrolment;
    if (this.#refused?.token === token) throw this.#refused.error;
    const { proxy, clock, signal } = this.#options;
    try {
      const enrolment = await enrol(token, { proxy, clock, signal });
      this.redemptions.enrolled++;
      if (this.#isRemembering) this.#redeemed = { token, enrolment };
      return enrolment;
    } catch (error) {
      this.redemptions[error instanceof EnrolmentError ? 'refused' : 'failed']++;
      if (error instanceof EnrolmentError && failureOf(error).kind === 'token') {
        this.#refused = { token, error };
      }
      throw error;
    }
  }

  /** Forgets enrolments, now and later: from here on `SiteCredentials` remembers an enrolment that it could not store. */
  forget(): void {
    this.#isRemembering = false;
    this.#redeemed = undefined;
  }

  async #requestToken(): Promise<string> {
    const token = this.#taken ?? (await this.#options.token?.());
    if (token === undefined) {
      throw new EnrolmentError('missing', 'there is no enrolment token: give one to enrol()');
    }
    // An empty text passes: redeeming it fails with the same error as any other malformed token.
    return token === '' ? token : checkText('the token that the option `token` returns', token);
  }
}
