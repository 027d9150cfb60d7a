/**
 * Keeps the edge's certificate good: renews it in time, follows the cloud from one CA to the next, and
 * takes a new token when all of that came too late.
 * @module
 */
import {
  CertificateRenewer,
  CloseCode,
  type ControlClient,
  type DialledTunnel,
  type TunnelCredentials,
} from 'virtual-presence';
import { tunnelCredentials } from '../program/credentials.ts';
import type { EdgeTrust } from './trust.ts';

export interface CertificateKeeperOptions {
  readonly trust: EdgeTrust;
  readonly control: ControlClient;
  readonly tunnel: DialledTunnel;
  readonly log: (line: string) => void;
}

export class CertificateKeeper {
  readonly #options: CertificateKeeperOptions;
  readonly #renewer: CertificateRenewer;
  #enrolment: Promise<boolean> | undefined;
  /** What a token has brought and the tunnel has not taken. */
  #untaken: TunnelCredentials | undefined;

  constructor(options: CertificateKeeperOptions) {
    const { trust, control, tunnel } = options;
    this.#options = options;
    this.#renewer = new CertificateRenewer({
      credentials: trust.credentials,
      renew: (csrPem) => control.renew(csrPem),
      apply: async (credentials) => {
        trust.save(credentials);
        await tunnel.renew(tunnelCredentials(credentials));
        this.#untaken = undefined;
      },
    });
    const renewer = this.#renewer;
    renewer.on('renewed', () => this.#log(`certificate renewed, ${this.#goodUntil}`));
    renewer.on('expired', (notAfter) => {
      this.#log(`the certificate ran out on ${notAfter.toISOString()}: enrol with a new token`);
    });
    renewer.on('failed', (error, retryInMs) => {
      const seconds = Math.round(retryInMs / 1000);
      this.#log(`certificate not renewed, trying again in ${seconds} s: ${error.message}`);
      if (renewer.state === 'expired') void this.enrolAnew();
    });
    control.on('trust', ({ caPem, renew }) => void this.#follow(caPem, renew));
    tunnel.on('refused', (_error, code) => {
      if (MENDABLE.has(code)) void this.enrolAnew();
    });
  }

  /**
   * Tries the token that is in the file now; returns whether it has brought a certificate that the tunnel
   * takes. If the tunnel could not take one that an earlier token has brought, it is given that one again.
   */
  enrolAnew(): Promise<boolean> {
    this.#enrolment ??= this.#enrol().finally(() => {
      this.#enrolment = undefined;
    });
    return this.#enrolment;
  }

  close(): void {
    this.#renewer.close();
  }

  async #enrol(): Promise<boolean> {
    const { trust, tunnel } = this.#options;
    try {
      if (this.#untaken === undefined) {
        const credentials = await trust.enrolAnew();
        this.#renewer.replace(credentials);
        this.#log(`enrolled anew, ${this.#goodUntil}`);
        this.#untaken = tunnelCredentials(credentials);
      }
      await tunnel.renew(this.#untaken);
      this.#untaken = undefined;
      return true;
    } catch (error) {
      this.#log(`not enrolled anew: ${(error as Error).message}`);
      return false;
    }
  }

  async #follow(caPem: string, renew: boolean): Promise<void> {
    // What fails is told as `failed`, and tried again.
    await this.#renewer.setTrust(caPem).catch((error: Error) => this.#log(error.message));
    if (renew) await this.#renewer.renewNow().catch(() => {});
  }

  get #goodUntil(): string {
    return `good until ${this.#renewer.notAfter.toISOString()}`;
  }

  #log(text: string): void {
    this.#options.log(`${this.#options.trust.identity.site}: ${text}`);
  }
}

/** Refusals that another certificate would mend, and so a new token. */
export const MENDABLE: ReadonlySet<string> = new Set([CloseCode.Untrusted, CloseCode.Revoked]);
