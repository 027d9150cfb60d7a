/**
 * How long the listening side lets a tunnel live on a certificate: TLS looks at it in the handshake only,
 * and without this a peer that never renews would stay for ever.
 *
 * The time that counts is the wall clock's. Timers run on a clock that never goes back, and that stands still while
 * a machine sleeps. So the wall clock is read again at least once a minute.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import type { Clock } from '../base/clock.ts';
import { ApiMisuseError } from '../errors.ts';

export interface ExpiryOptions {
  readonly clock: Clock;
  /** How long after its end a certificate is good still, in ms. */
  readonly graceMs: number;
  /** Called once, never from within `watch`. */
  readonly onExpired: (certificate: X509Certificate) => void;
}

/** Of one tunnel. */
export class Expiry {
  readonly #options: ExpiryOptions;
  #isStopped = false;
  #cancelTimer: () => void = () => {};

  constructor(options: ExpiryOptions) {
    this.#options = options;
  }

  /** Looks at this certificate from now on, and at the one before no more. Does nothing after `stop`. */
  watch(certificate: X509Certificate): void {
    this.#cancelTimer();
    if (this.#isStopped) return;
    this.#wait(certificate, Date.parse(certificate.validTo) + this.#options.graceMs);
  }

  stop(): void {
    this.#isStopped = true;
    this.#cancelTimer();
  }

  #wait(certificate: X509Certificate, endMs: number): void {
    const { clock, onExpired } = this.#options;
    const leftMs = endMs - clock.wallMs();
    this.#cancelTimer = clock.after(leftMs > 0 ? Math.min(leftMs, CHECK_MS) : 0, () => {
      // Not the other way round: then an end that cannot be read would never come.
      if (endMs > clock.wallMs()) {
        this.#wait(certificate, endMs);
        return;
      }
      this.stop();
      onExpired(certificate);
    });
  }
}

/** @throws {ApiMisuseError} if it is not a whole number of milliseconds, 0 or more. */
export function checkGrace(graceMs: number): number {
  if (Number.isSafeInteger(graceMs) && graceMs >= 0) return graceMs;
  throw new ApiMisuseError(`expiryGraceMs must be a whole number, 0 or more, not ${graceMs}`);
}

/** Clocks of gateways differ. */
export const DEFAULT_GRACE_MS = 60_000;
/** Far below the 2^31 ms that a timer of Node can wait. */
const CHECK_MS = 60_000;
