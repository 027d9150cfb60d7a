/**
 * The key and certificate of an edge gateway among its secrets: fetched with the token at the first start, then
 * read, and replaced whenever there are newer ones. Those that have run out are replaced with a new token.
 *
 * With them, `cloud.json` keeps where the cloud has said that its tunnel is.
 *
 * An operator who has certificates of another CA puts `key.pem`, `certificate.pem` (the gateway's, then those
 * between it and the root) and `ca.pem` (the roots) there instead, and needs no token.
 * @module
 */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import * as v from 'valibot';
import { type Clock, systemClock } from '../base/clock.ts';
import { formatHostPort, type HostPort, HostPortSchema } from '../base/host-port.ts';
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
  /** Returns the token there is now, or throws why there is none. It is asked when one is needed. */
  readonly token: () => string | Promise<string>;
  /** How an operator gives a new token, for messages; default `enrol with a new token`. */
  readonly remedy?: string;
  /** Redeems a token; default `enrol` of the library. */
  readonly enrol?: (token: string) => Promise<Enrolment>;
  /** Default: the clocks of the system. */
  readonly clock?: Clock | undefined;
}

export class SiteCredentials {
  readonly identity: SiteIdentity;
  readonly #options: SiteCredentialsOptions;
  #current: Credentials;
  /** What `cloud.json` says. */
  #cloudText: string | undefined;
  /** A token that is no good is not tried twice. */
  #refusedToken = '';
  /** What a token has brought and could not be stored: the token is spent. */
  #unsaved: Enrolment | undefined;

  private constructor(
    credentials: Credentials,
    identity: SiteIdentity,
    cloudText: string | undefined,
    options: SiteCredentialsOptions
  ) {
    this.#current = credentials;
    this.identity = identity;
    this.#cloudText = cloudText;
    this.#options = options;
  }

  /**
   * Reads the credentials. They may have run out, or not fit together: `fault` says so.
   *
   * @returns undefined if there are none.
   * @throws {CertificateError} if the certificate cannot be read, or is not a site's.
   * @throws {EnvironmentError} if secrets cannot be read.
   */
  static async read(options: SiteCredentialsOptions): Promise<SiteCredentials | undefined> {
    const { secrets } = options;
    await finishEarlierChange(secrets);
    if ((await secrets.get(CERTIFICATE)) === undefined) return undefined;
    const credentials = await read(secrets);
    const identity = siteOf(credentials, secrets);
    return new SiteCredentials(credentials, identity, await readSecret(secrets, CLOUD), options);
  }

