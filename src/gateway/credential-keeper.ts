/**
 * Keeps an edge's certificate valid while there is a tunnel: renews it in time, follows the cloud from one CA to the
 * next, and redeems a new token if the certificate has expired or is no longer trusted.
 * @module
 */
import type { ControlClient } from '../control/index.ts';
import {
  errorFields,
  type LogEvent,
  type LogFields,
  type Logger,
  silentLogger,
} from '../observe/index.ts';
import type { CertificateRenewerOptions, Credentials } from '../pki/index.ts';
import { failureOf, type MtlsTunnel } from '../tunnel/index.ts';
import { CertificateKeeper } from './certificate-keeper.ts';
import type { SiteCredentials } from './site-credentials.ts';

export interface CredentialKeeperOptions
  extends Pick<CertificateRenewerOptions, 'clock' | 'random'> {
  readonly credentials: SiteCredentials;
  readonly control: Pick<ControlClient, 'renew' | 'on'>;
  readonly tunnel: Pick<MtlsTunnel, 'updateCredentials' | 'on'>;
  /** Receives the log lines for an operator. Default: nothing is logged. */
  readonly logger?: Logger | undefined;
}

/** Renews the certificate of an edge, and enrols again when renewal came too late. */
export class CredentialKeeper implements AsyncDisposable {
  /** Renewals by result, cumulative. */
  readonly renewals: { renewed: number; failed: number } = { renewed: 0, failed: 0 };
  readonly #options: CredentialKeeperOptions;
  readonly #logger: Logger;
  readonly #certificate: CertificateKeeper;
  #closing: Promise<void> | undefined;
  /** The attempt in progress, or the last one in the queue behind it. */
  #enrolment: { readonly token: string | undefined; readonly done: Promise<void> } | undefined;
  /** Credentials from a token that the tunnel has not accepted yet. */
  #unapplied: Credentials | undefined;

  constructor(options: CredentialKeeperOptions) {
    const { credentials, control, tunnel, clock, random, logger = silentLogger } = options;
    const { site } = credentials.identity;
    this.#options = options;
    this.#logger = logger;
    this.#certificate = new CertificateKeeper({
      credentials: credentials.credentials,
      renew: (csrPem) => control.renew(csrPem),
      apply: async (renewed) => {
        await credentials.save(renewed);
        await tunnel.updateCredentials(renewed);
        this.#unapplied = undefined;
      },
      logger,
      about: `${site}: `,
      fields: { site },
      remedy: 'enrol with a new token',
      onRenewed: () => {
        this.renewals.renewed++;
        this.#log('certificate_renewed', `certificate renewed, ${this.#certificate.validUntil}`);
      },
      onFailure: (state) => {
        this.renewals.failed++;
        if (state === 'expired') void this.enrolAnew();
      },
      ...(clock && { clock }),
      ...(random && { random }),
    });
    control.on('trust', (trust) => void this.#certificate.follow(trust));
    tunnel.on('refused', ({ code }) => {
      if (failureOf({ by: 'peer', code, reason: '' }).remedy === 'token') void this.enrolAnew();
    });
  }

  /** When the certificate in use expires. */
  get notAfter(): Date {
    return this.#certificate.notAfter;
  }

  /**
   * Tries the current token, and logs the outcome.
   *
   * @returns whether the tunnel has a new certificate.
   */
  enrolAnew(): Promise<boolean> {
    return this.enrol().then(
      () => true,
      () => false
    );
  }

  /**
   * Tries a token. The call joins an attempt in progress; if that one tries another token, this attempt follows it. If
   * an earlier token has brought a certificate that the tunnel could not accept, that certificate is applied again.
   *
   * @param token default: the current token
   * @throws {EnrolmentError} if the token is refused.
   * @throws {PresenceError} for every other error of `SiteCredentials.enrolAnew` or of the tunnel.
   */
  enrol(token?: string): Promise<void> {
    const before = this.#enrolment;
    if (before !== undefined && (token === undefined || token === before.token)) return before.done;
    // The callers that wait for the earlier attempt receive its error.
    const turn = before?.done.catch(() => {}) ?? Promise.resolve();
    const enrolment = {
      token,
      done: turn
        .then(() => this.#enrol(token))
        .finally(() => {
          if (this.#enrolment === enrolment) this.#enrolment = undefined;
        }),
    };
    this.#enrolment = enrolment;
    return enrolment.done;
  }

  /** Stops after the attempt in progress has ended. Safe to call twice. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    await this.#certificate.close();
    await this.#enrolment?.done.catch(() => {});
  }

  async #enrol(token: string | undefined): Promise<void> {
    const { credentials, tunnel } = this.#options;
    try {
      if (this.#unapplied === undefined) {
        const enrolled = await credentials.enrolAnew(token);
        this.#certificate.replace(enrolled);
        this.#log('enrolled_again', `enrolled again, ${this.#certificate.validUntil}`);
        this.#unapplied = enrolled;
      }
      await tunnel.updateCredentials(this.#unapplied);
      this.#unapplied = undefined;
    } catch (error) {
      this.#log(
        'enrolment_failed',
        `not enrolled again: ${(error as Error).message}`,
        errorFields(error)
      );
      throw error;
    }
  }

  #log(event: LogEvent, text: string, fields: LogFields = {}): void {
    const { site } = this.#options.credentials.identity;
    this.#logger.info({ event, site, ...fields }, `${site}: ${text}`);
  }
}
