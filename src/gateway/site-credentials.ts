/**
 * The key and certificate of an edge gateway in its secrets: obtained with a token at the first start, read later, and
 * replaced by each renewal. Expired ones are replaced with a new token. `cloud.json` beside them holds the tunnel
 * endpoints that the cloud sent at the enrolment.
 *
 * An operator who has certificates of another CA stores `key.pem`, `certificate.pem` (the gateway's, then those between
 * it and the root) and `ca.pem` (the roots) instead, and needs no token.
 * @module
 */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import * as v from 'valibot';
import { type Clock, systemClock } from '../base/clock.ts';
import { formatHostPort, type HostPort } from '../base/host-port.ts';
import { HostPortSchema } from '../base/host-port-schema.ts';
import { parseSchema, type Schema } from '../base/schema.ts';
import { CertificateError, ConfigError, EnrolmentError, type EnrolmentFault } from '../errors.ts';
import {
  type Credentials,
  type Enrolment,
  enrol,
  type GatewayIdentity,
  identityOfCertificate,
  identityOfCredentials,
} from '../pki/index.ts';
import type { Secrets } from '../store/index.ts';
import { bytesOf, locationOf, readSecret, requireSecret } from './secret-text.ts';

export type SiteIdentity = GatewayIdentity & { readonly role: 'site' };

export interface SiteCredentialsOptions {
  readonly secrets: Secrets;
  /** Returns the current token, or throws why there is none. Called when a token is needed. */
  readonly token: () => string | Promise<string>;
  /** What an operator does to provide a new token, for messages; default `enrol with a new token`. */
  readonly remedy?: string;
  /** Redeems a token; default `enrol` of the library. */
  readonly enrol?: (token: string) => Promise<Enrolment>;
  /** Default: the clocks of the system. */
  readonly clock?: Clock | undefined;
}

/** The stored credentials of one site. */
export class SiteCredentials {
  readonly identity: SiteIdentity;
  readonly #options: SiteCredentialsOptions;
  #current: Credentials;
  /** The content of `cloud.json`. */
  #tunnelsJson: string | undefined;
  /** The last token that was refused; it is not tried again. */
  #refusedToken = '';
  /** An enrolment that could not be stored. Its token is used up. */
  #unsaved: Enrolment | undefined;

  private constructor(
    credentials: Credentials,
    identity: SiteIdentity,
    tunnelsJson: string | undefined,
    options: SiteCredentialsOptions
  ) {
    this.#current = credentials;
    this.identity = identity;
    this.#tunnelsJson = tunnelsJson;
    this.#options = options;
  }

  /**
   * Reads the credentials. They may have expired, or not fit together: see `fault`.
   *
   * @returns undefined if there are none.
   * @throws {CertificateError} if the certificate is damaged, or does not belong to a site.
   * @throws {EnvironmentError} if secrets cannot be read.
   */
  static async read(options: SiteCredentialsOptions): Promise<SiteCredentials | undefined> {
    const { secrets } = options;
    await finishInterruptedChange(secrets);
    if ((await secrets.get(CERTIFICATE)) === undefined) return undefined;
    const credentials = await read(secrets);
    const identity = siteIdentityOf(credentials, secrets);
    return new SiteCredentials(credentials, identity, await readSecret(secrets, CLOUD), options);
  }

  /**
   * Reads the credentials. Redeems the token if there are none, or if they have expired or do not fit together.
   *
   * @throws {EnrolmentError} if the token is refused.
   * @throws {CertificateError} if the certificate does not belong to a site; or if it has a `fault`, and enrolling again
   *   has failed.
   * @throws {EnvironmentError} if secrets cannot be read or written, or no enrolment endpoint answers.
   */
  static async open(options: SiteCredentialsOptions): Promise<SiteCredentials> {
    const { secrets, remedy = 'enrol with a new token' } = options;
    let site = await SiteCredentials.read(options);
    if (site === undefined) {
      const token = await options.token();
      await checkWritable(secrets);
      await saveEnrolment(secrets, await (options.enrol ?? enrol)(token));
      site = (await SiteCredentials.read(options))!;
    }
    const { fault } = site;
    if (fault === undefined) return site;
    try {
      await site.enrolAnew();
      return site;
    } catch (cause) {
      const reason = (cause as Error).message;
      throw new CertificateError(`${fault}: ${remedy} (${reason})`, { cause });
    }
  }

