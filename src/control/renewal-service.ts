/**
 * Renews the certificates of connected edges: takes a request from the control channel, asks the authority, and returns
 * the answer. Each site has a limit, which bounds what its requests cost the cloud.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import type { Clock } from '../base/clock.ts';
import { RateLimit } from '../base/rate-limit.ts';
import { CertificateError } from '../errors.ts';
import type { CertificateMessage, RefusalMessage } from './messages.ts';

/** Provides trust anchors and certificates to the control server; it is made of a `CertificateAuthority`. */
export interface TrustProvider {
  /** Returns the current trust anchors as PEM, and whether the holder of this certificate should renew it. */
  trust(certificate: X509Certificate): { readonly caPem: string; readonly renew: boolean };
  /**
   * Issues the next certificate to the holder of this one.
   *
   * @throws {CertificateError} if it refuses; the edge gets the reason.
   */
  renew(
    certificate: X509Certificate,
    csrPem: string
  ): Promise<{ readonly certificatePem: string; readonly caPem: string }>;
}

/** Cumulative counters of all sites. */
export interface RenewalCounters {
  renewed: number;
  /** Requests that were not acceptable, or exceeded the limit of their site. */
  refused: number;
  /** The refused requests that exceeded the limit of their site. */
  limited: number;
  /** Requests that failed because of a fault in the cloud. */
  failed: number;
}

export interface RenewalServiceOptions {
  /** How many renewals one site may have in an hour, and at once. */
  readonly maxRenewalsPerHour: number;
  readonly clock: Clock;
  readonly onFailure: (site: string, error: Error) => void;
}

export class RenewalService {
  readonly counters: RenewalCounters = { renewed: 0, refused: 0, limited: 0, failed: 0 };
  readonly #provider: TrustProvider;
  readonly #perHour: number;
  /** Keyed by site. It is kept when the edge disconnects, so that a new connection does not reset the limit. */
  readonly #rate: RateLimit;
  readonly #clock: Clock;
  readonly #onFailure: RenewalServiceOptions['onFailure'];

  constructor(provider: TrustProvider, options: RenewalServiceOptions) {
    const { maxRenewalsPerHour, clock, onFailure } = options;
    this.#provider = provider;
    this.#perHour = maxRenewalsPerHour;
    // The operator decides how many sites there are, so their number needs no limit here.
    this.#rate = new RateLimit(
      maxRenewalsPerHour / HOUR_SECONDS,
      maxRenewalsPerHour,
      Number.POSITIVE_INFINITY
    );
    this.#clock = clock;
    this.#onFailure = onFailure;
  }

  /** Answers a request; never rejects. */
  async answer(
    site: string,
    certificate: X509Certificate,
    csrPem: string
  ): Promise<CertificateMessage | RefusalMessage> {
    if (!this.#rate.take(site, this.#clock.monotonicMs())) {
      this.counters.limited++;
      return this.#refuse(
        TOO_MANY,
        `${site} renews more often than ${this.#perHour} times an hour`
      );
    }
    try {
      const { certificatePem, caPem } = await this.#provider.renew(certificate, csrPem);
      this.counters.renewed++;
      return { type: 'certificate', certificatePem, caPem };
    } catch (error) {
      if (error instanceof CertificateError) return this.#refuse(error.code, error.message);
      this.counters.failed++;
      this.#onFailure(site, error as Error);
      return { type: 'refusal', code: INTERNAL, message: 'internal error' };
    }
  }

  #refuse(code: string, message: string): RefusalMessage {
    this.counters.refused++;
    return { type: 'refusal', code, message };
  }
}

const HOUR_SECONDS = 3600;
const TOO_MANY = 'ERR_PRESENCE_TOO_MANY';
const INTERNAL = 'ERR_PRESENCE_INTERNAL';
