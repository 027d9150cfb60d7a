/**
 * The one wiring of a `CertificateRenewer`, for both sides: what is renewed is stored, then put to use, and
 * what becomes of it is logged.
 * @module
 */
import type { TrustMessage } from '../control/index.ts';
import type { LogFields, Logger } from '../observe/index.ts';
import {
  CertificateRenewer,
  type CertificateRenewerOptions,
  type Credentials,
  type RenewalState,
} from '../pki/index.ts';

export interface CertificateKeeperOptions
  extends Pick<CertificateRenewerOptions, 'credentials' | 'renew' | 'apply' | 'clock' | 'random'> {
  /** Takes the lines for the operator. */
  readonly logger: Logger;
  /** The text before each line, which says whose certificate it is. It ends with a colon and a blank. */
  readonly about: string;
  /** The site, as a field of each line; absent for the cloud. */
  readonly fields?: LogFields;
  /** What an operator does about a certificate that has run out. */
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
      this.#warn(`the certificate ran out on ${notAfter.toISOString()}: ${remedy}`);
    });
    this.#renewer.on('problem', ({ error, retryInMs }) => {
      const seconds = Math.round(retryInMs / 1000);
      this.#warn(`certificate not renewed, trying again in ${seconds} s: ${error.message}`, error);
      onFailure?.(this.#renewer.state);
    });
  }

  /** What is in use. */
  get credentials(): Credentials {
    return this.#renewer.credentials;
  }

  /** For a line of the log. */
  get goodUntil(): string {
    return `good until ${this.#renewer.notAfter.toISOString()}`;
  }

  /** Goes on from credentials that are stored and in use already. */
  replace(credentials: Credentials): void {
    this.#renewer.replace(credentials);
  }

  /** Takes a trust bundle, and renews the certificate when it is told to. */
  async follow({ caPem, renew, renewInMs = 0 }: Omit<TrustMessage, 'type'>): Promise<void> {
    // What fails is told as `problem`, and tried again.
    await this.#renewer.setTrust(caPem).catch((error: Error) => this.#warn(error.message, error));
    if (renew) this.#renewer.renewIn(renewInMs);
  }

  /** Renews now, in a renewal that begins after this call. */
  renew(): void {
    this.#renewer.renewIn(0);
  }

  /** Stops. Safe to call twice. */
  close(): Promise<void> {
    return this.#renewer.close();
  }

  #warn(text: string, err?: Error): void {
    this.#logger.warn({ ...this.#fields, ...(err && { err }) }, `${this.#about}${text}`);
  }
}
