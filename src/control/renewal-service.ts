/**
 * Where connected edges renew their certificates: hears the request on the control channel, asks the
 * authority, and says yes or no. What it costs a cloud that an edge asks is bounded by site.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import type { Clock } from '../base/clock.ts';
import { RateLimit } from '../base/rate-limit.ts';
import { CertificateError } from '../errors.ts';
import type { CertificateMessage, RefusalMessage } from './messages.ts';

/** What the exchange needs to know about certificates; made of a `CertificateAuthority`. */
export interface TrustProvider {
  /** The trust anchors of now as PEM, and whether the holder of this certificate ought to renew it. */
  trust(certificate: X509Certificate): { readonly caPem: string; readonly renew: boolean };
  /**
   * Issues the next certificate to the holder of this one.
   *
   * @throws {CertificateError} if that is not to be: it is told to the edge.
   */
  renew(
    certificate: X509Certificate,
    csrPem: string
  ): Promise<{ readonly certificatePem: string; readonly caPem: string }>;
}

/** Cumulative, of all sites. */
export interface RenewalCounters {
  renewed: number;
  /** Not acceptable, or one too many. */
  refused: number;
  /** Of these, those that were one too many. */
  limited: number;
  /** By a fault of ours. */
  failed: number;
}

export interface RenewalServiceOptions {
  /** Renewals that one site may have in an hour, and how many of them at once. */
  readonly maxRenewalsPerHour: number;
  readonly clock: Clock;
  readonly onFailure: (site: string, error: Error) => void;
}

export class RenewalService {
  readonly counters: RenewalCounters = { renewed: 0, refused: 0, limited: 0, failed: 0 };
  readonly #provider: TrustProvider;
  readonly #perHour: number;
  /** By site. Kept when the edge goes: to connect anew does not make good. */
  readonly #rate: RateLimit;
  readonly #clock: Clock;
  readonly #onFailure: RenewalServiceOptions['onFailure'];

  constructor(provider: TrustProvider, options: RenewalServiceOptions) {
    const { maxRenewalsPerHour, clock, onFailure } = options;
    this.#provider = provider;
    this.#perHour = maxRenewalsPerHour;
    // Sites are the operator's: there are no more than there are.
    this.#rate = new RateLimit(
      maxRenewalsPerHour / HOUR_SECONDS,
      maxRenewalsPerHour,
      Number.POSITIVE_INFINITY
    );
    this.#clock = clock;
    this.#onFailure = onFailure;
  }

  /** Never rejects. */
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
