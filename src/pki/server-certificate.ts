/**
 * The certificate that the enrolment server shows: issued by its own authority to the identity
 * `cloud`, and renewed in time, whenever the CA changes, and when the clock by which it was issued turns out
 * to have been wrong.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import type { CertificateAuthority } from './authority.ts';
import type { Credentials } from './credentials.ts';
import { generateGatewayKey } from './keys.ts';
import { createSigningRequest } from './signing-request.ts';

export interface ServerCertificateOptions {
  readonly authority: CertificateAuthority;
  /** In ms; renewed at half of it. */
  readonly lifetimeMs: number;
  readonly clock: Clock;
  /** Puts it in the place of the one before. The roots stand behind it, for a new site knows but a hash. */
  readonly use: (credentials: Pick<Credentials, 'key' | 'cert'>) => void;
  /** Hears why a renewal in time failed; it is tried again. */
  readonly onError: (error: unknown) => void;
}

export class ServerCertificate {
  readonly #options: ServerCertificateOptions;
  readonly #onTrust = (): void => this.#renewSoon();
  #cancelTimer: () => void = () => {};
  /** Counts up; the last one decides. */
  #turn = 0;
  #isOpen = false;

  constructor(options: ServerCertificateOptions) {
    this.#options = options;
  }

  /** Takes the first certificate and keeps it new from then on, until `close`. */
  async open(): Promise<void> {
    this.#isOpen = true;
    this.#options.authority.on('trust', this.#onTrust);
    await this.renew();
  }

  close(): void {
    this.#isOpen = false;
    this.#cancelTimer();
    this.#options.authority.off('trust', this.#onTrust);
  }

  /** Takes a new key and certificate now. */
  async renew(): Promise<void> {
    const turn = ++this.#turn;
    const { authority, lifetimeMs, clock, use } = this.#options;
    const { privateKeyPem } = generateGatewayKey();
    const { certificatePem, notBefore, notAfter } = await authority.issue(
      createSigningRequest(privateKeyPem),
      { trustDomain: authority.trustDomain, role: 'cloud' },
      // The port is open also while the CA has run out: the next CA's certificate is shown there.
      { lifetimeMs, evenIfExpired: true }
    );
    // A later one may know of a later CA.
    if (turn !== this.#turn || !this.#isOpen) return;
    use({ key: privateKeyPem, cert: certificatePem + authority.trustBundlePem });
    // The CA may have less time left than was asked for.
    const halfMs = Math.min(notAfter.getTime() - notBefore.getTime(), lifetimeMs) / 2;
    this.#watch(halfMs, () => {
      const nowMs = clock.wallMs();
      return nowMs >= notBefore.getTime() && nowMs < notAfter.getTime();
    });
  }

  /**
   * Renews after `delayMs`, or as soon as the certificate does not hold by the clock, which is read every hour.
   */
  #watch(delayMs: number, holds: () => boolean): void {
    const sliceMs = Math.min(delayMs, CHECK_MS);
    this.#after(sliceMs, () => {
      if (sliceMs < delayMs && holds()) this.#watch(delayMs - sliceMs, holds);
      else this.#renewSoon();
    });
  }

  #renewSoon(): void {
    this.renew().catch((error: unknown) => {
      this.#options.onError(error);
      this.#after(RETRY_MS, () => this.#renewSoon());
    });
  }

  #after(delayMs: number, callback: () => void): void {
    this.#cancelTimer();
    if (this.#isOpen) this.#cancelTimer = this.#options.clock.after(delayMs, callback, true);
  }
}

/** Before a failed renewal is tried again. */
const RETRY_MS = 60_000;
/** How often the clock is read. */
const CHECK_MS = 3_600_000;
