/**
 * Keeps an edge's certificate good: renews it in time, follows the cloud from one CA to the next, and takes a
 * new token when all of that came too late.
 * @module
 */
import type { ControlClient } from '../control/index.ts';
import type { CertificateRenewerOptions, Credentials } from '../pki/index.ts';
import { CloseCode, type DialledTunnel } from '../tunnel/index.ts';
import { CertificateKeeper } from './certificate-keeper.ts';
import type { SiteCredentials } from './site-credentials.ts';

export interface CredentialKeeperOptions
  extends Pick<CertificateRenewerOptions, 'clock' | 'random'> {
  readonly credentials: SiteCredentials;
  readonly control: Pick<ControlClient, 'renew' | 'on'>;
  readonly tunnel: Pick<DialledTunnel, 'renew' | 'on'>;
  /** Takes a line for the operator; default none. */
  readonly log?: (line: string) => void;
}

export class CredentialKeeper {
  readonly #options: CredentialKeeperOptions;
  readonly #certificate: CertificateKeeper;
  #enrolment: Promise<boolean> | undefined;
  /** What a token has brought and the tunnel has not taken. */
  #untaken: Credentials | undefined;

  constructor(options: CredentialKeeperOptions) {
    const { credentials, control, tunnel, clock, random } = options;
    this.#options = options;
    this.#certificate = new CertificateKeeper({
      credentials: credentials.credentials,
      renew: (csrPem) => control.renew(csrPem),
      apply: async (renewed) => {
        await credentials.save(renewed);
        await tunnel.renew(renewed);
        this.#untaken = undefined;
      },
      log: (line) => this.#log(line),
      remedy: 'enrol with a new token',
      onRenewed: () => this.#log(`certificate renewed, ${this.#certificate.goodUntil}`),
      onFailure: (state) => {
        if (state === 'expired') void this.enrolAnew();
      },
      ...(clock && { clock }),
      ...(random && { random }),
    });
    control.on('trust', (trust) => void this.#certificate.follow(trust));
    tunnel.on('refused', (_error, code) => {
      if (MENDABLE.has(code)) void this.enrolAnew();
    });
  }

  /**
   * Tries a token; joins an attempt that is under way. If the tunnel could not take the certificate that an
   * earlier token has brought, it is given that one again.
   *
   * @param token by default the one there is now
   * @returns whether it has brought a certificate that the tunnel takes.
   */
  enrolAnew(token?: string): Promise<boolean> {
    this.#enrolment ??= this.#enrol(token).finally(() => {
      this.#enrolment = undefined;
    });
    return this.#enrolment;
  }

  /** Stops. Safe to call twice. */
  close(): Promise<void> {
    return this.#certificate.close();
  }

  async #enrol(token: string | undefined): Promise<boolean> {
    const { credentials, tunnel } = this.#options;
    try {
      if (this.#untaken === undefined) {
        const enrolled = await credentials.enrolAnew(token);
        this.#certificate.replace(enrolled);
        this.#log(`enrolled anew, ${this.#certificate.goodUntil}`);
        this.#untaken = enrolled;
      }
      await tunnel.renew(this.#untaken);
      this.#untaken = undefined;
      return true;
    } catch (error) {
      this.#log(`not enrolled anew: ${(error as Error).message}`);
      return false;
    }
  }

  #log(text: string): void {
    this.#options.log?.(`${this.#options.credentials.identity.site}: ${text}`);
  }
}

/** Refusals that another certificate would mend, and so a new token. */
export const MENDABLE: ReadonlySet<string> = new Set([CloseCode.Untrusted, CloseCode.Revoked]);