  /**
   * Reads the credentials. If there are none, or they have run out or do not fit together, the token is redeemed.
   *
   * @throws {EnrolmentError} if the token is refused.
   * @throws {CertificateError} if the certificate is not a site's; or is of another CA or has run out, and no
   *   token mends that.
   * @throws {EnvironmentError} if secrets cannot be read or written, or no enrolment endpoint answers.
   */
  static async open(options: SiteCredentialsOptions): Promise<SiteCredentials> {
    const { secrets, remedy = 'enrol with a new token' } = options;
    let site = await SiteCredentials.read(options);
    if (site === undefined) {
      const token = await options.token();
      await checkRoom(secrets);
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

  /** Why the credentials do not serve, which a new token mends; undefined if they do. */
  get fault(): string | undefined {
    const { secrets, clock = systemClock } = this.#options;
    return faultOf(this.#current, secrets, clock.wallMs());
  }

  /** Whether the certificate has run out. */
  get hasRunOut(): boolean {
    const { clock = systemClock } = this.#options;
    return Date.parse(new X509Certificate(this.#current.cert).validTo) <= clock.wallMs();
  }

  /**
   * The tunnel endpoints that the cloud told at the last enrolment; empty if it told none.
   *
   * @throws {ConfigError} if what is kept of that is damaged; the error names it.
   */
  get tunnels(): readonly HostPort[] {
    return this.#cloudText === undefined
      ? []
      : tunnelsOf(this.#cloudText, locationOf(this.#options.secrets, CLOUD));
  }

  /** What was stored last. */
  get credentials(): Credentials {
    return this.#current;
  }

  /**
   * Keeps what a renewal has brought.
   *
   * @throws {EnvironmentError} if it cannot be stored.
   */
  async save(credentials: Credentials): Promise<void> {
    await save(this.#options.secrets, credentials);
    this.#current = credentials;
    this.#unsaved = undefined;
  }

  /**
   * Replaces a certificate that has run out, with a token. If a token has brought a certificate before that could
   * not be stored, that one is stored.
   *
   * @param token by default the one there is now
   * @throws {EnrolmentError} if it is refused, was before, or is for another site.
   * @throws {EnvironmentError} if the certificate cannot be stored; call again.
   */
  async enrolAnew(token?: string): Promise<Credentials> {
    if (this.#unsaved !== undefined) return this.#keep(this.#unsaved);
    const text = token ?? (await this.#options.token());
    if (text === this.#refusedToken) throw new EnrolmentError('used', 'no new token is there');
    await checkRoom(this.#options.secrets);
    try {
      const enrolment = await (this.#options.enrol ?? enrol)(text);
      const { site } = enrolment.identity as SiteIdentity;
      if (site !== this.identity.site) {
        const fault = `the token is for "${site}", not for "${this.identity.site}"`;
        throw new EnrolmentError('wrong-site', fault);
      }
      return await this.#keep(enrolment);
    } catch (error) {
      if (error instanceof EnrolmentError && !SPARING.has(error.fault)) this.#refusedToken = text;
      throw error;
    }
  }

  async #keep(enrolment: Enrolment): Promise<Credentials> {
    this.#unsaved = enrolment;
    await saveEnrolment(this.#options.secrets, enrolment);
    const { key, cert, ca, tunnels } = enrolment;
    this.#current = { key, cert, ca };
    if (tunnels.length > 0) this.#cloudText = cloudTextOf(tunnels);
    this.#unsaved = undefined;
    return this.#current;
  }
}

/** A token is good once: that its certificate can be stored is tried before. */
async function checkRoom(secrets: Secrets): Promise<void> {
  await secrets.commit({ [PROBE]: bytesOf(' '.repeat(ROOM_BYTES)) });
  await secrets.commit({ [PROBE]: undefined });
}

function save(secrets: Secrets, credentials: Credentials): Promise<void> {
  return secrets.commit(changesOf(credentials));
}

/** What an enrolment has brought is kept in one commit. A cloud that tells no endpoints leaves those of before. */
function saveEnrolment(secrets: Secrets, { tunnels, ...credentials }: Enrolment): Promise<void> {
  return secrets.commit({
    ...changesOf(credentials),
    ...(tunnels.length > 0 ? { [CLOUD]: bytesOf(cloudTextOf(tunnels)) } : {}),
  });
}

function cloudTextOf(tunnels: readonly HostPort[]): string {
  return JSON.stringify({ tunnels: tunnels.map(formatHostPort) });
}

function changesOf({ key, cert, ca }: Credentials): Record<string, Uint8Array> {
  return { [KEY]: bytesOf(key), [CERTIFICATE]: bytesOf(cert), [CA]: bytesOf(ca) };
}

/** @throws {ConfigError} if the text is no list of endpoints. */
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

/** Earlier versions wrote one file after the other, and left the new key under a name of its own meanwhile. */
async function finishEarlierChange(secrets: Secrets): Promise<void> {
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

/** @throws {CertificateError} if the certificate cannot be read, or is not a site's. */
function siteOf({ cert }: Credentials, secrets: Secrets): SiteIdentity {
  const path = locationOf(secrets, CERTIFICATE);
  let identity: GatewayIdentity;
  try {
    identity = identityOfCertificate(new X509Certificate(cert));
  } catch (cause) {
    throw new CertificateError(`${path} is damaged: ${(cause as Error).message}`, { cause });
  }
  if (identity.role === 'site') return identity;
  throw new CertificateError(`${path} is not the one of a site`);
}

/** What the cloud would refuse anyway is told here, where it can be mended. */
function faultOf(credentials: Credentials, secrets: Secrets, nowMs: number): string | undefined {
  const path = locationOf(secrets, CERTIFICATE);
  try {
    identityOfCredentials(credentials);
  } catch (error) {
    const files = `${locationOf(secrets, KEY)}, ${path} and ${locationOf(secrets, CA)}`;
    return `${files} do not fit: ${(error as Error).message}`;
  }
  const { validTo } = new X509Certificate(credentials.cert);
  return nowMs < Date.parse(validTo) ? undefined : `${path} ran out on ${validTo}`;
}

/** Faults after which the token may still be good: it was not shown, or the host of the cloud has decided against it. */
const SPARING: ReadonlySet<EnrolmentFault> = new Set(['wrong-ca', 'not-authorized']);
const KEY = 'key.pem';
const NEXT_KEY = 'next-key.pem';
const CA = 'ca.pem';
const CERTIFICATE = 'certificate.pem';
const CLOUD = 'cloud.json';
const PROBE = 'probe';
const CloudSchema: Schema<{ readonly tunnels: readonly HostPort[] }> = /* @__PURE__ */ v.object({
  tunnels: v.array(HostPortSchema),
});
/** More than a key, a certificate with its chain, and the trust anchors take. */
const ROOM_BYTES = 65_536;
