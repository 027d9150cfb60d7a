/**
 * Brings an edge gateway its first certificate, or one in place of that which does not serve any more: tries one token
 * after the other, and goes on to try.
 * @module
 */

import { backoffDelayMs, DEFAULT_BACKOFF } from '../base/backoff.ts';
import type { Clock } from '../base/clock.ts';
import { CertificateError, EnvironmentError, PresenceError } from '../errors.ts';
import type { Logger } from '../observe/index.ts';
import { type Failure, failureOf } from '../tunnel/index.ts';
import { SiteCredentials, type SiteCredentialsOptions } from './site-credentials.ts';
import type { GivenToken, TokenSource } from './token-source.ts';

export interface FirstEnrolmentOptions {
  readonly credentials: SiteCredentialsOptions;
  readonly tokens: TokenSource;
  /** Puts the certificate to use. */
  readonly begin: (credentials: SiteCredentials) => Promise<void>;
  /** Nothing has come of an attempt; the next one follows. */
  readonly onFailure: (failure: Failure) => void;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Ends it. */
  readonly signal: AbortSignal;
}

export class FirstEnrolment {
  readonly #options: FirstEnrolmentOptions;
  #wake: () => void = () => {};

  constructor(options: FirstEnrolmentOptions) {
    this.#options = options;
    options.signal.addEventListener('abort', () => this.#wake());
  }

  /** Has a token tried, after those that were given before, and before any other. */
  give(token: GivenToken): void {
    this.#options.tokens.offer(token);
    this.#wake();
  }

  /**
   * Tries until a certificate is in use, or `signal` is aborted. Never rejects. Tokens that were given meanwhile are
   * still to be taken from the source then.
   *
   * @param credentials those that there are, which do not serve
   */
  async run(credentials: SiteCredentials | undefined): Promise<void> {
    const { tokens, signal, begin } = this.#options;
    let current = credentials;
    for (let attempt = 0; !signal.aborted; attempt++) {
      const given = tokens.take();
      if (given !== undefined) attempt = 0;
      try {
        current = await this.#fetch(current, given !== undefined);
        if (signal.aborted) return;
        await begin(current);
        tokens.drop();
        tokens.forget();
        given?.resolve();
        return;
      } catch (error) {
        if (signal.aborted) return;
        await this.#onFailed(asPresenceError(error), given, current, attempt);
      }
    }
  }

  async #fetch(
    current: SiteCredentials | undefined,
    isTokenGiven: boolean
  ): Promise<SiteCredentials> {
    const options = this.#options.credentials;
    // An attempt that has failed may have kept some.
    const credentials = current ?? (await SiteCredentials.read(options));
    if (credentials === undefined) return SiteCredentials.open(options);
    if (isTokenGiven || credentials.fault !== undefined) await credentials.enrolAnew();
    return credentials;
  }

  /** Resolves when the next attempt is due. */
  async #onFailed(
    error: PresenceError,
    given: GivenToken | undefined,
    credentials: SiteCredentials | undefined,
    attempt: number
  ): Promise<void> {
    const { tokens, clock, logger, signal, onFailure } = this.#options;
    const failure = failureToEnrol(error, credentials);
    const isPassing = failure.remedy === 'wait';
    if (!isPassing) tokens.drop();
    given?.reject(error);
    // Another token is there: that this one is no good is old news.
    if (tokens.hasOffer) return;
    logger.warn({ err: error }, `not enrolled: ${failure.error.message}`);
    onFailure(failure);
    // What has heard of it may have given a token, or have ended it all.
    if (tokens.hasOffer || signal.aborted) return;
    // The host may let the site in later, have another token, or be able again to keep what there is.
    const delayMs = isPassing ? backoffDelayMs(attempt) : DEFAULT_BACKOFF.maxMs;
    await new Promise<void>((resolve) => {
      const cancel = clock.after(delayMs, resolve);
      this.#wake = () => {
        cancel();
        resolve();
      };
    });
    this.#wake = () => {};
  }
}

/** What fails if there is no certificate that serves; the one that there is, if it is for a token to replace it. */
function failureToEnrol(error: PresenceError, credentials: SiteCredentials | undefined): Failure {
  const failure = failureOf(error);
  const fault = credentials?.fault;
  if (fault === undefined || failure.remedy !== 'token') return failure;
  const kind = credentials!.hasRunOut ? 'certificate-expired' : 'certificate-untrusted';
  const text = `${fault}: enrol with a new token (${error.message})`;
  return { ...failure, kind, error: new CertificateError(text, { cause: error }) };
}

/** What a host's function throws, for example the one that is asked for a token, may be anything. */
function asPresenceError(error: unknown): PresenceError {
  if (error instanceof PresenceError) return error;
  const { message } = error instanceof Error ? error : new Error(String(error));
  return new EnvironmentError(message, { cause: error });
}
