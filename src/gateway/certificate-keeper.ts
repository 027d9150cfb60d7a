/**
 * The one wiring of a `CertificateRenewer`, for both sides: what is renewed is stored, then put to use, and
 * what becomes of it is logged.
 * @module
 */
import type { TrustMessage } from '../control/index.ts';
import {
  CertificateRenewer,
  type CertificateRenewerOptions,
  type Credentials,
  type RenewalState,
} from '../pki/index.ts';

export interface CertificateKeeperOptions
  extends Pick<CertificateRenewerOptions, 'credentials' | 'renew' | 'apply' | 'clock' | 'random'> {
  /** Takes a line for the operator. */
  readonly log: (line: string) => void;
  /** What an operator does about a certificate that has run out. */
  readonly remedy: string;
  /** Called when a new certificate is in use. */
  readonly onRenewed?: () => void;
  /** Called when a renewal has failed, after it was logged. */
  readonly onFailure?: (state: RenewalState) => void;
}

export class CertificateKeeper {
  readonly #renewer: CertificateRenewer;
  readonly #log: (line: string) => void;

  /** @throws {CertificateError} if the credentials cannot be read or do not fit together. */
  constructor({ log, remedy, onRenewed, onFailure, ...options }: CertificateKeeperOptions) {
    this.#log = log;
    this.#renewer = new CertificateRenewer(options);
    this.#renewer.on('renewed', () => onRenewed?.());
    this.#renewer.on('expired', ({ notAfter }) => {
      log(`the certificate ran out on ${notAfter.toISOString()}: ${remedy}`);
    });
    this.#renewer.on('problem', ({ error, retryInMs }) => {
      const seconds = Math.round(retryInMs / 1000);
      log(`certificate not renewed, trying again in ${seconds} s: ${error.message}`);
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
    await this.#renewer.setTrust(caPem).catch((error: Error) => this.#log(error.message));
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
}
