/**
 * Gets an edge gateway its first certificate, or replaces one that was unusable at the start: tries one token after the
 * other until one succeeds.
 * @module
 */

import { backoffDelayMs, DEFAULT_BACKOFF } from '../base/backoff.ts';
import type { Clock } from '../base/clock.ts';
import { CertificateError, EnvironmentError, PresenceError } from '../errors.ts';
import { errorFields, type Logger } from '../observe/index.ts';
import { type Failure, failureOf } from '../tunnel/index.ts';
import { SiteCredentials, type SiteCredentialsOptions } from './site-credentials.ts';
import type { GivenToken, TokenSource } from './token-source.ts';

export interface FirstEnrolmentOptions {
  readonly credentials: SiteCredentialsOptions;
  readonly tokens: TokenSource;
  /** Begins the session with the certificate. */
  readonly begin: (credentials: SiteCredentials) => Promise<void>;
  /** Called when an attempt has failed, before the next one. */
  readonly onFailure: (failure: Failure) => void;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Ends the attempts. */
  readonly signal: AbortSignal;
}

/** One run of attempts, which ends when the session has begun. */
export class FirstEnrolment {
  readonly #options: FirstEnrolmentOptions;
  #wake: () => void = () => {};

  constructor(options: FirstEnrolmentOptions) {
    this.#options = options;
    options.signal.addEventListener('abort', () => this.#wake());
  }

  /** Adds a token, which is tried after those added earlier, and before the option `token`. */
  give(token: GivenToken): void {
    this.#options.tokens.offer(token);
    this.#wake();
  }

  /**
   * Tries until a certificate is in use, or `signal` is aborted. Never rejects. Afterwards the token source may still
   * hold tokens that were added in the meantime.
   *
   * @param credentials the present credentials, which are not usable
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
    // An attempt that failed may have stored credentials.
    const credentials = current ?? (await SiteCredentials.read(options));
    if (credentials === undefined) return SiteCredentials.open(options);
    if (isTokenGiven || credentials.fault !== undefined) await credentials.enrolAnew();
    return credentials;
  }

  /** Reports a failed attempt, and resolves when the next one is due. */
  async #onFailed(
    error: PresenceError,
    given: GivenToken | undefined,
    credentials: SiteCredentials | undefined,
    attempt: number
  ): Promise<void> {
    const { tokens, clock, logger, signal, onFailure } = this.#options;
    const failure = failureToEnrol(error, credentials);
    const isTemporary = failure.remedy === 'wait';
    if (!isTemporary) tokens.drop();
    given?.reject(error);
    // Another token is waiting, so this failure is not reported.
    if (tokens.hasOffer) return;
    logger.warn(
      { event: 'first_enrolment_failed', ...errorFields(error) },
      `not enrolled: ${failure.error.message}`
    );
    onFailure(failure);
    // A listener may have added a token, or closed the gateway.
    if (tokens.hasOffer || signal.aborted) return;
    // A refusal may be temporary too: the host program may admit the site later, or return another token.
    const delayMs = isTemporary ? backoffDelayMs(attempt) : DEFAULT_BACKOFF.maxMs;
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

/** Returns the failure; if the present certificate is unusable and a token would help, the failure names its fault. */
function failureToEnrol(error: PresenceError, credentials: SiteCredentials | undefined): Failure {
  const failure = failureOf(error);
  const fault = credentials?.fault;
  if (fault === undefined || failure.remedy !== 'token') return failure;
  const kind = credentials!.hasRunOut ? 'certificate-expired' : 'certificate-untrusted';
  const text = `${fault}: enrol with a new token (${error.message})`;
  return { ...failure, kind, error: new CertificateError(text, { cause: error }) };
}

/** Wraps an error of a host program's function, which may be any value. */
function asPresenceError(error: unknown): PresenceError {
  if (error instanceof PresenceError) return error;
  const { message } = error instanceof Error ? error : new Error(String(error));
  return new EnvironmentError(message, { cause: error });
}
