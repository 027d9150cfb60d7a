/**
 * The server certificate of the enrolment server. Its own authority issues it to the identity `cloud`. It is renewed
 * at half of its lifetime, when the CA changes, and when the clock that issued it turns out to have been wrong.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import type { CertificateAuthority } from './authority.ts';
import type { Credentials } from './credentials.ts';
import { generateGatewayKey } from './keys.ts';
import { createSigningRequest } from './signing-request.ts';

export interface ServerCertificateOptions {
  readonly authority: CertificateAuthority;
  /** In ms; the certificate is renewed at half of it. */
  readonly lifetimeMs: number;
  readonly clock: Clock;
  /** Presents a new certificate from now on. The roots follow it, because a new site knows only the hash of one. */
  readonly use: (credentials: Pick<Credentials, 'key' | 'cert'>) => void;
  /** Receives the error of an automatic renewal that failed; it is tried again. */
  readonly onError: (error: unknown) => void;
}

export class ServerCertificate {
  readonly #options: ServerCertificateOptions;
  readonly #onTrust = (): void => this.#renewSoon();
  #cancelTimer: () => void = () => {};
  /** The number of the latest renewal; an earlier one that ends after it is ignored. */
  #renewal = 0;
  #isOpen = false;

  constructor(options: ServerCertificateOptions) {
    this.#options = options;
  }

  /** Takes the first certificate and renews it until `close`. */
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
    const renewal = ++this.#renewal;
    const { authority, lifetimeMs, clock, use } = this.#options;
    const { privateKeyPem } = generateGatewayKey();
    const { certificatePem, notBefore, notAfter } = await authority.issue(
      createSigningRequest(privateKeyPem),
      { trustDomain: authority.trustDomain, role: 'cloud' },
      // The port must open while the CA has expired, too: the certificate of the next CA will be presented there.
      { lifetimeMs, evenIfExpired: true }
    );
    // A later renewal may be by a later CA.
    if (renewal !== this.#renewal || !this.#isOpen) return;
    use({ key: privateKeyPem, cert: certificatePem + authority.trustBundlePem });
    // The CA may expire before the lifetime that was asked for.
    const halfMs = Math.min(notAfter.getTime() - notBefore.getTime(), lifetimeMs) / 2;
    this.#watch(halfMs, () => {
      const nowMs = clock.wallMs();
      return nowMs >= notBefore.getTime() && nowMs < notAfter.getTime();
    });
  }

  /**
   * Renews after `delayMs`, or as soon as the clock, which is read every hour, says that the certificate is not valid.
   */
  #watch(delayMs: number, isValid: () => boolean): void {
    const sliceMs = Math.min(delayMs, CHECK_MS);
    this.#after(sliceMs, () => {
      if (sliceMs < delayMs && isValid()) this.#watch(delayMs - sliceMs, isValid);
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

/** The wait before a failed renewal is tried again. */
const RETRY_MS = 60_000;
/** How often the clock is read. */
const CHECK_MS = 3_600_000;
