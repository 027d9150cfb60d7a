/**
 * Where an edge gateway gets its enrolment tokens from, and what becomes of each: they are good once.
 * @module
 */
import type { Clock } from '../clock.ts';
import { EnrolmentError } from '../errors.ts';
import { checkText } from '../option-check.ts';
import { type Enrolment, enrol } from '../pki/index.ts';
import type { ProxyOption } from '../proxy.ts';
import { failureOf } from '../tunnel/index.ts';

export interface TokenSourceOptions {
  /** The host's function, which may never answer. */
  readonly token: (() => string | Promise<string>) | undefined;
  readonly proxy: ProxyOption | undefined;
  readonly clock: Clock;
  /** Ends every question and every redemption, with its reason. */
  readonly signal: AbortSignal;
}

export class TokenSource {
  readonly #options: TokenSourceOptions;
  #given: string | undefined;
  #stopAsking: (reason: Error) => void = () => {};
  #isRemembering = true;
  /** What a token has brought, as long as it is not kept. */
  #brought: { readonly token: string; readonly enrolment: Enrolment } | undefined;
  /** The token that the cloud does not take, and what it has said. It is not shown again. */
  #refused: { readonly token: string; readonly error: EnrolmentError } | undefined;

  constructor(options: TokenSourceOptions) {
    this.#options = options;
    options.signal.addEventListener('abort', () => this.interrupt(options.signal.reason));
  }

  /** From now on this one is the one that there is, until it is undefined again. */
  give(token: string | undefined): void {
    this.#given = token;
  }

  /** Ends the question that the host has not answered yet. */
  interrupt(reason: Error): void {
    this.#stopAsking(reason);
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
      else this.#current().then(resolve, reject);
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

  async #current(): Promise<string> {
    const token = this.#given ?? (await this.#options.token?.());
    if (token === undefined) {
      throw new EnrolmentError('missing', 'there is no enrolment token: give one to enrol()');
    }
    return checkText('the token that the option `token` returns', token);
  }
}
