/**
 * Where an edge gateway gets its enrolment tokens from, and what becomes of each: they are good once.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { checkText } from '../base/option-check.ts';
import type { ProxyOption } from '../base/proxy.ts';
import { EnrolmentError } from '../errors.ts';
import { type Enrolment, enrol } from '../pki/index.ts';
import { failureOf } from '../tunnel/index.ts';

export interface TokenSourceOptions {
  /** The host's function, which may never answer. */
  readonly token: (() => string | Promise<string>) | undefined;
  readonly proxy: ProxyOption | undefined;
  readonly clock: Clock;
  /** Ends every question and every redemption, with its reason. */
  readonly signal: AbortSignal;
}

/** A token that was given, and who waits for what becomes of it. */
export interface GivenToken {
  readonly token: string;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

export class TokenSource {
  readonly #options: TokenSourceOptions;
  /** Those that are still to be tried, the oldest first. */
  readonly #given: GivenToken[] = [];
  /** The one among those given that is the one that there is now. */
  #current: string | undefined;
  #stopAsking: (reason: Error) => void = () => {};
  #isRemembering = true;
  /** What a token has brought, as long as it is not kept. */
  #brought: { readonly token: string; readonly enrolment: Enrolment } | undefined;
  /** The token that the cloud does not take, and what it has said. It is not shown again. */
  #refused: { readonly token: string; readonly error: EnrolmentError } | undefined;

  constructor(options: TokenSourceOptions) {
    this.#options = options;
    options.signal.addEventListener('abort', () => this.#stopAsking(options.signal.reason));
  }

  /** Keeps a token that is to be tried; the host is not waited for then. */
  offer(given: GivenToken): void {
    this.#given.push(given);
    this.interrupt();
  }

  /** Whether there is one that was offered and not taken. */
  get hasOffer(): boolean {
    return this.#given.length > 0;
  }

  /** Takes the oldest one that was offered. It is the token that there is now, until `drop` is called. */
  take(): GivenToken | undefined {
    const given = this.#given.shift();
    if (given !== undefined) this.#current = given.token;
    return given;
  }

  /** The token that was taken is spent, or no good: the host is asked again. */
  drop(): void {
    this.#current = undefined;
  }

  /** Ends the question that the host has not answered yet. */
  interrupt(): void {
    this.#stopAsking(new EnrolmentError('missing', 'another token has come meanwhile'));
  }

  /**
   * Returns the token that there is now.
   *
   * @throws {EnrolmentError} if there is none.
   * @throws what the host's function throws, and the reason of an interruption.
   */
  ask(): Promise<string> {
    return new Promise((resolve, reject) => {
      this.#stopAsking = reject;
      const { signal } = this.#options;
      if (signal.aborted) reject(signal.reason);
      else if (this.#current === undefined && this.hasOffer) this.interrupt();
      else this.#askNow().then(resolve, reject);
    });
  }

  /**
   * Redeems a token. What it has brought is brought again until `forget` was called: it may not have been kept.
   *
   * @throws what `enrol` of the library throws.
   */
  async redeem(token: string): Promise<Enrolment> {
    if (this.#brought?.token === token) return this.#brought.enrolment;
    if (this.#refused?.token === token) throw this.#refused.error;
    const { proxy, clock, signal } = this.#options;
    try {
      const enrolment = await enrol(token, { proxy, clock, signal });
      if (this.#isRemembering) this.#brought = { token, enrolment };
      return enrolment;
    } catch (error) {
      if (error instanceof EnrolmentError && failureOf(error).kind === 'token') {
        this.#refused = { token, error };
      }
      throw error;
    }
  }

  /** What was brought is kept and in use. From now on `SiteCredentials` remembers what it could not keep. */
  forget(): void {
    this.#isRemembering = false;
    this.#brought = undefined;
  }

  async #askNow(): Promise<string> {
    const token = this.#current ?? (await this.#options.token?.());
    if (token === undefined) {
      throw new EnrolmentError('missing', 'there is no enrolment token: give one to enrol()');
    }
    // That an empty text is no token is for the redemption to say, as of any other text.
    return token === '' ? token : checkText('the token that the option `token` returns', token);
  }
}