  /** Why the credentials are not usable, one sentence; a new token replaces them. Undefined if they are usable. */
  get fault(): string | undefined {
    const { secrets, clock = systemClock } = this.#options;
    return faultOf(this.#current, secrets, clock.wallMs());
  }

  /** Whether the certificate has expired. */
  get hasRunOut(): boolean {
    const { clock = systemClock } = this.#options;
    return Date.parse(new X509Certificate(this.#current.cert).validTo) <= clock.wallMs();
  }

  /**
   * The tunnel endpoints that the cloud sent at the last enrolment; empty if it sent none.
   *
   * @throws {ConfigError} if `cloud.json` is damaged; the error names its location.
   */
  get tunnels(): readonly HostPort[] {
    return this.#tunnelsJson === undefined
      ? []
      : tunnelsOf(this.#tunnelsJson, locationOf(this.#options.secrets, CLOUD));
  }

  /** The credentials that were stored last. */
  get credentials(): Credentials {
    return this.#current;
  }

  /**
   * Stores renewed credentials.
   *
   * @throws {EnvironmentError} if it cannot be stored.
   */
  async save(credentials: Credentials): Promise<void> {
    await save(this.#options.secrets, credentials);
    this.#current = credentials;
    this.#unsaved = undefined;
  }

  /**
   * Replaces the credentials by redeeming a token. If the credentials of an earlier token could not be stored, they are
   * stored instead.
   *
   * @param token default: the current token
   * @throws {EnrolmentError} if the token is refused, was refused before, or is for another site.
   * @throws {EnvironmentError} if the certificate cannot be stored; call again.
   */
  async enrolAnew(token?: string): Promise<Credentials> {
    if (this.#unsaved !== undefined) return this.#keep(this.#unsaved);
    const text = token ?? (await this.#options.token());
    if (text === this.#refusedToken) throw new EnrolmentError('used', 'there is no new token');
    await checkWritable(this.#options.secrets);
    try {
      const enrolment = await (this.#options.enrol ?? enrol)(text);
      const { site } = enrolment.identity as SiteIdentity;
      if (site !== this.identity.site) {
        const fault = `the token is for "${site}", not for "${this.identity.site}"`;
        throw new EnrolmentError('wrong-site', fault);
      }
      return await this.#keep(enrolment);
    } catch (error) {
      if (error instanceof EnrolmentError && !TOKEN_STAYS_VALID.has(error.fault))
        this.#refusedToken = text;
      throw error;
    }
  }

  async #keep(enrolment: Enrolment): Promise<Credentials> {
    this.#unsaved = enrolment;
    await saveEnrolment(this.#options.secrets, enrolment);
    const { key, cert, ca, tunnels } = enrolment;
    this.#current = { key, cert, ca };
    if (tunnels.length > 0) this.#tunnelsJson = jsonOfTunnels(tunnels);
    this.#unsaved = undefined;
    return this.#current;
  }
}

/** Tests that credentials can be stored, before a token is used up. @throws {EnvironmentError} if they cannot. */
async function checkWritable(secrets: Secrets): Promise<void> {
  await secrets.commit({ [PROBE]: bytesOf(' '.repeat(PROBE_BYTES)) });
  await secrets.commit({ [PROBE]: undefined });
}

function save(secrets: Secrets, credentials: Credentials): Promise<void> {
  return secrets.commit(changesOf(credentials));
}

/** Stores an enrolment in one commit. If the cloud sent no endpoints, the previous ones stay. */
function saveEnrolment(secrets: Secrets, { tunnels, ...credentials }: Enrolment): Promise<void> {
  return secrets.commit({
    ...changesOf(credentials),
    ...(tunnels.length > 0 ? { [CLOUD]: bytesOf(jsonOfTunnels(tunnels)) } : {}),
  });
}

function jsonOfTunnels(tunnels: readonly HostPort[]): string {
  return JSON.stringify({ tunnels: tunnels.map(formatHostPort) });
}

function changesOf({ key, cert, ca }: Credentials): Record<string, Uint8Array> {
  return { [KEY]: bytesOf(key), [CERTIFICATE]: bytesOf(cert), [CA]: bytesOf(ca) };
}

/** @throws {ConfigError} if the text is not a list of endpoints. */
function tunnelsOf(text: string, path: string): readonly HostPort[] {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    const fault = `is damaged: ${(cause as Error).message}`;
    throw new ConfigError(path, `${fault}; name the tunnel endpoints by the option cloud`, {
      cause,
    });
  }
  return parseSchema(CloudSchema, json, path).tunnels;
}

/** Completes a change that an earlier version began: it wrote one file after the other, the new key to `next-key.pem`. */
async function finishInterruptedChange(secrets: Secrets): Promise<void> {
  const nextKey = await readSecret(secrets, NEXT_KEY);
  if (nextKey === undefined) return;
  const certificate = await readSecret(secrets, CERTIFICATE);
  const isDone = certificate !== undefined && fits(nextKey, certificate);
  await secrets.commit({
    ...(isDone ? { [KEY]: bytesOf(nextKey) } : {}),
    [NEXT_KEY]: undefined,
  });
}

function fits(privateKeyPem: string, certificatePem: string): boolean {
  try {
    return new X509Certificate(certificatePem).checkPrivateKey(createPrivateKey(privateKeyPem));
  } catch {
    return false;
  }
}

async function read(secrets: Secrets): Promise<Credentials> {
  return {
    key: await requireSecret(secrets, KEY),
    cert: await requireSecret(secrets, CERTIFICATE),
    ca: await requireSecret(secrets, CA),
  };
}

/** @throws {CertificateError} if the certificate is damaged, or does not belong to a site. */
function siteIdentityOf({ cert }: Credentials, secrets: Secrets): SiteIdentity {
  const path = locationOf(secrets, CERTIFICATE);
  let identity: GatewayIdentity;
  try {
    identity = identityOfCertificate(new X509Certificate(cert));
  } catch (cause) {
    throw new CertificateError(`${path} is damaged: ${(cause as Error).message}`, { cause });
  }
  if (identity.role === 'site') return identity;
  throw new CertificateError(`${path} is not the certificate of a site`);
}

/** Returns why the cloud would refuse the credentials; undefined if nothing is wrong with them. */
function faultOf(credentials: Credentials, secrets: Secrets, nowMs: number): string | undefined {
  const path = locationOf(secrets, CERTIFICATE);
  try {
    identityOfCredentials(credentials);
  } catch (error) {
    const files = `${locationOf(secrets, KEY)}, ${path} and ${locationOf(secrets, CA)}`;
    return `${files} do not fit together: ${(error as Error).message}`;
  }
  const { validTo } = new X509Certificate(credentials.cert);
  return nowMs < Date.parse(validTo) ? undefined : `${path} expired on ${validTo}`;
}

/** Faults that do not use up the token: it was not sent, or the cloud's host program refused the site. */
const TOKEN_STAYS_VALID: ReadonlySet<EnrolmentFault> = new Set(['wrong-ca', 'not-authorized']);
const KEY = 'key.pem';
const NEXT_KEY = 'next-key.pem';
const CA = 'ca.pem';
const CERTIFICATE = 'certificate.pem';
const CLOUD = 'cloud.json';
const PROBE = 'probe';
const CloudSchema: Schema<{ readonly tunnels: readonly HostPort[] }> = /* @__PURE__ */ v.object({
  tunnels: v.array(HostPortSchema),
});
/** More bytes than a key, a certificate with its chain, and the trust anchors need. */
const PROBE_BYTES = 65_536;
