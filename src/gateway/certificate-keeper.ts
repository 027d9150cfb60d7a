/**
 * The wiring of a `CertificateRenewer` that both gateways share: a renewed certificate is stored, then put to use, and
 * the outcome is logged.
 * @module
 */
import type { TrustMessage } from '../control/index.ts';
import { errorFields, type LogEvent, type LogFields, type Logger } from '../observe/index.ts';
import {
  CertificateRenewer,
  type CertificateRenewerOptions,
  type Credentials,
  type RenewalState,
} from '../pki/index.ts';

export interface CertificateKeeperOptions
  extends Pick<CertificateRenewerOptions, 'credentials' | 'renew' | 'apply' | 'clock' | 'random'> {
  /** Receives the log lines for the operator. */
  readonly logger: Logger;
  /** The prefix of each log line, which says whose certificate it is. It ends with a colon and a space. */
  readonly about: string;
  /** The site, as a field of each log line; absent for the cloud. */
  readonly fields?: LogFields;
  /** What an operator does about an expired certificate, for the log. */
  readonly remedy: string;
  /** Called when a new certificate is in use. */
  readonly onRenewed?: () => void;
  /** Called when a renewal has failed, after it was logged. */
  readonly onFailure?: (state: RenewalState) => void;
}

export class CertificateKeeper {
  readonly #renewer: CertificateRenewer;
  readonly #logger: Logger;
  readonly #about: string;
  readonly #fields: LogFields;

  /** @throws {CertificateError} if the credentials cannot be read or do not fit together. */
  constructor(keeperOptions: CertificateKeeperOptions) {
    const { logger, about, fields = {}, remedy, onRenewed, onFailure, ...options } = keeperOptions;
    this.#logger = logger;
    this.#about = about;
    this.#fields = fields;
    this.#renewer = new CertificateRenewer(options);
    this.#renewer.on('renewed', () => onRenewed?.());
    this.#renewer.on('expired', ({ notAfter }) => {
      const text = `the certificate expired on ${notAfter.toISOString()}: ${remedy}`;
      this.#warn('certificate_expired', text);
    });
    this.#renewer.on('problem', ({ error, retryInMs }) => {
      const seconds = Math.round(retryInMs / 1000);
      const text = `certificate not renewed, trying again in ${seconds} s: ${error.message}`;
      this.#warn('certificate_not_renewed', text, error);
      onFailure?.(this.#renewer.state);
    });
  }

  /** The credentials in use. */
  get credentials(): Credentials {
    return this.#renewer.credentials;
  }

  /** The end of the certificate's validity. */
  get notAfter(): Date {
    return this.#renewer.notAfter;
  }

  /** The same for a log line. */
  get validUntil(): string {
    return `valid until ${this.#renewer.notAfter.toISOString()}`;
  }

  /** Continues with credentials that are already stored and in use. */
  replace(credentials: Credentials): void {
    this.#renewer.replace(credentials);
  }

  /** Takes the trust bundle that the cloud sends, and renews the certificate if the message says so. */
  async follow({ caPem, renew, renewInMs = 0 }: Omit<TrustMessage, 'type'>): Promise<void> {
    // The renewer reports a failure as `problem` and tries again.
    await this.#renewer
      .setTrust(caPem)
      .catch((error: Error) => this.#warn('trust_refused', error.message, error));
    if (renew) this.#renewer.renewIn(renewInMs);
  }

  /** Renews now. A renewal that began before this call does not count. */
  renew(): void {
    this.#renewer.renewIn(0);
  }

  /** Stops. Safe to call twice. */
  close(): Promise<void> {
    return this.#renewer.close();
  }

  #warn(event: LogEvent, text: string, error?: Error): void {
    const fields = { event, ...this.#fields, ...(error && errorFields(error)) };
    this.#logger.warn(fields, `${this.#about}${text}`);
  }
}
