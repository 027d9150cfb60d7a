/**
 * Keeps an edge's certificate good: renews it in time, follows the cloud from one CA to the next, and takes a
 * new token when all of that came too late.
 * @module
 */
import type { ControlClient } from '../control/index.ts';
import { type Logger, silentLogger } from '../observe/index.ts';
import type { CertificateRenewerOptions, Credentials } from '../pki/index.ts';
import { failureOf, type MtlsTunnel } from '../tunnel/index.ts';
import { CertificateKeeper } from './certificate-keeper.ts';
import type { SiteCredentials } from './site-credentials.ts';

export interface CredentialKeeperOptions
  extends Pick<CertificateRenewerOptions, 'clock' | 'random'> {
  readonly credentials: SiteCredentials;
  readonly control: Pick<ControlClient, 'renew' | 'on'>;
  readonly tunnel: Pick<MtlsTunnel, 'updateCredentials' | 'on'>;
  /** Takes the lines for an operator. Default: nobody is told. */
  readonly logger?: Logger | undefined;
}

export class CredentialKeeper implements AsyncDisposable {
  readonly #options: CredentialKeeperOptions;
  readonly #logger: Logger;
  readonly #certificate: CertificateKeeper;
  #closing: Promise<void> | undefined;
  /** The attempt under way, or the last one of those that are to come. */
  #enrolment: { readonly token: string | undefined; readonly done: Promise<void> } | undefined;
  /** What a token has brought and the tunnel has not taken. */
  #untaken: Credentials | undefined;

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
        this.#untaken = undefined;
      },
      logger,
      about: `${site}: `,
      fields: { site },
      remedy: 'enrol with a new token',
      onRenewed: () => this.#log(`certificate renewed, ${this.#certificate.goodUntil}`),
      onFailure: (state) => {
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

  /**
   * Tries the token that there is now, and logs what comes of it.
   *
   * @returns whether it has brought a certificate that the tunnel takes.
   */
  enrolAnew(): Promise<boolean> {
    return this.enrol().then(
      () => true,
      () => false
    );
  }

  /**
   * Tries a token. It joins an attempt that is under way, unless that is with another token than the one given: then
   * this one follows. If the tunnel could not take the certificate that an earlier token has brought, it is given that
   * one again.
   *
   * @param token by default the one there is now
   * @throws {EnrolmentError} if the token is refused.
   * @throws {PresenceError} what else `SiteCredentials.enrolAnew` or the tunnel has thrown.
   */
  enrol(token?: string): Promise<void> {
    const before = this.#enrolment;
    if (before !== undefined && (token === undefined || token === before.token)) return before.done;
    // What becomes of that one, others are told.
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

  /** Stops, when what is under way has ended. Safe to call twice. */
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
      if (this.#untaken === undefined) {
        const enrolled = await credentials.enrolAnew(token);
        this.#certificate.replace(enrolled);
        this.#log(`enrolled anew, ${this.#certificate.goodUntil}`);
        this.#untaken = enrolled;
      }
      await tunnel.updateCredentials(this.#untaken);
      this.#untaken = undefined;
    } catch (error) {
      this.#log(`not enrolled anew: ${(error as Error).message}`);
      throw error;
    }
  }

  #log(text: string): void {
    const { site } = this.#options.credentials.identity;
    this.#logger.info({ site }, `${site}: ${text}`);
  }
}
